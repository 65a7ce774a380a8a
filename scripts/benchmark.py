#!/usr/bin/env python3
"""mmapipc side by side with the other ways to move bytes between two processes.

    python3 scripts/benchmark.py [--quick] [--repeat N] [--only WORD] [--json FILE] [--svg FILE]

Each peer is a pair of processes that stay connected during the whole run: a
writer, which streams and pings, and a reader, which takes and answers.  Every
repetition measures all peers in turn, so what disturbs the machine disturbs
them alike; a ratio is taken within a repetition, and the report gives the
median of these ratios with the lowest and the highest.

A stream's time is from the first byte's sending until the writer has the
reader's acknowledgement of the last.  How much is sent is found for each peer
and size at the start, so that a fast peer and a slow one are measured for the
same time, and then kept.  A round trip's time is from just before the writer's
ping until it has the answer.

mmapipc and os.pipe are also compared with both processes on one core, on two,
and while every core has other work, which this starts and ends.
"""

from __future__ import annotations

import argparse
import asyncio
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
from typing import Any, NamedTuple

from benchmark_peers import KIB, MIB, OURS, PEERS, SIZES, SPAWN, WINDOWS, Connection, Link, Peer, fresh_name
from benchmark_report import (
    ASYNC,
    ASYNC_PAUSE,
    CAT,
    CLOSE,
    CROWDED_STREAMS,
    DEATH,
    FILE_TO_NULL,
    IDLE,
    ITEM_SIZE,
    LINE_SIZE,
    MEMCPY,
    OF_LOOPS,
    OF_MESSAGES,
    ONE_CORE,
    P99,
    PIPE_TO_PIPE,
    QUICK,
    QUIET,
    READ_LINES,
    REQUEST,
    ROUND_TRIPS,
    SETTINGS,
    STREAM,
    TWO_CORES,
    WRITE_ITEMS,
    Plan,
    Results,
    RoundTrip,
    Setting,
    as_json,
    chart,
    cores,
    report,
    row_name,
)

SCRIPTS_FOLDER = Path(__file__).resolve().parent
LINES = 100  # lines a write, items a list
# Linux has it, and few others.
set_affinity: Callable[[int, Sequence[int]], None] | None = getattr(os, "sched_setaffinity", None)
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


