"""Looking inside: inspect, list and remove show the truth, and disturb nobody.

Damaged headers are made from a seed, see `test_hostile`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path
from unittest import mock

import mmapipc
from mmapipc import inspection
from mmapipc._cli import display
from mmapipc._cli.terminal import Picture, cut, human, width
from mmapipc._ring import layout, states
from mmapipc._system import names, system

from .helpers import (
    DEADLINE, MMAPIPC, WAITS, WINDOWS, ChannelTest, Child, alone, apart, by_signal, eventually, noise,
)  # fmt: skip
from .terminal import Terminal, TerminalTest
from .test_hostile import CAPACITIES, FIELDS, HEADERS, SEED, bad_header, targeted_headers
from .test_names import NAMES

SENDS = "s = mmapipc.Sender(name, capacity=4000)\ns.write(bytes(1000)); say('up')\n"
READS = "r = mmapipc.Receiver(name)\nsay(len(r.read(300)))\n"
HOLDS = "sys.stdin.read()\n"


class InspectionTest(ChannelTest):
    def mmapipc(self, *arguments: str) -> Child:
        """Start a command."""
        return self.start([*MMAPIPC, *arguments])

    def shown(self, *arguments: str) -> str:
        """What a command shows, that does what it is asked for."""
        code, out, err = self.mmapipc(*arguments).end()
        self.assertEqual((code, err), (0, ""))
        return out.decode()

    def facts(self) -> dict[str, object]:
        """What `inspect --json` tells of the test's channel."""
        return json.loads(self.shown("inspect", self.name, "--json"))

    def refused(self, *arguments: str, name: str | None = None, code: int = 1) -> str:
        """The one line of error with which a command ends."""
        got, out, err = self.mmapipc(*arguments).end()
        self.assertEqual((got, out), (code, b""), err)
        self.assertRegex(err, rf"\Ammapipc: {re.escape(name or self.name)}: [^\n]+\n\Z")
        return err

    def child(self, code: str, *lines: str) -> Child:
        """Start Python code that says these lines and stays."""
        child = self.python(code + HOLDS, stdin=subprocess.PIPE)
        for line in lines:
            self.assertEqual(child.line(), line)
        return child

    def header(self) -> bytes:
        """The header as it is now."""
        memory = system.observe(system.place(self.name))
        with memory.look(layout.HEADER_SIZE) as octets:
            header = bytes(octets)
        memory.close()
        return header

    def leftovers(self) -> None:
        """What two killed processes leave; on Windows, nothing."""
        sender, receiver = self.child(SENDS, "up"), self.child(READS, "300")
        sender.kill()
        receiver.kill()


