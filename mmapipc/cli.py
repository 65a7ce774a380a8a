"""The command line: `mmapipc send` and `mmapipc receive`."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence

from . import platform
from .channel import DEFAULT_CAPACITY, Receiver, Sender
from .errors import (
    ChannelError,
    ChannelTimeout,
    InvalidCapacity,
    InvalidName,
    ReceiverGone,
    SenderDied,
    StreamAborted,
)

OK = 0
ERROR = 1
USAGE = 2  # argparse's own
TRUNCATED = 3
TIMED_OUT = 4
INTERRUPTED = 130
TERMINATED = 143

_EXIT_CODES = """\
exit codes: 0 delivered, 1 error, 2 usage, 3 stream truncated or not wholly
delivered, 4 timed out, 130 interrupted, 143 terminated"""

_PIECE = 1 << 20  # bytes moved by one read or write at most

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {unit: 2 ** (10 * power) for power, letter in enumerate("kmgt", 1) for unit in (letter, letter + "ib")}


def _size(text: str) -> int:
    """Bytes from a number with a unit: `64KiB`, `4M` (powers of 1024), `10kB` (of 1000)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower(), re.ASCII)
    size = 0
    if match and match[2] in _UNITS:
        with contextlib.suppress(OverflowError):
            size = round(float(match[1]) * _UNITS[match[2]])
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size of at least one byte (try 64KiB or 4MiB)")
    return size


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if seconds >= 0:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmapipc",
        description="Stream bytes from one process to another, by name, through shared memory.",
        epilog=_EXIT_CODES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="send|receive")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("name", metavar="NAME", help="name of the channel: any text, the same at both ends")
    common.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="give up when the other end lets us wait for longer than this (default: wait)",
    )
    send = commands.add_parser(
        "send",
        parents=[common],
        help="send a file, or standard input, to a receiver",
        description="Send FILE, or standard input, to the receiver of the channel NAME, and wait until it has taken every byte.",
        epilog=_EXIT_CODES,
    )
    send.add_argument("file", metavar="FILE", nargs="?", help="what to send (default: standard input)")
    send.add_argument(
        "--capacity",
        type=_size,
        default=DEFAULT_CAPACITY,
        metavar="SIZE",
        help="bytes that may be under way, such as 64KiB or 16MiB (default: 4MiB)",
    )
    send.add_argument(
        "--persist",
        action="store_true",
        help="when a receiver leaves early or dies, wait for the next, which goes on where that one stopped",
    )
    send.set_defaults(run=_send)
    receive = commands.add_parser(
        "receive",
        parents=[common],
        help="receive into a file, or to standard output",
        description="Receive what the sender of the channel NAME sends, until the end of its stream.",
        epilog=_EXIT_CODES,
    )
    receive.add_argument("-o", "--output", metavar="FILE", help="where to write (default: standard output)")
    receive.add_argument(
        "--resume",
        action="store_true",
        help="go on in FILE where an earlier receiver of this stream (send --persist) stopped",
    )
    receive.set_defaults(run=_receive)
    return parser


class _FileTrouble(Exception):
    """A file of the user's could not be read or written."""


