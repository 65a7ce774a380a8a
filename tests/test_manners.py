"""What a person meets at the command line: progress, digests, limits, quiet ends."""

import argparse
import contextlib
import hashlib
import itertools
import os
import re
import shlex
import signal
import subprocess
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import mmapipc
from mmapipc._cli import passing, progress
from mmapipc._cli.arguments import parse, parse_rate

from .helpers import DEADLINE, MMAPIPC, WINDOWS, Background, ChannelTest, by_signal, eventually, noise
from .terminal import Terminal, TerminalTest

SIZE = r"[0-9.]+ (B|KiB|MiB|GiB)"
LINE = rf"{SIZE} [0-9]:[0-9]{{2}}:[0-9]{{2}} +{SIZE}/s \(mean +{SIZE}/s\) ring +[0-9]+ %"


def summary(name, done, size):
    """The one line at the end."""
    more = rf" \({SIZE}\)" if size >= 1000 else ""
    return rf"mmapipc: {name}: {done} {size} bytes{more} in [0-9.]+ s, {SIZE}/s"


class Streams(ChannelTest):
    def test_a_minus_is_a_standard_stream(self):
        sender = self.send("-", stdin=subprocess.PIPE)
        receiver = self.receive("-o", "-")
        sender.feed(b"hello\n")
        self.assertEqual(sender.end(), (0, b"", ""))
        self.assertEqual(receiver.end(), (0, b"hello\n", ""))

    def test_a_line_does_not_wait_for_more_at_the_edge_of_the_ring(self):
        sender = self.send("--capacity", "5000", stdin=subprocess.PIPE)
        receiver = self.receive()
        for number in range(50):
            line = f"{number:0>300}"
            sender.feed(line.encode() + b"\n")
            self.assertEqual(receiver.line(), line)
        self.assertEqual(sender.end(), (0, b"", ""))
        self.assertEqual(receiver.end(), (0, b"", ""))

    def test_limits_hold_bytes_back(self):
        def case(self, limited):
            # Long enough for a receiver that starts a second after the sender has begun to fill the ring.
            sent = noise(120_000)
            options = {limited: ["--limit-rate", "60kB"]}
            receiver = self.receive(*options.get("receive", []))
            sender = self.send(self.file(sent), *options.get("send", []))
            got = receiver.process.stdout.read(1)
            began = time.perf_counter()
            got += receiver.process.stdout.read()
            # Not the first slice, which goes at once.
            self.assertGreater(time.perf_counter() - began, 0.75)
            self.assertTrue(got == sent)
            self.assertEqual((receiver.end(), sender.end()), ((0, b"", ""), (0, b"", "")))

        self.side_by_side(case, ("send", "receive"))

    def test_what_a_silent_source_did_not_use_is_not_made_up_for(self):
        with mock.patch.object(passing.time, "perf_counter", return_value=time.perf_counter() - 3600):
            way = passing.Passing(1000, None)
        began = time.perf_counter()
        for _ in range(3):
            way.passed(memoryview(bytes(100)), min(100, way.turn()))
        way.turn()
        self.assertGreater(time.perf_counter() - began, 0.15)

    def test_rates_as_people_write_them(self):
        for text, rate in (("1M", 1 << 20), ("500kB/s", 500_000), ("10 MiB/s", 10 << 20)):
            self.assertEqual(parse_rate(text), rate)
        for option in ("-L", "--limit-rate", "--rate-limit"):
            self.assertEqual(parse(["send", "x", option, "1M"]).limit_rate, 1 << 20)


