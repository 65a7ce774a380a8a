"""Bells as named semaphores of at most 1: each end waits for one, and releases the other's to ring it.

They vanish with the last process that has them open.
"""

from __future__ import annotations

import _winapi  # as multiprocessing.connection does: it also ends a wait on Ctrl-C
import contextlib
import functools
import io
import math
import time

from . import win32

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

# Handles that a thread waits for; one more says that it is over.  The system takes 64.  For more than 60
# CPython 3.13 has threads of its own, which can take from a semaphore and say nothing of it.
AT_ONCE = 59


class Heard(int):
    """The number of a handle, which is not given back before this is."""

    def __new__(cls, handle: win32.Handle) -> Heard:
        self = super().__new__(cls, handle.value or 0)
        self._handle = handle
        return self

    _handle: win32.Handle


class Bells:
    """See `contract.Bells`."""

    def __init__(self, own: win32.Handle, peers: win32.Handle) -> None:
        self._own = own
        self._peers = peers
        # Both fail without an error when the bell is rung already.
        self.ring = functools.partial(win32.release_semaphore, peers, 1, None)
        self.ring_own = functools.partial(win32.release_semaphore, own, 1, None)
        self._watched: int | None = None
        self._process: win32.Handle | None = None

    def sleep(self, seconds: float, events: int = 1) -> bool:
        """See `contract.Bells`."""
        handles = self.heard()
        with contextlib.suppress(InterruptedError):
            ended = _winapi.WaitForMultipleObjects(handles, False, int(seconds * 1000) + 1)
            if ended != _winapi.WAIT_TIMEOUT:
                self.told(handles[ended - _winapi.WAIT_OBJECT_0])
                return True
        return False

    def are_shared(self) -> bool:
        """True: whoever has the role has the bells of that name."""
        return True

    def watch(self, pid: int) -> bool:
        """See `contract.Bells`."""
        if pid != self._watched:
            self._watched = pid
            process = win32.open_process(win32.SYNCHRONIZE, False, pid)
            self._process = process if process else None
        return self._process is not None

    def watch_output(self, descriptor: int) -> None:
        """Nothing: who waits looks now and then."""

    def drain(self) -> None:
        """See `contract.Bells`."""
        win32.wait_for(self._own, 0)

    def fileno(self) -> NoReturn:
        """See `contract.Bells`."""
        raise io.UnsupportedOperation("a bell has no descriptor on Windows: wait for its handle")

    @property
    def handle(self) -> int:
        """See `contract.Bells`."""
        return self._own.value or 0

    def heard(self) -> list[int]:
        """See `contract.Bells`."""
        return [Heard(each) for each in (self._own, self._process) if each is not None and each.value]

    def told(self, which: int) -> None:
        """See `contract.Bells`; the wait has taken the ring."""
        if self._process is not None and which == self._process.value:
            self._process = None

    def close(self) -> None:
        """See `contract.Bells`."""
        for handle in (self._own, self._peers, self._process):
            if handle is not None:
                handle.close()


def sleep_on(waited: Sequence[Any], seconds: float) -> list[Any]:
    """See `contract.System`.  What is too much for one thread has more, for as long as the sleep lasts."""
    import threading  # both are slow to import, and seldom needed
    from multiprocessing import connection

    if not waited:
        time.sleep(seconds)  # `connection.wait` would not
        return []
    batches = [waited[start : start + AT_ONCE] for start in range(0, len(waited), AT_ONCE)]
    ready: list[list[Any]] = [[] for _ in batches]
    failed: list[Exception] = []
    over = win32.create_semaphore(None, 0, len(batches) ** 2, None)

    def sleep(number: int) -> None:
        """Sleep on one batch, and then let all the others end their sleeps."""
        batch = batches[number]
        try:
            ended = connection.wait([*batch, over.value], math.ceil(seconds * 1000) / 1000)
            ready[number] = ended[:-1] if over.value in ended else ended
        finally:
            win32.release_semaphore(over, len(batches), None)

    def sleep_in_thread(number: int) -> None:
        try:
            sleep(number)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=sleep_in_thread, args=(number,)) for number in range(1, len(batches))]
    try:
        for thread in threads:
            thread.start()
        with contextlib.suppress(InterruptedError):  # Ctrl-C: the interpreter goes on with its handler
            sleep(0)
    finally:
        win32.release_semaphore(over, len(batches), None)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failed:
        raise failed[0]
    return [each for batch in ready for each in batch]


def own_bells() -> Bells:
    """See `contract.System`."""
    semaphore = win32.create_semaphore(None, 0, 1, None)
    return Bells(semaphore, semaphore)


def bells(own: str, peers: str) -> Bells | None:
    """The bells of these two names, which are made if need be; None when such a name is something else's."""
    semaphores = [win32.create_semaphore(None, 0, 1, tag) for tag in (own, peers)]
    return Bells(*semaphores) if all(semaphores) else None
