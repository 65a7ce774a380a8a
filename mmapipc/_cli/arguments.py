"""What may stand on the command line: commands, options, their types and their help."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..channel import DEFAULT_CAPACITY
from .passing import check_algorithm
from .streams import printable, write_error, write_output

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any, NoReturn

USAGE = 2  # argparse's own exit code
_PROGRAM = "mmapipc"
_USUAL_COLUMNS = 80

_EXIT_CODES = """
exit codes:
    0 delivered: the receiver has taken every byte (with --file: or the disk has it)
    1 error: a file, the memory, or a name that is in use
    2 usage
    3 truncated, or not wholly delivered
    4 timed out
  129, 130, 143 ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM, after the other end was told"""

_TOOLS_EXIT_CODES = """
exit codes:
    0 done
    1 error: no such channel or memory, still in use, damaged
    2 usage
    3 nobody reads on what is printed
  129, 130, 143 ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM, after the other end was told"""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {
    unit: 2 ** (10 * power) for power, letter in enumerate("kmgt", 1) for unit in (letter, letter + "ib")
}

_NO_OPTION = "\0"  # marks an argument that stood behind "--"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; if it makes no sense, say so and raise SystemExit."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in _COMMANDS:
        name, *others = given  # so the parsers of the other commands need not be made
        command = _Command(prog=f"{_PROGRAM} {name}", **_description(name))
        parsed = _prepared(command, name).parse_args(others)
    else:
        parsed = _parser().parse_args(given)
    if parsed.command == "receive" and parsed.resume and parsed.output is None:
        parsed.error("--resume needs -o FILE")
    if parsed.command == "map":
        if sum(each is not None for each in (parsed.name, parsed.tagname, parsed.mapped_file)) != 1:
            parsed.error("give one of NAME, --tagname TAG and --file PATH")
        if parsed.create is not None and (parsed.offset or parsed.length is not None or parsed.lock):
            parsed.error("--create makes all of it: no --offset, --length or --lock")
    return parsed


def parse_size(text: str) -> int:
    """Return how many bytes a size means: `64KiB`, `4M` (powers of 1024), `10kB` (of 1000)."""
    size = _bytes(text)
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size of at least one byte (try 64KiB or 4MiB)")
    return size


def parse_offset(text: str) -> int:
    """Return how many bytes an offset means: a size, or 0."""
    size = _bytes(text)
    if size < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes from 0 on (try 0 or 64KiB)")
    return size


def _bytes(text: str) -> int:
    """How many bytes that is, or -1."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower(), re.ASCII)
    if match and match[2] in _UNITS:
        with contextlib.suppress(OverflowError):
            return round(float(match[1]) * _UNITS[match[2]])
    return -1


def parse_rate(text: str) -> int:
    """Return how many bytes a second a size means, with or without `/s`."""
    return parse_size(re.sub(r"/s\Z", "", text.strip()))


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if seconds >= 0:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on")


def _algorithm(text: str) -> str:
    with contextlib.suppress(ValueError):
        check_algorithm(text)
        return text
    trouble = f"{text!r} is not a hash that this Python has (try sha256, blake2b or md5)"
    raise argparse.ArgumentTypeError(trouble)


def _operand(text: str) -> str:
    return text.removeprefix(_NO_OPTION)


def _path(text: str) -> str | None:
    """Return None for `-`, a standard stream."""
    text = _operand(text)
    return None if text == "-" else text


class _Parser(argparse.ArgumentParser):
    """Complains in one line, and prints as the commands do."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: object = None) -> None:
        if file is sys.stderr:
            write_error(message)
        else:
            write_output(message)


class _Command(_Parser):
    """Accepts FILE also behind options, which argparse does only when it is asked to.

    It parses once, and gets its arguments only then: a command must not wait until
    those of the other commands are made.
    """

    fill: Callable[[_Command], None]  # adds the arguments
    _asked = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        if self._asked:
            return super().parse_known_args(args, namespace)
        self._asked = True
        self.fill(self)
        # argparse would forget that what stands behind "--" is no option.
        if "--" in args:
            place = args.index("--")
            args = [*args[:place], *(_NO_OPTION + each for each in args[place + 1 :])]
        found, unknown = self.parse_known_intermixed_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(map(_operand, unknown))}")
        return found, unknown


def _formatter(prog: str) -> argparse.HelpFormatter:
    """What lays out a help text.  argparse makes one for each argument that it is told of."""
    return argparse.RawDescriptionHelpFormatter(prog, width=_columns() - 2)


def _columns() -> int:
    """What `shutil.get_terminal_size` tells, which is slow to import."""
    columns = 0
    with contextlib.suppress(KeyError, ValueError):
        columns = int(os.environ["COLUMNS"])
    if columns <= 0:
        with contextlib.suppress(AttributeError, ValueError, OSError):  # no terminal, or closed
            columns = os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
    return columns if columns > 0 else _USUAL_COLUMNS


def _parser() -> _Parser:
    """The parser of a command line that does not begin with a command."""
    parser = _Parser(
        prog=_PROGRAM,
        description="Stream bytes from one process to another on this machine, by name, through shared "
        "memory.",
        epilog="""\