class Digests(ChannelTest):
    def test_both_sides_print_what_sha256sum_would(self):
        for algorithm in ("sha256", "md5", "blake2b"):
            for sent in (b"", noise(3_000_001)):
                with self.subTest(algorithm=algorithm, size=len(sent)):
                    digest = hashlib.new(algorithm, sent).hexdigest()
                    source, target = self.file(sent), str(self.folder / "target")
                    ours = f"{'' if source == source.replace(chr(92), '') else chr(92)}{digest}  "
                    sender = self.send(source, "--hash", algorithm, "--capacity", "100000")
                    receiver = self.receive("-o", target, "--hash", algorithm)
                    for child, path in ((sender, source), (receiver, target)):
                        code, out, err = child.end()
                        self.assertEqual((code, err), (0, ""))
                        self.assertEqual(out.decode().rstrip("\r\n"), ours + path.replace("\\", "\\\\"))

    def test_it_keeps_out_of_the_stream(self):
        sent = noise(100_000)
        line = f"{hashlib.sha256(sent).hexdigest()}  -\n"
        sender = self.send("--hash", "sha256", stdin=subprocess.PIPE)
        receiver = self.receive("--hash", "sha256")
        output = Background(receiver.end)
        sender.feed(sent)
        code, out, err = sender.end()
        self.assertEqual(output.result(), (0, sent, line))
        self.assertEqual((code, out.decode().replace("\r\n", "\n"), err), (0, line, ""))

    def test_the_whole_stream_also_when_it_was_resumed(self):
        sent = noise(100_000)
        target = str(self.folder / "target")
        sender = self.send("--persist", "--hash", "sha256", stdin=subprocess.PIPE)
        receiver = self.receive("-o", target, "--resume")
        sender.feed(sent[:60_000])
        eventually(
            lambda: os.path.exists(target) and os.path.getsize(target) == 60_000, "the first part is there"
        )
        receiver.kill()
        sender.feed(sent[60_000:])
        sender.end_input()
        for child in (self.receive("-o", target, "--resume", "--hash", "sha256"), sender):
            code, out, _ = child.end()
            self.assertEqual(code, 0)
            self.assertIn(hashlib.sha256(sent).hexdigest(), out.decode())

    @unittest.skipIf(WINDOWS, "POSIX only: non-blocking pipes")
    def test_standard_streams_that_somebody_made_non_blocking(self):
        sent = noise(300_000)
        line = f"{hashlib.sha256(sent).hexdigest()}  -\n"
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        sender = self.send("--hash", "sha256", stdin=reading)
        os.close(reading)
        output, full = os.pipe()
        os.set_blocking(full, False)
        receiver = subprocess.Popen(
            [*MMAPIPC, "receive", self.name, "--hash", "sha256"], stdout=full, stderr=subprocess.PIPE
        )
        self.addCleanup(receiver.kill)
        os.close(full)
        with open(output, "rb") as got, open(writing, "wb", buffering=0) as source:
            for start in range(0, len(sent), 30_000):
                source.write(sent[start : start + 30_000])
                self.assertEqual(got.read(30_000), sent[start : start + 30_000])
            source.close()
            self.assertEqual(got.read(), b"")
        self.assertEqual(receiver.communicate(timeout=DEADLINE), (None, line.encode()))
        self.assertEqual(sender.end(), (0, line.encode(), ""))

    @unittest.skipIf(WINDOWS, "POSIX only: FIFOs")
    def test_the_rest_of_a_stream_into_a_fifo(self):
        fifo = str(self.folder / "fifo")
        os.mkfifo(fifo)
        with mmapipc.Sender(self.name, timeout=DEADLINE, persist=True) as sender:
            sender.write(b"0123456789")
            with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                receiver.read(4)
            sender.finish()
            child = self.receive("-o", fifo, "--hash", "md5")
            self.assertEqual(Path(fifo).read_bytes(), b"456789")
            code, out, err = child.end()
            self.assertEqual(
                (code, out, err), (0, f"{hashlib.md5(b'456789').hexdigest()}  {fifo}\n".encode(), "")
            )

    @unittest.skipIf(WINDOWS, "POSIX only: a shell that closes standard streams")
    def test_nowhere_to_print_it(self):
        for command, closed in (("send", ">&-"), ("receive -o /dev/null", ">&-"), ("receive", "2>&-")):
            arguments = [*MMAPIPC, *command.split(), self.name, "--hash", "md5"]
            code, out, err = self.start(["sh", "-c", f'exec "$@" {closed}', "sh", *arguments]).end()
            self.assertEqual((code, out), (1, b""))
            self.assertEqual(
                err, "" if closed == "2>&-" else f"mmapipc: {self.name}: standard output: is closed\n"
            )

    def test_no_digest_of_what_is_not_whole(self):
        sender = self.send("--hash", "sha256", stdin=subprocess.PIPE)
        receiver = self.receive("--hash", "sha256")
        sender.feed(b"part\n")
        self.assertEqual(receiver.line(), "part")
        sender.kill()
        code, out, err = receiver.end()
        self.assertEqual((code, out), (3, b""))
        self.assertNotIn("  -", err)

    def test_names_that_would_break_the_line(self):
        self.assertEqual(passing.checksum_line("0a", "a b"), "0a  a b")
        self.assertEqual(passing.checksum_line("0a", "a\nb\\c"), "\\0a  a\\nb\\\\c")

    @unittest.skipIf(WINDOWS, "POSIX only: a name in bytes")
    def test_a_name_that_is_no_text(self):
        path = os.path.join(os.fsencode(self.folder), b"\xff\xfe")
        with open(path, "wb") as file:
            file.write(b"data")
        receiver = self.receive()
        sender = self.start(
            [*map(os.fsencode, MMAPIPC), b"send", self.name.encode(), b"--hash", b"md5", path]
        )
        digest = hashlib.md5(b"data").hexdigest().encode()
        self.assertEqual(sender.end(), (0, digest + b"  " + path + b"\n", ""))
        self.assertEqual(receiver.end(), (0, b"data", ""))

    def test_a_hash_that_there_is_not(self):
        for algorithm in ("sha257", "shake_128", ""):
            code, out, err = self.send("--hash", algorithm).end()
            self.assertEqual((code, out), (2, b""))
            self.assertRegex(
                err, r"\Ammapipc send: argument --hash: .* is not a hash that this Python has [^\n]*\n\Z"
            )


