"""The calls of Windows that we use, as ctypes wants them declared.

A call that gives a handle or a view gives an object that owns it from the first
moment: ctypes makes it in C, so no exception comes between.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import wintypes
from typing import Any

PAGEFILE = -1  # INVALID_HANDLE_VALUE
THIS_PROCESS = -1
PAGE_READONLY = 2
PAGE_READWRITE = 4
FILE_MAP_COPY = 1
FILE_MAP_READ = 4
FILE_MAP_READ_WRITE = 6
MEM_COMMIT = 0x1000
BUF_READ = 0x100
VIRTUAL_TERMINAL = 4
SEMAPHORE_QUERY_STATE = 1
SEMAPHORE_BASIC_INFORMATION = 0
SYNCHRONIZE = 0x00100000
MUTEX_MODIFY_STATE = 1  # which is also the right to query it
MUTEX_BASIC_INFORMATION = 0
WAIT_ABANDONED = 128
WAIT_TIMEOUT = 258
INFINITE = 0xFFFFFFFF
THREAD_TERMINATE = 1
FILE_PIPE_LOCAL_INFORMATION = 24
FILE_PIPE_CLOSING_STATE = 4
ERROR_FILE_NOT_FOUND = 2
ERROR_PATH_NOT_FOUND = 3
ERROR_ACCESS_DENIED = 5
ERROR_INVALID_HANDLE = 6
ERROR_ALREADY_EXISTS = 183


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)


def _declare(function: str, result: Any, *arguments: Any) -> ctypes._FuncPointer:
    declared: ctypes._FuncPointer = getattr(_kernel32, function)
    declared.restype = result
    declared.argtypes = arguments
    return declared


class _Owner:
    """Gives back what its value stands for, at the latest when it is collected."""

    value: int | None
    _give_back: Callable[
        [int], object
    ]  # of the class, which outlives the module's names at the interpreter's end

    def close(self) -> None:
        """Give it back."""
        # From where it waits to the system call in C: an exception of a signal handler cannot come between.
        left = vars(self).setdefault("_left", iter((self.value,)))
        self.value = None
        for _ in map(self._give_back, filter(None, left)):
            pass

    def __del__(self) -> None:
        self.close()


class Handle(_Owner, wintypes.HANDLE):
    """An open handle."""

    _give_back = staticmethod(_declare("CloseHandle", wintypes.BOOL, wintypes.HANDLE))


class View(_Owner, ctypes.c_void_p):
    """A mapped view: the address where it begins."""

    _give_back = staticmethod(_declare("UnmapViewOfFile", wintypes.BOOL, ctypes.c_void_p))


class MemoryBasicInformation(ctypes.Structure):
    """MEMORY_BASIC_INFORMATION."""

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


class FileInformation(ctypes.Structure):
    """BY_HANDLE_FILE_INFORMATION."""

    _fields_ = (
        ("FileAttributes", wintypes.DWORD),
        ("CreationTime", wintypes.FILETIME),
        ("LastAccessTime", wintypes.FILETIME),
        ("LastWriteTime", wintypes.FILETIME),
        ("VolumeSerialNumber", wintypes.DWORD),
        ("FileSizeHigh", wintypes.DWORD),
        ("FileSizeLow", wintypes.DWORD),
        ("NumberOfLinks", wintypes.DWORD),
        ("FileIndexHigh", wintypes.DWORD),
        ("FileIndexLow", wintypes.DWORD),
    )


class SemaphoreInformation(ctypes.Structure):
    """SEMAPHORE_BASIC_INFORMATION."""

    _fields_ = (("CurrentCount", wintypes.LONG), ("MaximumCount", wintypes.LONG))


class MutexInformation(ctypes.Structure):
    """MUTANT_BASIC_INFORMATION."""

    _fields_ = (
        ("CurrentCount", wintypes.LONG),
        ("OwnedByCaller", wintypes.BOOLEAN),
        ("AbandonedState", wintypes.BOOLEAN),
    )


class PipeInformation(ctypes.Structure):
    """FILE_PIPE_LOCAL_INFORMATION."""

    _fields_ = tuple(
        (name, wintypes.ULONG)
        for name in (
            *("NamedPipeType", "NamedPipeConfiguration", "MaximumInstances", "CurrentInstances"),
            *("InboundQuota", "ReadDataAvailable", "OutboundQuota", "WriteQuotaAvailable"),
            *("NamedPipeState", "NamedPipeEnd"),
        )
    )


class IoStatusBlock(ctypes.Structure):
    """IO_STATUS_BLOCK."""

    _fields_ = (("Status", ctypes.c_void_p), ("Information", ctypes.c_void_p))


create_semaphore = _declare(
    "CreateSemaphoreW", Handle, ctypes.c_void_p, wintypes.LONG, wintypes.LONG, wintypes.LPCWSTR
)
open_semaphore = _declare("OpenSemaphoreW", Handle, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR)
release_semaphore = _declare(
    "ReleaseSemaphore", wintypes.BOOL, wintypes.HANDLE, wintypes.LONG, ctypes.c_void_p
)
create_mutex = _declare(
    "CreateMutexExW", Handle, ctypes.c_void_p, wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD
)
release_mutex = _declare("ReleaseMutex", wintypes.BOOL, wintypes.HANDLE)
create_mapping = _declare(
    "CreateFileMappingW",
    Handle,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.LPCWSTR,
)
open_mapping = _declare("OpenFileMappingW", Handle, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR)
map_view = _declare(
    "MapViewOfFile", View, wintypes.HANDLE, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, ctypes.c_size_t
)
flush_view = _declare("FlushViewOfFile", wintypes.BOOL, ctypes.c_void_p, ctypes.c_size_t)
virtual_query = _declare(
    "VirtualQuery", ctypes.c_size_t, ctypes.c_void_p, ctypes.POINTER(MemoryBasicInformation), ctypes.c_size_t
)
mapped_file_name = _declare(
    "K32GetMappedFileNameW", wintypes.DWORD, wintypes.HANDLE, ctypes.c_void_p, wintypes.LPWSTR, wintypes.DWORD
)
file_information = _declare(
    "GetFileInformationByHandle", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(FileInformation)
)
open_process = _declare("OpenProcess", Handle, wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
open_thread = _declare("OpenThread", Handle, wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
cancel_synchronous_io = _declare("CancelSynchronousIo", wintypes.BOOL, wintypes.HANDLE)
wait_for = _declare("WaitForSingleObject", wintypes.DWORD, wintypes.HANDLE, wintypes.DWORD)
get_console_mode = _declare("GetConsoleMode", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
set_console_mode = _declare("SetConsoleMode", wintypes.BOOL, wintypes.HANDLE, wintypes.DWORD)

# Nothing else reads a semaphore without changing it.  Microsoft does not document it; it has been in
# ntdll unchanged since Windows NT, and is in Wine.
query_semaphore = ctypes.WinDLL("ntdll").NtQuerySemaphore
query_semaphore.restype = wintypes.LONG
query_semaphore.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.POINTER(SemaphoreInformation),
    wintypes.ULONG,
    ctypes.c_void_p,
)

# Nothing else tells whether this thread has a mutex; a wait for it would succeed once more.  As old as that.
query_mutex = ctypes.WinDLL("ntdll").NtQueryMutant
query_mutex.restype = wintypes.LONG
query_mutex.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.POINTER(MutexInformation),
    wintypes.ULONG,
    ctypes.c_void_p,
)

# Only this tells a writer that the reader of a pipe is gone, without a write.
query_information_file = ctypes.WinDLL("ntdll").NtQueryInformationFile
query_information_file.restype = wintypes.LONG
query_information_file.argtypes = (
    wintypes.HANDLE,
    ctypes.c_void_p,
    ctypes.c_void_p,
    wintypes.ULONG,
    ctypes.c_int,
)

memoryview_at = ctypes.pythonapi.PyMemoryView_FromMemory
memoryview_at.restype = ctypes.py_object
memoryview_at.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
