"""Channels whose ring is in a file of the user's: what is under way outlives both processes."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

import mmapipc
from mmapipc import inspection
from mmapipc._ring import layout

from .helpers import DEADLINE, MMAPIPC, Background, ChannelTest, eventually, noise


class FileChannelTest(ChannelTest):
    def setUp(self):
        super().setUp()
        self.path = str(self.folder / "ring")

    def sender(self, **options):
        return mmapipc.Sender(self.name, timeout=DEADLINE, file=self.path, **options)

    def receiver(self, **options):
        options.setdefault("timeout", DEADLINE)
        return mmapipc.Receiver(self.name, file=self.path, **options)

    def drain(self):
        """What a receiver gets up to the clean end."""
        with self.receiver() as receiver:
            return receiver.read()


class Commands(FileChannelTest):
    def test_the_sender_may_go_before_a_receiver_comes(self):
        for sent in (b"", b"hello", noise(1_000_000)):
            with self.subTest(size=len(sent)):
                target = self.folder / "target"
                self.assertEqual(self.send("--file", self.path, self.file(sent)).end(), (0, b"", ""))
                self.assertEqual(self.receive("--file", self.path, "-o", str(target)).end(), (0, b"", ""))
                self.assertEqual(target.read_bytes(), sent)
        self.assertTrue(os.path.exists(self.path))

    def test_the_receiver_may_come_first(self):
        receiver = self.receive("--file", self.path)
        sent = noise(3_000_000)
        sender = self.send("--file", self.path, "--capacity", "64KiB", self.file(sent))
        self.assertEqual(receiver.end(), (0, sent, ""))
        self.assertEqual(sender.end()[0], 0)

    def test_what_does_not_fit_waits_for_a_receiver(self):
        sent = noise(100_000)
        sender = self.send("--file", self.path, "--capacity", "10kB", self.file(sent))
        first = self.folder / "first"
        receiver = self.receive("--file", self.path, "-o", str(first), "--resume")
        self.assertEqual(receiver.end(), (0, b"", ""))
        self.assertEqual(sender.end(), (0, b"", ""))
        self.assertEqual(first.read_bytes(), sent)

    def test_a_killed_receiver_resumes_after_the_sender_has_gone(self):
        sent = noise(50_000)
        sender = self.send("--file", self.path, stdin=subprocess.PIPE)
        sender.feed(sent[:20_000])
        target = self.folder / "target"
        receiver = self.receive("--file", self.path, "-o", str(target), "--resume")
        eventually(lambda: target.exists() and target.stat().st_size == 20_000, "the first part arrives")
        receiver.kill()
        sender.feed(sent[20_000:])
        sender.end_input()
        self.assertEqual(sender.end()[0], 0)
        self.assertEqual(self.receive("--file", self.path, "-o", str(target), "--resume").end(), (0, b"", ""))
        self.assertEqual(target.read_bytes(), sent)

    def test_the_rest_of_a_killed_sender(self):
        sender = self.send("--file", self.path, stdin=subprocess.PIPE)
        sender.feed(b"part")

        def published():
            with contextlib.suppress(mmapipc.ChannelError):  # not there yet
                with contextlib.closing(inspection.Looker(self.name, self.path)) as looker:
                    stream = looker.look().stream
                    return stream is not None and stream.written == 4

        # The bytes are in the file before that, and then nobody's.
        eventually(published, "it is there")
        sender.kill()
        code, out, err = self.receive("--file", self.path).end()
        self.assertEqual((code, out), (3, b"part"))
        self.assertIn("the sender died", err)

    def test_what_cannot_be_used_is_refused(self):
        self.assertEqual(self.send("--file", self.path, self.file(b"abc")).end()[0], 0)
        code, _, err = self.send("--file", self.path, self.file(b"more")).end()
        self.assertEqual(code, 1)
        self.assertIn(self.name, err)
        self.assertIn("3 bytes of an earlier stream", err)
        self.assertEqual(self.drain(), b"abc")


    def test_the_ring_is_not_what_is_moved(self):
        Path(self.path).touch()
        code, _, err = self.send("--file", self.path, self.path).end()
        self.assertEqual(code, 1)
        self.assertIn("the file of the ring", err)
        self.assertEqual(self.send("--file", self.path, self.file(b"abc")).end()[0], 0)
        code, _, err = self.receive("--file", self.path, "-o", self.path).end()
        self.assertEqual(code, 1)
        self.assertIn("the file of the ring", err)
        self.assertEqual(self.drain(), b"abc")

    def test_no_room_for_a_larger_ring(self):
        self.assertEqual(self.send("--file", self.path, self.file(b"abc")).end()[0], 0)
        self.assertEqual(self.drain(), b"abc")
        code, _, err = self.send("--file", self.path, "--capacity", "4096TiB", self.file(b"x")).end()
        self.assertEqual(code, 1)
        self.assertNotIn("Traceback", err)
        self.assertIn(self.path, err)


class Files(FileChannelTest):
    def test_a_drained_file_is_used_again(self):
        for capacity in (100, 100, 70_000, 1, 5000):
            with self.subTest(capacity=capacity):
                sent = noise(capacity, capacity)
                with self.sender(capacity=capacity) as sender:
                    sender.write(sent)
                self.assertEqual(self.drain(), sent)
                self.assertGreaterEqual(os.path.getsize(self.path), layout.HEADER_SIZE + capacity)

    def test_a_file_of_another_kind_is_left_as_it_is(self):
        for content in (b"x", b"text\n" * 2000, bytes(10_000), b"mmapipX\1" + bytes(9000)):
            Path(self.path).write_bytes(content)
            with self.assertRaises(mmapipc.LayoutError) as caught:
                self.sender()
            self.assertIn(self.path, str(caught.exception))
            self.assertTrue(str(caught.exception).startswith(self.name))
            with self.assertRaises(mmapipc.LayoutError):
                self.receiver(timeout=0)
            self.assertEqual(Path(self.path).read_bytes(), content)

    def test_another_version_is_refused(self):
        with self.sender() as sender:
            sender.write(b"abc")
        with open(self.path, "r+b") as file:
            file.seek(7)
            file.write(b"\x63")
        before = Path(self.path).read_bytes()
        for end in self.sender, self.receiver:
            with self.assertRaisesRegex(mmapipc.LayoutError, "version 99"):
                end()
        self.assertEqual(Path(self.path).read_bytes(), before)

    def test_an_empty_file_becomes_a_ring(self):
        Path(self.path).touch()
        waiting = Background(self.drain)
        with self.sender() as sender:
            sender.write(b"hello")
        self.assertEqual(waiting.result(), b"hello")

    def test_a_file_belongs_to_one_name(self):
        with self.sender() as sender:
            sender.write(b"abc")
        for kind in mmapipc.Sender, mmapipc.Receiver:
            with self.assertRaisesRegex(mmapipc.LayoutError, "whose name is not"):
                kind(self.name + "x", timeout=DEADLINE, file=self.path)
        with contextlib.closing(inspection.Looker(self.name + "x", self.path)) as looker:
            with self.assertRaisesRegex(mmapipc.LayoutError, "whose name is not"):
                looker.look()
        self.assertEqual(self.drain(), b"abc")

    def test_a_file_in_memory_by_name_is_another_channel(self):
        with self.sender() as sender:
            sender.write(b"abc")
        with self.both() as (other, receiver):
            other.write(b"xyz")
            self.assertEqual(receiver.read(9), b"xyz")
        self.assertEqual(self.drain(), b"abc")

    def test_a_sender_that_was_killed_while_it_began(self):
        with self.sender() as sender:
            sender.write(b"abc")
        self.assertEqual(self.drain(), b"abc")
        with open(self.path, "r+b") as file:
            file.seek(7)
            file.write(b"\0")
        self.begins_anew()

    def test_a_sender_that_was_killed_while_it_made_the_file(self):
        for content in (b"", layout.BEGUN_MARK, layout.BEGUN_MARK + bytes(5000)):
            Path(self.path).write_bytes(content)
            self.begins_anew()

    def begins_anew(self):
        with self.assertRaises(mmapipc.ChannelTimeout):
            self.receiver(timeout=0)
        with self.sender() as sender:
            sender.write(b"new")
        self.assertEqual(self.drain(), b"new")

    def test_the_end_comes_also_to_the_successor_of_who_had_every_byte(self):
        with self.sender() as sender:
            sender.write(b"abc")
        child = self.python(
            f"r = mmapipc.Receiver(name, file={self.path!r}); say(r.read(3)); sys.stdin.read()\n", stdin=-1
        )
        self.assertEqual(child.line(), "b'abc'")
        child.kill()
        self.assertEqual(self.drain(), b"")
        with self.assertRaises(mmapipc.ChannelTimeout):
            self.receiver(timeout=0)

    def test_a_damaged_header(self):
        for word, value in (
            (layout.CAPACITY, 10**9),
            (layout.CAPACITY, 0),
            (layout.WRITE_SEQ, 10**9),
            (layout.READ_SEQ, 4),
            (layout.SENDER_STATE, 77),
            (layout.RECEIVER_STATE, 77),
            (layout.FLAGS, 8),
        ):
            with self.subTest(word=word, value=value):
                if os.path.exists(self.path):
                    os.unlink(self.path)
                with self.sender(capacity=100) as sender:
                    sender.write(b"abc")
                with open(self.path, "r+b") as file:
                    file.seek(8 * word)
                    file.write(value.to_bytes(8, "little"))
                with self.assertRaises(mmapipc.LayoutError):
                    with self.receiver(timeout=0) as receiver:
                        receiver.read()

    def test_a_file_that_may_not_be_written(self):
        Path(self.path).write_bytes(b"x" * 10_000)
        os.chmod(self.path, 0o400)
        self.addCleanup(os.chmod, self.path, 0o600)
        with contextlib.suppress(PermissionError), open(self.path, "r+b"):
            self.skipTest("nothing is refused to this user")
        for end in self.sender, self.receiver:
            with self.assertRaises(mmapipc.FileRefused) as caught:
                end()
            self.assertTrue(str(caught.exception).startswith(self.name))


class Roles(FileChannelTest):
    def test_second_ends_are_refused(self):
        with self.sender() as sender:
            with self.assertRaises(mmapipc.RoleTaken):
                self.sender()
            with self.receiver() as receiver:
                for timeout in (0, 0.05, DEADLINE):
                    with self.assertRaises(mmapipc.RoleTaken) as caught:
                        self.receiver(timeout=timeout)
                    self.assertIn(f"pid {os.getpid()}", str(caught.exception))
                sender.write(b"abc")
                self.assertEqual(receiver.read(9), b"abc")

    def test_roles_are_those_of_the_file(self):
        other = mmapipc.Sender(self.name, timeout=DEADLINE, file=self.path + "2")
        with self.sender() as sender, self.receiver() as receiver, self.both() as (memory, reader):
            other.write(b"other")
            other.close()
            sender.write(b"abc")
            memory.write(b"xyz")
            self.assertEqual((receiver.read(9), reader.read(9)), (b"abc", b"xyz"))

    def test_a_new_sender_waits_for_the_receiver_of_an_older_stream(self):
        with self.sender() as sender:
            sender.write(b"old")
        with self.receiver() as receiver:
            waiting = Background(lambda: self.sender())
            self.assertEqual(receiver.read(), b"old")
        with waiting.result() as sender:
            sender.write(b"new")
        self.assertEqual(self.drain(), b"new")

    def test_each_byte_comes_once_to_many_who_wait(self):
        code = f"""
