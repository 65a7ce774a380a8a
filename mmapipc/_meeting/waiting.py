"""Waiting for the other end: look, yield, then park.

Parking is a handshake of two words.  The bell (see `contract.Bells`) is a hint:
only the counter, and the state, say what there is.

    the end that waits                    its peer
    ------------------------------------  -----------------------------------
    store calls = parked at the counter   store counter
      that it knows
    full barrier                          full barrier
    load counter and state; go on if      load calls; if parked at another
      there is something to do              counter than this, and not yet
                                            rung for just these calls, ring
    sleep until the bell rings
    store calls = 0

With both barriers, either the peer sees the call or the waiting end sees the
counter.  The peer's barrier would be on its hot path, so the waiting end makes
both: the system call membarrier(2) runs one on every processor that a peer runs
on.  A bell remembers a ring that comes before the sleep.  Where membarrier is
missing, a ring can be missed; every park is bounded, so that costs latency and
no more.

The calls say which counter the end knows, so that one park is rung for once and
the next again: who was rung for has seen, or will see when it wakes, a later
counter, and can never park at the same one again.

Who waits for an answer waits in another way than who takes a stream:

- `rest`: a process that has written since it last waited has a peer that is to
  answer.  Looks and yields are worth their time only as far as they have ended
  such waits lately.  On a busy machine a yield gives the processor to a
  stranger, for milliseconds: then this end parks at once, for many waits.
- `until_moved`: a process that only reads, or only writes, lets bytes gather
  while it yields, and moves more at once.
"""

from __future__ import annotations

import _thread  # not threading, which is slow to import
import contextlib
import os
import time
from itertools import repeat

from .._ring import layout, ring
from .._ring.ring import Half
from .._ring.states import Verdict
from .._system import system

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from .._system.contract import Bells

    _T = TypeVar("_T")

# Looks with the processor given away in between.  On a free one they take 50 us: as long as a peer that
# sleeps on another takes to wake up and answer.
_YIELDS = 100
_YIELDING = 1e-3  # seconds: the longest time to do so; a busy processor may stay away as long each time
_FIRST_NAP = 50e-6  # seconds
_LONGEST_NAP = 0.04  # seconds: what a byte may be late after a long silence, where there are no bells
_LONGEST_SEARCH = 0.1  # seconds: what may pass until a new channel is found
_FIRST_PARK = 0.05  # seconds
# Seconds, after a long silence: the longest that a missed ring or a peer's death goes unnoticed.
_LONGEST_PARK = 0.5
_LONGEST_WATCHED_PARK = 2.0  # seconds, where neither can be missed in one namespace
GROWTH = 1.5  # of each nap over the one before
_PARK_GROWTH = 2.0  # the same of parks
_FOREVER = float("inf")  # seconds; math is slow to import
_PROBE_EVERY = 0.05  # seconds between two system calls that ask whether the peer lives, at first
_PARKS = 1024  # until the rings that may have gathered are forgotten

# Looks at a counter that is expected to move, 40 ns each.  A peer on another
# processor answers within some microseconds; on the only one never.
_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
_LOOKS_AT_MOST = 1 if _PROCESSORS == 1 else 2000
_LOOKS_AT_LEAST = min(_LOOKS_AT_MOST, 20)
_BETWEEN_CALLS = 1e-3  # seconds between two calls to a thread of this process that is to leave
_SHORT = 100e-6  # seconds: a wait for which some more looks would have been enough

# Of `rest`, which waits for an answer.
_ANSWER_LOOKS = min(_LOOKS_AT_MOST, 400)
_ANSWER_YIELDING = 1e-4  # seconds: the longest time to look and yield before parking
_SWITCH = 3e-6  # seconds: a yield that is quicker had nobody to give way to
_FIRST_BAN = 512  # waits without a yield after that; 8 times as many after the next
_LONGEST_BAN = 16384
_FIRST_RETRY = 16  # waits until yields that did not help are tried again; 4 times as many after the next
_LONGEST_RETRY = 1024


