"""What is in the memory may be anything: no lie in it does more than end the stream.

Every header here is made from a seed, which a failure names; MMAPIPC_SEED in the environment takes one
instead of a new one.  `tests/soak.py` tries more.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import mmap
import os
import random
import socket
import subprocess
import sys
import tracemalloc
import unittest
from collections.abc import Iterator
from unittest import mock

import mmapipc
from mmapipc._ring import layout, states
from mmapipc._system import contract, names, system
from mmapipc._system.claims import Claiming
from mmapipc.errors import LayoutError
from mmapipc._ring.ring import Consumer, Producer, barrier

from .helpers import WINDOWS, ChannelTest, noise

SEED = int(os.environ.get("MMAPIPC_SEED") or random.SystemRandom().getrandbits(32))
HEADERS = 25_000  # that are tried

WORDS = layout.HEADER_SIZE // 8
SENDERS_FIELDS = (layout.WRITE_SEQ, layout.SENDER_STATE, layout.SENDER_PID, layout.SENDER_CALLS)
RECEIVERS_FIELDS = (
    layout.READ_SEQ,
    layout.RECEIVER_STATE,
    layout.RECEIVER_PID,
    layout.RECEIVER_CALLS,
    layout.RECEIVERS,
)
CONSTANTS = (layout.MAGIC, layout.HEADER_BYTES, layout.CAPACITY, layout.STREAM_ID, layout.FLAGS)
FIELDS = CONSTANTS + SENDERS_FIELDS + RECEIVERS_FIELDS
POWERS = [2**power + more for power in (7, 8, 12, 31, 32, 53, 62, 63) for more in (-1, 0, 1)]
EXTREMES = [*range(6), *POWERS, 2**64 - 1]
OLDER, NEWER = (int.from_bytes(b"mmapipc" + bytes([layout.VERSION + more]), "little") for more in (-1, 1))

CAPACITIES = (1, 2, 5, 4096, 5000)

Changes = list[tuple[int, int]]  # (word, what it becomes) in the header of a good stream


class Blocked(Exception):
    """Half a ring would have to wait."""


def nothing() -> None:
    pass


def good_header(chance: random.Random, capacity: int) -> Changes:
    """Fields that a stream in some honest state could have."""
    write = chance.choice((0, 1, capacity, chance.randrange(10 * capacity), chance.randrange(2**61)))
    read = max(0, write - chance.choice((0, 1, capacity, chance.randint(0, capacity))))
    return [
        (layout.FLAGS, chance.randint(0, 1)),
        (layout.WRITE_SEQ, write),
        (layout.READ_SEQ, max(read, write - capacity)),
        (layout.SENDER_STATE, chance.choice((layout.OPEN, layout.OPEN, layout.FINISHED, layout.ABORTED))),
        (
            layout.RECEIVER_STATE,
            chance.choice((layout.ABSENT, layout.ABSENT, layout.OPEN, layout.CLOSED, layout.ABORTED)),
        ),
    ]


def extreme(chance: random.Random, capacity: int) -> int:
    """A value that is at the edge of something."""
    return chance.choice((chance.choice(EXTREMES), capacity + chance.randint(-1, 1), chance.getrandbits(64)))


def bad_header(chance: random.Random, capacity: int) -> Changes:
    """A good header with something done to it."""
    changes = good_header(chance, capacity)
    fields = dict(changes)
    write, read = fields[layout.WRITE_SEQ], fields[layout.READ_SEQ]
    kind = chance.randrange(8)
    if kind == 0:  # bits flipped, in fields
        for _ in range(chance.randint(1, 4)):
            word = chance.choice(FIELDS)
            changes.append((word, fields.get(word, 0) ^ 1 << chance.randrange(64)))
    elif kind == 1:  # fields at their edges
        for _ in range(chance.randint(1, 3)):
            changes.append((chance.choice(FIELDS), extreme(chance, capacity)))
    elif kind == 2:  # counters that run backwards, or are too far apart
        changes.append((layout.READ_SEQ, max(0, write - capacity - chance.randint(0, 2))))
        changes.append((layout.WRITE_SEQ, max(0, read + chance.randint(-2, 2))))
    elif kind == 3:
        changes.append((layout.WRITE_SEQ, min(2**64 - 1, read + capacity + chance.randint(0, 3))))
    elif kind == 4:  # the capacity is another's
        changes.append(
            (layout.CAPACITY, chance.choice((capacity - 1, capacity + 1, 2 * capacity, 2**62, 1 << 40)))
        )
    elif kind == 5:
        changes.append((layout.MAGIC, chance.choice((0, OLDER, NEWER, chance.getrandbits(64)))))
    elif kind == 6:  # half written, in any order
        changes += [(word, 0) for word in chance.sample(FIELDS, chance.randint(1, len(FIELDS)))]
    else:  # anything at all
        changes += [(word, chance.getrandbits(64)) for word in FIELDS if chance.random() < 0.5]
    return changes


def targeted_headers(capacity: int) -> Iterator[Changes]:
    """Each field at each edge, and each pair of counters and of states."""
    edges = sorted({*EXTREMES, max(0, capacity - 1), capacity, capacity + 1, layout.HEADER_SIZE + capacity})
    for word, value in itertools.product(FIELDS, edges):
        yield [(word, value)]
    for read, write in itertools.product(edges, edges):
        yield [(layout.READ_SEQ, read), (layout.WRITE_SEQ, write)]
    for sender, receiver, flags in itertools.product(range(6), range(6), range(3)):
        yield [(layout.SENDER_STATE, sender), (layout.RECEIVER_STATE, receiver), (layout.FLAGS, flags)]
    yield [(layout.MAGIC, OLDER)]
    yield [(layout.MAGIC, NEWER)]


class Lies:
    """Words of a header of which now and then a load gives what was never stored."""

    def __init__(self, words: memoryview, capacity: int, chance: random.Random) -> None:
        self._words = words
        self._capacity = capacity
        self._chance = chance
        self._loads = 0
        self.lying = False

    def __getitem__(self, word: int) -> int:
        self._loads += 1
        assert self._loads < 1000, "no end"
        value: int = self._words[word]
        if not self.lying:
            return value
        chance = self._chance.random()
        if chance < 0.05:
            return extreme(self._chance, self._capacity) % 2**64
        if chance < 0.3:
            return (value + self._chance.randint(-2, self._capacity)) % 2**64
        return value

    def __setitem__(self, word: int, value: int) -> None:
        self._words[word] = value


class Memory:
    """A channel in plain memory, with bytes around it that nobody may touch."""

    GUARD = bytes(range(1, 65))
    ordered = True  # the processor, of its own accord

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._whole = bytearray(self.GUARD + bytes(layout.HEADER_SIZE) + noise(capacity) + self.GUARD)
        start, end = len(self.GUARD), len(self.GUARD) + layout.HEADER_SIZE
        self._bytes = memoryview(self._whole)[start:end]
        self._words = self._bytes.cast("Q")
        self.words = self._words  # what the ring is given
        self.data = memoryview(self._whole)[end : end + capacity]
        states.begin(self._words, layout.Header(capacity, 7, False), 1, nothing)
        self._header = bytes(self._bytes)
        self._content = bytes(self.data)

    def reset(self) -> None:
        self._bytes[:] = self._header
        self.data[:] = self._content

    def change(self, changes: Changes) -> None:
        for word, value in changes:
            self._words[word] = value
        self._before = self._words.tolist()


    def check(self, own: tuple[int, ...], data_too: bool) -> None:
        """Nothing was stored but in these words of the header and, perhaps, the ring."""
        size = len(self.GUARD)
        edges = (self._whole[:size], self._whole[-size:])
        assert edges == (self.GUARD, self.GUARD), "stored outside the memory"
        assert len(self._whole) == 2 * size + layout.HEADER_SIZE + self.capacity
        if not data_too:
            assert self.data == self._content, "the reader stored into the ring"
        now = self._words.tolist()
        if now != self._before:
            stored = {word for word in range(WORDS) if now[word] != self._before[word]}
            assert stored <= set(own), f"stored into words {stored - set(own)}"

    def options(self) -> dict[str, object]:
        return {"barrier": barrier, "ordered": self.ordered, "link": self}

    def wait(self) -> bool:
        raise Blocked

    def answer(self, calls: int) -> None:
        pass

    def refuse_to_wait(self, size: int) -> None:
        pass

    def peer_lives(self) -> bool:
        return True


class LyingMemory(Memory):
    """A channel whose header is good, and of which no single load can be trusted."""

    def __init__(self, capacity: int, ordered: bool, chance: random.Random) -> None:
        super().__init__(capacity)
        self.ordered = ordered
        self.words: Lies = Lies(self.words, capacity, chance)

    def change(self, changes: Changes) -> None:
        super().change(changes)
        self.words.lying = not changes


def attach(memory: Memory) -> Consumer | None:
    """What a Receiver does to attach, over plain memory."""
    words = memory.words
    if not layout.is_complete(words):
        return None
    header = layout.validate(words, "x")
    states.settle_receiver(words, "x")
    if not states.wants_receiver(words, "x", persistent=header.persistent, kept=False, sender_lives=True):
        return None
    if header.capacity != memory.capacity:
        raise layout.damaged("x", "does not fit")
    consumer = Consumer(words, memory.data, "x", **memory.options())
    states.attach(words, 2, "x", nothing)
    return consumer


def read_a_little(memory: Memory, consumer: Consumer) -> None:
    """Every way to read; what comes is what lies in the ring, and never more than that."""
    buffer = bytearray(3)
    for step in range(4):
        start = consumer.sequence
        with contextlib.suppress(Blocked):
            if step == 0:
                got = bytes(buffer[: consumer.readinto(buffer)])
            elif step == 1:
                got = consumer.read(1 << 40)
            else:
                got = bytes(consumer.peek(2))
                consumer.consume(len(got))
            assert consumer.sequence == start + len(got)
            at = start % memory.capacity
            assert got == (bytes(memory.data[at:]) + bytes(memory.data[:at]))[: len(got)]
            assert len(got) <= memory.capacity


def write_a_little(memory: Memory, producer: Producer) -> None:
    """Every way to write; never more than the ring's capacity is under way."""
    for step in range(4):
        start = producer.sequence
        with contextlib.suppress(Blocked):
            if step < 2:
                view = producer.reserve(1 << 40)
                assert 1 <= len(view) <= memory.capacity
                view[-1] = 0
                producer.commit(1)
            else:
                assert producer.write(b"abcdefg"[: 4 * step - 5]) == 4 * step - 5
        assert start <= producer.sequence <= start + 7
        assert 0 <= producer.in_flight <= memory.capacity
        if producer.owes and producer.sequence != start:
            break  # cut short: nothing more can be written


