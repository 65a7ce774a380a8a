"""The command line: commands, options, their types and their help."""

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

_SIGNALS = "  129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM"


def _exit_codes(**meanings: str) -> str:
    """The part of a help text that explains the command's exit codes, by `code_N`."""
    lines = [f"  {code.removeprefix('code_')}  {meaning}\n" for code, meaning in meanings.items()]
    return "\nexit codes:\n" + "".join(lines) + _SIGNALS


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {
    unit: 2 ** (10 * power) for power, letter in enumerate("kmgt", 1) for unit in (letter, letter + "ib")
}

_NO_OPTION = "\0"  # marks an argument that stood behind "--"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; if it makes no sense, say so and raise SystemExit."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given:
        _parser().exit(USAGE, _OVERVIEW)
    if given[0] in _COMMANDS:
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, 0 or more (try 0 or 64KiB)")
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


def parse_duration(text: str) -> float:
    """Return how many seconds a duration means: `5`, `5s`, `500ms`, `2m`, `1h`."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+|inf)\s*(ms|s|m|h|)", text.strip().lower(), re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration of 0 or more (try 5s, 500ms or 2m)")
    return float(match[1]) * {"ms": 0.001, "m": 60.0, "h": 3600.0}.get(match[2], 1.0)


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


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Names an option's argument once, as Python 3.13 does: `-o, --output FILE`."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {action.metavar}"


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
    return _Formatter(prog, width=_columns() - 2)


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
        usage="mmapipc COMMAND ...",
        description="Stream bytes from one process to another on this machine, by name, through\n"
        "shared memory.",
        epilog="""\
example, in two terminals, in either order:
  mmapipc send greeting photo.jpg
  mmapipc receive greeting > copy.jpg

`mmapipc COMMAND --help` explains a command's options and exit codes.""",
        formatter_class=_formatter,
    )
    _add_version(parser)
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", title="commands", dest="command", parser_class=_Command
    )
    for name, (_, help, *_) in _COMMANDS.items():
        _prepared(commands.add_parser(name, help=help, **_description(name)), name)
    return parser


def _description(name: str) -> dict[str, Any]:
    """What the help of that command says beside its arguments."""
    _, _, usage, description, epilog = _COMMANDS[name]
    return {
        "usage": f"{_PROGRAM} {name} {usage}",
        "description": description,
        "epilog": epilog,
        "formatter_class": _formatter,
    }


def _prepared(command: _Command, name: str) -> _Command:
    command.fill = _COMMANDS[name][0]
    command.set_defaults(command=name, error=command.error)
    return command


def _fill_send(command: _Command) -> None:
    _add_name(command)
    command.add_argument(
        "input",
        metavar="FILE",
        nargs="?",
        type=_path,
        help="the file to send (default, or -: standard input)",
    )
    command.add_argument(
        "-B",
        "--capacity",
        "--buffer-size",
        type=parse_size,
        default=DEFAULT_CAPACITY,
        metavar="SIZE",
        help="size of the ring, such as 64KiB or 16MiB: the sender can be that far ahead (default: 4MiB)",
    )
    command.add_argument(
        "--persist",
        action="store_true",
        help="when a receiver leaves early or is killed, wait for the next one, which continues there",
    )
    command.add_argument(
        "--size",
        type=parse_size,
        metavar="SIZE",
        help="how much will come, so that the progress of a pipe can show percentage and time left",
    )
    _add_transfer_options(command)
    _add_version(command)


def _fill_receive(command: _Command) -> None:
    _add_name(command)
    command.add_argument(
        "-o", "--output", metavar="FILE", type=_path, help="where to write (default, or -: standard output)"
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="continue FILE where an earlier receiver of this stream (send --persist) stopped",
    )
    _add_transfer_options(command)
    _add_version(command)


def _fill_inspect(command: _Command) -> None:
    _add_name(command)
    command.add_argument(
        "--watch",
        action="store_true",
        help="repeat until the channel ends, with rates: in place on a terminal, elsewhere a line a second",
    )
    _add_json(command, "print JSON")
    _add_ring_file(command, "the ring is in the file PATH")
    _add_version(command)