def ping(link: Link, size: int, seconds: float, pause: float) -> tuple[float, float]:
    """Median and 99th percentile of the seconds of a round trip of `size` bytes.

    For about so many seconds, and at least once; each ping comes after `pause` seconds.
    """
    data = filled(size)
    buffer = bytearray(size)
    send, receive_into, clock, sleep = link.send, link.receive_into, time.perf_counter, time.sleep
    taken: list[float] = []
    end = clock()
    deadline = end + seconds
    while end < deadline:
        if pause:
            sleep(pause)
        begin = clock()
        send(data)
        left = size
        while left > 0:
            left -= receive_into(buffer)
        end = clock()
        taken.append(end - begin)
    send(bytes(size))  # the last one
    receive_all(link, buffer, size)
    ordered = sorted(taken[len(taken) // 10 :])  # the first tenth was to get warm
    return statistics.median(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1]


def answer_pings(link: Link, size: int) -> None:
    """The other side of `ping`."""
    data = filled(size)
    buffer = bytearray(data)
    send, receive_into = link.send, link.receive_into
    while buffer[0]:  # there are no zeros in any but the last
        left = size
        while left > 0:
            left -= receive_into(buffer)
        send(data)


def request(link: Link, seconds: float) -> float:
    """Median seconds of a question and its answer, each a dict, asked for about so many seconds."""
    assert link.objects
    send, receive = link.objects
    clock = time.perf_counter
    taken: list[float] = []
    end = clock()
    deadline = end + seconds
    while end < deadline:
        begin = clock()
        send({"question": len(taken), "of": "benchmark", "about": [1.5, None, True]})
        receive()
        end = clock()
        taken.append(end - begin)
    send({})  # the last one
    receive()
    return statistics.median(taken[len(taken) // 10 :])


def answer_requests(link: Link) -> None:
    """The other side of `request`."""
    assert link.objects
    send, receive = link.objects
    question: dict[str, Any] = {"question": 0}
    while question:
        question = receive()
        send({"answer": question.get("question"), "of": "benchmark"})


def ping_in_loop(link: Link, size: int, seconds: float) -> float:
    """Median of the seconds of a round trip between two event loops, for about so many seconds."""
    assert link.loop
    _, send, receive = link.loop
    data = filled(size)
    clock = time.perf_counter
    taken: list[float] = []

    async def pings() -> None:
        end = clock()
        deadline = end + seconds
        while end < deadline:
            await asyncio.sleep(ASYNC_PAUSE)
            begin = clock()
            await send(data)
            await receive(size)
            end = clock()
            taken.append(end - begin)
        await send(bytes(size))  # the last one
        await receive(size)

    link.loop.loop.run_until_complete(pings())
    return statistics.median(taken[len(taken) // 10 :])


def answer_in_loop(link: Link, size: int) -> None:
    """The other side of `ping_in_loop`."""
    assert link.loop
    _, send, receive = link.loop

    async def answers() -> None:
        more = True
        while more:
            data = await receive(size)
            more = data[0] != 0  # there are no zeros in any but the last
            await send(data)

    link.loop.loop.run_until_complete(answers())


def await_death(link: Link) -> None:
    """Wait for the other process to die: an error to some, to others the end of a file."""
    with contextlib.suppress(OSError):
        if link.receive_into(bytearray(1)):
            raise ValueError("a silent peer sent something")


def run_on(_: Link, allowed: Sequence[int]) -> None:
    """Have this process run on these cores only."""
    assert set_affinity
    set_affinity(0, allowed)


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
        self.kill: Callable[[], object]
        self._wait: Callable[..., object]
        self._code: Callable[[], int | None]
        with control:
            if peer.spawned:
                spawned = SPAWN.Process(target=serve, args=(control, peer.label, given), daemon=True)
                spawned.start()
                self.kill, self._wait, self._code = spawned.kill, spawned.join, lambda: spawned.exitcode
            else:
                started = start_child(control.fileno(), given if peer.inherits else ())
                self.kill, self._wait, self._code = started.kill, started.wait, lambda: started.returncode
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
        self.kill()  # does nothing to a process that has ended
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


Measured = dict[str, float]  # by what it is


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
                    (to_reader,) = self._answers(self._ends)
                self._ends.append(End(peer, to_reader))
                self._answers(self._ends)
            # Not to be collected: multiprocessing would give that memory to the next peer.
            self._shared = to_writer, to_reader
        except BaseException:
            self.close(patience=0)
            raise

    def _answers(self, ends: Sequence[End]) -> list[Any]:
        """One answer of each of these ends; Failure as soon as one of them fails."""
        results: dict[End, Any] = {}
        deadline = time.monotonic() + LIMIT
        while awaited := [end for end in ends if end not in results]:
            controls = [end.control for end in awaited]
            ready = multiprocessing.connection.wait(controls, deadline - time.monotonic())
            if not ready:
                raise Failure(f"no answer for {LIMIT:g} s")
            for end in awaited:
                if end.control in ready:
                    results[end] = end.answer()
        return [results[end] for end in ends]

    def _both(self, writers: tuple[Any, ...], readers: tuple[Any, ...]) -> Any:
        """Have both do these; returns what came of the writer's."""
        writer, reader = self._ends
        reader.tell(*readers)
        writer.tell(*writers)
        return self._answers(self._ends)[0]

    def _rate(
        self, what: str, tasks: tuple[Callable[..., object], ...], size: int, pieces: int, wanted: float
    ) -> Measured:
        """Bytes a second that these tasks of the writer and the reader move, over about `wanted` seconds.

        They do it some times, `pieces` pieces of `size` bytes each time.
        """

        def seconds(count: int) -> float:
            write, read = tasks
            taken: float = self._both((write, size, count), (read, size, count))
            return taken

        count = self._calibrated((what, size), seconds, wanted)
        return {what: size * pieces * count / seconds(count)}

    def _calibrated(self, key: tuple[str, int], task: Callable[[int], float], wanted: float) -> int:
        """How often to do it for `wanted` seconds; warms the connection up when it finds out."""
        if key not in self._counts:
            count = 1
            # In growing steps: the first times are not like the later ones.
            while (seconds := task(count)) < wanted / 2:
                count = math.ceil(count * min(8, 0.8 * wanted / seconds))
            self._counts[key] = max(1, round(count * wanted / seconds))
        return self._counts[key]

    def stream(self, what: str, size: int, wanted: float) -> Measured:
        """In writes of `size` bytes."""
        return self._rate(what, (write_stream, read_stream), size, 1, wanted)

    def lines(self, what: str, size: int, wanted: float) -> Measured:
        """Read in lines of `size` bytes."""
        return self._rate(what, (write_lines, read_lines), size, LINES, wanted)

    def items(self, what: str, size: int, wanted: float) -> Measured:
        """Written in lists of items of `size` bytes."""
        return self._rate(what, (write_items, read_items), size, LINES, wanted)

    def round_trips(self, trip: RoundTrip, size: int, plan: Plan) -> Measured:
        """Seconds a round trip of `size` bytes."""
        seconds = plan.close_seconds if self.peer.label in CLOSE else plan.ping_seconds
        if trip.setting.busy:
            seconds = plan.busy_seconds
        pause = min(trip.pause, plan.longest_pause)
        median, p99 = self._both((ping, size, seconds, pause), (answer_pings, size))
        return {trip.what: median, trip.what + P99: p99}

    def requests(self, plan: Plan) -> Measured:
        """Seconds a question and its answer, which are pickled."""
        return {REQUEST: self._both((request, plan.ping_seconds), (answer_requests,))}

    def loops(self, size: int, plan: Plan) -> Measured:
        """Seconds a round trip of `size` bytes between two event loops."""
        return {ASYNC: self._both((ping_in_loop, size, plan.close_seconds), (answer_in_loop, size))}

    def part(self) -> None:
        """Have the writer and the reader run on different cores."""
        first, second = cores()[:2]
        self._both((run_on, [first]), (run_on, [second]))

    def unpin(self) -> None:
        """Let them run on every core again."""
        self._both((run_on, cores()), (run_on, cores()))

    def death(self) -> Callable[[], float]:
        """Let the reader wait; returns what kills the writer and gives the seconds until it is told."""
        writer, reader = self._ends
        reader.tell(await_death)

        def kill() -> float:
            begin = time.perf_counter()
            writer.kill()
            self._answers([reader])
            return time.perf_counter() - begin

        return kill

    def idle(self, seconds: float) -> Callable[[], float]:
        """Let the reader wait; returns what gives the percent of a core that it took."""
        writer, reader = self._ends
        reader.tell(wait_idle)
        writer.tell(end_idle, seconds)
        return lambda: self._answers(self._ends)[1]

    def close(self, patience: float = 5.0) -> None:
        """End both processes, giving them so many seconds to do it themselves."""
        for end in self._ends:
            end.dismiss()
        for end in self._ends:
            end.end(patience)
            end.control.close()


# ---------------------------------------------------------------- other work

# Without the site module, to start in little time.
SMALL_PYTHON = (sys.executable, "-I", "-S", "-c")
BUSY_WORK = """
import os, sys, threading
def leave():
    os.read(0, 1)
    os._exit(0)
threading.Thread(target=leave, daemon=True).start()
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, [int(sys.argv[1])])
os.write(1, b"b")
while True:
    pass
"""


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Other work for every core.  It ends with this process too: its standard input does."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for core in cores():
            command = [*SMALL_PYTHON, BUSY_WORK, str(core)]
            pipe = subprocess.PIPE
            processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL))
        for process in processes:
            assert process.stdout
            process.stdout.read(1)  # it has begun
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            with process:  # closes its pipes, and waits
                pass


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

# These are on both sides alike.
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
def prepared(plan: Plan) -> Iterator[dict[int, Job]]:
    """A folder for everything that has a path, in memory where there is room; and the jobs, by size."""
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    sizes = sorted({size for _, size in plan.script_rows()})
    with contextlib.ExitStack() as stack:

        def folder(place: Path | None) -> Path:
            made = tempfile.TemporaryDirectory(
                prefix="mmapipc-benchmark-", dir=place, ignore_cleanup_errors=WINDOWS
            )
            return Path(stack.enter_context(made))

        rings = folder(memory)
        os.environ["MMAPIPC_DIR"] = str(rings)  # so that what a killed child leaves goes with the folder
        roomy = memory and shutil.disk_usage(memory).free > 2 * sum(sizes)
        files = rings if roomy else folder(None)
        jobs = {size: Job(files / f"file-{size}", size, rings / "fifo") for size in sizes}
        for job in jobs.values():
            with job.file.open("wb") as file:
                for _ in range(job.size // MIB):
                    file.write(filled(MIB))
        if not WINDOWS:
            os.mkfifo(rings / "fifo")
        yield jobs


# ---------------------------------------------------------------- the run


@contextlib.contextmanager
def connected(plan: Plan, results: Results, on_one_core: bool) -> Iterator[dict[str, Pair]]:
    """The pairs of all peers that there are and that are needed, by label."""
    wanted = [step for step in wanted_steps(plan) if (step.setting == ONE_CORE) == on_one_core]
    idle = plan.has(IDLE) and not on_one_core
    pairs: dict[str, Pair] = {}
    patience = 0.0  # for the children, when something goes wrong here
    try:
        for peer in PEERS:
            if not idle and not any(step.fits(peer) for step in wanted):
                continue
            if reason := peer.missing():
                results.missing[peer.label] = reason
                continue
            progress(f"connecting {peer.label}")
            try:
                with running_on(cores()[:1]) if on_one_core else contextlib.nullcontext():
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


@contextlib.contextmanager
def running_on(allowed: Sequence[int]) -> Iterator[None]:
    """Run on these cores only, as do all processes that are started meanwhile."""
    assert set_affinity
    before = cores()
    set_affinity(0, allowed)
    try:
        yield
    finally:
        set_affinity(0, before)


class Step(NamedTuple):
    """Something that each repetition measures of pairs."""

    what: str
    size: int  # bytes
    measure: Callable[[Pair], Measured]
    setting: Setting = QUIET
    by_all: bool = False  # of all peers that have the size; otherwise of these
    of: Sequence[str] = CLOSE

    def fits(self, peer: Peer) -> bool:
        return self.size in peer.sizes if self.by_all else peer.label in self.of


def steps(plan: Plan) -> Iterator[Step]:
    """All of them, in the order in which they are measured."""
    seconds = plan.stream_seconds
    for size in SIZES:
        yield Step(STREAM, size, methodcaller("stream", STREAM, size, seconds), by_all=True)
    yield Step(READ_LINES, LINE_SIZE, methodcaller("lines", READ_LINES, LINE_SIZE, seconds))
    yield Step(WRITE_ITEMS, ITEM_SIZE, methodcaller("items", WRITE_ITEMS, ITEM_SIZE, seconds))
    yield Step(REQUEST, 0, methodcaller("requests", plan), of=OF_MESSAGES)
    yield Step(ASYNC, 64, methodcaller("loops", 64, plan), of=OF_LOOPS)
    for setting in SETTINGS:
        for trip in ROUND_TRIPS:
            if trip.setting == setting:
                for size in trip.sizes:
                    measure = methodcaller("round_trips", trip, size, plan)
                    yield Step(trip.what, size, measure, setting, trip.by_all)
        for size in CROWDED_STREAMS.get(setting, ()):
            what = STREAM + setting.words
            longer = plan.busy_seconds if setting.busy else seconds
            yield Step(what, size, methodcaller("stream", what, size, longer), setting)


def wanted_steps(plan: Plan) -> Iterator[Step]:
    """Those that the plan has, without those whose setting is not to be had."""
    for step in steps(plan):
        if plan.has(step.what, step.size) and not unavailable(step.setting):
            yield step


def unavailable(setting: Setting) -> str | None:
    """Why nothing can be measured there, if so."""
    if setting.cores and not set_affinity:
        return "a process cannot be pinned on this system"
    if setting.cores > len(cores()):
        return "there is only one"
    return None


def measure_pairs(
    plan: Plan, repetition: int, free: dict[str, Pair], together: dict[str, Pair], results: Results
) -> None:
    """Of the pairs on one core, which are `together`, and of those that are free to run on any."""
    for setting, group in itertools.groupby(wanted_steps(plan), key=lambda step: step.setting):
        with busy_cores() if setting.busy else contextlib.nullcontext():
            for step in group:
                measure_step(step, repetition, together if setting == ONE_CORE else free, results)


def measure_step(step: Step, repetition: int, pairs: dict[str, Pair], results: Results) -> None:
    for label, pair in list(pairs.items()):
        if step.fits(pair.peer):
            with dropped_if_failing(pair, row_name(step.what, step.size), pairs, results):
                # mmapipc asks at its start how many processors it has: it had two then, and has now.
                if step.setting == TWO_CORES:
                    pair.part()
                measured = step.measure(pair)
                if step.setting == TWO_CORES:
                    pair.unpin()
                for what, value in measured.items():
                    results.add(what, step.size, label, repetition, value)


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
            results.add(IDLE, 0, pair.peer.label, 0, percent())


def measure_death(plan: Plan, repetition: int, results: Results) -> None:
    """One kill after the other; before, they are silent at the same time."""
    pairs: dict[str, Pair] = {}
    with contextlib.ExitStack() as stack:
        for peer in PEERS:
            if peer.label in CLOSE:
                with failing(f"{DEATH}, {peer.label}", results):
                    pairs[peer.label] = Pair(peer)
                    stack.callback(pairs[peer.label].close, patience=0)
        kills = {label: pair.death() for label, pair in pairs.items()}
        # Another one each time, to catch those that look every so often at all moments.
        time.sleep(plan.silence + 0.1 * repetition)
        for label, kill in kills.items():
            with failing(f"{DEATH}, {label}", results):
                results.add(DEATH, 0, label, repetition, kill())


@contextlib.contextmanager
def failing(step: str, results: Results) -> Iterator[None]:
    try:
        yield
    except (Failure, OSError) as failure:
        results.failed[step] = str(failure)


def measure_memcpy(plan: Plan, repetition: int, results: Results) -> None:
    for label, working_set in MEMCPY.items():
        results.add(STREAM, MIB, label, repetition, memcpy(working_set, plan.stream_seconds))


def measure_scripts(plan: Plan, repetition: int, jobs: dict[int, Job], results: Results) -> None:
    for row, size in plan.script_rows():
        for what, label, arrange in JOBS:
            failed = f"{row_name(what, size)}, {label}"
            if what != row or label in results.missing or failed in results.failed:
                continue
            with failing(failed, results):
                results.add(what, size, label, repetition, rate_of(arrange, jobs[size]))


def run(plan: Plan) -> Results:
    """Measure everything that is wanted."""
    results = Results()
    if WINDOWS and plan.script_rows():
        results.missing[CAT] = "not on Windows"
    for step in steps(plan):
        if plan.has(step.what, step.size) and (reason := unavailable(step.setting)):
            results.missing[step.setting.words.removeprefix(", ")] = reason
    with contextlib.ExitStack() as stack:
        jobs = stack.enter_context(prepared(plan))
        pairs = stack.enter_context(connected(plan, results, on_one_core=False))
        together = stack.enter_context(connected(plan, results, on_one_core=True))
        for repetition in range(plan.repetitions):
            progress(f"repetition {repetition + 1} of {plan.repetitions}")
            measure_pairs(plan, repetition, pairs, together, results)
            if plan.has(STREAM, MIB):
                measure_memcpy(plan, repetition, results)
            if plan.has(DEATH):
                measure_death(plan, repetition, results)
            measure_scripts(plan, repetition, jobs, results)
        if plan.has(IDLE):
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
    parser.add_argument(
        "--only", default="", metavar="WORD", help="only rows that have this in their name, like 'one core'"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the streaming throughput there")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.svg and arguments.only:
        parser.error("--svg needs all streams: not with --only")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if arguments.child is not None:
        child(arguments.child)
        return 0
    # Like Ctrl-C: leave the orderly way, with the children.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    plan = replace(QUICK if arguments.quick else Plan(), only=arguments.only)
    if arguments.repeat:
        plan = replace(plan, repetitions=arguments.repeat)
    try:
        results = run(plan)
    except KeyboardInterrupt:
        return 130
    progress("")
    if not (results.values or results.failed or results.missing):
        print(f"nothing that is measured has {plan.only!r} in its name", file=sys.stderr)
        return 2
    print(report(plan, results))
    if arguments.json:
        arguments.json.write_text(as_json(plan, results) + "\n", encoding="utf-8")
    if arguments.svg:
        arguments.svg.write_text(chart(results), encoding="utf-8")
    return 1 if any(OURS in label for label in results.failed) else 0


if __name__ == "__main__":
    sys.exit(main())
