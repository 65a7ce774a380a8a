"""The bytes of the header: what is refused, and which file of a user's is a ring."""

import sys
import unittest
from pathlib import Path

import mmapipc
from mmapipc._ring import layout, states
from mmapipc._system import system
from mmapipc.errors import LayoutError

from .helpers import ChannelTest, noise
from .test_ring import Ring, nothing


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


def page(capacity: int = 5) -> bytearray:
    """The first page of a ring."""
    return Ring(capacity).memory[: layout.HEADER_SIZE]


def of_version(version: int) -> bytearray:
    """The first page of a ring of that version."""
    first = page()
    first[:8] = b"mmapipc" + bytes([version])
    return first


class Ours(unittest.TestCase):
    """A file is ours only if all that is there is ours."""

    def test_a_ring_is(self):
        begun = memoryview(bytearray(page())).cast("Q")
        states.clear(begun, layout.owner("x"), nothing)
        for ours in (
            page(),
            layout.BEGUN_MARK,
            layout.BEGUN_MARK + bytes(100),
            layout.BEGUN_MARK + bytes(layout.HEADER_SIZE - 8),
            begun.cast("B"),
            of_version(1),
        ):
            with self.subTest(bytes(ours[:16])):
                self.assertTrue(layout.is_ours(memoryview(ours)))

    def test_what_only_begins_like_one_is_not(self):
        unused = page()
        unused[2000] = 1
        for theirs in (
            b"",
            b"mmapipc",
            b"mmapipc is a tool\n",
            b"mmapipc\0 is a tool\n",
            b"mmapipc\0" + b"x" * 5000,
            b"mmapipc " + b"x" * 5000,
            b"mmapipc" + bytes([layout.VERSION]) + bytes(5000),
            bytes(unused),
            noise(layout.HEADER_SIZE),
        ):
            with self.subTest(theirs[:16]):
                self.assertFalse(layout.is_ours(memoryview(theirs[: layout.HEADER_SIZE])))


class Versions(ChannelTest):
    def refused(self, **options: str) -> None:
        for kind in (mmapipc.Sender, mmapipc.Receiver):
            with self.assertRaises(LayoutError) as caught:
                kind(self.name, timeout=0, **options)
            self.assertEqual(
                str(caught.exception),
                f"{self.name}: the channel has layout version 1, this mmapipc has {layout.VERSION}; "
                "use the same mmapipc at both ends",
            )

    def test_a_file_of_version_1(self):
        content = bytes(of_version(1)) + bytes(5)
        path = self.file(content)
        self.refused(file=path)
        self.assertEqual(Path(path).read_bytes(), content)

    def test_memory_of_version_1(self):
        memory = system.create(system.place(self.name), layout.HEADER_SIZE + 5)
        with memory.map(layout.HEADER_SIZE) as mapped:
            states.begin(memoryview(mapped).cast("Q"), layout.Header(5, 7, False), 1, nothing)
            mapped[:8] = b"mmapipc\x01" if sys.byteorder == "little" else b"\x01cpipamm"
            self.refused()
        memory.close()
        system.remove(system.place(self.name))
