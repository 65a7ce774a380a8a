"""Locks, roles and private files: who may have what, what an error means, what is left untouched."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import mmapipc
from mmapipc import inspection
from mmapipc._system import contract, system
from mmapipc._system.names import Place

from .helpers import DEADLINE, WAITS, WINDOWS, ChannelTest, open_handles

if WINDOWS:
    import ctypes

    from mmapipc._system.windows import memory, roles, win32
else:
    import fcntl

    from mmapipc._system.posix import memory, roles


class Contract(unittest.TestCase):
    def test_this_system_has_everything_under_the_same_names(self) -> None:
        for name, wanted in vars(contract.System).items():
            if callable(wanted) and not name.startswith("_"):
                with self.subTest(name=name):
                    self.check_parameters(wanted, getattr(system, name))
        for name in contract.System.__annotations__:
            self.assertTrue(hasattr(system, name), name)

    def test_so_have_its_objects(self) -> None:
        for protocol, kind in (
            (contract.Memory, memory.Memory),
            (contract.View, memory.View),
            (contract.Guard, memory.Guard),
            (contract.Observed, memory.Observed),
            (contract.ChannelRoles, system.channel_roles),
            (contract.Roles, system.file_roles),
            (contract.Claim, roles.Claim),
        ):
            for name, wanted in vars(protocol).items():
                if inspect.isfunction(wanted) and not name.startswith("_"):
                    with self.subTest(kind=kind, name=name):
                        has = getattr(kind, name)
                        self.assertTrue(callable(has))  # and no value, as a size once was
                        self.check_parameters(wanted, has)

    def check_parameters(self, wanted: Callable[..., object], has: Callable[..., object]) -> None:
        try:
            parameters = [each for each in inspect.signature(has).parameters.values() if each.name != "self"]
        except ValueError:
            return  # one of Python's own
        names = [name for name in inspect.signature(wanted).parameters if name != "self"]
        self.assertEqual([each.name for each in parameters[: len(names)]], names)
        for more in parameters[len(names) :]:
            self.assertIsNot(more.default, more.empty)


class SystemTest(ChannelTest):
    def ends(self, file: str | None = None) -> Iterator[Callable[[], object]]:
        """Calls that open each end and must be refused."""
        for kind in (mmapipc.Sender, mmapipc.Receiver):
            yield lambda kind=kind: kind(self.name, timeout=0, file=file)

    def look(self, name: str | None = None) -> inspection.Look:
        with contextlib.closing(inspection.Looker(name or self.name)) as looker:
            return looker.look()

    def part(self, part: str) -> Path:
        """The path of a part of the channel."""
        return Path(system.place(self.name).of(part))


@unittest.skipIf(WINDOWS, "POSIX only: fcntl")
class Locks(SystemTest):
    """An error other than that somebody else has the lock."""

    @contextlib.contextmanager
    def failing(self, number: int, commands: tuple[str, ...]) -> Iterator[None]:
        """The system refuses these locks."""
        real = fcntl.fcntl
        refused = [getattr(fcntl, name) for name in commands]

        def fails(file: object, command: int, argument: object = 0) -> object:
            if command in refused:
                raise OSError(number, os.strerror(number))
            return real(file, command, argument)

        with mock.patch("fcntl.fcntl", fails):
            yield

    def test_it_says_so_and_nothing_stays_open(self) -> None:
        path = str(self.folder / "ring")
        self.exchange(path)
        for file in (None, path):
            for number in (errno.ENOLCK, errno.EIO, errno.EINTR, errno.EBADF, errno.EINVAL):
                for opens in self.ends(file):
                    with self.subTest(file=file, error=errno.errorcode[number]):
                        before = open_handles()
                        with self.failing(number, ("F_OFD_SETLK",)):
                            with self.assertRaises(mmapipc.MemoryRefused) as caught:
                                opens()
                            self.assertEqual(open_handles(), before)  # also while the error is at hand
                        self.assertEqual(caught.exception.errno, number)
                        self.assertRegex(
                            str(caught.exception), rf"\A{self.name}: [^\n]*{os.strerror(number)}\Z"
                        )
                        del caught
        before = open_handles()
        with self.failing(errno.ENOLCK, ("F_OFD_SETLK",)), self.assertRaises(mmapipc.MemoryRefused):
            mmapipc.Mapping(self.name, 4096)
        self.assertEqual(open_handles(), before)
        # What it made before is what a killed end leaves.
        inspection.remove(self.name)

    def test_who_asks_for_a_holder_is_told_too(self) -> None:
        with self.both(capacity=100), self.failing(errno.ENOLCK, ("F_OFD_GETLK",)):
            for ask in (
                lambda: mmapipc.Sender(self.name, timeout=0),
                self.look,
                lambda: inspection.remove(self.name),
            ):
                with self.assertRaises(mmapipc.MemoryRefused) as caught:
                    ask()
                self.assertEqual(caught.exception.errno, errno.ENOLCK)
        self.exchange()

    def test_a_stream_that_has_ended_does_not_fail_at_tidying_up(self) -> None:
        for file in (None, str(self.folder / "ring")):
            with self.subTest(file=file):
                sender = mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE, file=file)
                receiver = mmapipc.Receiver(self.name, timeout=DEADLINE, file=file)
                before = open_handles()
                sender.write(b"abc")
                sender.finish()
                with self.failing(errno.ENOLCK, ("F_OFD_SETLK",)):
                    self.assertEqual(receiver.read(), b"abc")
                    sender.close()
                    receiver.close()
                self.assertLess(open_handles(), before)
                # The roles went with what had been open.
                self.exchange(file)


@unittest.skipIf(WINDOWS, "POSIX only: files")
class PrivateFiles(SystemTest):
    def test_a_roles_file_that_has_another_name_is_refused_and_keeps_its_content(self) -> None:
        precious = self.memory / "precious"  # on the same file system
        precious.write_bytes(b"every byte of it")
        precious.chmod(0o600)
        for part in (self.part("roles"), Path(system.place(self.name).location)):
            os.link(precious, part)
            for opens in self.ends():
                with self.assertRaisesRegex(mmapipc.UnsafeMemory, f"^{self.name}: .*has another name too"):
                    opens()
            with contextlib.suppress(mmapipc.ChannelError):
                inspection.remove(self.name)
            self.assertEqual(precious.read_bytes(), b"every byte of it")
            self.assertTrue(part.exists())
            part.unlink()
            with contextlib.suppress(FileNotFoundError):
                self.part("roles").unlink()
        precious.unlink()
        self.exchange()

    def test_a_link_in_the_place_of_the_roles_is_refused(self) -> None:
        precious = Path(self.file(b"every byte of it"))
        precious.chmod(0o600)
        self.part("roles").symlink_to(precious)
        for opens in self.ends():
            with self.assertRaisesRegex(mmapipc.NameTaken, f"^{self.name}: .*not a regular file"):
                opens()
        self.assertEqual(precious.read_bytes(), b"every byte of it")
        self.part("roles").unlink()
        # Nor does it make what a link leads to.
        self.part("roles").symlink_to(self.folder / "missing")
        for opens in self.ends():
            with self.assertRaises(mmapipc.NameTaken):
                opens()
        self.assertFalse((self.folder / "missing").exists())
        self.part("roles").unlink()


@unittest.skipUnless(WINDOWS, "Windows only: kernel objects")
class Objects(SystemTest):
    @contextlib.contextmanager
    def object(self, make: str, *arguments: object) -> Iterator[None]:
        """A kernel object that is not ours."""
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        getattr(kernel32, make).restype = ctypes.c_void_p
        handle = getattr(kernel32, make)(None, *arguments)
        self.assertTrue(handle)
        try:
            yield
        finally:
            kernel32.CloseHandle(ctypes.c_void_p(handle))

    def test_an_object_of_another_kind_at_a_roles_name_is_named(self) -> None:
        for prefix in ("", "Local\\"):
            place = system.place(prefix + self.name)
            for kind, role in ((mmapipc.Sender, "sender"), (mmapipc.Receiver, "receiver")):
                for make, *arguments in (("CreateMutexW", False), ("CreateEventW", True, False)):
                    with self.subTest(role=role, make=make), self.object(make, *arguments, place.of(role)):
                        with self.assertRaises(mmapipc.NameTaken) as caught:
                            kind(place.name, timeout=0)
                        text = str(caught.exception)
                        self.assertIn(f"{place.of(role)} is the name of an object of another kind", text)
                        self.assertNotIn("remove", text)
                        with self.assertRaises(mmapipc.NameTaken):
                            self.look(place.name)
        self.exchange()

    def test_no_message_has_a_pid_of_nobody(self) -> None:
        place = system.place(self.name)
        for count, most in ((1, 4), (0, 2**31 - 1), (3, 3)):
            for kind, role in ((mmapipc.Sender, "sender"), (mmapipc.Receiver, "receiver")):
                with self.object("CreateSemaphoreW", count, most, place.of(role)):
                    with self.assertRaises(mmapipc.MemoryRefused) as caught:
                        kind(self.name, timeout=DEADLINE)
                    self.assertNotIn("pid", str(caught.exception))
                    self.assertIn("paused", str(caught.exception))
        self.exchange()

    def test_a_role_needs_no_section(self) -> None:
        waiting = self.python(WAITS)
        self.assertEqual(waiting.line(), "claimed")
        place = system.place(self.name)
        with self.assertRaisesRegex(mmapipc.RoleTaken, f"pid {waiting.pid}"):
            mmapipc.Receiver(self.name, timeout=0)
        parts = ("sender", "receiver", "sender+pid", "receiver+pid", "roles", "pid")
        for tag in (place.location, *map(place.of, parts)):
            self.assertFalse(win32.open_mapping(win32.FILE_MAP_READ, False, tag), tag)
        waiting.kill()

        def denied(*arguments: object) -> win32.Handle:
            ctypes.set_last_error(win32.ERROR_ACCESS_DENIED)
            return win32.Handle()

        with mock.patch.object(win32, "create_mapping", denied):
            for name in (self.name, f"Global\\{self.name}"):
                with self.assertRaises(mmapipc.ChannelTimeout):
                    mmapipc.Receiver(name, timeout=0)
                with self.assertRaisesRegex(mmapipc.MemoryRefused, "access to .* is denied"):
                    mmapipc.Sender(name, timeout=0)

    def test_another_name_does_not_help_with_a_file_of_another_user(self) -> None:
        from mmapipc._system.windows import roles, win32

        tag = roles._file_tags(Place(self.name, self.file(b"x"))).of("sender")
        told = str(roles.refused(self.name, tag, win32.ERROR_ACCESS_DENIED))
        self.assertTrue(told.endswith("with more rights, has the file; end it, or use another file"))

    def test_a_file_that_another_program_has_for_itself(self) -> None:
        path = str(self.folder / "ring")
        self.exchange(path)
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel32.CreateFileW.restype = ctypes.c_void_p
        handle = kernel32.CreateFileW(path, 0xC0000000, 0, None, 3, 0, None)
        self.assertNotEqual(handle, ctypes.c_void_p(-1).value)
        try:
            calls = [*self.ends(path), lambda: mmapipc.Mapping(file=path)]
            for call in calls:
                with self.assertRaisesRegex(
                    mmapipc.FileRefused, "another program has it open, and does not share it"
                ):
                    call()
            for command in (self.send("--file", path), self.receive("--file", path)):
                code, _, err = command.end()
                self.assertEqual(code, 1)
                self.assertIn("another program has it open", err)
        finally:
            kernel32.CloseHandle(ctypes.c_void_p(handle))
        self.exchange(path)
