"""How a channel is shown: as a block of lines, as one line, in a table, as JSON."""

from __future__ import annotations

import time

from .._ring import layout
from .._system import system
from ..errors import ChannelError, in_bytes
from .streams import printable
from .terminal import Rate, cut, exactly, human, width

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from ..inspection import ChannelInfo, Side, Stream

_LONGEST_BAR = 60  # columns; where it is narrower than the terminal, that may shrink a little
_LONGEST_NAME = 40  # columns for the names in a table
_SHORTEST_NAME = 12  # columns that a narrow terminal leaves for them, before a column of the table goes

# The columns of the table, in the order in which they are shown: heading, width, and whether its texts
# stand at the right.  From a table that is too wide the one with the highest number is left out first.
_TABLE = (
    ("STATUS", 11, False, 0),
    ("SENDER", 8, True, 4),
    ("RECEIVER", 8, True, 3),
    ("PASSED", 10, True, 1),
    ("FILL", 5, True, 2),
)


class Meter:
    """How fast a stream's two counters have moved lately."""

    def __init__(self) -> None:
        self.written, self.read = Rate(), Rate()

    def add(self, now: float, stream: Stream | None) -> None:
        """Take what was seen at the time `now`, in seconds."""
        if stream is not None:
            self.written.add(now, stream.written)
            self.read.add(now, stream.read)

    def facts(self, info: ChannelInfo) -> dict[str, object]:
        """Return what `inspect --watch --json` prints: the rates are in bytes a second."""
        rates = {"write_rate": round(self.written.value), "read_rate": round(self.read.value)}
        return {"time": round(time.time(), 3), **info.facts(), **rates}


def block(info: ChannelInfo, meter: Meter | None = None) -> list[str]:
    """Return one line for each fact; with a meter, the rates too."""
    facts = [("name", info.name), ("memory", info.location), ("status", info.status)]
    stream = info.stream
    if stream is None:
        facts.append(("stream", "none"))
    else:
        kind = ", persistent" if stream.persistent else ""
        facts += [
            ("layout", f"version {layout.VERSION}"),
            ("stream", f"{stream.stream_id:016x}{kind}"),
            ("capacity", exactly(stream.capacity)),
        ]
    facts += [("sender", _side(info.sender)), ("receiver", _side(info.receiver))]
    if stream is not None:
        facts += _counters(stream) if meter is None else _rated_counters(stream, meter)
    return [f"{label:<9} {printable(value)}" for label, value in facts]


def _counters(stream: Stream) -> list[tuple[str, str]]:
    return [
        ("written", exactly(stream.written)),
        ("read", exactly(stream.read)),
        ("in flight", f"{exactly(stream.in_flight)}, {stream.fill:.1f} % full"),
    ]


def _rated_counters(stream: Stream, meter: Meter) -> list[tuple[str, str]]:
    """Short texts: a narrow terminal cuts off their ends.  The bar below them shows the fill."""
    return [
        ("written", f"{human(meter.written.value)}/s, {stream.written} B"),
        ("read", f"{human(meter.read.value)}/s, {stream.read} B"),
        ("in flight", f"{stream.in_flight} B"),
    ]


def bar(info: ChannelInfo, columns: int) -> list[str]:
    """Return a line that shows how full the ring is, a little narrower than so many columns."""
    if info.stream is None:
        return []
    label, figure = f"{'ring':<9} ", f" {info.stream.fill:5.1f} %"
    room = max(min(columns - 1, _LONGEST_BAR) - len(label) - len(figure) - 2, 1)
    full = round(info.stream.fill * room / 100)
    return [f"{label}[{'#' * full}{' ' * (room - full)}]{figure}"]


def line(info: ChannelInfo, meter: Meter) -> str:
    """Return one line that tells what moves."""
    stream = info.stream
    told = f"{printable(info.name)}: {info.status}"
    if stream is None:
        return told
    return (
        f"{told}, {in_bytes(stream.written)} written, {stream.read} read, "
        f"{stream.in_flight} in flight ({stream.fill:.1f} %), {human(meter.read.value)}/s"
    )


def table(found: list[tuple[str, ChannelInfo | ChannelError]], columns: int | None) -> list[str]:
    """Return a heading and a line for each channel, in so many columns; `None`: in as many as they take.

    For a channel that cannot be used, the line tells why.
    """
    if not found:
        return []
    names = [printable(name) for name, _ in found]
    widest = min(max(map(width, ["NAME", *names])), _LONGEST_NAME)
    kept = sorted(_TABLE, key=lambda column: column[3])
    if columns is not None:
        while len(kept) > 1 and _wide(kept) + min(widest, _SHORTEST_NAME) > columns:
            kept.pop()
        widest = max(min(widest, columns - _wide(kept)), 1)
    shown = [column for column in _TABLE if column in kept]
    lines = [_row("NAME", {heading: heading for heading, *_ in _TABLE}, shown, widest)]
    for name, (original, info) in zip(names, found):
        if columns is not None:
            name = cut(name, widest)
        if isinstance(info, ChannelError):
            cells = {"STATUS": "unusable"}
            told = printable(str(info).removeprefix(f"{original}: "))
        elif info.status == "stale":
            cells, told = {"STATUS": info.status}, system.STALE
        else:
            cells, told = _cells(info), ""
        row = _row(name, cells, shown[:1] if told else shown, widest)
        lines.append(f"{row}  {told}" if told else row)
    return [line.rstrip() if columns is None else cut(line.rstrip(), columns) for line in lines]


def _wide(kept: list[tuple[str, int, bool, int]]) -> int:
    """How many columns they take, with the gaps before them."""
    return sum(2 + size for _, size, _, _ in kept)


def _row(name: str, cells: dict[str, str], shown: list[tuple[str, int, bool, int]], widest: int) -> str:
    row = name + " " * (widest - width(name))
    for heading, size, right, _ in shown:
        row += "  " + (cells[heading].rjust(size) if right else cells[heading].ljust(size))
    return row


def _cells(info: ChannelInfo) -> dict[str, str]:
    stream = info.stream
    return {
        "STATUS": info.status,
        "SENDER": _who(info.sender),
        "RECEIVER": _who(info.receiver),
        "PASSED": "-" if stream is None else human(stream.read),
        "FILL": "-" if stream is None else f"{stream.fill:.0f} %",
    }


def _who(side: Side) -> str:
    """The process at that side, or what became of it."""
    if side.claimed or side.waiting is not None:
        return str(side.pid if side.claimed else side.waiting or "?")
    return "-" if side.state == "absent" else side.state


def as_json(found: object) -> str:
    """Return one line of JSON."""
    import json

    return json.dumps(found)


def entry(name: str, info: ChannelInfo | ChannelError) -> dict[str, object]:
    """Return what `list --json` tells of a channel."""
    if isinstance(info, ChannelError):
        return {"name": name, "status": "unusable", "error": str(info)}
    return info.facts()


def _side(side: Side) -> str:
    parts = [side.state]
    if side.pid is not None:
        gone = "" if side.claimed or side.state == "died" else " (has left)"
        parts.append(f"pid {side.pid}{gone}")
    if side.waiting is not None:
        parts.append(f"pid {side.waiting or '?'} waits")
    return ", ".join(parts)