def a_receiver_comes(memory: Memory, changes: Changes) -> bool:
    """A receiver meets the header; return whether it attached."""
    memory.change(changes)
    consumer = None
    with contextlib.suppress(LayoutError):
        consumer = attach(memory)
        if consumer is not None:
            fields = dict(changes)
            assert fields.get(layout.CAPACITY, memory.capacity) == memory.capacity
            ahead = fields.get(layout.WRITE_SEQ, 0) - fields.get(layout.READ_SEQ, 0)
            assert 0 <= ahead <= memory.capacity
            read_a_little(memory, consumer)
            consumer.verdict(True)
    if consumer is not None:
        consumer.close()
    memory.check(RECEIVERS_FIELDS, data_too=False)
    return consumer is not None


def a_sender_comes(memory: Memory, changes: Changes) -> bool:
    """A sender meets the header; return whether it may take the name over."""
    memory.change(changes)
    settled = False
    with contextlib.suppress(LayoutError):
        if layout.is_complete(memory.words):
            layout.validate(memory.words, "x")
            states.settle_sender(memory.words, "x")
            settled = not states.has_receiver(memory.words, "x")
    memory.check((layout.SENDER_STATE,), data_too=False)
    return settled


def a_receiver_is_there(memory: Memory, changes: Changes) -> bool:
    """The memory becomes this while a receiver reads; return whether it noticed."""
    memory.change([(layout.WRITE_SEQ, min(3, memory.capacity))])
    consumer = attach(memory)
    assert consumer is not None
    if memory.capacity > 1:
        assert consumer.readinto(bytearray(1)) == 1
    memory.change(changes)
    noticed = True
    with contextlib.suppress(LayoutError):
        read_a_little(memory, consumer)
        consumer.verdict(True)
        noticed = False
    consumer.close()
    memory.check(RECEIVERS_FIELDS, data_too=False)
    return noticed


