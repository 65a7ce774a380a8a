"""Named memory as pagefile-backed mappings, claims as named mutexes.

A channel has up to five kernel objects, named

    mmapipc.NAME                            the memory
    mmapipc.NAME+sender, ...+receiver       mutexes: each exists while its role is held
    mmapipc.NAME+sender+pid, ...            eight bytes of memory: the holder's pid

with the `Global\\` or `Local\\` that the name began with in front.  (`+` never
appears in an encoded name.)  Every name vanishes with the last handle to it, so
there is nothing to remove, and none of the handles is inherited by children.
A mutex is never waited for: that it exists is the claim.  Looking whether one
exists opens it for a moment, as does looking for the pid, so a claimant that
fails looks again unless it finds the pid of a holder that lives and has not
left: who leaves takes its pid back, also from those who look just then.

Memory that is shared without roles is the first object alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import msvcrt
import os
import stat
import sys
import time
from ctypes import wintypes

from ..errors import (
    ChannelError,
    FileRefused,
    MappingTooSmall,
    MemoryRefused,
    NameTaken,
    NoSuchMapping,
    RoleTaken,
)
from . import _files, _names
from ._names import Place

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._futex import Futex

# Also for x64 Python on an ARM processor: the emulation keeps the order.
ORDERED = "amd64" in sys.version.lower()

# What memory is at which nobody is.
STALE = "nobody is attached; it goes with the last process that has it open"

_PATIENCE = 1.0  # seconds a claimant gives a holder to write its pid

_PAGEFILE = -1  # INVALID_HANDLE_VALUE
_THIS_PROCESS = -1
_PAGE_READONLY = 2
_PAGE_READWRITE = 4
_LARGEST_PID = 2**32 - 1
_FILE_MAP_READ = 4
_BUF_READ = 0x100
_VIRTUAL_TERMINAL = 4
_SYNCHRONIZE = 0x00100000
_WAIT_TIMEOUT = 258
_ERROR_FILE_NOT_FOUND = 2
_ERROR_PATH_NOT_FOUND = 3
_ERROR_ACCESS_DENIED = 5
_ERROR_INVALID_HANDLE = 6
_ERROR_ALREADY_EXISTS = 183


class _MemoryBasicInformation(ctypes.Structure):
    _fields_ = (
        ("BaseAddress", ctypes.c_void_p),
        ("AllocationBase", ctypes.c_void_p),
        ("AllocationProtect", wintypes.DWORD),
        ("PartitionId", wintypes.WORD),
        ("RegionSize", ctypes.c_size_t),
        ("State", wintypes.DWORD),
        ("Protect", wintypes.DWORD),
        ("Type", wintypes.DWORD),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)


def _declare(function: str, result: Any, *arguments: Any) -> ctypes._FuncPointer:
    declared: ctypes._FuncPointer = getattr(_kernel32, function)
    declared.restype = result
    declared.argtypes = arguments
    return declared


_create_mutex = _declare("CreateMutexW", wintypes.HANDLE, ctypes.c_void_p, wintypes.BOOL, wintypes.LPCWSTR)
_open_mutex = _declare("OpenMutexW", wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR)
_create_mapping = _declare(
    "CreateFileMappingW",
    wintypes.HANDLE,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.LPCWSTR,
)
_open_mapping = _declare("OpenFileMappingW", wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR)
_map_view = _declare(
    "MapViewOfFile",
    ctypes.c_void_p,
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_size_t,
)
_unmap_view = _declare("UnmapViewOfFile", wintypes.BOOL, ctypes.c_void_p)
_virtual_query = _declare(
    "VirtualQuery",
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.POINTER(_MemoryBasicInformation),
    ctypes.c_size_t,
)
_mapped_file_name = _declare(
    "K32GetMappedFileNameW",
    wintypes.DWORD,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.LPWSTR,
    wintypes.DWORD,
)
_close_handle = _declare("CloseHandle", wintypes.BOOL, wintypes.HANDLE)
_open_process = _declare("OpenProcess", wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
_wait_for = _declare("WaitForSingleObject", wintypes.DWORD, wintypes.HANDLE, wintypes.DWORD)
_get_console_mode = _declare("GetConsoleMode", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
_set_console_mode = _declare("SetConsoleMode", wintypes.BOOL, wintypes.HANDLE, wintypes.DWORD)

_memoryview_at = ctypes.pythonapi.PyMemoryView_FromMemory
_memoryview_at.restype = ctypes.py_object
_memoryview_at.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)


def yield_processor() -> None:
    """Let others run."""
    time.sleep(0)


def reader_is_gone(error: OSError, descriptor: int) -> bool:
    """Whether a write there has failed because nobody reads any more."""
    if error.errno == errno.EINVAL:
        # The C library has no name for ERROR_NO_DATA.
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    return error.errno == errno.EPIPE


def enlarge_pipe(descriptor: int, size: int) -> None:
    """Nothing: the size of a pipe is its creator's choice."""


