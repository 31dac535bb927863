"""Time as an argument."""

import time

from inferometer.clock import RealClock, VirtualClock, anchor, resolution_ns


def test_a_virtual_clock_jumps_and_never_back():
    """A schedule of hours takes no time."""
    clock = VirtualClock(5)
    clock.sleep_until(10**15)
    clock.sleep_until(3)

    assert clock.now_ns() == 10**15


def test_the_real_clock_is_the_hosts_monotonic_one():
    """So that stamps of several processes compare."""
    before = time.monotonic_ns()
    clock = RealClock()
    clock.sleep_until(before + 1_000_000)

    assert before + 1_000_000 <= clock.now_ns() <= time.monotonic_ns()


def test_an_anchor_ties_both_clocks():
    """Within a bracket that is far smaller than a token's gap."""
    one, two = anchor(), anchor()
    drift = (two.unix_ns - two.monotonic_ns) - (one.unix_ns - one.monotonic_ns)

    assert abs(drift) < 1_000_000
    assert resolution_ns() > 0
