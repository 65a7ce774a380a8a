"""Waiting for the other end: spin, yield, then park or sleep.

A ring looks by itself, as often as its `looks` say, before it comes here.
Whether looking longer would have paid lately decides how often it will the
next time.

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

import os
import time

from . import layout, platform
from .ring import Half, Verdict

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from .platform._futex import Futex

    _T = TypeVar("_T")

_YIELDS = 50  # looks with the processor given away in between
_YIELDING = 1e-3  # seconds: the longest time to do so; a busy processor may not come back for as long each time
_FIRST_NAP = 50e-6  # seconds
_LONGEST_NAP = 0.04  # seconds: what a byte may be late after a long silence, where there is no futex
_LONGEST_SEARCH = 0.1  # seconds: what may pass until a new channel is found
_FIRST_PARK = 0.1  # seconds
_LONGEST_PARK = 0.5  # seconds, after a long silence: the longest that a missed wake-up or a peer's death goes unnoticed
_GROWTH = 1.5  # of each nap or park over the one before
_PROBE_EVERY = 0.05  # seconds between two system calls that ask whether the peer lives, at first

# Looks at a counter that is expected to move, 40 ns each.  A peer on another
# processor answers within some microseconds; on the only one never.
_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
_LOOKS_AT_MOST = 1 if _PROCESSORS == 1 else 2000
_LOOKS_AT_LEAST = min(_LOOKS_AT_MOST, 20)
_SHORT = 100e-6  # seconds: a wait for which some more looks would have been enough


def until(poll: Callable[[bool], _T | None], timeout: float | None) -> _T | None:
    """Call `poll(probe)` until it returns something other than None, and return that.

    `probe` is true now and then: the poll should then also ask the system
    whether the peer lives.  Sleeps in growing steps in between.  Returns None
    after `timeout` seconds (None: wait for ever), having polled once more at
    the end.
    """
    start = next_probe = time.perf_counter()
    nap = _FIRST_NAP
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
            return poll(True)
        time.sleep(min(nap, left))
        nap = min(_GROWTH * nap, _LONGEST_SEARCH)


class Nap:
    """Instead of a futex, where there is none: nobody can be woken, so sleeps are short."""

    def fence(self) -> None:
        """Not needed by somebody who wakes up anyway."""

    def wait(self, expected: int, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def wake(self) -> bool:
        """Wake nobody."""
        return False


class Waiter:
    """How one end waits for its peer, and answers a peer that waits.

    `own` and `peers` are the two counters as something to sleep on, or None
    where the system has no such thing.  `unheard()` is called when a peer has
    set its calls and does not sleep.
    """

    end: Half  # set before anything is called

    def __init__(self, own: Futex | None, peers: Futex | None, unheard: Callable[[], None]) -> None:
        self.wake = (own or Nap()).wake
        self._peers = peers or Nap()
        self._first, self._longest = (_FIRST_PARK, _LONGEST_PARK) if peers else (_FIRST_NAP, _LONGEST_NAP)
        self._unheard = unheard
        self._next_probe = 0.0

    def until_moved(self, poll: Callable[[bool], Verdict | None], timeout: float | None) -> Verdict | None:
        """Wait until the peer's counter moves (returns READY) or `poll(probe)` gives a verdict.

        `probe` and `timeout` are those of `until`.
        """
        end = self.end
        began = time.perf_counter()
        yielding = _YIELDING if timeout is None else min(timeout, _YIELDING)
        moved, waited = False, 0.0
        for _ in range(_YIELDS):
            platform.yield_processor()
            waited = time.perf_counter() - began
            moved = end.moved
            if moved or waited > yielding:
                break
        if moved and waited < _SHORT:
            end.looks = min(2 * end.looks, _LOOKS_AT_MOST)
        else:
            end.looks = max(end.looks // 2, _LOOKS_AT_LEAST)
        return Verdict.READY if moved else self._sleep_until_moved(poll, timeout, began)

    def _sleep_until_moved(
        self, poll: Callable[[bool], Verdict | None], timeout: float | None, began: float
    ) -> Verdict | None:
        end = self.end
        known = end.awaited
        peers = self._peers
        longest = self._first
        while True:
            now = time.perf_counter()
            probe = self.probe_is_due(now - began)
            left = longest if timeout is None else began + timeout - now
            verdict = poll(probe or left <= 0)
            if verdict is None and end.awaited != known:
                # It moved, and the poll was the first to see it.
                verdict = Verdict.READY
            if verdict is not None or left <= 0:
                return verdict
            # Also without a futex: a peer that is called and finds nobody to
            # wake asks at once whether we live.
            seconds = min(longest, left)
            if end.park(peers.fence, lambda: poll(False) is None, lambda known: peers.wait(known, seconds)):
                return Verdict.READY
            longest = min(_GROWTH * longest, self._longest)

    def answer(self, calls: int) -> None:
        """Do what the peer's `calls` ask for."""
        if calls == layout.PARKED and self.wake():
            # It may be on this very processor.
            platform.yield_processor()
        else:
            self._unheard()

    def probe_is_due(self, waited: float = 0.0) -> bool:
        """Whether it is time to ask the system whether the peer lives; less often after a long wait, in seconds."""
        now = time.perf_counter()
        if now < self._next_probe:
            return False
        self._next_probe = now + min(max(_PROBE_EVERY, waited / 4), _LONGEST_PARK)
        return True
