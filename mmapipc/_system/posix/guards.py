"""What guards memory between processes: a lock on a range of its file, and a mark that it is held.

    mmapipc.UID.+DEVICE.INODE+guard    the mark, an empty file beside the memory of channels

The kernel takes the lock back when its holder ends, whoever that is.  The mark
stays then: so the next holder of the same user knows.  The range begins beyond
all others and has 1 + pid bytes, as those of the roles.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import time
from _thread import get_ident

from ...errors import AlreadyLocked, NoSuchMapping
from .. import files
from ..names import Place
from . import locks
from .private import guard_mark, refusing, remove_guard_mark

_FIRST_NAP = 0.0005  # seconds
_LONGEST_NAP = 0.02

# Which thread of this process has which file's guard.
_holders: dict[tuple[int, int], int] = {}


class Guard:
    """See `contract.Guard`."""

    abandoned = False

    def __init__(self, place: Place, memory: io.FileIO) -> None:
        self._place = place
        self._memory = memory
        self._file: io.FileIO | None = None
        self._has = self._marked = False

    def acquire(self, timeout: float | None) -> bool:
        """See `contract.Guard`."""
        status = os.fstat(self._memory.fileno())
        known = (status.st_dev, status.st_ino)
        if _holders.get(known) == get_ident():
            raise AlreadyLocked(f"{self._place.name}: this thread has the lock already; release it first")
        with refusing(self._place.name, self._place.location):
            # Who may only read shares the lock with others who may only read.
            shared = False
            try:
                self._file = self._open_again(os.O_RDWR, status)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                self._file = self._open_again(os.O_RDONLY, status)
                shared = True
            if not self._lock(shared, timeout):
                return False
        self._has = True
        _holders[known] = get_ident()
        self._mark(guard_mark(status), shared)
        return True

    def _open_again(self, access: int, status: os.stat_result) -> io.FileIO:
        """The memory's file by an open of our own; through /proc also when it has no name any more."""
        path = f"/proc/self/fd/{self._memory.fileno()}"
        file = files.owned(path if os.path.exists(path) else self._place.location, files.FLAGS, access)
        if not os.path.samestat(os.fstat(file.fileno()), status):
            file.close()
            raise NoSuchMapping(f"{self._place.name}: the memory was removed or replaced, so it has no lock")
        return file

    def _lock(self, shared: bool, timeout: float | None) -> bool:
        assert self._file is not None
        span = (locks.GUARD, 1 + os.getpid())
        end = None if timeout is None else time.monotonic() + timeout
        nap = _FIRST_NAP
        while not locks.lock(self._file, span, shared=shared):
            left = nap if end is None else end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(nap, left))
            nap = min(1.5 * nap, _LONGEST_NAP)
        return True

    def _mark(self, path: str, shared: bool) -> None:
        if shared:  # who may only read leaves nothing half written, and repairs nothing
            self.abandoned = os.path.lexists(path)
            return
        flags = files.FLAGS | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL
        with refusing(self._place.name, path):
            try:
                files.owned(path, flags, os.O_RDWR).close()
            except FileExistsError:
                self.abandoned = True
        self._marked = True

    def holder(self) -> int | None:
        """See `contract.Guard`."""
        found = None
        with contextlib.suppress(OSError, ValueError):
            if self._file is not None:
                found = locks.in_the_way(self._file, (locks.GUARD, 1))
        return None if found is None else found[1] - 1

    def release(self) -> None:
        """See `contract.Guard`."""
        file, self._file = self._file, None
        if file is None or file.closed:  # a forked child has closed what is its parent's
            return
        with file:
            status = os.fstat(file.fileno())
            if self._has:
                _holders.pop((status.st_dev, status.st_ino), None)
            if self._marked:
                remove_guard_mark(status)
            locks.unlock(file)


os.register_at_fork(after_in_child=_holders.clear)
