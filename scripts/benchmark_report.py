"""What the benchmark measured, and how it is shown: tables, JSON, a chart."""

from __future__ import annotations

import ctypes
import html
import itertools
import json
import math
import os
import platform
import statistics
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from benchmark_peers import HANDSHAKE, KIB, MIB, OURS, PEERS, PIPE, SIZES, WINDOWS

import mmapipc

PING_SIZES = (1, 64)  # bytes
LINE_SIZE, ITEM_SIZE = 80, 20  # bytes

# What is measured
STREAM = "stream"  # bytes a second
READ_LINES = "lines, looped over"  # bytes a second
WRITE_ITEMS = "items, by writelines"  # bytes a second
AWAKE = "round trip, both awake"  # seconds
PARKED = "round trip, parked each time"  # seconds
IDLE = "idle"  # percent of a core
FILE_TO_NULL = "scripts, file to null"  # bytes a second
PIPE_TO_PIPE = "scripts, pipe to pipe"  # bytes a second

CAT = "cat through a FIFO"
MEMCPY_NEAR, MEMCPY_FAR = "memcpy, in the cache", "memcpy, over 64 MiB"
MEMCPY = {MEMCPY_NEAR: MIB, MEMCPY_FAR: 64 * MIB}  # bytes of the working set


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    repetitions: int = 5
    stream_seconds: float = 0.15
    awake_seconds: float = 0.1
    parked_rounds: int = 6
    parked_pause: float = 0.02  # seconds before each ping, for the other side to fall asleep
    idle_seconds: float = 3.0
    # So much that starting two interpreters is a small part; Windows has no peer for it, and slow pipes.
    script_bytes: int = 128 * MIB if WINDOWS else 1024 * MIB


QUICK = Plan(
    repetitions=2,
    stream_seconds=0.01,
    awake_seconds=0.01,
    parked_rounds=2,
    idle_seconds=0.3,
    script_bytes=8 * MIB,
)


class Spread(NamedTuple):
    """A median with its lowest and highest."""

    median: float
    low: float
    high: float


@dataclass
class Results:
    """What was measured, and what was not and why."""

    values: dict[tuple[str, int, str], dict[int, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, size: int, label: str, repetition: int, value: float) -> None:
        self.values.setdefault((what, size, label), {})[repetition] = value

    def median(self, what: str, size: int, label: str) -> float | None:
        values = self.values.get((what, size, label))
        return statistics.median(values.values()) if values else None

    def advantage(self, what: str, size: int, label: str) -> Spread | None:
        """How many times better we are, over the repetitions that measured both."""
        ours = self.values.get((what, size, OURS), {})
        theirs = self.values.get((what, size, label), {})
        ratios = [ours[repetition] / theirs[repetition] for repetition in ours if repetition in theirs]
        if not ratios:
            return None
        if what in (AWAKE, PARKED):
            ratios = [1 / ratio for ratio in ratios]
        return Spread(statistics.median(ratios), min(ratios), max(ratios))


# ---------------------------------------------------------------- the report


class Target(NamedTuple):
    """A ratio that we want."""

    what: str
    size: int
    against: str
    least: float


def targets(plan: Plan) -> list[Target]:
    return [
        *(Target(STREAM, size, PIPE, 1.5 if size <= 4 * KIB else 4) for size in SIZES),
        *(Target(STREAM, MIB, label, 0.5) for label in MEMCPY),
        Target(READ_LINES, LINE_SIZE, PIPE, 1),
        Target(WRITE_ITEMS, ITEM_SIZE, PIPE, 5),
        *(Target(AWAKE, size, PIPE, 30) for size in PING_SIZES),
        *(Target(PARKED, size, PIPE, 1) for size in PING_SIZES),
        Target(FILE_TO_NULL, plan.script_bytes, CAT, 3),
        Target(PIPE_TO_PIPE, plan.script_bytes, CAT, 1.5),
        Target(STREAM, 1, HANDSHAKE, 50),
    ]


def show_size(size: int) -> str:
    """Bytes in the unit that fits: `64 KiB`."""
    if size >= MIB:
        return f"{size // MIB} MiB"
    if size >= KIB:
        return f"{size // KIB} KiB"
    return f"{size} B"


def show(number: float | None, scale: float = 1) -> str:
    """About three significant digits; a dash for what was not measured."""
    if number is None:
        return "-"
    number *= scale
    if number == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(number)))
    return f"{round(number, digits):,.{max(0, digits)}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned for those who read it as it is."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cells[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])),
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(line(cells) for cells in (head, rule, *rows))


