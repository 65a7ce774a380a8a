"""`mmapipc send` and `mmapipc receive`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from ..channel import Receiver, Sender
from ..errors import ChannelTimeout, ReceiverGone
from . import streams
from .passing import Passing, checksum_line
from .streams import PIECE, OpenFile, ReaderGone, tell

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from argparse import Namespace

    from .progress import Watch


def send(arguments: Namespace) -> None:
    """Send a file, or standard input, until the receiver has taken every byte."""
    if arguments.hash is not None:
        streams.standard_output()  # if it is closed, fail now: the digest goes there
    with (
        streams.source(arguments.input, arguments.ring_file) as source,
        Passing(arguments.limit_rate, arguments.hash) as passing,
        _progress(arguments, source) as progress,
        _sender(arguments, progress.say) as sender,
        progress.following(sender),
    ):
        source.enlarge()
        _send_all(source, passing, sender, watched=not arguments.persist and arguments.ring_file is None)
    if arguments.hash is not None:
        arguments.summary["digest"] = passing.digest
        streams.print_lines([checksum_line(passing.digest, arguments.input or "-")])


def receive(arguments: Namespace) -> None:
    """Receive into a file, or to standard output, until the end of the stream."""
    path = arguments.output
    if arguments.hash is not None:
        _check_digest_output(path)
    streams.check_sink(path, arguments.ring_file)
    with (
        Passing(arguments.limit_rate, arguments.hash) as passing,
        _progress(arguments, None) as progress,
        Receiver(
            arguments.name,
            timeout=arguments.timeout,
            file=arguments.ring_file,
            wait_for_role=arguments.wait,
        ) as receiver,
        # Only now: before the stream was ours, another receiver may have been writing to the file.
        streams.sink(path, arguments.ring_file) as sink,
        progress.following(receiver),
    ):
        resumed = arguments.resume and receiver.tell() > 0
        if path is not None:
            streams.position_output(sink, receiver.tell(), arguments.resume)
        sink.enlarge()
        _receive_all(receiver, passing, sink)
    if arguments.hash is not None:
        # An earlier receiver had the beginning of a resumed stream.
        digest = _digest_of(path, arguments.hash) if resumed else passing.digest
        arguments.summary["digest"] = digest
        _print_digest(digest, path)


def _sender(arguments: Namespace, say: Callable[[str], None]) -> Sender:
    def tell_of_lost(count: int) -> None:
        gone = "the receiver is" if count == 1 else f"{count} receivers are"
        say(f"{arguments.name}: {gone} gone; the stream goes on with the next")

    return Sender(
        arguments.name,
        capacity=arguments.capacity,
        timeout=arguments.timeout,
        persist=arguments.persist,
        file=arguments.ring_file,
        on_lost=None if arguments.quiet else tell_of_lost,
        wait_for_role=arguments.wait,
    )


def _send_all(source: OpenFile, passing: Passing, sender: Sender, *, watched: bool) -> None:
    """Send to the end of the source; `watched`: not without a receiver, however long the source is silent."""
    try:
        with source.looking(sender.check_receiver) if watched else contextlib.nullcontext():
            while count := source.read_into(view := sender.reserve(passing.turn())):
                passing.passed(view, count)
                sender.commit(count)
    except (ReceiverGone, ChannelTimeout) as error:
        error.args = (f"{error}; the rest was not sent",)
        raise


def _receive_all(receiver: Receiver, passing: Passing, sink: OpenFile) -> None:
    if sink.can_lose_reader():
        receiver.watch_output(sink.file)
    try:
        while view := receiver.peek(passing.turn()):
            count = sink.write_from(view)
            passing.passed(view, count)
            # Acknowledge only what the output has: after a crash the rest comes again.
            receiver.consume(count)
    except (ReaderGone, BrokenPipeError):
        # As in `receive | head`: the reader has had enough, so the receiver leaves and does not give up.
        receiver.close()
        raise ReaderGone from None


def _check_digest_output(path: str | None) -> None:
    """Raise FileTrouble if `_print_digest` could not print."""
    if path is None:
        streams.check_standard_error()
    else:
        streams.standard_output()


def _print_digest(digest: str, path: str | None) -> None:
    """Print the digest of what was received, but not into the stream."""
    line = checksum_line(digest, path or "-")
    if path is None:
        streams.write_error(f"{line}\n")
    else:
        streams.print_lines([line])


def _digest_of(path: str, algorithm: str) -> str:
    with streams.source(path, None) as source, Passing(None, algorithm) as passing:
        piece = memoryview(bytearray(PIECE))
        while count := source.read_into(piece):
            passing.passed(piece, count)
    return passing.digest


class _NoWatch:
    """Stands in for Watch where nobody is to see any."""

    say = staticmethod(tell)

    def following(self, end: Sender | Receiver) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _progress(
    arguments: Namespace, source: OpenFile | None
) -> contextlib.AbstractContextManager[Watch | _NoWatch]:
    """Return what shows how the transfer goes; `source` is the sender's, and None for a receiver."""
    at_terminal = streams.is_terminal(sys.stderr) and not arguments.quiet
    # Not where it would be drawn over what another program, or a person, writes or reads there.
    draws = arguments.progress or (
        at_terminal
        and (streams.will_be_regular(arguments.output) if source is None else source.is_regular())
    )
    if sys.stderr is None or not (draws or at_terminal or arguments.json):
        return contextlib.nullcontext(_NoWatch())
    from .progress import Progress, Watch  # most transfers start without it

    if not draws:
        return Watch(arguments, sends=source is not None, tells=at_terminal)
    size = None if source is None else arguments.size or source.bytes_left()
    return Progress(arguments, sends=source is not None, size=size)
