"""The entry of the command: signals, exit codes, and the one line that tells what went wrong."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from .._system import system
from ..errors import (
    ChannelError,
    ChannelTimeout,
    InvalidCapacity,
    InvalidName,
    ReceiverGone,
    ReceiverLeft,
    SenderDied,
    StreamAborted,
)
from .arguments import USAGE, parse
from .streams import FileTrouble, ReaderGone, say, say_line

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from argparse import Namespace

# The help in `arguments` explains these.
OK = 0
ERROR = 1
TRUNCATED = 3
TIMED_OUT = 4
_BY_SIGNAL = 128  # and the signal's number, as the shell shows it

_ENDINGS = {OK: "complete", ERROR: "error", USAGE: "usage", TRUNCATED: "incomplete", TIMED_OUT: "timed out"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code, or die of the signal that ended it."""
    name = None
    summary: dict[str, object] | None = None  # of the transfer, if one is wanted
    try:
        try:
            _catch_signals()
            parsed = parse(arguments)
            name = getattr(parsed, "name", parsed.command)
            parsed.summary = {"channel": name, "bytes": 0, "seconds": 0.0, "rate": 0.0, "digest": None}
            if parsed.command in ("send", "receive") and parsed.json:
                summary = parsed.summary
            code = _run(parsed)
            _summarize(summary, code, None)
            return code
        finally:
            _release_signals()
    except _Signalled as error:
        _summarize(summary, _report(name, error), error)
        system.die_of(error.number)  # so that a shell's loop ends too
        return _BY_SIGNAL + error.number
    except Exception as error:
        code = _report(name, error)
        _summarize(summary, code, error)
        return code


def _run(parsed: Namespace) -> int:
    """Run the command; import only the room that it needs.

    A command that has told of an error and gone on returns False.
    """
    commands: dict[str, Callable[[Namespace], bool | None]]
    if parsed.command in ("send", "receive"):
        from .transfer import receive, send

        commands = {"send": send, "receive": receive}
    elif parsed.command == "map":
        from .mapping import map_memory

        commands = {"map": map_memory}
    else:
        from .looking import inspect, list_channels, remove

        commands = {"inspect": inspect, "list": list_channels, "remove": remove}
    return ERROR if commands[parsed.command](parsed) is False else OK


class _Signalled(BaseException):
    """A signal came that ends the process."""

    def __init__(self, number: int, said: str) -> None:
        super().__init__(said)
        self.number = number


# What ends a process from outside, and what we say then.  Ctrl-Break is the Ctrl-C of Windows that
# cannot be turned off.
_SIGNALS = {
    getattr(signal, name): (getattr(signal, as_if), said)
    for name, as_if, said in (
        ("SIGINT", "SIGINT", "interrupted"),
        ("SIGBREAK", "SIGINT", "interrupted"),
        ("SIGTERM", "SIGTERM", "terminated"),
        ("SIGHUP", "SIGHUP", "hung up"),
    )
    if hasattr(signal, name)
}


def _signalled(number: int, frame: object) -> None:
    raise _Signalled(*_SIGNALS[number])


def _catch_signals() -> None:
    """Let a signal that ends the process raise an exception, so that the peer is told.

    What the parent process ignores, as nohup does, stays ignored.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _signalled)


def _release_signals() -> None:
    """Let the next signal end the process at once: everything is undone."""
    for number in _SIGNALS:
        if signal.getsignal(number) is _signalled:
            signal.signal(number, signal.SIG_DFL)


def _summarize(summary: dict[str, object] | None, code: int, error: BaseException | None) -> None:
    """Print the summary, if one is wanted, and in it how the command ended."""
    if summary is not None:
        import json

        told = str(error or "") or None
        say_line(json.dumps({**summary, "ended": _ENDINGS.get(code, told), "exit_code": code, "error": told}))


def _report(name: str | None, error: BaseException) -> int:
    """Say in one line what ended the command; return the exit code."""
    if isinstance(error, (ReceiverLeft, ReaderGone)):
        return TRUNCATED  # the reader has had enough: say nothing, as with pipes
    trouble, code = _judge(error)
    # InvalidName shows the name itself, if it can be shown.
    if name and not isinstance(error, InvalidName) and not trouble.startswith(f"{name}: "):
        trouble = f"{name}: {trouble}"
    say(trouble)
    return code


def _judge(error: BaseException) -> tuple[str, int]:
    """Return what to say of the error, and the exit code."""
    if isinstance(error, _Signalled):
        return str(error), _BY_SIGNAL
    if not isinstance(error, (ChannelError, FileTrouble)):
        return f"unexpected {type(error).__name__}: {error}; please report this", ERROR
    if isinstance(error, ChannelTimeout):
        return str(error), TIMED_OUT
    if isinstance(error, (ReceiverGone, SenderDied, StreamAborted)):
        return str(error), TRUNCATED
    if isinstance(error, (InvalidCapacity, InvalidName)):
        return str(error), USAGE
    return str(error), ERROR
