"""What the tests share: channels of their own, child processes, deadlines."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mmapipc
from mmapipc._system import system

WINDOWS = os.name == "nt"
# Seconds after which a test that waits has failed.
DEADLINE = 120.0 * float(os.environ.get("MMAPIPC_TEST_PATIENCE", "1"))
# Each line is one write, so that those of two processes do not mix (print makes two when unbuffered).
PRELUDE = f"""import sys, os, time, mmapipc; name = sys.argv[1]; DEADLINE = {DEADLINE}
def say(x): sys.stdout.write(f'{{x}}\\n'); sys.stdout.flush()
"""

# A receiver that says when it has its role, and waits.
WAITS = """
from mmapipc._meeting import homes
attempt = homes.Claiming.attempt
def told(self, role):
    claimed = attempt(self, role)
    if claimed is not None:
        say('claimed')
    return claimed
homes.Claiming.attempt = told
mmapipc.Receiver(name)
"""

# Says, of the next end that waits for a role, the pid of who has it.
MEETS = """
from mmapipc._meeting import homes
attempt = homes.Claiming.attempt
def told(self, role):
    claimed = attempt(self, role)
    if self.rival is not None:
        homes.Claiming.attempt = attempt
        say(self.rival)
    return claimed
homes.Claiming.attempt = told
"""

# For what it imports, `site` takes on many machines longer than all the rest; it finds an installed package.
IS_INSTALLED = Path(mmapipc.__file__).resolve().parent.parent != Path(__file__).resolve().parent.parent
PYTHON = [sys.executable, *(() if IS_INSTALLED else ("-S",))]
MMAPIPC = [*PYTHON, "-m", "mmapipc"]

needs_bells = unittest.skipIf("MMAPIPC_NO_BELLS" in os.environ, "the bells are switched off")

_numbers = itertools.count(1)


def _choose_environment() -> None:
    """Let the tests and their children run in the same world everywhere, not in that of who started them."""
    for name in list(os.environ):
        ours = name.startswith(("PYTHON", "LC_")) or name in ("LANGUAGE", "COLUMNS", "LINES")
        if ours and name != "PYTHONPATH":
            del os.environ[name]
    os.environ["LANG"] = "C.UTF-8"
    if sys.dont_write_bytecode:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    if sys.pycache_prefix:
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    # Children are as strict as we are: -X dev, -W.
    if sys.flags.dev_mode:
        os.environ["PYTHONDEVMODE"] = "1"
    if sys.warnoptions:
        os.environ["PYTHONWARNINGS"] = ",".join(sys.warnoptions)
    os.umask(0o022)


def _hear_signals() -> None:
    """As a shell starts us; what it starts in the background ignores some, and so would the children."""
    for signal_name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, signal_name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if signal_name == "SIGINT" else signal.SIG_DFL)


if os.environ.get("MMAPIPC_TEST_ENVIRONMENT") != "given":  # which is then what is tested
    _choose_environment()
_hear_signals()


def alone(test: Any) -> Any:
    """Let nothing else of ours run beside this test, or class: what it looks for depends on the time."""
    test.alone = True
    return test


def apart(test: type) -> type:
    """Let the tests of this class, which take long, begin first, and run side by side."""
    test.apart = True  # type: ignore[attr-defined]
    return test


def by_signal(number: int) -> int:
    """The return code of a process that such a signal has ended; on Windows, what a shell would show."""
    return 128 + number if WINDOWS else -number


def noise(size: int, seed: int = 1) -> bytes:
    """Pseudo-random bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until the condition holds; fail after the deadline."""
    end = time.perf_counter() + DEADLINE
    while not condition():
        if time.perf_counter() > end:
            raise AssertionError(f"not within {DEADLINE:g} s: {what}")
        time.sleep(0.002)


def open_handles() -> int:
    """How many descriptors this process has open; on Windows, handles."""
    if WINDOWS:
        return _open_handles()
    return len(os.listdir("/dev/fd")) - 1  # less the one that looks


def _open_handles() -> int:
    """From the list of those of all processes: GetProcessHandleCount of Wine says 0."""
    import ctypes
    import gc
    import struct

    gc.collect()  # a lock of CPython 3.10 is a handle too
    everybodys, too_short = 64, 0xC0000004  # SystemExtendedHandleInformation, STATUS_INFO_LENGTH_MISMATCH
    size = 1 << 16
    while True:
        buffer = ctypes.create_string_buffer(size)
        status = ctypes.windll.ntdll.NtQuerySystemInformation(everybodys, buffer, size, None) & 0xFFFFFFFF
        if status != too_short:
            break
        size *= 2
    if status:
        raise OSError(f"NtQuerySystemInformation: {status:#x}")
    (count,) = struct.unpack_from("Q", buffer)
    # Of 40 bytes each, after 16; the second word is the process.
    return sum(struct.unpack_from("Q", buffer, 24 + 40 * each)[0] == os.getpid() for each in range(count))


def started(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """`Popen`; again where Wine could not start a process, as happens when many start at once."""
    for _ in range(3):
        try:
            return subprocess.Popen(command, **options)
        except OSError as error:
            if getattr(error, "winerror", None) != 1359:  # ERROR_INTERNAL_ERROR
                raise
    return subprocess.Popen(command, **options)


class Child:
    """A child process whose output is collected; ended, at the latest, with its test."""

    def __init__(self, command: list[str], stdin: int | None = subprocess.DEVNULL, **options: Any) -> None:
        pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._start_process = lambda: started(command, **pipes, **options)
        self._starts = 0
        self._start()

    def _start(self) -> None:
        self._starts += 1
        self._fed: bytes | None = b""  # what a new start is fed; None: there cannot be one
        self.process = self._start_process()
        self.pid = self.process.pid

    def _started_again(self) -> bool:
        """Start it again if Wine, under load, could not load its libraries: nothing of it has run."""
        if not WINDOWS or self._starts > 3 or self._fed is None:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        if self.process.returncode != 0xC0000142:  # STATUS_DLL_INIT_FAILED
            return False
        fed, ended = self._fed, self.process.stdin is None
        self.dispose()
        self._start()
        if fed:
            self.feed(fed)
        if ended and self.process.stdin:
            self.end_input()
        return True

    def line(self) -> str:
        """The next line of its standard output."""
        assert self.process.stdout
        descriptor = self.process.stdout.fileno()

        def read() -> bytes:
            # No more than the line: `communicate` would not find what a buffer has.
            line = b""
            while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
                line += byte
            return line

        line = Background(read).result()
        assert isinstance(line, bytes)
        if not line and self._started_again():
            return self.line()
        return line.decode().strip()

    def feed(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self.process.stdin
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except OSError:
            if not self._started_again():
                raise
            self.feed(data)
        else:
            if WINDOWS and self._fed is not None:
                self._fed += data

    def end_input(self) -> None:
        """Close its standard input."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.stdin = None

    def stop_reading(self) -> None:
        """Close our end of its standard output."""
        assert self.process.stdout
        self.process.stdout.close()
        self.process.stdout = self._fed = None

    def kill(self) -> None:
        """SIGKILL, TerminateProcess."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def end(self) -> tuple[int, bytes, str]:
        """Wait for it; return (exit code, rest of standard output, standard error)."""
        try:
            out, err = self.process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"{self.process.args} did not end: {out[-500:]!r} {err!r}") from None
        if self._started_again():
            return self.end()
        said = err.decode(errors="replace").replace("\r\n", "\n")
        if sys.flags.dev_mode:  # which also says when the machine is slow
            said = re.sub(r"^Executing <.* took \d+\.\d+ seconds\n", "", said, flags=re.MULTILINE)
        return self.process.returncode, out, said

    def dispose(self) -> None:
        """End it whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