def futex(mapping: mmap.mmap, offset: int) -> Futex | None:
    """None: Windows waits for addresses within one process only."""
    return None


def join_fences() -> None:
    """Nothing to do without futexes."""


def place(name: str) -> Place:
    """Where the memory of that name is: its tagname.  Raises InvalidName."""
    prefix, encoded = _names.split(name)
    return Place(name, f"{prefix}mmapipc.{encoded}")


def _refused(place: Place, code: int) -> ChannelError:
    """The system's refusal in our words."""
    name, tag = place.name, place.location
    if code == _ERROR_INVALID_HANDLE:
        return NameTaken(f"{name}: {tag} is the name of an object of another kind; use another name")
    if code == _ERROR_PATH_NOT_FOUND:
        advice = f"the system does not take {tag} as a name; use another one"
    elif code == _ERROR_ACCESS_DENIED:
        advice = f"access to {tag} is denied; use another name, without Global\\ unless you are an administrator"
    else:
        advice = f"{tag}: {ctypes.FormatError(code)}"
    refusal = MemoryRefused(f"{name}: {advice}")
    refusal.winerror = code
    return refusal


class Claim:
    """A role that this process holds."""

    def __init__(self, mutex: int, pid: mmap.mmap) -> None:
        self._mutex = mutex
        self._pid = pid

    def release(self) -> None:
        """Give the role up."""
        self._pid[:] = bytes(8)
        self._pid.close()
        _close_handle(self._mutex)


def claim(place: Place, role: str) -> Claim:
    """Take the role, or raise RoleTaken."""
    tag = place.of(role)
    deadline = time.monotonic() + _PATIENCE
    while True:
        mutex = _create_mutex(None, False, tag)
        code = ctypes.get_last_error()
        if not mutex:
            raise _refused(place, code)
        if code != _ERROR_ALREADY_EXISTS:
            break
        _close_handle(mutex)
        pid = _pid_of(place, tag)
        if _lives(pid) or time.monotonic() > deadline:
            raise RoleTaken(f"{place.name}: there is a {role} already (pid {pid}); use another name or end it")
        time.sleep(0.001)
    try:
        written = mmap.mmap(-1, 8, tagname=f"{tag}+pid")
    except OSError as error:
        _close_handle(mutex)
        raise _refused(place, error.winerror) from None
    written[:] = os.getpid().to_bytes(8, "little")
    return Claim(mutex, written)


def _pid_of(place: Place, tag: str) -> int:
    """The pid that the holder of a role left, or 0."""
    seen = _observe(place, f"{tag}+pid")
    if seen is None:
        return 0
    try:
        with seen.look(8) as written:
            pid = int.from_bytes(written, "little")
        return pid if pid <= _LARGEST_PID else 0
    finally:
        seen.close()


def _lives(pid: int) -> bool:
    if not pid:
        return False
    process = _open_process(_SYNCHRONIZE, False, pid)
    if not process:
        return bool(ctypes.get_last_error() == _ERROR_ACCESS_DENIED)
    try:
        return bool(_wait_for(process, 0) == _WAIT_TIMEOUT)
    finally:
        _close_handle(process)


def _is_claimed(place: Place, role: str) -> bool:
    mutex = _open_mutex(_SYNCHRONIZE, False, place.of(role))
    if not mutex:
        return False
    _close_handle(mutex)
    return True


