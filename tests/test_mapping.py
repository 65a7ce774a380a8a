"""`Mapping`: what the Win32 calls give, on both platforms; and that a name lives no longer than it should."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import io
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import unittest
from collections.abc import Iterator
from unittest import mock

import mmapipc
from mmapipc import Mapping
from mmapipc._meeting import homes
from mmapipc._system import names, system

from .helpers import DEADLINE, WINDOWS, ChannelTest, Child, eventually, noise
from .test_names import NAMES
from .test_shortage import DROP_ROOT, LINUX

GRANULE = mmap.ALLOCATIONGRANULARITY
HOLD = "say('there'); sys.stdin.read()\n"
ROOT = not WINDOWS and os.geteuid() == 0


def whole_pages(size: int) -> int:
    """What the size of named memory is found to be: Windows rounds it up."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE if WINDOWS else size


class MappingTest(ChannelTest):
    def opened(self) -> Mapping:
        """The memory of the test's name, which must be there."""
        return Mapping(self.name, create=False)

    def gone(self) -> bool:
        """Whether nobody has the name any more."""
        try:
            self.opened().close()
        except mmapipc.NoSuchMapping:
            return True
        return False

    def hold(self, code: str) -> Child:
        """A child process that has run this, and stays."""
        child = self.python(code + "\n" + HOLD, stdin=subprocess.PIPE)
        self.assertEqual(child.line(), "there", child.process.poll() and child.end())
        return child

    @contextlib.contextmanager
    def refused(self, error: type[Exception], *words: str, about: str | None = None) -> Iterator[None]:
        """Exactly this error, in one line that begins with the name (or path) and has the words."""
        with self.assertRaises(error) as caught:
            yield
        message = str(caught.exception)
        self.assertIs(type(caught.exception), error, message)
        self.assertTrue(message.startswith(f"{about or self.name}: "), message)
        self.assertNotIn("\n", message)
        for word in words:
            self.assertIn(word, message)


class Named(MappingTest):
    """CreateFileMapping without a file, OpenFileMapping."""

    def test_new_memory_is_zero(self):
        for size in (1, 100, mmap.PAGESIZE, 3 * GRANULE + 5):
            with Mapping(self.name, size) as made:
                self.assertTrue(made.created)
                self.assertEqual((made.name, made.size, len(made.buf)), (self.name, size, size))
                self.assertEqual(bytes(made.buf), bytes(size))
                made.buf[:] = b"\xff" * size

    def test_two_processes_see_the_same_bytes(self):
        with Mapping(self.name, 100) as made:
            made.buf[:5] = b"hello"
            child = self.python(
                "with mmapipc.Mapping(name, create=False) as m:\n"
                " say(bytes(m.buf[:5])); say(m.created); m.buf[99] = 7; sys.stdin.readline()",
                stdin=subprocess.PIPE,
            )
            self.assertEqual((child.line(), child.line()), ("b'hello'", "False"))
            eventually(lambda: made.buf[99] == 7, "the child's store")
            child.feed(b"\n")
            self.assertEqual(child.end(), (0, b"", ""))

    def test_already_exists(self):
        with Mapping(self.name, 100) as made:
            made.buf[:3] = b"old"
            for size in (100, 50):
                with Mapping(self.name, size) as other:
                    self.assertFalse(other.created)
                    self.assertEqual((other.size, len(other.buf)), (size, size))
                    self.assertEqual(bytes(other.buf[:3]), b"old")
            with self.opened() as other:
                self.assertFalse(other.created)
                self.assertEqual(other.size, whole_pages(100))

    def test_it_was_to_be_new(self):
        with Mapping(self.name, 10, exist_ok=False) as made:
            self.assertTrue(made.created)
            with self.refused(mmapipc.MappingExists, "to be new"):
                Mapping(self.name, 10, exist_ok=False)
            made.buf[0] = 7
            with self.opened() as other:
                self.assertEqual(other.buf[0], 7)
        self.assertTrue(self.gone())

    def test_exactly_one_of_twenty_creates(self):
        code = """
say('ready'); sys.stdin.readline()
m = mmapipc.Mapping(name, 1000)
say(m.created)
if m.created:
    m.buf[:4] = os.getpid().to_bytes(4, 'little')
sys.stdin.readline()
say(int.from_bytes(m.buf[:4], 'little'))
m.close()
"""
        many = []
        for _ in range(5):  # what matters comes when they are there; a busy machine starts few at once
            few = [self.python(code, stdin=subprocess.PIPE) for _ in range(4)]
            for child in few:
                self.assertEqual(child.line(), "ready")
            many += few
        for child in many:
            child.feed(b"\n")
        answers = [child.line() for child in many]
        self.assertEqual(sorted(answers), ["False"] * 19 + ["True"])
        creator = many[answers.index("True")]
        for child in many:
            child.feed(b"\n")
        self.assertEqual({child.line() for child in many}, {str(creator.pid)})
        self.assertEqual({child.end() for child in many}, {(0, b"", "")})
        self.assertTrue(self.gone())

    def test_missing(self):
        for access in ("write", "read", "copy"):
            with self.refused(mmapipc.NoSuchMapping):
                Mapping(self.name, create=False, access=access)
        with self.refused(mmapipc.NoSuchMapping):
            Mapping(self.name, 100, create=False)
        self.assertTrue(self.gone())

    def test_smaller_than_what_was_asked_for(self):
        with Mapping(self.name, 100) as made:
            for create in (True, False):
                with self.refused(mmapipc.MappingTooSmall, str(whole_pages(100)), "100001"):
                    Mapping(self.name, 100_001, create=create)
            made.buf[0] = 1
            with self.opened() as other:
                self.assertEqual(other.buf[0], 1)

    def test_zero_length(self):
        for size in (0, -1, 2**62 + 1):
            with self.refused(mmapipc.InvalidSize, str(size)):
                Mapping(self.name, size)
        with self.refused(mmapipc.InvalidSize):
            Mapping(self.name, -1, create=False)
        self.assertTrue(self.gone())

    def test_more_than_there_is(self):
        with self.refused(mmapipc.MemoryRefused):
            Mapping(self.name, 2**50)
        self.assertTrue(self.gone())

    def test_wrong_arguments(self):
        for wrong in ("", "Global\\", "x" * (names.LONGEST_NAME + 1)):
            with self.assertRaises(mmapipc.InvalidName):
                Mapping(wrong, 1)
        with self.assertRaises(mmapipc.InvalidName):
            Mapping(create=False)
        with self.assertRaises(mmapipc.InvalidName):
            Mapping(self.name, 1, tagname=self.name)
        with self.assertRaises(ValueError):
            Mapping(self.name, create=False, exist_ok=False)
        for arguments in (
            {"size": 1.5},
            {"offset": "0"},
            {"length": 1.5},
            {"name": b"bytes"},
            {"tagname": b"bytes"},
            {"file": 1.5},
        ):
            with self.subTest(arguments), self.assertRaises(TypeError):
                Mapping(**{"name": self.name, "size": 1, **arguments})
        with self.assertRaises(ValueError):
            Mapping(self.name, 1, access="execute")
        self.assertTrue(self.gone())