def a_sender_is_there(memory: Memory, changes: Changes) -> bool:
    """The memory becomes this while a sender writes; return whether it noticed."""
    persistent = any(word == layout.FLAGS and value for word, value in changes)
    states.begin(memory.words, layout.Header(memory.capacity, 7, persistent), 1, nothing)
    producer = Producer(memory.words, memory.data, "x", persistent=persistent, **memory.options())
    producer.write(b"abc"[: memory.capacity])
    memory.words[layout.READ_SEQ] = 1
    memory.change(changes)
    noticed = True
    with contextlib.suppress(LayoutError):
        write_a_little(memory, producer)
        producer.verdict(True)
        noticed = False
    producer.abort()
    memory.check(SENDERS_FIELDS, data_too=True)
    return noticed


MEETINGS = (a_receiver_comes, a_sender_comes, a_receiver_is_there, a_sender_is_there)


class Seeded(unittest.TestCase):
    """Failures name the seed, and what was in the memory."""

    def setUp(self) -> None:
        super().setUp()
        self.chance = random.Random(SEED)
        self.tried = 0

    @contextlib.contextmanager
    def header(self, capacity: int, changes: Changes) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise AssertionError(
                f"MMAPIPC_SEED={SEED}, header {self.tried}, capacity {capacity}, {changes}"
            ) from error
        self.tried += 1


