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

from .. import __version__, platform
from ..channel import DEFAULT_CAPACITY, Receiver, Sender
from ..errors import (
    ChannelError,
    ChannelTimeout,
    InvalidCapacity,
    InvalidName,
    NoChannel,
    ReceiverGone,
    ReceiverLeft,
    SenderDied,
    StreamAborted,
)
from .passing import PIECE, Passing, ReaderGone, check_algorithm, checksum_line

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import IO, NoReturn

    from ..inspection import Look
    from .progress import Progress

OK = 0
ERROR = 1
USAGE = 2  # argparse's own
TRUNCATED = 3
TIMED_OUT = 4
INTERRUPTED = 130
TERMINATED = 143

_EXIT_CODES = """
exit codes:
    0 delivered: the receiver has taken every byte (with --file: or the disk has it)
    1 error: a file, the memory, or a name that is in use
    2 usage
    3 truncated, or not wholly delivered
    4 timed out
  130 interrupted (Ctrl-C)
  143 terminated"""

_TOOLS_EXIT_CODES = """
exit codes:
    0 done
    1 error: no such channel, still in use, damaged
    2 usage
    3 nobody reads on what is printed
  130 interrupted (Ctrl-C)
  143 terminated"""

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


def _rate(text: str) -> int:
    return _size(re.sub(r"/s\Z", "", text.strip()))


def _path(text: str) -> str | None:
    """None for `-`: the standard stream."""
    text = _operand(text)
    return None if text == "-" else text


def _algorithm(text: str) -> str:
    with contextlib.suppress(ValueError):
        check_algorithm(text)
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not a hash that this Python has (try sha256, blake2b or md5)")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if seconds >= 0:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on")


class _Parser(argparse.ArgumentParser):
    """Complains in one line, and minds when nobody listens."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: object = None) -> None:
        if file is sys.stderr:
            _tell(message)
        else:
            _write(message)


_NO_OPTION = "\0"  # marks what stood behind "--"


def _operand(text: str) -> str:
    return text.removeprefix(_NO_OPTION)


class _Command(_Parser):
    """Takes FILE also behind options, which argparse does only when it is asked to."""

    _asked = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        if self._asked:
            return super().parse_known_args(args, namespace)
        self._asked = True
        # argparse would forget that nothing behind "--" is an option.
        if "--" in args:
            place = args.index("--")
            args = [*args[:place], *(_NO_OPTION + each for each in args[place + 1 :])]
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._asked = False
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(map(_operand, unknown))}")
        return found, unknown


def _parser() -> _Parser:
    about = _Command(add_help=False)
    about.add_argument("-V", "--version", action="version", version=f"mmapipc {__version__}")
    parser = _Parser(
        prog="mmapipc",
        parents=[about],
        description="Stream bytes from one process to another on this machine, by name, through shared memory.",
        epilog="""\
example, in two terminals, in either order:
  mmapipc send greeting photo.jpg
  mmapipc receive greeting > copy.jpg

Each command has a --help of its own: mmapipc send --help
"""
        + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands", parser_class=_Command
    )

    def add(
        name: str, run: Callable[[argparse.Namespace], int | None], *parents: _Command, help: str, description: str, epilog: str
    ) -> _Command:
        command = commands.add_parser(
            name,
            parents=[*parents, about],
            help=help,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run, error=command.error)
        return command

    named = _Command(add_help=False)
    named.add_argument("name", metavar="NAME", type=_operand, help="name of the channel: any text, the same at both ends")
    kept = _Command(add_help=False)
    kept.add_argument(
        "--file",
        dest="ring",
        metavar="PATH",
        help="the ring is in the file PATH, where what is under way outlives both processes; the same at both ends; "
        "the sender then waits only until the disk has what it sent",
    )
    common = _Command(add_help=False)
    common.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="give up when the other end lets us wait for longer than this (default: wait)",
    )
    common.add_argument(
        "-L",
        "--limit-rate",
        "--rate-limit",
        type=_rate,
        metavar="RATE",
        help="let at most so many bytes pass a second, such as 500kB or 10MiB (K, M, G and KiB, MiB, GiB are powers of "
        "1024, kB, MB, GB of 1000)",
    )
    common.add_argument(
        "--hash",
        type=_algorithm,
        metavar="ALGORITHM",
        help="at the end print the digest of what passed as sha256sum does, by sha256, blake2b, md5 ...: on standard "
        "output, or on standard error if the stream goes there; with --resume that of the whole FILE",
    )
    telling = common.add_mutually_exclusive_group()
    telling.add_argument(
        "-p",
        "--progress",
        action="store_true",
        help="show on standard error how it goes: bytes, time, rate now and on average, how full the ring is, and of "
        "a regular file percentage and time to go (default: only when standard error is a terminal and standard output "
        "is not, as in: receive NAME > FILE)",
    )
    telling.add_argument("-q", "--quiet", action="store_true", help="say nothing but what goes wrong")

    send = add(
        "send",
        _send,
        named,
        common,
        kept,
        help="send a file, or standard input, to a receiver",
        description="Send FILE, or standard input, to the receiver of the channel NAME, and wait until it has taken every byte.",
        epilog="""\
