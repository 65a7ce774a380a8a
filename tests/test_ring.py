"""The ring over plain memory: what arrives is what was put in, for any capacity."""

from __future__ import annotations

import array
import contextlib
import dis
import itertools
import random
import sys
import unittest
from collections.abc import Callable, Iterator
from typing import Any

from mmapipc._ring import layout, messages, ring as ring_module, states
from mmapipc.errors import LayoutError, ReadFailed
from mmapipc._ring.ring import Consumer, Producer, barrier
from mmapipc._ring.states import Verdict

from .helpers import noise

# Bytecodes that take or change nothing.  No exception comes at NOT_TAKEN, so 3.14 has no handler there.
EMPTY = (
    *("NOP", "RESUME", "EXTENDED_ARG", "POP_BLOCK", "SETUP_FINALLY"),
    *("RETURN_VALUE", "RETURN_CONST", "NOT_TAKEN"),
)
WRAPPERS_CALL = ("readinto", "readinto exotic", "readinto kept", "read1", "readall")

CAPACITIES = (1, 2, 3, 7, 64, 4095, 4096, 4097, 100_003)


def nothing() -> None:
    pass


class Blocked(Exception):
    """A half of the ring has to wait."""


class Ring:
    """Both halves over one piece of plain memory."""

    def __init__(self, capacity: int, ordered: bool = True) -> None:
        self.memory = bytearray(layout.HEADER_SIZE + capacity)
        self.words = memoryview(self.memory)[: layout.HEADER_SIZE].cast("Q")
        self.data = memoryview(self.memory)[layout.HEADER_SIZE :]
        options = {"barrier": barrier, "ordered": ordered, "link": self}
        states.begin(self.words, layout.Header(capacity, 7, False), 1, nothing)
        self.producer = Producer(self.words, self.data, "ring", **options)
        self.consumer = Consumer(self.words, self.data, "ring", **options)
        self.last_words = nothing
        self.finishes = False

    def attach(self) -> None:
        assert self.wants_receiver(True)
        states.attach(self.words, 2, "ring", nothing)

    def wants_receiver(self, sender_lives: bool) -> bool:
        states.settle_receiver(self.words, "ring")
        return states.wants_receiver(
            self.words, "ring", persistent=False, kept=False, sender_lives=sender_lives
        )

    def sees(self, half: Producer | Consumer, lives: bool) -> Verdict:
        """What one half sees when its peer lives, or is dead."""
        self.lives = lives
        return half.verdict(True)

    def peer_lives(self) -> bool:
        self.last_words()
        return self.lives

    def wait(self) -> bool:
        if self.finishes:
            return False
        raise Blocked

    def answer(self, calls: int) -> None:
        pass

    def refuse_to_wait(self, size: int) -> None:
        pass

    def put(self, data: bytes) -> int:
        """Write as much as fits; return how much."""
        free = len(self.data) - (self.producer.sequence - self.consumer.sequence)
        return self.producer.write(data[:free])

    def take(self, most: int) -> bytes:
        """Read as much as is there, up to `most` bytes."""
        got = bytearray()
        with contextlib.suppress(Blocked):
            while len(got) < most:
                piece = bytearray(most - len(got))
                got += piece[: self.consumer.readinto(piece)]
        self.consumer.resume()
        return bytes(got)


