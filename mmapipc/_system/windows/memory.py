"""Named memory as pagefile-backed mappings.

Every name vanishes with the last handle to it, so there is nothing to remove,
and none of the handles is inherited by children.  Memory that is shared without
roles is the same object alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import mmap
import msvcrt
import os

from ...errors import FileRefused, MappingTooSmall, MemoryRefused, NoSuchMapping, in_bytes
from .. import files, names
from ..names import Place
from . import win32
from .roles import Roles, refused

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator


class Memory:
    """A mapping object, held open by a handle so that its name is sure to lead to it.

    One of a file has the open file, and perhaps no tag.
    """

    def __init__(
        self, place: Place, tag: str | None, handle: win32.Handle, file: io.FileIO | None = None
    ) -> None:
        self._place = place
        self._tag = tag
        self._handle = handle
        self._file = file

    def map(self, length: int, offset: int = 0, access: int = mmap.ACCESS_WRITE) -> mmap.mmap:
        """Map `length` bytes; MappingTooSmall when there are fewer."""
        # With the handle open this finds the object and does not make one.
        try:
            fd = win32.PAGEFILE if self._file is None else self._file.fileno()
            return mmap.mmap(fd, length, tagname=self._tag, access=access, offset=offset)
        except OSError as error:
            if error.winerror != win32.ERROR_ACCESS_DENIED:
                raise refused(self._place.name, self._place.location, error.winerror) from None
            if self.size() < offset + length:
                raise MappingTooSmall(
                    f"{self._place.name}: the memory of that name is smaller "
                    f"than {in_bytes(offset + length)}; ask for fewer"
                ) from None
            raise FileRefused(f"{self._place.name}: was not made for writing; map it for reading") from None

    def flush(self, mapping: mmap.mmap) -> None:
        """Bring what was stored in the mapping to the file; return when the disk has it."""
        with files.opening(self._place):
            mapping.flush()
            if self._file is not None:
                os.fsync(self._file.fileno())

    def size(self) -> int:
        """How many bytes there are, without a file in whole pages."""
        size, _ = _look(self._place, self._handle)
        return size if self._file is None else min(size, os.fstat(self._file.fileno()).st_size)

    def has(self, length: int) -> bool:
        """Whether there are as many bytes yet.  A mapping object has all from the start."""
        return self._file is None or self.size() >= length

    def fits(self, length: int) -> bool:
        """Whether the object has this many bytes, without a file rounded up to whole pages."""
        return self.size() == (_in_pages(length) if self._file is None else length)

    def extend(self, size: int) -> None:
        """Give the user's file so many bytes."""
        assert self._file is not None
        backing = msvcrt.get_osfhandle(self._file.fileno())
        smaller = self._handle
        self._handle, _ = _make(self._place, None, size, backing)
        smaller.close()

    def is_at(self, path: str) -> bool:
        """Whether the path leads to this memory, which is a file's."""
        assert self._file is not None
        try:
            with files.owned(path, files.FLAGS, os.O_RDONLY) as there:
                # Not `os.stat`: that is given no number of a file that is in use.
                return os.path.samestat(os.fstat(there.fileno()), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def is_nameless(self) -> bool:
        """False: a file that is open cannot be removed."""
        return False

    def close(self) -> None:
        """Let go of the object, and of the file."""
        self._handle.close()
        if self._file is not None:
            self._file.close()


def _in_pages(length: int) -> int:
    return -(-length // mmap.PAGESIZE) * mmap.PAGESIZE


def _look(place: Place, handle: win32.Handle) -> tuple[int, bool]:
    """How many bytes, in whole pages, the mapping object has; and whether they are a file's."""
    seen = Observed(place, handle)
    try:
        return seen.size(), seen.is_of_file()
    finally:
        seen.close()


def _open(place: Place) -> win32.Handle | None:
    """The mapping object of that tag, or None when there is none."""
    handle: win32.Handle = win32.open_mapping(win32.FILE_MAP_READ, False, place.location)
    if handle:
        return handle
    code = ctypes.get_last_error()
    if code != win32.ERROR_FILE_NOT_FOUND:
        raise refused(place.name, place.location, code)
    return None


class Observed:
    """A view of a mapping object without a handle: it does not keep the name from a new sender."""

    def __init__(self, place: Place, handle: win32.Handle, bytes_of_file: int | None = None) -> None:
        self._view = win32.map_view(handle, win32.FILE_MAP_READ, 0, 0, 0)
        if not self._view:
            raise refused(place.name, place.location, ctypes.get_last_error())
        about = win32.MemoryBasicInformation()
        win32.virtual_query(self._view, ctypes.byref(about), ctypes.sizeof(about))
        self._bytes_of_file = bytes_of_file
        self._size = int(about.RegionSize)

    def is_of_file(self) -> bool:
        """Whether the bytes are a file's."""
        path = ctypes.create_unicode_buffer(8)  # as much of it as there is room for
        return bool(win32.mapped_file_name(win32.THIS_PROCESS, self._view, path, len(path)))

    def size(self) -> int:
        """How many bytes there are, without a file in whole pages."""
        return self._size if self._bytes_of_file is None else self._bytes_of_file

    def has(self, length: int) -> bool:
        """Whether there are as many bytes."""
        return self.size() >= length

    def fits(self, length: int) -> bool:
        """Whether there are this many bytes, without a file rounded up to whole pages as the system does."""
        return self.size() == (_in_pages(length) if self._bytes_of_file is None else length)

    @contextlib.contextmanager
    def look(self, length: int) -> Iterator[memoryview]:
        """A read-only view of the first `length` bytes, which `has` has found there."""
        with win32.memoryview_at(self._view, length, win32.BUF_READ) as view:
            yield view

    def close(self) -> None:
        """Let go of the view."""
        self._view.close()


def _make(
    place: Place,
    tag: str | None,
    size: int,
    file: int = win32.PAGEFILE,
    protection: int = win32.PAGE_READWRITE,
) -> tuple[win32.Handle, bool]:
    """Make a mapping object, or open that of the tag; return (its handle, whether it was made)."""
    ctypes.set_last_error(0)
    handle = win32.create_mapping(file, None, protection, size >> 32, size & 0xFFFFFFFF, tag)
    code = ctypes.get_last_error()
    if not handle:
        raise refused(place.name, place.location, code)
    return handle, code != win32.ERROR_ALREADY_EXISTS


def create(place: Place, size: int) -> Memory:
    """Make the memory: `size` zero bytes, all of them reserved."""
    handle, new = _make(place, place.location, size)
    if not new:
        handle.close()
        raise MemoryRefused(
            f"{place.name}: another process has just taken {place.location}; use another name"
        )
    return Memory(place, place.location, handle)


def share(place: Place, size: int, create: bool) -> tuple[Memory, bool]:
    """Open memory that lives while anybody has it; with `create` make it if it is not there."""
    handle, created = _take(place, size, create)
    return Memory(place, place.location, handle), created


def _take(
    place: Place, size: int, create: bool, file: int = win32.PAGEFILE, protection: int = win32.PAGE_READWRITE
) -> tuple[win32.Handle, bool]:
    """Make or open the mapping object of that name; return (its handle, whether the name was new)."""
    roles = Roles(place)
    for role in (names.SENDER, names.RECEIVER):
        if roles.holder(role) is not None:
            raise names.other_kind(place, role)
    created = False
    if create:
        handle, created = _make(place, place.location, size, file, protection)
    else:
        found = _open(place)
        if found is None:
            raise NoSuchMapping(f"{place.name}: nobody has memory of that name; make it first")
        handle = found
    if _look(place, handle)[1] != (file != win32.PAGEFILE):
        handle.close()
        raise names.other_backing(place, file != win32.PAGEFILE)
    return handle, created


def open_file(
    place: Place | None, file: Place, size: int, create: bool, writable: bool
) -> tuple[Memory, bool]:
    """Open a file of the user's as memory; with `create` make it or extend it to `size` bytes."""
    opened, wanted, made = files.open_regular(file, size, create, writable)
    try:
        opened = _not_zero(opened)
        protection = win32.PAGE_READWRITE if writable else win32.PAGE_READONLY
        backing = msvcrt.get_osfhandle(opened.fileno())
        if place is None:
            handle, _ = _make(file, None, wanted, backing, protection)
            return Memory(file, None, handle, opened), made
        handle, created = _take(place, wanted, create, backing, protection)
        return Memory(file, place.location, handle, opened), created
    except BaseException:
        opened.close()
        if made:
            os.unlink(file.location)
        raise


def _not_zero(opened: io.FileIO) -> io.FileIO:
    """The same file by another descriptor than 0, which mmap takes for no file."""
    if opened.fileno():
        return opened
    with opened:
        return next(map(io.FileIO, map(os.dup, (0,)), (opened.mode,)))


def open_existing(place: Place) -> Memory | None:
    """Open the memory of that name; None when there is none."""
    handle = _open(place)
    return Memory(place, place.location, handle) if handle else None


def observe(place: Place) -> Observed | None:
    """Map the memory of that name to look at it; None when there is none."""
    handle = _open(place)
    if not handle:
        return None
    try:
        return Observed(place, handle)
    finally:
        handle.close()


def observe_file(place: Place) -> Observed:
    """Map the user's file at that place to look at it.  Raises NoSuchMapping, InvalidSize."""
    opened, size, _ = files.open_regular(place, 0, create=False, writable=False)
    with opened:
        handle, _ = _make(place, None, size, msvcrt.get_osfhandle(opened.fileno()), win32.PAGE_READONLY)
        try:
            return Observed(place, handle, size)
        finally:
            handle.close()


def remove(place: Place) -> None:
    """Nothing to do: the name vanishes with the last handle."""