say('ready')
while True:
    try:
        r = mmapipc.Receiver(name, timeout=DEADLINE, file={self.path!r})
        break
    except FileExistsError:
        pass
say(r.read().decode())
r.close()
"""
        many = [self.python(code) for _ in range(8)]
        for child in many:
            self.assertEqual(child.line(), "ready")
        messages = [f"message {number}" for number in range(len(many))]
        for message in messages:
            while True:
                try:
                    sender = self.sender()
                    break
                except mmapipc.Undelivered:
                    pass  # nobody has come for the one before
            with sender:
                sender.write(message.encode())
        self.assertEqual(sorted(child.end()[1].decode().strip() for child in many), messages)

    def test_an_aborted_stream_ends_as_it_ended(self):
        sender = self.sender()
        sender.write(b"part")
        sender.abort()
        with self.receiver() as receiver:
            self.assertEqual(receiver.read(9), b"part")
            with self.assertRaises(mmapipc.StreamAborted):
                receiver.read(9)
        with self.sender() as sender:
            sender.write(b"new")
        self.assertEqual(self.drain(), b"new")


class Inspect(FileChannelTest):
    def inspect(self, *arguments):
        return self.start([*MMAPIPC, "inspect", self.name, "--file", self.path, *arguments]).end()

    def facts(self):
        code, out, err = self.inspect("--json")
        self.assertEqual((code, err), (0, ""))
        return json.loads(out)

    def test_a_life(self):
        code, _, err = self.inspect()
        self.assertEqual(code, 1)
        self.assertIn(self.path, err)
        with self.sender(capacity=100) as sender:
            sender.write(b"hello")
            facts = self.facts()
            self.assertEqual(
                (facts["location"], facts["status"], facts["written"]), (self.path, "no receiver", 5)
            )
            self.assertEqual((facts["sender"]["pid"], facts["sender"]["claimed"]), (os.getpid(), True))
        before = Path(self.path).read_bytes()
        facts = self.facts()
        self.assertEqual((facts["status"], facts["in_flight"], facts["capacity"]), ("kept", 5, 100))
        self.assertEqual((facts["sender"]["state"], facts["sender"]["claimed"]), ("finished", False))
        self.assertIn(b"kept", self.inspect("--watch")[1])
        self.assertEqual(Path(self.path).read_bytes(), before)
        self.assertEqual(self.drain(), b"hello")
        self.assertEqual(self.facts()["status"], "drained")

    def test_what_is_not_a_ring(self):
        for content in (b"", b"x", b"text\n" * 2000):
            Path(self.path).write_bytes(content)
            code, out, err = self.inspect()
            self.assertEqual((code, out), (1, b""))
            self.assertIn(self.path, err)
            self.assertNotIn("Traceback", err)
            self.assertEqual(Path(self.path).read_bytes(), content)
