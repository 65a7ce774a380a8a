"""The two commands, as separate processes."""

import argparse
import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import mmapipc
from mmapipc._cli.arguments import parse, parse_duration, parse_size
from mmapipc._meeting import homes

from .helpers import (
    DEADLINE,
    MMAPIPC,
    PYTHON,
    WINDOWS,
    Background,
    ChannelTest,
    Child,
    by_signal,
    eventually,
    noise,
)

ROOT = Path(__file__).resolve().parent.parent
AWKWARD = bytes(range(256)) + b"\r\n\n\r\x1a\x00\r\r\n" + b"\xff\xfe\xef\xbb\xbf"


class Transfers(ChannelTest):
    def test_bytes_are_bytes_whoever_starts_first(self):
        def case(self, what):
            first, sent = what
            source, target = self.file(sent), self.folder / "target"
            start = {
                "send": lambda: self.send(source, "--capacity", "64KiB", "--timeout", str(DEADLINE)),
                "receive": lambda: self.receive("-o", str(target), "--timeout", str(DEADLINE)),
            }
            children = [start[first]()]
            children.append(start["receive" if first == "send" else "send"]())
            for child in children:
                self.assertEqual(child.end(), (0, b"", ""))
            self.assertEqual(target.read_bytes(), sent)

        self.side_by_side(
            case, itertools.product(("send", "receive"), (b"", b"\0", b"\x1a", AWKWARD, noise(3_000_001)))
        )

    def test_standard_input_to_standard_output(self):
        sent = AWKWARD + noise(200_000)
        output = Background(self.receive().end)
        sender = self.send(stdin=subprocess.PIPE)
        sender.feed(sent)
        self.assertEqual(sender.end(), (0, b"", ""))
        self.assertEqual(output.result(), (0, sent, ""))

    def test_the_scripts_from_another_folder(self):
        scripts = [
            [*PYTHON, str(ROOT / "scripts" / script), self.name] for script in ("send.py", "receive.py")
        ]
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
        # A process of its own starts both: a process's peak begins at its parent's.
        stream = self.folder / "sparse"
        stream.touch()
        os.truncate(stream, 1 << 30)
        child = self.python(
            "import resource, subprocess\n"
            "ends = [subprocess.Popen(end.split('|')) for end in sys.argv[2:]]\n"
            "say([end.wait(DEADLINE) for end in ends])\n"
            "say(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n",
            "|".join([*MMAPIPC, "send", self.name, str(stream)]),
            "|".join([*MMAPIPC, "receive", self.name, "-o", os.devnull]),
        )
        codes, peak = child.end()[1].splitlines()
        self.assertEqual(codes, b"[0, 0]")
        self.assertLess(int(peak), 200_000 * (1024 if sys.platform == "darwin" else 1))  # 200 MB


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
        with contextlib.suppress(OSError):  # it may have ended already
            sender.feed(b"rest\n")
        # Killed before or after it acknowledged what it wrote.
        self.check(sender, 3, "the receiver died", "bytes were not delivered")

    def test_what_was_not_even_read_was_not_delivered_either(self):
        sent = self.file(bytes(10_000))
        waits = ("--capacity", "1000", "--timeout", "0.1")
        self.check(self.send(sent, *waits), 4, "1000 bytes were not delivered; the rest was not sent\n")
        self.check(self.send(self.file(bytes(999)), *waits), 4, " 999 bytes were not delivered\n")

    def test_a_persistent_stream_goes_on_with_the_next_receiver(self):
        sent = b""
        sender = self.send("--persist", "--capacity", "1000", stdin=subprocess.PIPE)
        target = str(self.folder / "target")
        for turn in range(3):
            piece = noise(20_000, turn)
            sent += piece
            receiver = self.receive("-o", target, "--resume")
            sender.feed(piece)
            eventually(
                lambda: os.path.exists(target) and os.path.getsize(target) == len(sent),
                "all that was fed arrives",
            )
            receiver.kill()
        # Something must be under way: a sender that has nothing to deliver is done.
        sender.feed(b"the rest")
        sent += b"the rest"
        sender.end_input()
        self.assertEqual(self.receive("-o", target, "--resume").end(), (0, b"", ""))
        code, _, err = sender.end()
        self.assertEqual(code, 0)
        told = re.findall(
            rf"mmapipc: {self.name}: (?:the|(\d+)) receivers? (?:is|are) gone; "
            r"the stream goes on with the next\n",
            err,
        )
        self.assertEqual((len(told), sum(int(count or 1) for count in told)), (err.count("\n"), 3))
        self.assertEqual(Path(target).read_bytes(), sent)

    def test_a_lost_receiver_is_told_of_also_when_the_next_has_done_everything(self):
        lost = []
        with mmapipc.Sender(self.name, timeout=DEADLINE, persist=True, on_lost=lost.append) as sender:
            sender.write(b"0123456789")
            for size in (2, 2, 6):
                with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                    receiver.read(size)
        self.assertEqual(lost, [2])

    def test_a_receiver_that_is_just_attaching_is_not_lost(self):
        lost = []
        with mmapipc.Sender(self.name, timeout=DEADLINE, persist=True, on_lost=lost.append) as sender:
            sender.write(b"0123456789")
            # Between the steps of attaching: it is counted, and not yet there.
            with mock.patch.object(homes.InMemory, "order", lambda home: sender._link.look(True)):
                for size in (4, 6):
                    with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                        receiver.read(size)
        self.assertEqual(lost, [1])

    def test_what_cannot_be_resumed_is_refused(self):
        with mmapipc.Sender(self.name, timeout=DEADLINE, persist=True) as sender:
            sender.write(b"0123456789")
            with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                receiver.read(6)
            short = self.file(b"01234")
            self.check(self.receive("-o", short, "--resume"), 1, short, "5 bytes", "6")
            self.check(self.receive("-o", os.devnull, "--resume"), 1, "not a regular file")
            good = self.file(b"012345garbage")
            receiver = self.receive("-o", good, "--resume")
            sender.close()
            self.assertEqual(receiver.end(), (0, b"", ""))
            self.assertEqual(Path(good).read_bytes(), b"0123456789")

    def test_second_ends_are_refused(self):
        with self.both():
            self.check(self.send(self.file(b"x")), 1, f"sender already (pid {os.getpid()})")
            target = self.file(b"precious")
            self.check(self.receive("-o", target), 1, f"receiver already (pid {os.getpid()})")
            self.assertEqual(Path(target).read_bytes(), b"precious")

    def test_with_wait_they_have_their_turn(self):
        with self.both():
            for start, role in ((self.send, "sender"), (self.receive, "receiver")):
                who = f"another {role} (pid {os.getpid()})"
                told = f"{who} still has the role after 0.1 s; end it or wait longer\n"
                self.check(start("--wait", "--timeout", "0.1"), 4, told)
        sent = [b"one", b"two", b"three"]
        senders = [self.send("--wait", self.file(each)) for each in sent]
        receivers = [self.receive("--wait") for _ in sent]
        self.assertEqual(sorted(child.end() for child in receivers), sorted((0, each, "") for each in sent))
        for child in senders:
            self.assertEqual(child.end(), (0, b"", ""))

    def test_files_that_cannot_be_used(self):
        missing = str(self.folder / "missing" / "file")
        self.check(self.send(missing), 1, missing)
        self.check(self.receive("-o", missing), 1, missing)
        self.check(self.receive("-o", str(self.folder)), 1, str(self.folder))
        if WINDOWS:
            impossible = str(self.folder / "what?")
            self.check(self.send(impossible), 1, impossible)
            self.check(self.receive("-o", impossible), 1, impossible)

    def test_usage(self):
        wrong = (
            ["send"],
            ["receive"],
            ["nonsense", "x"],
            [],
            ["send", "x", "--capacity", "0"],
            ["send", "x", "--capacity", "4 bananas"],
            ["receive", "x", "--timeout", "-1"],
            ["receive", "x", "--timeout", "soon"],
            ["receive", "x", "--resume"],
            ["receive", ""],
            ["receive", "x" * 300],
        )

        def case(self, arguments):
            code, out, err = self.start([*MMAPIPC, *arguments]).end()
            self.assertEqual((code, out), (2, b""))
            self.assertIn("mmapipc", err)
            self.assertNotIn("Traceback", err)

        self.side_by_side(case, wrong)

    def test_options_and_what_looks_like_them_anywhere(self):
        sent = self.file(b"hello")
        dashed = f"-{self.name}"
        sender = self.start([*MMAPIPC, "send", "--timeout", str(DEADLINE), "--", dashed, sent])
        receiver = self.start([*MMAPIPC, "receive", "--timeout", str(DEADLINE), "--", dashed])
        self.assertEqual(receiver.end(), (0, b"hello", ""))
        self.assertEqual(sender.end(), (0, b"", ""))
        for arguments, name, file in (
            (["-q", "--", "-n", "--", ], "-n", "--"),
            (["n", "-q", "--", "-"], "n", None),
            (["n", "--", "-q"], "n", "-q"),
        ):
            parsed = parse(["send", *arguments])
            self.assertEqual((parsed.name, parsed.input), (name, file))
        sender = self.start([*MMAPIPC, "send", self.name, "--timeout", str(DEADLINE), sent])
        receiver = self.start([*MMAPIPC, "receive", "--timeout", str(DEADLINE), self.name])
        self.assertEqual(receiver.end(), (0, b"hello", ""))
        self.assertEqual(sender.end(), (0, b"", ""))

    def test_help_tells_the_exit_codes(self):
        for arguments in (["send", "--help"], ["receive", "--help"], ["list", "--help"]):
            code, out, err = self.start([*MMAPIPC, *arguments]).end()
            self.assertEqual((code, err), (0, ""))
            self.assertIn(b"129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM", out)

    def test_durations(self):
        for text, seconds in (
            *(("0", 0), ("5", 5), ("2.5", 2.5), (".5", 0.5)),
            *(("5s", 5), ("500ms", 0.5), ("2 m", 120), ("1.5h", 5400)),
        ):
            self.assertEqual(parse_duration(text), seconds)
        for text in ("", "-1", "5 days", "nan", "1e3", "s"):
            with self.assertRaisesRegex(argparse.ArgumentTypeError, "is not a duration of 0 or more"):
                parse_duration(text)

    def test_sizes(self):
        for text, size in (
            ("1", 1), ("17B", 17), ("64KiB", 65536), ("64k", 65536), ("4MiB", 4 << 20), ("1.5 MiB", 3 << 19),
            ("10kB", 10_000), ("2GiB", 2 << 30), ("1tib", 1 << 40),
        ):
            self.assertEqual(parse_size(text), size)

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_signals(self):
        for number, word in (
            (signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), (signal.SIGHUP, "hung up")
        ):
            with self.subTest(number=number):
                code = by_signal(number)  # it dies of the signal, so that a loop of the shell's ends too
                sender = self.send(stdin=subprocess.PIPE)
                receiver = self.receive()
                sender.feed(b"part\n")
                self.assertEqual(receiver.line(), "part")
                sender.process.send_signal(number)
                self.check(sender, code, word)
                self.check(receiver, 3, "the sender gave up")
                sender = self.send("/dev/zero")
                receiver = self.receive()
                self.assertTrue(receiver.process.stdout.read(1))
                receiver.process.send_signal(number)
                self.check(receiver, code, word)
                self.check(sender, 3, "the receiver gave up")

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_signals_that_the_parent_ignores(self):
        ignoring = ["sh", "-c", "trap '' INT TERM HUP; exec \"$@\"", "sh"]
        for command in ([*MMAPIPC, "receive"], [*PYTHON, str(ROOT / "scripts" / "receive.py")]):
            receiver = self.start([*ignoring, *command, self.name])
            with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                sender.write(b"part\n")
                self.assertEqual(receiver.line(), "part")
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    receiver.process.send_signal(number)
                sender.write(b"rest\n")
            self.assertEqual(receiver.end(), (0, b"rest\n", ""))

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_interrupted_while_it_starts(self):
        # As if the key was pressed in the middle of an import.
        (self.folder / "sitecustomize.py").write_text(
            "import os, signal, sys\n"
            "class Press:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'mmapipc._cli.arguments': os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Press())\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        for command in (["-m", "mmapipc", "send"], [str(ROOT / "scripts" / "send.py")]):
            child = self.start([sys.executable, *command, self.name], env=environment)
            self.assertEqual(child.end(), (by_signal(signal.SIGINT), b"", ""))

    @unittest.skipUnless(WINDOWS, "Windows only: Ctrl-C and Ctrl-Break")
    def test_console_signals(self):
        # The process raises them itself: Wine has no console here to press keys in.
        for number in (signal.SIGINT, signal.SIGBREAK):
            with self.subTest(number=number):
                receiver = self.python(
                    "import signal, threading\n"
                    "from mmapipc._cli.main import main\n"
                    f"def press(): sys.stdin.readline(); signal.raise_signal({int(number)})\n"
                    "threading.Thread(target=press, daemon=True).start()\n"
                    "sys.exit(main(['receive', name]))\n",
                    stdin=subprocess.PIPE,
                )
                with self.assertRaises(mmapipc.ReceiverGone):
                    with mmapipc.Sender(self.name, capacity=5, timeout=DEADLINE) as sender:
                        sender.write(b"part\n")
                        self.assertEqual(receiver.line(), "part")
                        receiver.feed(b"\n")
                        self.check(receiver, by_signal(signal.SIGINT), "interrupted")
                        sender.write(b"more\n")


class Idle(ChannelTest):
    """Nobody says anything, and the other end goes."""

    def gone(self, sender: Child, told: str) -> None:
        """The sender ends, though its input, which we hold open, says nothing."""
        source, sender.process.stdin = sender.process.stdin, None
        code, out, err = sender.end()
        self.assertEqual((code, out), (3, b""))
        self.assertRegex(err, told)
        if source is not None:
            source.close()

    def test_a_sender_whose_receiver_dies(self):
        sender, receiver = self.send(stdin=subprocess.PIPE), self.receive()
        sender.feed(b"part\n")
        self.assertEqual(receiver.line(), "part")
        receiver.kill()
        told = r"the receiver died; \d bytes were not delivered; the rest was not sent\n"
        self.gone(sender, rf"\Ammapipc: {self.name}: {told}\Z")

    def test_a_sender_whose_receiver_goes_after_it_had_everything(self):
        for how, told in (
            ("close", r"\A\Z"),
            ("abort", "the receiver gave up; 0 bytes were not delivered; the rest was not sent"),
        ):
            sender = self.send(stdin=subprocess.PIPE)
            sender.feed(b"part\n")
            receiver = mmapipc.Receiver(self.name, timeout=DEADLINE)
            self.assertEqual(receiver.readline(), b"part\n")
            getattr(receiver, how)()
            self.gone(sender, told)

    def test_one_with_a_persistent_stream_goes_on(self):
        sender = self.send("--persist", stdin=subprocess.PIPE)
        for line in (b"one\n", b"two\n"):
            sender.feed(line)
            with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                self.assertEqual(receiver.readline(), line)
        sender.feed(b"three\n")
        sender.end_input()
        self.assertEqual(self.receive().end(), (0, b"three\n", ""))
        self.assertEqual(sender.end()[0], 0)

    @unittest.skipIf(WINDOWS, "POSIX only: FIFOs, terminals and sockets as standard input")
    def test_any_input_that_can_be_idle(self):
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        ours, theirs = socket.socketpair()
        master, terminal = os.openpty()
        inputs = (os.open(fifo, os.O_RDWR), theirs.detach(), terminal)
        for source in inputs:
            sender = self.send(stdin=source)
            with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                self.assertFalse(receiver.poll())
            self.gone(sender, r"\A\Z")
        for descriptor in (*inputs, master):
            os.close(descriptor)
        ours.close()

    def test_a_receiver_whose_reader_goes(self):
        sender, receiver = self.send(stdin=subprocess.PIPE), self.receive()
        sender.feed(b"part\n")
        self.assertEqual(receiver.line(), "part")
        receiver.stop_reading()
        self.assertEqual(receiver.end(), (3, None, ""))
        self.gone(sender, r"\A\Z")

    @unittest.skipIf(WINDOWS, "POSIX only: a socket as standard output")
    def test_a_receiver_whose_reader_was_at_a_socket(self):
        ours, theirs = socket.socketpair()
        with mmapipc.Sender(self.name, timeout=DEADLINE, persist=True) as sender:
            sender.write(b"part")
            receiver = subprocess.Popen([*MMAPIPC, "receive", self.name], stdout=theirs)
            self.addCleanup(receiver.kill)
            theirs.close()
            self.assertEqual(ours.recv(9), b"part")
            ours.close()
            self.assertEqual(receiver.wait(DEADLINE), 3)
