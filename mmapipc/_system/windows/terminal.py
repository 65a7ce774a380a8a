"""What a Windows console and Windows pipes can do."""

from __future__ import annotations

import _thread  # not threading, which is slow to import
import contextlib
import ctypes
import errno
import msvcrt
import os
import stat
import time
from ctypes import wintypes

from . import win32

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

_BETWEEN_LOOKS = 0.2  # seconds


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


def reader_left(descriptor: int) -> bool:
    """Whether that is a pipe which nobody reads any more."""
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return False
    pipe = win32.PipeInformation()
    status = win32.query_information_file(
        msvcrt.get_osfhandle(descriptor),
        ctypes.byref(win32.IoStatusBlock()),
        ctypes.byref(pipe),
        ctypes.sizeof(pipe),
        win32.FILE_PIPE_LOCAL_INFORMATION,
    )
    return bool(status >= 0 and pipe.NamedPipeState == win32.FILE_PIPE_CLOSING_STATE)


@contextlib.contextmanager
def watched_input(
    file: io.RawIOBase, look: Callable[[], object]
) -> Iterator[Callable[[memoryview], int | None]]:
    """See `contract.System`.  A read blocks here, so another thread looks meanwhile, and cancels it."""
    try:
        can_wait = stat.S_ISFIFO(os.fstat(file.fileno()).st_mode) or file.isatty()
    except OSError:
        can_wait = False
    if not can_wait:
        yield file.readinto
        return
    watch = _Watch(file, look)
    try:
        yield watch.readinto
    finally:
        watch.over = True


class _Watch:
    """Reads the file in the thread that makes this, and looks in another one, while the first one reads."""

    def __init__(self, file: io.RawIOBase, look: Callable[[], object]) -> None:
        self.over = False
        self._file = file
        self._look = look
        self._error: BaseException | None = None
        self._working = _thread.allocate_lock()  # free while the file is read
        self._working.acquire()
        self._reader = win32.open_thread(win32.THREAD_TERMINATE, False, _thread.get_native_id())
        _thread.start_new_thread(self._run, ())

    def readinto(self, view: memoryview) -> int | None:
        """The file's `readinto`, or what a look raised meanwhile."""
        self._working.release()
        try:
            count = self._file.readinto(view)
        except OSError:
            if self._error is None:
                raise
        finally:
            self._working.acquire()
        if self._error is not None:
            raise self._error
        return count

    def _run(self) -> None:
        while not self.over:
            time.sleep(_BETWEEN_LOOKS)
            if not self._working.acquire(False):
                continue
            try:
                if self._error is None and not self.over:
                    self._look()
            except BaseException as error:
                self._error = error
            if self._error is not None:
                # Again and again: the reader may be just before its call.  It goes no further
                # until we release the lock, so nothing else of it is cancelled.
                win32.cancel_synchronous_io(self._reader)
            self._working.release()


def enlarge_pipe(descriptor: int, size: int) -> None:
    """Nothing: the size of a pipe is its creator's choice."""
