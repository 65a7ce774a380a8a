"""Bells as FIFOs: each end sleeps on one, and writes a byte to the other's to ring it.

Both ends have both open for reading and writing.  So a ring never fails because
nobody listens, and no SIGPIPE can come of it.  Each end has a shared lock on
both: a FIFO that nobody has locked is what killed ends left.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import select
import stat
import sys

from ..files import Descriptor, owned
from . import locks
from .private import is_at

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

_FULL = 1 << 16  # bytes, that a FIFO holds at most
_ATTEMPTS = 10  # to open one, while others remove it
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
AT_ONCE = sys.maxsize  # descriptors that a thread waits for


class Bells:
    """See `contract.Bells`."""

    def __init__(self, own: io.FileIO, peers: io.FileIO) -> None:
        self._own = own
        self._peers = peers
        # In C from here to the system call.  Of the file, and not by its number, which may be another's
        # once it is closed.  A FIFO that is full of rings takes no more of them, and says nothing.
        self.ring = functools.partial(peers.write, b"\a")
        self.ring_own = functools.partial(own.write, b"\a")
        self._watched: int | None = None
        self._output: int | None = None
        self._process: Descriptor | None = None
        self._epoll: Any = None

    def again(self) -> Bells:
        """The same bells for another sleeper of this end."""
        return Bells(self._own, self._peers)

    def sleep(self, seconds: float, events: int = 1) -> object:
        """See `contract.Bells`."""
        # From now on without this method: it would be in the way each time.
        self.sleep = self._best_sleep()  # type: ignore[method-assign,assignment]
        return self.sleep(seconds, events)

    def _best_sleep(self) -> Callable[[float, int], object]:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._epoll = select.epoll()
                # Edge-triggered: a ring is news once, and need not be read each time.
                self._epoll.register(self._own.fileno(), select.EPOLLIN | select.EPOLLET)
                if self._output is not None:
                    self.watch_output(self._output)
                if self._process is not None:
                    self._epoll.register(self._process, select.EPOLLIN | select.EPOLLET)
                best: Callable[[float, int], object] = self._epoll.poll
                return best
        poll = select.poll()
        poll.register(self._own.fileno(), select.POLLIN)

        def sleep(seconds: float, events: int) -> object:
            rung = poll.poll(seconds * 1000)
            if rung:
                self.drain()
            return rung

        return sleep

    def are_shared(self) -> bool:
        """See `contract.Bells`."""
        try:
            return locks.in_the_way(self._own, locks.EVERYTHING) is not None
        except OSError:
            return True  # where a FIFO has no locks, nobody knows

    def watch(self, pid: int) -> bool:
        """See `contract.Bells`; only Linux can."""
        if pid != self._watched:
            self._watched, self._process = pid, None
            if sys.platform == "linux":
                # Not there, or in another namespace: who waits asks for the claim now and then.
                with contextlib.suppress(AttributeError, OSError):
                    self._process = next(map(Descriptor, map(os.pidfd_open, (pid,))))
                    if self._epoll is not None:
                        self._epoll.register(self._process, select.EPOLLIN | select.EPOLLET)
        return self._process is not None

    def watch_output(self, descriptor: int) -> None:
        """See `contract.Bells`; only Linux can."""
        self._output = descriptor
        if sys.platform == "linux" and self._epoll is not None:
            with contextlib.suppress(OSError):  # a file of a kind for which nobody waits
                # An error or a hang-up is told without being asked for.
                self._epoll.register(descriptor, select.EPOLLET)

    def drain(self) -> None:
        """See `contract.Bells`."""
        try:
            os.read(self._own.fileno(), _FULL)
        except BlockingIOError:
            pass

    def fileno(self) -> int:
        """See `contract.Bells`."""
        return self._own.fileno()

    @property
    def handle(self) -> NoReturn:
        """See `contract.Bells`."""
        raise AttributeError("a bell has no handle on POSIX: wait for its fileno()")

    def heard(self) -> list[int]:
        """See `contract.Bells`."""
        own = self._own.fileno()
        return [own] if self._process is None else [own, self._process]

    def told(self, which: int) -> None:
        """See `contract.Bells`."""
        if which == self._process:
            self._process = None
        else:
            self.drain()

    def close(self) -> None:
        """See `contract.Bells`."""
        self._process = None
        if self._epoll is not None:
            self._epoll.close()
        self._own.close()
        self._peers.close()


def sleep_on(waited: Sequence[Any], seconds: float) -> list[Any]:
    """See `contract.System`."""
    descriptors = [each if isinstance(each, int) else each.fileno() for each in waited]
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    # Any event: an end, or an error, does not wait either.
    ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
    return [each for each, descriptor in zip(waited, descriptors) if descriptor in ready]


def bells(own: str, peers: str) -> Bells | None:
    """The bells at these two paths, which are made if need be."""
    opened: list[io.FileIO] = []
    try:
        for path in (own, peers):
            opened.append(_open(path))
        return Bells(*opened)
    except OSError:
        # What is there is not ours, or the directory has none: then there are no bells.
        for file in opened:
            file.close()
        return None


def remove_if_left(path: str) -> None:
    """Remove the bell at that path if killed ends have left it."""
    with contextlib.suppress(OSError), owned(path, _FLAGS, os.O_RDWR) as file:
        if _is_ours(file) and locks.lock(file) and is_at(file, path):
            os.unlink(path)


def own_bells() -> Bells:
    """See `contract.System`."""
    own, peers = map(io.FileIO, os.pipe(), ("r", "w"))
    for file in (own, peers):
        os.set_blocking(file.fileno(), False)
    return Bells(own, peers)


def _open(path: str) -> io.FileIO:
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        with contextlib.suppress(FileNotFoundError):
            file = owned(path, _FLAGS, os.O_RDWR)
            if not _is_ours(file):
                file.close()
                break
            if _is_kept(file, path):
                return file
            file.close()
    raise OSError


def _is_ours(file: io.FileIO) -> bool:
    """Whether it is a FIFO that only this user can open."""
    status = os.fstat(file.fileno())
    return stat.S_ISFIFO(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _is_kept(file: io.FileIO, path: str) -> bool:
    """Lock the bell; whether nobody has removed it, and nobody will."""
    try:
        return locks.lock(file, shared=True) and is_at(file, path)
    except OSError:
        return True  # where a FIFO has no locks, nobody removes any
