"""The entry of the command: signals, exit codes, and the one line that tells what went wrong."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

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
from .streams import FileTrouble, ReaderGone, say

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from argparse import Namespace

# The help in `arguments` explains these.
OK = 0
ERROR = 1
TRUNCATED = 3
TIMED_OUT = 4
INTERRUPTED = 130
TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    name = None
    try:
        try:
            _catch_signals()
            parsed = parse(arguments)
            name = getattr(parsed, "name", parsed.command)
            return _run(parsed)
        finally:
            _release_signals()
    except (Exception, KeyboardInterrupt, _Terminated) as error:
        return _report(name, error)


def _run(parsed: Namespace) -> int:
    """Run the command; import only the room that it needs.

    A command that has told of an error and gone on returns False.
    """
    commands: dict[str, Callable[[Namespace], bool | None]]
    if parsed.command in ("send", "receive"):
        from .transfer import receive, send

        commands = {"send": send, "receive": receive}
    else:
        from .looking import inspect, list_channels, remove

        commands = {"inspect": inspect, "list": list_channels, "remove": remove}
    return ERROR if commands[parsed.command](parsed) is False else OK


class _Terminated(BaseException):
    """SIGTERM came."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _catch_signals() -> None:
    """Let a signal that ends the process raise an exception, so that the peer is told."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGBREAK"):  # Windows: Ctrl-Break
        signal.signal(signal.SIGBREAK, signal.default_int_handler)


def _release_signals() -> None:
    """Let the next signal end the process at once: everything is undone."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


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
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, _Terminated):
        return "terminated", TERMINATED
    if not isinstance(error, (ChannelError, FileTrouble)):
        return f"unexpected {type(error).__name__}: {error}; please report this", ERROR
    if isinstance(error, ChannelTimeout):
        return str(error), TIMED_OUT
    if isinstance(error, (ReceiverGone, SenderDied, StreamAborted)):
        return str(error), TRUNCATED
    if isinstance(error, (InvalidCapacity, InvalidName)):
        return str(error), USAGE
    return str(error), ERROR