class Names(MappingTest):
    def test_every_name_has_memory_of_its_own(self):
        with contextlib.ExitStack() as stack:
            made = []
            for name in (*NAMES, "x" * names.LONGEST_NAME):
                name = name.replace("plain", self.name)
                made.append((name, stack.enter_context(Mapping(name, 100))))
                self.assertTrue(made[-1][1].created)
                made[-1][1].buf[:1] = bytes([len(made)])
            for number, (name, _) in enumerate(made, 1):
                with Mapping(name, create=False) as other:
                    self.assertEqual(other.buf[0], number)

    def test_prefixes(self):
        for prefix, same in (("Local\\", self.name), ("Global\\", f"Global\\{self.name}")):
            with self.subTest(prefix), Mapping(prefix + self.name, 10) as made:
                made.buf[0] = 7
                with Mapping(same, create=False) as other:
                    self.assertEqual(other.buf[0], 7)


class Lives(MappingTest):
    """UnmapViewOfFile and CloseHandle: a name lives while somebody has it open, and no longer."""

    def test_the_last_one_ends_it(self):
        first = Mapping(self.name, 10)
        first.buf[0] = 7
        second = self.opened()
        first.close()
        with self.opened() as third:
            self.assertEqual((second.buf[0], third.buf[0]), (7, 7))
        self.assertFalse(self.gone())
        second.close()
        self.assertTrue(self.gone())
        with Mapping(self.name, 10) as again:
            self.assertTrue(again.created)
            self.assertEqual(bytes(again.buf), bytes(10))

    def test_another_process_has_it_still(self):
        made = Mapping(self.name, 10)
        made.buf[0] = 7
        child = self.hold("m = mmapipc.Mapping(name, create=False)")
        made.close()
        with Mapping(self.name, 10) as other:
            self.assertFalse(other.created)
            self.assertEqual(other.buf[0], 7)
        child.end_input()
        self.assertEqual(child.end()[0], 0)
        eventually(self.gone, "the name is gone")

    def test_closed(self):
        made = Mapping(self.name, 10)
        made.close()
        made.close()
        self.assertIn("closed", repr(made))
        self.assertEqual((made.name, made.size, made.created), (self.name, 10, True))
        self.assertTrue(made.closed)
        for use in (lambda: made.buf, made.flush, made.__enter__, made.lock().__enter__):
            with self.assertRaisesRegex(ValueError, f"^{self.name}: the mapping is closed"):
                use()

    def test_a_name_is_made_up(self):
        with Mapping(size=10) as made, Mapping(size=10) as another:
            self.assertTrue(made.created and another.created)
            self.assertNotEqual(made.name, another.name)
            self.assertFalse(made.closed)
            with Mapping(made.name, create=False) as other:
                other.buf[0] = 7
                self.assertEqual((made.buf[0], another.buf[0]), (7, 0))
        with self.assertRaises(mmapipc.NoSuchMapping):
            Mapping(made.name, create=False)

    def test_it_is_not_pickled(self):
        for how in ({"name": self.name, "size": 10}, {"file": self.file(b"0123456789")}):
            with Mapping(**how) as made, self.refused(TypeError, "give its name", about=how.get("file")):
                pickle.dumps(made)

    @unittest.skipIf(sys.version_info < (3, 12), "Python 3.12 or newer: __buffer__")
    def test_it_is_a_buffer(self):
        with Mapping(self.name, 10) as made:
            made.buf[:] = b"0123456789"
            self.assertEqual(bytes(made), b"0123456789")
            with memoryview(made) as view:
                view[0] = ord("x")
                with self.assertRaises(BufferError):
                    made.close()
            self.assertEqual(made.buf[0], ord("x"))
            self.assertEqual(io.BytesIO(b"read").readinto(made), 4)
            with Mapping(self.name, create=False, access="read") as read:
                self.assertEqual(bytes(read)[:10], b"read456789")
                with self.assertRaises((BufferError, TypeError)):
                    io.BytesIO(b"x").readinto(read)
        with self.assertRaises(ValueError):
            bytes(made)

    def test_an_exception_closes_it(self):
        with self.assertRaises(KeyError), Mapping(self.name, 10):
            raise KeyError
        self.assertTrue(self.gone())

    def derived(self) -> Iterator[tuple[Mapping, object]]:
        """A mapping, and a slice or an array of it."""
        path = self.file(bytes(10))
        for derive in (lambda buf: buf[2:5], memoryview, (ctypes.c_char * 10).from_buffer):
            for how in ({"name": self.name, "size": 10}, {"file": path}):
                made = Mapping(**how)
                made.buf[:5] = b"abcde"
                yield made, derive(made.buf)
        with Mapping(file=path, access="read") as made:
            yield made, made.buf[2:5]

    def test_it_is_not_closed_while_a_slice_is_out(self):
        for made, kept in self.derived():
            with self.refused(BufferError, about=made.name or made._label):
                made.close()
            with self.assertRaises(BufferError), made:
                pass
            self.assertFalse(made.closed)
            self.assertEqual(bytes(made.buf[:5]), b"abcde")
            if not made.buf.readonly:
                made.buf[2] = ord("x")
                self.assertIn(b"xde", bytes(kept))
                made.buf[2] = ord("c")
            made.flush()
            self.assertIn(b"cde", bytes(kept))
            del kept
            gc.collect()
            made.close()
            self.assertTrue(made.closed)
            self.assertTrue(self.gone())

    def test_an_exception_is_not_hidden_by_that(self):
        for made, kept in self.derived():
            with self.assertRaises(KeyError), made:
                raise KeyError
            self.assertTrue(made.closed)
            if not WINDOWS:  # there what keeps the memory keeps its name
                self.assertTrue(self.gone())
            self.assertIn(b"cde", bytes(kept))  # it keeps the memory

    def test_a_slice_outlives_one_that_is_collected(self):
        for how in ({"name": self.name, "size": 10}, {"file": self.file(bytes(10))}):
            with self.assertWarns(ResourceWarning):
                made = Mapping(**how)
                kept = made.buf[2:5]
                del made
                gc.collect()
            if not WINDOWS:  # as above
                self.assertTrue(self.gone())
            kept[:] = b"cde"
            self.assertEqual(bytes(kept), b"cde")
            del kept
            self.assertTrue(self.gone())

    def test_collected_without_close(self):
        with self.assertWarnsRegex(
            ResourceWarning, f"unclosed <mmapipc.Mapping '{self.name}' 10 of 10 bytes>"
        ):
            Mapping(self.name, 10)
            gc.collect()
        self.assertTrue(self.gone())

    def test_a_refused_one_leaves_nothing(self):
        made = Mapping(self.name, 10)
        with self.refused(mmapipc.MappingTooSmall):
            Mapping(self.name, 10_000_000)
        made.close()
        self.assertTrue(self.gone())

    def test_flush(self):
        for access in ("write", "read", "copy"):
            with Mapping(self.name, 10, access=access) as made:
                made.flush()


