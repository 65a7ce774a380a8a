"""How a look at a channel is shown: as a block of lines, as one line, in a table, as JSON."""

from __future__ import annotations

from .._ring import layout
from .._system import system
from ..errors import ChannelError, in_bytes
from .streams import printable
from .terminal import Rate, exactly, human, width

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from ..inspection import Look, Side, Stream

_LONGEST_BAR = 60  # columns; where it is narrower than the terminal, that may shrink a little
_LONGEST_COLUMN = 40  # columns for the names in a table


class Meter:
    """How fast a stream's two counters have moved lately."""

    def __init__(self) -> None:
        self.written, self.read = Rate(), Rate()

    def add(self, now: float, stream: Stream | None) -> None:
        """Take what a look showed at the time `now`, in seconds."""
        if stream is not None:
            self.written.add(now, stream.written)
            self.read.add(now, stream.read)


def block(look: Look, meter: Meter | None = None) -> list[str]:
    """Return one line for each fact; with a meter, the rates too."""
    facts = [("name", look.name), ("memory", look.location), ("status", look.status)]
    stream = look.stream
    if stream is None:
        facts.append(("stream", "none"))
    else:
        kind = ", persistent" if stream.persistent else ""
        facts += [
            ("layout", f"version {layout.VERSION}"),
            ("stream", f"{stream.stream_id:016x}{kind}"),
            ("capacity", exactly(stream.capacity)),
        ]
    facts += [("sender", _side(look.sender)), ("receiver", _side(look.receiver))]
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


def bar(look: Look, columns: int) -> list[str]:
    """Return a line that shows how full the ring is and is a little narrower than so many columns."""
    if look.stream is None:
        return []
    label, figure = f"{'ring':<9} ", f" {look.stream.fill:5.1f} %"
    room = max(min(columns - 1, _LONGEST_BAR) - len(label) - len(figure) - 2, 1)
    full = round(look.stream.fill * room / 100)
    return [f"{label}[{'#' * full}{'-' * (room - full)}]{figure}"]


def line(look: Look, meter: Meter) -> str:
    """Return one line that tells what moves."""
    stream = look.stream
    told = f"{printable(look.name)}: {look.status}"
    if stream is None:
        return told
    return (
        f"{told}, {in_bytes(stream.written)} written, {stream.read} read, "
        f"{stream.in_flight} in flight ({stream.fill:.1f} %), {human(meter.read.value)}/s"
    )


def table(looks: list[tuple[str, Look | ChannelError]]) -> list[str]:
    """Return a line for each channel; for one that cannot be looked at it tells why."""
    shown = [(printable(name), look) for name, look in looks]
    widest = min(max((width(name) for name, _ in shown), default=0), _LONGEST_COLUMN)
    lines = []
    for (name, look), (original, _) in zip(shown, looks):
        if isinstance(look, ChannelError):
            status, told = "unusable", printable(str(look).removeprefix(f"{original}: "))
        else:
            status, told = look.status, _summary(look)
        lines.append(f"{name}{' ' * (widest - width(name))}  {status:<11}  {told}")
    return lines


def as_json(found: object) -> str:
    """Return one line of JSON."""
    import json

    return json.dumps(found)


def entry(name: str, look: Look | ChannelError) -> dict[str, object]:
    """Return what `list --json` tells of a channel."""
    if isinstance(look, ChannelError):
        return {"name": name, "status": "unusable", "error": str(look)}
    return look.facts()


def _summary(look: Look) -> str:
    if look.status == "stale":
        return system.STALE
    parts = [
        f"{role} {side.pid if side.claimed else side.waiting or '?'}"
        for role, side in (("sender", look.sender), ("receiver", look.receiver))
        if side.claimed or side.waiting is not None
    ]
    if look.stream is not None:
        stream = look.stream
        parts.append(f"{stream.in_flight} of {in_bytes(stream.capacity)} in flight ({stream.fill:.1f} %)")
    return ", ".join(parts)


def _side(side: Side) -> str:
    parts = [side.state]
    if side.pid is not None:
        parts.append(f"pid {side.pid}")
        parts.append("claimed" if side.claimed else "no claim")
    if side.waiting is not None:
        parts.append(f"pid {side.waiting or '?'} waits")
    return ", ".join(parts)
