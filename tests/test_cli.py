"""The two commands, as separate processes."""

import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path

from mmapipc import cli

from .helpers import WINDOWS, Background, ChannelTest, noise

ROOT = Path(__file__).resolve().parent.parent
AWKWARD = bytes(range(256)) + b"\r\n\n\r\x1a\x00\r\r\n" + b"\xff\xfe\xef\xbb\xbf"


class Transfers(ChannelTest):
    def test_bytes_are_bytes_whoever_starts_first(self):
        for first in ("send", "receive"):
            for sent in (b"", b"\0", b"\x1a", AWKWARD, noise(3_000_001)):
                with self.subTest(first=first, size=len(sent)):
                    source, target = self.file(sent), self.folder / "target"
                    start = {
                        "send": lambda: self.send(source, "--capacity", "64KiB", "--timeout", "60"),
                        "receive": lambda: self.receive("-o", str(target), "--timeout", "60"),
                    }
                    children = [start[first]()]
                    children.append(start["receive" if first == "send" else "send"]())
                    for child in children:
                        self.assertEqual(child.end(), (0, b"", ""))
                    self.assertEqual(target.read_bytes(), sent)

    def test_standard_input_to_standard_output(self):
        sent = AWKWARD + noise(200_000)
        output = Background(self.receive().end)
        sender = self.send(stdin=subprocess.PIPE)
        sender.feed(sent)
        self.assertEqual(sender.end(), (0, b"", ""))
        self.assertEqual(output.result(), (0, sent, ""))

    def test_the_scripts_from_another_folder(self):
        scripts = [[sys.executable, str(ROOT / "scripts" / script), self.name] for script in ("send.py", "receive.py")]
        here = os.getcwd()
        os.chdir(self.folder)
        try:
            sender = self.start(scripts[0], stdin=subprocess.PIPE)
            receiver = self.start(scripts[1])
        finally:
            os.chdir(here)
        sender.feed(b"hello\n")
        self.assertEqual(sender.end(), (0, b"", ""))
        self.assertEqual(receiver.end(), (0, b"hello\n", ""))

    def test_each_line_passes_at_once(self):
        sender = self.send(stdin=subprocess.PIPE)
        receiver = self.receive()
        for number in range(20):
            sender.feed(b"line %d\n" % number)
            self.assertEqual(receiver.line(), f"line {number}")
        self.assertEqual(sender.end()[0], 0)
        self.assertEqual(receiver.end(), (0, b"", ""))

    def test_an_existing_target_is_replaced(self):
        target = self.file(b"something longer")
        sender, receiver = self.send(self.file(b"new")), self.receive("-o", target)
        self.assertEqual((sender.end()[0], receiver.end()[0]), (0, 0))
        self.assertEqual(Path(target).read_bytes(), b"new")

    @unittest.skipIf(WINDOWS, "POSIX only: getrusage")
    def test_memory_does_not_grow_with_the_stream(self):
        import resource

        sender = self.send("/dev/zero")
        receiver = self.start(
            [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[2]); import mmapipc\n"
             "r = mmapipc.Receiver(sys.argv[1]); total = 0\n"
             "while total < 1 << 30: n = len(r.peek(1 << 20)); r.consume(n); total += n\n", self.name, str(ROOT)]
        )
        self.assertEqual(receiver.end()[0], 0)
        self.assertEqual(sender.end()[0], 3)
        self.assertLess(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, 200_000)  # KiB


class Endings(ChannelTest):
    def check(self, child, code, *words):
        got, out, err = child.end()
        self.assertEqual(got, code, err)
        self.assertRegex(err, rf"\Ammapipc: {self.name}: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, err)
        return out

    def test_nobody_there(self):
        self.check(self.receive("--timeout", "0.1"), 4, "no sender")
        self.check(self.send(self.file(b"abc"), "--timeout", "0.1"), 4, "3 bytes were not delivered")

    def test_truncated_by_a_killed_sender(self):
        sender = self.send(stdin=subprocess.PIPE)
        receiver = self.receive()
        sender.feed(b"part\n")
        self.assertEqual(receiver.line(), "part")
        sender.kill()
        self.check(receiver, 3, "the sender died", "not whole")

    def test_not_wholly_delivered_to_a_killed_receiver(self):
        sender = self.send(stdin=subprocess.PIPE)
        receiver = self.receive()
        sender.feed(b"part\n")
        self.assertEqual(receiver.line(), "part")
        receiver.kill()
        sender.feed(b"rest\n")
        # Killed before or after it acknowledged what it wrote.
        self.check(sender, 3, "the receiver died", "bytes were not delivered")

    def test_second_ends_are_refused(self):
        with self.both():
            self.check(self.send(self.file(b"x")), 1, f"sender already (pid {os.getpid()})")
            target = self.file(b"precious")
            self.check(self.receive("-o", target), 1, f"receiver already (pid {os.getpid()})")
            self.assertEqual(Path(target).read_bytes(), b"precious")

    def test_files_that_cannot_be_used(self):
        missing = str(self.folder / "missing" / "file")
        self.check(self.send(missing), 1, missing)
        self.check(self.receive("-o", missing), 1, missing)
        self.check(self.receive("-o", str(self.folder)), 1, str(self.folder))

    def test_usage(self):
        for arguments in (
            ["send"],
            ["receive"],
            ["nonsense", "x"],
            [],
            ["send", "x", "--capacity", "0"],
            ["send", "x", "--capacity", "4 bananas"],
            ["receive", "x", "--timeout", "-1"],
            ["receive", "x", "--timeout", "soon"],
            ["receive", ""],
            ["receive", "x" * 300],
        ):
            with self.subTest(arguments=arguments):
                code, out, err = self.start([sys.executable, "-m", "mmapipc", *arguments]).end()
                self.assertEqual((code, out), (2, b""))
                self.assertIn("mmapipc", err)
                self.assertNotIn("Traceback", err)

    def test_help_tells_the_exit_codes(self):
        for arguments in (["--help"], ["send", "--help"], ["receive", "--help"]):
            code, out, err = self.start([sys.executable, "-m", "mmapipc", *arguments]).end()
            self.assertEqual((code, err), (0, ""))
            self.assertIn(b"130 interrupted", out)

    def test_sizes(self):
        for text, size in (
            ("1", 1), ("17B", 17), ("64KiB", 65536), ("64k", 65536), ("4MiB", 4 << 20), ("1.5 MiB", 3 << 19),
            ("10kB", 10_000), ("2GiB", 2 << 30), ("1tib", 1 << 40),
        ):
            self.assertEqual(cli._size(text), size)

    @unittest.skipIf(WINDOWS, "POSIX only: SIGINT to one process")
    def test_interrupted(self):
        sender = self.send(stdin=subprocess.PIPE)
        receiver = self.receive()
        sender.feed(b"part\n")
        self.assertEqual(receiver.line(), "part")
        os.kill(sender.pid, signal.SIGINT)
        self.check(sender, 130, "interrupted")
        self.check(receiver, 3, "the sender gave up")