def machine() -> dict[str, object]:
    """What this ran on."""
    if WINDOWS:
        version = sys.getwindowsversion()
        system = f"Windows {version.major}.{version.minor}.{version.build} ({sysconfig.get_platform()})"
        # Not module platform: under Wine its question to WMI ends the process.
        if wine := getattr(ctypes.WinDLL("ntdll"), "wine_get_version", None):
            wine.restype = ctypes.c_char_p
            system += f", which is Wine {wine().decode()}"
    else:
        about = os.uname()
        system = f"{about.sysname} {about.release} ({about.machine})"
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": system,
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "mmapipc": mmapipc.__version__,
    }


def machine_line() -> str:
    about = machine()
    return f"mmapipc {about['mmapipc']}, {about['interpreter']}, {about['platform']}, {about['cores']} cores"


def first_line(plan: Plan) -> str:
    return (
        f"{machine_line()}; {plan.repetitions} repetitions; streams of {plan.stream_seconds:g} s, "
        f"read into {show_size(64 * KIB)}, or {show_size(MIB)} for writes of {show_size(MIB)}; "
        f"scripts move {show_size(plan.script_bytes)}"
    )


def grid(results: Results, columns: Mapping[str, tuple[str, int]], scale: float) -> str:
    """A table of medians: a row for each peer that has one, a column for each (what, size)."""
    rows = []
    for label in (*(peer.label for peer in PEERS), *MEMCPY, CAT):
        medians = [results.median(what, size, label) for what, size in columns.values()]
        if any(median is not None for median in medians):
            rows.append([label, *(show(median, scale) for median in medians)])
    return table(["peer", *columns], rows)


def target_row(results: Results, target: Target) -> list[str]:
    size = "" if target.what.startswith("scripts") else f", {show_size(target.size)}"
    what = f"{target.what}{size}, against {target.against}"
    least = f"{target.least:g} x"
    ratio = results.advantage(target.what, target.size, target.against)
    if ratio is None:
        return [what, least, "-", "-", "not measured"]
    verdict = "ok" if ratio.median >= target.least else "below"
    return [what, least, f"{show(ratio.median)} x", f"{show(ratio.low)} to {show(ratio.high)}", verdict]


def report(plan: Plan, results: Results) -> str:
    """Everything, for a person."""
    streams = {show_size(size): (STREAM, size) for size in SIZES}
    latencies = {
        f"{show_size(size)}, {manner}": (what, size)
        for manner, what in (("awake", AWAKE), ("parked", PARKED))
        for size in PING_SIZES
    }
    scripts = {
        what.removeprefix("scripts, "): (what, plan.script_bytes) for what in (FILE_TO_NULL, PIPE_TO_PIPE)
    }
    parts = [
        first_line(plan),
        "Streaming: MB/s (10^6 bytes a second) by bytes a write, medians",
        grid(results, streams, 1e-6),
        "Lines and small items: MB/s, medians (os.pipe: os.fdopen(fd, 'rb'), and os.write of each item)",
        grid(results, {READ_LINES: (READ_LINES, LINE_SIZE), WRITE_ITEMS: (WRITE_ITEMS, ITEM_SIZE)}, 1e-6),
        "Round trip: us, medians; parked: each ping comes after "
        f"{plan.parked_pause * 1e3:g} ms of nothing, {plan.parked_rounds} a repetition",
        grid(results, latencies, 1e6),
        f"Idle: % of a core that a reader takes which waits for {plan.idle_seconds:g} s, once",
        grid(results, {"%": (IDLE, 1)}, 1),
        "Scripts end to end, with the start of every process: MB/s, medians",
        grid(results, scripts, 1e-6),
    ]
    for title, reasons in (("Not measured", results.missing), ("Failed", results.failed)):
        if reasons:
            parts.append(
                "\n".join(
                    f"{title}: {label}: {' '.join(reason.split())}" for label, reason in reasons.items()
                )
            )
    parts += [
        "Targets: how many times faster mmapipc is; the median over the repetitions, lowest to highest",
        table(
            ["what", "at least", "measured", "spread", "verdict"],
            [target_row(results, target) for target in targets(plan)],
        ),
    ]
    return "\n\n".join(parts)


UNITS = {AWAKE: "s", PARKED: "s", IDLE: "% of a core"}  # of all others: bytes/s


def as_json(plan: Plan, results: Results) -> str:
    """Everything, for a program."""
    document = {
        "machine": machine(),
        "plan": asdict(plan),
        "measured": [
            {
                "what": what,
                "size": size,
                "peer": label,
                "unit": UNITS.get(what, "bytes/s"),
                "values": {str(repetition): value for repetition, value in values.items()},
            }
            for (what, size, label), values in results.values.items()
        ],
        "missing": results.missing,
        "failed": results.failed,
        "targets": [
            {
                **target._asdict(),
                "ratio": ratio and ratio._asdict(),
                "ok": ratio and ratio.median >= target.least,
            }
            for target in targets(plan)
            for ratio in [results.advantage(target.what, target.size, target.against)]
        ],
    }
    return json.dumps(document, indent=2)


