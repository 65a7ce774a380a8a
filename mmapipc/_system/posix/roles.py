"""Roles as locks on a file: one end of a channel has the sender's, one the receiver's.

A channel in memory has a file for this alone, which stays empty:

    mmapipc.UID.NAME                    the memory
    mmapipc.UID.NAME+roles              locked by those who have a role
    mmapipc.UID.NAME+sender-bell,       what the two ends sleep on, see `bells`
      +receiver-bell
    mmapipc.UID.+DEVICE.INODE+...       the same two of a ring in a file
    mmapipc.UID.NAME+ID, ...            a connection: memory, roles and bells until both ends have them open
    mmapipc.UID.pipe++ID, ...           the same of `Pipe`

(`+` never appears in an encoded name.)  A ring in a file of the user's has the
locks on that file itself, by whatever path it is reached.

The locked range says who has which role: it begins where the role's ranges
begin, and has 1 + pid bytes.  So the kernel gives role and pid in one step, and
takes both back when the process ends.  Whoever tidies up locks all the ranges.

What both ends have closed is gone: whoever leaves last removes it.  What killed
ends left stays until the next one uses the name; of a ring in a file, two bells
stay until an end of any such ring leaves.
"""

from __future__ import annotations

import contextlib
import io
import os
from operator import methodcaller

from ...errors import ChannelError, UnsafeMemory
from .. import files
from ..names import CHANGER, PEER, ROLES, SENDER, Place
from . import bells, locks
from .private import inode_path, is_at, of_files, open_private, refusing, remove

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Far behind the last byte of any file, and far enough apart for any pid.
_APART = 1 << 40
_FIRST = {role: (1 << 61) + number * _APART for number, role in enumerate(ROLES)}
_ALL = (_FIRST[SENDER], len(ROLES) * _APART)
_LARGEST_PID = 2**32 - 1
# Of an end of a connection that is kept for whoever will use it: a shared lock of one byte, where a channel
# in memory has no other.  So nobody removes what somebody may still want.
_KEPT = {role: (_FIRST[CHANGER] + number, 1) for number, role in enumerate(PEER)}


# What follows the `+` in the names of a channel's own files; nothing in those of `Pipe`.
_NO_PARTS = {"", "roles", *(f"{role}-bell" for role in PEER)}


def _holder(file: io.FileIO, role: str) -> int | None:
    """The pid of another open's holder of the role; None when nobody has it, or somebody tidies up."""
    first = _FIRST[role]
    found = locks.in_the_way(file, (first, 1))
    if found is None:
        return None
    start, length = found
    return length - 1 if start == first and length <= 1 + _LARGEST_PID else None


def _bell(place: Place, role: str) -> str:
    """The path of that end's bell."""
    return place.of(f"{role}-bell")


def _remove_bells(place: Place) -> None:
    """For who has locked all the ranges."""
    for role in PEER:
        with contextlib.suppress(OSError):
            os.unlink(_bell(place, role))


def _remove_bells_left() -> None:
    """Remove those that killed ends of rings in files have left: nobody may ever use their file again."""
    folder, beginning = os.path.split(of_files())
    for entry in os.listdir(folder):
        if entry.startswith(beginning) and entry.endswith("-bell"):
            bells.remove_if_left(os.path.join(folder, entry))


class Keep:
    """See `contract.Keep`.  All copies share one open of the roles' file, and with it the lock."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def hold(self, place: Place) -> None:
        """Nothing: the memory's name stays as long as the lock does."""

    def close(self) -> None:
        """See `contract.Keep`."""
        self._file.close()

    def __reduce__(self) -> tuple[Callable[[Any], Keep], tuple[Any]]:
        from multiprocessing import context

        process: Any = context.get_spawning_popen()
        return _kept, (process.DupFd(process.duplicate_for_child(self._file.fileno())),)


def _kept(passed: Any) -> Keep:
    """The keep whose descriptor was passed to this process as it was started."""
    return Keep(next(map(io.FileIO, map(methodcaller("detach"), (passed,)), ("r+",))))


class Claim:
    """A role that this process has."""

    def __init__(self, file: io.FileIO, roles: Roles | FileRoles, role: str) -> None:
        self._file = file
        self._roles = roles
        self._role = role
        self._bells: bells.Bells | None = None

    def bells(self, ring: int = 0) -> bells.Bells | None:
        """The bells of the two ends, or None.  A second ring has the same FIFOs, with another sleeper."""
        if self._bells is not None:
            return self._bells.again()
        try:
            place = self._roles.bells_place(self._file)
        except ChannelError:  # there is no directory for them
            return None
        self._bells = bells.bells(_bell(place, self._role), _bell(place, PEER[self._role]))
        return self._bells

    def holder(self, role: str) -> int | None:
        """The pid of who has another role of the channel, or None.  Opens nothing."""
        place = self._roles.place
        with refusing(place.name, place.location):
            return _holder(self._file, role)

    def is_kept(self, role: str) -> bool:
        """See `contract.Claim`."""
        place = self._roles.place
        with refusing(place.name, place.location):
            return locks.in_the_way(self._file, _KEPT[role]) is not None

    def unname(self) -> None:
        """Take all names away: both ends have open what they need."""
        place = self._roles.place
        _remove_bells(place)
        for path in (place.location, place.of("roles")):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def stands(self) -> bool:
        """Whether the role is still that of the place."""
        return self._roles.have(self._file)

    def release(self, *, memory: bool = True) -> None:
        """Give the role back.  The last one who leaves removes what is left; the memory, if told to."""
        try:
            # With the role still ours, so that nobody takes for left what is about to be removed.
            if not self._roles.tidy(self._file, memory):
                # An error here is none of the stream's, and closing unlocks too.
                with contextlib.suppress(OSError):
                    locks.unlock(self._file)
                # Of two that leave at the same time, the one that unlocks last finds the other's lock gone.
                self._roles.tidy(self._file, memory)
        finally:
            self._file.close()  # with whatever is locked still


