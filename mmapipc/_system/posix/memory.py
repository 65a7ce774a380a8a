"""Named memory as files that only this user can open.

Whoever removes such a file has it locked exclusively, and so is sure that
nobody else needs it:

  - the sender that made it for a channel has it locked so all the time;
  - those who share it without roles (`share`) each have a shared lock on it,
    up to where the range of its guard begins.

So a file that can be locked exclusively is nobody's.  It is what killed holders
left.  It is removed and not used again, for somebody may have it mapped still.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import time

from ...errors import ChannelError, InvalidName, MappingTooSmall, MemoryRefused, NoSuchMapping, in_bytes
from .. import files, names
from ..names import Place
from ..views import View
from . import locks
from .guards import Guard
from .private import is_at, open_private, refusing, remove_guard_mark, remove_if_free
from .roles import Roles

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAKING = 10.0  # seconds that the making of memory may take others who want it


class _Lock:
    """The lock that goes with memory; by an open of its own.

    A mapping keeps the open that it is made of, and forked children keep the
    mapping.
    """

    def __init__(self, file: io.FileIO, path: str) -> None:
        self.file = file
        self._path = path

    def release(self) -> None:
        """Give it up."""
        try:
            with contextlib.suppress(OSError):  # closing unlocks too
                locks.unlock(self.file)
            self._tidy()
        finally:
            self.file.close()

    def _tidy(self) -> None:
        """Nothing: the memory of a channel is removed by who leaves the channel last."""


class _Share(_Lock):
    """A part in memory that lives while anybody has one."""

    def _tidy(self) -> None:
        # Of two that leave at the same time, the one that unlocks last finds the other's lock gone.
        with contextlib.suppress(OSError, ChannelError):
            remove_if_free(self.file, self._path)


class Memory:
    """A file of memory, open; perhaps with a lock that goes with it."""

    def __init__(self, place: Place, file: io.FileIO, lock: _Lock | None = None) -> None:
        self._place = place
        self._file = file
        self._lock = lock
        self._status = os.fstat(file.fileno())

    def map(self, length: int, offset: int = 0, access: int = mmap.ACCESS_WRITE) -> mmap.mmap:
        """Map `length` bytes; MappingTooSmall when there are fewer."""
        with refusing(self._place.name, self._place.location):
            try:
                return mmap.mmap(self._file.fileno(), length, access=access, offset=offset)
            except ValueError:
                # It compares with the file's size: beyond its end a load is a SIGBUS.
                raise MappingTooSmall(
                    f"{self._place.name}: {self._place.location} is shorter "
                    f"than {in_bytes(offset + length)}; ask for fewer"
                ) from None
            except PermissionError as error:  # a descriptor of the user's
                advice = "; open it for reading and writing, or use another access"
                raise files.refused(self._place, error, advice) from None

    def view(self, length: int, offset: int, access: int) -> View:
        """See `contract.Memory`."""
        return View(self._place, self.map(length, offset, access))

    def guard(self, tag: str | None) -> Guard:
        """See `contract.Memory`."""
        if tag is not None:
            raise InvalidName(f"{tag}: only Windows has mutexes with a tagname; leave the tagname out")
        return Guard(self._place, self._file)

    def unlink(self) -> None:
        """See `contract.Memory`."""
        with files.opening(self._place):
            if not os.path.samestat(os.lstat(self._place.location), self._status):
                raise NoSuchMapping(f"{self._place.name}: the tagname belongs to other memory now")
            os.unlink(self._place.location)
        remove_guard_mark(self._status)

    def flush(self, mapping: mmap.mmap) -> None:
        """Bring what was stored in the mapping to the file; return when the disk has it."""
        with files.opening(self._place):
            mapping.flush()

    def size(self) -> int:
        """How many bytes there are."""
        return os.fstat(self._file.fileno()).st_size

    def has(self, length: int) -> bool:
        """Whether the creator has given the file as many bytes yet."""
        return self.size() >= length

    def fits(self, length: int) -> bool:
        """Whether the file has exactly this many bytes."""
        return self.size() == length

    def extend(self, size: int) -> None:
        """Give the user's file so many bytes."""
        with files.opening(self._place):
            reserve(self._file.fileno(), self.size(), size)

    def is_at(self, path: str) -> bool:
        """Whether the path leads to this file."""
        with files.opening(self._place):
            return is_at(self._file, path, follow=True)

    def is_nameless(self) -> bool:
        """Whether the file is removed, so that nobody can open it any more."""
        return not os.fstat(self._file.fileno()).st_nlink

    def close(self) -> None:
        """Let go of the file, and of the lock that comes with the memory."""
        self._file.close()
        if self._lock is not None:
            self._lock.release()


def _take(place: Place, flags: int) -> tuple[io.FileIO, bool] | None:
    """Open and lock the file of the memory; return (the open file, whether it is new); None: look again.

    New means empty, and locked exclusively; otherwise the lock is shared with
    those who have it.
    """
    path = place.location
    file = open_private(place, path, flags)
    try:
        with refusing(place.name, path):
            if locks.lock(file):
                if flags & os.O_CREAT and os.fstat(file.fileno()).st_size == 0 and is_at(file, path):
                    return file, True
                remove_if_free(file, path)
            elif locks.lock(file, locks.BELOW_GUARD, shared=True) and is_at(file, path):
                return file, False
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _undo(place: Place, locked: io.FileIO) -> None:
    """After what was done with locked memory has failed: the lock goes, and the file if it is nobody's."""
    with locked, contextlib.suppress(OSError):
        remove_if_free(locked, place.location)


