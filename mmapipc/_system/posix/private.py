"""Files that only this user can open, and what the system says when they cannot be had."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat

from ...errors import ChannelError, MemoryRefused, NameTaken, UnsafeMemory
from ..files import owned
from . import locks

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..names import Place


def directory(about: str) -> str:
    """Where the memory of channels is.  Raises MemoryRefused; `about` begins the message."""
    chosen = os.environ.get("MMAPIPC_DIR")
    if chosen:
        return os.path.abspath(chosen)
    if os.path.isdir("/dev/shm"):
        return "/dev/shm"
    import tempfile  # slow to import, and seldom needed

    try:
        return os.path.abspath(tempfile.gettempdir())
    except FileNotFoundError as error:
        refusal = MemoryRefused(
            f"{about}no directory for shared memory is writable; set MMAPIPC_DIR to one that is"
        )
        refusal.errno = error.errno
        raise refusal from None


def of_files() -> str:
    """How the paths begin of what belongs to any file of the user's.  Raises MemoryRefused."""
    return os.path.join(directory(""), f"mmapipc.{os.geteuid()}.+")


def inode_path(status: os.stat_result) -> str:
    """How the path begins of what belongs to a file, however that is spelled.  Raises MemoryRefused."""
    return f"{of_files()}{status.st_dev:x}.{status.st_ino:x}"


def guard_mark(status: os.stat_result) -> str:
    """The path of the mark that somebody has the guard of a file, see `guards`.  Raises MemoryRefused."""
    return f"{inode_path(status)}+guard"


def remove_guard_mark(status: os.stat_result) -> None:
    """Remove it, if it is there."""
    with contextlib.suppress(OSError, ChannelError):
        os.unlink(guard_mark(status))


def open_private(place: Place, path: str, flags: int = 0, access: int = os.O_RDWR) -> io.FileIO:
    """Open a file of the channel's.

    Raises FileNotFoundError, FileExistsError, MemoryRefused or UnsafeMemory.
    """
    name = place.name
    try:
        # O_NONBLOCK: a FIFO in that place must not stop us.
        file = owned(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, access)
    except (FileNotFoundError, FileExistsError) as error:
        if error.errno == errno.ENOENT and flags & os.O_CREAT:
            raise refused(name, path, error) from None
        raise
    except PermissionError as error:
        theirs = False
        with contextlib.suppress(OSError):
            theirs = os.lstat(path).st_uid != os.geteuid()
        if theirs:
            raise UnsafeMemory(f"{name}: {path} belongs to another user; use another name") from None
        raise refused(name, path, error) from None
    except OSError as error:
        raise refused(name, path, error) from None
    trouble = _trouble(name, path, os.fstat(file.fileno()))
    if trouble is not None:
        file.close()
        raise trouble
    return file


def _trouble(name: str, path: str, status: os.stat_result) -> UnsafeMemory | None:
    """Why an open file is not one that only this user can reach, by this path; or None."""
    if not stat.S_ISREG(status.st_mode):
        return NameTaken(f"{name}: {path} is not a regular file; remove it")
    if status.st_uid != os.geteuid():
        return UnsafeMemory(f"{name}: {path} belongs to another user; use another name")
    if status.st_mode & 0o077:
        return UnsafeMemory(f"{name}: {path} is open to other users; remove it")
    if status.st_nlink > 1:
        return UnsafeMemory(f"{name}: {path} has another name too (a hard link); remove it")
    return None


def is_at(file: io.FileIO, path: str, *, follow: bool = False) -> bool:
    """Whether the path still leads to the open file; by way of links only if they are to be followed.

    Needs no descriptor.
    """
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=follow), os.fstat(file.fileno()))
    except (FileNotFoundError, NotADirectoryError):
        return False


def refused(name: str, path: str, error: OSError) -> ChannelError:
    """The system's refusal in our words; `path` is the file that it is about."""
    if error.errno == errno.ENOSPC:
        advice = f"no space left in {os.path.dirname(path)}; ask for less memory or set MMAPIPC_DIR"
    elif error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EMLINK):
        return NameTaken(f"{name}: {path} is not a regular file; remove it")
    elif error.errno in (errno.EFBIG, errno.ENOMEM):
        advice = f"{error.strerror}; ask for less memory"
    elif error.errno == errno.ENOENT:
        advice = f"{os.path.dirname(path)} does not exist; set MMAPIPC_DIR to a directory that does"
    else:
        advice = f"{path}: {error.strerror}"
    refusal = MemoryRefused(f"{name}: {advice}")
    refusal.errno = error.errno
    return refusal


@contextlib.contextmanager
def refusing(name: str, path: str) -> Iterator[None]:
    """Raise what the system refuses within the block in our words."""
    try:
        yield
    except ChannelError:
        raise
    except OSError as error:
        raise refused(name, path, error) from None


def remove_if_free(file: io.FileIO, path: str) -> None:
    """Remove the memory's file unless somebody else has it."""
    if locks.lock(file) and is_at(file, path):
        os.unlink(path)
        remove_guard_mark(os.fstat(file.fileno()))


def remove(place: Place) -> None:
    """Take the name away, unless somebody shares the memory.  For the holder of the sender's role only."""
    if not os.path.lexists(place.location):
        return  # also when there is no descriptor left to look with
    with contextlib.suppress(FileNotFoundError), open_private(place, place.location) as file:
        with refusing(place.name, place.location):
            remove_if_free(file, place.location)