class Kills(MappingTest):
    def test_what_a_killed_holder_had_is_gone(self):
        for size in (10, 5000):
            for find in (lambda: self.gone(), lambda: self.created_anew(size)):
                child = self.hold(f"m = mmapipc.Mapping(name, {size}); m.buf[:] = b'x' * {size}")
                child.kill()
                # Windows gives the name back a moment after the process has gone.
                eventually(find, "what the killed holder had is gone") if WINDOWS else self.assertTrue(find())
        self.assertTrue(self.gone())

    def created_anew(self, size: int) -> bool:
        """Whether the name is new; then its bytes are zero."""
        with Mapping(self.name, size) as made:
            self.assertEqual(bytes(made.buf), (bytes(size) if made.created else b"x" * size))
            return made.created

    def test_others_keep_what_a_killed_holder_had(self):
        child = self.hold("m = mmapipc.Mapping(name, 10); m.buf[0] = 7")
        with self.opened() as other:
            child.kill()
            self.assertEqual(other.buf[0], 7)
            with Mapping(self.name, 10) as third:
                self.assertFalse(third.created)
                self.assertEqual(third.buf[0], 7)
        self.assertTrue(self.gone())

    def test_many_come_and_go_and_some_are_killed(self):
        # Whoever is told that it made the memory finds it zero, and the only one of its kind.
        code = """
say('ready')
while True:
    with mmapipc.Mapping(name, 64) as m:
        if m.created:
            assert bytes(m.buf) == bytes(64), bytes(m.buf)
            m.buf[:] = b'x' * 64
        elif m.buf[0]:
            with mmapipc.Mapping(name, 64) as other:
                assert not other.created
                assert other.buf[0]
"""
        many = [self.python(code) for _ in range(4)]
        for child in many:
            self.assertEqual(child.line(), "ready")
        for _ in range(6):
            for _ in range(50):
                with Mapping(self.name, 64) as made:
                    if made.created:
                        self.assertEqual(bytes(made.buf), bytes(64))
                        made.buf[:] = b"x" * 64
            self.assertIsNone(many[0].process.poll(), many[0].process.poll() and many[0].end())
            many.pop(0).kill()
            many.append(self.python(code))
            self.assertEqual(many[-1].line(), "ready")
        for child in many:
            self.assertIsNone(child.process.poll())
            child.kill()
        eventually(self.gone, "the name is gone")

    @unittest.skipIf(WINDOWS, "POSIX only: what killed holders leave is a file")
    def test_what_a_killed_holder_left_is_not_used_again(self):
        self.hold("m = mmapipc.Mapping(name, 100); m.buf[:] = b'x' * 100").kill()
        with open(system.place(self.name).location, "rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as old, Mapping(self.name, 10) as made:
                self.assertTrue(made.created)
                made.buf[:] = b"y" * 10
                self.assertEqual(old[:], b"x" * 100)

    @unittest.skipIf(WINDOWS, "POSIX only: files in a directory")
    def test_a_creator_killed_half_way(self):
        place = system.place(self.name).location
        for content in (b"", b"x" * 10):
            for attempt in (
                lambda: self.assertTrue(self.gone()),
                lambda: self.assertTrue(self.created_anew(10)),
            ):
                with open(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
                    file.write(content)
                attempt()
                self.assertFalse(os.path.exists(place))


@unittest.skipIf(WINDOWS, "POSIX only: fork")
class Forks(MappingTest):
    def test_a_child_does_not_inherit_it(self):
        code = """
m = mmapipc.Mapping(name, 10); m.buf[0] = 7
pid = os.fork()
if not pid:
    try:
        m.buf
    except ValueError as error:
        say(f'closed {os.getpid()} {error}')
    m.close(); del m
    sys.stdin.read()  # as long as the test goes on
say('forked'); sys.stdin.read()
"""
        parent = self.python(code, stdin=subprocess.PIPE)
        answers = sorted((parent.line(), parent.line()))
        self.assertEqual(answers[1], "forked")
        self.assertRegex(
            answers[0], rf"^closed \d+ {self.name}: a forked child does not inherit .* open it again"
        )
        # What the child closed is the parent's still.
        with self.opened() as other:
            self.assertEqual(other.buf[0], 7)
        parent.kill()
        # The child still runs, and does not keep the name.
        try:
            self.assertTrue(self.gone())
        finally:
            os.kill(int(answers[0].split()[1]), signal.SIGKILL)

    def test_a_child_that_exits_ends_nothing(self):
        for leave in ("os._exit(0)", "sys.exit()"):
            code = f"""
m = mmapipc.Mapping(name, 10)
view = m.buf[2:4]
pid = os.fork()
if not pid:
    {leave}
os.waitpid(pid, 0)
m.buf[0] = 7
{HOLD}
"""
            with self.subTest(leave=leave):
                parent = self.python(code, stdin=subprocess.PIPE)
                self.assertEqual(parent.line(), "there")
                with self.opened() as other:
                    self.assertEqual(other.buf[0], 7)
                parent.kill()
                self.assertTrue(self.gone())

    def test_a_child_may_open_it_again(self):
        code = """
m = mmapipc.Mapping(name, 10)
pid = os.fork()
if not pid:
    with mmapipc.Mapping(name, create=False) as mine:
        mine.buf[0] = 7
    os._exit(0)
os.waitpid(pid, 0)
say(m.buf[0])
m.close()
"""
        self.assertEqual(self.python(code).end(), (0, b"7\n", ""))
        self.assertTrue(self.gone())


class Protections(MappingTest):
    """PAGE_READWRITE, PAGE_READONLY, PAGE_WRITECOPY; FILE_MAP_WRITE, FILE_MAP_READ, FILE_MAP_COPY."""

    @contextlib.contextmanager
    def original(self) -> Iterator[tuple[Mapping, dict[str, object]]]:
        """Ten bytes, mapped for writing; and how to open them. By name, and of a file."""
        with Mapping(self.name, 10) as made:
            made.buf[:] = b"0123456789"
            yield made, {"name": self.name, "create": False}

    @contextlib.contextmanager
    def original_file(self) -> Iterator[tuple[Mapping, dict[str, object]]]:
        path = self.file(b"0123456789")
        with Mapping(file=path) as made:
            yield made, {"file": path}
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"w123456789")

    def test_protections(self):
        for original in (self.original, self.original_file):
            with self.subTest(original.__name__), original() as (made, how):
                with Mapping(access="write", **how) as write, Mapping(access="read", **how) as read:
                    with Mapping(access="copy", **how) as copy:
                        self.assertEqual([m.buf.readonly for m in (write, read, copy)], [False, True, False])
                        with self.assertRaises(TypeError):
                            read.buf[0] = 1
                        with self.assertRaises(TypeError):
                            read.buf[:2] = b"ab"
                        copy.buf[5] = ord("c")
                        write.buf[0] = ord("w")
                        self.assertEqual(bytes(made.buf[:10]), b"w123456789")
                        self.assertEqual(bytes(read.buf[:10]), b"w123456789")
                        self.assertEqual(bytes(copy.buf[1:10]), b"1234c6789")
                        copy.flush()
                    # Nobody else's copy has it, nor a later one.
                    with Mapping(access="copy", **how) as copy:
                        self.assertEqual(bytes(copy.buf[:10]), b"w123456789")

    def test_a_killed_process_changed_only_its_copy(self):
        path = self.file(b"0123456789")
        with Mapping(self.name, 10) as made:
            child = self.hold(
                "m = mmapipc.Mapping(name, create=False, access='copy'); m.buf[:10] = b'x' * 10\n"
                f"f = mmapipc.Mapping(file={path!r}, access='copy'); f.buf[:] = b'x' * 10"
            )
            self.assertEqual(bytes(made.buf), bytes(10))
            child.kill()
            self.assertEqual(bytes(made.buf), bytes(10))
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"0123456789")

    def test_memory_made_for_reading_can_be_written_by_others(self):
        for access in ("read", "copy"):
            with Mapping(self.name, 10, access=access) as made, self.opened() as other:
                self.assertTrue(made.created)
                other.buf[0] = 7
                self.assertEqual(made.buf[0], 7)


