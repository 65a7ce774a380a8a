"""Endurance: streams and connections between random interpreters, which are stopped, resumed and killed.

    python3 -m tests.soak --seconds 3600 --seed 1 --pythons 3.10 3.15

Each round is made from one number: `--seed` for the first, one more for each that follows.  A failure names
its round's number; with that as `--seed` a run begins with the same round.  A line a minute says what was
done so far.  From two minutes on, one of the streams has 10 GiB.  POSIX only.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmapipc.connection as listening

from .helpers import PRELUDE, PYTHON, ChannelTest, Child, eventually

ROOT = Path(__file__).resolve().parent.parent
SIDE_BY_SIDE = 3  # rounds
LONG = 120  # seconds from which the long stream is a part of it
LONG_STREAM = 10 << 30
HEADERS = 5000  # a round

# What both the children and this process make of a number.
BLOCKS = """
import hashlib, io, random, zlib
def blocks(seed, size):
    chance = random.Random(seed)
    while size:
        block = chance.randbytes(1 + chance.getrandbits(6 + 3 * chance.getrandbits(2)))[:size]
        size -= len(block)
        yield block
"""
exec(BLOCKS)

OPENED_TO_WRITE = (
    "mmapipc.Sender(name, capacity={capacity})",
    "mmapipc.open(name, 'wb', capacity={capacity})",
    "io.BufferedWriter(mmapipc.Sender(name, capacity={capacity}))",
)
OPENED_TO_READ = (
    ("mmapipc.Receiver(name)", "end.read(5000)"),
    ("mmapipc.Receiver(name)", "end.readline()"),
    ("mmapipc.Receiver(name)", "bytes(buffer[:end.readinto(buffer)])"),
    ("mmapipc.open(name)", "end.read1(3000)"),
    ("io.BufferedReader(mmapipc.Receiver(name))", "end.read(50)"),
)
WRITES = """
digest = hashlib.sha256()
with {opened} as end:
    for block in blocks({seed}, {size}):
        digest.update(block)
        end.write(block)
say(digest.hexdigest())
"""
READS = """
digest, size, how, buffer = hashlib.sha256(), 0, 'whole', bytearray(3000)
try:
    with {opened} as end:
        while data := {read}:
            digest.update(data)
            size += len(data)
            if size - len(data) < {told} <= size:
                say('on its way')
except mmapipc.ChannelError as error:
    how = type(error).__name__
say(f'{{size}} {{digest.hexdigest()}} {{how}}')
"""
WRITES_UNTIL_TOLD = """
import threading
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
size = 0
with mmapipc.Sender(name, capacity={capacity}, persist=True, file={file!r}) as end:
    for block in blocks({seed}, 1 << 60):
        end.write(block)
        size += len(block)
        time.sleep(0.0002)
        if over.is_set():
            break
say(size)
"""
SERVES = """
from mmapipc import connection
with connection.Listener(name) as listener:
    say('up')
    while True:
        try:
            with listener.accept() as c:
                while True:
                    c.send_bytes(c.recv_bytes()[::-1])
        except (EOFError, OSError):
            pass
"""
ASKS = """
from mmapipc import connection
with connection.Client(name) as c:
    for number, block in enumerate(blocks({seed}, {size}), 1):
        c.send_bytes(block)
        assert c.recv_bytes() == block[::-1]
        if number == 1:
            say('on its way')
say(number)
"""
TRIES_HEADERS = """
import unittest
from tests import test_hostile
test_hostile.SEED, test_hostile.HEADERS = {seed}, {headers}
tests = unittest.defaultTestLoader.loadTestsFromTestCase(test_hostile.PlainMemory)
result = unittest.TextTestRunner(sys.stdout).run(tests)
say('good' if result.wasSuccessful() else 'bad')
"""
# The checksum moves on with the stream, whose pieces never lie at the same place of what they are cut from.
LONG_PIECES = """
piece, source, crc = 1 << 20, random.Random(1).randbytes((1 << 23) + 1), 0
def moving(number):
    start = number * 104_729 % (len(source) - piece)
    return memoryview(source)[start : start + piece]
