"""`mmapipc inspect`, `mmapipc list` and `mmapipc remove`.  `send` and `receive` start without this room."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from .. import inspection
from .._system import system
from ..errors import ChannelError, InvalidName, NoChannel
from . import display
from .naming import near_name
from .streams import print_lines, say, standard_output, write_output
from .terminal import Picture, terminal_size

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from argparse import Namespace

    from ..inspection import ChannelInfo

_BETWEEN_LINES = 1.0  # seconds


def inspect(arguments: Namespace) -> None:
    """Show a channel: once, or until it ends."""
    name, file = arguments.name, arguments.ring_file
    with _near_name(name, file):
        if arguments.watch:
            with contextlib.closing(inspection.Looker(name, file)) as looker:
                _watch(looker.watch(), arguments.json)
        else:
            info = inspection.inspect(name, file=file)
            print_lines([display.as_json(info.facts())] if arguments.json else display.block(info))


def list_channels(arguments: Namespace) -> bool:
    """Show channels, one a line; return whether each one that was asked for is there."""
    found: list[tuple[str, ChannelInfo | ChannelError]] = []
    complete = True
    for name in arguments.names or inspection.channels():
        try:
            found.append((name, inspection.inspect(name)))
        except NoChannel as error:
            if arguments.names:  # a channel that nobody asked for has just gone
                _add_near_name(error, name)
                say(str(error))
                complete = False
        except InvalidName:
            raise
        except ChannelError as error:
            found.append((name, error))
    if arguments.json:
        print_lines([display.as_json([display.entry(*each) for each in found])])
    else:
        output = standard_output().file
        columns = terminal_size(output.fileno())[0] - 1 if output.isatty() else None
        print_lines(display.table(found, columns))
    return complete


def remove(arguments: Namespace) -> None:
    """Remove what killed processes have left of a channel."""
    with _near_name(arguments.name, None):
        inspection.remove(arguments.name)


@contextlib.contextmanager
def _near_name(name: str, ring_file: str | None) -> Iterator[None]:
    """If there is no channel of that name, name the one that was perhaps meant."""
    try:
        yield
    except NoChannel as error:
        if ring_file is None:
            _add_near_name(error, name)
        raise


def _add_near_name(error: NoChannel, name: str) -> None:
    near = near_name(name)
    if near is not None:
        error.args = (f"{error}; did you mean {near!r}?",)


def _watch(infos: Iterator[ChannelInfo], json: bool) -> None:
    """Show it again and again: in place on a terminal; elsewhere in lines; the last shows the end."""
    meter = display.Meter()
    next_line = time.perf_counter()
    output = standard_output().file.fileno()
    with system.redrawing(output) as redrawing, Picture(write_output) as picture:
        for info in infos:
            now = time.perf_counter()
            meter.add(now, info.stream)
            if redrawing and not json:
                columns, rows = terminal_size(output)
                picture.draw(display.block(info, meter) + display.bar(info, columns), columns, rows)
            elif now >= next_line or info.ended:
                print_lines([display.as_json(meter.facts(info)) if json else display.line(info, meter)])
                next_line = now + _BETWEEN_LINES