examples:
  mmapipc send greeting photo.jpg
  tar c photos | mmapipc send greeting
  mmapipc send greeting disk.img --limit-rate 10MiB --hash sha256
"""
        + _EXIT_CODES,
    )
    send.add_argument("file", metavar="FILE", nargs="?", type=_path, help="what to send (default, or -: standard input)")
    send.add_argument(
        "-B",
        "--capacity",
        "--buffer-size",
        type=_size,
        default=DEFAULT_CAPACITY,
        metavar="SIZE",
        help="size of the ring: bytes that may be under way, such as 64KiB or 16MiB (default: 4MiB)",
    )
    send.add_argument(
        "--persist",
        action="store_true",
        help="when a receiver leaves early or dies, wait for the next, which goes on where that one stopped",
    )

    receive = add(
        "receive",
        _receive,
        named,
        common,
        kept,
        help="receive into a file, or to standard output",
        description="Receive what the sender of the channel NAME sends, until the end of its stream.",
        epilog="""\
examples:
  mmapipc receive greeting > copy.jpg
  mmapipc receive greeting | tar x
  mmapipc receive greeting -o disk.img --resume
"""
        + _EXIT_CODES,
    )
    receive.add_argument(
        "-o", "--output", metavar="FILE", type=_path, help="where to write (default, or -: standard output)"
    )
    receive.add_argument(
        "--resume",
        action="store_true",
        help="go on in FILE where an earlier receiver of this stream (send --persist) stopped",
    )

    json = _Command(add_help=False)
    json.add_argument("--json", action="store_true", help="print JSON, for machines")
    inspect = add(
        "inspect",
        _inspect,
        named,
        json,
        help="show a channel, without disturbing it",
        description="Show the channel NAME: who is attached, what has passed and what is in flight.\n"
        "Nothing is claimed, written or held up by that.",
        epilog="example:\n  mmapipc inspect --watch greeting\n" + _TOOLS_EXIT_CODES,
    )
    inspect.add_argument("--file", dest="ring", metavar="PATH", help="the ring is in the file PATH")
    inspect.add_argument(
        "--watch",
        action="store_true",
        help="go on until the channel ends, with rates: drawn in place, or a line a second if that is no terminal",
    )
    listing = add(
        "list",
        _list,
        json,
        help="show all channels, and what killed processes left",
        description="Show this user's channels, one a line, and what killed processes have left of some.\n"
        "Not those in files (send --file): inspect them.\n"
        "Windows does not tell which there are: there, name them.",
        epilog="example:\n  mmapipc list\n" + _TOOLS_EXIT_CODES,
    )
    listing.add_argument("names", metavar="NAME", type=_operand, nargs="*", help="only the channel of that name")
    add(
        "remove",
        _remove,
        named,
        help="delete what killed processes left of a channel",
        description="Delete what killed processes have left of the channel NAME, unless somebody is attached.\n"
        "(The next sender of that name does it too.  On Windows nothing is ever left: a name goes\n"
        "with the last process that has it open.)",
        epilog="example:\n  mmapipc remove greeting\n" + _TOOLS_EXIT_CODES,
    )
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

    say: Callable[[str], None]

    def _receivers_lost(self, count: int) -> None:
        gone = "the receiver is" if count == 1 else f"{count} receivers are"
        self.say(f"{self.name}: {gone} gone; the stream goes on with the next")


def _read(file: io.RawIOBase, view: memoryview, what: str) -> int:
    """Read into the view; return how many bytes, 0 at the end."""
    with _trouble_with(what):
        while (count := file.readinto(view)) is None:
            _wait_for(reads=[file])
    return count


def _written(file: io.RawIOBase, view: memoryview, what: str) -> int:
    """Write from the view; return how many bytes."""
    with _trouble_with(what):
        try:
            while (count := file.write(view)) is None:
                _wait_for(writes=[file])
        except OSError as error:
            if platform.reader_is_gone(error, file.fileno()):
                raise ReaderGone from None
            raise
    return count


def _wait_for(reads: Sequence[io.RawIOBase] = (), writes: Sequence[io.RawIOBase] = ()) -> None:
    """Wait for a file that somebody has made non-blocking."""
    import select

    select.select(reads, writes, [])


def _enlarge(file: io.RawIOBase) -> None:
    """Let a pipe take a whole piece at once."""
    with contextlib.suppress(io.UnsupportedOperation):
        platform.enlarge_pipe(file.fileno(), PIECE)


def _refuse_ring(file: io.RawIOBase, what: str, ring: str | None) -> None:
    """What is moved must not be the file that it is moved through."""
    if ring is not None and os.path.exists(ring):
        with _trouble_with(what):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(ring)):
                raise _FileTrouble(f"{what}: is the file of the ring; name another one")


class _Silence:
    """In the place of Progress, where none is wanted."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def following(self, end: Sender | Receiver) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _is_terminal(stream: IO[str] | None) -> bool:
    return stream is not None and stream.isatty()


