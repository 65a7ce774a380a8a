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

from benchmark_peers import (
    GIB,
    HANDSHAKE,
    IN_LOOP,
    KIB,
    MESSAGES,
    MIB,
    OURS,
    PEERS,
    PIPE,
    PIPE_IN_LOOP,
    SIZES,
    THEIR_MESSAGES,
    WINDOWS,
)

import mmapipc

PING_SIZES = (1, 64)  # bytes
LINE_SIZE, ITEM_SIZE = 80, 20  # bytes

# What is measured
STREAM = "stream"  # bytes a second
READ_LINES = "lines, looped over"  # bytes a second
WRITE_ITEMS = "items, by writelines"  # bytes a second
ROUND_TRIP = "round trip"  # seconds; how so is added
DEATH = "death of a silent peer"  # seconds until the other end is told
IDLE = "idle"  # percent of a core
FILE_TO_NULL = "scripts, file to null"  # bytes a second
PIPE_TO_PIPE = "scripts, pipe to pipe"  # bytes a second
P99 = ", p99"  # behind a round trip that is the median, if it is the 99th percentile

CLOSE = (OURS, PIPE)  # the peers that everything is measured of
OF_MESSAGES = (MESSAGES, THEIR_MESSAGES)
OF_LOOPS = (IN_LOOP, PIPE_IN_LOOP)
CAT = "cat through a FIFO"
MEMCPY_NEAR, MEMCPY_FAR = "memcpy, in the cache", "memcpy, over 64 MiB"
MEMCPY = {MEMCPY_NEAR: MIB, MEMCPY_FAR: 64 * MIB}  # bytes of the working set


class Setting(NamedTuple):
    """Where the two processes are, and what they have beside them."""

    words: str  # behind the name of what is measured there
    cores: int = 0  # that they are pinned to, each or both to one; 0: where the kernel puts them
    busy: bool = False  # every core has other work


QUIET = Setting("")
TWO_CORES = Setting(", on two cores", cores=2)
ONE_CORE = Setting(", on one core", cores=1)
BUSY = Setting(", cores busy", busy=True)
SETTINGS = (QUIET, TWO_CORES, ONE_CORE, BUSY)


class RoundTrip(NamedTuple):
    """Round trips of one manner, and how many times faster than a pipe's we want ours."""

    manner: str
    pause: float  # seconds before each ping
    least: float | None
    least_p99: float | None = None
    setting: Setting = QUIET
    sizes: tuple[int, ...] = (64,)
    by_all: bool = False  # measured of all peers

    @property
    def what(self) -> str:
        return f"{ROUND_TRIP}, {self.manner}{self.setting.words}"


REQUEST = f"{ROUND_TRIP}, a pickled dict"
ASYNC_PAUSE = 1e-3  # seconds
ASYNC = f"{ROUND_TRIP}, by asyncio, 1 ms apart"
SILENT = RoundTrip("1 s apart", 1, None)
ROUND_TRIPS = (
    RoundTrip("back to back", 0, 3.6, sizes=PING_SIZES, by_all=True),
    RoundTrip("back to back", 0, 6.3, setting=TWO_CORES),
    RoundTrip("back to back", 0, 0.8, setting=ONE_CORE),
    RoundTrip("back to back", 0, None, sizes=(64 * KIB,), by_all=True),
    RoundTrip("100 us apart", 100e-6, 0.6),
    RoundTrip("1 ms apart", 1e-3, 0.6, by_all=True),
    RoundTrip("20 ms apart", 0.02, 0.5, sizes=PING_SIZES, by_all=True),
    *([SILENT] if WINDOWS else []),  # there a long wait is another than a short one, and was slow
    RoundTrip("back to back", 0, 0.8, setting=BUSY),
    RoundTrip("1 ms apart", 1e-3, 0.6, least_p99=0.3, setting=BUSY),
)

# How many times faster than a pipe's we want streams on few processors, by bytes a write.
CROWDED_STREAMS = {
    ONE_CORE: {64: 2.8, 4 * KIB: 2.7, MIB: 7.5},
    BUSY: {64: 3.0, 4 * KIB: 2.8, MIB: 7.7},
}


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    repetitions: int = 5
    stream_seconds: float = 0.1
    close_seconds: float = 0.25  # of each manner of round trips, by those that are compared closely
    ping_seconds: float = 0.1  # and by the others
    busy_seconds: float = 0.4  # of all when the cores are busy: a processor is had for some ms at a time
    longest_pause: float = 1.0  # seconds before a ping, at most
    silence: float = 1.5  # seconds of it at least, before a silent peer is killed
    idle_seconds: float = 20.0 if WINDOWS else 10.0  # Windows counts by 16 ms
    # So much that starting two interpreters is a small part; Windows has no peer for it, and slow pipes.
    script_bytes: int = 128 * MIB if WINDOWS else GIB
    small_files: tuple[int, ...] = (MIB, 16 * MIB) if WINDOWS else (MIB, 16 * MIB, 128 * MIB)
    only: str = ""  # in the names of the rows that are measured

    def has(self, what: str, size: int = 0) -> bool:
        """Whether that row is measured."""
        return self.only in row_name(what, size)

    def script_rows(self) -> list[tuple[str, int]]:
        """What the scripts do: (what, size)."""
        files = [(FILE_TO_NULL, size) for size in (*self.small_files, self.script_bytes)]
        return [row for row in (*files, (PIPE_TO_PIPE, self.script_bytes)) if self.has(*row)]