def create(place: Place, size: int) -> Memory:
    """Make the memory: `size` zero bytes, all of them reserved."""
    path = place.location
    taken = _take(place, os.O_CREAT)
    if taken is None or not taken[1]:
        if taken is not None:
            taken[0].close()
        raise MemoryRefused(f"{place.name}: another process has just taken {path}; use another name")
    locked = taken[0]
    try:
        with refusing(place.name, path):
            reserve(locked.fileno(), 0, size)
            return Memory(place, open_private(place, path), _Lock(locked, path))
    except BaseException:
        _undo(place, locked)
        raise


def reserve(fd: int, start: int, size: int) -> None:
    """Give the file its bytes from `start` on: a full disk fails now, and not a later store (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, start, size - start)
    else:  # macOS
        block = bytes(1 << 20)
        while start < size:
            start += os.pwrite(fd, block[: size - start], start)


def share(place: Place, size: int, create: bool, writable: bool, exist_ok: bool) -> tuple[Memory, bool]:
    """Open memory that lives while anybody has it; with `create` make it if it is not there."""
    locked, created = _share(place, size, create)
    try:
        with refusing(place.name, place.location):
            if not (created or exist_ok):
                raise names.there_already(place)
            if not os.fstat(locked.fileno()).st_size:
                raise names.other_backing(place, False)
            return Memory(place, open_private(place, place.location), _Share(locked, place.location)), created
    except BaseException:
        _undo(place, locked)
        raise


def _refuse_channel(place: Place) -> None:
    roles = Roles(place)
    for role in (names.SENDER, names.RECEIVER):
        if roles.holder(role) is not None:
            raise names.other_kind(place, role)


def _share(place: Place, size: int, create: bool) -> tuple[io.FileIO, bool]:
    """Take a part in the name; return (the locked file, whether the name was new).

    Size 0 makes a name without memory of its own.
    """
    deadline = time.monotonic() + _MAKING
    while True:
        _refuse_channel(place)
        try:
            taken = _take(place, os.O_CREAT if create else 0)
        except FileNotFoundError:
            raise NoSuchMapping(f"{place.name}: there is no memory of that name; make it first") from None
        if taken is not None:
            locked, created = taken
            if not created:
                return locked, False
            try:
                with refusing(place.name, place.location):
                    if size:
                        reserve(locked.fileno(), 0, size)
                    # A sender of that name has its role before it looks for the memory.
                    _refuse_channel(place)
                    # In one step: nobody finds the file free.
                    locks.lock(locked, locks.BELOW_GUARD, shared=True)
                    locks.unlock(locked, (locks.GUARD, 0))
                    return locked, True
            except BaseException:
                _undo(place, locked)
                raise
        if time.monotonic() > deadline:
            raise MemoryRefused(
                f"{place.name}: {place.location} stays locked by another process; end it or use another name"
            )
        time.sleep(0.001)


def open_file(
    place: Place | None, file: Place, size: int, create: bool, writable: bool, exist_ok: bool = True
) -> tuple[Memory, bool]:
    """Open a file of the user's as memory; with `create` make it or extend it to `size` bytes."""
    opened, wanted, made = files.open_regular(
        file, size, create, writable, exist_ok or place is not None
    )
    lock = None
    created = made
    try:
        with files.opening(file):
            if place is not None:
                locked, created = _share(place, 0, create)
                lock = _Share(locked, place.location)
                if not (created or exist_ok):
                    raise names.there_already(place)
                if os.fstat(locked.fileno()).st_size:
                    raise names.other_backing(place, True)
            there = os.fstat(opened.fileno()).st_size
            if there < wanted:
                reserve(opened.fileno(), there, wanted)
    except BaseException:
        with opened:
            if made:
                os.unlink(file.location)
        if lock is not None:
            lock.release()
        raise
    return Memory(file, opened, lock), created


def open_existing(place: Place) -> Memory | None:
    """Open the memory of that name; None when there is none."""
    try:
        return Memory(place, open_private(place, place.location))
    except FileNotFoundError:
        return None


class Observed(Memory):
    """A file of memory, open to be looked at only."""

    @contextlib.contextmanager
    def look(self, length: int) -> Iterator[memoryview]:
        """A read-only view of the first `length` bytes; MappingTooSmall when there are fewer."""
        with self.map(length, access=mmap.ACCESS_READ) as page, memoryview(page) as view:
            yield view


def observe(place: Place) -> Observed | None:
    """Open the memory of that name to look at it; None when there is none."""
    try:
        return Observed(place, open_private(place, place.location, access=os.O_RDONLY))
    except FileNotFoundError:
        return None


def observe_file(place: Place) -> Observed:
    """Open the user's file at that path to look at it.  Raises NoSuchMapping, InvalidSize."""
    return Observed(place, files.open_regular(place, 0, create=False, writable=False)[0])