class Quietly(ChannelTest):
    def test_a_reader_that_has_enough_ends_both_sides(self):
        sender = self.send("--capacity", "64KiB", stdin=subprocess.PIPE)
        receiver = self.receive()
        sender.feed(b"first\n")
        self.assertEqual(receiver.line(), "first")
        receiver.stop_reading()
        with contextlib.suppress(OSError):
            while True:
                sender.feed(b"more\n" * 10_000)
        with contextlib.suppress(OSError):
            sender.process.stdin.close()
        sender.process.stdin = None
        self.assertEqual(receiver.end(), (3, None, ""))
        self.assertEqual(sender.end(), (3, b"", ""))

    def test_it_has_no_summary(self):
        sender = self.send(self.file(noise(1_000_000)), "--progress", "--capacity", "1000")
        receiver = self.receive("--progress")
        self.assertTrue(receiver.process.stdout.read(10))
        receiver.stop_reading()
        for child in (receiver, sender):
            code, _, err = child.end()
            # A slow machine may show how it goes.
            self.assertEqual((code, re.findall(r" (?:sent|received) \d+ bytes.* in ", err)), (3, []))

    def test_a_receiver_in_a_program_that_has_enough(self):
        sender = self.send(self.file(noise(1_000_000)), "--capacity", "1000")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            receiver.read(10)
        self.assertEqual(sender.end(), (3, b"", ""))

    def test_nobody_reads_what_the_tools_print(self):
        with self.both():
            for arguments, code in (
                (["--help"], 3),
                (["send", "--help"], 3),
                (["--version"], 3),
                (["list", self.name], 3),
                (["inspect", self.name], 3),
                (["inspect", "--watch", self.name], 3),
                (["nonsense"], 2),
            ):
                with self.subTest(arguments=arguments):
                    reading, writing = os.pipe()
                    os.close(reading)
                    # Both, as `2>&1 | head` does.
                    child = subprocess.Popen([*MMAPIPC, *arguments], stdout=writing, stderr=writing)
                    os.close(writing)
                    self.assertEqual(child.wait(DEADLINE), code)

    def test_only_what_goes_wrong_is_said(self):
        sender = self.send("--persist", "--quiet", stdin=subprocess.PIPE)
        sender.feed(b"some")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            receiver.read(1)
        sender.end_input()
        receiver = self.receive("-q")
        self.assertEqual(receiver.end(), (0, b"ome", ""))
        self.assertEqual(sender.end(), (0, b"", ""))
        code, _, err = self.receive("-q", "--timeout", "0").end()
        self.assertEqual(
            (code, err), (4, f"mmapipc: {self.name}: no sender came within 0 s; start one or wait longer\n")
        )

    def test_a_fault_of_ours_is_one_line_too(self):
        child = self.python(
            "from mmapipc._cli import main, transfer\n"
            "def fail(*arguments, **options): raise RuntimeError('two\\nlines')\n"
            "transfer.Receiver = fail\n"
            "sys.exit(main.main(['receive', name]))\n"
        )
        told = f"mmapipc: {self.name}: unexpected RuntimeError: two\\nlines; please report this\n"
        self.assertEqual(child.end(), (1, b"", told))

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_a_standard_error_that_nobody_reads_does_not_keep_it(self):
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(1 << 16))
        os.set_blocking(writing, True)
        for options in ([], ["--progress"]):
            with mmapipc.Sender(self.name, timeout=DEADLINE, persist=True) as sender:
                child = subprocess.Popen(
                    [*MMAPIPC, "receive", self.name, *options], stderr=writing, stdout=subprocess.DEVNULL
                )
                self.addCleanup(child.kill)
                sender.write(b"x")
                eventually(lambda: not sender.in_flight, "it receives")

                def ended(child=child):
                    child.send_signal(signal.SIGINT)
                    return child.poll() is not None

                eventually(ended, "Ctrl-C ends it")
        os.close(writing)

    def test_names_that_cannot_be(self):
        for name, told in (
            ("", r"\(no name\): the name must have[^\n]*"),
            ("x" * 300, r"x{3,50}\.\.\.: [^\n]*200[^\n]*"),
        ):
            for command in ("send", "receive", "inspect", "remove", "list", "map"):
                code, out, err = self.start([*MMAPIPC, command, name]).end()
                self.assertEqual((code, out), (2, b""))
                self.assertRegex(err, rf"\Ammapipc: {told}\n\Z")

    def test_usage_is_one_line(self):
        for arguments in (
            ["send"],
            ["receive", "x", "--resume"],
            ["send", "x", "--nonsense"],
            ["send", "x", "-p", "-q"],
        ):
            code, out, err = self.start([*MMAPIPC, *arguments]).end()
            self.assertEqual((code, out), (2, b""))
            command = " ".join(["mmapipc", *arguments[:1]])
            self.assertRegex(err, rf"\A{command}: [^\n]* \(see {command} --help\)\n\Z")

    def test_what_is_said_draws_nothing(self):
        escape = "\x1b[2J"
        for arguments in (
            ["send", escape, escape, escape],
            ["send", "x", f"--{escape}"],
            [escape],
            ["send", "x", "--capacity", escape],
            ["receive", escape, "--timeout", "0"],
            ["receive", "x", "-o", f"/{escape}/file"],
            ["inspect", escape],
        ):
            code, out, err = self.start([*MMAPIPC, *arguments]).end()
            self.assertNotEqual(code, 0)
            self.assertNotIn("\x1b", out.decode() + err)
            self.assertIn("x1b[2J", err)

    def test_help_and_version(self):
        for command in ([], ["send"], ["receive"], ["inspect"], ["list"], ["remove"], ["map"]):
            code, out, err = self.start([*MMAPIPC, *command, "--help"]).end()
            self.assertEqual((code, err), (0, ""))
            text = out.decode().replace("\r\n", "\n")
            self.assertRegex(text, rf"\nexamples?\b.*:\n  mmapipc {' '.join(command)}")
            self.assertRegex(text, r"\nexit codes:\n  0  " if command else "`mmapipc COMMAND --help`")
            self.assertLessEqual(max(map(len, text.splitlines())), 80)
            code, out, err = self.start([*MMAPIPC, *command, "--version"]).end()
            self.assertEqual((code, out.decode().strip(), err), (0, f"mmapipc {mmapipc.__version__}", ""))


