"""What a look at a channel looks like: as lines of any width, as one line, as JSON."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections import deque

from .. import layout, platform
from ..errors import ChannelError

TYPE_CHECKING = False  # progress starts without it
if TYPE_CHECKING:
    from ..inspection import Look, Side, Stream

_RATED_OVER = 1.0  # seconds
_LONGEST_BAR = 60  # columns: what is a little narrower than the terminal survives that it shrinks a little
_LONGEST_COLUMN = 40  # for the names in a list


class Rate:
    """How fast a counter has moved lately: `value`, in bytes a second."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, int]] = deque()
        self.value = 0.0

    def add(self, now: float, count: int) -> None:
        """Take what was counted at that time, in seconds."""
        past = self._past
        past.append((now, count))
        while len(past) > 2 and past[1][0] <= now - _RATED_OVER:
            past.popleft()
        then, first = past[0]
        if now > then:
            self.value = (count - first) / (now - then)


class Meter:
    """How fast a stream's two counters have moved lately."""

    def __init__(self) -> None:
        self.written, self.read = Rate(), Rate()

    def add(self, now: float, stream: Stream | None) -> None:
        """Take what was seen at that time, in seconds."""
        if stream is not None:
            self.written.add(now, stream.written)
            self.read.add(now, stream.read)


class Picture:
    """Lines on a terminal that are drawn over by the next ones."""

    def __init__(self) -> None:
        self._drawn: list[str] = []

    def draw(self, lines: list[str], columns: int, rows: int) -> str:
        """What is to be written; leaves the cursor below the last line.

        Does not use the last column, where terminals differ, nor more rows than there are.
        """
        lines = [cut(line, columns - 1) for line in lines[-max(rows - 1, 1) :]]
        back = ""
        # Lines that were folded when the terminal shrank, or were not: nobody
        # knows where they began, and what stands above is not ours to clear.
        if self._drawn and all(width(line) < columns for line in self._drawn) and len(self._drawn) < rows:
            back = f"\x1b[{len(self._drawn)}A\r"
        self._drawn = lines
        return back + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"


def terminal_size(descriptor: int) -> tuple[int, int]:
    """Columns and rows of the terminal there; what is not known is as usual."""
    columns = rows = 0
    with contextlib.suppress(OSError):
        columns, rows = os.get_terminal_size(descriptor)
    return columns or 80, rows or 24


def printable(text: str) -> str:
    """The text with what would move a cursor, or is half a character, escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def human(size: float) -> str:
    """A number of bytes with a unit, in at most ten columns."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 999.95:
            break
        size /= 1024
    else:
        unit = "PiB"
    return f"{size:.{0 if unit == 'B' else 1}f} {unit}"


def exactly(size: int) -> str:
    """A number of bytes, and what it is in a larger unit."""
    return f"{size} byte{'' if size == 1 else 's'}" + (f" ({human(size)})" if size >= 1000 else "")


def block(look: Look, meter: Meter | None = None) -> list[str]:
    """All that was seen, a line for each; with rates and a bar if there is a meter."""
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
        if meter is None:
            facts += [
                ("written", exactly(stream.written)),
                ("read", exactly(stream.read)),
                ("in flight", f"{exactly(stream.in_flight)}, {stream.fill:.1f} % full"),
            ]
        else:
            # Short, and what may be cut off comes last.  The bar tells the fill.
            facts += [
                ("written", f"{human(meter.written.value)}/s, {stream.written} B"),
                ("read", f"{human(meter.read.value)}/s, {stream.read} B"),
                ("in flight", f"{stream.in_flight} B"),
            ]
    return [f"{label:<9} {printable(value)}" for label, value in facts]


def bar(look: Look, columns: int) -> list[str]:
    """How full the ring is, as a line that is a little narrower than so many columns."""
    if look.stream is None:
        return []
    label, figure = f"{'ring':<9} ", f" {look.stream.fill:5.1f} %"
    room = max(min(columns - 1, _LONGEST_BAR) - len(label) - len(figure) - 2, 1)
    full = round(look.stream.fill * room / 100)
    return [f"{label}[{'#' * full}{'-' * (room - full)}]{figure}"]


def line(look: Look, meter: Meter) -> str:
    """What moves, in one line."""
    stream = look.stream
    told = f"{printable(look.name)}: {look.status}"
    if stream is None:
        return told
    return (
        f"{told}, {stream.written} bytes written, {stream.read} read, "
        f"{stream.in_flight} in flight ({stream.fill:.1f} %), {human(meter.read.value)}/s"
    )


def table(looks: list[tuple[str, Look | ChannelError]]) -> list[str]:
    """Each channel, or why it cannot be looked at, in one line."""
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
    """One line."""
    import json

    return json.dumps(found)


def entry(name: str, look: Look | ChannelError) -> dict[str, object]:
    """What `list --json` says of a channel."""
    if isinstance(look, ChannelError):
        return {"name": name, "status": "unusable", "error": str(look)}
    return look.facts()


def _summary(look: Look) -> str:
    if look.status == "stale":
        return platform.STALE
    parts = [
        f"{role} {side.pid if side.claimed else side.waiting or '?'}"
        for role, side in (("sender", look.sender), ("receiver", look.receiver))
        if side.claimed or side.waiting is not None
    ]
    if look.stream is not None:
        parts.append(f"{look.stream.in_flight} of {look.stream.capacity} bytes in flight ({look.stream.fill:.1f} %)")
    return ", ".join(parts)


def _side(side: Side) -> str:
    parts = [side.state]
    if side.pid is not None:
        parts.append(f"pid {side.pid}")
        parts.append("claimed" if side.claimed else "no claim")
    if side.waiting is not None:
        parts.append(f"pid {side.waiting or '?'} waits")
    return ", ".join(parts)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "FW" else 1


def width(text: str) -> int:
    """Columns that the text takes on a terminal."""
    return sum(map(_columns, text))


def cut(text: str, columns: int) -> str:
    """The text, shortened to so many columns."""
    if width(text) <= columns:
        return text
    dots = "..."[:columns]
    kept, room = "", columns - len(dots)
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        kept += character
    return kept + dots
