"""Waiting for the other end: spin, yield, then sleep in growing steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from . import platform

_T = TypeVar("_T")

_SPINS = 200  # looks, about 0.1 ms: a peer that is running answers within it
_YIELDS = 100  # looks with the processor given away in between
_FIRST_NAP = 50e-6  # seconds
_LONGEST_NAP = 5e-3  # seconds: what a byte may be late after a long silence
_PROBE_EVERY = 0.05  # seconds between two system calls that ask whether the peer lives


def until(poll: Callable[[bool], _T | None], timeout: float | None) -> _T | None:
    """Call `poll(probe)` until it returns something other than None, and return that.

    `probe` is true now and then: the poll should then also ask the system
    whether the peer lives.  Returns None after `timeout` seconds (None: wait
    for ever), having polled once more at the end.
    """
    for _ in range(_SPINS):
        result = poll(False)
        if result is not None:
            return result
    start = time.perf_counter()
    for _ in range(_YIELDS):
        platform.yield_processor()
        result = poll(False)
        if result is not None:
            return result
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
        time.sleep(min(nap, left))
        nap = min(nap * 1.5, _LONGEST_NAP)
