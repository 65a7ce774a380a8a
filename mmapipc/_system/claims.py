"""Taking a role of a channel, on every system."""

from __future__ import annotations

import time

from ..errors import MemoryRefused, RoleTaken

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from .contract import Claim, Roles

_TIDYING = 1.0  # seconds that a role may stay taken by somebody who has left, or who looks (Windows)


class Claiming:
    """The attempts of one process to take a role."""

    def __init__(self, roles: Roles, waits: bool = False, thing: str = "name") -> None:
        self._roles = roles
        self._waits = waits
        self._thing = thing  # what the roles are of, for the message
        self.rival: int | None = None  # the pid of who had the role at the last attempt
        self._since: float | None = None  # when somebody was met who has left, or who looks

    def attempt(self, role: str) -> Claim | None:
        """Take the role; None while somebody has it for a moment who has left, or who looks.

        None too while a `rival` has it, if this process waits for that; otherwise
        raises RoleTaken, which names the pid.  MemoryRefused when the moment does not end.
        """
        place = self._roles.place
        self.rival = None
        claim = self._roles.attempt(role)
        if claim is not None:
            self._since = None
            return claim
        self.rival = pid = self._roles.holder(role)
        if pid is not None:
            self._since = None
            if self._waits:
                return None
            raise RoleTaken(
                f"{place.name}: there is a {role} already (pid {pid}); "
                f"end that process, or use another {self._thing}"
            )
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now > self._since + _TIDYING:
            raise MemoryRefused(
                f"{place.name}: a paused process holds {place.location}; end it, or let it continue"
            )
        return None