def _telling(
    arguments: argparse.Namespace, source: io.RawIOBase | None
) -> contextlib.AbstractContextManager[Progress | _Silence]:
    """What tells how the transfer goes; a sender's `source` is given."""
    if arguments.quiet:
        return contextlib.nullcontext(_Silence(lambda text: None))
    wanted = arguments.progress or (_is_terminal(sys.stderr) and not _is_terminal(sys.stdout))
    # What somebody types would be drawn over.
    typed = source is not None and source.isatty() and not arguments.progress
    if not wanted or typed or sys.stderr is None:
        return contextlib.nullcontext(_Silence(_say))
    from .progress import Progress

    size = None if source is None else _bytes_left(source)
    return Progress(arguments.name, sends=source is not None, size=size, kept=arguments.ring is not None, say=_say)


def _bytes_left(source: io.RawIOBase) -> int | None:
    """How many bytes will come; None where that is not known."""
    with contextlib.suppress(OSError):
        status = os.fstat(source.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size:  # files in /proc say 0
            return max(status.st_size - source.tell(), 0)
    return None


def _send(arguments: argparse.Namespace) -> None:
    if arguments.hash is not None:
        _raw(sys.stdout, "standard output")  # or the digest would go nowhere
    with (
        _source(arguments.file, arguments.ring) as (source, what),
        Passing(arguments.limit_rate, arguments.hash) as passing,
        _telling(arguments, source) as telling,
    ):
        sender = _TellingSender(
            arguments.name, arguments.capacity, arguments.timeout, persist=arguments.persist, file=arguments.ring
        )
        sender.say = telling.say
        with sender, telling.following(sender):
            _enlarge(source)
            try:
                while count := _read(source, view := sender.reserve(passing.turn()), what):
                    passing.passed(view, count)
                    sender.commit(count)
            except (ReceiverGone, ChannelTimeout) as error:
                error.args = (f"{error}, nor anything after them",)
                raise
    if arguments.hash is not None:
        _print([checksum_line(passing.digest, arguments.file or "-")])


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
    path = arguments.output
    if arguments.resume and path is None:
        arguments.error("--resume needs -o FILE")
    if arguments.hash is not None:
        # Or the digest would go nowhere.
        if path is not None:
            _raw(sys.stdout, "standard output")
        elif sys.stderr is None:
            raise _FileTrouble("standard error: is closed")
    with (
        _sink(path, arguments.ring) as (sink, what),
        Passing(arguments.limit_rate, arguments.hash) as passing,
        _telling(arguments, None) as telling,
        Receiver(arguments.name, arguments.timeout, file=arguments.ring) as receiver,
        telling.following(receiver),
    ):
        resumed = arguments.resume and receiver.tell() > 0
        # Not before the stream is ours: another receiver may be writing there.
        if path is not None:
            _place(sink, what, receiver.tell(), arguments.resume)
        _enlarge(sink)
        try:
            while view := receiver.peek(passing.turn()):
                count = _written(sink, view, what)
                passing.passed(view, count)
                # Acknowledged when the output has it: what a crash interrupts comes again.
                receiver.consume(count)
        except ReaderGone:
            # `receive | head`: it has had enough, and so have we, which is not the same as giving up.
            receiver.close()
            raise
    if arguments.hash is not None:
        # An earlier receiver had the beginning.
        line = checksum_line(_digest_of(path, arguments.hash) if resumed else passing.digest, path or "-")
        if path is None:
            _tell(f"{line}\n")
        else:
            _print([line])


def _digest_of(path: str, algorithm: str) -> str:
    with _trouble_with(path), open(path, "rb", buffering=0) as file, Passing(None, algorithm) as passing:
        piece = memoryview(bytearray(PIECE))
        while count := _read(file, piece, path):
            passing.passed(piece, count)
    return passing.digest


def _print(lines: list[str]) -> None:
    """Write lines on standard output."""
    _write("".join(f"{line}\n" for line in lines))


def _write(text: str) -> None:
    """Write on standard output; what its encoding does not have is escaped."""
    sink = _raw(sys.stdout, "standard output")
    data = memoryview(text.encode(sys.stdout.encoding, "backslashreplace"))
    while data:
        data = data[_written(sink, data, "standard output") :]


# What the next three import, `send` and `receive` start without.


def _inspect(arguments: argparse.Namespace) -> None:
    from .. import inspection
    from . import display

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
    output = _raw(sys.stdout, "standard output").fileno()
    with platform.redrawing(output) as redrawing:
        for look in looks:
            now = time.perf_counter()
            meter.add(now, look.stream)
            if redrawing and not json:
                columns, rows = display.terminal_size(output)
                lines = display.block(look, meter) + display.bar(look, columns)
                _write(picture.draw(lines, columns, rows))
            elif now >= next_line or look.ended:
                _print([display.as_json(look.facts()) if json else display.line(look, meter)])
                next_line = now + _BETWEEN_LINES


def _list(arguments: argparse.Namespace) -> int:
    from .. import inspection
    from . import display

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
    from .. import inspection

    inspection.remove(arguments.name)


class _Terminated(BaseException):
    """SIGTERM came."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _catch_signals() -> None:
    """Let the signals that end a process unwind it, so that the peer is told."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGBREAK"):  # Windows: Ctrl-Break
        signal.signal(signal.SIGBREAK, signal.default_int_handler)