class InLines(ChannelTest):
    """Progress where there is no terminal."""

    def test_a_line_a_second_and_one_at_the_end(self):
        sender = self.send("--progress", "--capacity", "64KiB", stdin=subprocess.PIPE)
        sender.feed(b"x" * 100)
        said = sender.process.stderr
        waiting = f"mmapipc: {self.name}: waiting for a receiver on '{self.name}'"
        self.assertEqual(said.readline().decode().rstrip(), waiting)
        receiver = self.receive("--progress", "-o", os.devnull)
        self.assertRegex(said.readline().decode().rstrip(), rf"\Ammapipc: {self.name}: +{LINE}\Z")
        sender.feed(b"y" * 2000)
        code, out, err = sender.end()
        self.assertEqual((code, out), (0, b""))
        self.assertRegex(err, rf"{summary(self.name, 'sent', 2100)}\n\Z")
        code, out, err = receiver.end()
        self.assertEqual((code, out), (0, b""))
        self.assertRegex(err, rf"{summary(self.name, 'received', 2100)}\n\Z")

    def test_short_streams_too(self):
        sender = self.send(self.file(noise(5000)), "--progress")
        receiver = self.receive("--progress")
        for child, done in ((receiver, "received"), (sender, "sent")):
            code, _, err = child.end()
            self.assertEqual(code, 0)
            self.assertRegex(err, rf"{summary(self.name, done, 5000)}\n\Z")
            # It did not take as long as waiting for the other one did, and not no time either.
            self.assertNotIn("GiB/s", err)

    def test_a_ring_in_a_file_is_not_waiting(self):
        ring = str(self.folder / "ring")
        sender = self.send("--file", ring, "--progress", "--limit-rate", "20kB", self.file(noise(30_000)))
        code, _, err = sender.end()
        self.assertEqual(code, 0)
        self.assertRegex(err, rf"\A(mmapipc: {self.name}: .* %.*\n)+{summary(self.name, 'sent', 30000)}\n\Z")
        self.assertRegex(err, r" in [1-9]\d*\.\d s, ")  # the whole time counts
        self.assertEqual(self.receive("--file", ring).end(), (0, noise(30_000), ""))

    def test_a_stream_that_did_not_begin_has_no_summary(self):
        code, _, err = self.receive("--progress", "--timeout", "0").end()
        self.assertEqual((code, err.count("\n")), (4, 1))


