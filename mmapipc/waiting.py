"""Waiting for the other end: spin, yield, then park or sleep.

A ring spins by itself, as often as its `spins` say, before it comes here.
Whether spinning has paid lately decides how often it will the next time.

Parking (Linux: a futex on the peer's counter) is a handshake of two words.

    the end that waits                    its peer
    ------------------------------------  -----------------------------------
    store calls = PARKED                  store counter
    full barrier                          full barrier
    load counter and state; go on if      load calls; if PARKED, wake
      there is something to do
    sleep, if the counter is still that

With both barriers, either the peer sees the call or the waiting end sees the
counter; and the kernel compares the counter once more before it sleeps.  The
peer's barrier would be on its hot path, so the waiting end makes both: the
system call membarrier(2) runs one on every processor that a peer runs on.
Where it is missing, and in the one case the counter does not show (the stream
ends just between look and sleep), a wake-up can be missed; every park is
bounded, so that costs latency and no more.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from . import layout, platform
from .ring import Half

if TYPE_CHECKING:
    from .platform._futex import Futex

_T = TypeVar("_T")

_YIELDS = 50  # looks with the processor given away in between
_FIRST_NAP = 50e-6  # seconds
_LONGEST_NAP = 0.02  # seconds: what a byte may be late after a long silence
_PARK = 0.1  # seconds: the longest park, and so the longest a missed wake-up lasts
_PROBE_EVERY = 0.05  # seconds between two system calls that ask whether the peer lives

# Looks at a counter that is expected to move, 40 ns each.  A peer on another
# processor answers within some microseconds; on a single one never.
_SPINS_AT_MOST = 0 if os.cpu_count() == 1 else 2000
_SPINS_AT_LEAST = min(_SPINS_AT_MOST, 20)


def until(
    poll: Callable[[bool], _T | None],
    timeout: float | None,
    rest: Callable[[float], None] = time.sleep,
    longest: float = _LONGEST_NAP,
) -> _T | None:
    """Call `poll(probe)` until it returns something other than None, and return that.

    `probe` is true now and then: the poll should then also ask the system
    whether the peer lives.  In between `rest(seconds)` is called, with up to
    `longest`.  Returns None after `timeout` seconds (None: wait for ever),
    having polled once more at the end.
    """
    start = time.perf_counter()
    for _ in range(_YIELDS):
        result = poll(False)
        if result is not None:
            return result
        platform.yield_processor()
    nap = _FIRST_NAP
    next_probe = start
    while True:
        now = time.perf_counter()
        probe = now >= next_probe
        if probe:
            next_probe = now + _PROBE_EVERY
        result = poll(probe)
        if result is not None:
            return result
        left = nap if timeout is None else start + timeout - now
        if left <= 0:
            return None
        rest(min(nap, left))
        nap = min(nap * 1.5, longest)


class Waiter:
    """How one end waits for its peer.

    `futex(word)` gives the word of the header to sleep on, or None where the
    system has no such thing.
    """

    def __init__(self, end: Half, futex: Callable[[int], Futex | None]) -> None:
        self._end = end
        self._futex = futex
        self._next_probe = 0.0
        end.spins = _SPINS_AT_MOST

    def until(self, poll: Callable[[bool], _T | None], timeout: float | None) -> _T | None:
        """As the function `until`, for something that the peer's counter or state brings."""
        end = self._end
        began = time.perf_counter()
        futex = self._peers_counter

        def rest(seconds: float) -> None:
            # Also without a futex: a peer that is called and finds nobody
            # to wake asks at once whether we live.
            end.park(True)
            try:
                if futex is None:
                    time.sleep(seconds)
                    return
                futex.fence()
                if poll(False) is None:
                    futex.wait(end.awaited, seconds)
            finally:
                end.park(False)

        result = until(poll, timeout, rest, _LONGEST_NAP if futex is None else _PARK)
        # Would a longer spin have been enough?
        if time.perf_counter() - began < 100e-6:
            end.spins = min(2 * end.spins, _SPINS_AT_MOST)
        else:
            end.spins = max(end.spins // 2, _SPINS_AT_LEAST)
        return result

    # Made when first needed: most streams come and go without a park.
    @functools.cached_property
    def _peers_counter(self) -> Futex | None:
        return self._futex(self._end.peer_counter)

    @functools.cached_property
    def _own_counter(self) -> Futex | None:
        return self._futex(self._end.own_counter)

    def wake(self) -> bool:
        """Wake the peer if it says that it is parked; return whether it was."""
        if self._end.peer_calls != layout.PARKED or self._own_counter is None:
            return False
        return self._own_counter.wake()

    def probe_is_due(self) -> bool:
        """Whether it is time to ask the system whether the peer lives."""
        now = time.perf_counter()
        if now < self._next_probe:
            return False
        self._next_probe = now + _PROBE_EVERY
        return True
