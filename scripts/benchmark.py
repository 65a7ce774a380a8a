#!/usr/bin/env python3
"""mmapipc side by side with the other ways to move bytes between two processes.

    python3 scripts/benchmark.py [--quick] [--repeat N] [--json FILE] [--svg FILE]

Each peer is a pair of processes that stay connected during the whole run: a
writer, which streams and pings, and a reader, which takes and answers.  Every
repetition measures all peers in turn, so what disturbs the machine disturbs
them alike; a ratio is taken within a repetition, and the report gives the
median of these ratios with the lowest and the highest.

A stream's time is from the first byte's sending until the writer has the
reader's acknowledgement of the last.  How much is sent is found for each peer
and size at the start, so that a fast peer and a slow one are measured for the
same time, and then kept.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import itertools
import math
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import methodcaller
from pathlib import Path
from typing import Any

from benchmark_peers import KIB, MIB, OURS, PEERS, SIZES, SPAWN, WINDOWS, Connection, Link, Peer, fresh_name
from benchmark_report import (
    AWAKE,
    CAT,
    FILE_TO_NULL,
    IDLE,
    ITEM_SIZE,
    LINE_SIZE,
    MEMCPY,
    PARKED,
    PING_SIZES,
    PIPE_TO_PIPE,
    QUICK,
    READ_LINES,
    STREAM,
    WRITE_ITEMS,
    Plan,
    Results,
    as_json,
    chart,
    report,
    show_size,
)

SCRIPTS_FOLDER = Path(__file__).resolve().parent
LINES = 100  # lines a write, items a list
LIMIT = 30.0  # seconds that any one thing a child is told to do may take


# ---------------------------------------------------------------- what a child does


def filled(size: int) -> bytes:
    """Bytes in memory of their own: fresh zeros may all be one page of the system's."""
    return b"\xa5" * size


def receive_all(link: Link, buffer: bytearray, size: int) -> None:
    while size > 0:
        size -= link.receive_into(buffer)


def write_stream(link: Link, size: int, count: int) -> float:
    """Write `count` times `size` bytes; seconds until the reader has them all."""
    data = filled(size)
    send = link.send
    answer = bytearray(1)
    link.receive_into(answer)  # the reader is ready
    begin = time.perf_counter()
    for _ in itertools.repeat(None, count):
        send(data)
    link.flush()
    link.receive_into(answer)
    return time.perf_counter() - begin


def read_stream(link: Link, size: int, count: int) -> None:
    """The other side of `write_stream`."""
    buffer = bytearray(filled(max(size, 64 * KIB)))
    link.send(b"r")
    receive_all(link, buffer, size * count)
    link.send(b"a")


def write_lines(link: Link, size: int, count: int) -> float:
    """Write `count` times a page of lines of `size` bytes; seconds until the reader has them all."""
    data = line_of(size) * LINES
    answer = bytearray(1)
    link.receive_into(answer)  # the reader is ready
    begin = time.perf_counter()
    for _ in itertools.repeat(None, count):
        link.send(data)
    link.receive_into(answer)
    return time.perf_counter() - begin


def read_lines(link: Link, size: int, count: int) -> None:
    """The other side of `write_lines`: loops over a buffered file."""
    assert link.lines is not None
    link.send(b"r")
    for line in itertools.islice(link.lines(), LINES * count):
        assert line
    link.send(b"a")


def write_items(link: Link, size: int, count: int) -> float:
    """Write `count` lists of items of `size` bytes; seconds until the reader has them all."""
    assert link.send_items is not None
    items = [line_of(size)] * LINES
    answer = bytearray(1)
    link.receive_into(answer)  # the reader is ready
    begin = time.perf_counter()
    for _ in itertools.repeat(None, count):
        link.send_items(items)
    link.receive_into(answer)
    return time.perf_counter() - begin


def read_items(link: Link, size: int, count: int) -> None:
    """The other side of `write_items`."""
    read_stream(link, size, LINES * count)


def line_of(size: int) -> bytes:
    return b"x" * (size - 1) + b"\n"


