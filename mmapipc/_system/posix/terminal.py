"""What POSIX terminals and pipes can do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator


_FIRST_LOOK = 100  # milliseconds of a wait, each time half as many again
_LONGEST_LOOK = 500


@contextlib.contextmanager
def redrawing(descriptor: int) -> Iterator[bool]:
    """Whether what is written there can be drawn over: it is a terminal, and not a dumb one."""
    yield os.isatty(descriptor) and os.environ.get("TERM") != "dumb"


def reader_is_gone(error: OSError, descriptor: int) -> bool:
    """Whether a write there has failed because nobody reads any more."""
    return error.errno == errno.EPIPE


def reader_left(descriptor: int) -> bool:
    """Whether that is a pipe or a socket which nobody reads any more."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


@contextlib.contextmanager
def watched_input(
    file: io.RawIOBase, look: Callable[[], object]
) -> Iterator[Callable[[memoryview], int | None]]:
    """See `contract.System`."""
    yield _watched(file, look) if _can_wait(file) else file.readinto


def _can_wait(file: io.RawIOBase) -> bool:
    """Whether the file is one that is read when somebody writes: a pipe, a socket or a terminal."""
    try:
        mode = os.fstat(file.fileno()).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()


def _watched(file: io.RawIOBase, look: Callable[[], object]) -> Callable[[memoryview], int | None]:
    descriptor = file.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    # Linux reads pipes and sockets without waiting: then a poll is needed only where there is nothing.
    flags = getattr(os, "RWF_NOWAIT", 0)

    def read(view: memoryview) -> int | None:
        nonlocal flags
        while True:
            if flags:
                try:
                    return os.preadv(descriptor, [view], -1, flags)
                except BlockingIOError:
                    pass
                except OSError:
                    flags = 0  # not of this file; if the trouble is another, the read meets it too
            span = _FIRST_LOOK
            while not poll.poll(span):
                look()
                span = min(span * 3 // 2, _LONGEST_LOOK)
            if not flags:
                return file.readinto(view)

    return read


def enlarge_pipe(descriptor: int, size: int) -> None:
    """Let the pipe hold `size` bytes, if it is one and the system allows that."""
    set_size = getattr(fcntl, "F_SETPIPE_SZ", None)
    if set_size is not None and hasattr(fcntl, "F_GETPIPE_SZ"):  # Linux
        with contextlib.suppress(OSError):
            if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < size:
                fcntl.fcntl(descriptor, set_size, size)
