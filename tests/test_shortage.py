"""What the system does not give: one line says so, the peer is told, nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import unittest
from unittest import mock

import mmapipc
from mmapipc._system import system

from .helpers import DEADLINE, MMAPIPC, PRELUDE, PYTHON, WINDOWS, eventually, ChannelTest, Child, noise

LINUX = sys.platform == "linux"

# Afterwards the interpreter's own folder may be out of reach, so what argparse imports late comes first.
DROP_ROOT = """
from mmapipc._cli import arguments, transfer
arguments.parse(['send', 'x'])
if os.geteuid() == 0: os.setuid(65534)
"""

# Says how each end is refused, and what is left afterwards.
TRY_BOTH = """
import errno
def attempt():
    for make in (lambda: mmapipc.Sender(name, timeout=0), lambda: mmapipc.Receiver(name, timeout=0)):
        try:
            make().close()
        except mmapipc.ChannelError as error:
            say(f'{type(error).__name__} {errno.errorcode.get(error.errno)} {error}')
"""


class ShortageTest(ChannelTest):
    def refused(self, child: Child, code: int, *words: str) -> bytes:
        """The command ends with one line of error; return what it wrote."""
        got, out, err = child.end()
        self.assertEqual(got, code, err)
        self.assertRegex(err, rf"\Ammapipc: {self.name}: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, err)
        return out

    def command(self, code: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> Child:
        """Run the command line after this code."""
        run = "sys.exit(main.main([sys.argv[2], name, *sys.argv[3:]]))"
        return self.python(f"from mmapipc._cli import main\n{code}\n{run}", *arguments, stdin=stdin)

    def redirected(self, how: str, *arguments: str) -> Child:
        """Run the command line with standard streams as the shell makes them."""
        command = [*MMAPIPC, arguments[0], self.name, *arguments[1:]]
        return self.start(["sh", "-c", f'exec "$@" {how}', "sh", *command])


def can_mount() -> bool:
    """Whether a file system can be mounted where nobody else sees it."""
    if WINDOWS or os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    test = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(test, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


class ExitCodes(ShortageTest):
    """They tell how the transfer ended, whatever becomes of what is said about it."""

    @unittest.skipUnless(LINUX, "Linux only: /dev/full")
    def test_nowhere_to_say_anything(self):
        sent = self.file(b"data")
        for how in ("2>/dev/full", "2>&-"):
            for buffered in ("", "1"):
                with self.subTest(how=how, buffered=buffered):
                    environment = mock.patch.dict(os.environ, {"PYTHONUNBUFFERED": buffered})
                    with environment:
                        receiver = self.redirected(how, "receive", "--progress")
                        sender = self.redirected(how, "send", sent, "--progress")
                        self.assertEqual(sender.end(), (0, b"", ""))
                        self.assertEqual(receiver.end(), (0, b"data", ""))
                        self.assertEqual(self.redirected(how, "receive", "--timeout", "0").end()[0], 4)
                        self.assertEqual(self.redirected(how, "receive", "--nonsense").end()[0], 2)
                        self.assertEqual(self.redirected(how, "send", "/missing").end()[0], 1)
                        receiver = self.redirected(how, "receive")
                        with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                            sender.write(b"part")
                            eventually(lambda sender=sender: not sender.in_flight, "it receives")
                            sender.abort()
                        self.assertEqual(receiver.end(), (3, b"part", ""))


class Outputs(ShortageTest):
    """Of a receiver that gets no stream: nothing is made of its output."""

    def test_no_stream_no_file(self):
        for before in (None, b"kept"):
            target = self.folder / f"target-{before}"
            if before is not None:
                target.write_bytes(before)
            with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                with mmapipc.Receiver(self.name, timeout=DEADLINE):
                    self.refused(self.receive("-o", str(target)), 1, "a receiver already")
                    sender.finish()
            self.refused(self.receive("-o", str(target), "--timeout", "0.1"), 4)
            self.assertEqual(target.read_bytes() if target.exists() else None, before)

    def test_what_cannot_be_written_is_told_at_once(self):
        for target in (self.folder, self.folder / "missing" / "file"):
            self.refused(self.receive("-o", str(target)), 1, str(target))
        ring = str(self.folder / "ring")
        self.refused(self.receive("-o", ring, "--file", ring), 1, "the file of the ring")
        self.assertFalse(os.path.exists(ring))


class Memory(ShortageTest):
    @unittest.skipUnless(LINUX and os.path.isdir("/dev/shm"), "Linux only: /dev/shm")
    def test_more_than_the_file_system_has(self):
        space = os.statvfs(self.memory)
        capacity = space.f_blocks * space.f_frsize + 1
        with self.assertRaises(mmapipc.MemoryRefused) as caught:
            mmapipc.Sender(self.name, capacity=capacity)
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        self.assertTrue(str(caught.exception).startswith(f"{self.name}: no space left in {self.memory}; "))
        self.refused(self.send("--capacity", str(capacity)), 1, "no space left", "less memory")

    @unittest.skipUnless(can_mount(), "Linux only, as root: a file system of its own")
    def test_a_full_file_system(self):
        code = TRY_BOTH + """
