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

import _thread  # not threading, which is slow to import
import os
import time

from .._ring import layout
from .._ring.ring import Half
from .._ring.states import Verdict
from .._system import system

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from .._system.contract import Futex

    _T = TypeVar("_T")

_YIELDS = 50  # looks with the processor given away in between
_YIELDING = 1e-3  # seconds: the longest time to do so; a busy processor may stay away as long each time
_FIRST_NAP = 50e-6  # seconds
_LONGEST_NAP = 0.04  # seconds: what a byte may be late after a long silence, where there is no futex
_LONGEST_SEARCH = 0.1  # seconds: what may pass until a new channel is found
_FIRST_PARK = 0.1  # seconds
# Seconds, after a long silence: the longest that a missed wake-up or a peer's death goes unnoticed.
_LONGEST_PARK = 0.5
_GROWTH = 1.5  # of each nap or park over the one before
_PROBE_EVERY = 0.05  # seconds between two system calls that ask whether the peer lives, at first

# Looks at a counter that is expected to move, 40 ns each.  A peer on another
# processor answers within some microseconds; on the only one never.
_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
_LOOKS_AT_MOST = 1 if _PROCESSORS == 1 else 2000
_LOOKS_AT_LEAST = min(_LOOKS_AT_MOST, 20)
_BETWEEN_CALLS = 1e-3  # seconds between two calls to a thread of this process that is to leave
_SHORT = 100e-6  # seconds: a wait for which some more looks would have been enough


class Clock:
    """The time, and what passes it; a test has another one."""

    now = staticmethod(time.perf_counter)  # seconds
    sleep = staticmethod(time.sleep)
    give_way = staticmethod(system.yield_processor)


CLOCK = Clock()


def until(poll: Callable[[], _T | None], timeout: float | None, clock: Clock) -> _T | None:
    """Call `poll()` until it returns something other than None, and return that.

    Sleeps in growing steps in between.  Returns None after `timeout` seconds
    (None: wait for ever), having polled once more at the end.
    """
    start = clock.now()
    nap = _FIRST_NAP
    while True:
        now = clock.now()
        result = poll()
        if result is not None:
            return result
        left = nap if timeout is None else start + timeout - now
        if left <= 0:
            return poll()
        clock.sleep(min(nap, left))
        nap = min(_GROWTH * nap, _LONGEST_SEARCH)


class Nap:
    """Instead of a futex, where there is none: nobody can be woken, so sleeps are short."""

    def __init__(self, clock: Clock) -> None:
        self._sleep = clock.sleep

    def fence(self) -> None:
        """Not needed by somebody who wakes up anyway."""

    def wait(self, expected: int, seconds: float) -> None:
        """Sleep."""
        self._sleep(seconds)

    def wake(self) -> bool:
        """Wake nobody."""
        return False


class Waiter:
    """How one end, `half`, waits for its peer, and wakes a peer that waits.

    `own` and `peers` are the two counters as something to sleep on, or None
    where the system has no such thing.
    """

    def __init__(self, half: Half, own: Futex | None, peers: Futex | None, clock: Clock) -> None:
        self._half = half
        self._clock = clock
        self._now = clock.now
        self._own = own or Nap(clock)
        self._peers = peers or Nap(clock)
        self._first, self._longest = (_FIRST_PARK, _LONGEST_PARK) if peers else (_FIRST_NAP, _LONGEST_NAP)
        self._next_probe = 0.0
        self._waits = _thread.allocate_lock()
        self._thread = 0  # the one that waits
        self._reason: str | None = None

    def until_moved(self, look: Callable[[bool], Verdict | None], timeout: float | None) -> Verdict | None:
        """Wait until the peer's counter moves (returns READY) or `look(probe)` gives a verdict.

        `probe` is true now and then: the look then also asks the system whether
        the peer lives.  Returns None after `timeout` seconds (None: wait for
        ever), having looked once more at the end.
        """
        self._thread = _thread.get_ident()
        try:
            with self._waits:
                verdict = self._until_moved(look, timeout)
        except ValueError:
            self._check_not_dismissed()  # the memory may have gone
            raise
        finally:
            self._thread = 0
        self._check_not_dismissed()
        return verdict

    def dismiss(self, reason: str) -> None:
        """Let a thread that waits here raise ValueError with this reason; return when it has left.

        After that nothing of the memory is used any more.
        """
        self._reason = reason
        if self._thread == _thread.get_ident():
            return  # a signal handler that came in the wait
        while self._waits.locked():  # not taken here: an exception could come before it is given back
            self._peers.wake()
            self._clock.sleep(_BETWEEN_CALLS)

    def _check_not_dismissed(self) -> None:
        if self._reason is not None:
            raise ValueError(self._reason)

    def _until_moved(self, look: Callable[[bool], Verdict | None], timeout: float | None) -> Verdict | None:
        half, clock = self._half, self._clock
        began = clock.now()
        yielding = _YIELDING if timeout is None else min(timeout, _YIELDING)
        moved, waited = False, 0.0
        for _ in range(_YIELDS):
            clock.give_way()
            waited = clock.now() - began
            moved = half.moved
            if moved or waited > yielding:
                break
        if moved and waited < _SHORT:
            half.looks = min(2 * half.looks, _LOOKS_AT_MOST)
        else:
            half.looks = max(half.looks // 2, _LOOKS_AT_LEAST)
        return Verdict.READY if moved else self._sleep_until_moved(look, timeout, began)

    def _sleep_until_moved(
        self, look: Callable[[bool], Verdict | None], timeout: float | None, began: float
    ) -> Verdict | None:
        half = self._half
        known = half.awaited
        longest = self._first
        while True:
            self._check_not_dismissed()
            now = self._clock.now()
            probe = self.probe_is_due(now - began)
            left = longest if timeout is None else began + timeout - now
            verdict = look(probe or left <= 0)
            if verdict is None and half.awaited != known:
                # It moved, and this look was the first to see it.
                verdict = Verdict.READY
            if verdict is not None or left <= 0:
                return verdict
            # Also without a futex: a peer that is called and finds nobody to
            # wake asks at once whether we live.
            if self.park(look, min(longest, left)):
                return Verdict.READY
            longest = min(_GROWTH * longest, self._longest)

    def park(self, look: Callable[[bool], Verdict | None], seconds: float) -> bool:
        """Sleep until the peer's counter moves, after one more look; return whether it has."""
        half = self._half
        words = half.words
        known = half.awaited
        try:
            words[half.own_calls] = layout.PARKED
            # ORDER: our call before the peer's counter.  Pairs with counter before call in `write`,
            # `readinto`, `_publish` and `acknowledge`: the fence is a full barrier at both ends.
            self._peers.fence()
            known = half.awaited
            if words[half.peer_counter] == known and look(False) is None:
                self._peers.wait(known, seconds)
        finally:
            words[half.own_calls] = 0
        return bool(words[half.peer_counter] != known)

    def wake(self) -> bool:
        """Wake the peer, which has called; return whether it slept."""
        return self._own.wake()

    def probe_is_due(self, waited: float = 0.0) -> bool:
        """Whether it is time to ask whether the peer lives; less often after a long wait, in seconds."""
        now = self._now()
        if now < self._next_probe:
            return False
        self._next_probe = now + min(max(_PROBE_EVERY, waited / 4), _LONGEST_PARK)
        return True