example, in two terminals, in either order:
  mmapipc send greeting photo.jpg
  mmapipc receive greeting > copy.jpg

Each command has a --help of its own: mmapipc send --help
"""
        + _EXIT_CODES,
        formatter_class=_formatter,
    )
    _add_version(parser)
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", title="commands", dest="command", parser_class=_Command
    )
    for name, (_, help, _, _) in _COMMANDS.items():
        _prepared(commands.add_parser(name, help=help, **_description(name)), name)
    return parser


def _description(name: str) -> dict[str, Any]:
    """What the help of that command says beside its arguments."""
    _, _, description, epilog = _COMMANDS[name]
    return {"description": description, "epilog": epilog, "formatter_class": _formatter}


def _prepared(command: _Command, name: str) -> _Command:
    command.fill = _COMMANDS[name][0]
    command.set_defaults(command=name, error=command.error)
    return command


def _fill_send(command: _Command) -> None:
    _add_name(command)
    _add_transfer_options(command)
    _add_version(command)
    command.add_argument(
        "input",
        metavar="FILE",
        nargs="?",
        type=_path,
        help="what to send (default, or -: standard input)",
    )
    command.add_argument(
        "-B",
        "--capacity",
        "--buffer-size",
        type=parse_size,
        default=DEFAULT_CAPACITY,
        metavar="SIZE",
        help="size of the ring: bytes that may be under way, such as 64KiB or 16MiB (default: 4MiB)",
    )
    command.add_argument(
        "--persist",
        action="store_true",
        help="when a receiver leaves early or dies, wait for the next, which goes on where that one stopped",
    )


def _fill_receive(command: _Command) -> None:
    _add_name(command)
    _add_transfer_options(command)
    _add_version(command)
    command.add_argument(
        "-o", "--output", metavar="FILE", type=_path, help="where to write (default, or -: standard output)"
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on in FILE where an earlier receiver of this stream (send --persist) stopped",
    )


def _fill_inspect(command: _Command) -> None:
    _add_name(command)
    _add_json(command)
    _add_version(command)
    _add_ring_file(command, "the ring is in the file PATH")
    command.add_argument(
        "--watch",
        action="store_true",
        help="go on until the channel ends, with rates: drawn in place, or a line a second if that is no "
        "terminal",
    )


def _fill_list(command: _Command) -> None:
    _add_json(command)
    _add_version(command)
    command.add_argument(
        "names", metavar="NAME", type=_operand, nargs="*", help="only the channel of that name"
    )


def _fill_remove(command: _Command) -> None:
    _add_name(command)
    _add_version(command)


def _fill_map(command: _Command) -> None:
    _add_version(command)
    command.add_argument(
        "name", metavar="NAME", nargs="?", type=_operand, help="name of a mapping that a program with mmapipc has"
    )
    command.add_argument(
        "--tagname", metavar="TAG", help="the name that the system knows the memory by, whoever made it"
    )
    command.add_argument("--file", dest="mapped_file", metavar="PATH", help="the bytes of that file")
    doing = command.add_mutually_exclusive_group()
    doing.add_argument("--read", action="store_true", help="copy the bytes to standard output")
    doing.add_argument(
        "--write",
        action="store_true",
        help="store standard input there, once it has ended; nothing if it does not fit",
    )
    doing.add_argument(
        "--create",
        type=parse_size,
        metavar="SIZE",
        help="make it, all zero, and hold it until the end of standard input or Ctrl-C; a file stays",
    )
    command.add_argument(
        "--offset",
        type=parse_offset,
        default=0,
        metavar="SIZE",
        help="where to begin, such as 4096 or 64KiB (default: 0)",
    )
    command.add_argument(
        "--length",
        type=parse_size,
        metavar="SIZE",
        help="how many bytes (default: up to the end; of the dump: 256)",
    )
    command.add_argument(
        "--lock",
        action="store_true",
        help="have the memory's lock meanwhile: nobody else who takes it stores or sees a half",
    )


def _add_transfer_options(command: _Command) -> None:
    command.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="give up when the other end lets us wait for longer than this (default: wait)",
    )
    command.add_argument(
        "--wait",
        action="store_true",
        help="when another process has this end of the channel, wait until it has left (default: fail)",
    )
    command.add_argument(
        "-L",
        "--limit-rate",
        "--rate-limit",
        type=parse_rate,
        metavar="RATE",
        help="let at most so many bytes pass a second, such as 500kB or 10MiB (K, M, G and KiB, MiB, GiB "
        "are powers of 1024, kB, MB, GB of 1000)",
    )
    command.add_argument(
        "--hash",
        type=_algorithm,
        metavar="ALGORITHM",
        help="at the end print the digest of what passed as sha256sum does, by sha256, blake2b, md5 ...: "
        "on standard output, or on standard error if the stream goes there; with --resume that of the whole "
        "FILE",
    )
    telling = command.add_mutually_exclusive_group()
    telling.add_argument(
        "-p",
        "--progress",
        action="store_true",
        help="show on standard error how it goes: bytes, time, rate now and on average, how full the ring "
        "is, and of a regular file percentage and time to go (default: only when standard error is a "
        "terminal and standard output is not, as in: receive NAME > FILE)",
    )
    telling.add_argument("-q", "--quiet", action="store_true", help="say nothing but what goes wrong")
    _add_ring_file(
        command,
        "the ring is in the file PATH, where what is under way outlives both processes; the same at both "
        "ends; the sender then waits only until the disk has what it sent",
    )


def _add_name(command: _Command) -> None:
    command.add_argument(
        "name", metavar="NAME", type=_operand, help="name of the channel: any text, the same at both ends"
    )


def _add_ring_file(command: _Command, help: str) -> None:
    command.add_argument("--file", dest="ring_file", metavar="PATH", help=help)


def _add_json(command: _Command) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for machines")


def _add_version(parser: _Parser) -> None:
    parser.add_argument("-V", "--version", action="version", version=f"mmapipc {__version__}")


# By name: what adds the arguments, and what the help says of the command: in a line, in whole, at the end.
_COMMANDS: dict[str, tuple[Callable[[_Command], None], str, str, str]] = {
    "send": (
        _fill_send,
        "send a file, or standard input, to a receiver",
        "Send FILE, or standard input, to the receiver of the channel NAME, "
        "and wait until it has taken every byte.",
        """\
