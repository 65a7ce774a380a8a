"""Taking a role of a channel, on every system."""

from __future__ import annotations

import time

from ..errors import MemoryRefused, RoleTaken

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from .contract import Claim, Roles

_TIDYING = 1.0  # seconds that a role may stay taken by somebody who has left, or who looks (Windows)
_BETWEEN = 0.001  # seconds


def claim(roles: Roles, role: str) -> Claim:
    """Take the role, or raise RoleTaken, which names the pid of who has it."""
    place = roles.place
    deadline = time.monotonic() + _TIDYING
    while True:
        claim = roles.attempt(role)
        if claim is not None:
            return claim
        pid = roles.holder(role)
        if pid is not None:
            raise RoleTaken(
                f"{place.name}: there is a {role} already (pid {pid}); use another name or end it"
            )
        if time.monotonic() > deadline:
            raise MemoryRefused(
                f"{place.name}: a stopped process still tidies up, or looks, at {place.location}; "
                "end it or let it go on"
            )
        time.sleep(_BETWEEN)