@unittest.skipIf(WINDOWS, "POSIX only: pty")
class OnATerminal(TerminalTest):
    def until(self, pattern, text=""):
        """What comes up to and with the pattern."""
        end = time.perf_counter() + DEADLINE
        while not re.search(pattern, text):
            self.assertLess(time.perf_counter(), end, text[-500:])
            text += self.read()
        return text

    def shown(self, text):
        """What the terminal shows of the text in the end."""
        terminal = Terminal()
        terminal.write(text + "\r\n")
        self.assertNotIn("\x1b", text)
        return [line.rstrip() for line in terminal.lines[:-1]], terminal.longest

    def test_by_default_where_the_bytes_come_from_or_go_to_a_file(self):
        target = self.folder / "target"
        for redirections, *options in (
            ('2>"$0"', "receive", self.name, "-o", str(target)),
            (f'2>"$0" >{shlex.quote(str(target))}', "receive", self.name),
        ):
            receiver = self.on_terminal(redirections, *options)
            self.until(f"\rwaiting for a sender on '{self.name}'")
            sender = self.on_terminal('2>"$0"', "send", self.name, self.file(b"hello\n"))
            self.assertEqual((sender.end()[:2], receiver.end()[:2]), ((0, b""),) * 2)
            self.assertEqual(target.read_bytes(), b"hello\n")
            # Both draw there, and each begins with the channel's name.
            shown = self.until(r"(?s)(sent|received) 6 bytes in .*\n.*(sent|received) 6 bytes in .*\n")
            self.assertIn(f"mmapipc: {self.name}: received 6 bytes in ", shown)

    def test_a_line_begins_with_the_name(self):
        name = self.name + "x" * 60
        for columns, label in ((100, self.name), (40, self.name[:6])):
            self.resize(columns)
            sender = self.start(
                ["sh", "-c", 'exec "$@" 2>"$0"', self.tty, *MMAPIPC, "send", name, "--progress"],
                stdin=subprocess.PIPE, env={**os.environ, "TERM": "xterm"},
            )
            with mmapipc.Receiver(name, timeout=DEADLINE) as receiver:
                sender.feed(b"hello")
                self.assertEqual(receiver.read(5), b"hello")
                shown = self.until(rf"\r{re.escape(label)}[^\r]*\.\.\.: +5 B [^\r]*\r")
                sender.end_input()
                receiver.read()
            sender.end()
            text = shown + self.until("sent 5 bytes")
            lines = [line for line in text.split("\r") if "..." in line]
            self.assertLess(max(map(len, lines)), columns)

    def test_a_size_that_is_given(self):
        sender = self.on_terminal(
            '2>"$0"', "send", self.name, "--progress", "--size", "20", stdin=subprocess.PIPE
        )
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            sender.feed(b"hello")
            receiver.read(5)
            self.until(r" 25 % .* ETA ")
            sender.end_input()
            receiver.read()
        self.assertEqual(sender.end()[0], 0)

    def test_who_waits_for_a_misspelt_name_is_told_of_one_that_there_is(self):
        with mmapipc.Sender(f"{self.name}.greeting", timeout=DEADLINE) as sender:
            for redirections in ('2>"$0"', '2>"$0" >/dev/null'):
                child = self.on_terminal(redirections, "receive", f"{self.name}.greetnig")
                self.until(rf"there is a channel '{self.name}\.greeting'")
                child.process.send_signal(signal.SIGINT)
                self.assertEqual(child.end()[0], by_signal(signal.SIGINT))
            sender.abort()

    def test_otherwise_not(self):
        source = self.file(b"data")
        for redirections, *options in (
            ('>"$0" 2>"$0"', "receive", self.name, "--timeout", "300ms"),
            ('2>"$0" | cat', "receive", self.name, "--timeout", "300ms"),
            ('>/dev/null 2>"$0"', "receive", self.name, "--timeout", "300ms"),
            ('2>"$0"', "send", self.name, source, "--timeout", "300ms", "--quiet"),
            ('<"$0" 2>"$0"', "send", self.name, "--timeout", "300ms"),
        ):
            with self.subTest(redirections=redirections):
                child = self.on_terminal(redirections, *options)
                if redirections.startswith("<"):
                    os.write(self.master, b"typed\n\x04")
                self.assertIn(child.end()[0], (0, 4))  # after some redraws, if it made any
                os.write(self.slave, b"end\n")
                shown = self.until("end\r\n")
                self.assertRegex(shown, r"\A(typed\r\n)?mmapipc: [^\r]*\r\nend\r\n\Z")

    def test_who_waits_for_long_says_so(self):
        def receives(self):
            receiver = self.on_terminal('>"$0" 2>"$0"', "receive", self.name)
            # The other cases have channels of like names.
            self.assertRegex(
                self.until("\n"),
                rf"\Ammapipc: waiting for a sender on '{self.name}'( \(there is .*\))?\r\n\Z",
            )
            sender = self.send(stdin=subprocess.PIPE)
            sender.feed(b"hello\n")
            self.assertEqual(self.until("\n"), "hello\r\n")
            self.assertEqual((sender.end(), receiver.end()), ((0, b"", ""), (0, b"", "")))

        def sends(self, typed):
            redirections = ('>"$0"', '<"$0"')[typed] + ' 2>"$0"'
            more = {"stdin": subprocess.PIPE} if not typed else {}
            sender = self.on_terminal(redirections, "send", self.name, **more)
            text = self.until(f"mmapipc: waiting for a receiver on '{self.name}'\r\n")
            if typed:
                os.write(self.master, b"hello\x04\x04")
            else:
                sender.feed(b"hello")
                sender.end_input()
            self.assertEqual(self.receive().end(), (0, b"hello", ""))
            self.assertEqual(sender.end(), (0, b"", ""))
            os.write(self.slave, b"end\n")
            self.assertEqual(self.until("end\r\n", text).count("mmapipc: "), 1)

        def case(self, typed):
            receives(self) if typed is None else sends(self, typed)

        self.side_by_side(case, (None, False, True))

    def test_nor_is_it_said_where_nobody_wants_to_know(self):
        waits = ("--timeout", "2.5")  # longer than what is told of
        quiet = self.on_terminal('>"$0" 2>"$0"', "receive", self.name, *waits, "--quiet")
        self.name += "-other"
        piped = self.on_terminal('>"$0"', "receive", self.name, *waits)
        told = "no sender came within 2.5 s; start one or wait longer"
        self.assertEqual(piped.end(), (4, b"", f"mmapipc: {self.name}: {told}\n"))
        self.assertEqual(quiet.end(), (4, b"", ""))
        self.assertRegex(self.until("\n"), rf"\Ammapipc: [^\n]*: {told}\r\n\Z")

    def test_who_waits_for_a_role_says_who_has_it(self):
        def case(self, where):
            file = where[1] if where else None
            with mmapipc.Sender(self.name, timeout=DEADLINE, file=file) as holder:
                has_it = rf"on '{self.name}' \(pid {os.getpid()} has it\)"
                # One that draws its progress, and one that does not.
                with mmapipc.Receiver(self.name, timeout=DEADLINE, file=file):
                    receiver = self.on_terminal(
                        '2>"$0"', "receive", self.name, "--wait", "--progress", *where
                    )
                    self.until(rf"\rwaiting for the receiver's role {has_it}")
                    receiver.process.send_signal(signal.SIGINT)
                    self.assertEqual(receiver.end()[0], by_signal(signal.SIGINT))
                    self.until("interrupted\r\n")
                    sender = self.on_terminal(
                        '2>"$0"', "send", self.name, "--wait", "-B", "5", *where, stdin=subprocess.PIPE
                    )
                    sender.feed(b"hello")
                    self.until(rf"\Ammapipc: waiting for the sender's role {has_it}\r\n")
                    holder.finish()
                # From here on the other one has the role.
            if not where:
                self.until(rf"\Ammapipc: waiting for a receiver on '{self.name}'\r\n")
            sender.end_input()
            self.assertEqual(self.receive(*where).end(), (0, b"hello", ""))
            self.assertEqual(sender.end(), (0, b"", ""))

        self.side_by_side(case, ([], ["--file", str(self.folder / "ring")]))

    def test_it_fits_any_width_and_is_cleaned_up(self):
        def case(self, columns):
            self.resize(columns)
            sent = noise(60_000)
            sender = self.on_terminal(
                *('2>"$0"', "send", self.name, self.file(sent)),
                *("--progress", "--limit-rate", "100kB", "-B", "9000"),
            )
            text = self.until("waiting|\\.\\.\\.")
            with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                # Not readall(), which acknowledges at the end only.
                self.assertEqual(b"".join(iter(lambda: receiver.read(5000), b"")), sent)
            self.assertEqual(sender.end()[0], 0)
            text = self.until("s, .*/s\r\n", text)
            lines, _ = self.shown(text)
            self.assertRegex("".join(lines), rf"\A{summary(self.name, 'sent', 60000)}\Z")
            drawn, _, _ = text.rpartition("mmapipc: ")
            self.assertLess(self.shown(drawn)[1], columns)
            if columns >= 40:
                self.assertRegex(drawn, rf"\r[^\r]*: +{SIZE} +[0-9]+ % ")
            if columns >= 80:
                self.assertRegex(drawn, "ring .* ETA 0:00:0[0-9]")
            if columns == 110:
                self.assertIn("(mean", drawn)

        self.side_by_side(case, (110, 80, 40, 12))

    def test_what_is_in_flight_has_not_arrived(self):
        sender = self.on_terminal('2>"$0"', "send", self.name, self.file(noise(60_000)), "--progress")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            while receiver.tell() < 6000:
                receiver.read(6000 - receiver.tell())
            text = self.until(r"  10 % .*ETA ")
            self.assertNotIn("100 % ", text.replace("ring 100 %", ""))
            receiver.readall()
        self.assertEqual(sender.end()[0], 0)
        self.until(summary(self.name, "sent", 60_000))

    def test_at_most_ten_times_a_second(self):
        began = time.perf_counter()
        child = self.on_terminal('2>"$0"', "receive", self.name, "--progress")
        text = ""
        while text.count("\r") < 6:
            text += self.read()
        self.assertGreater(time.perf_counter() - began, 0.5)
        child.process.send_signal(signal.SIGTERM)
        self.assertEqual(child.end()[0], by_signal(signal.SIGTERM))

    def test_other_lines_do_not_run_into_it(self):
        sender = self.on_terminal(
            '2>"$0"', "send", self.name, "--persist", "--progress", stdin=subprocess.PIPE
        )
        sender.feed(b"0123456789")
        text = self.until("waiting")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            receiver.read(5)
            text = self.until("ring", text)
        sender.feed(b"more")  # while it waits for its source it does not look for receivers
        text = self.until("the receiver is gone.*\r\n(.*\r)*.*waiting", text)
        sender.process.send_signal(signal.SIGINT)
        self.assertEqual(sender.end()[0], by_signal(signal.SIGINT))
        lines, _ = self.shown(self.until("interrupted\r\n", text))
        self.assertEqual(
            lines[0], f"mmapipc: {self.name}: the receiver is gone; the stream goes on with the next"
        )
        self.assertRegex(lines[1], rf"\A{summary(self.name, 'sent', 5)}\Z")
        self.assertEqual(lines[2], f"mmapipc: {self.name}: interrupted")

    def test_one_that_is_stopped_holds_nobody_up(self):
        import termios

        def stop(self, case):
            what, options = case
            receiver = self.on_terminal('2>"$0" >/dev/null', "receive", self.name, *options)
            try:
                with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                    sender.write(b"part")
                    eventually(lambda sender=sender: not sender.in_flight, "it receives")
                    termios.tcflow(self.slave, termios.TCOOFF)
                    if what == "a signal":
                        receiver.process.send_signal(signal.SIGTERM)
                        self.assertEqual(receiver.process.wait(DEADLINE), by_signal(signal.SIGTERM))
                self.assertEqual(
                    receiver.process.wait(DEADLINE), 0 if what == "the end" else by_signal(signal.SIGTERM)
                )
            finally:
                termios.tcflow(self.slave, termios.TCOON)
                termios.tcflush(self.slave, termios.TCOFLUSH)

        self.side_by_side(stop, itertools.product(("the end", "a signal"), ((), ("--progress",))))

    def test_lines_for_a_dumb_one(self):
        child = self.on_terminal('2>"$0"', "receive", self.name, "--progress", TERM="dumb")
        waiting = f"mmapipc: {self.name}: waiting for a sender on '{self.name}'\r\n"
        self.assertEqual(self.until("\r\n"), waiting)
        child.process.send_signal(signal.SIGTERM)
        self.assertEqual(child.end()[0], by_signal(signal.SIGTERM))


