"""Named memory as pagefile-backed mappings, claims as named mutexes.

A channel has up to five kernel objects, named

    mmapipc.NAME                            the memory
    mmapipc.NAME+sender, ...+receiver       mutexes: each exists while its role is held
    mmapipc.NAME+sender+pid, ...            eight bytes of memory: the holder's pid

with the `Global\\` or `Local\\` that the name began with in front.  (`+` never
appears in an encoded name.)  Every name vanishes with the last handle to it, so
there is nothing to remove, and none of the handles is inherited by children.
A mutex is never waited for: that it exists is the claim.  Looking whether one
exists opens it for a moment, so a claimant that fails looks again unless it
finds the holder's pid.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from ctypes import wintypes

from ..errors import ChannelError, LayoutError, MemoryRefused, RoleTaken
from . import _names
from ._names import Place

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from ._futex import Futex

# Also for x64 Python on an ARM processor: the emulation keeps the order.
ORDERED = "amd64" in sys.version.lower()

_PATIENCE = 1.0  # seconds a claimant gives a holder to write its pid

_FILE_MAP_READ = 4
_SYNCHRONIZE = 0x00100000
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


def _declare(function: str, result: object, *arguments: object) -> ctypes._FuncPointer:
    declared = getattr(_kernel32, function)
    declared.restype = result
    declared.argtypes = arguments
    return declared


_create_mutex = _declare("CreateMutexW", wintypes.HANDLE, ctypes.c_void_p, wintypes.BOOL, wintypes.LPCWSTR)
_open_mutex = _declare("OpenMutexW", wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR)
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
_close_handle = _declare("CloseHandle", wintypes.BOOL, wintypes.HANDLE)


def yield_processor() -> None:
    """Let others run."""
    time.sleep(0)


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
        return RoleTaken(f"{name}: {tag} is the name of an object of another kind; use another name")
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
        if pid or time.monotonic() > deadline:
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
    memory = _open_memory(place, f"{tag}+pid")
    if memory is None:
        return 0
    try:
        with memory.map(8) as written:
            return int.from_bytes(written[:], "little")
    finally:
        memory.close()


class Memory:
    """A mapping object, held open by a handle so that its name is sure to lead to it."""

    def __init__(self, place: Place, tag: str, handle: int) -> None:
        self._place = place
        self._tag = tag
        self._handle = handle

    def map(self, length: int) -> mmap.mmap:
        """Map the first `length` bytes; LayoutError when there are fewer."""
        # With the handle open this finds the object and does not make one.
        try:
            return mmap.mmap(-1, length, tagname=self._tag)
        except OSError as error:
            if error.winerror == _ERROR_ACCESS_DENIED:
                raise LayoutError(
                    f"{self._place.name}: the memory of that name is smaller than a channel; use another name"
                ) from None
            raise _refused(self._place, error.winerror) from None

    def has(self, length: int) -> bool:
        """True: a mapping object has its bytes from the start (`map` tells when they are fewer)."""
        return True

    def fits(self, length: int) -> bool:
        """Whether the object has this many bytes, rounded up to whole pages as the system does."""
        view = _map_view(self._handle, _FILE_MAP_READ, 0, 0, 0)
        if not view:
            raise _refused(self._place, ctypes.get_last_error())
        about = _MemoryBasicInformation()
        _virtual_query(view, ctypes.byref(about), ctypes.sizeof(about))
        _unmap_view(view)
        return bool(about.RegionSize == -(-length // mmap.PAGESIZE) * mmap.PAGESIZE)

    def stands(self, role: str) -> bool:
        """Whether somebody has that role of the channel."""
        mutex = _open_mutex(_SYNCHRONIZE, False, self._place.of(role))
        if not mutex:
            return False
        _close_handle(mutex)
        return True

    def close(self) -> None:
        """Let go of the object."""
        _close_handle(self._handle)


def _open_memory(place: Place, tag: str) -> Memory | None:
    handle = _open_mapping(_FILE_MAP_READ, False, tag)
    if handle:
        return Memory(place, tag, handle)
    code = ctypes.get_last_error()
    if code == _ERROR_FILE_NOT_FOUND:
        return None
    raise _refused(place, code)


def create(place: Place, size: int) -> Memory:
    """Make the memory: `size` zero bytes, all of them reserved."""
    tag = place.location
    try:
        made = mmap.mmap(-1, size, tagname=tag)
    except OSError as error:
        raise _refused(place, error.winerror) from None
    with made:
        memory = _open_memory(place, tag)
    if memory is None:
        raise _refused(place, _ERROR_FILE_NOT_FOUND)
    return memory


def open_existing(place: Place) -> Memory | None:
    """Open the memory of that name; None when there is none."""
    return _open_memory(place, place.location)


def remove(place: Place) -> None:
    """Nothing to do: the name vanishes with the last handle."""


def sweep(place: Place) -> None:
    """Nothing to do: the names vanish with the last handles."""
