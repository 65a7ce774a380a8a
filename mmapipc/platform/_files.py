"""Files of the user's, to be mapped: opened the same way on every system."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ..errors import (
    ChannelError,
    FileRefused,
    InvalidSize,
    MappingTooSmall,
    MemoryRefused,
    NameTaken,
    NoSuchMapping,
)
from ._names import Place

# In text mode Windows would stop at a byte of 26; a FIFO in that place must not stop us.
_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def _subject(file: Place) -> str:
    """How a message about the file begins."""
    return f"{file.name}:" if file.name == file.location else f"{file.name}: {file.location}:"


def refused(file: Place, error: OSError, writable: bool = False) -> ChannelError:
    """The system's refusal in our words."""
    kind, advice = MemoryRefused, ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        kind = FileRefused
        if writable:
            advice = "; change its permissions, or use access='read' or 'copy'"
    refusal = kind(f"{_subject(file)} {error.strerror}{advice}")
    refusal.errno = error.errno
    return refusal


def open_regular(file: Place, size: int, create: bool, writable: bool) -> tuple[int, int, bool]:
    """Open the file at that path; return (descriptor, bytes to be mapped, whether it was made).

    Size 0 means the file's own.  The caller extends a file that is shorter.
    Raises NoSuchMapping, NameTaken, InvalidSize, MappingTooSmall, FileRefused,
    MemoryRefused.
    """
    path = file.location
    flags = _FLAGS | (os.O_RDWR if writable else os.O_RDONLY)
    makes = create and writable and size > 0
    fd, made = -1, False
    try:
        if makes:
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
                made = True
        if not made:
            fd = os.open(path, flags)
    except FileNotFoundError as error:
        advice = "" if makes else "; make it, or give a size, create=True and access='write'"
        raise NoSuchMapping(f"{_subject(file)} {error.strerror}{advice}") from None
    except OSError as error:
        raise _not_opened(file, error, writable) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _irregular(file)
        wanted = size or status.st_size
        if not wanted:
            raise InvalidSize(f"{_subject(file)} is empty; give a size to extend it")
        if wanted > status.st_size and not (create and writable):
            raise MappingTooSmall(
                f"{_subject(file)} has {status.st_size} bytes, not {wanted}; ask for fewer, "
                "or extend it with create=True and access='write'"
            )
    except BaseException:
        os.close(fd)
        raise
    return fd, wanted, made


def mark(file: Place, beginning: bytes) -> None:
    """Make the file, or take an empty one, and let it begin so; one that has bytes is left as it is.

    A process that dies here leaves a file that is empty, or begins so.
    """
    flags = _FLAGS | os.O_RDWR | os.O_APPEND
    made = False
    try:
        try:
            fd = os.open(file.location, flags | os.O_CREAT | os.O_EXCL, 0o600)
            made = True
        except FileExistsError:
            fd = os.open(file.location, flags)
        try:
            status = os.fstat(fd)
            if status.st_size == 0 and stat.S_ISREG(status.st_mode):
                os.write(fd, beginning)
        finally:
            os.close(fd)
        if made:
            # The disk is to know the file's name too, where a directory can be told to.
            with contextlib.suppress(OSError):
                directory = os.open(os.path.dirname(file.location) or ".", os.O_RDONLY)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
    except OSError as error:
        raise _not_opened(file, error) from None


def _not_opened(file: Place, error: OSError, writable: bool = False) -> ChannelError:
    if error.errno in (errno.EISDIR, errno.ENXIO) or os.path.isdir(file.location):
        return _irregular(file)
    return refused(file, error, writable)


def _irregular(file: Place) -> NameTaken:
    return NameTaken(f"{_subject(file)} is not a regular file; use another path")
