"""One thread's events: sockets that are ready, an instant that has come, a call to stop. It knows nothing of HTTP.

A plain epoll loop. Its own timeout has a resolution of 1 ms, so the next due instant is a timerfd on CLOCK_MONOTONIC,
armed with an absolute time (nanoseconds, no timer slack), in the same epoll set. `stop` is an eventfd: it may be
called from a signal handler or from another thread.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections.abc import Callable

from inferometer.clock import SECOND

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT

_CLOCK_MONOTONIC, _NONBLOCK, _CLOEXEC, _ABSOLUTE = 1, os.O_NONBLOCK, os.O_CLOEXEC, 1
_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """A file descriptor that becomes readable at an absolute monotonic time."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._armed_ns = 0

    def arm(self, at_ns: int) -> None:
        """Be ready at `at_ns`, and no longer at the time before it; costs nothing where that is the same."""
        if at_ns == self._armed_ns:
            return
        self._armed_ns = at_ns
        # (interval s, ns; value s, ns). A value of 0 would disarm it, so a time in the past is 1 ns.
        setting = struct.pack("qqqq", 0, 0, *divmod(max(at_ns, 1), SECOND))
        _libc.timerfd_settime(self.fd, _ABSOLUTE, setting, None)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


class Loop:
    """Calls what was registered for a descriptor when that is ready."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._timer = Timer()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopped = False
        # Edge-triggered: neither is ever read, so level-triggered they would wake the loop for ever.
        self._epoll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)
        self._epoll.register(self._wakeup, select.EPOLLIN | select.EPOLLET)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End the waiting; safe from a signal handler, from another thread, and when it has ended already."""
        self._stopped = True
        if self._wakeup >= 0:
            os.eventfd_write(self._wakeup, 1)

    def add(self, fd: int, call: Callable[[int], None], mask: int = READ) -> None:
        """Call `call(mask)` whenever `fd` is ready."""
        self._calls[fd] = call
        self._epoll.register(fd, mask)

    def watch(self, fd: int, mask: int) -> None:
        """Change what `fd` is watched for."""
        self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """Forget `fd`; before it is closed."""
        if self._calls.pop(fd, None):
            self._epoll.unregister(fd)

    def ready(self, until_ns: int | None, most: int) -> list[tuple[Callable[[int], None], int]]:
        """What is ready now, or next, or nothing once `until_ns` has come; at most `most` calls, with their masks."""
        timeout = -1
        if until_ns is not None:
            timeout = 0 if until_ns <= time.monotonic_ns() else -1
            if timeout:
                self._timer.arm(until_ns)
        calls = self._calls
        return [(calls[fd], mask) for fd, mask in self._epoll.poll(timeout, most) if fd in calls]

    def close(self) -> None:
        """Give the descriptors back; nothing may be registered any more."""
        self._epoll.close()
        self._timer.close()
        wakeup, self._wakeup = (
            self._wakeup,
            -1,
        )  # first: a late `stop` must not write to whoever gets its number
        os.close(wakeup)