class Memory:
    """A mapping object, held open by a handle so that its name is sure to lead to it.

    One of a file has the file's descriptor, and perhaps no tag.
    """

    def __init__(self, place: Place, tag: str | None, handle: int, fd: int = -1) -> None:
        self._place = place
        self._tag = tag
        self._handle = handle
        self._fd = fd

    def map(self, length: int, offset: int = 0, access: int = mmap.ACCESS_WRITE) -> mmap.mmap:
        """Map `length` bytes; MappingTooSmall when there are fewer."""
        # With the handle open this finds the object and does not make one.
        try:
            return mmap.mmap(self._fd, length, tagname=self._tag, access=access, offset=offset)
        except OSError as error:
            if error.winerror != _ERROR_ACCESS_DENIED:
                raise _refused(self._place, error.winerror) from None
            if self.size() < offset + length:
                raise MappingTooSmall(
                    f"{self._place.name}: the memory of that name is smaller than {offset + length} bytes; ask for fewer"
                ) from None
            raise FileRefused(f"{self._place.name}: was not made for writing; map it for reading") from None

    def flush(self, mapping: mmap.mmap) -> None:
        """Bring what was stored in the mapping to the file; return when the disk has it."""
        try:
            mapping.flush()
            if self._fd >= 0:
                os.fsync(self._fd)
        except OSError as error:
            raise _files.refused(self._place, error) from None

    def size(self) -> int:
        """How many bytes there are, without a file in whole pages."""
        size, _ = _look(self._place, self._handle)
        return size if self._fd < 0 else min(size, os.fstat(self._fd).st_size)

    def has(self, length: int) -> bool:
        """True: a mapping object has its bytes from the start (`map` tells when they are fewer)."""
        return True

    def fits(self, length: int) -> bool:
        """Whether the object has this many bytes, without a file rounded up to whole pages."""
        return self.size() == (length if self._fd >= 0 else _in_pages(length))

    def observe(self) -> Observed:
        """Map all of it, to be looked at only."""
        return Observed(self._place, self._handle)

    def stands(self, role: str) -> bool:
        """Whether somebody has that role of the channel."""
        return _is_claimed(self._place, role)

    def close(self) -> None:
        """Let go of the object, and of the file."""
        _close_handle(self._handle)
        if self._fd >= 0:
            os.close(self._fd)


