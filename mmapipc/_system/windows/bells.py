"""Bells as named semaphores of at most 1: each end waits for one, and releases the other's to ring it.

They vanish with the last process that has them open.
"""

from __future__ import annotations

import _winapi  # as multiprocessing.connection does: it also ends a wait on Ctrl-C
import contextlib
import functools

from . import win32


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

    def sleep(self, seconds: float, events: int = 1) -> object:
        """See `contract.Bells`."""
        handles = [each.value for each in (self._own, self._process) if each is not None and each.value]
        with contextlib.suppress(InterruptedError):
            ended = _winapi.WaitForMultipleObjects(handles, False, int(seconds * 1000) + 1)
            if self._process is not None and ended == _winapi.WAIT_OBJECT_0 + 1:
                self._process.close()  # told once
                self._process = None
        return None

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
        """Nothing to do: a semaphore of at most 1 has room for every ring."""

    def close(self) -> None:
        """See `contract.Bells`."""
        for handle in (self._own, self._peers, self._process):
            if handle is not None:
                handle.close()


def bells(own: str, peers: str) -> Bells | None:
    """The bells of these two names, which are made if need be; None when such a name is something else's."""
    semaphores = [win32.create_semaphore(None, 0, 1, tag) for tag in (own, peers)]
    return Bells(*semaphores) if all(semaphores) else None
