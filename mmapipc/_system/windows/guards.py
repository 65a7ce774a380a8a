"""What guards memory between processes: a named mutex, which the system takes back when its owner ends.

Its owner is a thread.  It vanishes with the last handle to it, and with it the
news that its owner died: so whoever maps the memory has it open.
"""

from __future__ import annotations

import _winapi  # see `bells`
import contextlib
import ctypes
import math
import time

from ...errors import AlreadyLocked
from ..names import Place
from . import win32
from .roles import refused


class Guard:
    """See `contract.Guard`.  The place is the mutex's."""

    abandoned = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self._mutex: win32.Handle | None = None

    def open(self) -> win32.Handle:
        """A handle to the mutex, which is made if need be; with no more rights than are needed."""
        access = win32.SYNCHRONIZE | win32.MUTEX_MODIFY_STATE
        mutex: win32.Handle = win32.create_mutex(None, self._place.location, 0, access)
        if not mutex:
            raise refused(self._place.name, self._place.location, ctypes.get_last_error())
        return mutex

    def acquire(self, timeout: float | None) -> bool:
        """See `contract.Guard`."""
        mutex = self.open()
        if _is_ours(mutex):
            mutex.close()
            raise AlreadyLocked(f"{self._place.name}: this thread has the lock already; release it first")
        self._mutex = mutex
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = win32.INFINITE
            if end is not None:
                left = min(math.ceil(max(end - time.monotonic(), 0) * 1000), win32.INFINITE - 1)
            with contextlib.suppress(InterruptedError):  # Ctrl-C: the interpreter goes on with its handler
                ended = _winapi.WaitForMultipleObjects([mutex.value or 0], False, left)
                self.abandoned = ended == win32.WAIT_ABANDONED
                return ended != win32.WAIT_TIMEOUT

    def holder(self) -> None:
        """None: the system does not tell."""

    def release(self) -> None:
        """See `contract.Guard`."""
        mutex, self._mutex = self._mutex, None
        if mutex is not None:
            if _is_ours(mutex):
                win32.release_mutex(mutex)
            mutex.close()


def _is_ours(mutex: win32.Handle) -> bool:
    """Whether this thread has the mutex."""
    seen = win32.MutexInformation()
    win32.query_mutex(
        mutex, win32.MUTEX_BASIC_INFORMATION, ctypes.byref(seen), ctypes.sizeof(seen), None
    )
    return bool(seen.OwnedByCaller)
