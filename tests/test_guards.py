"""`Mapping.lock`: who has it, who waits, and what becomes of it when its holder dies."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import unittest
from collections.abc import Iterator

import mmapipc
from mmapipc import Mapping

from .helpers import DEADLINE, WINDOWS, Background, Child, eventually
from .test_mapping import ROOT
from .test_tagnames import SHM, TagTest

HOW = "how = eval(sys.argv[2])\n"


class GuardTest(TagTest):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.check_marks)

    def check_marks(self) -> None:
        # Each test releases what it locks.
        self.assertEqual(os.listdir(self.memory), [])

    def kinds(self) -> Iterator[tuple[Mapping, dict[str, object]]]:
        """Memory by name, by tagname and of a file; and how to open it."""
        path = self.file(bytes(100))
        for how in (
            {"name": self.name},
            {"tagname": self.tag},
            {"file": path},
            {"name": self.name, "file": path},
        ):
            with Mapping(size=100, **how) as made:
                yield made, how
                if "tagname" in how:
                    made.unlink()

    def locking(self, how: dict[str, object], code: str, stdin: int | None = subprocess.PIPE) -> Child:
        """A child process that has run this with the memory open."""
        return self.python(HOW + "m = mmapipc.Mapping(**how, create=False)\n" + code, repr(how), stdin=stdin)

    def holder(self, how: dict[str, object]) -> Child:
        """A child process that has the lock, until its input ends."""
        child = self.locking(how, "with m.lock():\n say('locked'); sys.stdin.read()")
        self.assertEqual(child.line(), "locked")
        return child

    def is_locked(self, made: Mapping) -> bool:
        """Whether another process or thread has the lock."""
        try:
            with made.lock(timeout=0) as guard:
                self.assertFalse(guard.abandoned)
        except mmapipc.ChannelTimeout:
            return True
        return False


class Exclusion(GuardTest):
    def test_one_at_a_time(self) -> None:
        # Each adds one in two steps, and lets the others run in between: without the lock some would be lost.
        code = """
import time
say('ready'); sys.stdin.readline()
for _ in range(50):
    with m.lock(timeout=60) as guard:
        count = int.from_bytes(m.buf[:4], 'little')
        time.sleep(0)
        m.buf[:4] = (count + 1).to_bytes(4, 'little')
        assert not guard.abandoned