class Inspect(InspectionTest):
    def test_a_running_channel(self):
        sender, receiver = self.child(SENDS, "up"), self.child(READS, "300")
        stream_id = self.header()[layout.STREAM_ID * 8 :][:8]
        facts = self.facts()
        self.assertEqual(
            facts,
            {
                "name": self.name,
                "location": system.place(self.name).location,
                "status": "running",
                "version": layout.VERSION,
                "capacity": 4000,
                "stream_id": f"{int.from_bytes(stream_id, sys.byteorder):016x}",
                "persistent": False,
                "sender": {"state": "open", "pid": sender.pid, "claimed": True, "waiting": None},
                "receiver": {"state": "open", "pid": receiver.pid, "claimed": True, "waiting": None},
                "written": 1000,
                "read": 300,
                "in_flight": 700,
                "fill": 17.5,
            },
        )
        self.assertEqual(
            self.shown("inspect", self.name).splitlines(),
            [
                f"name      {self.name}",
                f"memory    {facts['location']}",
                "status    running",
                f"layout    version {layout.VERSION}",
                f"stream    {facts['stream_id']}",
                "capacity  4000 bytes (3.9 KiB)",
                f"sender    open, pid {sender.pid}",
                f"receiver  open, pid {receiver.pid}",
                "written   1000 bytes (1.0 KiB)",
                "read      300 bytes",
                "in flight 700 bytes, 17.5 % full",
            ],
        )
        sender.kill()
        receiver.kill()
        self.clear()

    def clear(self):
        """Remove what killed processes left."""
        if not WINDOWS:
            inspection.remove(self.name)

    def test_nobody_is_disturbed(self):
        sent = noise(3_000_000)
        sender = self.send(self.file(sent), "--capacity", "1000")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            got = [receiver.read(1000)]
            eventually(lambda: self.filled(), "the ring is full again")
            before = self.header()
            for arguments in ((), ("--json",)):
                self.shown("inspect", self.name, *arguments)
                self.shown("list", self.name, *arguments)
            self.refused("remove", self.name)
            self.assertEqual(self.without_calls(self.header()), self.without_calls(before))
            # And while bytes move: what is seen always fits together.
            looker = inspection.Looker(self.name)
            try:
                last = 0
                while piece := receiver.read(1000):
                    got.append(piece)
                    if len(got) % 10:
                        continue
                    look = looker.look()
                    self.assertEqual(look.stream.read, sum(map(len, got)))
                    self.assertLessEqual(last, look.stream.written)
                    self.assertLessEqual(look.stream.in_flight, 1000)
                    last = look.stream.written
            finally:
                looker.close()
        self.assertEqual(b"".join(got), sent)
        self.assertEqual(sender.end(), (0, b"", ""))

    def filled(self):
        with contextlib.closing(inspection.Looker(self.name)) as looker:
            return looker.look().stream.fill == 100

    def without_calls(self, header):
        """The header but for the word in which the sender says, now and then, that it waits."""
        at = layout.SENDER_CALLS * 8
        return header[:at] + header[at + 8 :]

    def test_it_is_opened_read_only(self):
        with self.both() as (sender, _):
            sender.write(b"abc")
            opened = []
            system = os.open

            def recorded(path, flags, *rest):
                opened.append((path, flags))
                return system(path, flags, *rest)

            with mock.patch("os.open", recorded), contextlib.closing(inspection.Looker(self.name)) as looker:
                self.assertEqual(looker.look().stream.written, 3)
                with looker._memory.look(layout.HEADER_SIZE) as octets:
                    with self.assertRaises(TypeError):
                        octets[0] = 0
            for path, flags in opened:
                self.assertEqual(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC), 0, path)
            self.assertEqual(bool(opened), not WINDOWS)

    def test_states_and_claims(self):
        sender = self.child(SENDS.replace("4000", "4000, persist=True"), "up")
        facts = self.facts()
        self.assertEqual(facts["status"], "no receiver")
        self.assertTrue(facts["persistent"])
        self.assertEqual(
            facts["receiver"], {"state": "absent", "pid": None, "claimed": False, "waiting": None}
        )
        receiver = self.child(READS, "300")
        receiver.kill()
        facts = self.facts()
        self.assertEqual(facts["status"], "no receiver")
        dead = {"state": "died", "pid": receiver.pid, "claimed": False, "waiting": None}
        self.assertEqual(facts["receiver"], dead)
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            sender.kill()
            # On Windows the process may have ended a moment before its mutex goes.
            eventually(lambda: self.facts()["status"] == "draining", "the claim falls with the sender")
            facts = self.facts()
            self.assertEqual(
                facts["sender"], {"state": "died", "pid": sender.pid, "claimed": False, "waiting": None}
            )
            self.assertEqual((facts["written"], facts["read"]), (1000, 300))
            text = self.shown("inspect", self.name)
            self.assertIn(f"sender    died, pid {sender.pid}\n", text)
            self.assertIn(f"receiver  open, pid {os.getpid()}\n", text)
            self.assertIn(", persistent\n", text)
            # A new sender comes, and waits for this receiver to leave.
            later = self.send(self.file(b"new"))
            waiting = {"state": "died", "pid": sender.pid, "claimed": False, "waiting": later.pid}
            eventually(lambda: self.facts()["sender"] == waiting, "the next sender is seen to wait")
            self.assertIn(f"died, pid {sender.pid}, pid {later.pid} waits", self.shown("inspect", self.name))
        self.assertEqual(self.receive().end(), (0, b"new", ""))
        self.assertEqual(later.end(), (0, b"", ""))

    def test_a_receiver_that_waits(self):
        waiting = self.python(WAITS)
        self.assertEqual(waiting.line(), "claimed")
        facts = self.facts()
        self.assertEqual(facts["status"], "no sender")
        self.assertEqual(
            facts["receiver"], {"state": "absent", "pid": None, "claimed": False, "waiting": waiting.pid}
        )
        self.assertIsNone(facts["capacity"])
        self.assertIn(f"receiver  absent, pid {waiting.pid} waits\n", self.shown("inspect", self.name))
        self.assertRegex(self.shown("list", self.name), rf"  no sender +- +{waiting.pid} +- +-\n")
        self.assertIn(f"receiver (pid {waiting.pid})", self.refused("remove", self.name))
        waiting.kill()
        self.clear()

    def test_a_name_with_nothing_there(self):
        for arguments in (["inspect"], ["inspect", "--json"], ["inspect", "--watch"], ["list"], ["remove"]):
            self.assertIn("no channel of that name", self.refused(*arguments, self.name))

    def test_a_name_that_cannot_be(self):
        for command in ("inspect", "list", "remove"):
            self.assertEqual(self.mmapipc(command, "x" * 300).end()[0], 2)

    @unittest.skipUnless(sys.platform == "linux", "Linux only: /dev/full")
    def test_an_output_that_fails(self):
        with self.both():
            for arguments in (["inspect"], ["inspect", "--watch"], ["list"]):
                run = [*MMAPIPC, *arguments, self.name]
                code, _, err = self.start(["sh", "-c", 'exec "$@" >/dev/full', "sh", *run]).end()
                self.assertEqual(code, 1)
                self.assertRegex(err, r"\Ammapipc: [^\n]*standard output: No space left on device\n\Z")

    def test_send_and_receive_start_without_it(self):
        code = (
            "from mmapipc._cli import arguments, main, transfer; arguments.parse(['send', 'x'])\n"
            "say(sorted(m for m in sys.modules if m.startswith('mmapipc.')))\n"
        )
        loaded = self.python(code).line()
        self.assertIn("mmapipc.channel", loaded)
        of_the_command = ("looking", "display", "terminal", "progress", "naming")
        for room in ("inspection", *(f"_cli.{name}" for name in of_the_command)):
            self.assertNotIn(f"mmapipc.{room}", loaded)


