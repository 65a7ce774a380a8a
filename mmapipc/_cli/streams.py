"""Standard streams and the user's files: open, read and write them; name the one that makes trouble."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence

from .._system import system
from ..errors import ChannelError, in_bytes

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import IO

PIECE = 1 << 20  # bytes that one read or write moves at most
LONGEST_STOP = 1.0  # seconds that a terminal which somebody has stopped may hold us up


class FileTrouble(Exception):
    """A file could not be read or written; the message begins with its name."""


class ReaderGone(Exception):
    """Nobody reads any more what we write."""


class OpenFile:
    """An unbuffered file, and the name that messages give it."""

    def __init__(self, file: io.RawIOBase, name: str) -> None:
        self.file = file
        self.name = name
        self._readinto: Callable[[memoryview], int | None] = file.readinto

    @contextlib.contextmanager
    def looking(self, look: Callable[[], object]) -> Iterator[None]:
        """Call `look()` now and then while a read waits for input; what it raises ends the wait."""
        with system.watched_input(self.file, look) as self._readinto:
            yield

    def read_into(self, view: memoryview) -> int:
        """Fill the view, or its beginning; return how many bytes came, 0 at the end."""
        with _trouble_with(self.name):
            while (count := self._readinto(view)) is None:
                _wait_for(reads=[self.file])
        return count

    def write_from(self, view: memoryview) -> int:
        """Write the view, or its beginning; return how many bytes that was."""
        with _trouble_with(self.name):
            try:
                while (count := self.file.write(view)) is None:
                    _wait_for(writes=[self.file])
            except OSError as error:
                if system.reader_is_gone(error, self.file.fileno()):
                    raise ReaderGone from None
                raise
        return count

    def can_lose_reader(self) -> bool:
        """Whether this is a pipe or a socket, whose reader can go."""
        with contextlib.suppress(OSError):
            mode = os.fstat(self.file.fileno()).st_mode
            return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        return False

    def enlarge(self) -> None:
        """If this is a pipe, let it take a whole piece at once."""
        with contextlib.suppress(io.UnsupportedOperation):
            system.enlarge_pipe(self.file.fileno(), PIECE)

    def is_regular(self) -> bool:
        """Whether this is a regular file: no pipe, no terminal, no device."""
        with contextlib.suppress(OSError):
            return stat.S_ISREG(os.fstat(self.file.fileno()).st_mode)
        return False

    def bytes_left(self) -> int | None:
        """Return how many bytes can be read; None if nobody knows."""
        with contextlib.suppress(OSError):
            status = os.fstat(self.file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size:  # a file in /proc says 0
                return max(status.st_size - self.file.tell(), 0)
        return None


@contextlib.contextmanager
def source(path: str | None, ring_file: str | None) -> Iterator[OpenFile]:
    """Open a file to read from; without a path, take standard input."""
    if path is None:
        yield standard_input()
        return
    with _trouble_with(path):
        file = open(path, "rb", buffering=0)
    with file:
        _refuse_ring(file, path, ring_file)
        yield OpenFile(file, path)


@contextlib.contextmanager
def sink(path: str | None, ring_file: str | None) -> Iterator[OpenFile]:
    """Open or make a file to write to, and leave what it has; without a path, take standard output."""
    if path is None:
        yield standard_output()
        return
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    with _trouble_with(path):
        file = open(os.open(path, flags, 0o666), "wb", buffering=0)
    try:
        _refuse_ring(file, path, ring_file)
        yield OpenFile(file, path)
    finally:
        # Some file systems say only now that they are full.
        with _trouble_with(path):
            file.close()


def check_sink(path: str | None, ring_file: str | None) -> None:
    """Raise FileTrouble if `sink` would, as far as that can be told; make nothing, and wait for nobody."""
    if path is None:
        standard_output()
        return
    with _trouble_with(path):
        if ring_file is not None and os.path.realpath(ring_file) == os.path.realpath(path):
            raise _is_ring(path)
        try:
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)
            asked = path
        except FileNotFoundError:
            is_folder = False
            asked = os.path.dirname(os.path.abspath(path))  # where it would be made
            os.stat(asked)
        if is_folder or not os.access(asked, os.W_OK):
            number = errno.EISDIR if is_folder else errno.EACCES
            raise OSError(number, os.strerror(number))


def will_be_regular(path: str | None) -> bool:
    """Whether the sink is, or will be, a regular file."""
    if path is None:
        return standard_output().is_regular()
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # it will be made


def position_output(output: OpenFile, position: int, resume: bool) -> None:
    """Empty the output; with `resume`, keep its first `position` bytes and go on behind them."""
    with _trouble_with(output.name):
        status = os.fstat(output.file.fileno())
        if resume:
            _check_resumable(output.name, status, position)
        if stat.S_ISREG(status.st_mode):
            kept = position if resume else 0
            output.file.truncate(kept)
            output.file.seek(kept)


def _check_resumable(name: str, status: os.stat_result, position: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileTrouble(f"{name}: is not a regular file, so nothing can be resumed in it")
    if status.st_size < position:
        raise FileTrouble(
            f"{name}: has {in_bytes(status.st_size)} and the stream goes on at {position}; "
            "name the file that has what came before"
        )


def standard_input() -> OpenFile:
    """Return standard input; raise FileTrouble if it is closed."""
    return _standard(sys.stdin, "standard input")


def standard_output() -> OpenFile:
    """Return standard output; raise FileTrouble if it is closed."""
    return _standard(sys.stdout, "standard output")


def check_standard_error() -> None:
    """Raise FileTrouble if standard error is closed."""
    if sys.stderr is None:
        raise FileTrouble("standard error: is closed")


def print_lines(lines: list[str]) -> None:
    """Write lines on standard output."""
    write_output("".join(f"{line}\n" for line in lines))


def write_output(text: str) -> None:
    """Write on standard output."""
    _write(standard_output(), text, sys.stdout.encoding)


def write_error(text: str) -> None:
    """Write on standard error, if anybody listens there."""
    # Not by way of a buffer: what could not be written would be there still when Python exits,
    # which then fails, and makes an exit code of its own out of that.
    with contextlib.suppress(FileTrouble, ReaderGone):
        _write(_standard(sys.stderr, "standard error"), text, sys.stderr.encoding)


def _write(stream: OpenFile, text: str, encoding: str) -> None:
    """Write the text; escape what its encoding does not have, but leave a path's bytes as they are."""
    try:
        data = memoryview(text.encode(encoding, "surrogateescape"))
    except UnicodeEncodeError:
        data = memoryview(text.encode(encoding, "backslashreplace"))
    while data:
        data = data[stream.write_from(data) :]


