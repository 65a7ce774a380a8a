"""`Mapping(tagname=...)`: memory of other programs, by the name that the system knows it by."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import subprocess
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import mmapipc
from mmapipc import Mapping

from .helpers import WINDOWS, Child, eventually, noise
from .test_mapping import ROOT, MappingTest, whole_pages
from .test_shortage import DROP_ROOT, LINUX

GRANULE = mmap.ALLOCATIONGRANULARITY
SHM = Path("/dev/shm")

# `multiprocessing` before 3.13 removes at exit what it has only opened, unless told not to.
SHARED_MEMORY = """
from multiprocessing import resource_tracker, shared_memory
def attached(name):
    s = shared_memory.SharedMemory(name)
    if os.name != 'nt': resource_tracker.unregister(s._name, 'shared_memory')
    return s
"""


@unittest.skipUnless(WINDOWS or LINUX and SHM.is_dir(), "Windows and Linux only: tagnames")
class TagTest(MappingTest):
    def setUp(self) -> None:
        super().setUp()
        self.tag = self.name
        self.addCleanup(self.remove, self.tag)

    def remove(self, tag: str) -> None:
        """Remove what the test has left: on POSIX that is a file."""
        with contextlib.suppress(FileNotFoundError):
            (SHM / tag).unlink()

    def gone(self) -> bool:
        try:
            Mapping(tagname=self.tag, create=False).close()
        except mmapipc.NoSuchMapping:
            return True
        return False

    @contextlib.contextmanager
    def foreign(self, size: int, mode: int = 0o600) -> Iterator[Callable[[], bytes]]:
        """Memory of the tagname that is not of our making; what it has.

        The mode is the right to read and to write, on POSIX the owner's.
        """
        content = noise(size)
        if WINDOWS:
            kernel = ctypes.WinDLL("kernel32")
            kernel.CreateFileMappingW.restype = kernel.MapViewOfFile.restype = ctypes.c_void_p
            pagefile, handle = ctypes.c_void_p(-1), None
            with self.security({0o600: "0x6", 0o400: "0x4", 0: "0"}[mode]) as security:
                handle = ctypes.c_void_p(
                    kernel.CreateFileMappingW(pagefile, security, 4, 0, size, ctypes.c_wchar_p(self.tag))
                )
            address = ctypes.c_void_p(kernel.MapViewOfFile(handle, 6, 0, 0, ctypes.c_size_t(0)))
            self.assertTrue(address.value)
            ctypes.memmove(address, content, size)
            try:
                yield lambda: ctypes.string_at(address, size)
            finally:
                kernel.UnmapViewOfFile(address)
                kernel.CloseHandle(handle)
        else:
            path = SHM / self.tag
            path.write_bytes(content)
            path.chmod(mode)
            if ROOT:
                os.chown(path, 65534, -1)
            yield path.read_bytes

    @contextlib.contextmanager
    def security(self, rights: str) -> Iterator[object]:
        """SECURITY_ATTRIBUTES that give everybody these rights, and no more."""
        descriptor = ctypes.c_void_p()
        convert = ctypes.WinDLL("advapi32").ConvertStringSecurityDescriptorToSecurityDescriptorW
        dacl = f"D:(A;;{rights};;;WD)" if rights != "0" else "D:"
        self.assertTrue(convert(ctypes.c_wchar_p(dacl), 1, ctypes.byref(descriptor), None))

        class Attributes(ctypes.Structure):
            _fields_ = (
                ("length", ctypes.c_ulong),
                ("descriptor", ctypes.c_void_p),
                ("inherit", ctypes.c_int),
            )

        yield ctypes.byref(Attributes(ctypes.sizeof(Attributes), descriptor, False))
        ctypes.WinDLL("kernel32").LocalFree(descriptor)

    def nobody(self, code: str, imports: str = "") -> Child:
        """Run this as not root, but as who owns what `foreign` makes; he may not find our modules."""
        os.chmod(self.memory, 0o777)
        return self.python(
            f"{imports}\n{DROP_ROOT if ROOT else ''}\ntag = {self.tag!r}\n{code}", stdin=subprocess.PIPE
        )


class Tagged(TagTest):
    def test_the_name_as_it_is(self) -> None:
        with Mapping(tagname=self.tag, size=100) as made:
            self.assertTrue(made.created)
            self.assertEqual((made.name, made.size, bytes(made.buf)), (self.tag, 100, bytes(100)))
            made.buf[:5] = b"hello"
            if WINDOWS:
                with mmap.mmap(-1, 100, tagname=self.tag, access=mmap.ACCESS_READ) as other:
                    self.assertEqual(other[:5], b"hello")
            else:
                self.assertEqual((SHM / self.tag).read_bytes(), b"hello" + bytes(95))
                self.assertEqual((SHM / self.tag).stat().st_mode & 0o777, 0o600)
            for how in ({"size": 100}, {"size": 50}, {"create": False}):
                with Mapping(tagname=self.tag, **how) as other:
                    self.assertFalse(other.created)
                    self.assertEqual(other.size, how.get("size") or whole_pages(100))
                    self.assertEqual(bytes(other.buf[:5]), b"hello")
            # The name of ours is another one.
            with Mapping(self.name, 10) as named:
                self.assertTrue(named.created)
                named.buf[0] = 7
                self.assertEqual(made.buf[0], ord("h"))
            made.unlink()
        self.assertTrue(self.gone())

    def test_how_long_it_lives(self) -> None:
        # On Windows as long as somebody has it open; on POSIX until it is unlinked.
        Mapping(tagname=self.tag, size=100).close()
        self.hold(f"m = mmapipc.Mapping(tagname={self.tag!r}, size=100); m.buf[0] = 7").kill()
        if WINDOWS:
            eventually(self.gone, "the name is gone")
            return
        with Mapping(tagname=self.tag, create=False) as made:
            self.assertEqual((made.size, made.buf[0]), (100, 7))
        made.unlink()
        self.assertTrue(self.gone())

    def test_what_others_made_stays_as_it_is(self) -> None:
        with self.foreign(5000) as content:
            before = content()
            for access in ("write", "read", "copy"):
                for how in ({"create": False}, {"size": 4000}, {"create": False, "offset": 0, "length": 7}):
                    with Mapping(tagname=self.tag, access=access, **how) as other:
                        self.assertFalse(other.created)
                        self.assertEqual(bytes(other.buf[:7]), before[:7])
                        with other.lock(timeout=0):
                            pass
                    self.assertEqual(content(), before)
            with Mapping(tagname=self.tag, create=False) as other:
                self.assertEqual(other.size, whole_pages(5000))
                other.buf[3] = before[3] ^ 255
                self.assertEqual(content()[3], before[3] ^ 255)
            self.assertFalse(self.gone())

    def test_unlinked(self) -> None:
        made = Mapping(tagname=self.tag, size=100)
        other = Mapping(tagname=self.tag, create=False)
        made.close()
        made.unlink()
        other.buf[0] = 7
        with other.lock(timeout=0):
            pass
        if WINDOWS:
            made.unlink()
        else:
            with self.refused(mmapipc.NoSuchMapping):
                made.unlink()
            with Mapping(tagname=self.tag, size=50) as another:
                self.assertTrue(another.created)
                for old in (made, other):
                    with self.refused(mmapipc.NoSuchMapping, "other memory"):
                        old.unlink()
                another.unlink()
        other.close()
        self.assertTrue(self.gone())
        for how in ({"name": self.name, "size": 10}, {"file": self.file(b"x")}):
            with Mapping(**how) as made, self.assertRaises(ValueError):
                made.unlink()

    def test_it_was_to_be_new(self) -> None:
        with self.foreign(100, 0):
            with self.refused(mmapipc.MappingExists):
                Mapping(tagname=self.tag, size=100, exist_ok=False)
        self.assertTrue(WINDOWS or (SHM / self.tag).exists())
        self.remove(self.tag)
        with Mapping(tagname=self.tag, size=100, exist_ok=False) as made:
            self.assertTrue(made.created)
            with self.refused(mmapipc.MappingExists):
                Mapping(tagname=self.tag, size=100, exist_ok=False)

    def test_exactly_one_makes_it(self) -> None:
        code = f"""
