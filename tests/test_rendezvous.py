"""How two ends find each other, and that an opening which fails, however, has taken nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import unittest
import warnings
from collections.abc import Callable, Iterator
from unittest import mock

import mmapipc
from mmapipc._system import system

from .helpers import DEADLINE, WINDOWS, ChannelTest, eventually, open_handles

SEED = int(os.environ.get("MMAPIPC_SEED", "1"))
STEP = 5 if WINDOWS else 1  # of the moments of an opening one in so many is tried

# Says, for each line with a role and perhaps a file, whether this process gets the role at once.
TAKES = """
say('ready')
for line in sys.stdin:
    kind, *files = line.split(None, 1)
    try:
        getattr(mmapipc, kind)(name, timeout=0, file=files[0].rstrip() if files else None).abort()
    except mmapipc.ChannelTimeout:
        pass  # it had the role
    except mmapipc.ChannelError as error:
        say(f'{type(error).__name__} {error}')
        continue
    say('free')
"""


class Interrupted(Exception):
    """Raised by a signal handler, as KeyboardInterrupt is."""


def interrupted(at: int, call: Callable[[], object]) -> tuple[object, bool]:
    """Call, and raise Interrupted at so many-th moment; return what the call did, or None, and whether.

    A moment is when a function begins, and before and after each call of what is written in C: Python
    runs signal handlers after such calls and when functions begin.
    """
    moments = []  # no number: until Python 3.13, tracing a frame puts its variables back

    def tick(frame: object, event: str, argument: object) -> None:
        # When a `with` block ends, handlers run after its `__exit__` only.
        if event == "return" or event == "c_call" and argument.__name__ in ("__exit__", "setprofile"):
            return
        moments.append(event)
        if len(moments) == at:
            del frame, argument  # the traceback would keep them
            raise Interrupted

    result = None
    with contextlib.suppress(Interrupted):
        try:
            sys.setprofile(tick)
            result = call()
        finally:
            sys.setprofile(None)
    return result, len(moments) >= at


class Openings(ChannelTest):
    """A signal handler raises while an end opens."""

    def setUp(self) -> None:
        super().setUp()
        self.path = str(self.folder / "ring")
        self.other = self.python(TAKES, stdin=subprocess.PIPE)
        self.assertEqual(self.other.line(), "ready")
        # What is collected without close() says so.
        silence = warnings.catch_warnings()
        silence.__enter__()
        self.addCleanup(silence.__exit__, None, None, None)
        warnings.simplefilter("ignore", ResourceWarning)
        # As does Python, of what is raised while something is collected.
        silent = mock.patch("sys.unraisablehook", lambda unraisable: None)
        silent.start()
        self.addCleanup(silent.stop)

    def check_free(self, kind: str, file: str | None = None) -> None:
        """Another process gets the role at once."""
        self.other.feed(f"{kind} {file or ''}\n".encode())
        self.assertEqual(self.other.line(), "free")

    def opener(self, kind: str, file: str | None) -> Callable[[], mmapipc.Sender | mmapipc.Receiver]:
        options = {"capacity": 100} if kind == "Sender" else {}
        return lambda: getattr(mmapipc, kind)(self.name, timeout=DEADLINE, file=file, **options)

    @contextlib.contextmanager
    def peer(self, kind: str, file: str | None) -> Iterator[None]:
        """A receiver finds a stream, and its sender goes on afterwards."""
        if kind == "Sender":
            yield
        else:
            with contextlib.closing(
                mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE, persist=True, file=file)
            ) as sender:
                yield
                sender.abort()

    def check(
        self, kind: str, file: str | None, open_and_interrupt: Callable[[], object], before: int
    ) -> None:
        """Nothing is left when the attempt is over."""
        with self.peer(kind, file):
            at_hand = open_handles()
            there = sorted(os.listdir(self.memory))
            end = open_and_interrupt()
            if end is not None:
                end.abort()
                del end
            self.check_open(at_hand)
            self.assertEqual(sorted(os.listdir(self.memory)), there)
            self.check_free(kind, file)
        self.assertEqual(os.listdir(self.memory), [])
        self.check_open(before)

    def at_every_moment(self, kind: str, file: str | None = None, new: bool = False) -> None:
        for _ in range(3):
            # What is imported or made once stays.
            with self.peer(kind, file):
                self.opener(kind, file)().abort()
        before = open_handles()
        at, was_interrupted = 1, True
        while was_interrupted:
            if new and os.path.exists(self.path):
                os.unlink(self.path)
            flags = []

            def attempt() -> object:
                end, flag = interrupted(at, self.opener(kind, file))
                flags.append(flag)
                return end

            try:
                self.check(kind, file, attempt, before)
            except AssertionError as error:
                raise AssertionError(f"interrupted at moment {at}: {error}") from error
            was_interrupted = flags == [True]
            at += STEP if file is None else 2 * STEP
        self.assertGreater(at, 100)

    def test_a_sender(self) -> None:
        self.at_every_moment("Sender")

    def test_a_receiver(self) -> None:
        self.at_every_moment("Receiver")

    def test_a_sender_that_makes_a_file(self) -> None:
        self.at_every_moment("Sender", self.path, new=True)

    def test_a_sender_in_a_file(self) -> None:
        self.at_every_moment("Sender", self.path)

    def test_a_receiver_of_a_file(self) -> None:
        self.at_every_moment("Receiver", self.path)

    def test_one_that_waits_for_a_role(self) -> None:
        for kind, file in (
            ("Sender", None),
            ("Receiver", None),
            ("Sender", self.path),
            ("Receiver", self.path),
        ):

            def waits() -> None:
                with self.assertRaises(mmapipc.ChannelTimeout):
                    getattr(mmapipc, kind)(self.name, timeout=0, file=file, wait_for_role=True)

            with self.subTest(kind=kind, file=file), self.peer(kind, file):
                holder = self.opener(kind, file)()
                waits()
                before = open_handles(), sorted(os.listdir(self.memory))
                at, was_interrupted = 1, True
                while was_interrupted:
                    _, was_interrupted = interrupted(at, waits)
                    self.assertEqual((open_handles(), sorted(os.listdir(self.memory))), before, at)
                    at += STEP
                self.assertGreater(at, 100)
                holder.abort()
            self.check_free(kind, file)
            self.assertEqual(os.listdir(self.memory), [])

    @unittest.skipIf(WINDOWS, "POSIX only: a timer's signal")
    def test_at_any_time(self) -> None:
        came = False

        def handler(number: int, frame: object) -> None:
            nonlocal came
            came = True
            raise Interrupted

        before = signal.signal(signal.SIGALRM, handler)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        chance = random.Random(SEED)

        def attempt() -> object:
            nonlocal came
            end, came = None, False
            with contextlib.suppress(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 1e-3))
                end = self.opener(kind, file)()
                while not came:
                    time.sleep(0.001)
            return end

        for kind, file in (
            ("Sender", None),
            ("Receiver", None),
            ("Sender", self.path),
            ("Receiver", self.path),
        ):
            with self.peer(kind, file):
                self.opener(kind, file)().abort()
            handles = open_handles()
            for _ in range(100):
                with self.subTest(kind=kind, file=file, seed=SEED):
                    self.check(kind, file, attempt, handles)


# For each line with a kind, a moment and perhaps a path: a process opens an end, forks at that moment as
# another of its threads may, and is killed when it has opened.  Says whether it came to that; the fork lives
# until the next line.
FORKS = """
import signal
def opens(kind, at, path):
    moments = []
    def tick(frame, event, argument):
        # Until what was opened is known it cannot be closed: that is left out.
        if event == 'return' or frame.f_code.co_name == 'owned' or '_weakrefset' in frame.f_code.co_filename:
            return
        moments.append(event)
        if len(moments) == at and not os.fork():
            os.close(go_on)
            os.write(said, b'+')
            os.read(wait, 1)
            os._exit(0)
    sys.setprofile(tick)
    end = getattr(mmapipc, kind)(name, timeout=DEADLINE, file=path)
    sys.setprofile(None)
    os.write(said, b'.' if len(moments) < at else b'-')
    signal.pause()