place = os.environ['MMAPIPC_DIR']
try:
    mmapipc.Sender(name, capacity=1 << 20)
except mmapipc.MemoryRefused as error:
    say(errno.errorcode[error.errno])
say(os.listdir(place))
# What a stream has been given stays its own when others take the rest.
s = mmapipc.Sender(name, capacity=20_000, timeout=DEADLINE)
r = mmapipc.Receiver(name, timeout=DEADLINE)
with s, r:
    with open(place + '/ballast', 'wb', buffering=0) as ballast:
        try:
            while ballast.write(bytes(4096)): pass
        except OSError as error:
            say(errno.errorcode[error.errno])
    s.write(b'x' * 20_000)
    say(len(r.read(20_000)))
say(os.listdir(place))
with open(place + '/ballast', 'ab', buffering=0) as ballast:
    try:
        while ballast.write(bytes(4096)): pass
    except OSError:
        pass
attempt()
say(os.listdir(place))
"""
        child = self.mounted("size=64k", code)
        refusal = f"MemoryRefused ENOSPC {self.name}: no space left in {self.memory}; " \
            "ask for less memory or set MMAPIPC_DIR"
        # A receiver needs no room.
        no_sender = (
            f"ChannelTimeout ETIMEDOUT {self.name}: no sender came within 0 s; start one or wait longer"
        )
        self.assertEqual(
            self.lines(child),
            ["ENOSPC", "[]", "ENOSPC", "20000", "['ballast']", refusal, no_sender, "['ballast']"],
        )

    @unittest.skipUnless(can_mount(), "Linux only, as root: a file system of its own")
    def test_a_read_only_file_system(self):
        for line in self.lines(self.mounted("ro", TRY_BOTH + "attempt()"), 2):
            self.assertRegex(
                line, f"^MemoryRefused EROFS {self.name}: .*{self.memory}.*Read-only file system$"
            )

    @unittest.skipUnless(can_mount(), "Linux only, as root: a file system of its own")
    def test_what_is_left_can_be_removed_where_nothing_can_be_made(self):
        code = """
import subprocess
from mmapipc._cli import main
place = os.environ['MMAPIPC_DIR']
opens = "import sys, mmapipc; e = mmapipc.%s(sys.argv[1]); print('up', flush=True); sys.stdin.read()"
ends = []
for kind in ('Sender', 'Receiver'):
    ends.append(subprocess.Popen([sys.executable, '-c', opens % kind, name], stdin=-1, stdout=-1))
    ends[-1].stdout.readline()
for end in ends:
    end.kill()
    end.communicate()
try:
    for number in range(100):
        open(f'{place}/ballast-{number}', 'x').close()
except OSError as error:
    say(error.strerror)