def _exit_code(error: Exception) -> int:
    if isinstance(error, ChannelTimeout):
        return TIMED_OUT
    if isinstance(error, (ReceiverGone, SenderDied, StreamAborted)):
        return TRUNCATED
    if isinstance(error, InvalidCapacity):
        return USAGE
    return ERROR


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    name = None
    try:
        try:
            _catch_signals()
            parser = _parser()
            parsed = parser.parse_args(arguments)
            name = getattr(parsed, "name", parsed.command)
            code: int | None = parsed.run(parsed)
        finally:
            # What is to be undone is undone: the next one may just end us.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except (ReceiverLeft, ReaderGone):
        return TRUNCATED  # whoever reads has had enough: quietly, as with pipes
    except InvalidName as error:
        return _report(None, str(error), USAGE)  # it has the name, if that can be shown
    except (ChannelError, _FileTrouble) as error:
        return _report(name, str(error), _exit_code(error))
    except KeyboardInterrupt:
        return _report(name, "interrupted", INTERRUPTED)
    except _Terminated:
        return _report(name, "terminated", TERMINATED)
    except Exception as error:
        return _report(name, f"unexpected {type(error).__name__}: {error}; please report this", ERROR)
    return code or OK


def _report(name: str | None, trouble: str, code: int) -> int:
    """One line on standard error, which begins with the channel's name; return the exit code."""
    if name and not trouble.startswith(f"{name}: "):
        trouble = f"{name}: {trouble}"
    _say(trouble)
    return code


def _say(text: str) -> None:
    """Print one line on standard error, if anybody listens there."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    _tell(f"mmapipc: {line}\n")


def _tell(text: str) -> None:
    """Write on standard error, if anybody listens there."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()