m.close()
"""
        for made, how in self.kinds():
            made.buf[:4] = bytes(4)
            many = [self.locking(how, code) for _ in range(3)]
            for child in many:
                self.assertEqual(child.line(), "ready")
            for child in many:
                child.feed(b"\n")
            for child in many:
                self.assertEqual(child.end(), (0, b"", ""))
            self.assertEqual(int.from_bytes(made.buf[:4], "little"), 150)

    def test_somebody_else_has_it(self) -> None:
        for made, how in self.kinds():
            child = self.holder(how)
            for timeout in (0, 0.05):
                who = "somebody else" if WINDOWS else f"pid {child.pid}"
                words = (f"{who} still has the lock", f" {timeout} s")
                with (
                    self.refused(mmapipc.ChannelTimeout, *words, about=made._label),
                    made.lock(timeout=timeout),
                ):
                    self.fail("two have it")
            with Mapping(**how, create=False, access="read") as reader:
                self.assertTrue(self.is_locked(reader))
            child.end_input()
            self.assertEqual(child.end()[0], 0)
            self.assertFalse(self.is_locked(made))

    def test_it_waits_until_the_lock_is_free(self) -> None:
        for made, how in self.kinds():
            for timeout in (None, DEADLINE):
                child = self.holder(how)

                def enter() -> bool:
                    with made.lock(timeout=timeout) as guard:  # noqa: B023
                        return guard.abandoned

                waiting = Background(enter)
                child.end_input()
                self.assertIs(waiting.result(), False)
                self.assertEqual(child.end()[0], 0)

    def test_threads(self) -> None:
        for made, how in self.kinds():
            with Mapping(**how, create=False) as other, made.lock():
                for same in (made, other):
                    self.assertTrue(Background(lambda same=same: self.is_locked(same)).result())
            self.assertFalse(Background(lambda: self.is_locked(made)).result())

            made.buf[0] = 0

            def add() -> None:
                for _ in range(50):
                    with made.lock(timeout=DEADLINE):  # noqa: B023
                        count = made.buf[0]  # noqa: B023
                        threading.Event().wait(0.0001)
                        made.buf[0] = count + 1  # noqa: B023

            for thread in [Background(add) for _ in range(3)]:
                thread.result()
            self.assertEqual(made.buf[0], 150)

    def test_a_thread_that_locks_twice(self) -> None:
        for made, how in self.kinds():
            with Mapping(**how, create=False) as other, made.lock(timeout=0) as guard:
                for again in (made.lock(), made.lock(timeout=0), other.lock(), guard):
                    with self.refused(mmapipc.AlreadyLocked, "this thread", about=made._label), again:
                        self.fail("twice")
                child = self.locking(
                    how, "try: m.lock(timeout=0).__enter__()\nexcept TimeoutError: say('locked')"
                )
                self.assertEqual(child.line(), "locked")  # still
                self.assertEqual(child.end()[0], 0)
            self.assertFalse(self.is_locked(made))
            with guard, self.assertRaises(mmapipc.AlreadyLocked), guard:
                pass

    def test_an_exception_gives_it_back(self) -> None:
        for made, how in self.kinds():
            with self.assertRaises(KeyError), made.lock():
                raise KeyError
            with Mapping(**how, create=False) as other:
                self.assertFalse(self.is_locked(other))
            with made.lock():
                made.close()
            with self.assertRaises(ValueError), made.lock():
                pass

    def test_each_memory_has_its_own(self) -> None:
        with Mapping(self.name, 100) as named, Mapping(tagname=self.tag, size=100) as tagged:
            with Mapping(file=self.file(bytes(100))) as of_file, Mapping(size=100) as another:
                with (
                    named.lock(timeout=0),
                    tagged.lock(timeout=0),
                    of_file.lock(timeout=0),
                    another.lock(timeout=0),
                ):
                    pass
            tagged.unlink()

    def test_the_lock_of_a_file_is_the_files(self) -> None:
        path = self.file(bytes(100))
        link = str(self.folder / "link")
        os.link(path, link)
        with Mapping(file=path) as made, open(path, "rb") as file:
            child = self.holder({"file": link})
            for how in ({"file": file, "access": "read"}, {"file": path, "name": self.name}):
                with Mapping(**how) as other:
                    self.assertTrue(self.is_locked(other))
            child.end_input()
            self.assertEqual(child.end()[0], 0)
            self.assertFalse(self.is_locked(made))

    def test_timeouts(self) -> None:
        with Mapping(self.name, 10) as made:
            for wrong in (-1, float("nan"), "x"):
                with self.refused(ValueError, "timeout"):
                    made.lock(timeout=wrong)

    def test_memory_that_is_unlinked(self) -> None:
        with Mapping(tagname=self.tag, size=100) as made:
            child = self.holder({"tagname": self.tag})
            made.unlink()
            self.assertTrue(self.is_locked(made))
            child.end_input()
            self.assertEqual(child.end()[0], 0)
            self.assertFalse(self.is_locked(made))


class Deaths(GuardTest):
    def test_the_next_one_is_told(self) -> None:
        for made, how in self.kinds():
            # Made has never locked it.
            for _ in range(2):
                self.holder(how).kill()
                with made.lock(timeout=DEADLINE) as guard:
                    self.assertTrue(guard.abandoned)
                with made.lock(timeout=0) as guard:
                    self.assertFalse(guard.abandoned)
            # So is who waits.
            child = self.holder(how)

            def enter() -> bool:
                with made.lock(timeout=DEADLINE) as guard:  # noqa: B023
                    return guard.abandoned

            waiting = Background(enter)
            child.kill()
            self.assertIs(waiting.result(), True)

    def test_new_memory_knows_nothing_of_it(self) -> None:
        for how in ({"name": self.name}, {"tagname": self.tag}):
            made = Mapping(size=100, **how)
            child = self.holder(how)
            made.close()
            child.kill()
            if "tagname" in how:
                made.unlink()
            eventually(lambda: self.made_anew(how), "the name is new")  # noqa: B023

    def made_anew(self, how: dict[str, object]) -> bool:
        with Mapping(size=100, **how) as made:
            if made.created:
                with made.lock(timeout=0) as guard:
                    self.assertFalse(guard.abandoned)
            if "tagname" in how:
                made.unlink()
            return made.created

    @unittest.skipIf(WINDOWS, "POSIX only: a handler that raises")
    def test_who_is_interrupted_while_it_waits(self) -> None:
        for made, how in self.kinds():
            with made.lock():
                for timeout in (None, 60):
                    child = self.locking(
                        how,
                        f"try:\n say('waits')\n with m.lock(timeout={timeout}): pass\n"
                        "except KeyboardInterrupt: say('interrupted')\nsys.stdin.read()",
                    )
                    self.assertEqual(child.line(), "waits")
                    os.kill(child.pid, signal.SIGINT)
                    self.assertEqual(child.line(), "interrupted")
                    child.end_input()
                    self.assertEqual(child.end()[0], 0)
            self.assertFalse(self.is_locked(made))


@unittest.skipIf(WINDOWS, "POSIX only: fork")
class Forks(GuardTest):
    def test_a_child_does_not_inherit_it(self) -> None:
        for leave in ("os._exit(0)", "sys.exit()"):
            for made, how in self.kinds():
                code = f"""