class Views(MappingTest):
    """MapViewOfFile with offset and size."""

    def test_any_granule_and_length(self):
        content = noise(3 * GRANULE + 100)
        path = self.file(content)
        with Mapping(self.name, len(content)) as made:
            made.buf[:] = content
            for how in ({"name": self.name, "size": len(content), "create": False}, {"file": path}):
                for access in ("write", "read", "copy"):
                    for number in range(4):
                        offset = number * GRANULE
                        for length in (None, 1, 99, 100):
                            with self.subTest(how=how, access=access, offset=offset, length=length):
                                with Mapping(access=access, offset=offset, length=length, **how) as view:
                                    end = len(content) if length is None else offset + length
                                    self.assertEqual(bytes(view.buf), content[offset:end])
                                    self.assertEqual(view.size, len(content))

    def test_a_store_through_a_view_is_in_its_place(self):
        path = self.file(bytes(3 * GRANULE))
        with Mapping(self.name, 3 * GRANULE) as made, Mapping(file=path) as whole:
            for how, base in (({"name": self.name, "create": False}, made), ({"file": path}, whole)):
                with Mapping(offset=2 * GRANULE, length=10, **how) as view:
                    view.buf[9] = 7
                    view.flush()
                self.assertEqual([i for i, byte in enumerate(bytes(base.buf)) if byte], [2 * GRANULE + 9])

    def test_a_view_of_what_is_made_at_once(self):
        with Mapping(self.name, 2 * GRANULE, offset=GRANULE, length=10) as view:
            self.assertTrue(view.created)
            self.assertEqual((view.size, len(view.buf)), (2 * GRANULE, 10))
            with self.opened() as whole:
                self.assertEqual(whole.size, 2 * GRANULE)

    def test_offsets_between(self):
        path = self.file(bytes(3 * GRANULE))
        with Mapping(self.name, 3 * GRANULE):
            for how in ({"name": self.name, "create": False}, {"file": path}):
                for offset in (1, GRANULE - 1, GRANULE + 1, -1):
                    with self.refused(mmapipc.InvalidView, str(GRANULE), about=how.get("file")):
                        Mapping(offset=offset, **how)

    def test_views_that_are_not_inside(self):
        path = self.file(bytes(2 * GRANULE))
        with Mapping(self.name, 2 * GRANULE):
            for how in ({"name": self.name, "create": False}, {"file": path}):
                for offset, length in (
                    (0, 2 * GRANULE + 1),
                    (GRANULE, GRANULE + 1),
                    (2 * GRANULE, None),
                    (2 * GRANULE, 1),
                    (4 * GRANULE, None),
                    (-GRANULE, 10),
                    (0, 0),
                    (0, -1),
                ):
                    with self.subTest(how=how, offset=offset, length=length):
                        with self.refused(mmapipc.InvalidView, str(2 * GRANULE), about=how.get("file")):
                            Mapping(offset=offset, length=length, **how)

    def test_a_wrong_view_makes_nothing(self):
        path = str(self.folder / "new")
        for wrong in ({"offset": 1}, {"length": 11}, {"offset": GRANULE}):
            for how in ({"name": self.name}, {"file": path}):
                with self.assertRaises(mmapipc.InvalidView):
                    Mapping(size=10, **how, **wrong)
        self.assertTrue(self.gone())
        self.assertFalse(os.path.exists(path))