say(main.main(['remove', name]))
say([entry for entry in os.listdir(place) if 'ballast' not in entry])
"""
        self.assertEqual(
            self.lines(self.mounted("nr_inodes=10", code)), ["No space left on device", "0", "[]"]
        )

    def mounted(self, options: str, code: str) -> Child:
        """Python code that finds the memory directory on a file system of its own."""
        mount = f'mount -t tmpfs -o {options} none "$MMAPIPC_DIR" && exec "$@"'
        return self.start(
            ["unshare", "-m", "sh", "-c", mount, "sh", *PYTHON, "-c", PRELUDE + code, self.name]
        )

    def lines(self, child: Child, count: int | None = None) -> list[str]:
        """What the code said, which ended well."""
        code, out, err = child.end()
        self.assertEqual((err, code), ("", 0))
        lines = out.decode().splitlines()
        if count is not None:
            self.assertEqual(len(lines), count, lines)
        return lines

    @unittest.skipIf(WINDOWS, "POSIX only: a directory")
    def test_no_dev_shm(self):
        isdir = os.path.isdir
        del os.environ["MMAPIPC_DIR"]
        self.addCleanup(os.environ.__setitem__, "MMAPIPC_DIR", str(self.memory))
        with mock.patch("os.path.isdir", lambda path: path != "/dev/shm" and isdir(path)):
            with mock.patch("tempfile.tempdir", str(self.memory)), self.both() as (sender, receiver):
                self.assertTrue(system.place(self.name).location.startswith(str(self.memory)))
                sender.write(b"there")
                self.assertEqual(receiver.read(9), b"there")
            # Nor anything else.
            none = FileNotFoundError(errno.ENOENT, "No usable temporary directory found")
            with mock.patch("tempfile.gettempdir", side_effect=none):
                for kind in (mmapipc.Sender, mmapipc.Receiver):
                    with self.assertRaises(mmapipc.MemoryRefused) as caught:
                        kind(self.name, timeout=0)
                    self.assertEqual(caught.exception.errno, errno.ENOENT)
                    self.assertRegex(str(caught.exception), f"^{self.name}: .*MMAPIPC_DIR")

    @unittest.skipIf(WINDOWS, "POSIX only: a directory")
    def test_a_directory_that_is_none(self):
        place = self.file(b"a file")
        with mock.patch.dict(os.environ, MMAPIPC_DIR=place):
            for arguments in (["send"], ["receive"]):
                self.refused(self.redirected("", *arguments), 1, place, "Not a directory")

    @unittest.skipIf(WINDOWS, "POSIX only: permissions of a directory")
    def test_no_permission(self):
        for mode in (0o555, 0):
            os.chmod(self.memory, mode)
            for line in self.lines(self.python(TRY_BOTH + DROP_ROOT + "attempt()"), 2):
                self.assertRegex(
                    line, f"^MemoryRefused EACCES {self.name}: .*{self.memory}.*Permission denied$"
                )
            for arguments in (["send"], ["receive"]):
                self.refused(self.command(DROP_ROOT, *arguments), 1, str(self.memory), "Permission denied")
            os.chmod(self.memory, 0o700)


@unittest.skipIf(WINDOWS, "POSIX only: a directory")
class Directory(ShortageTest):
    """The directory of the memory is lost while a stream runs: that is no error of the stream's."""

    def test_it_becomes_a_file(self):
        aside = f"{self.memory}-aside"
        for first in ("sender", "receiver"):
            for persist in (False, True):
                with self.subTest(first=first, persist=persist):
                    sender = mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE, persist=persist)
                    receiver = mmapipc.Receiver(self.name, timeout=DEADLINE)
                    sender.write(b"before, ")
                    os.rename(self.memory, aside)
                    self.memory.write_bytes(b"")
                    try:
                        sender.write(b"after")
                        sender.finish()
                        self.assertEqual(receiver.read(), b"before, after")
                        for end in (sender, receiver) if first == "sender" else (receiver, sender):
                            end.close()
                        for kind in (mmapipc.Sender, mmapipc.Receiver):
                            with self.assertRaises(mmapipc.MemoryRefused):
                                kind(self.name, timeout=0)
                    finally:
                        self.memory.unlink()
                        os.rename(aside, self.memory)
                    # What could not be removed is nobody's, and the next ends take it over.
                    self.exchange()
                    self.assertEqual(os.listdir(self.memory), [])

    def test_it_becomes_read_only(self):
        code = f"""
os.chmod({str(self.memory)!r}, 0o500)
with sender, receiver:
    sender.write(b'all of it')
    sender.finish()
    say(receiver.read().decode())
say('closed')
sys.stdin.readline()
os.chmod({str(self.memory)!r}, 0o700)
with mmapipc.Sender(name, capacity=100, timeout=0) as sender, mmapipc.Receiver(name, timeout=0) as receiver:
    sender.write(b'again')
    say(receiver.read(5).decode())
say(os.listdir({str(self.memory)!r}))
"""
        opens = (
            "sender = mmapipc.Sender(name, capacity=100, timeout=DEADLINE)\n"
            "receiver = mmapipc.Receiver(name, timeout=DEADLINE)\n"
        )
        if os.geteuid() == 0:
            os.chown(self.memory, 65534, 65534)
        child = self.python(DROP_ROOT + opens + code, stdin=subprocess.PIPE)
        self.assertEqual((child.line(), child.line()), ("all of it", "closed"))
        child.feed(b"\n")
        self.assertEqual(child.end(), (0, b"again\n[]\n", ""))


