"""What POSIX terminals and pipes can do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def redrawing(descriptor: int) -> Iterator[bool]:
    """Whether what is written there can be drawn over: it is a terminal, and not a dumb one."""
    yield os.isatty(descriptor) and os.environ.get("TERM") != "dumb"


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