class Files(MappingTest):
    """CreateFileMapping with a file."""

    def content(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def test_size_0_is_the_files_own(self):
        path = self.file(b"0123456789")
        for file in (path, self.folder / os.path.basename(path), os.fsencode(path)):
            with Mapping(file=file) as made:
                self.assertEqual((made.name, made.size, made.created), (None, 10, False))
                self.assertEqual(bytes(made.buf), b"0123456789")
        with Mapping(file=path, create=False) as made:
            made.buf[3] = ord("x")
            made.flush()
            self.assertEqual(self.content(path), b"012x456789")
        self.assertEqual(self.content(path), b"012x456789")

    def test_a_larger_size_extends(self):
        path = self.file(b"0123456789")
        for size in (4096, 100_000):
            with Mapping(file=path, size=size) as made:
                self.assertEqual((made.size, len(made.buf), made.created), (size, size, False))
                self.assertEqual(bytes(made.buf[:10]), b"0123456789")
                self.assertEqual(bytes(made.buf[10:]), bytes(size - 10))
            self.assertEqual(os.path.getsize(path), size)
        with Mapping(file=path, size=4096) as made:
            self.assertEqual(made.size, 4096)
        self.assertEqual(os.path.getsize(path), 100_000)

    def test_only_a_writer_that_may_create_extends(self):
        path = self.file(b"0123456789")
        for how in ({"access": "read"}, {"access": "copy"}, {"create": False}):
            with self.refused(mmapipc.MappingTooSmall, "10", "11", about=path):
                Mapping(file=path, size=11, **how)
        self.assertEqual(self.content(path), b"0123456789")

    def test_an_empty_file(self):
        path = self.file(b"")
        for access in ("write", "read", "copy"):
            with self.refused(mmapipc.InvalidSize, "empty", about=path):
                Mapping(file=path, access=access)
        with Mapping(file=path, size=10) as made:
            self.assertEqual(bytes(made.buf), bytes(10))

    def test_a_missing_file(self):
        path = str(self.folder / "missing")
        for how in (
            {},
            {"size": 10, "create": False},
            {"size": 10, "access": "read"},
            {"size": 10, "access": "copy"},
        ):
            with self.refused(mmapipc.NoSuchMapping, about=path):
                Mapping(file=path, **how)
            self.assertFalse(os.path.exists(path))
        with self.refused(mmapipc.NoSuchMapping, about=os.path.join(path, "x")):
            Mapping(file=os.path.join(path, "x"), size=10)
        with Mapping(file=path, size=10) as made:
            self.assertTrue(made.created)
            made.buf[:] = b"abcdefghij"
        self.assertEqual(self.content(path), b"abcdefghij")
        if not WINDOWS:
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)

    def test_an_open_file_or_a_descriptor(self):
        path = self.file(b"0123456789")
        with open(path, "r+b") as file:
            for given in (file, file.fileno()):
                with Mapping(file=given) as made:
                    self.assertEqual((made.name, made.size, made.created), (None, 10, False))
                    made.buf[0] = ord("x")
                    made.flush()
                    with made.lock(timeout=0):
                        self.assertEqual(self.content(path), b"x123456789")
                with Mapping(file=given, access="read") as made:
                    self.assertEqual(bytes(made.buf), b"x123456789")
            self.assertEqual(file.read(), b"x123456789")  # it is open still, and where it was
            with Mapping(file=file, size=20) as made:
                self.assertEqual(bytes(made.buf), b"x123456789" + bytes(10))
            with Mapping(self.name, file=file) as made:
                self.assertEqual((made.name, made.size, made.created), (self.name, 20, True))
        with Mapping(self.name, 10) as made:
            self.assertTrue(made.created)
        self.assertEqual(self.content(path), b"x123456789" + bytes(10))

    def test_what_an_open_file_does_not_allow(self):
        path = self.file(b"0123456789")
        with open(path, "rb") as file:
            for how in ({}, {"size": 20}):
                with self.refused(mmapipc.FileRefused, about=path):
                    Mapping(file=file, **how)
            with self.refused(mmapipc.MappingExists, about=path):
                Mapping(file=file, exist_ok=False)
            with Mapping(file=file, access="copy") as made:
                made.buf[0] = ord("x")
            descriptor = file.fileno()
        with self.refused(mmapipc.FileRefused, about=f"descriptor {descriptor}"):
            Mapping(file=descriptor)
        self.assertEqual(self.content(path), b"0123456789")
        reading, writing = os.pipe()
        try:
            with self.refused(mmapipc.NameTaken, "regular file", about=f"descriptor {reading}"):
                Mapping(file=reading)
        finally:
            os.close(reading)
            os.close(writing)

    @unittest.skipUnless(WINDOWS, "Windows only: share modes")
    def test_a_file_that_is_shared_with_nobody(self):
        import msvcrt

        path = self.file(b"0123456789")
        kernel = ctypes.WinDLL("kernel32")
        kernel.CreateFileW.restype = ctypes.c_void_p
        # GENERIC_READ and GENERIC_WRITE, shared with nobody, OPEN_EXISTING
        handle = kernel.CreateFileW(path, 0xC0000000, 0, None, 3, 0, None)
        with open(msvcrt.open_osfhandle(handle, os.O_RDWR), "r+b") as file, Mapping(file=file) as made:
            made.buf[0] = ord("x")
            with self.assertRaises(PermissionError):
                open(path, "rb").close()
            with made.lock(timeout=0):
                made.flush()
        self.assertEqual(self.content(path), b"x123456789")

    def test_it_was_to_be_new(self):
        path = self.file(b"0123456789")
        for how in ({}, {"size": 20}, {"access": "read"}):
            with self.refused(mmapipc.MappingExists, about=path):
                Mapping(file=path, exist_ok=False, **how)
        self.assertEqual(self.content(path), b"0123456789")
        with Mapping(file=path + "new", size=10, exist_ok=False) as made:
            self.assertTrue(made.created)
        with Mapping(self.name, file=path, exist_ok=False) as made:
            self.assertTrue(made.created)
            with self.refused(mmapipc.MappingExists):
                Mapping(self.name, 20, file=path, exist_ok=False)
        self.assertEqual(self.content(path), b"0123456789")

    def test_flushing_a_part(self):
        path = self.file(bytes(3 * mmap.PAGESIZE))
        for access in ("write", "read", "copy"):
            with Mapping(file=path, access=access) as made:
                for offset, length in ((0, 1), (mmap.PAGESIZE + 5, 7), (5, None), (3 * mmap.PAGESIZE, 0)):
                    made.flush(offset, length)
                for offset, length in (
                    (-1, 1),
                    (0, 3 * mmap.PAGESIZE + 1),
                    (4 * mmap.PAGESIZE, None),
                    (5, -1),
                ):
                    with self.refused(mmapipc.InvalidView, str(3 * mmap.PAGESIZE), about=path):
                        made.flush(offset, length)

    def test_every_byte_value(self):
        content = bytes(range(256)) * 20
        path = str(self.folder / "binary")
        with Mapping(file=path, size=len(content)) as made:
            made.buf[:] = content
        self.assertEqual(self.content(path), content)

    def test_two_processes_see_the_same_bytes(self):
        path = self.file(bytes(100))
        with Mapping(file=path) as made:
            child = self.hold(f"m = mmapipc.Mapping(file={path!r}); m.buf[99] = 7; m.flush()")
            self.assertEqual(made.buf[99], 7)
            made.buf[0] = 8
            child.kill()
        content = self.content(path)
        self.assertEqual((content[0], content[99]), (8, 7))

    def test_what_is_not_a_file(self):
        others = [str(self.folder)]
        if not WINDOWS:
            pipe = str(self.folder / "pipe")
            os.mkfifo(pipe)
            others += [pipe, "/dev/zero"]
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(self.folder / "socket"))
            others.append(str(self.folder / "socket"))
        for path in others:
            for access in ("write", "read", "copy"):
                with self.subTest(path=path, access=access):
                    with self.refused(mmapipc.NameTaken, "regular file", about=path):
                        Mapping(file=path, size=10, access=access)

    def test_a_file_that_may_only_be_read(self):
        # By permission; on Windows because somebody has it open who shares it for reading.
        path = self.file(b"0123456789")
        if WINDOWS:
            kernel = ctypes.WinDLL("kernel32")
            kernel.CreateFileW.restype = ctypes.c_void_p
            # GENERIC_READ, FILE_SHARE_READ, OPEN_EXISTING
            handle = kernel.CreateFileW(path, 0x80000000, 1, None, 3, 0, None)
            self.addCleanup(kernel.CloseHandle, ctypes.c_void_p(handle))
        else:
            os.chmod(path, 0o444)
            os.chmod(self.folder, 0o755)
        child = self.python(
            f"""
{DROP_ROOT if ROOT else ''}
path = {path!r}
for size in (0, 20):
    try:
        mmapipc.Mapping(file=path, size=size)
    except PermissionError as error:
        assert isinstance(error, mmapipc.MemoryRefused) and error.errno in (1, 13), error
        say(f'{{type(error).__name__}} {{str(error).startswith(path + ": ")}} {{"read" in str(error)}}')
for access in ('read', 'copy'):
    with mmapipc.Mapping(file=path, access=access) as m:
        say(bytes(m.buf))
"""
        )
        code, out, err = child.end()
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out.decode().splitlines(), ["FileRefused True True"] * 2 + ["b'0123456789'"] * 2)

    def test_more_than_the_disk_has(self):
        path = self.file(b"0123456789")
        with self.refused(mmapipc.MemoryRefused, about=path):
            Mapping(file=path, size=2**50)
        self.assertEqual(self.content(path), b"0123456789")
        path = str(self.folder / "new")
        with self.refused(mmapipc.MemoryRefused, about=path):
            Mapping(file=path, size=2**50)
        self.assertFalse(os.path.exists(path))