@apart
class Harmless(InspectionTest):
    def test_looks_make_no_claimant_fail(self):
        # Two processes look without a pause; here ends come and go.
        look = """
from mmapipc import inspection
say('looking')
looker = inspection.Looker(name)
while True:
    try:
        for _ in range(10): looker.look()
    except mmapipc.ChannelError as error:
        if 'no channel' not in str(error): raise
    looker.close()
"""
        look_at_roles = """
from mmapipc._system import names, system
say('looking')
place = system.place(name)
while True:
    system.channel_roles(place).holder(names.SENDER)
    system.channel_roles(place).holder(names.RECEIVER)
"""
        children = [self.python(look), self.python(look_at_roles)]
        for child in children:
            self.assertEqual(child.line(), "looking")
        for _ in range(500):
            with mmapipc.Sender(self.name, capacity=10, timeout=DEADLINE) as sender:
                with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                    sender.write(b"0123456789")
                    self.assertEqual(receiver.read(10), b"0123456789")
            # Those who left have swept, whoever looked.
            if not WINDOWS:
                self.assertEqual(os.listdir(self.memory), [])
        for child in children:
            self.assertIsNone(child.process.poll())
            child.kill()
            self.assertEqual(child.end()[1:], (b"", ""))

    @unittest.skipIf(WINDOWS, "POSIX only: SIGSTOP")
    def test_who_is_stopped_in_the_middle_of_a_look_holds_up_nobody(self):
        look = """
from mmapipc import inspection
say('looking')
while True:
    looker = inspection.Looker(name)
    try: looker.look()
    except mmapipc.ChannelError: pass
    looker.close()
"""
        looker = self.python(look)
        self.assertEqual(looker.line(), "looking")
        for _ in range(100):
            os.kill(looker.pid, signal.SIGSTOP)
            self.exchange()
            self.assertEqual(os.listdir(self.memory), [])
            os.kill(looker.pid, signal.SIGCONT)
        looker.kill()
        self.assertEqual(looker.end()[1:], (b"", ""))

    @alone
    def test_a_healthy_ring_in_a_file_is_never_damaged(self):
        path = str(self.folder / "ring")
        code = f"""
say('ready')
path = {path!r}
number = 0
while number := number + 1:
    with mmapipc.Sender(name, capacity=50 + number % 3 * 50, timeout=DEADLINE, file=path) as sender:
        sender.write(b'abc')
    with mmapipc.Receiver(name, timeout=DEADLINE, file=path) as receiver:
        receiver.read()
"""
        child = self.python(code)
        self.assertEqual(child.line(), "ready")
        eventually(lambda: os.path.exists(path) and os.path.getsize(path), "it begins")
        streams = set()

        def looked_often() -> bool:
            for _ in range(1500):
                look = self.look(path)  # and not LayoutError
                streams.add(look.stream and look.stream.stream_id)
            return len(streams) > 30

        eventually(looked_often, "it has begun many streams")
        child.kill()

    def look(self, file=None):
        with contextlib.closing(inspection.Looker(self.name, file)) as looker:
            return looker.look()

    @unittest.skipIf(WINDOWS, "POSIX only: on Windows a look that is stopped keeps the name for a while")
    def test_ends_that_come_or_go_at_any_moment_of_a_look(self):
        ends = []

        def come():
            ends.append(mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE))
            ends.append(mmapipc.Receiver(self.name, timeout=DEADLINE))

        def go():
            ends[0].finish()
            while ends:
                ends.pop(order).close()

        def go_and_come():
            go()
            come()

        def look(at, act):
            """Look, and act at so many-th moment of that; return the status, and whether it came to that."""
            moments = []  # no number: until Python 3.13, tracing a frame puts its variables back

            def tick(frame, event, argument):
                moments.append(event)
                if len(moments) == at:
                    act()

            try:
                sys.setprofile(tick)
                status = self.look().status
            except inspection.NoChannel:
                status = "nothing"
            finally:
                sys.setprofile(None)
            return status, len(moments) >= at

        for order in (0, -1):  # who is the first to leave
            for before, act in ((go, come), (come, go), (come, go_and_come)):
                at, acted, seen = 1, True, set()
                while acted:
                    if bool(ends) != (before is come):
                        before()
                    status, acted = look(at, act)
                    self.assertNotIn(status, ("stale", "unusable"), f"{act.__name__} at moment {at}")
                    seen.add(status)
                    at += 1
                self.assertGreater(len(seen), 1)
                self.assertGreater(at, 50)
        if ends:
            go()

    def test_no_moment_of_leaving_is_stale(self):
        seen = []

        def look(frame, event, argument):
            if event == "return" or argument is not None and argument.__name__ == "setprofile":
                return
            try:
                seen.append(self.look().status)
            except inspection.NoChannel:
                seen.append("nothing")

        for last in ("sender", "receiver"):
            with self.subTest(last=last):
                sender = mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE)
                receiver = mmapipc.Receiver(self.name, timeout=DEADLINE)
                sender.finish()
                ends = [sender, receiver] if last == "receiver" else [receiver, sender]
                for end in ends:
                    sys.setprofile(look)
                    try:
                        end.close()
                    finally:
                        sys.setprofile(None)
                self.assertNotIn("stale", seen)
                self.assertGreater(len(seen), 100)
                del seen[:]

    @alone
    def test_a_channel_whose_ends_come_and_go_is_never_stale(self):
        code = """
say('ready')
while True:
    sender = mmapipc.Sender(name, capacity=100, timeout=DEADLINE)
    receiver = mmapipc.Receiver(name, timeout=DEADLINE)
    sender.finish()
    (sender if sys.argv[2] == 'sender' else receiver).close()
    (receiver if sys.argv[2] == 'sender' else sender).close()
"""
        for first in ("sender", "receiver"):
            child = self.python(code, first)
            self.assertEqual(child.line(), "ready")
            seen = set()
            for _ in range(1000):
                try:
                    seen.add(self.look().status)
                except inspection.NoChannel:
                    seen.add("nothing")
            if not WINDOWS:
                for _ in range(3):
                    self.assertNotIn("stale", self.shown("list"))
            self.assertNotIn("stale", seen)
            self.assertGreater(len(seen), 1)
            child.kill()
            self.exchange()

    def test_who_looks_does_not_keep_the_name(self):
        with contextlib.ExitStack() as stack:
            with self.both() as (sender, receiver):
                looker = stack.enter_context(contextlib.closing(inspection.Looker(self.name)))
                self.assertEqual(looker.look().status, "running")
                sender.write(b"abc")
                self.assertEqual(receiver.read(3), b"abc")
                sender.finish()
                self.assertEqual(receiver.read(3), b"")
            self.assertFalse(self._exists())
            # It is seen to its end nevertheless, also beside the next of that name.
            look = looker.look()
            self.assertEqual((look.status, look.stream.written, look.stream.read), ("ended", 3, 3))
            self.exchange()
            self.assertEqual(looker.look().stream, look.stream)