"""
LONG_WRITES = LONG_PIECES + """
with mmapipc.Sender(name) as end:
    for number in range({size} // piece):
        crc = zlib.crc32(moving(number), crc)
        end.write(moving(number))
say(f'{size} {{crc:08x}}')
"""
LONG_READS = """
crc, size = 0, 0
with mmapipc.Receiver(name) as end:
    while view := end.peek(1 << 20):
        crc = zlib.crc32(view, crc)
        size += len(view)
        end.consume(len(view))
say(f'{{size}} {{crc:08x}}')
"""


class Soak(ChannelTest):
    """Rounds, some at a time, until the time is over or one fails."""

    def __init__(self, seconds: float, seed: int, pythons: list[list[str]]) -> None:
        super().__init__("endure")
        self.ends_at = time.monotonic() + seconds
        self.pythons = pythons
        self.numbers = itertools.count(seed)
        self.figures: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.failed = False
        self.long = seconds >= LONG

    def endure(self) -> None:
        began = time.monotonic()
        first = [threading.Thread(target=self.one, args=(Round.long_stream, 0))] if self.long else []
        threads = first + [threading.Thread(target=self.many) for _ in range(SIDE_BY_SIDE - len(first))]
        for thread in threads:
            thread.start()
        said = 0
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
            minutes = int((time.monotonic() - began) / 60)
            if minutes > said:
                said = minutes
                print(f"{minutes} min: {self.summary()}", flush=True)
        print(f"in {time.monotonic() - began:.0f} s: {self.summary()}", flush=True)
        self.assertFalse(self.failed, "a round failed, see above")

    def summary(self) -> str:
        with self.lock:
            return ", ".join(f"{count:,} {what}" for what, count in sorted(self.figures.items()))

    def count(self, what: str, more: int = 1) -> None:
        with self.lock:
            self.figures[what] += more

    def many(self) -> None:
        while not self.failed and time.monotonic() < self.ends_at:
            number = next(self.numbers)
            self.one(random.Random(number).choice(KINDS), number)

    def one(self, kind: Any, number: int) -> None:
        """One round, which leaves nothing behind."""
        part = self.part()
        part._children = []
        try:
            try:
                kind(Round(self, part, number))
            finally:
                part._dispose()
                shutil.rmtree(part.folder)
                self._parts.remove(part)
            eventually(lambda: not part._exists(), "the channel's memory is gone")
            self.count(f"rounds of {kind.__name__}")
        except BaseException:
            self.failed = True
            print(f"FAILED: {kind.__name__}, --seed {number}\n{traceback.format_exc()}", flush=True)


class Round:
    """What one number is made into."""

    def __init__(self, soak: Soak, test: Any, seed: int) -> None:
        self.soak = soak
        self.test = test
        self.seed = seed
        self.chance = random.Random(seed)
        self.chance.random()  # by which the kind was chosen

    def python(self) -> list[str]:
        return self.chance.choice(self.soak.pythons)

    def code(self, code: str, stdin: int = subprocess.DEVNULL, **values: object) -> Child:
        """Start code in any interpreter."""
        text = PRELUDE + BLOCKS + code.format(seed=self.seed, **values)
        return self.test.start([*self.python(), "-c", text, self.test.name], stdin)

    def command(self, *arguments: str, **options: Any) -> Child:
        return self.test.start([*self.python(), "-m", "mmapipc", *arguments], **options)

    def pause(self, child: Child) -> None:
        """Stop it for a moment."""
        child.process.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.random() * 0.05)
        child.process.send_signal(signal.SIGCONT)
        self.soak.count("stops")

    def pause_some(self, children: list[Child]) -> None:
        """Stop them now and then until one has ended."""
        for _ in range(self.chance.randrange(6)):
            time.sleep(self.chance.random() * 0.1)
            if any(child.process.poll() is not None for child in children):
                return
            self.pause(self.chance.choice(children))

    def said(self, child: Child) -> list[str]:
        """The words of its last line; it has ended well."""
        code, out, err = child.end()
        self.test.assertEqual((code, err), (0, ""), out[-2000:])
        return out.decode().splitlines()[-1].split()

    def capacity_and_size(self) -> tuple[int, int]:
        capacity = self.chance.choice((1, 7, 300, 4096, 65_536, 1 << 22))
        return capacity, self.chance.randrange(min(20_000_000, 3000 * capacity))

    def starting(self, *starts: Any) -> list[Child]:
        """Start all, in any order; return them in the order given."""
        order = list(range(len(starts)))
        self.chance.shuffle(order)
        children = {}
        for index in order:
            children[index] = starts[index]()
        return [children[index] for index in range(len(starts))]

    def stream(self) -> None:
        """In the library, in any two ways."""
        capacity, size = self.capacity_and_size()
        to_write = self.chance.choice(OPENED_TO_WRITE).format(capacity=capacity)
        opened, read = self.chance.choice(OPENED_TO_READ)
        sender, receiver = self.starting(
            lambda: self.code(WRITES, opened=to_write, size=size),
            lambda: self.code(READS, opened=opened, read=read, told=-1),
        )
        self.pause_some([sender, receiver])
        (digest,) = self.said(sender)
        self.test.assertEqual(self.said(receiver), [str(size), digest, "whole"])
        self.soak.count("bytes", size)

    def killed_sender(self) -> None:
        """The receiver has a beginning of the stream, and is told that it is one."""
        capacity, _ = self.capacity_and_size()
        to_write = self.chance.choice(OPENED_TO_WRITE).format(capacity=capacity)
        opened, read = self.chance.choice(OPENED_TO_READ)
        told = self.chance.randrange(1, 100 * capacity if capacity < 4096 else 400_000)
        sender, receiver = self.starting(
            lambda: self.code(WRITES, opened=to_write, size=1 << 60),
            lambda: self.code(READS, opened=opened, read=read, told=told),
        )
        self.test.assertEqual(receiver.line(), "on its way")
        self.pause_some([sender, receiver])
        sender.kill()
        size, digest, how = self.said(receiver)
        self.test.assertEqual(how, "SenderDied")
        beginning = hashlib.sha256()
        for block in blocks(self.seed, int(size)):  # type: ignore[name-defined]
            beginning.update(block)
        self.test.assertEqual(digest, beginning.hexdigest())
        self.soak.count("kills")
        self.soak.count("bytes", int(size))

    def killed_receivers(self) -> None:
        """Each goes on where the one before was killed; the ring is in memory, or in a file."""
        chance = self.chance
        file = chance.choice((None, str(self.test.folder / "ring")))
        target = self.test.folder / "target"
        sender = self.code(
            WRITES_UNTIL_TOLD, subprocess.PIPE, capacity=chance.choice((1000, 4096, 65_536)), file=file
        )
        where = ("--file", file) if file else ()
        arguments = ["receive", self.test.name, "-o", str(target), "--resume", *where]
        if file:
            eventually(lambda: Path(file).exists(), "the ring is in the file")
        size = 0
        for _ in range(chance.randint(1, 12)):
            receiver = self.command(*arguments)
            least = size + chance.choice((0, 1, 2000, 20_000))
            eventually(
                lambda: (
                    receiver.process.poll() is not None or target.exists() and target.stat().st_size > least
                ),
                "the stream goes on",
            )
            self.test.assertIsNone(receiver.process.poll())
            if chance.random() < 0.3:
                self.pause(chance.choice((sender, receiver)))
            receiver.kill()
            self.soak.count("kills")
            size = target.stat().st_size
        last = self.command(*arguments)
        eventually(lambda: target.stat().st_size > size, "the last receiver is attached")
        sender.end_input()
        (total,) = self.said(sender)
        self.test.assertEqual(last.end(), (0, b"", ""))
        got = target.read_bytes()
        self.test.assertEqual(len(got), int(total))
        self.test.assertTrue(got == b"".join(blocks(self.seed, int(total))))  # type: ignore[name-defined]
        self.soak.count("bytes", int(total))

    def commands(self) -> None:
        """Files, pipes, and what wraps the two commands."""
        sent = b"".join(blocks(self.seed, self.chance.randrange(3_000_000)))  # type: ignore[name-defined]
        source, target = self.test.folder / "source", self.test.folder / "target"
        source.write_bytes(sent)
        send = ["send", self.test.name, "--capacity", self.chance.choice(("5000", "64KiB", "4MiB"))]
        before, after = self.chance.choice((("", ""), ("tail -c +1", "cat"), ("gzip -1", "gzip -d")))
        if before:
            with open(source, "rb") as file:
                wrapper = self.test.start(before.split(), file)
            starts = [lambda: self.command(*send, stdin=wrapper.process.stdout)]
        else:
            starts = [lambda: self.command(*send, str(source))]
        output = [] if after else ["-o", str(target)]
        sender, receiver = self.starting(*starts, lambda: self.command("receive", self.test.name, *output))
        if after:
            unwrapped = self.test.start(after.split(), receiver.process.stdout)
            receiver.stop_reading()
            got = unwrapped.end()[1]
        self.pause_some([sender, receiver])
        self.test.assertEqual((sender.end(), receiver.end()[::2]), ((0, b"", ""), (0, "")))
        self.test.assertTrue((got if after else target.read_bytes()) == sent)
        self.soak.count("bytes", len(sent))

    def connection(self) -> None:
        """A server; clients, of which some are killed in the middle."""
        server = self.code(SERVES)
        self.test.assertEqual(server.line(), "up")
        for _ in range(self.chance.randint(1, 5)):
            client = self.code(ASKS, size=self.chance.randrange(50_000, 1_000_000))
            self.test.assertEqual(client.line(), "on its way")
            self.pause_some([server, client])
            if self.chance.random() < 0.4:
                client.kill()
                self.soak.count("kills")
            else:
                (count,) = self.said(client)
                self.soak.count("messages", int(count))
        server.kill()
        listening.Listener(self.test.name).close()  # which removes what that one left

    def headers(self) -> None:
        """Damage of all kinds, see tests/test_hostile.py."""
        self.test.assertEqual(self.said(self.code(TRIES_HEADERS, headers=HEADERS)), ["good"])
        self.soak.count("headers", HEADERS)

    def long_stream(self) -> None:
        """Past 2**32 bytes, and 2**33."""
        sender, receiver = self.code(LONG_WRITES, size=LONG_STREAM), self.code(LONG_READS)
        size, crc = self.said(sender)
        self.test.assertEqual((self.said(receiver), int(size)), ([size, crc], LONG_STREAM))
        self.soak.count("bytes", LONG_STREAM)


KINDS = (
    Round.stream,
    Round.killed_sender,
    Round.killed_receivers,
    Round.commands,
    Round.connection,
    Round.headers,
)


def interpreters(versions: list[str]) -> Iterator[list[str]]:
    """Those of the versions that can be had here; this one."""
    yield PYTHON
    for version in versions:
        command = [str(ROOT / ".ci" / "pythons"), version]
        if subprocess.run([*command, "-c", ""]).returncode == 0:
            yield command


def main() -> bool:
    parser = argparse.ArgumentParser(prog="python3 -m tests.soak", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=LONG, help="for how long new rounds begin (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 2**31))
    parser.add_argument("--pythons", nargs="*", default=[], help="versions that .ci/pythons runs")
    options = parser.parse_args()
    # Where an interpreter with a root of its own finds the files too.
    tempfile.tempdir = "/dev/shm" if os.path.isdir("/dev/shm") else None
    os.chdir(ROOT)
    pythons = list(interpreters(options.pythons))
    print(f"seed {options.seed}, {len(pythons)} interpreters", flush=True)
    if options.seconds < LONG:
        print(f"without the stream of 10 GiB: that is part of runs of {LONG} s and more", flush=True)
    result = Soak(options.seconds, options.seed, pythons).run()
    for _, text in [*result.errors, *result.failures]:
        print(text)
    return result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(not main())
