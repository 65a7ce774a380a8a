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
import weakref

from ...errors import (
    ChannelError,
    FileRefused,
    InvalidName,
    MappingTooSmall,
    MemoryRefused,
    NoSuchMapping,
    in_bytes,
)
from .. import files, names, views
from ..names import Place
from . import win32
from .guards import Guard
from .roles import Roles, refused, tags_of

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_TAG = 260  # characters, MAX_PATH
_RIGHTS = {
    mmap.ACCESS_WRITE: win32.FILE_MAP_READ_WRITE,
    mmap.ACCESS_READ: win32.FILE_MAP_READ,
    mmap.ACCESS_COPY: win32.FILE_MAP_COPY,
}


class View(views.View):
    """See `contract.View`.  The disk has a file's bytes only when the file is flushed too."""

    def __init__(self, place: Place, mapping: mmap.mmap, file: io.FileIO | None) -> None:
        super().__init__(place, mapping)
        self._file = file

    def flush(self, offset: int, length: int) -> None:
        """See `contract.View`."""
        super().flush(offset, length)
        if self._file is not None:
            with files.opening(self._place):
                os.fsync(self._file.fileno())


class LesserView:
    """A view for who has not all the rights to the memory, which `mmap` would want."""

    def __init__(
        self, place: Place, view: win32.View, length: int, writable: bool, file: io.FileIO | None
    ) -> None:
        self._place = place
        self._writable = writable
        self._file = file
        octets = (ctypes.c_char * length).from_address(view.value or 0)
        octets.view = view  # type: ignore[attr-defined]  # unmapped when nobody has a buffer of it any more
        self._octets: ctypes.Array[ctypes.c_char] | None = octets
        self.buf = self._memoryview()

    def _memoryview(self) -> memoryview:
        with memoryview(self._octets) as characters:  # type: ignore[arg-type]
            octets = characters.cast("B")
        if self._writable:
            return octets
        with octets:
            return octets.toreadonly()

    def flush(self, offset: int, length: int) -> None:
        """See `contract.View`."""
        if self._octets is not None:
            if not win32.flush_view(ctypes.addressof(self._octets) + offset, length):
                raise refused(self._place.name, self._place.location, ctypes.get_last_error())
            if self._file is not None:
                with files.opening(self._place):
                    os.fsync(self._file.fileno())

    def close(self) -> None:
        """See `contract.View`."""
        self.buf.release()
        if self._octets is not None:
            seen = weakref.ref(self._octets)
            self._octets = None
            # Only a buffer keeps it now.
            if (octets := seen()) is not None:
                self._octets = octets
                self.buf = self._memoryview()
                raise BufferError


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
        self._mutexes: dict[str, win32.Handle] = {}

    def map(self, length: int, offset: int = 0, access: int = mmap.ACCESS_WRITE) -> mmap.mmap:
        """Map `length` bytes; MappingTooSmall when there are fewer."""
        # With the handle open this finds the object and does not make one.
        try:
            fd = win32.PAGEFILE if self._file is None else self._file.fileno()
            return mmap.mmap(fd, length, tagname=self._tag, access=access, offset=offset)
        except OSError as error:
            raise self._not_mapped(error.winerror, offset + length) from None

    def _not_mapped(self, code: int, end: int) -> ChannelError:
        if code != win32.ERROR_ACCESS_DENIED:
            return refused(self._place.name, self._place.location, code)
        if self.size() < end:
            return MappingTooSmall(
                f"{self._place.name}: the memory of that name is smaller than {in_bytes(end)}; ask for fewer"
            )
        return FileRefused(f"{self._place.name}: this memory can only be read; use access='read' or 'copy'")

    def view(self, length: int, offset: int, access: int) -> View | LesserView:
        """See `contract.Memory`."""
        # Somebody must have the mutex open for others to be told that its holder died.
        with contextlib.suppress(ChannelError):
            self.guard(None)
        # `mmap` has tagnames in the code page of the system only.
        if access == mmap.ACCESS_WRITE and (self._tag is None or self._tag.isascii()):
            with contextlib.suppress(FileRefused):
                return View(self._place, self.map(length, offset), self._file)
        # 0 is up to the end, which is inside the last page if another program made it of a file.
        count = 0 if offset + length == self.size() else length
        view = win32.map_view(self._handle, _RIGHTS[access], offset >> 32, offset & 0xFFFFFFFF, count)
        if not view:
            raise self._not_mapped(ctypes.get_last_error(), offset + length)
        return LesserView(self._place, view, length, access != mmap.ACCESS_READ, self._file)

    def guard(self, tag: str | None) -> Guard:
        """See `contract.Memory`."""
        if tag is None:
            of = self._place if self._file is None else tags_of(self._place.name, self._file)
            mutex = Place(of.name, of.of("lock"))
        else:
            mutex = tagged(tag, False)
        guard = Guard(mutex)
        if mutex.location not in self._mutexes:
            self._mutexes[mutex.location] = guard.open()
        return guard

    def unlink(self) -> None:
        """Nothing: the tagname goes with the last one who has it open."""

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
        for each in (self._handle, *self._mutexes.values()):
            each.close()
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