class ChannelTest(unittest.TestCase):
    """A test with a directory and channel names of its own, which must be left empty."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # Or what another class left to Python is freed during a test that counts descriptors.
        gc.collect()

    def setUp(self) -> None:
        self.name = f"test-{os.getpid()}-{next(_numbers)}"
        self.folder = Path(tempfile.mkdtemp(prefix="mmapipc-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        memory = tempfile.mkdtemp(
            prefix="mmapipc-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
        )
        self.memory = Path(memory)
        self.addCleanup(shutil.rmtree, memory)
        before = os.environ.get("MMAPIPC_DIR")
        os.environ["MMAPIPC_DIR"] = memory

        def restore() -> None:
            if before is None:
                del os.environ["MMAPIPC_DIR"]
            else:
                os.environ["MMAPIPC_DIR"] = before

        self.addCleanup(restore)
        self.addCleanup(self._check_leftovers)
        self.addCleanup(self._dispose)
        self._children: list[Child] = []
        self._parts: list[ChannelTest] = []

    def _dispose(self) -> None:
        for child in self._children:
            child.dispose()

    def _check_leftovers(self) -> None:
        # The bells of a ring in a file stay when both its ends are killed.
        self.assertEqual([name for name in os.listdir(self.memory) if ".+" not in name], [])
        # Windows gives the name back a moment after the last process has gone.
        for test in (self, *self._parts):
            eventually(lambda test=test: not test._exists(), "the channel's memory is gone")

    def check_open(self, before: int) -> None:
        """As many descriptors are open as before; on Windows, no more handles."""
        if WINDOWS:
            # Some were open for a moment; before CPython 3.13 a lock of an end that was closed is one.
            self.assertLessEqual(open_handles(), before + 3)
        else:
            self.assertEqual(open_handles(), before)

    def _exists(self) -> bool:
        memory = system.open_existing(system.place(self.name))
        if memory is not None:
            memory.close()
        return memory is not None

    def part(self) -> Any:
        """This test with a channel name and a folder of its own."""
        part = copy.copy(self)
        part.name = f"{self.name}-{next(_numbers)}"
        part.folder = self.folder / part.name
        part.folder.mkdir()
        self._parts.append(part)
        return part

    def side_by_side(self, case: Callable[..., object], arguments: Iterable[Any]) -> None:
        """Run `case(part, argument)` for each argument, as subtests, some at a time: they mostly wait."""
        with ThreadPoolExecutor(8) as pool:
            cases = [(argument, pool.submit(case, self.part(), argument)) for argument in arguments]
            for argument, ended in cases:
                with self.subTest(argument):
                    ended.result()

    def start(self, command: list[str], stdin: int | None = subprocess.DEVNULL, **options: Any) -> Child:
        """Start a child process that ends with the test."""
        child = Child(command, stdin, **options)
        self._children.append(child)
        return child

    def python(self, code: str, *arguments: str, stdin: int | None = subprocess.DEVNULL) -> Child:
        """Start Python code, with mmapipc, sys and name at hand."""
        return self.start([*PYTHON, "-c", PRELUDE + code, self.name, *arguments], stdin)

    def send(self, *arguments: str, stdin: int | None = subprocess.DEVNULL) -> Child:
        """Start `mmapipc send` on the test's channel."""
        return self.start([*MMAPIPC, "send", self.name, *arguments], stdin)

    def receive(self, *arguments: str) -> Child:
        """Start `mmapipc receive` on the test's channel."""
        return self.start([*MMAPIPC, "receive", self.name, *arguments])

    def file(self, data: bytes) -> str:
        """A file with these bytes."""
        path = self.folder / f"file-{next(_numbers)}"
        path.write_bytes(data)
        return str(path)

    @contextlib.contextmanager
    def both(self, **options: object) -> Iterator[tuple[mmapipc.Sender, mmapipc.Receiver]]:
        """Both ends in this process; whatever the test leaves open is given up."""
        options.setdefault("timeout", DEADLINE)
        sender = mmapipc.Sender(self.name, **options)  # type: ignore[arg-type]
        try:
            shared = {each: options.get(each) for each in ("timeout", "file")}
            receiver = mmapipc.Receiver(self.name, **shared)  # type: ignore[arg-type]
            try:
                yield sender, receiver
            finally:
                receiver.close()
        finally:
            sender.abort()


    def exchange(self, file: str | None = None) -> None:
        """The name works as if nothing had been, and so does the file."""
        for where in {None, file}:
            with mmapipc.Sender(self.name, timeout=DEADLINE, file=where) as sender:
                with mmapipc.Receiver(self.name, timeout=DEADLINE, file=where) as receiver:
                    sender.write(b"again")
                    self.assertEqual(receiver.read(9), b"again")


class Background(threading.Thread):
    """A thread whose result, or exception, is had from `result()`."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._value: object = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error

    def result(self) -> object:
        """Wait for the end of the function; return its value or raise its exception."""
        self.join(DEADLINE)
        if self.is_alive():
            raise AssertionError("the thread did not end")
        if self._error is not None:
            raise self._error
        return self._value
