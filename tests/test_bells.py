"""Bells: rung once for each sleep, and none is lost; not trusted when foreign, and not needed."""

from __future__ import annotations

import os
import random
import subprocess
import time
import unittest
from unittest import mock

import mmapipc
from mmapipc._meeting import link, together, waiting
from mmapipc._system import RECEIVER, SENDER, system

from .helpers import DEADLINE, PYTHON, WINDOWS, ChannelTest, needs_bells, open_handles
from .ways import WAYS, here

# So long a sleep, that a test which needs its end fails.
PATIENT = """
from mmapipc._meeting import waiting
waiting._FIRST_PARK = waiting._LONGEST_PARK = waiting._LONGEST_WATCHED_PARK = 1000.0
"""
ECHO = """
with mmapipc.Receiver(name + 'a', timeout=60) as receiver, mmapipc.Sender(name + 'b', timeout=60) as sender:
    buffer = bytearray(10)
    while count := receiver.readinto(buffer):
        sender.write(buffer[:count])
"""


@needs_bells
class Patient(ChannelTest):
    """Nobody wakes by himself here."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("_FIRST_PARK", "_LONGEST_PARK", "_LONGEST_WATCHED_PARK"):
            patch = mock.patch.object(waiting, name, 1000.0)
            patch.start()
            self.addCleanup(patch.stop)

    def test_no_ring_is_lost(self) -> None:
        child = self.python(PATIENT + ECHO)
        with mmapipc.Sender(self.name + "a", timeout=DEADLINE) as sender:
            with mmapipc.Receiver(self.name + "b", timeout=DEADLINE) as receiver:
                for number in range(5000):
                    sender.write(b"%d" % number)
                    self.assertEqual(receiver.read(10), b"%d" % number)
                    if number % 1000 == 0:
                        # For a while each waits without a look or a yield before.
                        receiver._link.waiter._park_at_once(500)
                sender.finish()
                self.assertEqual(receiver.read(10), b"")
        self.assertEqual(child.end()[::2], (0, ""))

    def round_trips(self, way: str, count: int, timeout: float) -> None:
        """One message after the other, with gaps in between: at times the peer spins, yields, or sleeps."""
        chance = random.Random(way)
        until_ready = here(way, longest=round(1000 * timeout))
        with mmapipc.Sender(self.name + "a", timeout=DEADLINE) as sender:
            with mmapipc.Receiver(self.name + "b", timeout=DEADLINE) as receiver:
                sender.timeout = receiver.timeout = timeout
                answer = bytearray(10)
                for number in range(count):
                    sender.write(b"%d" % number)
                    start = time.perf_counter()
                    until_ready(receiver)
                    size = receiver.readinto(answer)
                    self.assertEqual(answer[:size], b"%d" % number)
                    self.assertLess(time.perf_counter() - start, timeout)  # nobody looks before that
                    gap = chance.choice((0.0, 0.0, 2e-5, 1e-4, 5e-4))
                    if gap:
                        time.sleep(gap)
                sender.finish()
                self.assertEqual(receiver.read(10), b"")

    def test_no_ring_is_lost_with_gaps_in_any_way_of_waiting(self) -> None:
        for way in WAYS:
            with self.subTest(way), mock.patch.object(together, "_LONGEST_SLEEP", 1000.0):
                child = self.python(PATIENT + ECHO)
                self.round_trips(way, 300 if WINDOWS else 2000, DEADLINE)
                self.assertEqual(child.end()[::2], (0, ""))

    def test_a_ring_that_is_lost_would_be_found(self) -> None:
        rung, loses = 0, True
        join, abort = link.SendingLink.join, link.SendingLink.abort

        def join_and_lose_some(self: link.SendingLink) -> None:
            join(self)
            ring = self.half.ring

            def lose_some() -> None:
                nonlocal rung
                rung += 1
                if rung < 20 or not loses:  # of a later one, for nobody may sleep when it is rung
                    ring()

            self.half.ring = lose_some  # type: ignore[method-assign]

        def abort_and_ring(self: link.SendingLink) -> None:
            nonlocal loses
            loses = False
            abort(self)

        child = self.python(PATIENT + ECHO)
        with mock.patch.multiple(link.SendingLink, join=join_and_lose_some, abort=abort_and_ring):
            with self.assertRaises(mmapipc.ChannelTimeout):
                self.round_trips("stream", 2000, 2.0)
        self.assertGreaterEqual(rung, 20)
        self.assertEqual(child.end()[0], 1)  # it is told that we gave up

    def test_a_full_ring_and_the_end(self) -> None:
        child = self.python(PATIENT + "with mmapipc.Receiver(name, timeout=60) as r: print(len(r.readall()))")
        with mmapipc.Sender(self.name, capacity=1000, timeout=DEADLINE) as sender:
            for _ in range(3000):
                sender.write(b"x" * 700)
        self.assertEqual(child.end(), (0, f"{3000 * 700}{os.linesep}".encode(), ""))

    @unittest.skipUnless(
        WINDOWS or hasattr(os, "pidfd_open"), "only Linux and Windows tell of a process's end"
    )
    def test_the_peers_death_ends_a_sleep(self) -> None:
        child = self.python(
            "s = mmapipc.Sender(name); s.write(b'x'); say('up'); sys.stdin.read()", stdin=subprocess.PIPE
        )
        self.assertEqual(child.line(), "up")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            self.assertEqual(receiver.read(1), b"x")
            # The first sleep makes what the later ones use.
            receiver.timeout = 0.01
            self.assertRaises(mmapipc.ChannelTimeout, receiver.read, 1)
            receiver.timeout = DEADLINE
            killed = []

            def sleep(*arguments: object, before: object = receiver._link.bells.sleep) -> object:
                if not killed and receiver._link.bells._process is not None:
                    killed.append(True)
                    child.kill()
                return before(*arguments)  # type: ignore[operator]

            receiver._link.bells.sleep = sleep
            self.assertRaises(mmapipc.SenderDied, receiver.read, 1)
            self.assertTrue(killed)


class Places(ChannelTest):
    @unittest.skipIf(WINDOWS, "POSIX only: bells have paths")
    def test_a_foreign_bell_is_not_trusted(self) -> None:
        for role in (SENDER, RECEIVER):
            path = system.place(self.name).of(f"{role}-bell")
            for what in ("a file", "a link", "open to others"):
                with self.subTest(role=role, what=what):
                    if what == "a file":
                        open(path, "wb").close()
                    elif what == "a link":
                        fifo = str(self.folder / f"fifo of the {role}")
                        os.mkfifo(fifo, 0o600)
                        os.symlink(fifo, path)
                    else:
                        os.mkfifo(path)
                        os.chmod(path, 0o622)
                    with self.both() as (sender, receiver):
                        self.assertIsNone(sender._link.bells)
                        self.assertIsNone(receiver._link.bells)
                        sender.write(b"abc")
                        self.assertEqual(receiver.read(3), b"abc")

    def test_nothing_is_left_open(self) -> None:
        def exchange() -> None:
            with self.both(capacity=1) as (sender, receiver):
                sender.timeout = receiver.timeout = 0.001
                self.assertRaises(mmapipc.ChannelTimeout, receiver.read, 1)
                sender.write(b"x")
                self.assertRaises(mmapipc.ChannelTimeout, sender.reserve, 1)

        exchange()
        before = open_handles()
        for _ in range(100):
            exchange()
        self.check_open(before)

    @needs_bells
    def test_nothing_more_is_open_after_hundreds_of_waits(self) -> None:
        ready = {way: here(way) for way in WAYS}

        def waits() -> None:
            for until_ready in ready.values():
                sender.write(b"x")
                until_ready(receiver)
                self.assertEqual(receiver.readinto(bytearray(1)), 1)
                self.assertTrue(receiver.bell.arm())
                self.assertEqual(mmapipc.wait([receiver], 0.001), [])
                self.assertFalse(receiver.poll(0.001))
                self.assertTrue(receiver.bell.arm())
                receiver.bell.disarm()

        with self.both() as (sender, receiver):
            waits()
            # Long enough to look whether the peer lives, and watch it from then on; and to sleep for once.
            self.assertEqual(mmapipc.wait([receiver], 0.3), [])
            self.assertFalse(receiver.poll(0.3))
            before = open_handles()
            for _ in range(100):
                waits()
            self.check_open(before)

    def test_without_bells(self) -> None:
        # Whoever starts a process can switch them off; so the whole suite runs too.
        environment = {**os.environ, "MMAPIPC_NO_BELLS": "1"}
        code = """
import sys, mmapipc
with mmapipc.Receiver(sys.argv[1], timeout=60) as receiver:
    assert receiver._link.bells is None
    print(receiver.read())
"""
        child = self.start([*PYTHON, "-c", code, self.name], env=environment)
        with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
            sender.write(b"abc")
        self.assertEqual(child.end(), (0, f"b'abc'{os.linesep}".encode(), ""))


if __name__ == "__main__":
    unittest.main()