def _open(place: Place, writable: bool = False) -> win32.Handle | None:
    """The mapping object of that tag, or None when there is none."""
    access = win32.FILE_MAP_READ_WRITE if writable else win32.FILE_MAP_READ
    handle: win32.Handle = win32.open_mapping(access, False, place.location)
    if handle:
        return handle
    code = ctypes.get_last_error()
    if code != win32.ERROR_FILE_NOT_FOUND:
        raise refused(place.name, place.location, code, others=writable)
    return None


def _is_there(place: Place) -> bool:
    """Whether there is a mapping object of that tag, whoever may use it."""
    handle = win32.open_mapping(win32.FILE_MAP_READ, False, place.location)
    code = ctypes.get_last_error()
    if not handle:
        return bool(code == win32.ERROR_ACCESS_DENIED)
    handle.close()
    return True


class Observed:
    """A view of a mapping object without a handle: it does not keep the name from a new sender."""

    def __init__(self, place: Place, handle: win32.Handle, bytes_of_file: int | None = None) -> None:
        self._view = win32.map_view(handle, win32.FILE_MAP_READ, 0, 0, 0)
        if not self._view:
            raise refused(place.name, place.location, ctypes.get_last_error())
        about = win32.MemoryBasicInformation()
        win32.virtual_query(self._view, ctypes.byref(about), ctypes.sizeof(about))
        if about.State != win32.MEM_COMMIT:
            self._view.close()
            raise MemoryRefused(
                f"{place.name}: the first pages are only reserved (SEC_RESERVE), so nothing can be read"
            )
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


def share(place: Place, size: int, create: bool, writable: bool, exist_ok: bool) -> tuple[Memory, bool]:
    """Open memory that lives while anybody has it; with `create` make it if it is not there."""
    _refuse_channel(place)
    handle, created = _take(place, size, create, writable, exist_ok)
    return Memory(place, place.location, _backed(place, handle, False)), created


def tagged(tag: str, of_file: bool) -> Place:
    """See `contract.System`."""
    prefix, known, rest = tag.partition("\\")
    if not known or prefix not in ("Global", "Local"):
        rest = tag
    if not rest or len(tag) > _LONGEST_TAG or "\0" in tag or "\\" in rest:
        raise InvalidName(
            f"{tag[:20] or '(no tagname)'}: a tagname must have 1 to {_LONGEST_TAG} characters, "
            "and no \\ except after Global or Local at its beginning"
        )
    return Place(tag, tag)


def share_tagged(
    place: Place, size: int, create: bool, writable: bool, exist_ok: bool
) -> tuple[Memory, bool]:
    """See `contract.System`."""
    handle, created = _take(place, size, create, writable, exist_ok)
    return Memory(place, place.location, handle), created


def _refuse_channel(place: Place) -> None:
    roles = Roles(place)
    for role in (names.SENDER, names.RECEIVER):
        if roles.holder(role) is not None:
            raise names.other_kind(place, role)


def _backed(place: Place, handle: win32.Handle, file: bool) -> win32.Handle:
    """The handle, if the bytes are a file's or not, as wanted."""
    if _look(place, handle)[1] != file:
        handle.close()
        raise names.other_backing(place, file)
    return handle


def _take(
    place: Place,
    size: int,
    create: bool,
    writable: bool,
    exist_ok: bool,
    file: int = win32.PAGEFILE,
    protection: int = win32.PAGE_READWRITE,
) -> tuple[win32.Handle, bool]:
    """Make or open the mapping object of that name; return (its handle, whether the name was new)."""
    if not exist_ok and _is_there(place):
        raise names.there_already(place)
    handle, created = _open(place, writable), False  # with no more rights than are needed
    if handle is None and create:
        handle, created = _make(place, place.location, size, file, protection)
    if handle is None:
        raise NoSuchMapping(f"{place.name}: there is no memory of that name; make it first")
    if not (created or exist_ok):
        handle.close()
        raise names.there_already(place)
    return handle, created


def open_file(
    place: Place | None, file: Place, size: int, create: bool, writable: bool, exist_ok: bool = True
) -> tuple[Memory, bool]:
    """Open a file of the user's as memory; with `create` make it or extend it to `size` bytes."""
    opened, wanted, made = files.open_regular(
        file, size, create, writable, exist_ok or place is not None
    )
    try:
        opened = _not_zero(opened)
        protection = win32.PAGE_READWRITE if writable else win32.PAGE_READONLY
        backing = msvcrt.get_osfhandle(opened.fileno())
        if place is None:
            handle, _ = _make(file, None, wanted, backing, protection)
            return Memory(file, None, handle, opened), made
        _refuse_channel(place)
        handle, created = _take(place, wanted, create, writable, exist_ok, backing, protection)
        return Memory(file, place.location, _backed(place, handle, True), opened), created
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
