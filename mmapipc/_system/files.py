"""Files of the user's, to be mapped: opened the same way on every system."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import stat
import weakref

from ..errors import (
    ChannelError,
    FileRefused,
    InvalidSize,
    MappingTooSmall,
    MemoryRefused,
    NameTaken,
    NoSuchMapping,
    in_bytes,
)
from .names import there_already

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .names import Place

# In text mode Windows would stop at a byte of 26; a FIFO in that place must not stop us.
FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

_MODES = {os.O_RDWR: "r+", os.O_RDONLY: "r"}
# Windows tells Python no difference between these two.
_OTHERS = ""
if os.name == "nt":
    _OTHERS = " (or another program has it open, and does not share it: end that program)"


def owned(path: str, flags: int, access: int) -> io.FileIO:
    """Open a file so that its descriptor has an owner from the system call on.

    `next` and `map` run in C: no signal handler, and so no exception, comes
    between the two calls.  FileIO refuses a directory and leaves it open, so
    that is asked first; to open one for writing fails by itself.
    """
    if access == os.O_RDONLY and os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    file = next(map(io.FileIO, map(os.open, (path,), (flags | access,), (0o600,)), (_MODES[access],)))
    _held.add(file)
    return file


# A forked child shares what is open, also in the middle of taking something, and would keep the locks beyond
# its parent's death.
_held: weakref.WeakSet[io.FileIO] = weakref.WeakSet()


def disown_all() -> None:
    """In a forked child: let go of what is the parent's."""
    for file in list(_held):
        file.close()
    _held.clear()


def refused(file: Place, error: OSError, advice: str = "") -> ChannelError:
    """The system's refusal in our words; `advice` is for a file that may not be used in that way."""
    kind, trouble = MemoryRefused, error.strerror
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBADF):
        kind, trouble = FileRefused, f"{error.strerror}{_OTHERS}{advice}"
    refusal = kind(f"{_subject(file)} {trouble}")
    refusal.errno = error.errno
    return refusal


@contextlib.contextmanager
def opening(file: Place, advice: str = "", missing: str = "") -> Iterator[None]:
    """Raise what the system refuses in our words; `missing` is advice if there is no file."""
    try:
        yield
    except ChannelError:
        raise
    except FileNotFoundError as error:
        raise NoSuchMapping(f"{_subject(file)} {error.strerror}{missing}") from None
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO, errno.ELOOP) or os.path.isdir(file.location):
            raise _irregular(file) from None
        raise refused(file, error, advice) from None


def _again(file: Place, descriptor: int) -> io.FileIO:
    """The open file of the user's by a descriptor of ours, which shares its rights."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # FileIO would refuse a directory, and leave it open
        raise _irregular(file)
    opened = next(map(io.FileIO, map(os.dup, (descriptor,)), ("r",)))
    _held.add(opened)
    return opened


def open_regular(
    file: Place, size: int, create: bool, writable: bool, exist_ok: bool = True
) -> tuple[io.FileIO, int, bool]:
    """Open the file at that path; return (the open file, bytes to be mapped, whether it was made).

    Size 0 means the file's own.  The caller extends a file that is shorter.
    Raises NoSuchMapping, NameTaken, InvalidSize, MappingTooSmall, FileRefused,
    MemoryRefused, and MappingExists unless `exist_ok`.
    """
    makes = create and writable and size > 0 and file.descriptor is None
    opened, made = None, False
    with opening(
        file,
        "; change its permissions, or use access='read' or 'copy'" if writable else "",
        "" if makes else "; make it, or give a size, create=True and access='write'",
    ):
        if makes:
            with contextlib.suppress(FileExistsError):
                opened, made = owned(file.location, FLAGS | os.O_CREAT | os.O_EXCL, os.O_RDWR), True
        if opened is None and file.descriptor is not None:
            opened = _again(file, file.descriptor)
        elif opened is None:
            opened = owned(file.location, FLAGS, os.O_RDWR if writable else os.O_RDONLY)
    try:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _irregular(file)
        if not (made or exist_ok):
            raise there_already(file)
        wanted = size or status.st_size
        if not wanted:
            raise InvalidSize(f"{_subject(file)} the file is empty; give a size to extend it")
        if wanted > status.st_size and not (create and writable):
            raise MappingTooSmall(
                f"{_subject(file)} the file has {in_bytes(status.st_size)}, not {wanted}; ask for fewer, "
                "or extend it with create=True and access='write'"
            )
    except BaseException:
        opened.close()
        raise
    return opened, wanted, made


class Descriptor(int):
    """A descriptor that is closed with this object; also a directory's, which FileIO does not take."""

    # The same as `os.close(self)`, but all of it runs in C: see `owned`.
    __del__ = property(functools.partial(functools.partial, os.close))


def make(file: Place) -> None:
    """Make the file, empty, unless there is one; if the path is a link to a missing file, make that."""
    with opening(file), contextlib.suppress(FileExistsError):
        path = os.path.realpath(file.location)
        owned(path, FLAGS | os.O_CREAT | os.O_EXCL, os.O_RDWR).close()
        # The disk is to know the file's name too, where a directory can be told to.
        with contextlib.suppress(OSError):
            directory = next(map(Descriptor, map(os.open, (os.path.dirname(path),), (os.O_RDONLY,))))
            os.fsync(directory)


def mark(file: Place, beginning: bytes) -> None:
    """Let an empty file begin so; one that has bytes is left as it is.

    For one process at a time: of two that find the file empty, each would write.
    """
    with opening(file), owned(file.location, FLAGS | os.O_APPEND, os.O_RDWR) as marked:
        status = os.fstat(marked.fileno())
        if status.st_size == 0 and stat.S_ISREG(status.st_mode):
            marked.write(beginning)


def _subject(file: Place) -> str:
    """How a message about the file begins."""
    return f"{file.name}:" if file.name == file.location else f"{file.name}: {file.location}:"


def _irregular(file: Place) -> NameTaken:
    return NameTaken(f"{_subject(file)} this is not a regular file; use another one")
