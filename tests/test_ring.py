"""The ring over plain memory: what arrives is what was put in, for any capacity."""

import contextlib
import random
import unittest

from mmapipc import layout
from mmapipc.errors import LayoutError
from mmapipc.ring import Barrier, Consumer, Producer, Verdict

from .helpers import noise

CAPACITIES = (1, 2, 3, 7, 64, 4095, 4096, 4097, 100_003)


def alive() -> bool:
    return True


def dead() -> bool:
    return False


class Blocked(Exception):
    """A half of the ring has to wait."""


class Ring:
    """Both halves over one piece of plain memory."""

    def __init__(self, capacity: int, ordered: bool = True) -> None:
        self.memory = bytearray(layout.HEADER_SIZE + capacity)
        self.words = memoryview(self.memory)[: layout.HEADER_SIZE].cast("Q")
        self.data = memoryview(self.memory)[layout.HEADER_SIZE :]
        options = {"barrier": Barrier(), "ordered": ordered, "wait": self.wait, "answer": self.answer}
        self.producer = Producer(self.words, self.data, "ring", **options)
        self.producer.create(7, 1)
        self.consumer = Consumer(self.words, self.data, "ring", **options)

    def attach(self, persistent: bool = False) -> None:
        assert Consumer.attachable(self.words, "ring", persistent, alive)
        self.consumer.attach(2)

    def wait(self) -> bool:
        raise Blocked

    def answer(self, calls: int) -> None:
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
        return bytes(got)


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


class Verdicts(unittest.TestCase):
    """The two tables at the head of the module."""

    def test_what_the_consumer_sees(self):
        for end, stands, verdict in (
            (None, alive, Verdict.WAIT),
            (None, dead, Verdict.DIED),
            (Producer.finish, alive, Verdict.END),
            (Producer.finish, dead, Verdict.END),
            (Producer.abort, alive, Verdict.GAVE_UP),
            (Producer.abort, dead, Verdict.GAVE_UP),
        ):
            with self.subTest(end=end, stands=stands):
                ring = Ring(4)
                ring.put(b"abc")
                if end:
                    end(ring.producer)
                self.assertIs(ring.consumer.verdict(stands), Verdict.READY)
                ring.take(3)
                self.assertIs(ring.consumer.verdict(stands), verdict)

    def test_what_the_producer_sees(self):
        ring = Ring(2)
        self.assertIs(ring.producer.verdict(dead), Verdict.READY)
        ring.put(b"ab")
        self.assertIs(ring.producer.verdict(dead), Verdict.WAIT)
        self.assertEqual(ring.producer.receivers, 0)
        ring.attach()
        self.assertEqual(ring.producer.receivers, 1)
        self.assertIs(ring.producer.verdict(alive), Verdict.WAIT)
        self.assertIs(ring.producer.verdict(dead), Verdict.DIED)
        ring.take(1)
        self.assertIs(ring.producer.verdict(alive), Verdict.READY)
        for end, verdict in ((Consumer.close, Verdict.LEFT), (Consumer.abort, Verdict.GAVE_UP)):
            end(ring.consumer)
            self.assertIs(ring.producer.verdict(alive), verdict)
            self.assertEqual(ring.producer.in_flight, 1)

    def test_a_peer_that_ends_properly_between_two_looks_did_not_die(self):
        ring = Ring(4)

        def gone_after_its_last_words():
            ring.put(b"z")
            ring.producer.finish()
            return False

        self.assertIs(ring.consumer.verdict(gone_after_its_last_words), Verdict.READY)
        ring.take(1)
        self.assertIs(ring.consumer.verdict(dead), Verdict.END)

        ring = Ring(4)
        ring.attach()

        def left():
            ring.consumer.close()
            return False

        self.assertIs(ring.producer.verdict(left), Verdict.LEFT)

    def test_a_successor_settles_what_a_dead_end_left(self):
        ring = Ring(4)
        ring.attach()
        self.assertTrue(Producer.settle(ring.words, "ring"))
        self.assertIs(ring.consumer.verdict(alive), Verdict.DIED)

        ring = Ring(4)
        ring.attach()
        self.assertFalse(Consumer.attachable(ring.words, "ring", False, alive))
        self.assertIs(ring.producer.verdict(alive), Verdict.DIED)

        ring = Ring(4)
        ring.producer.finish()
        self.assertFalse(Producer.settle(ring.words, "ring"))
        self.assertEqual(ring.words[layout.SENDER_STATE], layout.FINISHED)

    def test_only_a_live_and_fresh_stream_is_attachable(self):
        self.assertFalse(Consumer.attachable(Ring(4).words, "ring", False, dead))
        ring = Ring(4)
        ring.producer.abort()
        self.assertFalse(Consumer.attachable(ring.words, "ring", False, alive))
        ring = Ring(4)
        ring.producer.finish()
        self.assertTrue(Consumer.attachable(ring.words, "ring", False, alive))


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


class Headers(unittest.TestCase):
    def test_a_wrong_header_is_refused_with_its_reason(self):
        for word, value, reason in (
            (layout.MAGIC, 1, "not an mmapipc channel"),
            (layout.MAGIC, int.from_bytes(b"mmapipc\x09", "little"), "layout version 9"),
            (layout.CAPACITY, 0, "damaged"),
            (layout.CAPACITY, 2**64 - 1, "damaged"),
            (layout.HEADER_BYTES, 8192, "damaged"),
            (layout.FLAGS, 2, "damaged"),
        ):
            with self.subTest(word=word, value=value):
                words = Ring(5).words
                words[word] = value
                with self.assertRaisesRegex(LayoutError, reason):
                    layout.validate(words, "x")
        header = layout.validate(Ring(5).words, "x")
        self.assertEqual((header.capacity, header.stream_id, header.persistent), (5, 7, False))

    def test_sequences_that_cannot_be(self):
        for read, write in ((1, 0), (0, 6), (2**62, 2**62 + 1)):
            ring = Ring(5)
            ring.words[layout.READ_SEQ], ring.words[layout.WRITE_SEQ] = read, write
            with self.assertRaises(LayoutError):
                layout.load_sequences(ring.words, 5, "x")
