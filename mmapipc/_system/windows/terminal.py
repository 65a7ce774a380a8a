"""What a Windows console and Windows pipes can do."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import msvcrt
import os
import stat
from ctypes import wintypes

from . import win32

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def redrawing(descriptor: int) -> Iterator[bool]:
    """Whether what is written there can be drawn over: it is a console, which is made to do it."""
    console = msvcrt.get_osfhandle(descriptor)
    before = wintypes.DWORD()
    if not win32.get_console_mode(console, ctypes.byref(before)):
        yield False
        return
    able = bool(win32.set_console_mode(console, before.value | win32.VIRTUAL_TERMINAL))
    try:
        yield able
    finally:
        win32.set_console_mode(console, before.value)


def reader_is_gone(error: OSError, descriptor: int) -> bool:
    """Whether a write there has failed because nobody reads any more."""
    if error.errno == errno.EINVAL:
        # The C library has no name for ERROR_NO_DATA.
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    return error.errno == errno.EPIPE


def enlarge_pipe(descriptor: int, size: int) -> None:
    """Nothing: the size of a pipe is its creator's choice."""
