"""`mmapipc map`, as a process beside others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import unittest

import mmapipc
from mmapipc import Mapping

from .helpers import DEADLINE, MMAPIPC, WINDOWS, Child, by_signal, eventually, noise
from .test_mapping import whole_pages
from .test_tagnames import TagTest


class MapTest(TagTest):
    def map(self, *arguments: str, stdin: bytes | int = b"") -> Child:
        """Start `mmapipc map`; what is given as its standard input ends there."""
        child = self.start([*MMAPIPC, "map", *arguments], subprocess.PIPE)
        if isinstance(stdin, bytes):
            child.feed(stdin)
            child.end_input()
        return child

    def printed(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """What it prints when it ends well."""
        code, out, err = self.map(*arguments, stdin=stdin).end()
        self.assertEqual((code, err), (0, ""))
        return out

    def fails(self, code: int, words: str, *arguments: str, stdin: bytes = b"") -> None:
        got, out, err = self.map(*arguments, stdin=stdin).end()
        self.assertEqual((got, out), (code, b""), err)
        self.assertRegex(err, rf"\Ammapipc[^\n]*: [^\n]*{words}[^\n]*\n\Z")


class Looking(MapTest):
    def test_size_and_dump(self) -> None:
        content = b"\0" * 32 + bytes(range(256)) + b"\0" * 5000
        path = self.file(content)
        for where, label, size in (
            (["--file", path], path, len(content)),
            (["--tagname", self.tag], self.tag, whole_pages(len(content))),
            ([self.name], self.name, whole_pages(len(content))),
        ):
            with (
                Mapping(self.name, len(content)) as named,
                Mapping(tagname=self.tag, size=len(content)) as tagged,
            ):
                named.buf[:] = tagged.buf[:] = content
                lines = self.printed(*where).decode().splitlines()
                self.assertRegex(lines[0], rf"^{re.escape(label)}: {size} bytes \(\d+\.\d KiB\)$")
                self.assertEqual(lines[1], f"00000000  {'00 ' * 8} {'00 ' * 8} |{'.' * 16}|")
                self.assertEqual(lines[2], "*")
                self.assertEqual(
                    lines[7][:60], "00000060  40 41 42 43 44 45 46 47  48 49 4a 4b 4c 4d 4e 4f  "
                )
                self.assertEqual(lines[7][60:], "|@ABCDEFGHIJKLMNO|")
                self.assertEqual(lines[-1], "00000100")
                lines = self.printed(*where, "--offset", "80", "--length", "0.01k").decode().splitlines()
                self.assertEqual(
                    lines[1:],
                    ["00000050  30 31 32 33 34 35 36 37  38 39                    |0123456789|", "0000005a"],
                )
                self.assertEqual(
                    self.printed(*where, "--length", "4KiB", "--lock").decode().splitlines()[-1], "00001000"
                )
                tagged.unlink()

    def test_copying_out(self) -> None:
        content = noise(3_000_000)
        path = self.file(content)
        with Mapping(tagname=self.tag, size=len(content)) as made:
            made.buf[:] = content
            for where in (["--file", path], ["--tagname", self.tag]):
                for more in ([], ["--lock"]):
                    self.assertEqual(self.printed(*where, "--read", *more)[: len(content)], content)
                    part = self.printed(*where, "--read", "--offset", "1MiB", "--length", "100kB", *more)
                    self.assertEqual(part, content[1 << 20 : (1 << 20) + 100_000])
            made.unlink()

    def test_nobody_reads_on(self) -> None:
        child = self.map("--file", self.file(noise(3_000_000)), "--read")
        self.assertEqual(len(child.process.stdout.read(10)), 10)
        child.stop_reading()
        self.assertEqual((child.process.wait(DEADLINE), child.process.stderr.read()), (3, b""))

    @unittest.skipIf(WINDOWS, "POSIX only: a file's permissions")
    def test_looking_needs_the_right_to_read_only(self) -> None:
        with self.foreign(100, 0o400) as content:
            child = self.nobody(
                "where = ['map', '--tagname', tag]\n"
                "main([*where, '--read']); sys.exit(main([*where, '--write']))",
                "from mmapipc._cli import mapping\nfrom mmapipc._cli.main import main",
            )
            child.end_input()
            code, out, err = child.end()
            self.assertEqual((code, out), (1, content()))
            self.assertIn("Permission denied", err)


class Storing(MapTest):
    def test_what_fits(self) -> None:
        path = self.file(bytes(1000))
        with Mapping(self.name, 1000) as named, Mapping(tagname=self.tag, size=1000) as tagged:
            with Mapping(file=path) as of_file:
                for where, mapping in (
                    ([self.name], named),
                    (["--tagname", self.tag], tagged),
                    (["--file", path], of_file),
                ):
                    self.assertEqual(self.printed(*where, "--write", stdin=b"hello"), b"")
                    self.printed(*where, "--write", "--offset", "990", "--lock", stdin=b"0123456789")
                    self.printed(*where, "--write", "--offset", "500", "--length", "1", stdin=b"x")
                    self.printed(*where, "--write", stdin=b"")
                    expected = b"hello" + bytes(495) + b"x" + bytes(489) + b"0123456789"
                    self.assertEqual(bytes(mapping.buf), expected)
            tagged.unlink()

    def test_what_does_not_fit_is_not_stored(self) -> None:
        path = self.file(b"0123456789")
        for more, room in ([], "10 bytes"), (["--offset", "8"], "2 bytes"), (["--length", "3"], "3 bytes"):
            self.fails(1, f"more than the {room}", "--file", path, "--write", *more, stdin=b"x" * 11)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"0123456789")


class Making(MapTest):
    def test_it_is_there_until_the_end_of_input(self) -> None:
        for where, how in (
            ([self.name], {"name": self.name}),
            (["--tagname", self.tag], {"tagname": self.tag}),
        ):
            child = self.map(*where, "--create", "4KiB", stdin=subprocess.PIPE)
            self.held(how)
            self.fails(1, "already", *where, "--create", "4KiB")
            self.printed(*where, "--write", stdin=b"hello")
            self.assertEqual(self.printed(*where, "--read", "--length", "5"), b"hello")
            child.feed(b"whatever")
            child.end_input()
            self.assertEqual(child.end(), (0, b"", ""))
            eventually(lambda: not self.is_there(how), "the memory is gone")  # noqa: B023

    def is_there(self, how: dict[str, str]) -> bool:
        try:
            Mapping(create=False, **how).close()
        except mmapipc.NoSuchMapping:
            return False
        return True

    def held(self, how: dict[str, str]) -> None:
        eventually(lambda: self.is_there(how), "the memory is there")

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_or_a_signal(self) -> None:
        for number, word in (signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"):
            for where, how in (
                ([self.name], {"name": self.name}),
                (["--tagname", self.tag], {"tagname": self.tag}),
            ):
                child = self.map(*where, "--create", "4KiB", stdin=subprocess.PIPE)
                self.held(how)
                os.kill(child.pid, number)
                code, out, err = child.end()
                self.assertEqual((code, out), (by_signal(number), b""))
                self.assertIn(word, err)
                self.assertFalse(self.is_there(how))

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_or_a_signal_that_comes_as_it_is_made(self) -> None:
        child = self.python(
            "import signal\n"
            "from mmapipc._cli import mapping\nfrom mmapipc._cli.main import main\n"
            "def made(*given, **how):\n"
            "    memory = mmapipc.Mapping(*given, **how); os.kill(os.getpid(), signal.SIGTERM)\n"
            "    return memory\n"
            "mapping.Mapping = made\n"
            "sys.exit(main(['map', '--tagname', sys.argv[2], '--create', '4KiB']))",
            self.tag,
        )
        self.assertEqual(child.end()[0], by_signal(signal.SIGTERM))
        self.assertFalse(self.is_there({"tagname": self.tag}))

    def test_a_file_stays(self) -> None:
        path = str(self.folder / "new")
        self.assertEqual(self.printed("--file", path, "--create", "10"), b"")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), bytes(10))
        self.fails(1, "already", "--file", path, "--create", "20")


class Locking(MapTest):
    def test_it_waits_for_the_lock_and_says_so(self) -> None:
        path = self.file(b"0123456789")
        with Mapping(file=path) as made:
            for doing in ([], ["--read"], ["--write"]):
                with made.lock():
                    child = self.map("--file", path, "--lock", *doing, stdin=b"x")
                    line = child.process.stderr.readline().decode()
                    self.assertRegex(line, r"^mmapipc: .*file-\d+: .* has the lock .*we go on waiting")
                    self.assertEqual(made.buf[0], ord("0"))
                code, out, err = child.end()
                self.assertEqual((code, err), (0, ""))
                self.assertEqual(bool(out), doing != ["--write"])
            self.assertEqual(made.buf[0], ord("x"))

    def test_it_says_that_the_holder_died(self) -> None:
        path = self.file(b"0123456789")
        with Mapping(file=path) as made:
            child = self.hold(f"m = mmapipc.Mapping(file={path!r}); g = m.lock(); g.__enter__()")
            child.kill()
            code, out, err = self.map("--file", path, "--read", "--lock").end()
            self.assertEqual((code, out), (0, b"0123456789"))
            self.assertIn("may be half written", err)
            self.assertEqual(self.printed("--file", path, "--read", "--lock"), b"0123456789")
            with made.lock(timeout=0):
                pass


class Usage(MapTest):
    def test_what_makes_no_sense(self) -> None:
        for arguments in (
            [],
            ["x", "--tagname", "x"],
            ["x", "--file", "x"],
            ["x", "--read", "--write"],
            ["x", "--read", "--create", "1"],
            ["x", "--create", "0"],
            ["x", "--create", "10", "--lock"],
            ["x", "--create", "10", "--offset", "1"],
            ["x", "--offset", "-1"],
            ["x", "--length", "0"],
            ["x", "--offset", "many"],
        ):
            with self.subTest(arguments=arguments):
                self.fails(2, "", *arguments)
        self.fails(2, "characters", "x" * 300)
        self.fails(2, "tagname must have", "--tagname", "x" * 300)

    def test_what_is_not_there(self) -> None:
        for doing in ([], ["--read"], ["--write"]):
            self.fails(1, f"{self.name}: ", self.name, *doing)
            self.fails(1, f"{self.tag}: ", "--tagname", self.tag, *doing)
            self.fails(1, "missing: ", "--file", str(self.folder / "missing"), *doing)
        self.assertFalse((self.folder / "missing").exists())
        path = self.file(b"0123456789")
        for more in (["--offset", "10"], ["--offset", "4", "--length", "7"], ["--length", "1MiB"]):
            for doing in ([], ["--read"], ["--write"]):
                self.fails(1, "not inside the 10 bytes", "--file", path, *more, *doing)