@unittest.skipIf(WINDOWS, "POSIX only: a limit of file descriptors")
class Descriptors(ShortageTest):
    # Grants so many more descriptors; none of them may get lost.
    GRANT = """
import errno, resource
def lowest():
    fd = os.dup(0)
    os.close(fd)
    return fd
first = lowest()
def grant(count):
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + count, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
def attempt(make):
    before = set(os.listdir(os.environ['MMAPIPC_DIR']))
    for count in range(20):
        grant(count)
        try:
            return make()
        except mmapipc.MemoryRefused as error:
            assert error.errno == errno.EMFILE and str(error).startswith(name + ': '), error
        grant(20)
        assert lowest() == first
        left = set(os.listdir(os.environ['MMAPIPC_DIR'])) - before
        assert not left, left
"""

    def test_a_sender_that_gets_too_few(self):
        code = (
            self.GRANT
            + "with attempt(lambda: mmapipc.Sender(name)) as s: say('there'); s.write(b'after all')\n"
        )
        child = self.python(code)
        self.assertEqual(child.line(), "there")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            self.assertEqual(receiver.read(), b"after all")
        self.assertEqual(child.end(), (0, b"", ""))

    def test_a_receiver_that_gets_too_few(self):
        with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
            sender.write(b"after all")
            child = self.python(
                self.GRANT + "with attempt(lambda: mmapipc.Receiver(name)) as r: say(r.read(9))\n"
            )
            self.assertEqual(child.end(), (0, b"b'after all'\n", ""))

    def test_none_left_in_the_middle_of_a_stream(self):
        code = self.GRANT + """
with mmapipc.Sender(name, capacity=4, timeout=DEADLINE) as s:
    s.write(b'abcd')
    say('full'); sys.stdin.readline()
    first = lowest()
    grant(0)
    say('on'); s.write(b'e')
"""
        # Asking whether the receiver lives needs none, and so does everything else.
        child = self.python(code, stdin=subprocess.PIPE)
        self.assertEqual(child.line(), "full")
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            child.feed(b"\n")
            self.assertEqual(child.line(), "on")
            eventually(lambda: receiver._link.half.called, "the sender has looked, and sleeps")
            self.assertEqual(receiver.readall(), b"abcde")
        self.assertEqual(child.end(), (0, b"", ""))


    def test_none_left_when_a_ring_in_a_file_is_closed(self):
        path = str(self.folder / "ring")
        code = self.GRANT + f"""
s = mmapipc.Sender(name, file={path!r}, timeout=60)
s.write(b'abc')
first = lowest()
grant(0)
s.close()
say('kept')
"""
        self.assertEqual(self.python(code).end(), (0, b"kept\n", ""))
        with mmapipc.Receiver(self.name, file=path, timeout=DEADLINE) as receiver:
            self.assertEqual(receiver.read(), b"abc")


