"""The event loop: an instant to the microsecond, and a stop from elsewhere."""

from __future__ import annotations

import os
import threading
import time

from inferometer.emulator.loop import Loop, Timer

MS = 1_000_000


def test_waiting_ends_at_the_instant_and_never_before():
    """Waits of a fraction of a millisecond end after their instant, and mostly within 1 ms of it."""
    loop, late = Loop(), []
    for _ in range(20):
        until = time.monotonic_ns() + 300_000
        while time.monotonic_ns() < until:
            assert loop.ready(until, 8) == []
        late.append(time.monotonic_ns() - until)
    loop.close()
    assert min(late) >= 0
    assert sorted(late)[10] < MS


def test_an_earlier_instant_replaces_a_later_one():
    """Armed for an hour and then for a millisecond, it wakes after a millisecond."""
    timer, loop = Timer(), Loop()
    timer.arm(time.monotonic_ns() + 3600 * 1000 * MS)
    loop.add(timer.fd, lambda _: None)
    timer.arm(time.monotonic_ns() + MS)
    assert len(loop.ready(time.monotonic_ns() + 5000 * MS, 8)) == 1
    loop.remove(timer.fd)
    timer.close()
    loop.close()


def test_what_is_ready_is_called_with_its_mask():
    """A pipe with a byte in it is ready; once removed it is not."""
    loop, (read, write) = Loop(), os.pipe()
    seen = []
    loop.add(read, seen.append)
    os.write(write, b"x")
    for call, mask in loop.ready(None, 8):
        call(mask)
    assert len(seen) == 1
    loop.remove(read)
    assert loop.ready(time.monotonic_ns(), 8) == []
    loop.close()
    os.close(read)
    os.close(write)


def test_stop_ends_the_waiting_from_another_thread_and_before_it_began():
    """A wait without end ends, whether `stop` comes during it or came before."""
    for before in (False, True):
        loop = Loop()
        stopper = threading.Thread(target=loop.stop)
        stopper.start()
        if before:
            stopper.join()
        assert loop.ready(None, 8) == []
        assert loop.stopped
        stopper.join()
        loop.close()
