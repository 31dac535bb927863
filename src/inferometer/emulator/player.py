"""Who decides when which request gets its next tokens: the seam between the HTTP server and what it emulates.

A `Player` is told of arrivals and departures and says what is due. It knows neither bytes nor sockets, and no clock but
the times that it is handed. `SchedulePlayer` plays a declared schedule, `system.SystemPlayer` a simulated system.
The times that a player yields are *due* times: absolute, and never corrected by how late a write was, so that a late
write does not push the ones after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from typing import Protocol

from inferometer.emulator.schedule import Asked, Schedule, steps
from inferometer.emulator.writes import LATE_NS

Due = tuple[int, int, int, bool]
"""(due_ns, key, tokens, last): `tokens` more for request `key`; `last` ends it. A plain tuple: one is made per token."""

FAILED = 0  # the tokens of a request that ends because it cannot be served


class Player(Protocol):
    """What the server asks of whoever decides. `key` numbers the requests; every time is absolute, of one clock."""

    @property
    def late_ns(self) -> int:
        """From where on a write is a late one: a power of two."""
        ...

    def refuses(self, asked: Asked) -> str | None:
        """Why a request is turned away (HTTP 400) instead of arriving; None: it is not."""
        ...

    def arrive(self, key: int, asked: Asked, now_ns: int) -> None:
        """A request came in."""
        ...

    def leave(self, key: int, now_ns: int) -> None:
        """A request is over before its last token: its client went away, or a fault cut it; an unknown key is no error."""
        ...

    def next_due_ns(self) -> int | None:
        """When `due` may have something to say again; None: not before another arrival."""
        ...

    def due(self, now_ns: int) -> Iterator[Due]:
        """What is due by `now_ns`, in order of time; `arrive` and `leave` may be called while it is read."""
        ...

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        ...

    @property
    def kv_usage(self) -> float:
        """The share of the KV cache that is in use, 0 to 1."""
        ...

    @property
    def preemptions(self) -> int:
        """How often a running request was put back to wait, so far."""
        ...


class SchedulePlayer:
    """Plays a `Schedule`: `slots` requests at a time, the others wait in order of arrival (FIFO)."""

    late_ns = LATE_NS
    preemptions = 0

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        # (due_ns, key, start_ns, tokens, the steps after this one): what each running request gets next
        self._heap: list[tuple[int, int, int, int, Iterator[tuple[int, int]]]] = []
        self._running: dict[int, int] = {}  # key -> tokens in its context
        self._waiting: OrderedDict[int, tuple[Asked, int]] = OrderedDict()

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """The running requests' contexts over `kv_tokens`; 0 where no capacity is declared."""
        capacity = self._schedule.kv_tokens
        return min(1.0, sum(self._running.values()) / capacity) if capacity else 0.0

    def refuses(self, _asked: Asked) -> str | None:
        """A schedule serves whatever is asked."""
        return None

    def arrive(self, key: int, asked: Asked, now_ns: int) -> None:
        """Start the request now, or queue it."""
        if self._schedule.slots and len(self._running) >= self._schedule.slots:
            self._waiting[key] = asked, now_ns
        else:
            self._start(key, asked, now_ns)

    def leave(self, key: int, now_ns: int) -> None:
        """Free the request's slot, or forget that it waits."""
        self._waiting.pop(key, None)
        if key in self._running:
            self._free(key, now_ns)

    def next_due_ns(self) -> int | None:
        """The earliest due time; it may be that of a request that has left, and then `due` yields nothing for it."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> Iterator[Due]:
        """The tokens due by `now_ns`. The heap is in order at every yield, so a caller may stop anywhere."""
        heap, running = self._heap, self._running
        while heap and heap[0][0] <= now_ns:
            due_ns, key, start_ns, tokens, rest = heap[0]
            if key not in running:
                heappop(heap)
                continue
            running[key] += tokens
            step = next(rest, None)
            if step is None:
                heappop(heap)
                self._free(key, due_ns)
            else:
                heapreplace(heap, (start_ns + step[0], key, start_ns, step[1], rest))
            yield due_ns, key, tokens, step is None

    def _start(self, key: int, asked: Asked, now_ns: int) -> None:
        self._running[key] = asked.prompt_tokens
        rest = steps(self._schedule, asked)
        offset_ns, tokens = next(rest)
        heappush(self._heap, (now_ns + offset_ns, key, now_ns, tokens, rest))

    def _free(self, key: int, at_ns: int) -> None:
        """The next in the queue starts when the slot was *due* to be free (or when it arrived): no drift under load."""
        self._running.pop(key, None)
        if self._waiting:
            waiting, (asked, arrived_ns) = self._waiting.popitem(last=False)
            self._start(waiting, asked, max(at_ns, arrived_ns))