class Output(ShortageTest):
    """Nothing is acknowledged that was not written."""

    def nothing_taken(self, fail, *words: str) -> None:
        """A receiver whose output fails: the sender knows, and the next receiver gets all."""
        sent = noise(50_000)
        with self.assertRaisesRegex(mmapipc.ReceiverGone, "gave up; 50000 bytes were not delivered"):
            with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                sender.write(sent)
                self.assertEqual(self.refused(fail(), 1, *words), b"")
        sender = self.send(self.file(sent), "--timeout", str(DEADLINE))
        self.refused(fail(), 1, *words)
        self.refused(sender, 3, "gave up", "50000 bytes were not delivered")
        sender = self.send(self.file(sent), "--persist", "--timeout", str(DEADLINE))
        self.refused(fail(), 1, *words)
        self.assertEqual(self.receive().end(), (0, sent, ""))
        code, out, err = sender.end()
        self.assertEqual((code, out), (0, b""))
        self.assertEqual(
            err, f"mmapipc: {self.name}: the receiver is gone; the stream goes on with the next\n"
        )

    @unittest.skipUnless(LINUX, "Linux only: /dev/full")
    def test_full_standard_output(self):
        self.nothing_taken(
            lambda: self.redirected(">/dev/full", "receive"), "standard output: No space left on device"
        )

    @unittest.skipUnless(LINUX, "Linux only: /dev/full")
    def test_a_full_file(self):
        self.nothing_taken(lambda: self.receive("-o", "/dev/full"), "/dev/full: No space left on device")

    def test_standard_output_that_cannot_be_written(self):
        wrong = "os.dup2(os.open(os.devnull, os.O_RDONLY), 1)"
        self.nothing_taken(lambda: self.command(wrong, "receive"), "standard output: Bad file descriptor")

    @unittest.skipIf(WINDOWS, "POSIX only: a shell that closes standard output")
    def test_closed_standard_output(self):
        # It does not even attach.
        sender = self.send(self.file(b"all of it"))
        self.refused(self.redirected(">&-", "receive"), 1, "standard output: is closed")
        self.assertEqual(self.receive().end(), (0, b"all of it", ""))
        self.assertEqual(sender.end(), (0, b"", ""))
        # With a file to write to, nobody misses it.
        target = self.folder / "target"
        sender = self.send(self.file(b"all of it"))
        self.assertEqual(self.redirected(">&-", "receive", "-o", str(target)).end(), (0, b"", ""))
        self.assertEqual(sender.end(), (0, b"", ""))
        self.assertEqual(target.read_bytes(), b"all of it")

    def test_nobody_reads_standard_output(self):
        sender = self.send(self.file(noise(2_000_000)))
        receiver = self.receive()
        self.assertTrue(receiver.process.stdout.read(10))
        receiver.stop_reading()
        # As `receive | head` ends: quietly, on both sides.
        self.assertEqual(receiver.end(), (3, None, ""))
        self.assertEqual(sender.end(), (3, b"", ""))

    @unittest.skipIf(WINDOWS, "POSIX only: a limit of a file's size")
    def test_a_disk_that_is_full_half_way(self):
        sent = noise(50_000)
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))"
        target = self.folder / "target"
        with self.assertRaisesRegex(mmapipc.ReceiverGone, "gave up; 40000 bytes were not delivered"):
            with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                sender.write(sent)
                self.refused(
                    self.command(limit, "receive", "-o", str(target)), 1, f"{target}: File too large"
                )
        self.assertEqual(target.read_bytes(), sent[:10_000])
        sender = self.send(self.file(sent), "--persist")
        self.refused(self.command(limit, "receive", "-o", str(target)), 1, f"{target}: File too large")
        self.assertEqual(target.read_bytes(), sent[:10_000])
        self.assertEqual(self.receive("-o", str(target), "--resume").end(), (0, b"", ""))
        self.assertEqual(sender.end()[0], 0)
        self.assertEqual(target.read_bytes(), sent)

    def test_a_file_that_fails_when_it_is_closed(self):
        # As on a network, where the disk is somebody else's.
        code = f"""
import builtins, io
class Remote(io.FileIO):
    def close(self):
        if not self.closed:
            super().close()
            raise OSError({errno.ENOSPC}, os.strerror({errno.ENOSPC}))
builtins.open = lambda file, *_, **__: Remote(file, 'wb')
"""
        sender = self.send(self.file(b"abc"))
        target = str(self.folder / "target")
        self.refused(self.command(code, "receive", "-o", target), 1, f"{target}: ", os.strerror(errno.ENOSPC))
        sender.end()