def _fill_list(command: _Command) -> None:
    command.add_argument(
        "names", metavar="NAME", type=_operand, nargs="*", help="show only these channels (default: all)"
    )
    _add_json(command, "print JSON")
    _add_version(command)


def _fill_remove(command: _Command) -> None:
    _add_name(command)
    _add_version(command)


def _fill_map(command: _Command) -> None:
    command.add_argument(
        "name", metavar="NAME", nargs="?", type=_operand, help="name of an mmapipc.Mapping"
    )
    command.add_argument(
        "--tagname", metavar="TAG", help="name by which the system knows the memory, of any program"
    )
    command.add_argument("--file", dest="mapped_file", metavar="PATH", help="a file instead of memory")
    doing = command.add_mutually_exclusive_group()
    doing.add_argument("--read", action="store_true", help="copy the bytes to standard output")
    doing.add_argument(
        "--write",
        action="store_true",
        help="store standard input there, once it has ended; store nothing if it does not fit",
    )
    doing.add_argument(
        "--create",
        type=parse_size,
        metavar="SIZE",
        help="make it, all zero bytes; keep it until standard input ends or Ctrl-C (a file stays)",
    )
    command.add_argument(
        "--offset",
        type=parse_offset,
        default=0,
        metavar="SIZE",
        help="the first byte, such as 4096 or 64KiB (default: 0)",
    )
    command.add_argument(
        "--length",
        type=parse_size,
        metavar="SIZE",
        help="how many bytes (default: all the rest; for the dump 256)",
    )
    command.add_argument(
        "--lock",
        action="store_true",
        help="hold the memory's lock meanwhile; others who use the lock see all or nothing of it",
    )
    _add_version(command)


def _add_transfer_options(command: _Command) -> None:
    command.add_argument(
        "--timeout",
        type=parse_duration,
        metavar="SECONDS",
        help="give up after SECONDS without progress; 500ms, 5s, 2m and 1h work too (default: wait)",
    )
    command.add_argument(
        "--wait",
        action="store_true",
        help="if another process has this end of the channel, wait until it leaves (default: fail)",
    )
    command.add_argument(
        "-L",
        "--limit-rate",
        "--rate-limit",
        type=parse_rate,
        metavar="RATE",
        help="pass at most RATE bytes a second, such as 500kB or 10MiB (K, M, G and KiB, MiB, GiB are "
        "powers of 1024; kB, MB, GB of 1000)",
    )
    command.add_argument(
        "--hash",
        type=_algorithm,
        metavar="ALGORITHM",
        help="at the end print the digest of the stream as sha256sum does (sha256, blake2b, md5 ...): on "
        "standard output, or on standard error if the stream goes there; with --resume, of the whole FILE",
    )
    telling = command.add_mutually_exclusive_group()
    telling.add_argument(
        "-p",
        "--progress",
        action="store_true",
        help="show bytes, time, rates and fill of the ring on standard error; of a regular file also "
        "percentage and time left (default: if standard error is a terminal and the bytes come from, or "
        "go to, a regular file)",
    )
    telling.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    _add_json(command, "at the end, print a summary in JSON as the last line of standard error")
    _add_ring_file(
        command,
        "keep the ring in the file PATH, the same at both ends: bytes in it outlive both processes, and "
        "the sender waits only until they are on disk",
    )


def _add_name(command: _Command) -> None:
    command.add_argument(
        "name", metavar="NAME", type=_operand, help="name of the channel: any text, the same at both ends"
    )


def _add_ring_file(command: _Command, help: str) -> None:
    command.add_argument("--file", dest="ring_file", metavar="PATH", help=help)


def _add_json(command: _Command, help: str) -> None:
    command.add_argument("--json", action="store_true", help=help)


def _add_version(parser: _Parser) -> None:
    parser.add_argument("-V", "--version", action="version", version=f"mmapipc {__version__}")