class Blocked(ChannelTest):
    def test_a_line_that_cannot_be_written_holds_nobody_up(self):
        begun, ended = threading.Event(), threading.Event()
        self.addCleanup(ended.set)

        def tell(text):
            begun.set()
            ended.wait()

        with mock.patch.object(progress, "tell", tell), mock.patch.object(progress, "LONGEST_STOP", 0):
            arguments = argparse.Namespace(name=self.name, ring_file=None, wait=False, summary={})
            with progress.Watch(arguments, sends=True) as watch:
                with self.both() as (sender, receiver), watch.following(sender):
                    watch.say("something")
                    self.assertTrue(begun.wait(DEADLINE))
                    sender.write(b"goes on")
                    self.assertEqual(receiver.read(99), b"goes on")


class Parts(unittest.TestCase):
    def test_what_matters_most_is_left_out_last(self):
        parts = {
            "bytes": "999.9 MiB",
            "percent": "100 %",
            "elapsed": "9:59:59",
            "rate": "999.9 MiB/s",
            "mean": "(mean 999.9 MiB/s)",
            "fill": "ring 100 %",
            "eta": "ETA 9:59:59",
        }
        self.assertEqual(progress.fitted(parts, 79), " ".join(parts.values()))
        self.assertEqual(progress.fitted(parts, 39), "999.9 MiB 100 % 999.9 MiB/s ETA 9:59:59")
        self.assertEqual(progress.fitted(parts, 12), "999.9 MiB")
        for columns in range(80):
            self.assertLessEqual(len(progress.fitted(parts, columns)), columns)

    def test_clock(self):
        for seconds, text in ((0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (360_000, "100:00:00")):
            self.assertEqual(progress.clock(seconds), text)
