"""`mmapipc map`: look at any program's memory, copy it out, feed it, or make it and hold it."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator

from .._system import system
from ..errors import ChannelTimeout, InvalidView, in_bytes
from ..mapping import Mapping
from . import streams
from .streams import PIECE, FileTrouble
from .terminal import exactly

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from argparse import Namespace

_SHOWN = 256  # bytes of a dump, unless --length says more
_IN_A_LINE = 16
_PATIENCE = 1.0  # seconds that a wait for the lock lasts before we say so


def map_memory(arguments: Namespace) -> None:
    """Do with the memory what was asked for."""
    where = {"tagname": arguments.tagname, "file": arguments.mapped_file}
    if arguments.create is not None:
        made = None
        try:
            with system.signals_put_off():  # one that came as the memory is made would leave it behind
                made = Mapping(arguments.name, arguments.create, exist_ok=False, **where)
            with made:
                _hold(arguments)
        finally:
            if made is not None and arguments.tagname is not None:
                made.unlink()
    elif arguments.write:
        with Mapping(arguments.name, create=False, **where) as mapping:
            _write(mapping, arguments)
    else:
        with Mapping(arguments.name, create=False, access="read", **where) as mapping:
            if arguments.read:
                _read(mapping, arguments)
            else:
                _show(mapping, arguments)


def _hold(arguments: Namespace) -> None:
    """Keep the memory until the end of standard input."""
    source = streams.standard_input()
    if streams.is_terminal(sys.stdin):
        streams.say(f"{_label(arguments)}: is there until the end of input, or Ctrl-C")
    while source.read_into(memoryview(bytearray(4096))):
        pass


def _write(mapping: Mapping, arguments: Namespace) -> None:
    """Store standard input in the memory: all of it or, if it does not fit, nothing."""
    label = _label(arguments)
    with _part(mapping, arguments) as part:
        data = bytearray()
        source, piece = streams.standard_input(), memoryview(bytearray(PIECE))
        while count := source.read_into(piece):
            data += piece[:count]
            if len(data) > len(part):
                raise FileTrouble(
                    f"{label}: standard input has more than the {in_bytes(len(part))} there, "
                    "so nothing is stored"
                )
        with _guarded(mapping, arguments):  # not while somebody types
            part[: len(data)] = data
    mapping.flush()


def _read(mapping: Mapping, arguments: Namespace) -> None:
    """Copy the memory to standard output."""
    output = streams.standard_output()
    with _part(mapping, arguments) as part, _seen(mapping, part, arguments) as seen:
        done = 0
        while done < len(seen):
            done += output.write_from(seen[done : done + PIECE])


def _show(mapping: Mapping, arguments: Namespace) -> None:
    """Print the size, and a hex dump."""
    with _part(mapping, arguments) as part:
        shown = len(part) if arguments.length is not None else min(len(part), _SHOWN)
        with part[:shown] as beginning, _seen(mapping, beginning, arguments) as seen:
            streams.print_lines([f"{_label(arguments)}: {exactly(mapping.size)}"])
            lines = _dump(seen, arguments.offset)
            while some := list(itertools.islice(lines, 1000)):
                streams.print_lines(some)


@contextlib.contextmanager
def _part(mapping: Mapping, arguments: Namespace) -> Iterator[memoryview]:
    """The bytes that are meant."""
    there, offset = len(mapping.buf), arguments.offset
    length = there - offset if arguments.length is None else arguments.length
    if length < 1 or offset + length > there:
        asked = f"{in_bytes(length)} from" if length > 0 else "what is from"
        raise InvalidView(
            f"{_label(arguments)}: {asked} {offset} on is not inside the {in_bytes(there)} that there are"
        )
    with mapping.buf[offset : offset + length] as part:
        yield part


def _seen(mapping: Mapping, part: memoryview, arguments: Namespace) -> memoryview:
    """The bytes; with --lock as they were while nobody else had it; nobody waits while they are printed."""
    if not arguments.lock:
        return part[:]
    with _guarded(mapping, arguments):
        return memoryview(bytes(part))


@contextlib.contextmanager
def _guarded(mapping: Mapping, arguments: Namespace) -> Iterator[None]:
    """Have the lock, if that was asked for."""
    with contextlib.ExitStack() as stack:
        if arguments.lock:
            try:
                guard = stack.enter_context(mapping.lock(timeout=_PATIENCE))
            except ChannelTimeout as error:
                streams.say(f"{error}; we go on waiting")
                guard = stack.enter_context(mapping.lock())
            if guard.abandoned:
                label = _label(arguments)
                streams.say(f"{label}: who had the lock before died: the data may be half written")
        yield


def _dump(octets: memoryview, first: int) -> Iterator[str]:
    """Lines of a hex dump, as `hexdump -C` makes them: a `*` stands for lines that are as the one before."""
    before, told = b"", False
    for start in range(0, len(octets), _IN_A_LINE):
        line = bytes(octets[start : start + _IN_A_LINE])
        if line == before:
            if not told:
                yield "*"
            told = True
            continue
        before, told = line, False
        halves = f"{line[:8].hex(' '):<23}  {line[8:].hex(' '):<23}"
        text = "".join(chr(octet) if 32 <= octet < 127 else "." for octet in line)
        yield f"{first + start:08x}  {halves}  |{text}|"
    yield f"{first + len(octets):08x}"


def _label(arguments: Namespace) -> str:
    return str(arguments.name or arguments.tagname or arguments.mapped_file)
