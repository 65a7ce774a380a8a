"""The command line: `mmapipc send` and `receive`; `inspect`, `list` and `remove`."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from . import platform
from .channel import DEFAULT_CAPACITY, Receiver, Sender
from .errors import (
    ChannelError,
    ChannelTimeout,
    InvalidCapacity,
    InvalidName,
    NoChannel,
    ReceiverGone,
    SenderDied,
    StreamAborted,
)

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from .inspection import Look

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

_TOOLS_EXIT_CODES = """
exit codes: 0 done, 1 error (no such channel, still in use, damaged), 2 usage,
130 interrupted, 143 terminated"""

_PIECE = 1 << 20  # bytes moved by one read or write at most
_BETWEEN_LINES = 1.0  # seconds

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


class _Command(argparse.ArgumentParser):
    """Takes FILE also behind options, which argparse does only when it is asked to."""

    _asked = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        # It would forget that nothing behind "--" is an option.
        if self._asked or (args is not None and "--" in args):
            return super().parse_known_args(args, namespace)
        self._asked = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._asked = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmapipc",
        description="Stream bytes from one process to another, by name, through shared memory.",
        epilog=_EXIT_CODES,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="send|receive|inspect|list|remove", parser_class=_Command
    )
    named = _Command(add_help=False)
    named.add_argument("name", metavar="NAME", help="name of the channel: any text, the same at both ends")
    common = _Command(add_help=False, parents=[named])
    common.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="give up when the other end lets us wait for longer than this (default: wait)",
    )
    kept = _Command(add_help=False)
    kept.add_argument(
        "--file",
        dest="ring",
        metavar="PATH",
        help="the ring is in the file PATH, where what is under way outlives both processes; the same at both ends; "
        "the sender then waits only until the disk has what it sent",
    )
    send = commands.add_parser(
        "send",
        parents=[common, kept],
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
        parents=[common, kept],
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
    json = _Command(add_help=False)
    json.add_argument("--json", action="store_true", help="print JSON, for machines")
    inspect = commands.add_parser(
        "inspect",
        parents=[named, kept, json],
        help="show a channel, without disturbing it",
        description="Show the channel NAME: who is attached, what has passed and what is in flight.\n"
        "Nothing is claimed, written or held up by that.",
        epilog="example: mmapipc inspect --watch greeting\n" + _TOOLS_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inspect.add_argument(
        "--watch",
        action="store_true",
        help="go on until the channel ends, with rates: drawn in place, or a line a second if that is no terminal",
    )
    inspect.set_defaults(run=_inspect)
    listing = commands.add_parser(
        "list",
        parents=[json],
        help="show all channels, and what killed processes left",
        description="Show this user's channels, one a line, and what killed processes have left of some.\n"
        "Windows does not tell which there are: there, name them.",
        epilog="example: mmapipc list\n" + _TOOLS_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listing.add_argument("names", metavar="NAME", nargs="*", help="only the channel of that name")
    listing.set_defaults(run=_list)
    remove = commands.add_parser(
        "remove",
        parents=[named],
        help="delete what killed processes left of a channel",
        description="Delete what killed processes have left of the channel NAME, unless somebody is attached.\n"
        "(The next sender of that name does it too.  On Windows nothing is ever left: a name goes\n"
        "with the last process that has it open.)",
        epilog="example: mmapipc remove greeting\n" + _TOOLS_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    remove.set_defaults(run=_remove)
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
def _source(path: str | None, ring: str | None) -> Iterator[tuple[io.RawIOBase, str]]:
    if path is None:
        yield _raw(sys.stdin, "standard input"), "standard input"
        return
    with _trouble_with(path):
        file = open(path, "rb", buffering=0)
    with file:
        _refuse_ring(file, path, ring)
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


def _refuse_ring(file: io.RawIOBase, what: str, ring: str | None) -> None:
    """What is moved must not be the file that it is moved through."""
    if ring is not None and os.path.exists(ring):
        with _trouble_with(what):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(ring)):
                raise _FileTrouble(f"{what}: is the file of the ring; name another one")


def _send(arguments: argparse.Namespace) -> None:
    with (
        _source(arguments.file, arguments.ring) as (source, what),
        _TellingSender(
            arguments.name, arguments.capacity, arguments.timeout, persist=arguments.persist, file=arguments.ring
        ) as sender,
    ):
        _enlarge(source)
        while count := _move(source.readinto, sender.reserve(_PIECE), what, source):
            sender.commit(max(count, 0))


@contextlib.contextmanager
def _sink(path: str | None, ring: str | None) -> Iterator[tuple[io.RawIOBase, str]]:
    if path is None:
        yield _raw(sys.stdout, "standard output"), "standard output"
        return
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    with _trouble_with(path):
        file = open(os.open(path, flags, 0o666), "wb", buffering=0)
    try:
        _refuse_ring(file, path, ring)
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
        _sink(arguments.output, arguments.ring) as (sink, what),
        Receiver(arguments.name, arguments.timeout, file=arguments.ring) as receiver,
    ):
        # Not before the stream is ours: another receiver may be writing there.
        if arguments.output is not None:
            _place(sink, what, receiver.tell(), arguments.resume)
        _enlarge(sink)
        while view := receiver.peek(_PIECE):
            # Acknowledged when the output has it: what a crash interrupts comes again.
            receiver.consume(max(_move(sink.write, view, what, sink), 0))


def _print(lines: list[str]) -> None:
    """Write lines on standard output."""
    _write("".join(f"{line}\n" for line in lines))


def _write(text: str) -> None:
    """Write on standard output; what its encoding does not have is escaped."""
    sink = _raw(sys.stdout, "standard output")
    data = memoryview(text.encode(sys.stdout.encoding, "backslashreplace"))
    while data:
        data = data[max(_move(sink.write, data, "standard output", sink), 0) :]


# What the next three import, `send` and `receive` start without.


def _inspect(arguments: argparse.Namespace) -> None:
    from . import display, inspection

    with contextlib.closing(inspection.Looker(arguments.name, arguments.ring)) as looker:
        if arguments.watch:
            _watch(looker.watch(), arguments.json)
        else:
            look = looker.look()
            _print([display.as_json(look.facts())] if arguments.json else display.block(look))


def _watch(looks: Iterator[Look], json: bool) -> None:
    """Show look after look: in place on a terminal, otherwise in lines of which the last tells the end."""
    from . import display

    meter, picture = display.Meter(), display.Picture()
    next_line = time.perf_counter()
    with platform.redrawing(_raw(sys.stdout, "standard output").fileno()) as redrawing:
        for look in looks:
            now = time.perf_counter()
            meter.add(now, look.stream)
            if redrawing and not json:
                columns, rows = _terminal_size()
                lines = display.block(look, meter) + display.bar(look, columns)
                _write(picture.draw(lines, columns, rows))
            elif now >= next_line or look.ended:
                _print([display.as_json(look.facts()) if json else display.line(look, meter)])
                next_line = now + _BETWEEN_LINES


def _terminal_size() -> tuple[int, int]:
    """Columns and rows of the terminal that standard output is."""
    with contextlib.suppress(OSError):
        columns, rows = os.get_terminal_size(_raw(sys.stdout, "standard output").fileno())
        if columns and rows:
            return columns, rows
    return 80, 24


def _list(arguments: argparse.Namespace) -> int:
    from . import display, inspection

    found: list[tuple[str, Look | ChannelError]] = []
    code = OK
    for name in arguments.names or inspection.names():
        try:
            with contextlib.closing(inspection.Looker(name)) as looker:
                found.append((name, looker.look()))
        except NoChannel as error:
            if arguments.names:  # otherwise it has just gone
                code = _report(name, str(error), ERROR)
        except InvalidName:
            raise
        except ChannelError as error:
            found.append((name, error))
    if arguments.json:
        _print([display.as_json([display.entry(*each) for each in found])])
    else:
        _print(display.table(found))
    return code


def _remove(arguments: argparse.Namespace) -> None:
    from . import inspection

    inspection.remove(arguments.name)


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
    name = getattr(parsed, "name", parsed.command)
    _catch_signals()
    try:
        code: int | None = parsed.run(parsed)
    except (ChannelError, _FileTrouble) as error:
        return _report(name, str(error), _exit_code(error))
    except KeyboardInterrupt:
        return _report(name, "interrupted", INTERRUPTED)
    except _Terminated:
        return _report(name, "terminated", TERMINATED)
    return code or OK


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