def tell(text: str) -> None:
    """Write one line on standard error, with the command's name before it."""
    write_error(f"mmapipc: {printable(text)}\n")


def say(text: str) -> None:
    """`tell`, but a terminal that somebody has stopped (Ctrl-S) holds us up for a moment only."""
    say_line(f"mmapipc: {printable(text)}")


def say_line(text: str) -> None:
    """Write one line as it is on standard error, in the way of `say`."""
    if not is_terminal(sys.stderr):
        write_error(f"{text}\n")
        return
    import threading  # slow to import, and seldom needed

    thread = threading.Thread(target=write_error, args=(f"{text}\n",), daemon=True)
    thread.start()
    thread.join(LONGEST_STOP)


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether somebody may be looking."""
    return stream is not None and stream.isatty()


def printable(text: str) -> str:
    """Escape what would move a cursor, and halves of characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextlib.contextmanager
def _trouble_with(name: str) -> Iterator[None]:
    """Turn an OSError into a FileTrouble that names the file."""
    try:
        yield
    except ChannelError:
        raise  # some are OSErrors too
    except OSError as error:
        raise FileTrouble(f"{name}: {error.strerror or error}") from None


def _standard(stream: object, name: str) -> OpenFile:
    buffer = getattr(stream, "buffer", None)
    file = getattr(buffer, "raw", buffer)  # under PYTHONUNBUFFERED the buffer is the raw file itself
    if not isinstance(file, io.RawIOBase):
        raise FileTrouble(f"{name}: is closed")
    return OpenFile(file, name)


def _refuse_ring(file: io.RawIOBase, name: str, ring_file: str | None) -> None:
    """Raise FileTrouble if the bytes would be moved through the file that they come from or go to."""
    if ring_file is not None and os.path.exists(ring_file):
        with _trouble_with(name):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(ring_file)):
                raise _is_ring(name)


def _is_ring(name: str) -> FileTrouble:
    return FileTrouble(f"{name}: is the file of the ring; name another one")


def _wait_for(reads: Sequence[io.RawIOBase] = (), writes: Sequence[io.RawIOBase] = ()) -> None:
    """Wait for a file that somebody has made non-blocking."""
    import select

    select.select(reads, writes, [])