class Input(ShortageTest):
    @unittest.skipIf(WINDOWS, "POSIX only: a shell that closes standard input")
    def test_closed_standard_input(self):
        self.refused(self.redirected("<&-", "send"), 1, "standard input: is closed")
        receiver = self.receive()
        self.assertEqual(self.redirected("<&-", "send", self.file(b"a file")).end(), (0, b"", ""))
        self.assertEqual(receiver.end(), (0, b"a file", ""))

    def test_standard_input_that_cannot_be_read(self):
        wrong = "os.dup2(os.open(os.devnull, os.O_WRONLY), 0)"
        self.refused(self.command(wrong, "send"), 1, "standard input: Bad file descriptor")

    def test_standard_input_that_fails_half_way(self):
        code = f"""
import io
class Failing(io.RawIOBase):
    def readinto(self, view):
        line = os.read(0, 5)
        if line == b'fail\\n':
            raise OSError({errno.EIO}, os.strerror({errno.EIO}))
        view[:len(line)] = line
        return len(line)
    def readable(self):
        return True
class Text:
    buffer = Failing()
sys.stdin = Text
"""
        sender, receiver = self.command(code, "send", stdin=subprocess.PIPE), self.receive()
        sender.feed(b"part\n")
        self.assertEqual(receiver.line(), "part")
        sender.feed(b"fail\n")
        self.refused(sender, 1, f"standard input: {os.strerror(errno.EIO)}")
        self.assertEqual(self.refused(receiver, 3, "the sender gave up", "not whole"), b"")


class Messages(ShortageTest):
    """Standard error may be missing too."""

    FULL = ["2>&-"] + ["2>/dev/full"] * LINUX

    @unittest.skipIf(WINDOWS, "POSIX only: a shell that closes standard error")
    def test_no_message_gets_into_the_data(self):
        for how in self.FULL:
            with self.subTest(how=how):
                receiver = self.redirected(how, "receive")
                with self.assertRaises(KeyError), mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                    sender.write(b"part\n")
                    self.assertEqual(receiver.line(), "part")
                    raise KeyError
                self.assertEqual(receiver.end(), (3, b"", ""))

    @unittest.skipIf(WINDOWS, "POSIX only: a shell that closes standard error")
    def test_a_persistent_stream_goes_on_without_a_message(self):
        sent = noise(3000)
        for how in self.FULL:
            with self.subTest(how=how):
                sender = self.redirected(how, "send", self.file(sent), "--persist", "--capacity", "1000")
                with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                    got = receiver.read(100)
                self.assertEqual(got + self.receive().end()[1], sent)
                self.assertEqual(sender.end(), (0, b"", ""))


class Silence(ShortageTest):
    def test_development_mode_has_nothing_to_say(self):
        """Streams that end well, are given up and are refused, where every warning is an error."""
        code = """
import gc
def streams():
    s = mmapipc.Sender(name, capacity=10, timeout=DEADLINE)
    r = mmapipc.Receiver(name, timeout=DEADLINE)
    with s, r:
        s.write(b'abc')
        s.finish()
        assert r.read() == b'abc'
        for kind in (mmapipc.Sender, mmapipc.Receiver):
            try:
                kind(name, timeout=DEADLINE)
            except mmapipc.RoleTaken:
                say('refused')
    s = mmapipc.Sender(name, timeout=DEADLINE)
    with mmapipc.Receiver(name, timeout=DEADLINE) as r:
        s.reserve(5)[:] = b'abcde'
        s.commit(5)
        view = s.reserve(5), r.peek(5)
        s.abort()
        r.consume(5)
        try:
            r.read(1)
        except mmapipc.StreamAborted:
            say('aborted')
    for make in (lambda: mmapipc.Receiver(name, timeout=0), lambda: mmapipc.Sender(name, timeout=0).close()):
        try:
            make()
        except mmapipc.ChannelTimeout:
            say('timed out')
    for wrong in ('', 'x' * 300):
        try:
            mmapipc.Sender(wrong)
        except mmapipc.InvalidName:
            say('invalid')
streams()
gc.collect()
"""
        strict = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}
        with mock.patch.dict(os.environ, strict):
            code, out, err = self.python(code).end()
            self.assertEqual((code, err), (0, ""))
            said = ["refused"] * 2 + ["aborted"] + ["timed out"] * 2 + ["invalid"] * 2
            self.assertEqual(out.decode().split(), [word for line in said for word in line.split()])
            sender, receiver = self.send(self.file(b"abc")), self.receive()
            self.assertEqual((sender.end(), receiver.end()), ((0, b"", ""), (0, b"abc", "")))
            self.refused(self.receive("--timeout", "0"), 4, "no sender")
            self.refused(self.send(str(self.folder)), 1, str(self.folder))