with m.lock():
    pid = os.fork()
    if not pid:
        {leave}
    os.waitpid(pid, 0)
    say('locked'); sys.stdin.readline()
say('free'); sys.stdin.read()
"""
                child = self.locking(how, code)
                self.assertEqual(child.line(), "locked")
                self.assertTrue(self.is_locked(made))
                child.feed(b"\n")
                self.assertEqual(child.line(), "free")
                self.assertFalse(self.is_locked(made))
                child.end_input()
                self.assertEqual(child.end()[0], 0)

    def test_a_child_does_not_keep_it(self) -> None:
        for made, how in self.kinds():
            code = """
view = m.buf[:5]
with m.lock():
    pid = os.fork()
    if not pid:
        sys.stdin.read()  # as long as the test goes on
        os._exit(0)
    say(pid)
    os.waitpid(pid, 0)
"""
            parent = self.locking(how, code)
            child = int(parent.line())
            try:
                parent.kill()
                with made.lock(timeout=DEADLINE) as guard:
                    self.assertTrue(guard.abandoned)
            finally:
                os.kill(child, signal.SIGKILL)

    def test_a_child_may_lock(self) -> None:
        for _, how in self.kinds():
            code = """
with m.lock():
    pid = os.fork()
    if not pid:
        with mmapipc.Mapping(**how, create=False) as mine:
            try:
                with mine.lock(timeout=0): pass
            except TimeoutError:
                os._exit(7)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
            child = self.locking(how, code)
            self.assertEqual(child.line(), "7")
            self.assertEqual(child.end()[0], 0)


@unittest.skipIf(WINDOWS, "POSIX only: locks on files")
class Rights(GuardTest):
    CODE = """
with mmapipc.Mapping(tagname=tag, access='read', create=False) as m:
    with m.lock(timeout=60) as guard:
        say(f'locked {guard.abandoned}'); sys.stdin.readline()
"""

    def test_who_may_only_read_waits_for_writers(self) -> None:
        with self.foreign(100, 0o400):
            os.chmod(SHM / self.tag, 0o400)
            first, second = (self.nobody(self.CODE) for _ in range(2))
            # With each other they share it, unless root is to be kept out.
            self.assertEqual((first.line(), second.line()), ("locked False", "locked False"))
            if ROOT:
                with Mapping(tagname=self.tag, create=False) as writer:
                    self.assertTrue(self.is_locked(writer))
                    for reader in (first, second):
                        reader.feed(b"\n")
                        self.assertEqual(reader.end()[0], 0)
                    self.assertFalse(self.is_locked(writer))
                    with writer.lock():
                        reader = self.nobody(self.CODE.replace("60", "0"))
                        self.assertIn("ChannelTimeout", reader.end()[2])

    def test_who_may_only_read_is_told_too(self) -> None:
        with self.foreign(100, 0o600):
            # The writer is the same user's, while he may write.
            writer = self.nobody(self.CODE.replace("'read'", "'write'"))
            self.assertEqual(writer.line(), "locked False")
            writer.kill()
            os.chmod(SHM / self.tag, 0o400)
            for _ in range(2):  # he cannot repair it, so that stays to be told
                reader = self.nobody(self.CODE)
                self.assertEqual(reader.line(), "locked True")
                reader.end_input()
                self.assertEqual(reader.end()[0], 0)
            os.chmod(SHM / self.tag, 0o600)
            for told in (True, False):
                writer = self.nobody(self.CODE.replace("'read'", "'write'"))
                self.assertEqual(writer.line(), f"locked {told}")
                writer.end_input()
                self.assertEqual(writer.end()[0], 0)

    def test_there_is_no_mutex_with_a_tagname(self) -> None:
        with Mapping(self.name, 10) as made:
            with (
                self.refused(mmapipc.InvalidName, "Windows", about="SM_Mutex"),
                made.lock(tagname="SM_Mutex"),
            ):
                pass

    def test_the_mark_cannot_be_made(self) -> None:
        with Mapping(file=self.file(b"x")) as made:
            before = os.environ["MMAPIPC_DIR"]
            os.environ["MMAPIPC_DIR"] = str(self.folder / "missing")
            try:
                words = (f"{self.folder / 'missing'} does not exist", "MMAPIPC_DIR")
                with self.refused(mmapipc.MemoryRefused, *words, about=made._label), made.lock():
                    pass
            finally:
                os.environ["MMAPIPC_DIR"] = before
            self.assertFalse(self.is_locked(made))