def checked_seconds(name: str, timeout: float | None) -> float | None:
    """The timeout as a float, or None.  Raises ValueError."""
    if timeout is None:
        return None
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        seconds = float(timeout)
        if 0 <= seconds <= _thread.TIMEOUT_MAX:
            return seconds
    most = _thread.TIMEOUT_MAX
    raise ValueError(f"{name}: the timeout must be None, or from 0 to {most:.0f} seconds, not {timeout!r}")


class Clock:
    """The time, and what passes it; a test has another one."""

    now = staticmethod(time.perf_counter)  # seconds
    sleep = staticmethod(time.sleep)
    give_way = staticmethod(system.yield_processor)
    fence = staticmethod(system.fence)


CLOCK = Clock()


def until(poll: Callable[[], _T | None], timeout: float | None, clock: Clock) -> _T | None:
    """Call `poll()` until it returns something other than None, and return that.

    Sleeps in growing steps in between.  Returns None after `timeout` seconds
    (None: wait for ever), having polled once more at the end.
    """
    for nap in naps(timeout, clock):
        result = poll()
        if result is not None:
            return result
        if nap:
            clock.sleep(nap)
    return poll()


def naps(timeout: float | None, clock: Clock) -> Iterator[float]:
    """Seconds to sleep after each poll, in growing steps; 0 after the last but one, when time is over."""
    start = clock.now()
    nap = _FIRST_NAP
    left = nap
    while left > 0:
        if timeout is not None:
            left = start + timeout - clock.now()
        yield max(0.0, min(nap, left))
        nap = min(GROWTH * nap, _LONGEST_SEARCH)