say('ready'); sys.stdin.readline()
m = mmapipc.Mapping(tagname={self.tag!r}, size=1000)
say((m.created, m.size))
sys.stdin.readline()
"""
        many = [self.python(code, stdin=subprocess.PIPE) for _ in range(6)]
        for child in many:
            self.assertEqual(child.line(), "ready")
        for child in many:
            child.feed(b"\n")
        self.assertEqual(sorted(child.line() for child in many), ["(False, 1000)"] * 5 + ["(True, 1000)"])
        for child in many:
            child.end_input()
            self.assertEqual(child.end()[0], 0)

    def test_views(self) -> None:
        content = noise(2 * GRANULE)
        with Mapping(tagname=self.tag, size=2 * GRANULE) as made:
            made.buf[:] = content
            for access in ("write", "read", "copy"):
                with Mapping(tagname=self.tag, create=False, access=access, offset=GRANULE, length=9) as view:
                    self.assertEqual(bytes(view.buf), content[GRANULE : GRANULE + 9])
                    view.flush()

    def test_names_that_are_not_ascii(self) -> None:
        for tag in (f"{self.tag}-é", f"{self.tag}-日本語", f"{self.tag}-Жé"):
            self.addCleanup(self.remove, tag)
            with Mapping(tagname=tag, size=10) as made:
                made.buf[0] = 7
                with Mapping(tagname=tag, create=False, access="read") as other:
                    self.assertEqual((other.name, other.buf[0]), (tag, 7))
                with self.assertRaises(mmapipc.NoSuchMapping):  # as the ANSI code page would have it
                    Mapping(tagname=tag.encode("ascii", "replace").decode(), create=False)
                with made.lock(timeout=0):
                    pass

    @unittest.skipUnless(WINDOWS, "Windows only: prefixes")
    def test_prefixes(self) -> None:
        for one, same in ((f"Local\\{self.tag}", self.tag), (f"Global\\{self.tag}", f"Global\\{self.tag}")):
            with Mapping(tagname=one, size=10) as made, Mapping(tagname=same, create=False) as other:
                made.buf[0] = 7
                self.assertEqual(other.buf[0], 7)

    @unittest.skipIf(WINDOWS, "POSIX only: a slash may come first")
    def test_a_slash(self) -> None:
        with (
            Mapping(tagname=f"/{self.tag}", size=10) as made,
            Mapping(tagname=self.tag, create=False) as other,
        ):
            made.buf[0] = 7
            self.assertEqual((made.name, other.buf[0]), (f"/{self.tag}", 7))

    @unittest.skipUnless(WINDOWS, "Windows only: a file's mapping has a tagname too")
    def test_of_a_file(self) -> None:
        path = self.file(b"0123456789")
        with Mapping(tagname=self.tag, file=path) as made:
            self.assertTrue(made.created)
            with Mapping(tagname=self.tag, create=False) as other:  # as a program that knows the name only
                self.assertEqual(bytes(other.buf[:10]), b"0123456789")
                other.buf[0] = ord("x")
            self.assertEqual(made.buf[0], ord("x"))

    @unittest.skipIf(WINDOWS, "POSIX only: a file's mapping has no tagname")
    def test_not_of_a_file(self) -> None:
        with self.refused(mmapipc.InvalidName, "Windows"):
            Mapping(tagname=self.tag, file=self.file(b"0123456789"))


class MultiprocessingSharedMemory(TagTest):
    """`multiprocessing.shared_memory` at the other end: it knows nothing of us."""

    def test_what_it_makes(self) -> None:
        child = self.python(
            SHARED_MEMORY + "s = shared_memory.SharedMemory(name, create=True, size=5000)\n"
            "s.buf[:5] = b'hello'; say(s.name); sys.stdin.readline()\n"
            "say(bytes(s.buf[4995:5000])); s.close(); s.unlink()",
            stdin=subprocess.PIPE,
        )
        self.assertEqual(child.line(), self.tag)
        with Mapping(tagname=self.tag, create=False) as made:
            self.assertEqual((made.size, bytes(made.buf[:5])), (whole_pages(5000), b"hello"))
            made.buf[4995:5000] = b"world"
        with Mapping(tagname=self.tag, create=False, access="read") as made:
            child.feed(b"\n")
            self.assertEqual(child.line(), "b'world'")
            self.assertEqual(child.end(), (0, b"", ""))
            self.assertEqual(bytes(made.buf[:5]), b"hello")  # also after that
        self.assertTrue(self.gone())

    def test_what_we_make(self) -> None:
        with Mapping(tagname=self.tag, size=5000) as made:
            made.buf[:5] = b"hello"
            child = self.python(
                SHARED_MEMORY + "s = attached(name)\n"
                "say((s.size, bytes(s.buf[:5]))); s.buf[4995:5000] = b'world'; s.close()"
            )
            self.assertEqual(child.line(), f"({whole_pages(5000)}, b'hello')")
            self.assertEqual(child.end(), (0, b"", ""))
            self.assertEqual(bytes(made.buf[4995:]), b"world")
            made.unlink()
        self.assertTrue(self.gone())

    def test_it_unlinks_what_we_made(self) -> None:
        with Mapping(tagname=self.tag, size=100) as made:
            child = self.python(SHARED_MEMORY + "s = shared_memory.SharedMemory(name); s.close(); s.unlink()")
            self.assertEqual(child.end(), (0, b"", ""))
            made.buf[0] = 7
            if not WINDOWS:
                with self.refused(mmapipc.NoSuchMapping):
                    made.unlink()


class Rights(TagTest):
    """Who may only read, and who may do nothing."""

    READS = """