class Watch(InspectionTest):
    def test_lines_until_the_end(self):
        sender = self.send("--capacity", "64KiB", stdin=subprocess.PIPE)
        receiver = self.receive("-o", os.devnull)
        eventually(
            lambda: system.channel_roles(system.place(self.name)).holder(names.RECEIVER),
            "the receiver is there",
        )
        sender.feed(noise(100_000))
        eventually(lambda: self._exists(), "the sender is there")
        watchers = [self.mmapipc("inspect", "--watch", *more, self.name) for more in ((), ("--json",))]
        first = [watcher.line() for watcher in watchers]
        sender.feed(noise(500_000))
        # At a pace of one a second: the second lines come while the channel runs.
        second = watchers[0].line()
        total = 600_000

        def tells_a_rate():
            # On a busy machine a line may come so late that what was written before is not lately any more.
            nonlocal total
            total += 1000
            sender.feed(noise(1000))
            return json.loads(watchers[1].line())["write_rate"] > 0

        eventually(tells_a_rate, "a line says how fast it goes")
        self.assertEqual(sender.end(), (0, b"", ""))
        self.assertEqual(receiver.end(), (0, b"", ""))
        rest = []
        for watcher in watchers:
            code, out, err = watcher.end()
            self.assertEqual((code, err), (0, ""))
            self.assertNotIn(b"\x1b", out)
            self.assertNotIn(b"\r", out.replace(b"\r\n", b"\n"))
            rest.append(out.decode().splitlines())
        counts = r"\d+ bytes written, \d+ read, \d+ in flight \([0-9.]+ %\)"
        shape = rf"^{self.name}: [a-z ]+, {counts}, [0-9.]+ [KMGiB]+/s$"
        for line in (first[0], second, *rest[0]):
            self.assertRegex(line, shape)
        ended = f"{self.name}: ended, {total} bytes written, {total} read, 0 in flight"
        self.assertTrue(rest[0][-1].startswith(ended))
        last = json.loads(rest[1][-1])
        self.assertEqual((last["status"], last["written"], last["read"]), ("ended", total, total))
        self.assertEqual(json.loads(first[1]).keys(), last.keys())
        self.assertAlmostEqual(last["time"], time.time(), delta=DEADLINE)
        self.assertEqual(last["sender"]["state"], "finished")
        self.assertEqual(last["receiver"]["state"], "closed")

    def test_it_ends_when_both_are_killed(self):
        sender, receiver = self.child(SENDS, "up"), self.child(READS, "300")
        watcher = self.mmapipc("inspect", "--watch", self.name)
        self.assertIn("running, 1000 bytes written, 300 read", watcher.line())
        sender.kill()
        receiver.kill()
        code, out, err = watcher.end()
        self.assertEqual((code, err), (0, ""))
        last = out.decode().splitlines()[-1]
        self.assertIn("1000 bytes written, 300 read, 700 in flight (17.5 %)", last)
        if not WINDOWS:
            self.assertIn(": stale, ", last)
            inspection.remove(self.name)

    def test_from_a_receiver_that_waits_to_the_end(self):
        waiting = self.receive()
        eventually(
            lambda: system.channel_roles(system.place(self.name)).holder(names.RECEIVER),
            "the receiver is there",
        )
        watcher = self.mmapipc("inspect", "--watch", self.name)
        self.assertEqual(watcher.line(), f"{self.name}: no sender")
        with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
            sender.write(b"abc")
            eventually(lambda: "running" in watcher.line(), "the stream is seen")
        self.assertEqual(waiting.end(), (0, b"abc", ""))
        code, out, err = watcher.end()
        self.assertEqual((code, err), (0, ""))
        self.assertIn("ended, 3 bytes written, 3 read", out.decode().splitlines()[-1])

    def test_damage_ends_it(self):
        with self.both() as (sender, _):
            watcher = self.mmapipc("inspect", "--watch", self.name)
            self.assertIn("running", watcher.line())
            sender._link.half.words[layout.WRITE_SEQ] = 2**62 - 1
            code, _, err = watcher.end()
            self.assertEqual(code, 1)
            self.assertRegex(err, rf"\Ammapipc: {self.name}: [^\n]*damaged \(sequences [^\n]+\n\Z")
            sender._link.half.words[layout.WRITE_SEQ] = 0

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_interrupted(self):
        with self.both():
            watcher = self.mmapipc("inspect", "--watch", self.name)
            watcher.line()
            watcher.process.send_signal(signal.SIGINT)
            code, _, err = watcher.end()
            self.assertEqual((code, err), (by_signal(signal.SIGINT), f"mmapipc: {self.name}: interrupted\n"))