class Naps:
    """Instead of bells, where there are none: nobody can be woken, so sleeps are short."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def sleep(self, seconds: float, events: int = 1) -> None:
        """Sleep."""
        self._clock.sleep(seconds)

    def ring(self) -> None:
        """Wake nobody."""

    def ring_own(self) -> None:
        """Wake nobody."""

    def watch(self, pid: int) -> bool:
        """Watch nobody."""
        return False

    def watch_output(self, descriptor: int) -> None:
        """Not needed, as above."""

    def drain(self) -> None:
        """Nothing to do."""

    def heard(self) -> list[int]:
        """Nothing that a sleep could wait for."""
        return []

    def told(self, which: int) -> None:
        """Nothing to take note of."""


class Waiter:
    """How one end, `half`, waits for its peer.  `fenced` says that `clock.fence` is what it says."""

    def __init__(self, half: Half, bells: Bells | None, clock: Clock, fenced: bool = False) -> None:
        self._half = half
        self._clock = clock
        half.now, half.give_way = clock.now, clock.give_way  # type: ignore[method-assign]
        self._now = clock.now
        self.use(bells, None)
        half.rest = self.rest  # type: ignore[method-assign]
        self._fenced = fenced
        self._next_probe = 0.0
        self._parks = 0
        self._thread = 0  # the one that waits
        self._reason: str | None = None
        self._began: float | None = None  # when `rest` began that did not see the counter move
        # What `rest` has learned.
        self._looks = 1
        self._yields = _YIELDS
        self._ban = _FIRST_BAN
        self._retry = _FIRST_RETRY

    def use(self, bells: Bells | None, timeout: float | None) -> None:
        """Sleep by these bells from now on, without any take naps; `timeout` as for `limit`."""
        self.bells: Bells | Naps = bells or Naps(self._clock)
        self._half.ring = self.bells.ring  # type: ignore[method-assign]
        # Seconds: the first sleep; the longest.  How many times longer each is than the one before.
        self.spans = (_FIRST_PARK, _LONGEST_PARK) if bells else (_FIRST_NAP, _LONGEST_NAP)
        self._growth = _PARK_GROWTH if bells else GROWTH
        self.limit(timeout)

    def limit(self, timeout: float | None) -> None:
        """Let `rest` sleep no longer than so many seconds; not at all where nobody can wake it."""
        short = _FIRST_PARK if timeout is None else min(timeout, _FIRST_PARK)
        self._half.span = 0.0 if isinstance(self.bells, Naps) else short
        self._half.yields = self._half.span > 0

    def rest(self, known: int, yielded: float = 0.0) -> int:
        """Wait a little for an answer: for the peer's counter to be another than `known`; return it.

        Does not wait where no answer is expected.  Who gets the same counter goes on with `until_moved`.
        `yielded` is when this wait began, if that was with a yield, and not here.
        """
        half = self._half
        words, peer = half.words, half.peer_counter
        began = yielded
        if not began:
            if not ring.wrote or not half.span or words[half.peer_state] != layout.OPEN:
                return words[peer]
            ring.wrote = False
            if ring.rang:
                # The peer has to wake up first, perhaps on this processor.
                ring.rang = False
            else:
                for _ in repeat(None, self._looks):
                    if words[peer] != known:
                        return words[peer]
            began = self._now()
        if half.eager:
            half.eager -= 1
        elif self._yield(known, began):
            return words[peer]
        self._count_park()
        self._thread = _thread.get_ident()
        try:
            words[half.own_calls] = layout.parked(known)
            # ORDER: our call before the peer's state and counter, as in `park`.
            self._clock.fence()
            # A state before the counter, rule 2 of `ring`; what another state means, `until_moved` asks.
            if words[half.peer_state] == layout.OPEN and words[peer] == known and self._reason is None:
                self.bells.sleep(half.span, 1)
            words[half.own_calls] = 0
        except BaseException:
            words[half.own_calls] = 0
            raise
        finally:
            self._thread = 0
        if words[peer] == known:
            self._began = began  # what follows is the same wait
        return words[peer]

    def _yield(self, known: int, began: float) -> bool:
        """Give the processor away as often as has paid; return whether the peer's counter has moved."""
        half = self._half
        words, peer = half.words, half.peer_counter
        looks, self._looks = self._looks, self._looks // 2 or 1
        now, give_way = self._now, self._clock.give_way
        yielded = 0
        while True:
            moved = words[peer] != known
            took = now() - began
            if moved or took > _ANSWER_YIELDING or yielded == self._yields:
                break
            give_way()
            yielded += 1
        if took > ring.STRANGER:
            self._park_at_once(self._ban)
            self._ban = min(8 * self._ban, _LONGEST_BAN)
        elif moved:
            if took < (yielded + 1) * _SWITCH:
                # Nobody ran here meanwhile: the peer is on another processor.
                self._looks = min(2 * looks, _ANSWER_LOOKS)
                self._ban = _FIRST_BAN
            self._yields = _YIELDS
            self._retry = _FIRST_RETRY
        elif self._yields > 1 and self._retry == _FIRST_RETRY:
            self._yields //= 2
        else:
            self._park_at_once(self._retry)
            self._yields = _YIELDS  # the next try lasts long enough to succeed
            self._retry = min(4 * self._retry, _LONGEST_RETRY)
        half.spins = self._looks > 1
        half.yields = self._yields == _YIELDS
        return moved

    def _park_at_once(self, waits: int) -> None:
        """Let so many waits park without a look or a yield before."""
        self._half.sleep = self.bells.sleep  # type: ignore[method-assign]
        self._half.eager = waits
        self._looks = self._yields = 1
        self.bells.drain()  # these waits do not

    def _count_park(self) -> None:
        """Before a park says so: now and then forget the rings that may have gathered."""
        self._parks += 1
        if self._parks % _PARKS == 0:
            self.bells.drain()

    def arm(self, has_news: Callable[[bool], bool]) -> bool:
        """Let this end's bell ring as soon as `has_news(probe)`; False, and nothing armed, if that is now."""
        armed = False
        try:
            # Rings for what is over go first: one that comes from here on stays.
            self.bells.drain()
            self.call()
            # ORDER: our call before the peer's state and counter, as in `park`.
            self._clock.fence()
            armed = not has_news(self.probe_is_due())
        finally:
            if not armed:
                self.take_back()
        return armed

    def call(self) -> None:
        """Store that the bell is to ring when the counter moves; a fence and a look are to follow."""
        half = self._half
        half.words[half.own_calls] = layout.parked(half.awaited)

    def take_back(self) -> None:
        """Store that nobody is to be woken; a ring for the last call may come all the same."""
        half = self._half
        half.words[half.own_calls] = 0

    def enter(self) -> None:
        """Begin a wait of this thread that is made elsewhere: `dismiss` ends it.  `leave` is to follow."""
        self._thread = _thread.get_ident()

    def leave(self) -> None:
        """End it; nobody is to be woken any more.  May be called again."""
        # The memory may have gone, with a signal handler that closed this end.
        with contextlib.suppress(ValueError):
            self.take_back()
        self._thread = 0

    def until_moved(self, look: Callable[[bool], Verdict | None], timeout: float | None) -> Verdict | None:
        """Wait until the peer's counter moves (returns READY) or `look(probe)` gives a verdict.

        `probe` is true now and then: the look then also asks the system whether
        the peer lives.  Returns None after `timeout` seconds (None: wait for
        ever), having looked once more at the end.
        """
        self._thread = _thread.get_ident()
        try:
            verdict = self._until_moved(look, timeout)
        except ValueError:
            self.check_not_dismissed()  # the memory may have gone
            raise
        finally:
            self._thread = 0
        self.check_not_dismissed()
        return verdict

    def dismiss(self, reason: str, ring_own: Callable[[], object]) -> None:
        """Let a thread that waits here raise ValueError with this reason; return when it has left.

        `ring_own()` rings this end's bell.  After that nothing of the memory, and no
        bell, is used any more.
        """
        self._reason = reason
        # Also for who sleeps by `half.sleep`, and touches the memory only if it is still there.
        ring_own()
        # (Or it is this one, in a signal handler that came in the wait.)
        while self._thread not in (0, _thread.get_ident()):
            self._clock.sleep(_BETWEEN_CALLS)
            ring_own()

    def check_not_dismissed(self) -> None:
        """Raise ValueError with the reason if this end is closed."""
        if self._reason is not None:
            raise ValueError(self._reason)

    def _until_moved(self, look: Callable[[bool], Verdict | None], timeout: float | None) -> Verdict | None:
        half, clock = self._half, self._clock
        began, self._began = self._began, None
        if began is not None:
            return self._sleep_until_moved(look, timeout, began)
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
        span = self.spans[0]
        while True:
            self.check_not_dismissed()
            now = self._clock.now()
            probe = self.probe_is_due(now - began)
            left = _FOREVER if timeout is None else began + timeout - now
            verdict = look(probe or left <= 0)
            if verdict is None and half.awaited != known:
                # It moved, and this look was the first to see it.
                verdict = Verdict.READY
            if verdict is not None or left <= 0:
                return verdict
            if self.park(look, min(span, left)):
                return Verdict.READY
            if self._clock.now() - now < min(span, left):
                self.suspect()
            span = min(self._growth * span, self.spans[1])

    def park(self, look: Callable[[bool], Verdict | None], seconds: float) -> bool:
        """Sleep until the peer's counter moves, after one more look; return whether it has."""
        half = self._half
        words = half.words
        known = half.awaited
        self._count_park()
        try:
            words[half.own_calls] = layout.parked(known)
            # ORDER: our call before the peer's counter.  Pairs with counter before call in `write`,
            # `readinto`, `_publish` and `acknowledge`: the fence is a full barrier at both ends.
            self._clock.fence()
            if words[half.peer_counter] == known and look(False) is None:
                self.bells.sleep(seconds, 1)
        finally:
            words[half.own_calls] = 0
        return bool(words[half.peer_counter] != known)

    def watch(self, pid: int) -> None:
        """Let a park end when the peer's process does, where the system can tell."""
        if self.bells.watch(pid) and self._fenced:
            self.spans = (self.spans[0], _LONGEST_WATCHED_PARK)
            # The first is short for a peer without bells.
            self._growth = _LONGEST_WATCHED_PARK / self.spans[0]

    def next_span(self, span: float) -> float:
        """Seconds to the next look of a wait made elsewhere, after a span of so many; the first after 0."""
        if not span:
            return min(self.spans[0], _FIRST_PARK)
        return min(max(self._growth * span, self.spans[0]), self.spans[1])

    def suspect(self) -> None:
        """Ask soon whether the peer lives: a ring was for what is over, or the peer's process has ended."""
        self._next_probe = 0.0

    def probe_is_due(self, waited: float = 0.0) -> bool:
        """Whether it is time to ask whether the peer lives; less often after a long wait, in seconds."""
        now = self._now()
        if now < self._next_probe:
            return False
        self._next_probe = now + min(max(_PROBE_EVERY, waited / 4), _LONGEST_PARK)
        return True