for access in ('read', 'copy'):
    m = mmapipc.Mapping(tagname=tag, create=False, access=access)
    view = m.buf[:9]
    say((m.buf.readonly, bytes(view)))
    try:
        m.close()
    except BufferError:
        say('in use')
    if access == 'copy':
        m.buf[0] ^= 255
    with m.lock(timeout=0):
        pass
    view.release()
    m.close()
with mmapipc.Mapping(tagname=tag, size=100, access='read') as m:
    say(m.created)
"""
    REFUSED = """
for access in ({}):
    for how in ({{'create': False}}, {{'size': 10}}):
        try:
            mmapipc.Mapping(tagname=tag, access=access, **how)
        except mmapipc.ChannelError as error:
            kind, text = type(error).__name__, str(error)
            say(f"{{kind}} {{error.errno}} {{text.startswith(tag + ': ')}} {{text[len(tag):]}}")
"""

    def test_the_right_to_read_is_enough(self) -> None:
        with self.foreign(5000, 0o400) as content:
            before = content()
            child = self.nobody(self.READS)
            for readonly in (True, False):
                self.assertEqual(child.line(), str((readonly, before[:9])))
                self.assertEqual(child.line(), "in use")
            self.assertEqual((child.line(), child.end()), ("False", (0, b"", "")))
            self.assertEqual(content(), before)
            child = self.nobody(self.REFUSED.format("'write',"))
            for _ in range(2):
                self.assertRegex(child.line(), r"^FileRefused 13 True .*access='read'")
            self.assertEqual(child.end(), (0, b"", ""))

    @unittest.skipUnless(WINDOWS, "Windows only: mmap opens for reading what it may only read, elsewhere")
    def test_mmap_could_not(self) -> None:
        with self.foreign(5000, 0o400), self.assertRaises(PermissionError):
            mmap.mmap(-1, 5000, tagname=self.tag, access=mmap.ACCESS_READ)

    def test_no_access(self) -> None:
        with self.foreign(100, 0):
            child = self.nobody(self.REFUSED.format("'write', 'read', 'copy'"))
            for _ in range(6):
                self.assertRegex(child.line(), r"^FileRefused 13 True .*denied")
            self.assertEqual(child.end(), (0, b"", ""))

    def test_a_slice_keeps_what_may_only_be_read(self) -> None:
        with self.foreign(5000, 0o400 if WINDOWS else 0o600) as content:
            with self.assertRaises(KeyError):
                with Mapping(tagname=self.tag, create=False, access="read") as made:
                    kept = made.buf[:9]
                    raise KeyError
            del made
            before = content()
        self.remove(self.tag)
        self.assertTrue(WINDOWS or self.gone())
        self.assertEqual(bytes(kept), before[:9])
        del kept
        self.assertTrue(self.gone())


class Hostile(TagTest):
    """One error each, and the same on both systems."""

    def test_smaller(self) -> None:
        with self.foreign(100) as content:
            before = content()
            for how in ({}, {"create": False}, {"access": "read"}, {"access": "copy"}):
                with self.refused(mmapipc.MappingTooSmall, str(whole_pages(100)), "100001"):
                    Mapping(tagname=self.tag, size=100_001, **how)
            with self.refused(mmapipc.InvalidView):
                Mapping(tagname=self.tag, create=False, length=100_001)
            self.assertEqual(content(), before)

    def test_larger(self) -> None:
        with self.foreign(5 * GRANULE) as content, Mapping(tagname=self.tag, size=100) as other:
            self.assertEqual((other.size, bytes(other.buf)), (100, content()[:100]))
            with Mapping(tagname=self.tag, create=False) as whole:
                self.assertEqual(whole.size, 5 * GRANULE)

    def test_missing(self) -> None:
        for access in ("write", "read", "copy"):
            for size in (0, 100):
                with self.refused(mmapipc.NoSuchMapping):
                    Mapping(tagname=self.tag, size=size, create=False, access=access)

    def test_sizes(self) -> None:
        for size in (0, -1, 2**62 + 1):
            with self.refused(mmapipc.InvalidSize, str(size)):
                Mapping(tagname=self.tag, size=size)
        with self.refused(mmapipc.MemoryRefused):
            Mapping(tagname=self.tag, size=2**50)
        self.assertTrue(self.gone())

    def test_other_kinds(self) -> None:
        for kind in self.others():
            for how in ({"size": 10}, {"create": False}, {"create": False, "access": "read"}):
                with self.subTest(kind=kind, how=how), self.refused(mmapipc.NameTaken):
                    Mapping(tagname=self.tag, **how)
            with self.subTest(kind=kind), self.assertRaises(FileExistsError):
                Mapping(tagname=self.tag, size=10, exist_ok=False)

    def others(self) -> Iterator[str]:
        if WINDOWS:
            kernel = ctypes.WinDLL("kernel32")
            for kind, arguments in (("Mutex", (False,)), ("Event", (True, False)), ("Semaphore", (1, 1))):
                create = getattr(kernel, f"Create{kind}W")
                create.restype = ctypes.c_void_p
                handle = create(None, *arguments, self.tag)
                yield kind
                kernel.CloseHandle(ctypes.c_void_p(handle))
            return
        path = SHM / self.tag
        path.mkdir()
        yield "directory"
        path.rmdir()
        os.mkfifo(path)
        yield "FIFO"
        path.unlink()
        for target in (self.file(b"precious"), self.folder / "missing"):
            path.symlink_to(target)
            yield "symbolic link"
            path.unlink()
        self.assertFalse((self.folder / "missing").exists())

    def test_names(self) -> None:
        wrong = ["", "a\0b", "x" * 300]
        wrong += (
            ["Global\\", "a\\b", "C:\\x"] if WINDOWS else ["/", ".", "..", "a/b", "../a", "é" * 128, "\ud800"]
        )
        for tag in wrong:
            for how in ({"size": 10}, {"create": False}):
                with self.subTest(tag=tag), self.assertRaises(mmapipc.InvalidName) as caught:
                    Mapping(tagname=tag, **how)
                self.assertIs(type(caught.exception), mmapipc.InvalidName)

    @unittest.skipIf(WINDOWS, "POSIX only: memory has its size from the start")
    def test_memory_without_a_size_yet(self) -> None:
        (SHM / self.tag).touch()
        with self.refused(mmapipc.InvalidSize, "empty"):
            Mapping(tagname=self.tag, create=False)
        with self.refused(mmapipc.MappingTooSmall):
            Mapping(tagname=self.tag, size=10)
        self.assertEqual((SHM / self.tag).stat().st_size, 0)

    @unittest.skipIf(WINDOWS, "POSIX only: memory can be cut short")
    def test_memory_that_is_cut_short(self) -> None:
        # As the documentation says: SIGBUS.  A look at the size before each access would not be in time.
        child = self.hold(f"m = mmapipc.Mapping(tagname={self.tag!r}, size={3 * GRANULE}); m.buf[-1]")
        os.truncate(SHM / self.tag, 100)
        child.kill()
        with self.refused(mmapipc.MappingTooSmall, "100"):
            Mapping(tagname=self.tag, size=GRANULE)
        with Mapping(tagname=self.tag, create=False) as made:
            self.assertEqual(made.size, 100)

    @unittest.skipUnless(WINDOWS, "Windows only: pages that are only reserved")
    def test_reserved_pages(self) -> None:
        kernel = ctypes.WinDLL("kernel32")
        kernel.CreateFileMappingW.restype = ctypes.c_void_p
        pagefile, reserve = ctypes.c_void_p(-1), 0x4000000
        handle = kernel.CreateFileMappingW(
            pagefile, None, 4 | reserve, 0, 5 * GRANULE, ctypes.c_wchar_p(self.tag)
        )
        try:
            for how in ({"create": False}, {"size": 100}):
                with self.refused(mmapipc.MemoryRefused, "SEC_RESERVE"):
                    Mapping(tagname=self.tag, **how)
        finally:
            kernel.CloseHandle(ctypes.c_void_p(handle))

    @unittest.skipIf(WINDOWS, "POSIX only: the directory of shared memory")
    def test_a_system_without_a_directory(self) -> None:
        from mmapipc._system.posix import tagged

        with mock.patch.object(tagged, "_DIRECTORY", str(self.folder / "missing")):
            with self.refused(mmapipc.MemoryRefused, "use a name"):
                Mapping(tagname=self.tag, size=10)
