"""Named memory as files, claims as `flock` locks.

A channel has up to three files in one directory:

    mmapipc.UID.NAME            the memory
    mmapipc.UID.NAME+sender     locked by, and holding the pid of, the sender
    mmapipc.UID.NAME+receiver   the same for the receiver

(`+` never appears in an encoded name.)  An exclusive lock on a role's file is
the claim.  The sender also locks the memory it made, through a descriptor of
its own: that tells a receiver whether the sender of *this* stream lives, when
the role may have gone to a newer one.

flock(2) has no way to ask, so looking at a lock takes it shared for a moment.
Nobody fails because of that:

  - lookers do not meet each other, as shared locks go together;
  - who wants a role's file and cannot have it asks whether it is really held,
    by trying for a shared lock, and otherwise tries again;
  - the memory's own lock is wanted only once, before the header is complete,
    and nobody looks at it before that.

What both ends have closed is gone: whoever leaves last sweeps.  What killed
ends left stays until the next one uses the name.

Memory that is shared without roles (`share`) is the first file alone.  Every
holder has a shared lock on it, so a file that can be locked exclusively is
nobody's, and is removed by who finds it so: the last holder, or whoever comes
after a killed one.  A creator has that lock until the bytes are reserved:
others find all of them or none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import time
import weakref

from ..errors import (
    ChannelError,
    InvalidName,
    MappingTooSmall,
    MemoryRefused,
    NameTaken,
    NoSuchMapping,
    RoleTaken,
    UnsafeMemory,
)
from . import _files, _names
from ._names import Place

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._futex import Futex

# Total store order; everything else is taken to be weakly ordered.
ORDERED = os.uname().machine.lower() in ("x86_64", "amd64", "i686", "i386")

yield_processor = os.sched_yield

# What memory is at which nobody is.
STALE = "left by killed processes; mmapipc remove deletes it"

_PATIENCE = 1.0  # seconds a claimant gives a holder to write its pid, or others to look
_MAKING = 10.0  # seconds that the making of memory may take others who want it
_LOOKING = 0.25  # seconds that a lock for a look may last on a busy machine
_LOOKS = 3  # times that a lock is tried which others may have for a moment, to look
_LARGEST_PID = 2**31 - 1


def reader_is_gone(error: OSError, descriptor: int) -> bool:
    """Whether a write there has failed because nobody reads any more."""
    return error.errno == errno.EPIPE


def enlarge_pipe(descriptor: int, size: int) -> None:
    """Let the pipe hold `size` bytes, if it is one and the system allows that."""
    set_size = getattr(fcntl, "F_SETPIPE_SZ", None)
    if set_size is not None and hasattr(fcntl, "F_GETPIPE_SZ"):  # Linux
        with contextlib.suppress(OSError):
            if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < size:
                fcntl.fcntl(descriptor, set_size, size)


if os.uname().sysname == "Linux":
    from ._futex import futex as futex, join_fences as join_fences
else:

    def futex(mapping: mmap.mmap, offset: int) -> Futex | None:
        """None: only Linux has them."""
        return None

    def join_fences() -> None:
        """Nothing to do without futexes."""


def place(name: str) -> Place:
    """Where the memory of that name is: the path of its file.  Raises InvalidName."""
    encoded = _names.split(name)[1]
    try:
        directory = os.path.abspath(_directory())
    except FileNotFoundError as error:
        refusal = MemoryRefused(f"{name}: {error.strerror}; set MMAPIPC_DIR")
        refusal.errno = error.errno
        raise refusal from None
    return Place(name, os.path.join(directory, f"mmapipc.{os.geteuid()}.{encoded}"))


def _directory() -> str:
    chosen = os.environ.get("MMAPIPC_DIR")
    if chosen:
        return chosen
    if os.path.isdir("/dev/shm"):
        return "/dev/shm"
    import tempfile  # slow to import, and seldom needed

    return tempfile.gettempdir()


def _refused(name: str, path: str, error: OSError) -> ChannelError:
    """The system's refusal in our words; `path` is the file that it is about."""
    if error.errno == errno.ENOSPC:
        advice = f"no space left in {os.path.dirname(path)}; use a smaller capacity or set MMAPIPC_DIR"
    elif error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EMLINK):
        return NameTaken(f"{name}: {path} is not a regular file; remove it")
    elif error.errno in (errno.EFBIG, errno.ENOMEM, errno.EINVAL):
        advice = f"{error.strerror}; use a smaller capacity"
    elif error.errno == errno.ENOENT:
        advice = f"{os.path.dirname(path)} is not there; set MMAPIPC_DIR to a directory that is"
    else:
        advice = f"{path}: {error.strerror}"
    refusal = MemoryRefused(f"{name}: {advice}")
    refusal.errno = error.errno
    return refusal