class NamedFiles(MappingTest):
    """CreateFileMapping with a file and a name."""

    def test_already_exists(self):
        path = self.file(b"0123456789")
        with Mapping(self.name, file=path) as made:
            self.assertEqual((made.name, made.size, made.created), (self.name, 10, True))
            for create in (True, False):
                with Mapping(self.name, file=path, create=create) as other:
                    self.assertFalse(other.created)
                    other.buf[0] = ord("x")
                    self.assertEqual(made.buf[0], ord("x"))
        with self.refused(mmapipc.NoSuchMapping):
            Mapping(self.name, file=path, create=False)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"x123456789")
        with Mapping(self.name, 20, file=path) as made:
            self.assertTrue(made.created)
            self.assertEqual(bytes(made.buf), b"x123456789" + bytes(10))

    def test_a_killed_holder(self):
        path = self.file(b"0123456789")
        self.hold(f"m = mmapipc.Mapping(name, file={path!r})").kill()

        def created() -> bool:
            with Mapping(self.name, file=path) as made:
                return made.created

        eventually(created, "the name is new")
        self.assertTrue(self.gone())

    def test_the_name_alone(self):
        with Mapping(self.name, file=self.file(b"0123456789")):
            with self.refused(mmapipc.NameTaken, "give the file"):
                self.opened()
            with self.refused(mmapipc.NameTaken, "give the file"):
                Mapping(self.name, 10)

    def test_the_name_of_other_memory(self):
        path = str(self.folder / "new")
        with Mapping(self.name, 10):
            with self.refused(mmapipc.NameTaken, "without a file"):
                Mapping(self.name, 10, file=path)
        self.assertFalse(os.path.exists(path))

    def test_messages_begin_with_the_name(self):
        path = self.file(b"")
        with self.refused(mmapipc.InvalidSize, path):
            Mapping(self.name, file=path)
        with self.refused(mmapipc.NoSuchMapping, path + "x"):
            Mapping(self.name, file=path + "x")
        self.assertTrue(self.gone())