QUICK = Plan(
    repetitions=2,
    stream_seconds=0.01,
    close_seconds=0.01,
    ping_seconds=0.01,
    busy_seconds=0.01,
    longest_pause=0.02,
    silence=0.01,
    idle_seconds=0.3,
    script_bytes=8 * MIB,
    small_files=(MIB,),
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

    def spread(self, what: str, size: int) -> Spread | None:
        """Of ours."""
        values = self.values.get((what, size, OURS))
        return spread(list(values.values())) if values else None

    def advantage(self, what: str, size: int, label: str, ours_is: str = OURS) -> Spread | None:
        """How many times better we are, over the repetitions that measured both."""
        ours = self.values.get((what, size, ours_is), {})
        theirs = self.values.get((what, size, label), {})
        ratios = [ours[repetition] / theirs[repetition] for repetition in ours if repetition in theirs]
        if not ratios:
            return None
        return spread([1 / ratio for ratio in ratios] if unit(what) == "s" else ratios)


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def unit(what: str) -> str:
    """What it is measured in."""
    if what == IDLE:
        return "% of a core"
    return "s" if what == DEATH or what.startswith(ROUND_TRIP) else "bytes/s"


# ---------------------------------------------------------------- the report


class Target(NamedTuple):
    """A ratio that we want."""

    what: str
    size: int
    against: str
    least: float
    of: str = OURS


class Limit(NamedTuple):
    """What we want to stay below, whatever the others do."""

    what: str
    size: int
    most: float
    worst: float  # of all repetitions


def targets(plan: Plan) -> list[Target]:
    wanted = [
        *(Target(STREAM, size, PIPE, 1.5 if size <= 4 * KIB else 4) for size in SIZES),
        *(Target(STREAM, MIB, label, 0.5) for label in MEMCPY),
        *(
            Target(STREAM + setting.words, size, PIPE, least)
            for setting, sizes in CROWDED_STREAMS.items()
            for size, least in sizes.items()
        ),
        Target(READ_LINES, LINE_SIZE, PIPE, 1),
        Target(WRITE_ITEMS, ITEM_SIZE, PIPE, 5),
        *(
            Target(trip.what + percentile, size, PIPE, least)
            for trip in ROUND_TRIPS
            for percentile, least in (("", trip.least), (P99, trip.least_p99))
            for size in trip.sizes
            if least
        ),
        Target(FILE_TO_NULL, plan.script_bytes, CAT, 3),
        Target(PIPE_TO_PIPE, plan.script_bytes, CAT, 1.5),
        Target(STREAM, 1, HANDSHAKE, 50),
        *(Target(STREAM, size, THEIR_MESSAGES, 3, MESSAGES) for size in (64, 4 * KIB, MIB)),
        *(
            Target(trip.what, size, THEIR_MESSAGES, 1 if trip.pause else 3, MESSAGES)
            for trip in ROUND_TRIPS
            for size in trip.sizes
            if trip.by_all and size > 1
        ),
        Target(REQUEST, 0, THEIR_MESSAGES, 1, MESSAGES),
        *([] if WINDOWS else [Target(ASYNC, 64, PIPE_IN_LOOP, 0.5, IN_LOOP)]),
    ]
    return [target for target in wanted if plan.has(target.what, target.size)]


def limits(plan: Plan) -> list[Limit]:
    idle = 0.1 if WINDOWS else 0.02
    wanted = [Limit(DEATH, 0, 20e-3, 20e-3), Limit(IDLE, 0, idle, idle)]
    if WINDOWS:
        wanted.append(Limit(SILENT.what, 64, 0.5e-3, 5e-3))
    return [limit for limit in wanted if plan.has(limit.what, limit.size)]


def row_name(what: str, size: int) -> str:
    """What a row is called: `stream, 64 KiB`."""
    return f"{what}, {show_size(size)}" if size else what


def show_size(size: int) -> str:
    """Bytes in the unit that fits: `64 KiB`."""
    if size >= GIB:
        return f"{size // GIB} GiB"
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


def cores() -> list[int]:
    """The numbers of those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


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
    return {
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": system,
        "cores": len(cores()),
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
    """A table of medians: a row for each peer, a column for each (what, size), that have any; or nothing."""
    measured = {(what, size) for what, size, _ in results.values}
    columns = {head: column for head, column in columns.items() if column in measured}
    rows = []
    for label in (*(peer.label for peer in PEERS), *MEMCPY, CAT):
        medians = [results.median(what, size, label) for what, size in columns.values()]
        if any(median is not None for median in medians):
            rows.append([label, *(show(median, scale) for median in medians)])
    return table(["peer", *columns], rows) if rows else ""


def round_trips(results: Results) -> str:
    """How we and a pipe do: a row for each manner of them, medians and 99th percentiles; or nothing."""
    rows = []
    for trip in ROUND_TRIPS:
        for size in trip.sizes:
            cells = []
            for what in (trip.what, trip.what + P99):
                cells += [show(results.median(what, size, label), 1e6) for label in CLOSE]
                cells.append(show_ratio(results.advantage(what, size, PIPE)))
            if set(cells) != {"-"}:
                rows.append([row_name(trip.what, size).removeprefix(f"{ROUND_TRIP}, "), *cells])
    head = [f"{label}, {which}" for which in ("p50", "p99") for label in (*CLOSE, "ratio")]
    return table([ROUND_TRIP, *head], rows) if rows else ""


def file_times(plan: Plan, results: Results) -> str:
    """How long the scripts and cat take for files of all sizes; or nothing."""
    rows = []
    for what, size in plan.script_rows():
        if what == FILE_TO_NULL:
            rates = [results.median(what, size, label) for label in (OURS, CAT)]
            times = [show(rate and size / rate, 1e3) for rate in rates]
            rows.append([show_size(size), *times, show_ratio(results.advantage(what, size, CAT))])
    return table(["file", "send.py, receive.py", CAT, "ratio"], rows) if rows else ""


def show_ratio(ratio: Spread | None) -> str:
    return f"{show(ratio.median)} x" if ratio else "-"


def target_row(results: Results, target: Target) -> list[str]:
    ratio = results.advantage(target.what, target.size, target.against, target.of)
    return [
        f"{'' if target.of == OURS else f'{target.of}: '}{row_name(target.what, target.size)}, "
        f"against {target.against}",
        f"at least {target.least:g} x",
        show_ratio(ratio),
        show_spread(ratio),
        "not measured" if not ratio else "ok" if ratio.median >= target.least else "below",
    ]


def limit_row(results: Results, limit: Limit) -> list[str]:
    measured = results.spread(limit.what, limit.size)
    scale, name = (1e3, "ms") if unit(limit.what) == "s" else (1, "%")
    worst = f", worst {limit.worst * scale:g}" if limit.worst > limit.most else ""
    return [
        row_name(limit.what, limit.size),
        f"at most {limit.most * scale:g} {name}{worst}",
        f"{show(measured.median, scale)} {name}" if measured else "-",
        show_spread(measured, scale),
        "not measured" if not measured else "ok" if is_within(measured, limit) else "above",
    ]


def is_within(measured: Spread, limit: Limit) -> bool:
    return measured.median <= limit.most and measured.high <= limit.worst


def show_spread(measured: Spread | None, scale: float = 1) -> str:
    return f"{show(measured.low, scale)} to {show(measured.high, scale)}" if measured else "-"


def report(plan: Plan, results: Results) -> str:
    """Everything, for a person."""
    streams = {show_size(size): (STREAM, size) for size in SIZES}
    crowded = {
        f"{show_size(size)}{setting.words}": (STREAM + setting.words, size)
        for setting, sizes in CROWDED_STREAMS.items()
        for size in sizes
    }
    latencies = {
        f"{show_size(size)}, {trip.manner}": (trip.what, size)
        for trip in ROUND_TRIPS
        if trip.by_all
        for size in trip.sizes
    }
    small_things = ((READ_LINES, LINE_SIZE), (WRITE_ITEMS, ITEM_SIZE))
    scripts = {
        what.removeprefix("scripts, "): (what, plan.script_bytes) for what in (FILE_TO_NULL, PIPE_TO_PIPE)
    }
    tables = [
        ("Streaming: MB/s (10^6 bytes a second) by bytes a write, medians", grid(results, streams, 1e-6)),
        (
            "Streaming on few processors: MB/s by bytes a write, medians; cores busy: each has other work",
            grid(results, crowded, 1e-6),
        ),
        (
            "Lines and small items: MB/s, medians (os.pipe: os.fdopen(fd, 'rb'), and os.write of each item)",
            grid(results, {what: (what, size) for what, size in small_things}, 1e-6),
        ),
        (
            "Round trip: us, medians; apart: each ping comes after so much of nothing",
            grid(results, latencies, 1e6),
        ),
        (
            "Round trip, beside a pipe: us, medians of the repetitions' medians (p50) and 99th percentiles "
            "(p99; of less than a hundred pings the slowest); ratio: how many times faster mmapipc is",
            round_trips(results),
        ),
        (
            "A silent peer is killed: ms until the other end is told, medians",
            grid(results, {"ms": (DEATH, 0)}, 1e3),
        ),
        (
            f"Idle: % of a core that a reader takes which waits for {plan.idle_seconds:g} s, once",
            grid(results, {"%": (IDLE, 0)}, 1),
        ),
        ("Scripts end to end, with the start of every process: MB/s, medians", grid(results, scripts, 1e-6)),
        ("A file to null, with the start of every process: ms, medians", file_times(plan, results)),
    ]
    parts = [first_line(plan), *itertools.chain.from_iterable(pair for pair in tables if pair[1])]
    for title, reasons in (("Not measured", results.missing), ("Failed", results.failed)):
        if reasons:
            parts.append(
                "\n".join(
                    f"{title}: {label}: {' '.join(reason.split())}" for label, reason in reasons.items()
                )
            )
    wanted = [
        *(target_row(results, target) for target in targets(plan)),
        *(limit_row(results, limit) for limit in limits(plan)),
    ]
    if wanted:
        parts += [
            "Targets: how many times faster mmapipc is, or what it takes; the median over the repetitions, "
            "lowest to highest",
            table(["what", "wanted", "measured", "spread", "verdict"], wanted),
        ]
    return "\n\n".join(parts)


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
                "unit": unit(what),
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
            for ratio in [results.advantage(target.what, target.size, target.against, target.of)]
        ],
        "limits": [
            {
                **limit._asdict(),
                "unit": unit(limit.what),
                "measured": measured and measured._asdict(),
                "ok": measured and is_within(measured, limit),
            }
            for limit in limits(plan)
            for measured in [results.spread(limit.what, limit.size)]
        ],
    }
    return json.dumps(document, indent=2)


# ---------------------------------------------------------------- the chart

WIDTH, HEIGHT = 820, 440  # of the chart, in pixels, as are the next
LEFT, RIGHT, TOP, BOTTOM = 80, 230, 56, 52  # margins

# Colours that people with any kind of colour vision tell apart, on white and on near black (after Okabe
# and Ito, "Color Universal Design", 2008); ours is the thick line.
OUR_COLOUR = "#d55e00"
LIMIT_COLOUR = "#8b949e"
COLOURS = ("#2b8fd0", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#a08b00", "#8b7355")
LABEL_HEIGHT = 18  # between two labels, in pixels
STYLE = """
text { font: 13px sans-serif; fill: #1f2328 } .title { font-size: 16px; font-weight: bold }
.middle { text-anchor: middle } .end { text-anchor: end }
path { fill: none; stroke-width: 1.8 } .ours { stroke-width: 4 } .limit { stroke-dasharray: 5 4 }
.ground { fill: #ffffff } .grid { stroke: #d1d9e0; stroke-width: 1 } .leader { stroke-width: 1 }
.name { font-weight: bold }
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


class Plot:
    """The area that the lines are drawn in, both axes logarithmic."""

    def __init__(self, lines: Sequence[Line]) -> None:
        rates = [rate for line in lines for _, rate in line.points]
        self._lowest = math.floor(math.log10(min(rates)))  # powers of ten
        self._highest = math.ceil(math.log10(max(rates)))

    def place(self, size: int, rate: float) -> tuple[float, float]:
        """Where it is drawn, from the left and from the top."""
        return self._x(size), self._y(rate)

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
        places = [self.place(size, rate) for size, rate in line.points]
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        yield f'<path class="{line.kind}" stroke="{line.colour}" d="{path}"/>'
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>'


def labels(lines: Sequence[Line], plot: Plot) -> Iterator[str]:
    """Each line's name at its end; those of lines that end together stand below each other."""
    lowest = 0.0  # where the label above ends
    for line in lines:
        x, y = plot.place(*line.points[-1])
        if x < WIDTH - RIGHT:
            yield text(x + 10, y + 4, line.label)
            continue
        lowest = max(y, lowest + LABEL_HEIGHT)
        leader = f"M{x + 5:.1f} {y:.1f} L{x + 22:.1f} {lowest:.1f}"
        yield f'<path class="leader" stroke="{line.colour}" d="{leader}"/>'
        yield text(x + 27, lowest + 4, line.label, "name" if line.kind == "ours" else "")


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
        *labels(lines, plot),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def show_rate(power: int) -> str:
    """10 to the `power` bytes a second: `10 kB/s`."""
    unit = ("B", "kB", "MB", "GB", "TB")[power // 3]
    return f"{10 ** (power % 3)} {unit}/s"