def _open(place: Place, path: str, flags: int, access: int = os.O_RDWR) -> int:
    """Open a file of the channel that only this user can open; return the descriptor.

    Raises FileNotFoundError, FileExistsError, MemoryRefused or UnsafeMemory.
    """
    name = place.name
    try:
        # O_NONBLOCK: a FIFO in that place must not stop us.
        fd = os.open(path, flags | access | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except (FileNotFoundError, FileExistsError) as error:
        if error.errno == errno.ENOENT and flags & os.O_CREAT:
            raise _refused(name, path, error) from None
        raise
    except PermissionError as error:
        theirs = False
        with contextlib.suppress(OSError):
            theirs = os.lstat(path).st_uid != os.geteuid()
        if theirs:
            raise UnsafeMemory(f"{name}: {path} belongs to another user; use another name") from None
        raise _refused(name, path, error) from None
    except OSError as error:
        raise _refused(name, path, error) from None
    status = os.fstat(fd)
    trouble: UnsafeMemory | None = None
    if not stat.S_ISREG(status.st_mode):
        trouble = NameTaken(f"{name}: {path} is not a regular file; remove it")
    elif status.st_uid != os.geteuid():
        trouble = UnsafeMemory(f"{name}: {path} belongs to another user; use another name")
    elif status.st_mode & 0o077:
        trouble = UnsafeMemory(f"{name}: {path} is open to other users; remove it")
    if trouble:
        os.close(fd)
        raise trouble
    return fd


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(fd: int) -> bool:
    """Whether another open of the file holds its exclusive lock."""
    if not _lock(fd, fcntl.LOCK_SH):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _unlock(fd: int) -> None:
    # Explicitly: a child forked a moment ago may still share the descriptor.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """Whether the path still leads to the open file."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _lock_role(place: Place, role: str) -> int | None:
    """Lock a role's file, empty it, and return its descriptor; None when somebody has the role already."""
    path = place.of(role)
    deadline = time.monotonic() + _PATIENCE
    while True:
        fd = _open(place, path, os.O_CREAT)
        if _lock(fd, fcntl.LOCK_EX):
            if _is_at(fd, path):
                # From here on the pid of a dead predecessor would pass for ours.
                try:
                    os.ftruncate(fd, 0)
                except OSError as error:
                    os.close(fd)
                    raise _refused(place.name, path, error) from None
                return fd
        elif _is_locked(fd) or time.monotonic() > deadline:
            os.close(fd)
            return None
        # Otherwise it is a file that was just removed, or somebody only looks.
        os.close(fd)
        yield_processor()


def _is_claimed(place: Place, role: str) -> bool:
    try:
        fd = _open(place, place.of(role), 0, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return _is_locked(fd)
    finally:
        os.close(fd)


def _pid_of(place: Place, role: str) -> int:
    """The pid that the holder of a role left, or 0."""
    try:
        fd = _open(place, place.of(role), 0, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        pid = int(os.pread(fd, 20, 0) or b"0")
        return pid if 0 < pid <= _LARGEST_PID else 0
    except ValueError:
        return 0
    finally:
        os.close(fd)


def _lives(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class _Lock:
    """A lock that this process holds, by a descriptor that nothing else uses.

    A mapping duplicates the descriptor that it is made of, and forked children
    keep it.
    """

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        _held.add(self)

    def release(self) -> None:
        """Give it up."""
        _held.discard(self)
        _unlock(self._fd)

    def disown(self) -> None:
        """In a forked child: let go of what is the parent's."""
        os.close(self._fd)


class Claim(_Lock):
    """A role that this process holds."""

    def release(self) -> None:
        """Give the role up, and its file."""
        if _is_at(self._fd, self._path):
            os.unlink(self._path)
        super().release()


class _Share(_Lock):
    """A part in memory that lives while anybody has one."""

    def release(self) -> None:
        """Give it up; the last one removes the file."""
        # Given up before others are looked for: of two that leave together one finds nobody.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        _remove_if_free(self._fd, self._path)
        super().release()


def claim(place: Place, role: str) -> Claim:
    """Take the role, or raise RoleTaken."""
    deadline = time.monotonic() + _PATIENCE
    while (fd := _lock_role(place, role)) is None:
        pid = _pid_of(place, role)
        if _lives(pid) or time.monotonic() > deadline:
            raise RoleTaken(f"{place.name}: there is a {role} already (pid {pid}); use another name or end it")
        time.sleep(0.001)
    held = Claim(place.of(role), fd)
    try:
        os.pwrite(fd, b"%d" % os.getpid(), 0)
    except OSError as error:
        # Only a message wants the pid: a directory that the ring has filled is no reason to fail.
        if error.errno != errno.ENOSPC:
            held.release()
            raise _refused(place.name, place.of(role), error) from None
    return held


class Memory:
    """A file of memory, open; perhaps with a lock that goes with it."""

    def __init__(self, place: Place, fd: int, lock: _Lock | None = None) -> None:
        self._place = place
        self._fd = fd
        self._lock = lock
        _held.add(self)

    def map(self, length: int, offset: int = 0, access: int = mmap.ACCESS_WRITE) -> mmap.mmap:
        """Map `length` bytes; MappingTooSmall when there are fewer."""
        try:
            return mmap.mmap(self._fd, length, access=access, offset=offset)
        except ValueError:
            # It compares with the file's size: beyond its end a load is a SIGBUS.
            raise MappingTooSmall(
                f"{self._place.name}: {self._place.location} is shorter than {offset + length} bytes; ask for fewer"
            ) from None
        except OSError as error:
            raise _refused(self._place.name, self._place.location, error) from None

    def flush(self, mapping: mmap.mmap) -> None:
        """Bring what was stored in the mapping to the file; return when the disk has it."""
        try:
            mapping.flush()
        except OSError as error:
            raise _files.refused(self._place, error) from None

    def size(self) -> int:
        """How many bytes there are."""
        return os.fstat(self._fd).st_size

    def has(self, length: int) -> bool:
        """Whether the creator has given the file as many bytes yet."""
        return self.size() >= length

    def fits(self, length: int) -> bool:
        """Whether the file has exactly this many bytes."""
        return self.size() == length

    def stands(self, role: str) -> bool:
        """Whether the sender of this very stream lives; whether somebody has the receiver's role."""
        if role == _names.SENDER:
            return _is_locked(self._fd)
        return _is_claimed(self._place, role)

    def close(self) -> None:
        """Let go of the file, and of the lock that comes with the memory."""
        _held.discard(self)
        os.close(self._fd)
        if self._lock is not None:
            self._lock.release()

    def disown(self) -> None:
        """In a forked child: let go of what is the parent's."""
        os.close(self._fd)


def _lock_memory(place: Place, flags: int) -> tuple[int, bool] | None:
    """Open and lock the file of the memory; return (descriptor, whether it is new); None: look again.

    New means empty, and locked exclusively; otherwise it is shared with those
    who have it.  What nobody has is removed: it is what killed holders left.
    It is not used again, for somebody may have it mapped still.
    """
    path = place.location
    fd = _open(place, path, flags)
    try:
        new = _lock_free(fd)
        if new and not (flags & os.O_CREAT and os.fstat(fd).st_size == 0):
            _remove_if_free(fd, path)
        elif (new or _lock(fd, fcntl.LOCK_SH)) and _is_at(fd, path):
            fd, kept = -1, fd
            return kept, new
        return None
    finally:
        if fd >= 0:
            _unlock(fd)


def _lock_free(fd: int) -> bool:
    """Lock a file of memory exclusively; return whether nobody has it."""
    for _ in range(_LOOKS - 1):
        if _lock(fd, fcntl.LOCK_EX):
            return True
        time.sleep(0.0002)
    return _lock(fd, fcntl.LOCK_EX)


def _remove_if_free(fd: int, path: str) -> None:
    """Remove the memory's file from the path unless somebody else has it."""
    if _lock_free(fd) and _is_at(fd, path):
        os.unlink(path)


@contextlib.contextmanager
def _undone(place: Place, lock: _Lock, fd: int) -> Iterator[None]:
    """Around what is done with locked memory: should it fail, the lock goes, and the file if it is nobody's."""
    try:
        yield
    except BaseException as error:
        _remove_if_free(fd, place.location)
        lock.release()
        if isinstance(error, OSError) and not isinstance(error, ChannelError):
            raise _refused(place.name, place.location, error) from None
        raise


def create(place: Place, size: int) -> Memory:
    """Make the memory: `size` zero bytes, all of them reserved."""
    path = place.location
    locked = _lock_memory(place, os.O_CREAT)
    if locked is None or not locked[1]:
        if locked is not None:
            _Share(path, locked[0]).release()
        raise MemoryRefused(f"{place.name}: another process has just taken {path}; use another name")
    fd = locked[0]
    lock = _Lock(path, fd)
    with _undone(place, lock, fd):
        _reserve(fd, 0, size)
        return Memory(place, _open(place, path, 0), lock)


def _reserve(fd: int, start: int, size: int) -> None:
    """Give the file its bytes from `start` on now: on a full disk this fails, and not a later store (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, start, size - start)
    else:  # macOS
        block = bytes(1 << 20)
        while start < size:
            start += os.pwrite(fd, block[: size - start], start)


def share(place: Place, size: int, create: bool) -> tuple[Memory, bool]:
    """Open memory that lives while anybody has it; with `create` make it if it is not there."""
    lock, fd, created = _share(place, size, create)
    with _undone(place, lock, fd):
        if not os.fstat(fd).st_size:
            raise _names.other_backing(place, False)
        memory = _open(place, place.location, 0)
    return Memory(place, memory, lock), created


def _refuse_channel(place: Place) -> None:
    for role in (_names.SENDER, _names.RECEIVER):
        if _is_claimed(place, role):
            raise _names.other_kind(place, role)


def _share(place: Place, size: int, create: bool) -> tuple[_Share, int, bool]:
    """Take a part in the name; return (it, its descriptor, whether the name was new).

    Size 0 makes a name without memory of its own.
    """
    path = place.location
    deadline = time.monotonic() + _MAKING
    while True:
        _refuse_channel(place)
        try:
            locked = _lock_memory(place, os.O_CREAT if create else 0)
        except FileNotFoundError:
            raise NoSuchMapping(f"{place.name}: nobody has memory of that name; make it first") from None
        if locked is not None:
            fd, created = locked
            lock = _Share(path, fd)
            with _undone(place, lock, fd):
                if not created:
                    return lock, fd, False
                if size:
                    _reserve(fd, 0, size)
                # Between the one lock and the other somebody may have found the file free, and
                # removed it.  So may a sender, which does not mind the first: its claim shows by now.
                if _lock(fd, fcntl.LOCK_SH) and _is_at(fd, path):
                    _refuse_channel(place)
                    return lock, fd, True
            lock.release()
        if time.monotonic() > deadline:
            raise MemoryRefused(f"{place.name}: {path} stays locked by another process; end it or use another name")
        time.sleep(0.001)


def open_file(place: Place | None, path: str, size: int, create: bool, writable: bool) -> tuple[Memory, bool]:
    """Open a file of the user's as memory; with `create` make it or extend it to `size` bytes."""
    file = Place(place.name if place else path, path)
    fd, wanted, created = _files.open_regular(file, size, create, writable)
    lock = None
    made = created
    try:
        if place is not None:
            lock, name, created = _share(place, 0, create)
            if os.fstat(name).st_size:
                raise _names.other_backing(place, True)
        there = os.fstat(fd).st_size
        if there < wanted:
            _reserve(fd, there, wanted)
    except BaseException as error:
        os.close(fd)
        if made:
            os.unlink(path)
        if lock is not None:
            lock.release()
        if isinstance(error, OSError) and not isinstance(error, ChannelError):
            raise _files.refused(file, error) from None
        raise
    return Memory(file, fd, lock), created


def open_existing(place: Place) -> Memory | None:
    """Open the memory of that name; None when there is none."""
    try:
        return Memory(place, _open(place, place.location, 0))
    except FileNotFoundError:
        return None


class Observed(Memory):
    """A channel's file, open to be looked at only."""

    @contextlib.contextmanager
    def look(self, length: int) -> Iterator[memoryview]:
        """A read-only view of the first `length` bytes; MappingTooSmall when there are fewer."""
        with self.map(length, access=mmap.ACCESS_READ) as page, memoryview(page) as view:
            yield view


def observe(place: Place) -> Observed | None:
    """Open the memory of that name to look at it; None when there is none."""
    try:
        return Observed(place, _open(place, place.location, 0, os.O_RDONLY))
    except FileNotFoundError:
        return None


def holder(place: Place, role: str) -> int | None:
    """The pid of who has the role, 0 when it is not known; None when nobody has it."""
    return _pid_of(place, role) if _is_claimed(place, role) else None


def exists(place: Place) -> bool:
    """Whether there is anything of the channel: the memory, or a role's file."""
    paths = (place.location, place.of(_names.SENDER), place.of(_names.RECEIVER))
    return any(os.path.lexists(path) for path in paths)


def channels() -> list[str]:
    """The names of this user's channels and of what is left of some.  Raises MemoryRefused."""
    directory = _directory()
    prefix = f"mmapipc.{os.geteuid()}."
    found = set()
    try:
        entries = os.listdir(directory)
    except OSError as error:
        refusal = MemoryRefused(f"{directory}: {error.strerror}; set MMAPIPC_DIR")
        refusal.errno = error.errno
        raise refusal from None
    for entry in entries:
        encoded, _, role = entry.partition("+")
        if encoded.startswith(prefix) and role in ("", _names.SENDER, _names.RECEIVER):
            with contextlib.suppress(InvalidName):  # nobody's channel
                found.add(_names.join(encoded[len(prefix) :]))
    return sorted(found)


@contextlib.contextmanager
def redrawing(descriptor: int) -> Iterator[bool]:
    """Whether what is written there can be drawn over: it is a terminal, and not a dumb one."""
    yield os.isatty(descriptor) and os.environ.get("TERM") != "dumb"


def remove(place: Place) -> None:
    """Take the name away, unless somebody shares the memory.  For the holder of the sender's role only."""
    with contextlib.suppress(FileNotFoundError):
        fd = _open(place, place.location, 0)
        try:
            if not _is_shared(fd) and _is_at(fd, place.location):
                os.unlink(place.location)
        except PermissionError as error:
            raise _refused(place.name, place.location, error) from None
        finally:
            _unlock(fd)


def _is_shared(fd: int) -> bool:
    """Whether somebody shares the memory, and not only looks at it, which takes a moment."""
    deadline = time.monotonic() + _LOOKING
    # Locked by us, or exclusively by somebody else: either way nobody shares it.
    while not _lock(fd, fcntl.LOCK_EX) and not _is_locked(fd):
        if time.monotonic() > deadline:
            return True
        yield_processor()
    return False


def sweep(place: Place) -> None:
    """Remove what is left of a channel at which nobody is.

    Both ends call this after their own claim is released.  Locks are system
    calls, so of two ends that leave at the same time at least one sees both
    roles free.  Whoever finds the sender's role locked leaves the sweeping to
    its holder; that one, should it have met a receiver, looks again.
    """
    while (sender := _lock_role(place, _names.SENDER)) is not None:
        receiver = None
        try:
            receiver = _lock_role(place, _names.RECEIVER)
            if receiver is not None:
                remove(place)
        finally:
            if receiver is not None:
                Claim(place.of(_names.RECEIVER), receiver).release()
            Claim(place.of(_names.SENDER), sender).release()
        if receiver is not None or _is_claimed(place, _names.RECEIVER):
            break


# Claims are the process's own: a forked child shares the open files, and would
# hold the locks beyond its parent's death if it kept them.
_held: weakref.WeakSet[_Lock | Memory] = weakref.WeakSet()


def _disown_all() -> None:
    for held in list(_held):
        held.disown()
    _held.clear()


os.register_at_fork(after_in_child=_disown_all)