examples:
  mmapipc send greeting photo.jpg
  tar c photos | mmapipc send greeting
  mmapipc send greeting disk.img --limit-rate 10MiB --hash sha256
"""
        + _EXIT_CODES,
    ),
    "receive": (
        _fill_receive,
        "receive into a file, or to standard output",
        "Receive what the sender of the channel NAME sends, until the end of its stream.",
        """\
examples:
  mmapipc receive greeting > copy.jpg
  mmapipc receive greeting | tar x
  mmapipc receive greeting -o disk.img --resume
"""
        + _EXIT_CODES,
    ),
    "inspect": (
        _fill_inspect,
        "show a channel, without disturbing it",
        "Show the channel NAME: who is attached, what has passed and what is in flight.\n"
        "Nothing is claimed, written or held up by that.",
        "example:\n  mmapipc inspect --watch greeting\n" + _TOOLS_EXIT_CODES,
    ),
    "list": (
        _fill_list,
        "show all channels, and what killed processes left",
        "Show this user's channels, one a line, and what killed processes have left of some.\n"
        "Not those in files (send --file): inspect them.\n"
        "Windows does not tell which there are: there, name them.",
        "example:\n  mmapipc list\n" + _TOOLS_EXIT_CODES,
    ),
    "remove": (
        _fill_remove,
        "delete what killed processes left of a channel",
        "Delete what killed processes have left of the channel NAME, "
        "unless somebody is attached.\n"
        "(The next sender of that name does it too.  On Windows nothing is ever left: a name goes\n"
        "with the last process that has it open.)",
        "example:\n  mmapipc remove greeting\n" + _TOOLS_EXIT_CODES,
    ),
    "map": (
        _fill_map,
        "look at shared memory, of any program; read, write or make it",
        "Show the size of shared memory, and a hex dump of its beginning; or copy it out, store in it,\n"
        "make it.  NAME is that of a mapping of mmapipc, TAG what any program knows it by.",
        """\
examples:
  mmapipc map --tagname ShareMemoryTest
  mmapipc map table --read --offset 4KiB --length 100 > part
  printf hello | mmapipc map --tagname ShareMemoryTest --write --lock
"""
        + _TOOLS_EXIT_CODES,
    ),
}