@unittest.skipIf(WINDOWS, "POSIX only: pty")
class OnATerminal(TerminalTest):
    def watch(self, term="xterm"):
        return self.on_terminal('>"$0"', "inspect", "--watch", self.name, TERM=term)

    def test_it_is_drawn_in_place_in_any_width(self):
        def case(self, columns):
            self.resize(columns)
            terminal = Terminal()
            terminal.write("before\r\n")
            with self.both(capacity=1000) as (sender, receiver):
                sender.write(bytes(500))
                child = self.watch()
                text = ""
                while text.count("\x1b[J") < 4 or not text.endswith("\x1b[J"):
                    text += self.read()  # a picture may come in pieces
                terminal.write(text)
                self.assertEqual((len(terminal.lines), terminal.row), (13, 12))
                receiver.read(200)
                sender.finish()
                receiver.read(500)
            self.assertEqual(child.end(), (0, b"", ""))
            os.write(self.slave, b"end\n")
            while "end" not in terminal.lines:
                terminal.write(self.read())
            self.assertLess(terminal.longest, columns)
            # What stood there before, the last picture, and nothing of the earlier ones.
            self.assertEqual(terminal.lines[0], "before")
            lines = terminal.lines[1:]
            self.assertEqual(lines[12:], ["end", ""])
            self.assertEqual(lines[0], cut(f"name      {self.name}", columns - 1))
            if columns >= 40:
                self.assertEqual(lines[2], "status    ended")
                self.assertRegex(lines[8], r"^written   [0-9.]+ B/s, 500 B$")
                self.assertEqual(lines[10], "in flight 0 B")
                self.assertRegex(lines[11], r"^ring      \[ +\]   0\.0 %$")
                self.assertEqual(len(lines[11]), min(columns - 1, 60))

        self.side_by_side(case, (80, 40, 12))

    def test_it_follows_the_size_of_the_terminal(self):
        with self.both(capacity=1000) as (sender, _):
            sender.write(bytes(500))
            child = self.watch()
            terminal = Terminal()
            for columns, rows in ((80, 24), (40, 24), (100, 24), (40, 6), (30, 2)):
                self.resize(columns, rows)
                # It leaves nothing of the larger pictures behind.
                deadline = time.perf_counter() + DEADLINE
                height, width = min(12, rows - 1) + 1, min(columns - 1, 60)
                while len(terminal.lines) != height or len(terminal.lines[-2]) != width:
                    self.assertLess(time.perf_counter(), deadline, terminal.lines)
                    terminal.write(self.read())
            child.kill()

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_what_stood_there_comes_back_when_it_is_interrupted(self):
        with self.both():
            child = self.watch()
            terminal = Terminal()
            terminal.write("before\r\n")
            while not terminal.draws:
                terminal.write(self.read())
            child.process.send_signal(signal.SIGINT)
            self.assertEqual(child.end()[0], by_signal(signal.SIGINT))
            os.write(self.slave, b"end\n")
            while "end" not in terminal.lines:
                terminal.write(self.read())
            self.assertEqual((terminal.lines[0], len(terminal.lines)), ("before", 15))

    def test_at_most_ten_times_a_second(self):
        with self.both():
            child = self.watch()
            terminal = Terminal()
            while not terminal.draws:
                terminal.write(self.read())
            before, start = terminal.draws, time.perf_counter()
            while terminal.draws < before + 5:
                terminal.write(self.read())
            self.assertGreater(time.perf_counter() - start, 0.4)
            child.kill()

    def test_no_escapes_for_a_dumb_terminal(self):
        with self.both():
            child = self.watch("dumb")
            self.assertIn(f"{self.name}: running", self.read())
        self.assertEqual(child.end(), (0, b"", ""))
        self.assertNotIn("\x1b", self.read())