def _in_pages(length: int) -> int:
    return -(-length // mmap.PAGESIZE) * mmap.PAGESIZE


def _look(place: Place, handle: int) -> tuple[int, bool]:
    """How many bytes, in whole pages, the mapping object has; and whether they are a file's."""
    seen = Observed(place, handle)
    try:
        return seen.size, seen.is_of_file()
    finally:
        seen.close()


def _open(place: Place, tag: str) -> int | None:
    """The handle of the mapping object, or None when there is none."""
    handle: int | None = _open_mapping(_FILE_MAP_READ, False, tag)
    code = ctypes.get_last_error()
    if not handle and code != _ERROR_FILE_NOT_FOUND:
        raise _refused(place, code)
    return handle


class Observed:
    """A view of a mapping object without a handle: it does not keep the name, for which a new sender would wait."""

    def __init__(self, place: Place, handle: int) -> None:
        self._place = place
        self._view = _map_view(handle, _FILE_MAP_READ, 0, 0, 0)
        if not self._view:
            raise _refused(place, ctypes.get_last_error())
        about = _MemoryBasicInformation()
        _virtual_query(self._view, ctypes.byref(about), ctypes.sizeof(about))
        self.size = int(about.RegionSize)  # bytes, in whole pages

    def is_of_file(self) -> bool:
        """Whether the bytes are a file's."""
        path = ctypes.create_unicode_buffer(8)  # as much of it as there is room for
        return bool(_mapped_file_name(_THIS_PROCESS, self._view, path, len(path)))

    def has(self, length: int) -> bool:
        """Whether the object has as many bytes."""
        return self.size >= length

    def fits(self, length: int) -> bool:
        """Whether it has this many bytes, rounded up to whole pages as the system does."""
        return self.size == _in_pages(length)

    @contextlib.contextmanager
    def look(self, length: int) -> Iterator[memoryview]:
        """A read-only view of the first `length` bytes, which `has` has found there."""
        with _memoryview_at(self._view, length, _BUF_READ) as view:
            yield view

    def stands(self, role: str) -> bool:
        """Whether somebody has that role of the channel."""
        return _is_claimed(self._place, role)

    def close(self) -> None:
        """Let go of the object."""
        _unmap_view(self._view)


def _open_memory(place: Place, tag: str) -> Memory | None:
    handle = _open(place, tag)
    return Memory(place, tag, handle) if handle else None


def _make(place: Place, tag: str | None, size: int, file: int, protection: int) -> tuple[int, bool]:
    """Make a mapping object, or open that of the tag; return (handle, whether it was made)."""
    ctypes.set_last_error(0)
    handle = _create_mapping(file, None, protection, size >> 32, size & 0xFFFFFFFF, tag)
    code = ctypes.get_last_error()
    if not handle:
        raise _refused(place, code)
    return handle, code != _ERROR_ALREADY_EXISTS


def create(place: Place, size: int) -> Memory:
    """Make the memory: `size` zero bytes, all of them reserved."""
    handle, new = _make(place, place.location, size, _PAGEFILE, _PAGE_READWRITE)
    if not new:
        _close_handle(handle)
        raise MemoryRefused(f"{place.name}: another process has just taken {place.location}; use another name")
    return Memory(place, place.location, handle)


def share(place: Place, size: int, create: bool) -> tuple[Memory, bool]:
    """Open memory that lives while anybody has it; with `create` make it if it is not there."""
    handle, created = _take(place, size, create, _PAGEFILE, _PAGE_READWRITE)
    return Memory(place, place.location, handle), created


def _take(place: Place, size: int, create: bool, file: int, protection: int) -> tuple[int, bool]:
    """Make or open the mapping object of that name; return (handle, whether the name was new)."""
    for role in (_names.SENDER, _names.RECEIVER):
        if _is_claimed(place, role):
            raise _names.other_kind(place, role)
    created = False
    if create:
        handle, created = _make(place, place.location, size, file, protection)
    else:
        found = _open(place, place.location)
        if found is None:
            raise NoSuchMapping(f"{place.name}: nobody has memory of that name; make it first")
        handle = found
    try:
        if _look(place, handle)[1] != (file != _PAGEFILE):
            raise _names.other_backing(place, file != _PAGEFILE)
    except BaseException:
        _close_handle(handle)
        raise
    return handle, created


def open_file(place: Place | None, path: str, size: int, create: bool, writable: bool) -> tuple[Memory, bool]:
    """Open a file of the user's as memory; with `create` make it or extend it to `size` bytes."""
    file = Place(place.name if place else path, path)
    fd, wanted, made = _files.open_regular(file, size, create, writable)
    if not fd:  # mmap takes 0 for no file
        fd = os.dup(0)
        os.close(0)
    try:
        protection = _PAGE_READWRITE if writable else _PAGE_READONLY
        backing = msvcrt.get_osfhandle(fd)
        if place is None:
            handle, _ = _make(file, None, wanted, backing, protection)
            return Memory(file, None, handle, fd), made
        handle, created = _take(place, wanted, create, backing, protection)
        return Memory(file, place.location, handle, fd), created
    except BaseException:
        os.close(fd)
        if made:
            os.unlink(path)
        raise


def open_existing(place: Place) -> Memory | None:
    """Open the memory of that name; None when there is none."""
    return _open_memory(place, place.location)


def observe(place: Place) -> Observed | None:
    """Map the memory of that name to look at it; None when there is none."""
    return _observe(place, place.location)


def _observe(place: Place, tag: str) -> Observed | None:
    memory = _open_memory(place, tag)
    if memory is None:
        return None
    try:
        return memory.observe()
    finally:
        memory.close()


def holder(place: Place, role: str) -> int | None:
    """The pid of who has the role, 0 when it is not known; None when nobody has it."""
    return _pid_of(place, place.of(role)) if _is_claimed(place, role) else None


def exists(place: Place) -> bool:
    """Whether there is anything of the channel: the memory, or a role's holder."""
    memory = _open_memory(place, place.location)
    if memory is not None:
        memory.close()
    return memory is not None or _is_claimed(place, _names.SENDER) or _is_claimed(place, _names.RECEIVER)


def channels() -> list[str]:
    """Raises MemoryRefused."""
    raise MemoryRefused("Windows has no public call that lists named objects; name the channels")


@contextlib.contextmanager
def redrawing(descriptor: int) -> Iterator[bool]:
    """Whether what is written there can be drawn over: it is a console, which is made to do it."""
    console = msvcrt.get_osfhandle(descriptor)
    before = wintypes.DWORD()
    if not _get_console_mode(console, ctypes.byref(before)):
        yield False
        return
    able = bool(_set_console_mode(console, before.value | _VIRTUAL_TERMINAL))
    try:
        yield able
    finally:
        _set_console_mode(console, before.value)


def remove(place: Place) -> None:
    """Nothing to do: the name vanishes with the last handle."""


def sweep(place: Place) -> None:
    """Nothing to do: the names vanish with the last handles."""
