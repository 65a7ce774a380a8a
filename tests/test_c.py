"""C at the other end: the programs in tests/c, which are written after LAYOUT.md, and Python's ends."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

import mmapipc
from mmapipc._system import RECEIVER, SENDER, system

from .helpers import DEADLINE, WINDOWS, Background, ChannelTest, Child, eventually, noise
from .test_layout import DOCUMENT

SOURCES = Path(__file__).parent / "c"
PEER = "peer.exe" if WINDOWS else "peer"
SHARED = "shared.exe"

WHOLE, TROUBLE, TAKEN, GONE, DAMAGED = 0, 1, 3, 4, 5  # exit codes of the program

programs: Path  # the folder with what is compiled


def setUpModule() -> None:
    """Compile once a run; where Python runs under Wine, .ci/windows has done it, outside of Wine."""
    global programs
    if sys.platform not in ("linux", "win32"):
        raise unittest.SkipTest("the programs in C are for Linux and Windows")
    if "MMAPIPC_C" in os.environ:
        programs = Path(os.environ["MMAPIPC_C"])
        return
    compiler = shutil.which("gcc")
    if compiler is None:
        raise unittest.SkipTest("there is no gcc, and MMAPIPC_C names no folder with the programs")
    folder = tempfile.TemporaryDirectory(prefix="mmapipc-test-c-")
    unittest.addModuleCleanup(folder.cleanup)
    programs = Path(folder.name)
    wanted = {PEER: ["peer.c", "windows.c" if WINDOWS else "posix.c"]}
    if WINDOWS:
        wanted[SHARED] = ["shared.c"]
    for program, sources in wanted.items():
        command = [compiler, "-std=gnu11", "-O2", "-o", programs / program]
        subprocess.run([*command, *(SOURCES / source for source in sources)], check=True)


class CTest(ChannelTest):
    def c_sends(self, capacity: int, stdin: object = subprocess.PIPE, **options: object) -> Child:
        """Start a sender in C, of what is in a file or fed to it."""
        return self.start([str(programs / PEER), "send", self.name, str(capacity)], stdin, **options)

    def c_receives(self, **options: object) -> Child:
        """Start a receiver in C."""
        return self.start([str(programs / PEER), "receive", self.name], **options)

    def received(self, **options: object) -> bytes:
        """What a receiver in Python gets, to the end."""
        with mmapipc.Receiver(self.name, timeout=DEADLINE, **options) as receiver:
            return receiver.readall()

    def until_held(self, role: str, child: Child) -> None:
        """Wait until the child has that role."""
        roles = system.channel_roles(system.place(self.name))
        eventually(lambda: roles.holder(role) == child.pid, f"{child.pid} is the {role}")


class Streams(CTest):
    def from_c(self, capacity: int, size: int) -> None:
        data = noise(size, capacity)
        with open(self.file(data), "rb") as file:
            sender = self.c_sends(capacity, file)
        digest = hashlib.sha256()
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            while piece := receiver.read(1 << 20):
                digest.update(piece)
        self.assertEqual(sender.end(), (WHOLE, b"", ""))
        self.assertEqual(digest.hexdigest(), hashlib.sha256(data).hexdigest())

    def to_c(self, capacity: int, size: int) -> None:
        data = noise(size, capacity)
        receiving = Background(self.c_receives().end)
        with mmapipc.Sender(self.name, capacity=capacity, timeout=DEADLINE) as sender:
            sender.write(data)
        code, received, err = receiving.result()
        self.assertEqual((code, err), (WHOLE, ""))
        self.assertEqual(hashlib.sha256(received).hexdigest(), hashlib.sha256(data).hexdigest())

    def test_from_c_through_a_small_ring(self):
        self.from_c(4097, 64 << 20)

    def test_from_c_through_a_large_ring(self):
        self.from_c(4 << 20, 64 << 20)

    def test_from_c_byte_by_byte(self):
        self.from_c(1, 20_000)

    def test_to_c_through_a_small_ring(self):
        self.to_c(4097, 64 << 20)

    def test_to_c_through_a_large_ring(self):
        self.to_c(4 << 20, 64 << 20)

    def test_to_c_byte_by_byte(self):
        self.to_c(1, 20_000)

    def test_from_c_to_c(self):
        data = noise(1 << 20)
        with open(self.file(data), "rb") as file:
            sender = self.c_sends(5000, file)
        self.assertEqual(self.c_receives().end(), (WHOLE, data, ""))
        self.assertEqual(sender.end(), (WHOLE, b"", ""))

    def test_nothing_at_all(self):
        sender = self.c_sends(5, subprocess.DEVNULL)
        self.assertEqual(self.received(), b"")
        self.assertEqual(sender.end(), (WHOLE, b"", ""))

    def test_names(self):
        mark = self.name
        for name in (f"Local\\{mark}", f"Global\\{mark}", f"{mark} ~/%+.grüße-日本😀", f"global\\{mark}"):
            with self.subTest(name):
                self.name = name
                sender = self.c_sends(9)
                sender.feed(b"some bytes")
                sender.end_input()
                self.assertEqual(self.received(), b"some bytes")
                self.assertEqual(sender.end(), (WHOLE, b"", ""))

    def test_without_bells_everything_arrives(self):
        data = noise(1000)
        without = {**os.environ, "MMAPIPC_NO_BELLS": "1"}
        with open(self.file(data), "rb") as file:
            sender = self.c_sends(300, file, env=without)
        self.assertEqual(self.received(), data)
        self.assertEqual(sender.end(), (WHOLE, b"", ""))
        receiving = Background(self.c_receives(env=without).end)
        with mmapipc.Sender(self.name, capacity=300, timeout=DEADLINE) as sender:
            sender.write(data)
        self.assertEqual(receiving.result(), (WHOLE, data, ""))


class Ends(CTest):
    def test_a_sender_in_c_is_killed(self):
        child = self.c_sends(100)
        child.feed(b"as far as here")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            self.assertEqual(receiver.read(4), b"as f")
            child.kill()
            self.assertEqual(receiver.read(10), b"ar as here")
            self.assertRaises(mmapipc.SenderDied, receiver.read, 1)
        self.exchange()

    def test_a_receiver_in_c_is_killed(self):
        child = self.c_receives()
        with self.assertRaises(mmapipc.ReceiverGone) as caught:
            with mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE) as sender:
                sender.write(b"x" * 100)
                eventually(lambda: not sender.in_flight, "C has taken them")
                child.kill()
                sender.write(b"y" * 101)
        self.assertIn("the receiver died; 100 bytes were not delivered", str(caught.exception))
        self.exchange()

    def python_sends(self, code: str) -> Child:
        """Start a sender in Python; it says "taken" when the receiver has 14 bytes."""
        return self.python(
            "s = mmapipc.Sender(name, capacity=100, timeout=60); s.write(b'as far as here')\n"
            "while s.in_flight: time.sleep(0.001)\n"
            f"say('taken'); {code}",
            stdin=subprocess.PIPE,
        )

    def test_a_sender_in_python_is_killed(self):
        child = self.python_sends("sys.stdin.read()")
        receiver = self.c_receives()
        self.assertEqual(child.line(), "taken")
        child.kill()
        code, data, err = receiver.end()
        self.assertEqual((code, data), (GONE, b"as far as here"))
        self.assertIn("the sender died; the stream stops after 14 bytes", err)
        self.exchange()

    def test_a_sender_in_python_gives_up(self):
        child = self.python_sends("s.abort()")
        code, data, err = self.c_receives().end()
        self.assertEqual((code, data), (GONE, b"as far as here"))
        self.assertIn("the sender gave up; the stream stops after 14 bytes", err)
        self.assertEqual(child.line(), "taken")

    def test_a_receiver_in_python_is_killed(self):
        sender = self.c_sends(100)
        child = self.python(
            "r = mmapipc.Receiver(name, timeout=60); r.read(1); say('one'); sys.stdin.read()",
            stdin=subprocess.PIPE,
        )
        sender.feed(b"some bytes")
        self.assertEqual(child.line(), "one")
        child.kill()
        sender.end_input()
        code, _, err = sender.end()
        self.assertEqual(code, GONE)
        self.assertRegex(err, r"the receiver died; \d bytes were not delivered")
        self.exchange()

    def test_a_receiver_in_python_leaves_early(self):
        sender = self.c_sends(100)
        sender.feed(b"some bytes")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            self.assertEqual(receiver.read(4), b"some")
        sender.end_input()
        code, _, err = sender.end()
        self.assertEqual(code, GONE)
        self.assertIn("the receiver left early; 6 bytes were not delivered", err)

    def test_a_killed_receiver_of_a_persistent_stream(self):
        with mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE, persist=True) as sender:
            child = self.c_receives()
            sender.write(b"first")
            eventually(lambda: not sender.in_flight, "C has taken them")
            child.kill()
            sender.write(b"second")
            receiving = Background(self.c_receives().end)
        self.assertEqual(receiving.result(), (WHOLE, b"second", ""))


OLDER = "s = mmapipc.Sender(name); s.write(b'old'); say('there'); sys.stdin.read()"


class Names(CTest):
    def test_a_second_end_in_c_is_refused_with_the_pid(self):
        with self.both():
            for child, role in (self.c_sends(5, subprocess.DEVNULL), SENDER), (self.c_receives(), RECEIVER):
                code, _, err = child.end()
                self.assertEqual(code, TAKEN)
                self.assertIn(f"there is a {role} already (pid {os.getpid()})", err)

    def test_a_second_end_in_python_is_refused_with_the_pid(self):
        for role, start, kind in (
            (SENDER, lambda: self.c_sends(5), mmapipc.Sender),
            (RECEIVER, self.c_receives, mmapipc.Receiver),
        ):
            child = start()
            self.until_held(role, child)
            with self.assertRaises(mmapipc.RoleTaken) as caught:
                kind(self.name, timeout=DEADLINE)
            self.assertIn(f"there is a {role} already (pid {child.pid})", str(caught.exception))
            child.kill()
            self.exchange()

    def test_the_name_of_a_mapping(self):
        for content, code, said in (
            (bytes(5000), TROUBLE, "somebody has the memory, and is not attached"),
            (noise(5000), DAMAGED, "not a channel"),
        ):
            with mmapipc.Mapping(self.name, 5000) as mapping:
                mapping.buf[:] = content
                ended, _, err = self.c_sends(5, subprocess.DEVNULL).end()
                self.assertEqual(ended, code)
                self.assertIn(said, err)
                self.assertEqual(bytes(mapping.buf), content)

    def test_c_takes_over_what_killed_ends_left(self):
        sender = self.python(OLDER, stdin=subprocess.PIPE)
        receiver = self.python(
            "r = mmapipc.Receiver(name); r.read(1); say('there'); sys.stdin.read()", stdin=subprocess.PIPE
        )
        for child in (sender, receiver):
            self.assertEqual(child.line(), "there")
        for child in (sender, receiver):
            child.kill()
        sender = self.c_sends(5)
        sender.feed(b"new")
        sender.end_input()
        self.assertEqual(self.c_receives().end(), (WHOLE, b"new", ""))
        self.assertEqual(sender.end(), (WHOLE, b"", ""))

    def test_a_new_sender_in_c_waits_for_the_receiver_of_an_older_stream(self):
        older = self.python(OLDER, stdin=subprocess.PIPE)
        self.assertEqual(older.line(), "there")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            older.kill()
            sender = self.c_sends(5)
            self.until_held(SENDER, sender)
            sender.feed(b"new")
            sender.end_input()
            self.assertEqual(receiver.read(9), b"old")
            self.assertRaises(mmapipc.SenderDied, receiver.read, 9)
        self.assertEqual(self.received(), b"new")
        self.assertEqual(sender.end(), (WHOLE, b"", ""))


TAG, MUTEX = "ShareMemoryTest", "SM_Mutex"
MIB = 1 << 20


@unittest.skipUnless(WINDOWS, "Windows: memory and mutexes by their tagnames")
class SharedMemory(CTest):
    """A program that knows nothing of mmapipc; its names are the same in each run, so runs take turns."""

    def c_shares(self, action: str, *arguments: str) -> Child:
        """Start the program in C."""
        return self.start([str(programs / SHARED), action, TAG, *arguments], subprocess.PIPE)

    def text(self, mapping: mmapipc.Mapping) -> bytes:
        """What is there."""
        return bytes(mapping.buf).partition(b"\0")[0]

    @contextlib.contextmanager
    def made_here(self) -> Iterator[mmapipc.Mapping]:
        """The memory, made by Python as soon as no other run has it."""
        made = []

        def make() -> bool:
            with contextlib.suppress(mmapipc.MappingExists):
                made.append(mmapipc.Mapping(tagname=TAG, size=MIB, exist_ok=False))
            return bool(made)

        eventually(make, "nobody else has the tagname")
        with made[0] as mapping:
            yield mapping

    def test_c_makes_it(self):
        children = []

        def made() -> bool:
            children.append(self.c_shares("make", MUTEX, "from C"))
            return children[-1].line() == "written"

        eventually(made, "nobody else has the tagname")
        with mmapipc.Mapping(tagname=TAG, create=False) as mapping:
            self.assertEqual(mapping.size, MIB)
            with mapping.lock(tagname=MUTEX, timeout=5) as guard:
                self.assertFalse(guard.abandoned)
                self.assertEqual(self.text(mapping), b"from C")
                children[-1].feed(b"go on\n")  # but it waits for the mutex
                mapping.buf[:12] = b"from Python\0"
            self.assertEqual(children[-1].line(), "from Python")
        self.assertEqual(children[-1].end(), (0, b"", ""))

    def test_python_makes_it(self):
        with self.made_here() as mapping:
            with mapping.lock(tagname=MUTEX, timeout=5):
                mapping.buf[:12] = b"from Python\0"
                child = self.c_shares("open", MUTEX, "from C")
            self.assertEqual(child.line(), "from Python")
            self.assertEqual(child.end()[0], 0)
            with mapping.lock(tagname=MUTEX, timeout=5) as guard:
                self.assertFalse(guard.abandoned)
                self.assertEqual(self.text(mapping), b"from C")

    def test_c_dies_with_the_mutex(self):
        mutex = f"{MUTEX}-{self.name}"
        with self.made_here() as mapping:
            with mapping.lock(tagname=mutex, timeout=5):
                child = self.c_shares("die", mutex)
            self.assertEqual(child.line(), "half")
            child.end()
            with mapping.lock(tagname=mutex, timeout=5) as guard:
                self.assertTrue(guard.abandoned)
                self.assertEqual(self.text(mapping), b"half of")
            with mapping.lock(tagname=mutex, timeout=5) as guard:
                self.assertFalse(guard.abandoned)


class Citations(unittest.TestCase):
    def test_each_function_says_which_section_it_follows(self):
        there = set(re.findall(r"^##+ ([\d.]*\d)", DOCUMENT, re.MULTILINE))
        for path in sorted(set(SOURCES.glob("*.c")) - {SOURCES / "shared.c"}):
            text = path.read_text("utf-8")
            functions = re.findall(
                r"((?:/\*(?:[^*]|\*(?!/))*\*/\n)?)^\w[^;{}#=]*?(\w+)\([^;{}]*\)\n\{$", text, re.MULTILINE
            )
            self.assertGreater(len(functions), 3, path.name)
            self.assertEqual(len(functions), len(re.findall(r"^\}$", text, re.MULTILINE)), path.name)
            for comment, function in functions:
                cited = re.findall(r"\b(\d+(?:\.\d+)?)", comment.partition("LAYOUT")[2].partition(":")[0])
                self.assertTrue(cited, f"{path.name}: {function}")
                self.assertLessEqual(set(cited), there, f"{path.name}: {function}")