class OtherKinds(MappingTest):
    """ERROR_INVALID_HANDLE: the name belongs to an object of another kind."""

    def others(self) -> Iterator[str]:
        """Which kind of object is in the memory's place, one after the other."""
        place = system.place(self.name).location
        if WINDOWS:
            kernel = ctypes.WinDLL("kernel32")
            for kind, arguments in (("Mutex", (False,)), ("Event", (True, False)), ("Semaphore", (1, 1))):
                create = getattr(kernel, f"Create{kind}W")
                create.restype = ctypes.c_void_p
                handle = create(None, *arguments, place)
                self.assertTrue(handle)
                yield kind
                kernel.CloseHandle(ctypes.c_void_p(handle))
            return
        os.mkdir(place)
        yield "directory"
        os.rmdir(place)
        os.mkfifo(place, 0o600)
        yield "FIFO"
        os.unlink(place)
        precious = self.file(b"precious")
        for target in (precious, place, str(self.folder / "missing")):
            os.symlink(target, place)
            yield "symbolic link"
            os.unlink(place)
        with open(precious, "rb") as file:
            self.assertEqual(file.read(), b"precious")
        self.assertFalse(os.path.lexists(self.folder / "missing"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(place)
            yield "socket"
            os.unlink(place)

    def test_objects_of_another_kind(self):
        for kind in self.others():
            for arguments in ({"size": 10}, {"create": False}, {"file": self.file(b"x")}):
                with self.subTest(kind=kind, arguments=arguments):
                    with self.refused(mmapipc.NameTaken, system.place(self.name).location):
                        Mapping(self.name, **arguments)
            with self.subTest(kind=kind), self.refused(mmapipc.NameTaken):
                mmapipc.Sender(self.name, timeout=0)

    @unittest.skipIf(WINDOWS, "POSIX only: files in a directory")
    def test_files_that_others_could_change(self):
        place = system.place(self.name).location
        for mode, owner in ((0o606, -1), (0o660, -1), (0o600, 65534)):
            if owner >= 0 and not ROOT:
                continue
            os.close(os.open(place, os.O_CREAT, 0o600))
            os.chmod(place, mode)
            os.chown(place, owner, -1)
            for arguments in ({"size": 10}, {"create": False}):
                with self.refused(mmapipc.UnsafeMemory, place):
                    Mapping(self.name, **arguments)
            os.unlink(place)

    @unittest.skipIf(WINDOWS, "POSIX only: files in a directory")
    def test_memory_is_private(self):
        with Mapping(self.name, 10):
            self.assertEqual([file.stat().st_mode & 0o777 for file in os.scandir(self.memory)], [0o600])

    @unittest.skipIf(WINDOWS, "POSIX only: files can be locked by anybody")
    def test_a_file_that_stays_locked(self):
        from mmapipc._system.posix import locks, memory

        place = system.place(self.name).location
        with open(os.open(place, os.O_CREAT | os.O_RDWR, 0o600), "r+b", buffering=0) as file:
            self.assertTrue(locks.lock(file))
            with mock.patch.object(memory, "_MAKING", 0.05):
                with self.refused(mmapipc.MemoryRefused, place):
                    Mapping(self.name, 10)
        self.assertTrue(self.gone())


class Channels(MappingTest):
    """A name is a channel's or a mapping's: neither takes it from the other."""

    def test_the_name_of_a_channel(self):
        with self.both() as (sender, receiver):
            for arguments in ({"size": 10}, {"create": False}, {"file": self.file(b"x")}):
                with self.refused(mmapipc.NameTaken, "channel"):
                    Mapping(self.name, **arguments)
            sender.write(b"there")
            self.assertEqual(receiver.read(9), b"there")
            sender.finish()
            with self.refused(mmapipc.NameTaken, "channel"):
                Mapping(self.name, 10)
        with Mapping(self.name, 10) as made:
            self.assertTrue(made.created)

    def test_what_a_killed_channel_left(self):
        self.hold("s = mmapipc.Sender(name); s.write(b'old')").kill()

        def created() -> bool:
            with Mapping(self.name, 10) as made:
                return made.created and bytes(made.buf) == bytes(10)

        eventually(created, "the name is new") if WINDOWS else self.assertTrue(created())
        for file in os.listdir(self.memory):  # of the roles, and the bells, which the next sender takes over
            self.assertRegex(file, r"\+roles$|-bell$")
        with self.both() as (sender, receiver):
            sender.write(b"new")
            self.assertEqual(receiver.read(9), b"new")

    def test_the_name_of_a_mapping(self):
        with Mapping(self.name, 10_000) as made:
            with mock.patch.object(homes, "_LINGER", 3), self.refused(mmapipc.MemoryRefused, "not attached"):
                mmapipc.Sender(self.name, timeout=DEADLINE)
            with self.refused(mmapipc.ChannelTimeout):
                mmapipc.Receiver(self.name, timeout=0)
            made.buf[:] = noise(10_000)
            for kind in (mmapipc.Sender, mmapipc.Receiver):
                with self.refused(mmapipc.LayoutError):
                    kind(self.name, timeout=0)
            with self.opened() as other:
                self.assertEqual(bytes(other.buf[:10_000]), noise(10_000))
        with self.both() as (sender, receiver):
            sender.write(b"x")
            self.assertEqual(receiver.read(1), b"x")


class Shortage(MappingTest):
    @unittest.skipUnless(LINUX and os.path.isdir("/dev/shm"), "Linux only: /dev/shm")
    def test_more_than_the_file_system_has(self):
        space = os.statvfs(self.memory)
        with self.assertRaises(mmapipc.MemoryRefused) as caught:
            Mapping(self.name, space.f_blocks * space.f_frsize + 1)
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        self.assertEqual(os.listdir(self.memory), [])

    @unittest.skipIf(WINDOWS, "POSIX only: a limit of file descriptors")
    def test_too_few_descriptors(self):
        code = """
import resource
def lowest():
    fd = os.dup(0)
    os.close(fd)
    return fd
first = lowest()
path = sys.argv[2]
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
for how in ({'size': 10}, {'file': path}, {'file': path, 'size': 10}, {'file': path + 'new', 'size': 10}):
    for count in range(10):
        resource.setrlimit(resource.RLIMIT_NOFILE, (first + count, most))
        try:
            m = mmapipc.Mapping(name, **how)
        except mmapipc.MemoryRefused as error:
            assert error.errno == 24, error
        else:
            m.buf[0] = 1
            m.close()
            say(count)
            break
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (first + 20, most))
        assert lowest() == first
        assert not os.listdir(os.environ['MMAPIPC_DIR']), os.listdir(os.environ['MMAPIPC_DIR'])
"""
        code, out, err = self.python(code, self.file(b"x")).end()
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(len(out.split()), 4)
        self.assertNotIn(b"0", out.split())


class Errors(unittest.TestCase):
    def test_errors_are_what_people_already_catch(self):
        for ours, known in (
            (mmapipc.NoSuchMapping, FileNotFoundError),
            (mmapipc.MappingTooSmall, ValueError),
            (mmapipc.InvalidSize, ValueError),
            (mmapipc.InvalidView, ValueError),
            (mmapipc.InvalidName, ValueError),
            (mmapipc.NameTaken, FileExistsError),
            (mmapipc.FileRefused, PermissionError),
            (mmapipc.MappingExists, FileExistsError),
            (mmapipc.AlreadyLocked, RuntimeError),
        ):
            self.assertTrue(issubclass(ours, known))
            self.assertTrue(issubclass(ours, mmapipc.ChannelError))
            copy = pickle.loads(pickle.dumps(ours("name: what")))
            self.assertEqual((type(copy), str(copy)), (ours, "name: what"))