class MessageRing(Ring):
    """One for messages, of which those that do not fit come piece by piece as the consumer waits."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        options = {"barrier": barrier, "ordered": True, "link": self}
        self.consumer: messages.MessageConsumer = messages.MessageConsumer(
            self.words, self.data, "ring", **options
        )
        self.sent = bytearray()
        self.ends = [0]

    def send(self, message: bytes) -> None:
        self.sent += len(message).to_bytes(8, "little") + message + bytes(-len(message) % 8)
        self.ends.append(len(self.sent))
        self.wait()

    def wait(self) -> bool:
        # Without a producer: it would be interrupted too.
        capacity = len(self.data)
        most = self.words[layout.READ_SEQ] + capacity
        published = [0]
        for start, end in itertools.pairwise(self.ends):
            if end <= most:
                published.append(end)
            elif start < most and end - start > capacity:
                published.append(most)
        for sequence in range(self.words[layout.WRITE_SEQ], published[-1]):
            self.data[sequence % capacity] = self.sent[sequence]
        self.words[layout.WRITE_SEQ] = published[-1]
        return True


class Moving(unittest.TestCase):
    def test_every_capacity_carries_the_bytes_in_order(self):
        sent = noise(5000)
        for capacity in CAPACITIES:
            for ordered in (True, False):
                with self.subTest(capacity=capacity, ordered=ordered):
                    chance = random.Random(capacity)
                    ring = Ring(capacity, ordered)
                    ring.attach()
                    got = bytearray()
                    given = 0
                    while len(got) < len(sent):
                        if given < len(sent):
                            given += ring.put(sent[given : given + chance.randint(1, 2 * capacity)])
                        got += ring.take(chance.randint(1, 2 * capacity))
                        self.assertLessEqual(given - len(got), capacity)
                    self.assertEqual(got, sent)

    def test_a_full_ring_takes_nothing_and_an_empty_one_gives_nothing(self):
        for capacity in (1, 2, 3):
            with self.subTest(capacity=capacity):
                ring = Ring(capacity)
                self.assertEqual(ring.put(b"abcdef"), capacity)
                with self.assertRaises(Blocked):
                    ring.producer.write(b"x")
                self.assertEqual(ring.put(b"x"), 0)
                with self.assertRaises(Blocked):
                    ring.producer.reserve(5)
                self.assertEqual(ring.take(9), b"abcdef"[:capacity])
                for blocked in (ring.consumer.peek, ring.consumer.read):
                    with self.assertRaises(Blocked):
                        blocked(1)

    def test_views_are_contiguous_and_within_the_ring(self):
        ring = Ring(10)
        ring.producer.commit(len(ring.producer.reserve(7)))
        ring.consumer.consume(len(ring.consumer.peek(7)))
        self.assertEqual(len(ring.producer.reserve(100)), 3)
        ring.producer.commit(3)
        self.assertEqual(len(ring.producer.reserve(100)), 7)
        self.assertEqual(len(ring.consumer.peek(100)), 3)

    def test_published_bytes_lie_where_the_layout_says(self):
        ring = Ring(5)
        for sequence in range(12):
            ring.put(bytes([sequence]))
            self.assertEqual(ring.memory[4096 + sequence % 5], sequence)
            self.assertEqual(int.from_bytes(ring.memory[128:136], "little"), sequence + 1)
            ring.take(1)
            self.assertEqual(int.from_bytes(ring.memory[256:264], "little"), sequence + 1)


class FailedWrites(unittest.TestCase):
    """A write that raised leaves a debt, so that nobody takes the stream for whole."""

    def test_what_was_not_begun_can_be_written_again(self):
        ring = Ring(2)
        ring.put(b"ab")
        with self.assertRaises(Blocked):
            ring.producer.write(b"c")
        self.assertTrue(ring.producer.owes)
        self.assertEqual(ring.take(2), b"ab")
        ring.producer.write(b"c")
        self.assertFalse(ring.producer.owes)
        self.assertEqual(ring.take(2), b"c")

    def test_what_was_begun_cannot_be_written_again(self):
        ring = Ring(2)
        with self.assertRaises(Blocked):
            ring.producer.write(b"abc")
        self.assertTrue(ring.producer.owes)
        self.assertEqual(ring.take(2), b"ab")
        with self.assertRaisesRegex(ValueError, "cut short"):
            ring.producer.write(b"abc")


class Interrupted(Exception):
    """Raised by a signal handler."""


def interrupted(call: Callable[[], object], at: int) -> tuple[bool, bool]:
    """Call, and raise at so many-th bytecode of the ring; return whether there is one, and in the first line.

    What a signal handler raises there is as if it came before the call: that line takes and publishes
    nothing.  So are bytecodes that do nothing; and what comes when a call returns is as if it came after it.
    """
    moments = []  # no number: until Python 3.13, tracing a frame puts its variables back
    first_lines = set()

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in (ring_module.__file__, messages.__file__):
            return None
        frame.f_trace_opcodes = True
        if event == "line" and not first_lines:
            first_lines.add(frame.f_lineno)
        if event == "opcode" and dis.opname[frame.f_code.co_code[frame.f_lasti]] not in EMPTY:
            moments.append(frame.f_lineno)
            if len(moments) == at:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for it as tracing begins
    sys.settrace(trace)
    try:
        call()
    except Interrupted:
        return True, moments[-1] in first_lines
    finally:
        sys.settrace(before)
    return False, False


class Interruptions(unittest.TestCase):
    """An exception between any two bytecodes: nothing is forgotten, nothing comes twice."""

    def at_every_moment(self, prepare: Callable[[], tuple[Ring, Callable[[], object]]]) -> Iterator[Any]:
        at, reached = 1, True
        while reached:
            ring, call = prepare()
            reached, at_first = interrupted(call, at)
            if reached:
                yield ring, at_first, at
            at += 1
        self.assertGreater(at, 20)

    def test_what_a_call_has_not_done_is_owed(self) -> None:
        def committing(ring: Ring) -> Callable[[], object]:
            view = ring.producer.reserve(3)
            view[:] = b"new"
            return lambda: ring.producer.commit(3)

        calls = {
            "write": lambda ring: lambda: ring.producer.write(b"new"),
            "slow write": lambda ring: lambda: ring.producer.write(memoryview(b"n.e.w.")[::2]),
            "writelines": lambda ring: lambda: ring.producer.writelines([b"n", b"ew"]),
            "commit": committing,
        }
        for name, calling in calls.items():
            for used in (0, 3):  # before the edge, and across it
                def prepare(calling: Any = calling, used: int = used) -> Any:
                    ring = Ring(5)
                    ring.put(b"abc"[:used])
                    ring.take(used)
                    return ring, calling(ring)

                if name == "commit" and used:
                    continue
                for ring, at_first, at in self.at_every_moment(prepare):
                    published = ring.producer.sequence - used
                    if not ring.producer.owes:
                        self.assertTrue(published == 3 or (at_first and not published), (name, at))
                    elif published:
                        with self.assertRaisesRegex(ValueError, "cut short"):
                            ring.producer.write(b"new")
                        self.assertTrue(ring.producer.owes)
                        ring.producer.abort()
                        self.assertEqual(ring.take(3), b"new"[: ring.producer.sequence - used])
                    if not published:
                        # The same again makes up for it, and does not come twice.
                        calling(ring)()
                        self.assertFalse(ring.producer.owes)
                        self.assertEqual(ring.take(5), b"new")

    def test_the_oldest_debt_stays(self) -> None:
        def prepare() -> Any:
            ring = Ring(2)
            with self.assertRaises(Blocked):
                ring.producer.write(b"abc")
            self.assertEqual(ring.take(2), b"ab")
            return ring, lambda: self.assertRaises(ValueError, ring.producer.write, b"c")

        for ring, _, at in self.at_every_moment(prepare):
            with self.assertRaisesRegex(ValueError, "cut short", msg=at):
                ring.producer.write(b"c")
            self.assertTrue(ring.producer.owes)

    def test_what_no_call_returned_comes_again(self) -> None:
        calls: dict[str, Callable[[Ring], object]] = {
            "readinto": lambda ring: ring.consumer.readinto(bytearray(4)),
            "readinto kept": lambda ring: ring.consumer.readinto(bytearray(4)),
            "readinto exotic": lambda ring: ring.consumer.readinto(array.array("H", [0, 0])),
            "read": lambda ring: ring.consumer.read(5),
            "readline": lambda ring: ring.consumer.readline(100),
            "long readline": lambda ring: ring.consumer.readline(100),
            "read_to_end": lambda ring: ring.consumer.read_to_end(),
            "readlines": lambda ring: ring.consumer.readlines(0),
            "some readlines": lambda ring: ring.consumer.readlines(4),
            "read1": lambda ring: ring.consumer.read1(5),
            "readall": lambda ring: ring.consumer.readall(),
        }
        for name, calling in calls.items():
            for used in (0, 3):
                line = b"ab\ncd" if name != "long readline" else b"abcde"

                def prepare(
                    calling: Any = calling,
                    used: int = used,
                    line: bytes = line,
                    keeps: bool = name == "readinto kept",
                ) -> Any:
                    ring = Ring(5)
                    ring.put(b"abc"[:used])
                    ring.take(used)
                    ring.put(line)
                    if keeps:
                        ring.consumer.verdict()
                        ring.consumer._keep(3)
                    ring.finishes = True
                    return ring, lambda: calling(ring)

                for ring, at_first, at in self.at_every_moment(prepare):
                    if name in WRAPPERS_CALL and not at_first:
                        with self.assertRaises(ReadFailed, msg=(name, at)):
                            ring.consumer.check_not_refused()
                    ring.consumer.resume()
                    got = bytearray()
                    while part := ring.consumer.read(2):
                        got += part
                    self.assertEqual(got, line, (name, at))
                    self.assertEqual(ring.words[layout.READ_SEQ], used + len(line))
                    self.assertEqual(ring.consumer.sequence, used + len(line))

    def test_a_message_that_no_call_returned_comes_again(self) -> None:
        for size in (0, 12, 40):  # of which the last is longer than the ring
            for used in (0, 8):  # before the edge, and across it
                for ways in itertools.product((False, True), repeat=2):  # into a target, both times
                    message = noise(size)

                    def take(consumer: Any, is_into: bool, message: bytes = message) -> bytes:
                        if not is_into:
                            data: bytes = consumer.take_message()
                            return data
                        target = bytearray(len(message) + 3)
                        with memoryview(target) as view:
                            return bytes(target[: consumer.take_message(len(view), view)])

                    def prepare(used: int = used, is_into: bool = ways[0], message: bytes = message) -> Any:
                        ring = MessageRing(24)
                        if used:
                            ring.send(b"")
                            self.assertEqual(take(ring.consumer, False), b"")
                        ring.send(message)
                        ring.send(b"next")
                        return ring, lambda: take(ring.consumer, is_into)

                    for ring, _, at in self.at_every_moment(prepare):
                        with self.subTest(size=size, used=used, ways=ways, at=at):
                            self.assertEqual(take(ring.consumer, ways[1]), message)
                            self.assertEqual(ring.consumer.take_message(), b"next")
                            self.assertEqual(ring.words[layout.READ_SEQ], len(ring.sent))


class Verdicts(unittest.TestCase):
    """The two tables at the head of the module."""

    def test_what_the_consumer_sees(self):
        for end, lives, verdict in (
            (None, True, Verdict.WAIT),
            (None, False, Verdict.DIED),
            (Producer.finish, True, Verdict.END),
            (Producer.finish, False, Verdict.END),
            (Producer.abort, True, Verdict.GAVE_UP),
            (Producer.abort, False, Verdict.GAVE_UP),
        ):
            with self.subTest(end=end, lives=lives):
                ring = Ring(4)
                ring.put(b"abc")
                if end:
                    end(ring.producer)
                self.assertIs(ring.sees(ring.consumer, lives), Verdict.READY)
                ring.take(3)
                self.assertIs(ring.sees(ring.consumer, lives), verdict)

    def test_what_the_producer_sees(self):
        ring = Ring(2)
        self.assertIs(ring.sees(ring.producer, False), Verdict.READY)
        ring.put(b"ab")
        self.assertIs(ring.sees(ring.producer, False), Verdict.WAIT)
        self.assertEqual(ring.producer.receivers, 0)
        ring.attach()
        self.assertEqual(ring.producer.receivers, 1)
        self.assertIs(ring.sees(ring.producer, True), Verdict.WAIT)
        self.assertIs(ring.sees(ring.producer, False), Verdict.DIED)
        ring.take(1)
        self.assertIs(ring.sees(ring.producer, True), Verdict.READY)
        for end, verdict in ((Consumer.close, Verdict.LEFT), (Consumer.abort, Verdict.GAVE_UP)):
            ring = Ring(2)
            ring.put(b"ab")
            ring.attach()
            ring.take(1)
            end(ring.consumer)
            self.assertIs(ring.sees(ring.producer, True), verdict)
            self.assertEqual(ring.producer.in_flight, 1)

    def test_a_verdict_without_a_probe_asks_nobody(self):
        ring = Ring(2)
        ring.attach()
        ring.last_words = self.fail
        self.assertIs(ring.consumer.verdict(), Verdict.WAIT)
        self.assertIs(ring.producer.verdict(), Verdict.READY)

    def test_a_peer_that_ends_properly_between_two_looks_did_not_die(self):
        ring = Ring(4)

        def last_words():
            ring.put(b"z")
            ring.producer.finish()

        ring.last_words = last_words
        self.assertIs(ring.sees(ring.consumer, False), Verdict.READY)
        ring.take(1)
        ring.last_words = nothing
        self.assertIs(ring.sees(ring.consumer, False), Verdict.END)

        ring = Ring(4)
        ring.attach()
        ring.last_words = ring.consumer.close
        self.assertIs(ring.sees(ring.producer, False), Verdict.LEFT)


class Lies(unittest.TestCase):
    """Nothing that the peer stores is trusted."""

    def test_write_seq(self):
        for lie in (2, 3 + 8, 2**63, 2**64 - 1):
            with self.subTest(lie=lie):
                ring = Ring(5)
                ring.put(b"abc")
                ring.consumer.view(1)
                ring.words[layout.WRITE_SEQ] = lie
                with self.assertRaisesRegex(LayoutError, "^ring: "):
                    ring.consumer.verdict()

    def test_read_seq(self):
        for lie in (1, 6, 2**64 - 1):
            with self.subTest(lie=lie):
                ring = Ring(5)
                ring.put(b"abcde")
                ring.words[layout.READ_SEQ] = 2
                ring.producer.verdict()
                ring.words[layout.READ_SEQ] = lie
                with self.assertRaises(LayoutError):
                    ring.producer.verdict()

    def test_states(self):
        for field, look in (
            (layout.SENDER_STATE, lambda ring: ring.consumer.verdict()),
            (layout.RECEIVER_STATE, lambda ring: ring.producer.verdict()),
        ):
            ring = Ring(5)
            ring.words[field] = 77
            with self.assertRaises(LayoutError):
                look(ring)