class PlainMemory(Seeded):
    """The ring and the layout over memory of our own: the bulk of the headers."""

    def meet(self, memory: Memory, changes: Changes) -> tuple[bool, ...]:
        outcomes = []
        with self.header(memory.capacity, changes):
            for meeting in MEETINGS:
                memory.reset()
                outcomes.append(meeting(memory, changes))
        return tuple(outcomes)

    def test_a_good_header_is_accepted(self):
        for capacity in CAPACITIES:
            # Both who come may; neither who is there has anything to complain about.
            self.assertEqual(self.meet(Memory(capacity), []), (True, True, False, False))

    def test_targeted_and_random_headers(self):
        memories = [Memory(capacity) for capacity in CAPACITIES]
        outcomes = set()
        for memory in memories:
            for changes in targeted_headers(memory.capacity):
                outcomes.add(self.meet(memory, changes))
        while self.tried < HEADERS:
            memory = self.chance.choice(memories)
            outcomes.add(self.meet(memory, bad_header(self.chance, memory.capacity)))
        self.assertGreaterEqual(self.tried, HEADERS)
        # What was noticed and what was harmless were both among them, at each meeting.
        self.assertEqual([len(set(outcome)) for outcome in zip(*outcomes)], [2] * len(MEETINGS))

    def test_a_peer_that_changes_every_field_between_two_loads(self):
        outcomes = set()
        for _ in range(HEADERS // 12):
            capacity = self.chance.choice(CAPACITIES[:3])
            with self.header(capacity, []):
                outcomes.add(
                    tuple(
                        meeting(LyingMemory(capacity, self.chance.random() < 0.5, self.chance), [])
                        for meeting in MEETINGS
                    )
                )
        self.assertEqual([len(set(outcome)) for outcome in zip(*outcomes)], [2] * len(MEETINGS))

    def test_nobody_allocates_what_a_lie_asks_for(self):
        memory = Memory(5)
        headers = list(targeted_headers(5))
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for changes in headers:
                self.meet(memory, changes)
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        # What a test keeps of a header of 512 words is more than what the ring needs.
        self.assertLess(peak, 200_000)


def size_of_object(capacity: int) -> int:
    """How many bytes the system gives for a ring of this capacity: on Windows, whole pages."""
    size = layout.HEADER_SIZE + capacity
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE if WINDOWS else size


class NamedMemory(Seeded, ChannelTest):
    """The same through Sender and Receiver, over memory that the system gave."""

    def setUp(self) -> None:
        super().setUp()
        # No more is ever mapped than there is.
        if WINDOWS:
            from mmapipc._system.windows.memory import Memory
        else:
            from mmapipc._system.posix.memory import Memory
        ask = Memory.map
        self.size = 0

        def checked(memory: Memory, length: int) -> object:
            assert length <= self.size, f"asked for {length} bytes of {self.size}"
            return ask(memory, length)

        patch = mock.patch.object(Memory, "map", checked)
        patch.start()
        self.addCleanup(patch.stop)

    @contextlib.contextmanager
    def channel(self, capacity: int) -> Iterator[tuple[contract.Memory, memoryview]]:
        """Named memory with a good header, and its words."""
        self.size = size_of_object(capacity)
        memory = system.create(system.place(self.name), layout.HEADER_SIZE + capacity)
        try:
            with memory.map(layout.HEADER_SIZE) as page, memoryview(page) as octets:
                with octets.cast("Q") as words:
                    states.begin(words, layout.Header(capacity, 7, False), os.getpid(), nothing)
                    if not WINDOWS:
                        memory.close()  # it belongs to nobody, as what a dead sender left
                    yield memory, words
        finally:
            if WINDOWS:
                memory.close()
            system.remove(system.place(self.name))

    def read_a_little(self, receiver: mmapipc.Receiver) -> None:
        buffer = bytearray(3)
        for read in (
            lambda: buffer[: receiver.readinto(buffer)],
            lambda: receiver.read(1 << 40),
            lambda: receiver.readline(1 << 40),
            lambda: receiver.peek(1 << 40),
        ):
            with contextlib.suppress(mmapipc.ChannelTimeout):
                assert len(read()) <= receiver.capacity

    def write_a_little(self, sender: mmapipc.Sender) -> None:
        for step in range(3):
            start = sender.tell()
            try:
                if step == 2:
                    sender.write(b"abcdefg")
                else:
                    assert 1 <= len(sender.reserve(1 << 40)) <= sender.capacity
                    sender.commit(1)
            except mmapipc.ChannelTimeout:
                pass
            except ValueError as error:
                if isinstance(error, mmapipc.ChannelError) or "cut short" not in str(error):
                    raise
            assert start <= sender.tell() <= start + 7

    def rounds(self, share: int) -> Iterator[tuple[int, Changes]]:
        """So many of the headers, the targeted ones among them in turn."""
        for number in range(HEADERS // share):
            capacity = self.chance.choice(CAPACITIES)
            if number % 2:
                yield capacity, bad_header(self.chance, capacity)
            else:
                yield capacity, self.chance.choice(self.targeted[capacity])

    targeted = {capacity: list(targeted_headers(capacity)) for capacity in CAPACITIES}

    def test_a_receiver_comes(self):
        role = Claiming(system.channel_roles(system.place(self.name))).attempt(names.SENDER)
        self.addCleanup(role.release)
        attached = 0
        for capacity, changes in self.rounds(12):
            with self.header(capacity, changes), self.channel(capacity) as (_, words):
                for word, value in changes:
                    words[word] = value
                before = words.tolist()
                with contextlib.suppress(mmapipc.LayoutError, mmapipc.ChannelTimeout, mmapipc.StreamAborted):
                    with mmapipc.Receiver(self.name, timeout=0) as receiver:
                        attached += 1
                        self.read_a_little(receiver)
                stored = {word for word in range(WORDS) if words[word] != before[word]}
                self.assertLessEqual(stored, set(RECEIVERS_FIELDS))
        self.assertEqual(self.tried, HEADERS // 12)
        self.assertGreater(attached, 0)

    def test_a_sender_comes(self):
        came = 0
        for capacity, changes in self.rounds(12):
            with self.header(capacity, changes), self.channel(capacity) as (memory, words):
                for word, value in changes:
                    words[word] = value
                before = words.tolist()
                # What is in the way stays in the way on Windows, where it is ours.
                self.size = max(self.size, size_of_object(9))
                with contextlib.suppress(mmapipc.LayoutError, mmapipc.ChannelTimeout):
                    sender = mmapipc.Sender(self.name, capacity=9, timeout=0)
                    came += 1
                    sender.abort()
                stored = {word for word in range(WORDS) if words[word] != before[word]}
                self.assertLessEqual(stored, {layout.SENDER_STATE})
        self.assertEqual(self.tried, HEADERS // 12)
        if not WINDOWS:
            self.assertGreater(came, 0)

    def test_both_are_there(self):
        noticed = {True: 0, False: 0}
        for capacity, changes in self.rounds(12):
            self.size = size_of_object(capacity)
            persist = self.chance.random() < 0.5
            with self.header(capacity, changes):
                with self.both(capacity=capacity, timeout=0, persist=persist) as (sender, receiver):
                    memory = system.open_existing(system.place(self.name))
                    with (
                        memory.map(layout.HEADER_SIZE) as page,
                        memoryview(page) as octets,
                        octets.cast("Q") as words,
                    ):
                        memory.close()
                        sender.write(b"abc"[:capacity])
                        for word, value in changes:
                            words[word] = value
                        for end in (
                            (self.write_a_little, sender),
                            (self.read_a_little, receiver),
                            (self.close, sender),
                        ):
                            try:
                                end[0](end[1])
                                noticed[False] += 1
                            except mmapipc.ChannelError:
                                noticed[True] += 1
        self.assertEqual(self.tried, HEADERS // 12)
        self.assertTrue(noticed[True] and noticed[False])

    def close(self, end: io.RawIOBase) -> None:
        end.close()

    def test_a_peer_that_stores_into_every_field_all_the_time(self):
        code = f"""
import random
from mmapipc._system import contract, names, system
chance = random.Random(int(sys.argv[2]))
say('ready')
for line in sys.stdin:
    memory = system.open_existing(system.place(name))
    with memory.map({layout.HEADER_SIZE}) as page, memoryview(page) as octets, octets.cast('Q') as words:
        memory.close()
        say('there')
        for _ in range(2000):
            word = chance.choice({FIELDS})
            value = words[word]
            words[word] = chance.choice((value + chance.randint(0, 2), value, *range(5), 2**63)) % 2**64
    say('gone')
"""
        peer = self.python(code, str(SEED), stdin=subprocess.PIPE)
        self.assertEqual(peer.line(), "ready")
        for number in range(max(10, HEADERS // 250)):
            capacity = self.chance.choice(CAPACITIES)
            self.size = size_of_object(capacity)
            persist = self.chance.random() < 0.5
            with self.header(capacity, []):
                with self.both(capacity=capacity, timeout=0.001, persist=persist) as (sender, receiver):
                    peer.feed(b"\n")
                    self.assertEqual(peer.line(), "there")
                    # Until one of them notices, which chance may forbid.
                    with contextlib.suppress(mmapipc.ChannelError):
                        for _ in range(100):
                            self.write_a_little(sender)
                            self.read_a_little(receiver)
                    with contextlib.suppress(mmapipc.ChannelError):
                        sender.close()
                self.assertEqual(peer.line(), "gone")


class Damage(ChannelTest):
    def test_the_name_is_usable_after_both_have_left(self):
        with self.both(capacity=5, timeout=0) as (sender, receiver):
            memory = system.open_existing(system.place(self.name))
            with memory.map(layout.HEADER_SIZE) as page:
                memory.close()
                page[:] = noise(layout.HEADER_SIZE)
                for use in (lambda: receiver.read(1), lambda: sender.write(b"abcdefgh")):
                    with self.assertRaisesRegex(mmapipc.LayoutError, f"^{self.name}: .*damaged"):
                        use()
                sender.abort()
                receiver.close()
        self.exchange()


@unittest.skipIf(WINDOWS, "POSIX only: files in a directory")
class Files(ChannelTest):
    def refused(self, error: type[Exception], *words: str) -> None:
        """Neither end takes what is there."""
        for kind in (mmapipc.Sender, mmapipc.Receiver):
            with self.subTest(kind=kind), self.assertRaises(error) as caught:
                kind(self.name, timeout=0)
            for word in (self.name, *words):
                self.assertIn(word, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def stream(self, capacity: int) -> bytes:
        """The file of a good stream."""
        memory = Memory(capacity)
        return bytes(memory.words) + bytes(memory.data)

    def put(self, content: bytes) -> str:
        place = system.place(self.name).location
        with open(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        return place

    def test_a_file_shorter_than_a_header(self):
        # As a creator that died early leaves it: no stream to a receiver, and the next sender's to replace.
        for size in (0, 1, 7, 8, 128, layout.HEADER_SIZE - 1):
            self.put(self.stream(10)[:size])
            with self.assertRaises(mmapipc.ChannelTimeout):
                mmapipc.Receiver(self.name, timeout=0)
            self.put(self.stream(10)[:size])
            self.exchange()

    def test_a_ring_shorter_or_longer_than_the_header_says(self):
        good = self.stream(5000)
        pid = os.getpid().to_bytes(8, sys.byteorder)
        good = good[: layout.SENDER_PID * 8] + pid + good[layout.SENDER_PID * 8 + 8 :]
        for content in (good[: layout.HEADER_SIZE], good[:-1], good + b"\0", good + bytes(10_000)):
            self.put(content)
            # With a live sender; otherwise a receiver has no interest in it.
            role = Claiming(system.channel_roles(system.place(self.name))).attempt(names.SENDER)
            with self.assertRaisesRegex(mmapipc.LayoutError, "capacity 5000 does not fit"):
                mmapipc.Receiver(self.name, timeout=0)
            role.release(memory=False)
            # A sender does not need the ring of a dead one.
            self.exchange()

    def test_half_made(self):
        good = self.stream(10)
        for content in (b"", bytes(len(good)), bytes(8) + good[8:], bytes(layout.HEADER_SIZE)):
            self.put(content)
            with self.assertRaises(mmapipc.ChannelTimeout):
                mmapipc.Receiver(self.name, timeout=0)
            self.exchange()

    def obstacles(self, place: str) -> Iterator[str]:
        """One after the other, something in that place; and what is said of it."""
        elsewhere = self.file(b"precious")
        os.mkdir(place)
        yield "is not a regular file"
        os.rmdir(place)
        os.mkfifo(place, 0o600)
        yield "is not a regular file"
        os.unlink(place)
        for target in (elsewhere, place, str(self.folder / "missing")):
            os.symlink(target, place)
            yield "is not a regular file"
            os.unlink(place)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(place)
            yield "is not a regular file"
            os.unlink(place)
        for mode in (0o606, 0o660, 0o640, 0o604, 0o611):
            self.make(place, mode)
            yield "is open to other users"
            os.unlink(place)
        if os.geteuid() == 0:
            self.make(place, 0o600)
            os.chown(place, 65534, -1)
            yield "belongs to another user"
            os.unlink(place)
        with open(elsewhere, "rb") as file:
            self.assertEqual(file.read(), b"precious")

    def make(self, place: str, mode: int) -> None:
        os.close(os.open(place, os.O_CREAT, 0o600))
        os.chmod(place, mode)

    def test_something_else_in_the_place_of_the_memory(self):
        place = system.place(self.name).location
        for words in self.obstacles(place):
            self.refused(mmapipc.UnsafeMemory, place, words)

    def test_something_else_in_the_place_of_a_claim(self):
        place = f"{system.place(self.name).location}+roles"
        for kind in (mmapipc.Sender, mmapipc.Receiver):
            for words in self.obstacles(place):
                with self.subTest(kind=kind, words=words), self.assertRaises(mmapipc.UnsafeMemory) as caught:
                    kind(self.name, timeout=0)
                self.assertIn(f"{place} {words}", str(caught.exception))

    @unittest.skipUnless(
        hasattr(os, "geteuid") and os.geteuid() == 0, "POSIX only, as root: a file of another user"
    )
    def test_what_belongs_to_root_is_refused_to_others(self):
        place = self.put(b"")
        theirs = place.replace(f".{os.geteuid()}.", ".65534.")
        os.rename(place, theirs)
        os.chmod(self.memory, 0o777)
        child = self.python(
            """
os.setuid(65534)
for kind in (mmapipc.Sender, mmapipc.Receiver):
    try:
        kind(name, timeout=0)
    except mmapipc.UnsafeMemory as error:
        say(error)
"""
        )
        code, out, err = child.end()
        os.unlink(theirs)
        told = f"{self.name}: {theirs} belongs to another user; use another name\n"
        self.assertEqual(err, "")
        self.assertEqual((code, out.decode()), (0, told * 2))