# By name: what adds the arguments, and what the help says of the command: in a line, its usage, in whole,
# at the end.
_COMMANDS: dict[str, tuple[Callable[[_Command], None], str, str, str, str]] = {
    "send": (
        _fill_send,
        "send a file, or standard input, to a receiver",
        "[options] NAME [FILE]",
        "Send FILE, or standard input, to the receiver of the channel NAME.\n"
        "The command ends when the receiver has read every byte.",
        """\
examples:
  mmapipc send greeting photo.jpg
  tar c photos | mmapipc send greeting
  mmapipc send greeting disk.img --limit-rate 10MiB --hash sha256
"""
        + _exit_codes(
            code_0="the receiver has read every byte (with --file: it is on disk)",
            code_1="error: a file, the memory, or another sender has the name",
            code_2="usage",
            code_3="incomplete: the receiver left early, gave up or was killed",
            code_4="timed out",
        ),
    ),
    "receive": (
        _fill_receive,
        "receive into a file, or to standard output",
        "[options] NAME",
        "Receive what the sender of the channel NAME sends, until the end of its stream.",
        """\
examples:
  mmapipc receive greeting > copy.jpg
  mmapipc receive greeting | tar x
  mmapipc receive greeting -o disk.img --resume
"""
        + _exit_codes(
            code_0="every byte was received and written",
            code_1="error: a file, the memory, or another receiver has the name",
            code_2="usage",
            code_3="incomplete: the sender gave up or was killed; or output closed early",
            code_4="timed out",
        ),
    ),
    "inspect": (
        _fill_inspect,
        "show a channel, without disturbing it",
        "[options] NAME",
        "Show the channel NAME: its two ends, how much was written and read, what is in\n"
        "flight. Inspecting is read-only, never blocks the two ends, and tolerates\n"
        "damaged memory.",
        "example:\n  mmapipc inspect --watch greeting\n"
        + _exit_codes(
            code_0="the channel was shown",
            code_1="error: there is no such channel, or it is damaged",
            code_2="usage",
            code_3="output closed early",
        ),
    ),
    "list": (
        _fill_list,
        "show all channels, and what killed processes left",
        "[options] [NAME ...]",
        "Show this user's channels, one a line, and what killed processes have left.\n"
        "PASSED is what the receiver has read, FILL how full the ring is.\n"
        "Channels in files (send --file) are not listed: inspect them.\n"
        "Windows does not tell which channels there are: there, give their names.",
        "example:\n  mmapipc list\n"
        + _exit_codes(
            code_0="the channels were shown",
            code_1="error: there is no channel of a given NAME",
            code_2="usage",
            code_3="output closed early",
        ),
    ),
    "remove": (
        _fill_remove,
        "delete what killed processes left of a channel",
        "NAME",
        "Delete what killed processes have left of the channel NAME, if no process uses\n"
        "it. The next sender of that name would do it too. On Windows nothing is left:\n"
        "a name goes with the last process that has it open.",
        "example:\n  mmapipc remove greeting\n"
        + _exit_codes(
            code_0="removed",
            code_1="error: there is no such channel, or a process uses it",
            code_2="usage",
        ),
    ),
    "map": (
        _fill_map,
        "show, read, write or make shared memory, of any program",
        "[options] NAME | --tagname TAG | --file PATH",
        "Show the size of shared memory and a hex dump of its beginning; or read, write\n"
        "or make it.",
        """\
examples:
  mmapipc map --tagname ShareMemoryTest
  mmapipc map table --read --offset 4KiB --length 100 > part
  printf hello | mmapipc map --tagname ShareMemoryTest --write --lock
"""
        + _exit_codes(
            code_0="done",
            code_1="error: there is no such memory, it is too small, or it exists already",
            code_2="usage",
            code_3="output closed early",
        ),
    ),
}

# What the command says that was given nothing.
_OVERVIEW = (
    "mmapipc streams bytes from one process to another on this machine, by name.\n\n"
    + "".join(f"  mmapipc {name:<8} {help}\n" for name, (_, help, *_) in _COMMANDS.items())
    + "\nmmapipc --help shows an example; mmapipc send --help explains send.\n"
)
