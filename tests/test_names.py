"""Names: every text is valid, distinct, and the same on both platforms."""

import unittest

import mmapipc
from mmapipc._system import names, system
from mmapipc.errors import InvalidName

from .helpers import DEADLINE, WINDOWS, ChannelTest

NAMES = (
    *("plain", "with space", "a/b", "a\\b", "..", ".", "ü", "日本語", "a%2Fb", "~"),
    *("x+sender", "NUL", "a\0b", "\n", "\udcff"),
)


class Encoding(unittest.TestCase):
    def test_encoded_names(self):
        for name, prefix, encoded in (
            ("Az09._-", "", "Az09._-"),
            ("a b/c\\~", "", "a%20b%2Fc%5C%7E"),
            ("ü", "", "%C3%BC"),
            ("Global\\x", "Global\\", "x"),
            ("Local\\x", "Local\\", "x"),
            ("Global\\Local\\x", "Global\\", "Local%5Cx"),
            ("global\\x", "", "global%5Cx"),
        ):
            self.assertEqual(names.split(name), (prefix, encoded))

    def test_all_are_distinct_and_plain(self):
        encoded = {names.split(name)[1] for name in NAMES}
        self.assertEqual(len(encoded), len(NAMES))
        for name in encoded:
            self.assertRegex(name, r"\A[A-Za-z0-9._%-]+\Z")

    def test_empty_and_long_names_are_refused(self):
        for name in ("", "Global\\", "x" * (names.LONGEST_NAME + 1), "ü" * 34):
            with self.subTest(name=name), self.assertRaises(InvalidName) as caught:
                mmapipc.Receiver(name, timeout=0)
            self.assertIsInstance(caught.exception, ValueError)

    def test_location(self):
        place = system.place("Local\\a b").location
        if WINDOWS:
            self.assertEqual(place, "Local\\mmapipc.a%20b")
        else:
            self.assertRegex(place, r"/mmapipc\.\d+\.a%20b\Z")


class Carrying(ChannelTest):
    def test_every_name_carries_bytes_beside_all_the_others(self):
        pairs = []
        for name in (*NAMES, "x" * names.LONGEST_NAME):
            name = name.replace("plain", self.name)
            sender = mmapipc.Sender(name, capacity=64, timeout=DEADLINE)
            receiver = mmapipc.Receiver(name, timeout=DEADLINE)
            pairs.append((name, sender, receiver))
        for name, sender, _ in pairs:
            sender.write(name.encode(errors="surrogatepass")[:64])
        for name, sender, receiver in pairs:
            self.assertEqual(receiver.read(100), name.encode(errors="surrogatepass")[:64])
            sender.close()
            receiver.close()

    def test_local_and_plain_names_are_one(self):
        with mmapipc.Sender(f"Local\\{self.name}", timeout=DEADLINE) as sender:
            with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                sender.write(b"x")
                self.assertEqual(receiver.read(1), b"x")
