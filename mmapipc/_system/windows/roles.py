"""Roles as named semaphores, which vanish with the process that has them open.

    mmapipc.NAME                                      the memory
    mmapipc.NAME+sender, +receiver                    exist while that role is held
    mmapipc.NAME+sender-bell, +receiver-bell          what the two ends sleep on, see `bells`
    Global\\mmapipc-file.SERIAL.INDEX+sender, ...      the same of the ring in a file
    ...+lock                                          the mutex of a mapping, see `guards`
    mmapipc.NAME+ID, ...+sender, ...                  a connection
    mmapipc.pipe++ID, ...+sender, ...                 the same of `Pipe`
    ...+sender-kept, +receiver-kept                   exist while an end is kept for whoever will use it

with the `Global\\` or `Local\\` that the name began with in front.  (`+` is in no
encoded name; SERIAL and INDEX are the volume's and the file's, in hexadecimal.
A file is the same in every session, so what belongs to it is too.)

The semaphore's maximum is its holder's pid, so the kernel gives role and pid in
one step, and nobody needs the right to make a section for it.  It is never
waited for; a count of 1 says that its holder has given it up.

Looking opens a semaphore for a moment, and who closes it last ends its name.  So
a claimant who meets one that was given up, or whose holder is gone, tries again
for a second: a process that was stopped in the middle of a look can hold up a
role that long, and then the claimant says so.
"""

from __future__ import annotations

import ctypes
import io
import msvcrt
import os

from ...errors import ChannelError, FileRefused, MemoryRefused, NameTaken
from .. import files
from ..names import PEER, RECEIVER, SENDER, Place
from . import bells, win32

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LARGEST_PID = 2**31 - 1
_OF_FILES = "Global\\mmapipc-file."  # how the tags begin that belong to files


def refused(name: str, tag: str, code: int, others: bool = False) -> ChannelError:
    """The system's refusal of the object `tag` in our words; it may be other programs'."""
    kind = MemoryRefused
    if code == win32.ERROR_INVALID_HANDLE:
        return NameTaken(f"{name}: {tag} is the name of an object of another kind; use another name")
    if code == win32.ERROR_PATH_NOT_FOUND:
        advice = f"the system does not accept the name {tag}; use another one"
    elif code == win32.ERROR_ACCESS_DENIED:
        kind = FileRefused
        if tag.startswith(_OF_FILES):
            hint = "a program of another user, or with more rights, has the file; end it, or use another file"
        else:
            hint = "use access='read' if you may only read, or use" if others else "use"
            hint += " another name, without Global\\ unless you are an administrator"
        advice = f"access to {tag} is denied; {hint}"
    else:
        advice = f"{tag}: {ctypes.FormatError(code)}"
    refusal = kind(f"{name}: {advice}")
    refusal.winerror = code
    return refusal


def _lives(pid: int) -> bool:
    process = win32.open_process(win32.SYNCHRONIZE, False, pid)
    if not process:
        return bool(ctypes.get_last_error() == win32.ERROR_ACCESS_DENIED)
    try:
        return bool(win32.wait_for(process, 0) == win32.WAIT_TIMEOUT)
    finally:
        process.close()


class Keep:
    """See `contract.Keep`: a semaphore that exists while anybody keeps the end, and the memory."""

    def __init__(self, semaphore: win32.Handle, memory: win32.Handle | None = None) -> None:
        self._semaphore = semaphore
        self._memory = memory

    def hold(self, place: Place) -> None:
        """See `contract.Keep`."""
        self._memory = win32.open_mapping(win32.FILE_MAP_READ, False, place.location)

    def close(self) -> None:
        """See `contract.Keep`."""
        self._semaphore.close()
        if self._memory is not None:
            self._memory.close()

    def __reduce__(self) -> tuple[Callable[..., Keep], tuple[int, ...]]:
        from multiprocessing import context

        process: Any = context.get_spawning_popen()
        assert self._memory is not None
        handles = (process.duplicate_for_child(each.value) for each in (self._semaphore, self._memory))
        return _kept, tuple(handles)


def _kept(*handles: int) -> Keep:
    """The keep whose handles were passed to this process as it was started."""
    return Keep(*map(win32.Handle, handles))


class Claim:
    """A role that this process has."""

    def __init__(self, semaphore: win32.Handle, roles: Roles, role: str) -> None:
        self._semaphore = semaphore
        self._roles = roles
        self._role = role

    def bells(self, ring: int = 0) -> bells.Bells | None:
        """The bells of the two ends, or None.  A sleep takes a ring away: each ring of memory has its own."""
        return self._roles.bells(self._role, ring)

    def holder(self, role: str) -> int | None:
        """The pid of who has another role of the channel, or None."""
        return self._roles.holder(role)

    def is_kept(self, role: str) -> bool:
        """Whether somebody keeps that end for later."""
        return self._roles.is_kept(role)

    def unname(self) -> None:
        """Nothing to do: the names vanish with the last handles."""

    def stands(self) -> bool:
        """Whether the role is still that of the place."""
        return self._roles.stand()

    def release(self, *, memory: bool = True) -> None:
        """Give the role back, also from those who look just now."""
        if self._semaphore:
            win32.release_semaphore(self._semaphore, 1, None)
            self._semaphore.close()