@unittest.skipUnless(WINDOWS, "Windows only: mutexes")
class Mutexes(GuardTest):
    # A program that knows nothing of us.
    FOREIGN = """
import ctypes
kernel = ctypes.WinDLL('kernel32'); kernel.CreateMutexW.restype = kernel.OpenMutexW.restype = ctypes.c_void_p
"""

    def setUp(self) -> None:
        super().setUp()
        self.mutex = f"{self.name}-mutex"

    def foreign_mutex(self, code: str) -> Child:
        child = self.python(f"{self.FOREIGN}\nmutex = {self.mutex!r}\n{code}", stdin=subprocess.PIPE)
        self.assertEqual(child.line(), "there", child.process.poll() and child.end())
        return child

    def test_of_another_program(self) -> None:
        child = self.foreign_mutex(
            "h = ctypes.c_void_p(kernel.CreateMutexW(None, True, mutex))\n"
            "say('there'); sys.stdin.readline()\n"
            "kernel.ReleaseMutex(h); say('released'); sys.stdin.readline()\n"
            "say(kernel.WaitForSingleObject(h, 0)); sys.stdin.read()"
        )
        with Mapping(tagname=self.tag, size=100) as made:
            with self.assertRaises(mmapipc.ChannelTimeout), made.lock(timeout=0, tagname=self.mutex):
                self.fail("two have it")
            with made.lock(timeout=0):  # is another one
                pass
            child.feed(b"\n")
            self.assertEqual(child.line(), "released")
            with made.lock(timeout=0, tagname=self.mutex) as guard:
                self.assertFalse(guard.abandoned)
                with self.assertRaises(mmapipc.AlreadyLocked), made.lock(tagname=self.mutex):
                    pass
                child.feed(b"\n")
                self.assertEqual(child.line(), "258")  # WAIT_TIMEOUT

    def test_its_death_is_told(self) -> None:
        code = "h = kernel.CreateMutexW(None, True, mutex); say('there'); sys.stdin.read()"
        with Mapping(self.name, 100) as made:
            with made.lock(tagname=self.mutex):
                pass  # from now on it is open here
            child = self.foreign_mutex(code.replace("True", "False").replace(
                "say", "kernel.WaitForSingleObject(ctypes.c_void_p(h), -1); say", 1))
            child.kill()
            with made.lock(timeout=DEADLINE, tagname=self.mutex) as guard:
                self.assertTrue(guard.abandoned)
            with made.lock(timeout=0, tagname=self.mutex) as guard:
                self.assertFalse(guard.abandoned)

    def test_another_program_opens_ours(self) -> None:
        with Mapping(tagname=self.tag, size=100) as made:
            with made.lock(tagname=self.mutex):
                made.buf[0] = 7
            for mutex in (self.mutex, f"{self.tag}+lock"):
                child = self.foreign_mutex(
                    f"h = ctypes.c_void_p(kernel.OpenMutexW(0x100000, False, {mutex!r}))\n"
                    "assert kernel.WaitForSingleObject(h, 0) == 0; say('there'); sys.stdin.readline()\n"
                    "kernel.ReleaseMutex(h); say('released')"
                )
                given = {"tagname": mutex} if mutex == self.mutex else {}
                with self.assertRaises(mmapipc.ChannelTimeout), made.lock(timeout=0, **given):
                    self.fail("two have it")
                child.feed(b"\n")
                self.assertEqual(child.line(), "released")
                with made.lock(timeout=DEADLINE, **given):
                    pass

    def test_rights(self) -> None:
        kernel = ctypes.WinDLL("kernel32")
        kernel.CreateMutexW.restype = ctypes.c_void_p
        with Mapping(self.name, 10) as made:
            for rights, error in (
                ("0x100001", None),
                ("0x100000", mmapipc.FileRefused),
                ("0", mmapipc.FileRefused),
            ):
                with self.security(rights) as security:
                    handle = ctypes.c_void_p(kernel.CreateMutexW(security, False, self.mutex))
                    try:
                        if error is None:
                            with made.lock(timeout=0, tagname=self.mutex):
                                pass
                        else:
                            with self.refused(error, about=self.mutex):
                                made.lock(tagname=self.mutex).__enter__()
                    finally:
                        kernel.CloseHandle(handle)
                self.mutex += "x"

    def test_other_kinds_and_names(self) -> None:
        with Mapping(self.name, 10) as made:
            with Mapping(tagname=self.tag, size=10):
                with self.refused(mmapipc.NameTaken, "another kind", about=self.tag):
                    made.lock(tagname=self.tag).__enter__()
            for wrong in ("", "a\\b", "x" * 300):
                with self.assertRaises(mmapipc.InvalidName):
                    made.lock(tagname=wrong).__enter__()
