"""Locks on ranges of a file, which the kernel takes back when their holder ends.

These are open file description locks (POSIX.1-2024; fcntl(2) on Linux): they
belong to one open of a file.  Two opens in one process exclude each other, and
`in_the_way` asks about a lock without taking it, so a look holds up nobody.
A range may lie beyond the file's end, and holds no byte back from anybody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from io import FileIO

if sys.platform == "darwin":
    _SET, _GET = 90, 92  # sys/fcntl.h; not every Python has names for them
elif hasattr(fcntl, "F_OFD_GETLK"):
    _SET, _GET = fcntl.F_OFD_SETLK, fcntl.F_OFD_GETLK
else:
    raise ImportError("mmapipc needs open file description locks (Linux 3.15 or newer, macOS)")

# struct flock, and where its type, start and length are.
if sys.platform == "darwin":
    _FLOCK = struct.Struct("qqihh")
    _TYPE, _START, _LENGTH = 3, 0, 1
else:
    _FLOCK = struct.Struct("hhqqi0q")
    _TYPE, _START, _LENGTH = 0, 2, 3

EVERYTHING = (0, 0)  # a length of 0 reaches to the end of all files
GUARD = 1 << 62  # where the range of a guard begins, see `guards`: beyond all others
BELOW_GUARD = (0, GUARD)


def _flock(kind: int, span: tuple[int, int]) -> bytes:
    start, length = span
    if sys.platform == "darwin":
        return _FLOCK.pack(start, length, 0, kind, os.SEEK_SET)
    return _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)


def lock(file: FileIO, span: tuple[int, int] = EVERYTHING, *, shared: bool = False) -> bool:
    """Lock the range (start, length), or change the lock there, in one step; return whether it was free.

    Raises OSError when the file system has no such locks.
    """
    try:
        fcntl.fcntl(file, _SET, _flock(fcntl.F_RDLCK if shared else fcntl.F_WRLCK, span))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def unlock(file: FileIO, span: tuple[int, int] = EVERYTHING) -> None:
    """Give up this open's locks there, which a child that was forked a moment ago may still have."""
    fcntl.fcntl(file, _SET, _flock(fcntl.F_UNLCK, span))


def in_the_way(file: FileIO, span: tuple[int, int]) -> tuple[int, int] | None:
    """The range of a lock that others have there, or None.  Takes nothing."""
    found = _FLOCK.unpack(fcntl.fcntl(file, _GET, _flock(fcntl.F_WRLCK, span)))
    return None if found[_TYPE] == fcntl.F_UNLCK else (found[_START], found[_LENGTH])