say('ready')
for line in sys.stdin:
    kind, at, *path = line.split()
    (hear, said), (wait, go_on) = os.pipe(), os.pipe()
    parent = os.fork()
    if not parent:
        opens(kind, int(at), path[0] if path else None)
    heard = b''
    while not (b'.' in heard or b'+' in heard and b'-' in heard):  # both are up, and the end is open
        heard += os.read(hear, 2)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    say('opened' if b'.' in heard else 'forked')
    sys.stdin.readline()
    for end in (hear, said, wait, go_on):
        os.close(end)
"""


@unittest.skipIf(WINDOWS, "POSIX only: fork")
class Forks(ChannelTest):
    def test_a_child_forked_at_any_moment_holds_nothing_beyond_its_parent(self) -> None:
        path = str(self.folder / "ring")
        self.exchange(path)
        child = self.python(FORKS, stdin=subprocess.PIPE)
        self.assertEqual(child.line(), "ready")
        for kind, file in (("Sender", None), ("Sender", path), ("Receiver", path)):
            at, said = 1, ""
            while said != "opened":
                if kind == "Receiver":
                    with (
                        contextlib.suppress(mmapipc.Undelivered),
                        mmapipc.Sender(self.name, timeout=0, file=file) as end,
                    ):
                        end.write(b"all of it")
                child.feed(f"{kind} {at} {file or ''}\n".encode())
                said = child.line()
                if kind == "Receiver":
                    with mmapipc.Receiver(self.name, timeout=0, file=file) as end:
                        self.assertEqual(end.read(), b"all of it")
                else:
                    mmapipc.Sender(self.name, timeout=0, file=file).abort()
                child.feed(b"\n")
                at += 13
            self.assertGreater(at, 200)
        child.end_input()
        child.end()


class Often(ChannelTest):
    def test_a_thousand_ends_leave_nothing_open(self) -> None:
        path = str(self.folder / "ring")
        for file in (None, path):
            self.exchange(file)
            before = open_handles()
            for _ in range(200 if WINDOWS else 1000):
                with mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE, file=file) as sender:
                    with mmapipc.Receiver(self.name, timeout=DEADLINE, file=file):
                        sender.finish()
            self.check_open(before)
            # Nor do those that are refused, or find nobody.
            with mmapipc.Sender(self.name, capacity=100, timeout=0, file=file) as sender:
                with mmapipc.Receiver(self.name, timeout=0, file=file):
                    at_hand = open_handles()
                    for _ in range(100):
                        for kind in (mmapipc.Sender, mmapipc.Receiver):
                            with self.assertRaises(mmapipc.RoleTaken):
                                kind(self.name, timeout=0, file=file)
                            with self.assertRaises(mmapipc.ChannelTimeout):
                                kind(self.name, timeout=0, file=file, wait_for_role=True)
                    self.check_open(at_hand)
                    sender.finish()
            for _ in range(100):
                with self.assertRaises(mmapipc.ChannelTimeout):
                    mmapipc.Receiver(self.name, timeout=0, file=file)
            self.check_open(before)


class Obstacles(ChannelTest):
    """What a sender says of what it waits for is so."""

    def test_a_receiver_that_is_still_there(self) -> None:
        sender = mmapipc.Sender(self.name, timeout=DEADLINE)
        with mmapipc.Receiver(self.name, timeout=DEADLINE):
            sender.abort()
            with self.assertRaisesRegex(mmapipc.ChannelTimeout, "a receiver still reads an earlier stream"):
                mmapipc.Sender(self.name, timeout=0)
        self.exchange()

    @unittest.skipIf(WINDOWS, "POSIX only: memory can outlive its name")
    def test_a_stream_that_nobody_is_at_is_no_obstacle(self) -> None:
        child = self.python("s = mmapipc.Sender(name); say('up'); sys.stdin.read()", stdin=subprocess.PIPE)
        self.assertEqual(child.line(), "up")
        child.kill()
        mmapipc.Sender(self.name, timeout=0).abort()

    @unittest.skipUnless(WINDOWS, "Windows only: a name lives as long as somebody has it open")
    def test_memory_that_another_program_has(self) -> None:
        import mmap

        with mmap.mmap(-1, 8192, tagname=system.place(self.name).location):
            for timeout in (0, 0.05):
                with self.assertRaises(mmapipc.ChannelTimeout) as caught:
                    mmapipc.Sender(self.name, timeout=timeout)
                self.assertNotIn("receiver", str(caught.exception))
                self.assertIn("a process that is not attached still has the memory", str(caught.exception))
            with self.assertRaises(mmapipc.ChannelTimeout):
                mmapipc.Receiver(self.name, timeout=0)
        with mmap.mmap(-1, 8192, tagname=system.place(self.name).location) as foreign:
            foreign[:4] = b"text"
            for kind in (mmapipc.Sender, mmapipc.Receiver):
                with self.assertRaisesRegex(mmapipc.LayoutError, "not an mmapipc channel"):
                    kind(self.name, timeout=0)
            self.assertEqual(foreign[:5], b"text\0")
        eventually(lambda: not self._exists(), "the name is gone")
        self.exchange()