class Roles:
    """The roles of a channel in memory."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._path = place.of("roles")

    def attempt(self, role: str) -> Claim | None:
        """Take the role; None when somebody has it, or is just tidying up."""
        file = open_private(self.place, self._path, os.O_CREAT)
        try:
            with refusing(self.place.name, self._path):
                if locks.lock(file, (_FIRST[role], 1 + os.getpid())) and is_at(file, self._path):
                    return Claim(file, self, role)
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def keep(self, role: str) -> Keep:
        """See `contract.ChannelRoles`."""
        while True:
            file = open_private(self.place, self._path, os.O_CREAT)
            with file, refusing(self.place.name, self._path):
                if locks.lock(file, _KEPT[role], shared=True) and is_at(file, self._path):
                    # Not by a descriptor that a forked child lets go of.
                    return Keep(next(map(io.FileIO, map(os.dup, (file.fileno(),)), ("r+",))))

    def holder(self, role: str) -> int | None:
        """The pid of who has the role; None when nobody has it.  Takes nothing."""
        try:
            file = open_private(self.place, self._path, access=os.O_RDONLY)
        except FileNotFoundError:
            return None
        with file, refusing(self.place.name, self._path):
            return _holder(file, role)

    def is_kept(self, role: str) -> bool:
        """See `contract.ChannelRoles`."""
        try:
            file = open_private(self.place, self._path, access=os.O_RDONLY)
        except FileNotFoundError:
            return False
        with file, refusing(self.place.name, self._path):
            return locks.in_the_way(file, _KEPT[role]) is not None

    def parts(self) -> list[Place]:
        """See `contract.ChannelRoles`."""
        folder, own = os.path.split(self.place.location)
        try:
            entries = os.listdir(folder)
        except OSError:
            return []
        found = {entry[len(own) + 1 :].partition("+")[0] for entry in entries if entry.startswith(f"{own}+")}
        return [Place(self.place.name, self.place.of(part)) for part in found - _NO_PARTS]

    def exists(self) -> bool:
        """Whether there is anything of the channel: the memory, or the roles' file."""
        return os.path.lexists(self.place.location) or os.path.lexists(self._path)

    def in_use(self) -> bool:
        """See `contract.ChannelRoles`."""
        try:
            file = open_private(self.place, self._path, access=os.O_RDONLY)
        except FileNotFoundError:
            return False
        with file, refusing(self.place.name, self._path):
            return locks.in_the_way(file, _ALL) is not None

    def bells_place(self, file: io.FileIO) -> Place:
        """What the bells belong to: the channel."""
        return self.place

    def have(self, file: io.FileIO) -> bool:
        """Whether the open file is that of the roles: nobody removes it as long as there is a lock on it."""
        return True

    def tidy(self, file: io.FileIO, memory: bool = True) -> bool:
        """Remove what is left of the channel, by an open of the roles' file, if nobody else has a role.

        Returns whether that was so; then this open has none any more either.
        """
        # An error here is none of the stream's, which has ended.
        with contextlib.suppress(OSError, ChannelError):
            if locks.lock(file, _ALL):
                try:
                    if is_at(file, self._path):
                        _remove_bells(self.place)
                        if memory:
                            # Not what is another user's; the roles' file goes all the same.
                            with contextlib.suppress(OSError, ChannelError):
                                remove(self.place)
                        os.unlink(self._path)
                    else:  # somebody has taken all names away, perhaps before our bells had theirs
                        for role in PEER:
                            bells.remove_if_left(_bell(self.place, role))
                    return True
                finally:
                    locks.unlock(file)
        return False

    def sweep(self) -> None:
        """Remove what is left of a channel at which nobody is."""
        try:
            file = open_private(self.place, self._path)
        except (FileNotFoundError, UnsafeMemory):
            # So nobody of this user's can have a role.
            _remove_bells(self.place)
            remove(self.place)
            return
        with file:
            self.tidy(file)


class FileRoles:
    """The roles of a ring in the user's file `path`."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def attempt(self, role: str) -> Claim | None:
        """Take the role; None when somebody has it.  Raises NoSuchMapping, FileRefused."""
        with files.opening(self.place):
            file = files.owned(self.place.location, files.FLAGS, os.O_RDWR)
        try:
            with refusing(self.place.name, self.place.location):
                if locks.lock(file, (_FIRST[role], 1 + os.getpid())):
                    return Claim(file, self, role)
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def holder(self, role: str) -> int | None:
        """The pid of who has the role; None when nobody has it.  Takes nothing."""
        with files.opening(self.place), files.owned(self.place.location, files.FLAGS, os.O_RDONLY) as file:
            return _holder(file, role)

    def have(self, file: io.FileIO) -> bool:
        """Whether the path leads to the open file."""
        with files.opening(self.place):
            return is_at(file, self.place.location, follow=True)

    def bells_place(self, file: io.FileIO) -> Place:
        """What the bells belong to: the file, by whatever path it is reached."""
        return Place(self.place.name, inode_path(os.fstat(file.fileno())))

    def tidy(self, file: io.FileIO, memory: bool) -> bool:
        """Remove the bells if nobody else has a role; return as above.  The file is the user's: it stays."""
        tidied = False
        with contextlib.suppress(OSError, ChannelError):
            if locks.lock(file, _ALL):
                try:
                    _remove_bells(self.bells_place(file))
                    tidied = True
                finally:
                    locks.unlock(file)
            _remove_bells_left()
        return tidied