def ping_awake(link: Link, size: int, rounds: int) -> float:
    """Seconds that `rounds` round trips of `size` bytes take, one right after the other."""
    data = filled(size)
    buffer = bytearray(size)
    send, receive_into = link.send, link.receive_into
    begin = time.perf_counter()
    for _ in itertools.repeat(None, rounds):
        send(data)
        left = size
        while left > 0:
            left -= receive_into(buffer)
    return time.perf_counter() - begin


def ping_parked(link: Link, size: int, rounds: int, pause: float) -> float:
    """Seconds of the median round trip of `size` bytes, each `pause` seconds after the one before."""
    data = filled(size)
    buffer = bytearray(size)
    taken = []
    for _ in range(rounds):
        time.sleep(pause)
        begin = time.perf_counter()
        link.send(data)
        receive_all(link, buffer, size)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def answer_pings(link: Link, size: int, rounds: int) -> None:
    """The other side of the pings."""
    data = filled(size)
    buffer = bytearray(size)
    send, receive_into = link.send, link.receive_into
    for _ in itertools.repeat(None, rounds):
        left = size
        while left > 0:
            left -= receive_into(buffer)
        send(data)


def wait_idle(link: Link) -> float:
    """Percent of a core that waiting for a byte costs; a clock of 16 ms on Windows counts it."""
    processor, wall = time.process_time(), time.perf_counter()
    link.receive_into(bytearray(1))
    return 100 * (time.process_time() - processor) / (time.perf_counter() - wall)


def end_idle(link: Link, seconds: float) -> None:
    """The other side of `wait_idle`: the byte comes after so many seconds."""
    time.sleep(seconds)
    link.send(b"e")