class Pictures(unittest.TestCase):
    def look(self, name="x"):
        side = inspection.Side("open", 4194304, True, None)
        stream = inspection.Stream(2**40, 2**64 - 1, True, 3 * 2**40, 2 * 2**40 + 1)
        return inspection.ChannelInfo(name, "/dev/shm/mmapipc.1000.x", stream, side, side, True)

    def test_everything_fits_in_40_columns(self):
        meter = display.Meter()
        look = self.look()
        meter.add(0, look.stream)
        meter.add(1, look.stream._replace(written=look.stream.written + 10**9, read=look.stream.read + 10**9))
        for line in display.block(look, meter)[2:] + display.bar(look, 40):
            self.assertLess(len(line), 40, line)

    def test_wide_and_hostile_names(self):
        for name in ("日本語" * 30, "a\x1b[2J\r\nb", "\udcff", "é" * 100, "x" * 200):
            for columns in (1, 2, 12, 40, 80):
                texts = []
                with Picture(texts.append) as picture:
                    for _ in range(2):
                        picture.draw(display.block(self.look(name)), columns, 24)
                for line in "".join(texts).split("\n"):
                    line = re.sub(r"\x1b\[[?0-9]*[HJKhl]", "", line)
                    self.assertLess(width(line), columns)
                    self.assertTrue(line.isprintable())

    def test_rates(self):
        meter = display.Meter()
        stream = self.look().stream._replace(written=0, read=0)
        for tenth in range(31):
            # 10 kB a second; in the last second 20.
            moved = 1000 * tenth + 1000 * max(0, tenth - 20)
            meter.add(tenth / 10, stream._replace(written=moved, read=moved // 2))
        self.assertAlmostEqual(meter.written.value, 20_000, delta=2000)
        self.assertAlmostEqual(meter.read.value, 10_000, delta=1000)

    def test_human_sizes(self):
        for size, text in (
            *((0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1536, "1.5 KiB")),
            *((2**30, "1.0 GiB"), (2**60, "1024.0 PiB")),
        ):
            self.assertEqual(human(size), text)


class List(InspectionTest):
    @unittest.skipIf(WINDOWS, "POSIX only: the directory")
    def test_none_one_and_many(self):
        self.assertEqual(self.shown("list"), "")
        self.assertEqual(json.loads(self.shown("list", "--json")), [])
        with contextlib.ExitStack() as stack:
            names = sorted([self.name, "日本語", "with space", "a\nb", "\udcff", "Local\\Global\\x", "5.x"])
            for count, name in enumerate(names, 1):
                stack.enter_context(contextlib.closing(mmapipc.Sender(name, capacity=64, timeout=DEADLINE)))
                lines = self.shown("list").splitlines()
                self.assertEqual(len(lines), 1 + count, lines)
                self.assertRegex(lines[0], r"^NAME +STATUS +SENDER +RECEIVER +PASSED +FILL$")
                for line in lines[1:]:
                    self.assertRegex(line, rf"  no receiver  +{os.getpid()} +- +0 B +0 %$")
            self.assertEqual([entry["name"] for entry in json.loads(self.shown("list", "--json"))], names)
            self.assertEqual(self.shown("list", self.name).count("\n"), 2)
            # Not ours: another user's, and what no name is encoded as.
            for entry in (
                "mmapipc.99999.x",
                "mmapipc.x",
                f"mmapipc.{os.geteuid()}.a b",
                f"mmapipc.{os.geteuid()}.%FF",
            ):
                path = self.memory / entry
                path.touch(0o600)
                self.assertEqual(len(self.shown("list").splitlines()), 1 + len(names), entry)
                path.unlink()
            for name in names:
                stack.enter_context(mmapipc.Receiver(name, timeout=DEADLINE))
            self.assertEqual(self.shown("list").count("  running  "), len(names))
        self.assertEqual(self.shown("list"), "")

    @unittest.skipIf(WINDOWS, "POSIX only: the directory")
    def test_no_directory_at_all(self):
        for command in ("list", "inspect"):
            child = self.python(
                "import tempfile\n"
                "from mmapipc._cli.main import main\n"
                "def nowhere(): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
                "tempfile.gettempdir = nowhere\n"
                "is_directory = os.path.isdir\n"
                "os.path.isdir = lambda path: path != '/dev/shm' and is_directory(path)\n"
                "del os.environ['MMAPIPC_DIR']\n"
                f"sys.exit(main(['{command}', name]))\n".replace("'list', name", "'list'")
            )
            told = "no directory for shared memory is writable; set MMAPIPC_DIR to one that is\n"
            about = "list" if command == "list" else self.name
            self.assertEqual(child.end(), (1, b"", f"mmapipc: {about}: {told}"))

    def test_names_as_arguments(self):
        with self.both(capacity=64):
            text = self.shown("list", self.name)
            self.assertRegex(text, rf"\n{self.name}  running  +{os.getpid()} +{os.getpid()} +0 B +0 %\n\Z")
            code, out, err = self.mmapipc("list", self.name, f"{self.name}-not").end()
            self.assertEqual((code, out.decode()), (1, text))
            meant = "" if WINDOWS else f"; did you mean '{self.name}'?"
            self.assertEqual(err, f"mmapipc: {self.name}-not: there is no channel of that name{meant}\n")

    @unittest.skipUnless(WINDOWS, "Windows only: names cannot be listed")
    def test_names_are_needed(self):
        self.assertIn("no public call that lists named objects", self.refused("list", name="list"))

    @unittest.skipIf(WINDOWS, "POSIX only: names stay")
    def test_what_killed_processes_left(self):
        self.leftovers()
        stale = f"\n{self.name}  stale        left by killed processes (mmapipc remove)\n"
        self.assertTrue(self.shown("list").endswith(stale))
        info = mmapipc.inspect(self.name)
        self.assertEqual((info.status, info.sender.state, info.receiver.state), ("stale", "died", "died"))
        self.assertEqual([entry["status"] for entry in json.loads(self.shown("list", "--json"))], ["stale"])
        self.assertIn("status    stale\n", self.shown("inspect", self.name))
        self.exchange()
        # Of a receiver that was killed before there was a stream.
        waiting = self.python(WAITS)
        self.assertEqual(waiting.line(), "claimed")
        waiting.kill()
        self.assertIn(f"{self.name}  stale  ", self.shown("list"))
        self.assertEqual(self.shown("remove", self.name), "")
        self.assertEqual(os.listdir(self.memory), [])

    @unittest.skipIf(WINDOWS, "POSIX only: the directory")
    def test_for_programs(self):
        self.assertEqual(mmapipc.channels(), [])
        with self.both(capacity=64) as (sender, receiver):
            sender.write(b"0123")
            receiver.read(1)
            self.assertEqual(mmapipc.channels(), [self.name])
            info = mmapipc.inspect(self.name)
            self.assertIsInstance(info, mmapipc.ChannelInfo)
            self.assertEqual((info.status, info.stream.written, info.stream.read), ("running", 4, 1))
            self.assertEqual((info.sender.pid, info.receiver.state), (os.getpid(), "open"))
            with self.assertRaises(mmapipc.RoleTaken):
                mmapipc.remove(self.name)
            receiver.read(3)
        with self.assertRaises(mmapipc.NoChannel):
            mmapipc.inspect(self.name)
        self.leftovers()
        mmapipc.remove(self.name)
        self.assertEqual(os.listdir(self.memory), [])
        path = str(self.folder / "ring")
        with mmapipc.Sender(self.name, file=path) as sender:
            sender.write(b"kept")
        self.assertEqual(mmapipc.inspect(self.name, file=path).status, "kept")

    def test_it_fits_the_terminal(self):
        stream = inspection.Stream(1 << 20, 7, False, 3 << 30, (3 << 30) - 1000)
        side, nobody = (
            inspection.Side("open", 4194304, True, None),
            inspection.Side("absent", None, False, None),
        )
        names = ("x", "日本語" * 20, "a-rather-long-name", "y" * 100)
        found = [(name, inspection.ChannelInfo(name, "", stream, side, nobody, True)) for name in names]
        found.append(
            ("broken", mmapipc.LayoutError("broken: is damaged in a way that takes many words to say"))
        )
        for columns, headings in (
            (79, "NAME STATUS SENDER RECEIVER PASSED FILL"),
            (39, "NAME STATUS PASSED"),
            (12, "NAME STATUS"),
            (1, ""),
        ):
            lines = display.table(found, columns)
            self.assertEqual(len(lines), 6)
            self.assertEqual(
                lines[0].split()[: len(headings.split())], headings.split()[: len(lines[0].split())]
            )
            for line in lines:
                self.assertLessEqual(width(line), columns)
            if columns > 30:
                self.assertEqual(lines[0].split(), headings.split())
                self.assertRegex(lines[1], r"^x +no receiver .* 3\.0 GiB")

    @unittest.skipIf(WINDOWS, "POSIX only: the directory")
    def test_no_directory(self):
        with mock.patch.dict(os.environ, MMAPIPC_DIR=str(self.folder / "missing")):
            self.assertIn("No such file", self.refused("list", name="list"))


class Remove(InspectionTest):
    def test_refused_while_somebody_is_there(self):
        sender = self.child(SENDS, "up")
        self.assertIn(f"sender (pid {sender.pid})", self.refused("remove", self.name))
        receiver = self.child(READS, "300")
        self.assertIn(f"sender (pid {sender.pid})", self.refused("remove", self.name))
        sender.kill()
        eventually(lambda: "receiver" in self.refused("remove", self.name), "the claim falls with the sender")
        self.assertIn(f"receiver (pid {receiver.pid})", self.refused("remove", self.name))
        self.assertEqual(self.facts()["in_flight"], 700)
        receiver.kill()
        if not WINDOWS:
            self.assertEqual(self.shown("remove", self.name), "")
        eventually(lambda: not self._exists(), "nothing is left")
        self.exchange()

    @unittest.skipIf(WINDOWS, "POSIX only: names stay")
    def test_what_two_killed_processes_left(self):
        self.leftovers()
        self.assertEqual(len(os.listdir(self.memory)), 4)  # the memory, the roles, two bells
        self.assertEqual(self.shown("remove", self.name), "")
        self.assertEqual(os.listdir(self.memory), [])
        self.assertIn("no channel of that name", self.refused("remove", self.name))
        self.exchange()

    @unittest.skipIf(WINDOWS, "POSIX only: names stay")
    def test_what_is_not_ours_does_not_keep_the_rest(self):
        # As another user can leave it where everybody may make files; or it is nobody's channel.
        location = system.place(self.name).location
        for foreign, ours in (
            (system.place(self.name).of("roles"), location),
            (location, system.place(self.name).of("roles")),
        ):
            for how in ("another user", "open to other users", "not a regular file"):
                with self.subTest(foreign=foreign, how=how):
                    if how == "another user" and os.geteuid() != 0:
                        self.skipTest("as root only: another user's file")
                    self.leftovers()
                    os.unlink(foreign)
                    if how == "not a regular file":
                        os.mkdir(foreign)
                    else:
                        Path(foreign).touch(0o666)
                        os.chmod(foreign, 0o666)
                        if how == "another user":
                            os.chown(foreign, 65534, 65534)
                    self.assertIn(how, self.refused("remove", self.name))
                    self.assertEqual(os.listdir(self.memory), [os.path.basename(foreign)])
                    if how == "not a regular file":
                        os.rmdir(foreign)
                    else:
                        os.unlink(foreign)

    @unittest.skipUnless(WINDOWS, "Windows only: names vanish by themselves")
    def test_nothing_is_left_of_killed_processes(self):
        self.leftovers()
        eventually(lambda: not self._exists(), "the name is gone")
        self.assertIn("no channel of that name", self.refused("remove", self.name))

    @unittest.skipUnless(WINDOWS, "Windows only: a name lives as long as somebody has it open")
    def test_somebody_has_it_open(self):
        memory = system.create(system.place(self.name), 5000)
        self.assertIn("has it open", self.refused("remove", self.name))
        memory.close()

    @unittest.skipIf(WINDOWS, "POSIX only: files")
    def test_what_is_damaged_is_removed_and_what_is_not_ours_is_not(self):
        path = Path(system.place(self.name).location)
        for content in (b"", b"x" * 100, bytes(5000), self.magic(layout.VERSION) + noise(5000)):
            path.touch(0o600)
            path.write_bytes(content)
            self.assertEqual(self.shown("remove", self.name), "")
            self.assertEqual(os.listdir(self.memory), [])
        for content in (noise(5000), self.magic(layout.VERSION + 1) + bytes(5000)):
            path.touch(0o600)
            path.write_bytes(content)
            self.refused("remove", self.name)
            self.assertEqual(path.read_bytes(), content)
            path.unlink()
        path.mkdir()
        self.assertIn("not a regular file", self.refused("remove", self.name))
        path.rmdir()

    def magic(self, version):
        return (int.from_bytes(b"mmapipc" + bytes([version]), sys.byteorder)).to_bytes(8, sys.byteorder)


class Hostile(InspectionTest):
    @contextlib.contextmanager
    def channel(self, capacity):
        """Memory with a good header, of which both claims stand; and its words."""
        place = system.place(self.name)
        memory = system.create(place, layout.HEADER_SIZE + capacity)
        try:
            with (
                memory.map(layout.HEADER_SIZE) as page,
                memoryview(page) as octets,
                octets.cast("Q") as words,
            ):
                states.begin(words, layout.Header(capacity, 7, False), os.getpid(), lambda: None)
                yield words
        finally:
            memory.close()
            system.remove(place)

    @mock.patch.object(inspection, "_MOMENT", 0)  # nobody is about to tidy up
    def test_every_header_is_shown_or_refused_in_one_line(self):
        chance = random.Random(SEED)
        refused = shown = 0
        for capacity in CAPACITIES:
            headers = [*targeted_headers(capacity)]
            headers = chance.sample(headers, 200) + [
                bad_header(chance, capacity) for _ in range(HEADERS // 125)
            ]
            with self.channel(capacity) as words:
                good = words.tolist()
                for changes in headers:
                    for word in range(len(good)):
                        words[word] = good[word]
                    for word, value in changes:
                        words[word] = value
                    before = words.tolist()
                    with self.subTest(seed=SEED, capacity=capacity, changes=changes):
                        with contextlib.closing(inspection.Looker(self.name)) as looker:
                            try:
                                look = looker.look()
                                for line in (*display.block(look), *display.table([(self.name, look)], None)):
                                    self.assertTrue(line.isprintable())
                                json.loads(display.as_json(look.facts()))
                                if look.stream is not None:
                                    self.assertLessEqual(0, look.stream.fill)
                                    self.assertLessEqual(look.stream.fill, 100)
                                    display.bar(look, 80)
                                shown += 1
                            except mmapipc.LayoutError as error:
                                self.assertRegex(str(error), rf"\A{self.name}: [^\n]+\Z")
                                refused += 1
                    self.assertEqual(words.tolist(), before)
        self.assertTrue(shown and refused, (shown, refused))

    @mock.patch.object(inspection, "_MOMENT", 0)
    def test_a_peer_that_stores_into_every_field_all_the_time(self):
        code = f"""
import random
from mmapipc._system import names, system
chance = random.Random(int(sys.argv[2]))
memory = system.open_existing(system.place(name))
with memory.map({layout.HEADER_SIZE}) as page, memoryview(page) as octets, octets.cast('Q') as words:
    memory.close()
    good = words.tolist()
    say('there')
    while True:
        word = chance.choice({FIELDS})
        words[word] = chance.choice((words[word] + 1, *range(5), 2**63, chance.getrandbits(64))) % 2**64
        if chance.random() < 0.2:
            for word in {FIELDS}: words[word] = good[word]
"""
        seen = set()
        with self.channel(5):
            peer = self.python(code, str(SEED))
            self.assertEqual(peer.line(), "there")
            for _ in range(2000):
                with contextlib.closing(inspection.Looker(self.name)) as looker:
                    try:
                        look = looker.look()
                    except mmapipc.LayoutError as error:
                        self.assertRegex(str(error), rf"\A{self.name}: [^\n]+\Z")
                        seen.add(False)
                    else:
                        if look.stream is not None:
                            self.assertTrue(0 <= look.stream.in_flight <= look.stream.capacity, look)
                            seen.add(True)
            peer.kill()
        self.assertEqual(seen, {True, False})

    def test_the_commands(self):
        def case(self, damage):
            word, value, told = damage
            with self.channel(100) as words:
                good, words[word] = words[word], value
                self.assertIn(told, self.refused("inspect", self.name))
                text = self.shown("list", self.name)
                self.assertTrue(f"\n{self.name}  unusable     " in text and told in text, text)
                self.assertEqual(text.count("\n"), 2)
                (entry,) = json.loads(self.shown("list", "--json", self.name))
                self.assertEqual((entry["name"], entry["status"]), (self.name, "unusable"))
                words[word] = good
                self.assertIn("status", self.shown("inspect", self.name))

        damages = (
            (layout.MAGIC, 7, "not an mmapipc channel"),
            (layout.MAGIC, int.from_bytes(b"mmapipc\x63", sys.byteorder), "layout version 99"),
            (layout.CAPACITY, 2**62, "does not fit"),
            (layout.CAPACITY, 2**64 - 1, "impossible sizes"),
            (layout.WRITE_SEQ, 101, "sequences 0 and 101"),
            (layout.READ_SEQ, 1, "sequences 1 and 0"),
            (layout.SENDER_STATE, 4, "sender state 4"),
            (layout.RECEIVER_STATE, 2**64 - 1, "receiver state"),
            (layout.RECEIVER_PID, 2**32, "pids"),
        )
        self.side_by_side(case, damages)

    @unittest.skipIf(WINDOWS, "POSIX only: files")
    def test_files_that_are_too_short(self):
        path = Path(system.place(self.name).location)
        with self.channel(5000):
            whole = path.read_bytes()
        for size in (0, 1, 8, 128, layout.HEADER_SIZE - 1):
            path.touch(0o600)
            path.write_bytes(whole[:size])
            self.assertIn("stream    none\n", self.shown("inspect", self.name))
            self.assertIn("  stale  ", self.shown("list"))
        for size in (layout.HEADER_SIZE, len(whole) - 1):
            path.write_bytes(whole[:size])
            self.assertIn("does not fit", self.refused("inspect", self.name))
        # It becomes so while it is looked at.
        path.write_bytes(whole)
        with contextlib.closing(inspection.Looker(self.name)) as looker:
            self.assertIsNotNone(looker.look().stream)
            os.truncate(path, 100)
            self.assertIsNone(looker.look().stream)
        path.unlink()

    @unittest.skipIf(WINDOWS, "POSIX only: files")
    def test_something_else_in_that_place(self):
        path = system.place(self.name).location
        os.mkfifo(path, 0o600)
        for command in ("inspect", "remove"):
            self.assertIn("not a regular file", self.refused(command, self.name))
        self.assertIn("not a regular file", self.shown("list"))
        os.unlink(path)
        os.symlink(self.file(b"precious"), path)
        self.assertIn("not a regular file", self.refused("inspect", self.name))
        os.unlink(path)

    @unittest.skipIf(WINDOWS, "POSIX only: files")
    def test_what_is_in_the_file_of_the_roles_does_not_matter(self):
        path = Path(system.place(self.name).of("roles"))
        path.touch(0o600)
        for text in (b"", b"-5", b"9" * 20, b"\xff", b"\x1b[2J"):
            path.write_bytes(text)
            self.assertIn("stale", self.shown("list"))
            self.assertEqual(self.shown("remove", self.name), "")
            path.touch(0o600)
        path.unlink()


class Names(unittest.TestCase):
    def test_each_name_is_had_back(self):
        for name in (*NAMES, "Local\\Global\\x", "x" * names.LONGEST_NAME):
            self.assertEqual(names.join(names.split(name)[1]), name)

    def test_what_no_name_is_encoded_as(self):
        for encoded in ("", "a b", "%", "%zz", "%61", "%2f", "%FF", "ü", "\udcff", "x" * 201, "a~b"):
            with self.subTest(encoded=encoded), self.assertRaises(mmapipc.InvalidName):
                names.join(encoded)
