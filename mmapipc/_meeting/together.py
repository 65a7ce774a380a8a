"""Waiting for several ends, and for other things, in one sleep.

Each end parks as `waiting` describes, but all of them before the one sleep.
Every sleep is bounded, and the ends are looked at after each: so a ring that is
missed, and a death that nothing tells of, cost time and no more.
"""

from __future__ import annotations

from .._system import system
from .waiting import CLOCK, GROWTH, Clock

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .link import Link

_LONGEST_SLEEP = 0.5  # seconds
_FOR_EVER = float("inf")  # seconds


def wait(
    links: Sequence[Link], others: Sequence[Any], timeout: float | None, clock: Clock = CLOCK
) -> tuple[list[Link], list[Any]]:
    """Those links that have news and those others that are ready, as `system.sleep_on` takes them.

    Waits, for `timeout` seconds at most (None: as long as it takes), until
    there is one.  Raises ValueError when a link has left, or leaves meanwhile.
    """
    waiters = [link.waiter for link in links]
    try:
        for waiter in waiters:
            waiter.enter()
        return _wait(links, others, _FOR_EVER if timeout is None else timeout, clock)
    except ValueError:
        for waiter in waiters:
            waiter.check_not_dismissed()  # the memory may have gone
        raise
    finally:
        try:
            for waiter in waiters:
                waiter.leave()
        except BaseException:  # of a signal handler: none may stay behind
            for waiter in waiters:
                waiter.leave()
            raise


def _wait(
    links: Sequence[Link], others: Sequence[Any], timeout: float, clock: Clock
) -> tuple[list[Link], list[Any]]:
    began = clock.now()
    shortest = min((link.waiter.spans[0] for link in links), default=_LONGEST_SLEEP)
    longest = min((link.waiter.spans[1] for link in links), default=_LONGEST_SLEEP)
    span = 0.0  # most often there is something: first look, without a call
    while True:
        for link in links:
            link.waiter.check_not_dismissed()
        if span:
            for link in links:
                link.waiter.call()
            # ORDER: our calls before the peers' states and counters, as in `Waiter.park`: one fence for all.
            clock.fence()
        waited = clock.now() - began
        news = [link for link in links if link.has_news(link.waiter.probe_is_due(waited))]
        seconds = 0.0 if news else max(0.0, min(span, timeout - waited))
        ready = _sleep(links if seconds else (), others, seconds)
        if news or ready or waited >= timeout:
            return news, ready
        span = min(GROWTH * span, longest) if span else shortest


def _sleep(links: Sequence[Link], others: Sequence[Any], seconds: float) -> list[Any]:
    """Sleep until a bell of the links rings, or one of the others is ready; return those others that are."""
    bells = {which: link.waiter for link in links for which in link.waiter.bells.heard()}
    if not (bells or others or seconds):
        return []
    ended = system.sleep_on([*bells, *others], seconds)
    rung = [which for which in bells if which in ended]
    for which in rung:
        bells[which].bells.told(which)
        bells[which].suspect()
    return ended[len(rung) :]  # in their order: ours came first
