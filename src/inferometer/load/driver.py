"""The driver: one process, one loop, thousands of streams. It sends on time, stamps what arrives, and keeps the bytes.

While the clock runs it does nothing else: no JSON, no tokens, no tables. The rules:
1. Stamp first. In kernel mode the stamp is the kernel's own (SO_TIMESTAMPNS), so that whatever this loop is doing
   when a packet arrives does not move it; a stamp blurs only where one read holds several events.
2. Therefore the loop need not hurry: when it is busy it sleeps `PAUSE_NS` between passes and reads many streams per
   wake-up, which costs a third less CPU per token than waking for each (docs/why.md). Sends are never delayed by it.
3. Load is open: a request that finds no idle connection opens one. There is no pool limit to hide behind.
4. Every request that starts ends as one record in the spool, whatever happens to it.

Subtle: epoll's own timeout has a resolution of 1 ms, rounded up, which would make every send late. So the last
stretch before a send is waited for with `select` on the epoll descriptor, which has microseconds.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from itertools import cycle
from typing import Any

from inferometer.agenda import Agenda, Start
from inferometer.clock import MILLISECOND, SECOND, anchor
from inferometer.load import spool as ends
from inferometer.load.connection import (
    ANCILLARY_BYTES,
    BUSY,
    CONNECTING,
    HANDSHAKE,
    IDLE,
    READ_BYTES,
    TIMESPEC,
    TUNNEL,
    Connection,
    tls_context,
)
from inferometer.load.framing import LAST_CHUNK, NEVER, Framing, ended_with_trailers, framing
from inferometer.load.gauges import Gauges, lag_bucket
from inferometer.load.options import Drive, Endpoint, Target
from inferometer.load.replies import Replies
from inferometer.load.spool import Ending, Spool
from inferometer.timeline import ABSENT

now_ns = time.monotonic_ns

PAUSE_NS = 250_000
BLOCKED_NS = 20_000  # a wait that took longer did wait: what it returned has just become readable
BACKLOG = 256  # noted records beyond which more than one is written per pass
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
BUSY_BATCH = 2  # a pass that finds this many readable streams is followed by a pause
WATCH_NS = 250 * MILLISECOND
SPILL_BYTES = 16_384  # a live request whose backlog is larger is written out as a segment
SPARE = 4  # connections opened ahead of need, at least
MAX_RESPONSE_BYTES = 64 << 20
MAX_HEAD_BYTES = 65_536
STALE_NS = SECOND // 4
RETRY_PAUSE_NS = SECOND // 2
EVENT_BYTES = 16_384  # bytes allowed per allowed event
RETRYABLE_STATUS = frozenset({429, 502, 503, 504})


class Driver:
    """Drives one stripe of a plan against one target. Everything is ready before `run` starts the clock."""

    def __init__(
        self,
        agenda: Agenda,
        requests: Callable[[int], memoryview],
        target: Target,
        drive: Drive,
        spool: Spool,
        *,
        allowed_events: Callable[[int], int],
        endpoint_of: Callable[[int], int],
        has_token: Callable[[list[bytes]], bool],
        replies: Replies | None = None,
    ) -> None:
        self.agenda = agenda
        self.requests = requests
        self.target = target
        self.drive = drive
        self.spool = spool
        self.allowed_events = allowed_events
        self.endpoint_of = endpoint_of
        self.has_token = has_token
        self.replies = replies
        self.gauges = Gauges()
        self.context = _context(target)
        self.addresses = [_resolve(endpoint) for endpoint in target.endpoints]
        self.epoll = select.epoll()
        self.open: dict[int, Connection] = {}
        self.idle: list[list[Connection]] = [[] for _ in target.endpoints]
        self.opening: list[deque[Start]] = [
            deque() for _ in target.endpoints
        ]  # rows that wait for a connection
        self.attempt_of: dict[int, int] = {}
        self.in_flight = 0
        self.epoch_ns = 0
        self.cancelled = False
        self.unwritten: deque[tuple[Ending, list[bytes], list[bytes]]] = deque()
        # Only the kernel's stamps allow to let reads wait; with user stamps no pass is ever "busy".
        self.busy_batch = BUSY_BATCH if drive.stamps == "kernel" else 1 << 30
        self.stopped: str | None = None
        self._anchor = anchor()
        self._next_watch_ns = 0

    # --- before t = 0 -------------------------------------------------------------------------------------------------

    def open_ahead(self, count: int) -> None:
        """Open `count` connections, spread over the endpoints, and wait until each stands or has failed."""
        for _, index in zip(range(count), cycle(range(len(self.idle))), strict=False):
            self._open(index)
        deadline_ns = now_ns() + int(self.drive.patience.connect_s * SECOND)
        while any(c.state != IDLE for c in self.open.values()) and now_ns() < deadline_ns:
            self._handle(self.epoll.poll(0.05))
        self.gauges.opened_ahead = sum(map(len, self.idle))

    # --- while the clock runs -----------------------------------------------------------------------------------------

    def run(self, epoch_ns: int, watch: Callable[[], None] = lambda: None) -> None:
        """Drive the whole agenda; returns once every started request has ended.

        `watch` is called about four times a second; it may set `cancelled`, or call `stop`.
        """
        self.epoch_ns = epoch_ns
        gauges = self.gauges
        cpu, wall = time.process_time(), now_ns()
        self._loop(watch)
        gauges.cpu_s = time.process_time() - cpu
        gauges.wall_s = (now_ns() - wall) / SECOND

    def stop(self, reason: str) -> None:
        """Start no more requests; those in flight are waited for."""
        self.stopped = self.stopped or reason
        self.agenda.stop(now_ns() - self.epoch_ns)

    def cancel(self, reason: str) -> None:
        """Start no more requests, and end those in flight as cancelled."""
        self.stop(reason)
        self.cancelled = True

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self.open.values()):
            self._discard(connection)
        self.epoll.close()

    def _loop(self, watch: Callable[[], None]) -> None:
        batch, looked_ns = 0, now_ns()
        while True:
            now = now_ns()
            if now >= self._next_watch_ns:
                self._watch(now)
                watch()
            due_ns = self._send_due(now)
            if due_ns is None and not self.in_flight:
                self._write(everything=True)
                return
            until_ns = self._next_watch_ns if due_ns is None else min(due_ns, self._next_watch_ns)
            before_ns = now_ns()
            ready = self._pause(until_ns) if batch >= self.busy_batch else self._wait(until_ns)
            after_ns = now_ns()
            blocked = batch < self.busy_batch and after_ns - before_ns > BLOCKED_NS
            batch = len(ready)
            if batch:
                self._handle(ready)
                self._note_lag(now_ns() - (after_ns if blocked else looked_ns), batch)
            looked_ns = after_ns

    def _send_due(self, now: int) -> int | None:
        """Send what is due; returns when the next row is due, None where that is not known yet."""
        for start in self.agenda.due(now - self.epoch_ns):
            self._start(Start(start.row, start.intended + self.epoch_ns))
        self._record_dropped()
        next_ns = self.agenda.next_time()
        return None if next_ns is None else next_ns + self.epoch_ns

    def _wait(self, until_ns: int) -> list[tuple[int, int]]:
        """Wait for something to read, until `until_ns` at the latest."""
        poll = self.epoll.poll
        if self._chore():
            return poll(0, 4096)
        left_ns = until_ns - now_ns()
        if left_ns <= 0:
            return poll(0, 4096)
        if left_ns >= 3 * MILLISECOND:
            return poll((left_ns // MILLISECOND - 1) / 1000, 4096)
        select.select((self.epoll,), (), (), left_ns / SECOND)
        return poll(0, 4096)

    def _pause(self, until_ns: int) -> list[tuple[int, int]]:
        """Let readable streams gather for a moment; the time is used for what can wait."""
        end_ns = min(until_ns, now_ns() + PAUSE_NS)
        while self._chore() and now_ns() < end_ns:
            continue
        left_ns = end_ns - now_ns()
        if left_ns > 0:
            time.sleep(left_ns / SECOND)
        return self.epoll.poll(0, 4096)

    def _chore(self) -> bool:
        """Do a little of what can wait: get a next turn ready, or write down what has ended. False: there was nothing."""
        if self.replies is not None and self.replies.waiting:
            self.replies.work()
        elif self.unwritten:
            self._write()
        else:
            return False
        return True

    def _handle(self, ready: list[tuple[int, int]]) -> None:
        """The hot path: everything here is paid for by every token."""
        streams = self.open
        for fd, mask in ready:
            c = streams.get(fd)
            if c is None:
                continue
            if not (c.plain and mask == select.EPOLLIN):
                self._handle_other(c, mask)
                continue
            try:
                data, ancillary, _, _ = c.receive(READ_BYTES, ANCILLARY_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self._broke(c, error)
                continue
            if not data:
                self._closed(c)
                continue
            c.stamps.append(ancillary[0][2] if ancillary else self._user_stamp())
            c.reads.append(data)
            c.budget -= len(data)
            if data.endswith(c.tail) or c.budget < 0:
                self._maybe_done(c)

    def _handle_other(self, c: Connection, mask: int) -> None:
        """Everything that is not a plain read of a running response."""
        try:
            if c.state == CONNECTING:
                c.connected()
                self._established(c)
            elif c.state == TUNNEL:
                self._tunnel_reply(c)
            elif c.state == HANDSHAKE:
                self._carry_handshake(c)
            else:
                self._carry_request(c, mask)
        except OSError as error:
            self._broke(c, error)

    def _carry_request(self, c: Connection, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._send_rest(c, readable=bool(mask & select.EPOLLIN))
        if not mask & ~select.EPOLLOUT:
            return
        try:
            data, ancillary, _, _ = c.receive(READ_BYTES, ANCILLARY_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._closed(c)
        elif c.state == IDLE and c.tls is None:
            self._discard(c)  # a server that speaks unasked cannot be followed
        elif plain := c.decrypted(data) if c.tls is not None else data:
            if c.state == IDLE:
                self._discard(c)
                return
            c.stamps.append(ancillary[0][2] if ancillary else self._user_stamp())
            c.reads.append(plain)
            c.budget -= len(plain)
            if plain.endswith(c.tail) or c.budget < 0:
                self._maybe_done(c)

    def _send_rest(self, c: Connection, *, readable: bool) -> None:
        try:
            if c.flush():
                self._expect_reply(c)
        except OSError:
            if not readable:
                raise
            self.epoll.modify(
                c.fd, select.EPOLLIN
            )  # it answered early and reads no more: hear it out

    def _maybe_done(self, c: Connection) -> None:
        """A read ended like a last one, or the response grew over its budget, or its head is not known yet."""
        if c.frame is None:
            self._read_head(c)
            if c.frame is None and c.budget >= 0:
                return
        frame = c.frame
        if c.budget < 0:
            self._end(c, ends.LIMIT, "the response is larger than its limit")
        elif frame is not None and frame.total is not None:
            if self._received(c) >= frame.total:
                self._end(c, ends.DONE)
        elif self._chunks_ended(c):
            self._end(c, ends.DONE)

    def _read_head(self, c: Connection) -> None:
        frame = framing(b"".join(c.reads))
        if frame is None and self._received(c) > MAX_HEAD_BYTES:
            frame = Framing(0, NEVER, None, reusable=False)
        if frame is not None:
            c.frame, c.tail = frame, frame.tail

    def _chunks_ended(self, c: Connection) -> bool:
        frame = c.frame
        if frame is None or frame.tail != LAST_CHUNK:
            return False
        return ended_with_trailers(b"".join(c.reads[-8:])[-1024:])

    # --- starting and ending requests ---------------------------------------------------------------------------------

    def _start(self, start: Start) -> None:
        if self.replies is not None and self.replies.repeats(start.row):
            why = self.replies.refusal(start.row)
            if why is not None:
                self._drop(start.row, start.intended, why)
                self.agenda.ended(start.row, start.intended - self.epoch_ns, ok=False)
                return
        self.in_flight += 1
        gauges = self.gauges
        gauges.started += 1
        gauges.peak_in_flight = max(gauges.peak_in_flight, self.in_flight)
        index = self.endpoint_of(start.row)
        pool = self.idle[index]
        if pool:
            gauges.reused += 1
            self._send(pool.pop(), start, ABSENT)
            return
        self.opening[index].append(start)
        self._open(index, start)

    def _send(self, c: Connection, start: Start, connect_ns: int) -> None:
        c.row, c.intended_ns, c.connect_ns = start.row, start.intended, connect_ns
        c.stamps, c.reads, c.spooled, c.frame = [], [], 0, None
        c.tail = b""  # until the head is known every read is looked at
        c.limit = c.budget = self._byte_limit(start.row)
        c.state = BUSY
        c.sent_ns = now_ns()
        try:
            whole = c.send(self.requests(start.row))
        except OSError:
            whole = (
                True  # the server wants no more of it; what it said, or that it left, is read next
            )
        if whole:
            self._expect_reply(c)
        else:
            c.plain = False
            self.epoll.modify(c.fd, select.EPOLLIN | select.EPOLLOUT)

    def _lost(self, c: Connection, cause: int, error: str = "") -> None:
        """The connection of a running request is gone."""
        stale = (
            c.connect_ns == ABSENT
            and not c.stamps
            and now_ns() - c.sent_ns < STALE_NS
            and not self.cancelled
        )
        if stale:
            self._send_anew(c)
        else:
            self._end(c, cause, error)

    def _send_anew(self, c: Connection) -> None:
        """Send a request again that met a connection which the server had closed while it was idle (RFC 9112, 9.3.1).

        Only for a connection that had stood ready, that brought no byte, and that was gone at once; the second time it
        is on a connection of its own, where whatever happens counts.
        """
        self.gauges.stale += 1
        start = Start(c.row, c.intended_ns)
        c.row, c.state = -1, IDLE
        self._discard(c)
        self.opening[c.index].append(start)
        self._open(c.index, start)

    def _expect_reply(self, c: Connection) -> None:
        c.plain = c.tls is None
        self.epoll.modify(c.fd, select.EPOLLIN)

    def _end(self, c: Connection, cause: int, error: str = "") -> None:
        """Close the books on the request of `c`, and hand its connection on, or close it."""
        row, frame = c.row, c.frame
        last_ns = self._last_ns(c)
        ended_ns = last_ns if cause in (ends.DONE, ends.CLOSED) and last_ns else now_ns()
        ended_ns = max(ended_ns, c.sent_ns)
        status = frame.status if frame is not None else 0
        reusable = (
            cause == ends.DONE and frame is not None and frame.reusable and c.outgoing is None
        )
        if self._wants_retry(row, cause, status, got_bytes=bool(last_ns)):
            self._put_back(row, ended_ns)
        else:
            self._record(c, cause, error, ended_ns)
            ok = cause == ends.DONE and status < 300
            self._ended(row, ended_ns, ok=ok, reads=c.reads)
            self._note_speed(c, last_ns)
        c.row, c.plain, c.stamps, c.reads = -1, False, [], []
        c.state = IDLE
        if reusable and not self.cancelled:
            self._rest(c)
        else:
            self._discard(c)

    def _record(self, c: Connection, cause: int, error: str, ended_ns: int) -> None:
        self._append(
            Ending(
                c.row,
                cause,
                error,
                self.attempt_of.pop(c.row, 1),
                c.intended_ns,
                c.sent_ns,
                c.connect_ns,
                ended_ns,
                self._anchor.unix_ns - self._anchor.monotonic_ns,
            ),
            c.stamps,
            c.reads,
        )

    def _ended(
        self, row: int, ended_ns: int, *, ok: bool, reads: list[bytes] | None = None
    ) -> None:
        if self.replies is not None:
            self.replies.ended(row, reads or [], ok=ok)
        self.in_flight -= 1
        self.gauges.ended += 1
        self.gauges.failed += not ok
        self.agenda.ended(row, ended_ns - self.epoch_ns, ok=ok)

    def _append(self, ending: Ending, stamps: list[bytes], reads: list[bytes]) -> None:
        """Note a record; it is written within the next pauses, so that a wave of ends delays no read."""
        self.unwritten.append((ending, stamps, reads))

    def _write(self, *, everything: bool = False) -> None:
        """Write the oldest noted record; more of them where they pile up."""
        count = len(self.unwritten) if everything else 1 + len(self.unwritten) // BACKLOG
        try:
            for _ in range(min(count, len(self.unwritten))):
                self.spool.append(*self.unwritten.popleft())
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            self.unwritten.clear()  # there is no room for them either
            self.cancel(f"the run directory cannot be written: {error.strerror}")

    def _record_dropped(self) -> None:
        for start, why in self.agenda.take_dropped():
            self._drop(start.row, start.intended + self.epoch_ns, why)

    def _drop(self, row: int, t_ns: int, why: str) -> None:
        """Record a row that is never sent."""
        if self.replies is not None:
            self.replies.ended(row, [], ok=False)
        self._append(Ending(row, ends.DROPPED, why, 0, t_ns, ABSENT, ABSENT, t_ns, 0), [], [])

    def _wants_retry(self, row: int, cause: int, status: int, *, got_bytes: bool) -> bool:
        if self.cancelled or self.attempt_of.get(row, 1) > self.drive.retries:
            return False
        if cause in (ends.NO_CONNECTION, ends.RESET, ends.CLOSED):
            return not got_bytes
        return cause == ends.DONE and status in RETRYABLE_STATUS

    def _put_back(self, row: int, ended_ns: int) -> None:
        """Have `row` tried again after a pause that doubles with each attempt."""
        attempt = self.attempt_of.get(row, 1)
        self.attempt_of[row] = attempt + 1
        self.gauges.retries += 1
        self.in_flight -= 1
        self.agenda.again(row, ended_ns - self.epoch_ns + (RETRY_PAUSE_NS << (attempt - 1)))

    # --- connections --------------------------------------------------------------------------------------------------

    def _open(self, index: int, start: Start | None = None) -> None:
        family, address = self.addresses[index]
        try:
            c = Connection(index, self.target.endpoints[index], address, family, now_ns())
            c.use_stamps(self.drive.stamps)
        except OSError as error:
            if start is not None:
                self.opening[index].remove(start)
                self._never_connected(start, error)
            return
        self.gauges.opened += 1
        self.open[c.fd] = c
        self.epoll.register(c.fd, select.EPOLLOUT)

    def _established(self, c: Connection) -> None:
        self.epoll.modify(c.fd, select.EPOLLIN)
        endpoint = self.target.endpoints[c.index]
        if endpoint.proxy and endpoint.tls:
            c.state = TUNNEL
            c._push(_connect_request(endpoint))  # noqa: SLF001 - nothing else may speak before the tunnel stands
        elif endpoint.tls:
            self._begin_tls(c)
        else:
            self._usable(c)

    def _tunnel_reply(self, c: Connection) -> None:
        c.reads.append(c.sock.recv(READ_BYTES))
        head = b"".join(c.reads)
        if not c.reads[-1]:
            raise ConnectionResetError(errno.ECONNRESET, "the proxy closed the connection")
        if b"\r\n\r\n" in head:
            status = head.split(b" ", 2)[1:2]
            if status != [b"200"]:
                raise OSError(errno.ECONNREFUSED, f"the proxy answered CONNECT with {head[:64]!r}")
            c.reads = []
            self._begin_tls(c)

    def _begin_tls(self, c: Connection) -> None:
        assert self.context is not None
        c.state = HANDSHAKE
        c.start_tls(self.context)
        self._carry_handshake(c)

    def _carry_handshake(self, c: Connection) -> None:
        c.flush()
        if c.handshake():
            self._usable(c)
        wants = select.EPOLLIN | (select.EPOLLOUT if c.outgoing is not None else 0)
        if c.fd in self.open:
            self.epoll.modify(c.fd, wants)

    def _usable(self, c: Connection) -> None:
        index = c.index
        c.state = IDLE
        waiting = self.opening[index]
        if waiting:
            start = waiting.popleft()
            self._send(c, start, max(0, now_ns() - max(c.opened_ns, start.intended)))
        else:
            self._rest(c)

    def _rest(self, c: Connection) -> None:
        """Put a usable connection at the disposal of the next request."""
        self.idle[c.index].append(c)

    def _discard(self, c: Connection) -> None:
        self.open.pop(c.fd, None)
        pool = self.idle[c.index]
        if c in pool:
            pool.remove(c)
        c.close()

    def _closed(self, c: Connection) -> None:
        """The server closed its side."""
        if c.state == BUSY:
            self._lost(c, ends.CLOSED)
        elif c.state == IDLE:
            self._discard(c)
        else:
            self._broke(c, ConnectionResetError(errno.ECONNRESET, "closed while connecting"))

    def _broke(self, c: Connection, error: OSError) -> None:
        """The connection failed under whatever it was doing."""
        if c.state == BUSY:
            self._lost(c, ends.RESET, _told(error))
            return
        connecting = c.state != IDLE
        self._discard(c)
        if connecting:
            self._connection_failed(c.index, error)

    def _connection_failed(self, index: int, error: OSError) -> None:
        """One connection fewer is on its way: the row that has waited longest fails with it."""
        waiting = self.opening[index]
        on_the_way = sum(
            c.state in (CONNECTING, TUNNEL, HANDSHAKE) and c.index == index
            for c in self.open.values()
        )
        if len(waiting) > on_the_way:
            self._never_connected(waiting.popleft(), error)

    def _never_connected(self, start: Start, error: OSError) -> None:
        ended_ns = now_ns()
        if self._wants_retry(start.row, ends.NO_CONNECTION, 0, got_bytes=False):
            self._put_back(start.row, ended_ns)
            return
        connect_ns = max(0, ended_ns - start.intended)
        cause = ends.TIMEOUT if isinstance(error, TimeoutError) else ends.NO_CONNECTION
        ending = Ending(
            start.row, cause, _told(error), self.attempt_of.pop(start.row, 1), start.intended, ABSENT,
            connect_ns, ended_ns, 0,
        )  # fmt: skip
        self._append(ending, [], [])
        self._ended(start.row, ended_ns, ok=False)

    # --- four times a second -------------------------------------------------------------------------------------------

    def _watch(self, now: int) -> None:
        self._next_watch_ns = now + WATCH_NS
        fresh = anchor()
        step = (fresh.unix_ns - fresh.monotonic_ns) - (
            self._anchor.unix_ns - self._anchor.monotonic_ns
        )
        self.gauges.clock_steps += abs(step) > MILLISECOND
        self._anchor = fresh
        for c in list(self.open.values()):
            if c.state == BUSY:
                self._watch_request(c, now)
            elif c.state != IDLE:
                self._watch_connecting(c, now)
        if self.cancelled:
            self._cancel_waiting(now)

    def _watch_connecting(self, c: Connection, now: int) -> None:
        if now - c.opened_ns > self.drive.patience.connect_s * SECOND:
            limit = f"no connection within {self.drive.patience.connect_s:g} s"
            self._broke(c, TimeoutError(errno.ETIMEDOUT, limit))

    def _watch_request(self, c: Connection, now: int) -> None:
        patience = self.drive.patience
        waited_ns = now - c.sent_ns
        quiet_ns = now - (self._last_ns(c) or c.sent_ns)
        if self.cancelled:
            self._end(c, ends.CANCELLED, self.stopped or "cancelled")
        elif waited_ns > patience.total_s * SECOND:
            self._end(c, ends.TIMEOUT, f"total: not ended {patience.total_s:g} s after it was sent")
        elif quiet_ns > WATCH_NS and self._chunks_ended(c):
            self._end(c, ends.DONE)
        elif quiet_ns > patience.between_s * SECOND and self._begun(c):
            self._end(c, ends.TIMEOUT, f"between tokens: silent for {patience.between_s:g} s")
        elif waited_ns > patience.first_token_s * SECOND and not self._begun(c):
            self._end(c, ends.TIMEOUT, f"first token: none within {patience.first_token_s:g} s")
        elif len(c.stamps) > self.allowed_events(c.row):
            self._end(c, ends.LIMIT, f"more than {self.allowed_events(c.row)} events")
        elif self._received(c) - c.spooled > SPILL_BYTES:
            self._spill(c)

    def _begun(self, c: Connection) -> bool:
        """Whether a token has come; only a quiet stream of a few reads has to be parsed to tell."""
        return c.spooled > 0 or len(c.reads) > 8 or self.has_token(c.reads)

    def _spill(self, c: Connection) -> None:
        """Write the backlog of a live request out, so that memory does not grow with the length of an answer."""
        offset_ns = self._anchor.unix_ns - self._anchor.monotonic_ns
        keep = (
            len(c.reads) - 1
        )  # the last read stays: the end of the response is looked for across reads
        ending = Ending(
            c.row, ends.SEGMENT, "", 1, c.intended_ns, c.sent_ns, c.connect_ns, ABSENT, offset_ns
        )
        self._append(ending, c.stamps[:keep], c.reads[:keep])
        if self.replies is not None:
            self.replies.set_aside(c.row, c.reads[:keep])
        c.spooled += sum(map(len, c.reads[:keep]))
        del c.stamps[:keep], c.reads[:keep]

    def _cancel_waiting(self, now: int) -> None:
        for waiting in self.opening:
            while waiting:
                start = waiting.popleft()
                ending = Ending(
                    start.row, ends.CANCELLED, self.stopped or "cancelled", 1, start.intended, ABSENT, ABSENT, now, 0
                )  # fmt: skip
                self._append(ending, [], [])
                self._ended(start.row, now, ok=False)

    # --- small facts --------------------------------------------------------------------------------------------------

    def _byte_limit(self, row: int) -> int:
        return min(MAX_RESPONSE_BYTES, EVENT_BYTES * self.allowed_events(row))

    def _received(self, c: Connection) -> int:
        return c.limit - c.budget

    def _last_ns(self, c: Connection) -> int:
        """The stamp of the last read on the monotonic clock; 0 where there was none."""
        if not c.stamps:
            return 0
        return self._monotonic_ns(c.stamps[-1])

    def _monotonic_ns(self, stamp: bytes) -> int:
        seconds, ns = TIMESPEC.unpack(stamp)
        return int(seconds * SECOND + ns - (self._anchor.unix_ns - self._anchor.monotonic_ns))

    def _user_stamp(self) -> bytes:
        self.gauges.user_stamps += 1
        return TIMESPEC.pack(*divmod(time.time_ns(), SECOND))

    def _note_lag(self, lag_ns: int, batch: int) -> None:
        gauges = self.gauges
        gauges.passes += 1
        gauges.reads += batch
        gauges.lag_counts[lag_bucket(lag_ns)] += batch
        gauges.lag_max_ns = max(gauges.lag_max_ns, lag_ns)

    def _note_speed(self, c: Connection, last_ns: int) -> None:
        """A rough TTFT and gap for the live display, from reads, not tokens."""
        gauges = self.gauges
        gauges.bytes += self._received(c)
        gauges.recent_lag_ns.append(c.sent_ns - c.intended_ns)
        headers_alone = int(bool(c.reads) and c.reads[0].endswith(b"\r\n\r\n"))
        stamps = c.stamps[headers_alone:]
        if len(stamps) > 1 and last_ns:
            first_ns = self._monotonic_ns(stamps[0])
            gauges.recent_gap_ns.append((last_ns - first_ns) / (len(stamps) - 1))
            if not c.spooled:  # else the first reads are written down already
                gauges.recent_first_ns.append(first_ns - c.intended_ns)


def _context(target: Target) -> ssl.SSLContext | None:
    return tls_context(target.trust) if any(e.tls for e in target.endpoints) else None


def _resolve(endpoint: Endpoint) -> tuple[int, tuple[Any, ...]]:
    host, port = endpoint.address
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, address


def _connect_request(endpoint: Endpoint) -> bytes:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    lines = [f"CONNECT {host}:{endpoint.port} HTTP/1.1", f"Host: {host}:{endpoint.port}"]
    lines += [f"{name}: {value}" for name, value in endpoint.proxy_headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _told(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return error.strerror or str(error) or type(error).__name__
