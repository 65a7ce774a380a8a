"""`mmapipc inspect`, `mmapipc list` and `mmapipc remove`.  `send` and `receive` start without this room."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from .. import inspection
from .._system import system
from ..errors import ChannelError, InvalidName, NoChannel
from . import display
from .streams import print_lines, say, standard_output, write_output
from .terminal import Picture, terminal_size

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from argparse import Namespace

    from ..inspection import Look

_BETWEEN_LINES = 1.0  # seconds


def inspect(arguments: Namespace) -> None:
    """Show a channel: once, or until it ends."""
    with contextlib.closing(inspection.Looker(arguments.name, arguments.ring_file)) as looker:
        if arguments.watch:
            _watch(looker.watch(), arguments.json)
        else:
            look = looker.look()
            print_lines([display.as_json(look.facts())] if arguments.json else display.block(look))


def list_channels(arguments: Namespace) -> bool:
    """Show channels, one a line; return whether each one that was asked for is there."""
    found: list[tuple[str, Look | ChannelError]] = []
    complete = True
    for name in arguments.names or inspection.names():
        try:
            with contextlib.closing(inspection.Looker(name)) as looker:
                found.append((name, looker.look()))
        except NoChannel as error:
            if arguments.names:  # a channel that nobody asked for has just gone
                say(str(error))
                complete = False
        except InvalidName:
            raise
        except ChannelError as error:
            found.append((name, error))
    if arguments.json:
        print_lines([display.as_json([display.entry(*each) for each in found])])
    else:
        print_lines(display.table(found))
    return complete


def remove(arguments: Namespace) -> None:
    """Remove what killed processes have left of a channel."""
    inspection.remove(arguments.name)


def _watch(looks: Iterator[Look], json: bool) -> None:
    """Show look after look: in place on a terminal; elsewhere in lines, of which the last shows the end."""
    meter, picture = display.Meter(), Picture()
    next_line = time.perf_counter()
    output = standard_output().file.fileno()
    with system.redrawing(output) as redrawing:
        for look in looks:
            now = time.perf_counter()
            meter.add(now, look.stream)
            if redrawing and not json:
                columns, rows = terminal_size(output)
                lines = display.block(look, meter) + display.bar(look, columns)
                write_output(picture.draw(lines, columns, rows))
            elif now >= next_line or look.ended:
                print_lines([display.as_json(look.facts()) if json else display.line(look, meter)])
                next_line = now + _BETWEEN_LINES