class Roles:
    """The roles of a channel in memory, or of a file."""

    def __init__(self, place: Place, file: Place | None = None) -> None:
        self.place = place
        self._file = file
        self._tags = place if file is None else _file_tags(file)

    def attempt(self, role: str) -> Claim | None:
        """Take the role; None when somebody has it, or has it open."""
        tag = self._tags.of(role)
        semaphore = win32.create_semaphore(None, 0, os.getpid(), tag)
        code = ctypes.get_last_error()
        if not semaphore:
            raise refused(self.place.name, tag, code)
        if code == win32.ERROR_ALREADY_EXISTS:
            semaphore.close()
            return None
        return Claim(semaphore, self, role)

    def holder(self, role: str) -> int | None:
        """The pid of who has the role; None when nobody has it."""
        tag = self._tags.of(role)
        semaphore = win32.open_semaphore(win32.SEMAPHORE_QUERY_STATE, False, tag)
        if not semaphore:
            code = ctypes.get_last_error()
            if code in (win32.ERROR_FILE_NOT_FOUND, win32.ERROR_PATH_NOT_FOUND):
                return None
            raise refused(self.place.name, tag, code)
        try:
            seen = win32.SemaphoreInformation()
            win32.query_semaphore(
                semaphore, win32.SEMAPHORE_BASIC_INFORMATION, ctypes.byref(seen), ctypes.sizeof(seen), None
            )
        finally:
            semaphore.close()
        pid: int = seen.MaximumCount
        return pid if not seen.CurrentCount and 0 < pid <= _LARGEST_PID and _lives(pid) else None

    def keep(self, role: str) -> Keep:
        """See `contract.ChannelRoles`."""
        tag = self._tags.of(f"{role}-kept")
        semaphore = win32.create_semaphore(None, 0, 1, tag)
        if not semaphore:
            raise refused(self.place.name, tag, ctypes.get_last_error())
        return Keep(semaphore)

    def is_kept(self, role: str) -> bool:
        """Whether somebody keeps that end for later."""
        semaphore = win32.open_semaphore(win32.SEMAPHORE_QUERY_STATE, False, self._tags.of(f"{role}-kept"))
        if not semaphore:
            return False
        semaphore.close()
        return True

    def parts(self) -> list[Place]:
        """Nothing: killed processes leave nothing."""
        return []

    def bells(self, role: str, ring: int) -> bells.Bells | None:
        """The bells of one ring of the memory, for the end of that role."""
        which = f"-{ring}" if ring else ""
        own, peers = (self._tags.of(f"{each}-bell{which}") for each in (role, PEER[role]))
        return bells.bells(own, peers)

    def stand(self) -> bool:
        """Whether these are still the roles of the place."""
        try:
            return self._file is None or _file_tags(self._file).location == self._tags.location
        except ChannelError:
            return False

    def exists(self) -> bool:
        """Whether there is anything of the channel: the memory, or a role's holder."""
        mapping = win32.open_mapping(win32.FILE_MAP_READ, False, self.place.location)
        if mapping:
            mapping.close()
            return True
        return self.in_use()

    def in_use(self) -> bool:
        """See `contract.ChannelRoles`; nobody tidies up here."""
        return self.holder(SENDER) is not None or self.holder(RECEIVER) is not None

    def sweep(self) -> None:
        """Nothing to do: the names vanish with the last handles."""


class FileRoles:
    """The roles of the ring in the user's file, by whatever path it is reached."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def attempt(self, role: str) -> Claim | None:
        """Take the role; None when somebody has it, or has it open.  Raises NoSuchMapping, FileRefused."""
        return Roles(self.place, self.place).attempt(role)

    def holder(self, role: str) -> int | None:
        """The pid of who has the role; None when nobody has it.  Raises NoSuchMapping, FileRefused."""
        return Roles(self.place, self.place).holder(role)


def _file_tags(file: Place) -> Place:
    """Where the roles of the file at that place are.  Raises NoSuchMapping, FileRefused."""
    with files.opening(file), files.owned(file.location, files.FLAGS, os.O_RDONLY) as opened:
        return tags_of(file.name, opened)


def tags_of(name: str, file: io.FileIO) -> Place:
    """Where the objects are that belong to an open file."""
    about = win32.FileInformation()
    win32.file_information(msvcrt.get_osfhandle(file.fileno()), ctypes.byref(about))
    index = (about.FileIndexHigh << 32) + about.FileIndexLow
    return Place(name, f"{_OF_FILES}{about.VolumeSerialNumber:08X}.{index:016X}")