# ---------------------------------------------------------------- the chart

WIDTH, HEIGHT = 820, 440  # of the chart, in pixels, as are the next
LEFT, RIGHT, TOP, BOTTOM = 80, 230, 56, 52  # margins

# Colours that stand out from white and from near black; ours is the thick line.
OUR_COLOUR = "#e5484d"
LIMIT_COLOUR = "#8b949e"
COLOURS = (
    "#3b82f6",
    "#16a34a",
    "#d97706",
    "#a855f7",
    "#0891b2",
    "#db2777",
    "#84a01c",
    "#8b7355",
    "#7f9cb5",
)
STYLE = """
text { font: 13px sans-serif; fill: #1f2328 } .title { font-size: 16px; font-weight: bold }
.middle { text-anchor: middle } .end { text-anchor: end }
path { fill: none; stroke-width: 1.8 } .ours { stroke-width: 4 } .limit { stroke-dasharray: 5 4 }
.ground { fill: #ffffff } .grid { stroke: #d1d9e0; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .ground { fill: #0d1117 } .grid { stroke: #30363d }
}"""


class Line(NamedTuple):
    """A line of the chart."""

    label: str
    points: list[tuple[int, float]]  # (bytes a write, bytes a second)
    kind: str  # its class in the style
    colour: str


def chart_lines(results: Results) -> list[Line]:
    """One for each peer that streamed, and one across for memcpy; the fastest in the end first."""
    colours = itertools.cycle(COLOURS)
    lines = []
    for peer in PEERS:
        medians = [(size, results.median(STREAM, size, peer.label)) for size in SIZES]
        points = [(size, median) for size, median in medians if median]
        if points and peer.label == OURS:
            lines.append(Line(peer.label, points, "ours", OUR_COLOUR))
        elif points:
            lines.append(Line(peer.label, points, "peer", next(colours)))
    if limit := results.median(STREAM, MIB, MEMCPY_NEAR):
        lines.append(Line(MEMCPY_NEAR, [(SIZES[0], limit), (SIZES[-1], limit)], "limit", LIMIT_COLOUR))
    return sorted(lines, key=lambda line: line.points[-1], reverse=True)


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(words)}</text>'


def stroke(line: Line, path: str) -> str:
    return f'<path class="{line.kind}" stroke="{line.colour}" d="{path}"/>'


class Plot:
    """The area that the lines are drawn in, both axes logarithmic."""

    def __init__(self, lines: Sequence[Line]) -> None:
        rates = [rate for line in lines for _, rate in line.points]
        self._lowest = math.floor(math.log10(min(rates)))  # powers of ten
        self._highest = math.ceil(math.log10(max(rates)))

    def _x(self, size: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(size) / math.log(SIZES[-1])

    def _y(self, rate: float) -> float:
        part = (math.log10(rate) - self._lowest) / (self._highest - self._lowest)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part

    def axes(self) -> Iterator[str]:
        for power in range(self._lowest, self._highest + 1):
            level = self._y(10**power)
            yield f'<path class="grid" d="M{LEFT} {level:.1f} H{WIDTH - RIGHT}"/>'
            yield text(LEFT - 8, level + 4, show_rate(power), "end")
        for size in SIZES:
            yield text(self._x(size), HEIGHT - BOTTOM + 18, show_size(size), "middle")
        yield text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "bytes a write", "middle")

    def line(self, line: Line) -> Iterator[str]:
        places = [(self._x(size), self._y(rate)) for size, rate in line.points]
        yield stroke(line, "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places))
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>'


def legend(lines: Sequence[Line]) -> Iterator[str]:
    for row, line in enumerate(lines):
        y = TOP + 14 + 24 * row
        yield stroke(line, f"M{WIDTH - RIGHT + 20} {y} h28")
        yield text(WIDTH - RIGHT + 56, y + 4, line.label)


def chart(results: Results) -> str:
    """Streaming throughput by write size, as SVG."""
    lines = chart_lines(results)
    plot = Plot(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"',
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Streaming throughput by bytes a write</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        text(LEFT, 24, "Streaming from process to process: bytes a second", "title"),
        text(LEFT, 43, machine_line()),
        *plot.axes(),
        *itertools.chain.from_iterable(map(plot.line, lines)),
        *legend(lines),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def show_rate(power: int) -> str:
    """10 to the `power` bytes a second: `10 kB/s`."""
    unit = ("B", "kB", "MB", "GB", "TB")[power // 3]
    return f"{10 ** (power % 3)} {unit}/s"