def serve(control: Connection, label: str, given: Any) -> None:
    """A child's life: open the link, do what the parent says, leave when it says so or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its children
    try:
        with bounded():
            link = open_link(control, label, given)
        control.send((True, None))
        while order := control.recv():
            task, *arguments = order
            with bounded():
                result = task(link, *arguments)
            control.send((True, result))
        with bounded():
            link.close()
    except EOFError:
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            control.send((False, f"{type(error).__name__}: {error}"))


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """End this process when what it does takes for ever and the parent could not end it."""
    faulthandler.dump_traceback_later(2 * LIMIT, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def open_link(control: Connection, label: str, given: Any) -> Link:
    peer = next(peer for peer in PEERS if peer.label == label)
    if peer.meet:
        return peer.meet(given, lambda address: control.send((True, address)))
    assert peer.open
    return peer.open(given)


def child(handle: int) -> None:
    """What this file does as a child that inherited a handle of its control connection."""
    control = Connection(handle)
    serve(control, *control.recv())


# ---------------------------------------------------------------- the parent's hold on them


class Failure(Exception):
    """A peer could not be measured; the text says why, in a line."""


class End:
    """A child process that holds one end of a peer's connection."""

    def __init__(self, peer: Peer, given: Any) -> None:
        self.control, control = multiprocessing.Pipe()
        self._kill: Callable[[], object]
        self._wait: Callable[..., object]
        self._code: Callable[[], int | None]
        with control:
            if peer.spawned:
                spawned = SPAWN.Process(target=serve, args=(control, peer.label, given), daemon=True)
                spawned.start()
                self._kill, self._wait, self._code = spawned.kill, spawned.join, lambda: spawned.exitcode
            else:
                started = start_child(control.fileno(), given if peer.inherits else ())
                self._kill, self._wait, self._code = started.kill, started.wait, lambda: started.returncode
                self.control.send((peer.label, given))

    def tell(self, task: Callable[..., object], *arguments: object) -> None:
        """Have it call `task(link, *arguments)`."""
        with contextlib.suppress(OSError):  # that it has ended is for answer() to say
            self.control.send((task, *arguments))

    def answer(self) -> Any:
        """What came of it; for the caller to know that there is an answer."""
        try:
            well, result = self.control.recv()
        except (EOFError, OSError):
            self.end(patience=1)
            raise Failure(f"its process ended with exit code {self._code()}") from None
        if not well:
            raise Failure(result)
        return result

    def dismiss(self) -> None:
        """Tell it to leave."""
        with contextlib.suppress(OSError):
            self.control.send(None)

    def end(self, patience: float) -> None:
        """Wait until it has left, for so many seconds; then end it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(patience)
        self._kill()  # does nothing to a process that has ended
        self._wait()


def start_child(control: int, handles: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start this file as a child that inherits these handles."""
    inherited = [control, *handles]
    options: dict[str, Any] = {"pass_fds": inherited}
    if WINDOWS:
        for handle in inherited:
            os.set_handle_inheritable(handle, True)
        options = {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": inherited})}
    return subprocess.Popen(
        [sys.executable, __file__, "--child", str(control)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,
    )


class Pair:
    """The writer and the reader of a peer, connected."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._ends: list[End] = []
        self._counts: dict[tuple[str, int], int] = {}
        try:
            with contextlib.ExitStack() as parents_handles:
                to_writer, to_reader = peer.share(parents_handles) if peer.share else (None, None)
                self._ends.append(End(peer, to_writer))
                if peer.meet:
                    (to_reader,) = self._answers()
                self._ends.append(End(peer, to_reader))
                self._answers()
            # Not to be collected: multiprocessing would give that memory to the next peer.
            self._shared = to_writer, to_reader
        except BaseException:
            self.close(patience=0)
            raise

    def _answers(self) -> list[Any]:
        """One answer of each end; Failure as soon as one of them fails."""
        results: dict[End, Any] = {}
        deadline = time.monotonic() + LIMIT
        while awaited := [end for end in self._ends if end not in results]:
            controls = [end.control for end in awaited]
            ready = multiprocessing.connection.wait(controls, deadline - time.monotonic())
            if not ready:
                raise Failure(f"no answer for {LIMIT:g} s")
            for end in awaited:
                if end.control in ready:
                    results[end] = end.answer()
        return [results[end] for end in self._ends]

    def _both(self, writers: tuple[Any, ...], readers: tuple[Any, ...]) -> float:
        """Have both do these; returns the seconds that the writer took."""
        writer, reader = self._ends
        reader.tell(*readers)
        writer.tell(*writers)
        seconds: float = self._answers()[0]
        return seconds

    def _calibrated(self, what: str, task: Callable[[int, int], float], size: int, wanted: float) -> int:
        """How often to do it for `wanted` seconds; warms the connection up when it finds out."""
        key = what, size
        if key not in self._counts:
            count = 1
            # In growing steps: the first times are not like the later ones.
            while (seconds := task(size, count)) < wanted / 2:
                count = math.ceil(count * min(8, 0.8 * wanted / seconds))
            self._counts[key] = max(1, round(count * wanted / seconds))
        return self._counts[key]

    def _stream(self, size: int, count: int) -> float:
        return self._both((write_stream, size, count), (read_stream, size, count))

    def _awake(self, size: int, rounds: int) -> float:
        return self._both((ping_awake, size, rounds), (answer_pings, size, rounds))

    def stream(self, size: int, wanted: float) -> float:
        """Bytes a second, in writes of `size` bytes, over about `wanted` seconds."""
        count = self._calibrated(STREAM, self._stream, size, wanted)
        return size * count / self._stream(size, count)

    def lines(self, size: int, wanted: float) -> float:
        """Bytes a second, read in lines of `size` bytes, over about `wanted` seconds."""
        count = self._calibrated(READ_LINES, self._lines, size, wanted)
        return size * LINES * count / self._lines(size, count)

    def items(self, size: int, wanted: float) -> float:
        """Bytes a second, written in lists of items of `size` bytes, over about `wanted` seconds."""
        count = self._calibrated(WRITE_ITEMS, self._items, size, wanted)
        return size * LINES * count / self._items(size, count)

    def _lines(self, size: int, count: int) -> float:
        return self._both((write_lines, size, count), (read_lines, size, count))

    def _items(self, size: int, count: int) -> float:
        return self._both((write_items, size, count), (read_items, size, count))

    def awake(self, size: int, wanted: float) -> float:
        """Seconds a round trip of `size` bytes, one right after the other, over about `wanted` seconds."""
        rounds = self._calibrated(AWAKE, self._awake, size, wanted)
        return self._awake(size, rounds) / rounds

    def parked(self, size: int, rounds: int, pause: float) -> float:
        """Seconds a round trip of `size` bytes, each after a pause of so many seconds."""
        return self._both((ping_parked, size, rounds, pause), (answer_pings, size, rounds))

    def idle(self, seconds: float) -> Callable[[], float]:
        """Let the reader wait; returns what gives the percent of a core that it took."""
        writer, reader = self._ends
        reader.tell(wait_idle)
        writer.tell(end_idle, seconds)
        return lambda: self._answers()[1]

    def close(self, patience: float = 5.0) -> None:
        """End both processes, giving them so many seconds to do it themselves."""
        for end in self._ends:
            end.dismiss()
        for end in self._ends:
            end.end(patience)
            end.control.close()


# ---------------------------------------------------------------- memcpy


def memcpy(working_set: int, wanted: float) -> float:
    """Bytes a second copied in pieces of 1 MiB out of so many bytes, over about `wanted` seconds."""
    pieces = [filled(MIB) for _ in range(working_set // MIB)]
    copied = 0
    with memoryview(bytearray(filled(MIB))) as target:
        for piece in pieces:
            target[:] = piece
        begin = time.perf_counter()
        while (seconds := time.perf_counter() - begin) < wanted:
            for piece in pieces:
                target[:] = piece
            copied += working_set
    return copied / seconds


# ---------------------------------------------------------------- the scripts

# Without the site module, to start in little time; they are on both sides alike.
SMALL_PYTHON = (sys.executable, "-I", "-S", "-c")
PRODUCER = """
import os, sys
left, piece = int(sys.argv[1]), b"\\xa5" * (1 << 17)
while left:
    left -= os.write(1, piece[:left])
"""
CONSUMER = """
import sys
left, buffer = int(sys.argv[1]), bytearray(1 << 17)
with open(0, "rb", buffering=0) as file:
    while count := file.readinto(buffer):
        left -= count
sys.exit(left != 0)
"""


class Processes:
    """Some processes that are one job."""

    def __init__(self) -> None:
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, label: str, *command: str, source: Any = subprocess.DEVNULL, sink: Any = subprocess.DEVNULL
    ) -> Any:
        """Start one; returns its standard output, where `sink` is subprocess.PIPE."""
        process = subprocess.Popen(command, stdin=source, stdout=sink, stderr=subprocess.PIPE)
        self._started[label] = process
        if source is not subprocess.DEVNULL:
            source.close()  # the process has it; with ours open, its other end would not see that it ends
        return process.stdout

    def kill(self) -> None:
        """End those that still run."""
        for process in self._started.values():
            process.kill()

    def wait(self) -> None:
        """Wait until all have ended, by themselves or at the time limit."""
        # Not wait(timeout), which on POSIX looks only every 50 ms.
        killer = threading.Timer(LIMIT, self.kill)
        killer.start()
        try:
            for process in self._started.values():
                process.wait()
        finally:
            killer.cancel()

    def troubles(self) -> str:
        """Of those that ended badly, the exit code and what they said; to be asked once."""
        found = []
        for label, process in self._started.items():
            words = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
            if process.returncode:
                found.append(f"{label} ended with exit code {process.returncode}: {words or 'no words'}")
        return "; ".join(found)

    def dispose(self) -> None:
        """End and close everything."""
        self.kill()
        for process in self._started.values():
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


@dataclass(frozen=True)
class Job:
    """What the scripts, and `cat`, are to move."""

    file: Path
    size: int  # of the file, in bytes
    fifo: Path


Arrange = Callable[[Processes, Job], None]


def produce(processes: Processes, job: Job) -> Any:
    return processes.start("producer", *SMALL_PYTHON, PRODUCER, str(job.size), sink=subprocess.PIPE)


def consume(processes: Processes, job: Job, source: Any) -> None:
    processes.start("consumer", *SMALL_PYTHON, CONSUMER, str(job.size), source=source)


def script(name: str) -> tuple[str, str]:
    return sys.executable, str(SCRIPTS_FOLDER / name)


def cat_into(fifo: Path, *files: Path) -> list[str]:
    return ["sh", "-c", 'fifo=$1; shift; exec cat "$@" > "$fifo"', "sh", str(fifo), *map(str, files)]


def file_to_null(processes: Processes, job: Job) -> None:
    name = fresh_name()
    processes.start("receive.py", *script("receive.py"), name)
    processes.start("send.py", *script("send.py"), name, str(job.file))


def file_to_null_by_cat(processes: Processes, job: Job) -> None:
    processes.start("cat from FIFO", "cat", str(job.fifo))
    processes.start("cat to FIFO", *cat_into(job.fifo, job.file))


def pipe_to_pipe(processes: Processes, job: Job) -> None:
    name = fresh_name()
    consume(processes, job, processes.start("receive.py", *script("receive.py"), name, sink=subprocess.PIPE))
    processes.start("send.py", *script("send.py"), name, source=produce(processes, job))


def pipe_to_pipe_by_cat(processes: Processes, job: Job) -> None:
    consume(processes, job, processes.start("cat from FIFO", "cat", str(job.fifo), sink=subprocess.PIPE))
    processes.start("cat to FIFO", *cat_into(job.fifo), source=produce(processes, job))


JOBS: tuple[tuple[str, str, Arrange], ...] = (
    (FILE_TO_NULL, OURS, file_to_null),
    (FILE_TO_NULL, CAT, file_to_null_by_cat),
    (PIPE_TO_PIPE, OURS, pipe_to_pipe),
    (PIPE_TO_PIPE, CAT, pipe_to_pipe_by_cat),
)


def rate_of(arrange: Arrange, job: Job) -> float:
    """Bytes a second from before the first process's start to after the last one's end."""
    processes = Processes()
    try:
        begin = time.perf_counter()
        arrange(processes, job)
        processes.wait()
        seconds = time.perf_counter() - begin
        if troubles := processes.troubles():
            raise Failure(troubles)
    finally:
        processes.dispose()
    return job.size / seconds


@contextlib.contextmanager
def prepared(size: int) -> Iterator[Job]:
    """A folder for everything that has a path, in memory where there is room; and the job."""
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with contextlib.ExitStack() as stack:

        def folder(place: Path | None) -> Path:
            made = tempfile.TemporaryDirectory(
                prefix="mmapipc-benchmark-", dir=place, ignore_cleanup_errors=WINDOWS
            )
            return Path(stack.enter_context(made))

        rings = folder(memory)
        os.environ["MMAPIPC_DIR"] = str(rings)  # so that what a killed child leaves goes with the folder
        roomy = memory and shutil.disk_usage(memory).free > 2 * size
        job = Job((rings if roomy else folder(None)) / "file", size, rings / "fifo")
        with job.file.open("wb") as file:
            for _ in range(size // MIB):
                file.write(filled(MIB))
        if not WINDOWS:
            os.mkfifo(job.fifo)
        yield job


# ---------------------------------------------------------------- the run


@contextlib.contextmanager
def connected(results: Results) -> Iterator[dict[str, Pair]]:
    """The pairs of all peers that there are, by label."""
    pairs: dict[str, Pair] = {}
    patience = 0.0  # for the children, when something goes wrong here
    try:
        for peer in PEERS:
            if reason := peer.missing():
                results.missing[peer.label] = reason
                continue
            progress(f"connecting {peer.label}")
            try:
                pairs[peer.label] = Pair(peer)
            except Failure as failure:
                results.failed[peer.label] = f"connecting: {failure}"
            except Exception as error:  # whatever a package throws
                results.failed[peer.label] = f"connecting: {type(error).__name__}: {error}"
        yield pairs
        patience = 5.0
    finally:
        for pair in pairs.values():
            pair.close(patience)


def steps(plan: Plan) -> Iterator[tuple[str, int, Callable[[Pair], float]]]:
    """What each repetition measures of every pair: (what, size in bytes, how)."""
    for size in SIZES:
        yield STREAM, size, methodcaller("stream", size, plan.stream_seconds)
    yield READ_LINES, LINE_SIZE, methodcaller("lines", LINE_SIZE, plan.stream_seconds)
    yield WRITE_ITEMS, ITEM_SIZE, methodcaller("items", ITEM_SIZE, plan.stream_seconds)
    for size in PING_SIZES:
        yield AWAKE, size, methodcaller("awake", size, plan.awake_seconds)
        yield PARKED, size, methodcaller("parked", size, plan.parked_rounds, plan.parked_pause)


def measure_pairs(plan: Plan, repetition: int, pairs: dict[str, Pair], results: Results) -> None:
    for what, size, measure in steps(plan):
        for pair in list(pairs.values()):
            if pair.peer.has_files if what in (READ_LINES, WRITE_ITEMS) else size in pair.peer.sizes:
                with dropped_if_failing(pair, f"{what}, {show_size(size)}", pairs, results):
                    results.add(what, size, pair.peer.label, repetition, measure(pair))


@contextlib.contextmanager
def dropped_if_failing(pair: Pair, step: str, pairs: dict[str, Pair], results: Results) -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        label = pair.peer.label
        results.failed[label] = f"{step}: {failure}"
        pairs.pop(label).close(patience=0)


def measure_idle(plan: Plan, pairs: dict[str, Pair], results: Results) -> None:
    """All at the same time: those that do nothing do not disturb each other."""
    waiting = [(pair, pair.idle(plan.idle_seconds)) for pair in pairs.values()]
    for pair, percent in waiting:
        with dropped_if_failing(pair, IDLE, pairs, results):
            results.add(IDLE, 1, pair.peer.label, 0, percent())


def measure_memcpy(plan: Plan, repetition: int, results: Results) -> None:
    for label, working_set in MEMCPY.items():
        results.add(STREAM, MIB, label, repetition, memcpy(working_set, plan.stream_seconds))


def measure_scripts(repetition: int, job: Job, results: Results) -> None:
    for what, label, arrange in JOBS:
        if label in results.missing or f"{what}, {label}" in results.failed:
            continue
        try:
            results.add(what, job.size, label, repetition, rate_of(arrange, job))
        except (Failure, OSError) as failure:
            results.failed[f"{what}, {label}"] = str(failure)


def run(plan: Plan) -> Results:
    """Measure everything."""
    results = Results()
    if WINDOWS:
        results.missing[CAT] = "not on Windows"
    with prepared(plan.script_bytes) as job, connected(results) as pairs:
        for repetition in range(plan.repetitions):
            progress(f"repetition {repetition + 1} of {plan.repetitions}")
            measure_pairs(plan, repetition, pairs, results)
            measure_memcpy(plan, repetition, results)
            measure_scripts(repetition, job, results)
        progress("idle")
        measure_idle(plan, pairs, results)
    return results


def progress(text: str) -> None:
    """For a person who waits."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the command


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare mmapipc with other ways to move bytes between processes."
    )
    parser.add_argument(
        "--quick", action="store_true", help="try everything, in seconds; the numbers mean little"
    )
    parser.add_argument("--repeat", type=positive, metavar="N", help="repetitions (default: 5, quick 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the streaming throughput there")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    if arguments.child is not None:
        child(arguments.child)
        return 0
    # Like Ctrl-C: leave the orderly way, with the children.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    plan = QUICK if arguments.quick else Plan()
    if arguments.repeat:
        plan = replace(plan, repetitions=arguments.repeat)
    try:
        results = run(plan)
    except KeyboardInterrupt:
        return 130
    progress("")
    print(report(plan, results))
    if arguments.json:
        arguments.json.write_text(as_json(plan, results) + "\n", encoding="utf-8")
    if arguments.svg:
        arguments.svg.write_text(chart(results), encoding="utf-8")
    return 1 if any(OURS in label for label in results.failed) else 0


if __name__ == "__main__":
    sys.exit(main())