@contextlib.contextmanager
def _trouble_with(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _FileTrouble(f"{what}: {error.strerror or error}") from None


def _raw(stream: object, what: str) -> io.RawIOBase:
    """The unbuffered file under a standard stream."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # under PYTHONUNBUFFERED it is the raw file itself
    if not isinstance(raw, io.RawIOBase):
        raise _FileTrouble(f"{what}: is closed")
    return raw


@contextlib.contextmanager
def _source(path: str | None) -> Iterator[tuple[io.RawIOBase, str]]:
    if path is None:
        yield _raw(sys.stdin, "standard input"), "standard input"
        return
    with _trouble_with(path):
        file = open(path, "rb", buffering=0)
    with file:
        yield file, path


class _TellingSender(Sender):
    """A sender that says when a persistent stream has lost its receiver."""

    def _receiver_lost(self) -> None:
        _say(f"{self.name}: the receiver is gone; the stream goes on with the next")


def _move(move: Callable[[memoryview], int | None], view: memoryview, what: str, file: io.RawIOBase) -> int:
    """Read into or write from the view; return how many bytes, -1 when it has to be tried again."""
    with _trouble_with(what):
        count = move(view)
        if count is None:  # somebody made the file non-blocking
            import select

            reads, writes = ([], [file]) if view.readonly else ([file], [])
            select.select(reads, writes, [])
            return -1
    return count


def _enlarge(file: io.RawIOBase) -> None:
    """Let a pipe take a whole piece at once."""
    with contextlib.suppress(io.UnsupportedOperation):
        platform.enlarge_pipe(file.fileno(), _PIECE)


def _send(arguments: argparse.Namespace) -> None:
    with (
        _source(arguments.file) as (source, what),
        _TellingSender(
            arguments.name, arguments.capacity, arguments.timeout, persist=arguments.persist
        ) as sender,
    ):
        _enlarge(source)
        while count := _move(source.readinto, sender.reserve(_PIECE), what, source):
            sender.commit(max(count, 0))


@contextlib.contextmanager
def _sink(path: str | None) -> Iterator[tuple[io.RawIOBase, str]]:
    if path is None:
        yield _raw(sys.stdout, "standard output"), "standard output"
        return
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    with _trouble_with(path):
        file = open(os.open(path, flags, 0o666), "wb", buffering=0)
    try:
        yield file, path
    finally:
        # Some file systems say only now that they are full.
        with _trouble_with(path):
            file.close()


def _place(sink: io.RawIOBase, path: str, position: int, resume: bool) -> None:
    """Make ready the file that is to get the stream from `position` on."""
    with _trouble_with(path):
        status = os.fstat(sink.fileno())
        regular = stat.S_ISREG(status.st_mode)
        if resume:
            if not regular:
                raise _FileTrouble(f"{path}: is not a regular file, so nothing can be resumed in it")
            if status.st_size < position:
                raise _FileTrouble(
                    f"{path}: has {status.st_size} bytes and the stream goes on at {position}; name the file that has what came before"
                )
        if regular:
            sink.truncate(position if resume else 0)
            sink.seek(position if resume else 0)


def _receive(arguments: argparse.Namespace) -> None:
    with (
        _sink(arguments.output) as (sink, what),
        Receiver(arguments.name, arguments.timeout) as receiver,
    ):
        # Not before the stream is ours: another receiver may be writing there.
        if arguments.output is not None:
            _place(sink, what, receiver.tell(), arguments.resume)
        _enlarge(sink)
        while view := receiver.peek(_PIECE):
            # Acknowledged when the output has it: what a crash interrupts comes again.
            receiver.consume(max(_move(sink.write, view, what, sink), 0))


class _Terminated(BaseException):
    """SIGTERM came."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _catch_signals() -> None:
    """Let the signals that end a process unwind it, so that the peer is told."""
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGBREAK"):  # Windows: Ctrl-Break
        signal.signal(signal.SIGBREAK, signal.default_int_handler)


def _exit_code(error: Exception) -> int:
    if isinstance(error, ChannelTimeout):
        return TIMED_OUT
    if isinstance(error, (ReceiverGone, SenderDied, StreamAborted)):
        return TRUNCATED
    if isinstance(error, (InvalidName, InvalidCapacity)):
        return USAGE
    return ERROR


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if getattr(parsed, "resume", False) and parsed.output is None:
        parser.error("--resume needs -o FILE")
    _catch_signals()
    try:
        parsed.run(parsed)
    except (ChannelError, _FileTrouble) as error:
        return _report(parsed.name, str(error), _exit_code(error))
    except KeyboardInterrupt:
        return _report(parsed.name, "interrupted", INTERRUPTED)
    except _Terminated:
        return _report(parsed.name, "terminated", TERMINATED)
    return OK


def _report(name: str, trouble: str, code: int) -> int:
    """One line on standard error, which begins with the channel's name; return the exit code."""
    if not trouble.startswith(f"{name}: "):
        trouble = f"{name}: {trouble}"
    _say(trouble)
    return code


def _say(text: str) -> None:
    """Print one line on standard error, if anybody listens there."""
    if sys.stderr is not None:
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
        with contextlib.suppress(OSError):
            print(f"mmapipc: {line}", file=sys.stderr, flush=True)
