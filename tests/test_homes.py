"""Where a ring lives: in a file, by whatever path, whoever else wants the file."""

from __future__ import annotations

import contextlib
import os
import subprocess
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

import mmapipc
from mmapipc import inspection
from mmapipc._ring import layout

from .helpers import DEADLINE, PRELUDE, PYTHON, WINDOWS, Background, Child, eventually, noise
from .test_file_channels import FileChannelTest
from .test_shortage import can_mount

STEP = 29 if WINDOWS else 11  # of the moments at which an end that opens is stopped, one in so many is tried

# Opens an end of the channel in a file, for each line with a kind, a moment and a path; stops at that moment,
# says so, and goes on after the next line.  Then it moves bytes, and says how it went.
STOPS = """
def run(kind, at, path):
    moments = []  # no number: until Python 3.13, tracing a frame puts its variables back
    def tick(frame, event, argument):
        if event == 'return':
            return
        moments.append(event)
        if len(moments) == at:
            say('stopped')
            sys.stdin.readline()
    options = {'capacity': 100} if kind == 'Sender' else {}
    opener = getattr(mmapipc, kind)
    try:
        sys.setprofile(tick)
        try:
            end = opener(name, timeout=DEADLINE, file=path, **options)
        finally:
            sys.setprofile(None)
            if len(moments) < at:
                say('opened')
        with end:
            return end.write(b'first') if kind == 'Sender' else end.read()
    except mmapipc.ChannelError as error:
        return f'{type(error).__name__} {error}'
say('ready')
for line in sys.stdin:
    kind, at, path = line.split(None, 2)
    say(run(kind, int(at), path.rstrip()))
"""


# A receiver that says when it has found that there is no file yet, then what came of it.
FINDS_NOTHING = """
from mmapipc._meeting import homes
claim = homes.InFile.claim
def told(self, role):
    claimed = claim(self, role)
    if claimed is None:
        homes.InFile.claim = claim
        say('no file')
    return claimed
homes.InFile.claim = told
try:
    with mmapipc.Receiver(name, timeout=DEADLINE, file=sys.argv[2]) as receiver:
        say('attached')
        say(receiver.readall().hex())
except mmapipc.RoleTaken as error:
    say(error)
"""


class HomesTest(FileChannelTest):
    def waits_for_file(self, path: str) -> Child:
        """A process that waits for the file at that path, and has looked for it."""
        self.assertFalse(os.path.exists(path))
        child = self.python(FINDS_NOTHING, path)
        self.assertEqual(child.line(), "no file")
        return child

    def taken_by(self, receiver: Child) -> bytes:
        """The stream that such a process has received, and ended."""
        stream = bytes.fromhex(receiver.line())
        self.assertEqual(receiver.end(), (0, b"", ""))
        return stream

    def opens(self, kind: str, path: str, code: str = "") -> str:
        """How it goes when another process opens an end of the channel in the file."""
        code = f"""
try:
    with mmapipc.{kind}(name, timeout=DEADLINE, file={path!r}) as end:
        {code or 'pass'}
    say('opened')
except mmapipc.ChannelError as error:
    say(f'{{type(error).__name__}} {{error}}')
"""
        status, out, err = self.python(code).end()
        self.assertEqual((status, err), (0, ""))
        return out.decode().strip()

    def content(self) -> bytes:
        return Path(self.path).read_bytes()

    def gone(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def drained(self, capacity: int = 50) -> None:
        """The file has a stream that was taken, in a ring that is too small for the next."""
        self.gone()
        self.kept(b"old", capacity)
        self.assertEqual(self.drain(), b"old")

    def kept(self, data: bytes, capacity: int = 50) -> None:
        """The file has a stream that nobody has taken."""
        with self.sender(capacity=capacity) as sender:
            sender.write(data)


class Races(HomesTest):
    """Two senders want one file."""

    def test_two_names_race_for_a_new_file(self) -> None:
        code = """
say('ready')
for line in sys.stdin:
    try:
        with mmapipc.Sender(sys.argv[2], capacity=100, timeout=DEADLINE, file=line.rstrip()) as sender:
            sender.write(sys.argv[2].encode())
        say('opened')
    except mmapipc.ChannelError as error:
        say(f'{type(error).__name__} {error}')
"""
        names = [f"{self.name}-{letter}" for letter in "ab"]
        rivals = [self.python(code, name, stdin=subprocess.PIPE) for name in names]
        for rival in rivals:
            self.assertEqual(rival.line(), "ready")
        for race in range(60):
            path = str(self.folder / f"ring-{race}")
            for rival in rivals if race % 2 else rivals[::-1]:
                rival.feed(f"{path}\n".encode())
            said = [rival.line() for rival in rivals]
            self.assertEqual(said.count("opened"), 1, said)
            winner = said.index("opened")
            # The other came while it was there, or after it had gone.
            self.assertRegex(said[1 - winner], f"^(RoleTaken|LayoutError) {names[1 - winner]}: ")
            with mmapipc.Receiver(names[winner], timeout=0, file=path) as receiver:
                self.assertEqual(receiver.read(), names[winner].encode())

    def test_a_rival_at_any_moment_of_the_first(self) -> None:
        for name in (self.name, f"{self.name}-other"):
            def rival() -> bool:
                try:
                    with mmapipc.Sender(name, capacity=100, timeout=0, file=self.path) as sender:
                        sender.write(b"rival")
                except mmapipc.RoleTaken as error:
                    self.assertIn(f"(pid {self.stopping.pid})", str(error))
                    return False
                return True

            for won, said in self.stopped("Sender", self.gone, rival):
                if won:
                    self.assertRegex(said, f"^(Undelivered|LayoutError) {self.name}: ")
                    with mmapipc.Receiver(name, timeout=0, file=self.path) as receiver:
                        self.assertEqual(receiver.read(), b"rival")
                else:
                    self.assertEqual(said, "5")
                    self.assertEqual(self.drain(), b"first")

    def test_who_looks_or_comes_at_any_moment_of_a_beginning(self) -> None:
        def look_and_come() -> None:
            with contextlib.closing(inspection.Looker(self.name, self.path)) as looker:
                with contextlib.suppress(inspection.NoChannel):
                    self.assertIn(looker.look().status, ("starting", "no receiver", "drained"))
            with self.assertRaises(mmapipc.ChannelTimeout), self.receiver(timeout=0) as receiver:
                receiver.read()

        for prepare in (self.gone, self.drained):
            for _, said in self.stopped("Sender", prepare, look_and_come):
                self.assertEqual(said, "5")
                self.assertEqual(self.drain(), b"first")

    @unittest.skipIf(WINDOWS, "POSIX only: a file that is open can be replaced")
    def test_the_file_is_replaced_at_any_moment_of_a_beginning(self) -> None:
        def replace() -> None:
            with mmapipc.Sender(self.name, capacity=50, timeout=0, file=f"{self.path}-new") as sender:
                sender.write(b"new")
            os.replace(f"{self.path}-new", self.path)

        for prepare in (self.gone, self.drained):
            for _, said in self.stopped("Sender", prepare, replace):
                # It meets what nobody has taken, or has begun in the file that was there.
                self.assertRegex(said, f"^(Undelivered|NoSuchMapping) {self.name}: ")
                self.assertEqual(self.drain(), b"new")
            for _, said in self.stopped("Sender", prepare, self.gone):
                self.assertRegex(said, f"^(5$|NoSuchMapping {self.name}: )")
                if said == "5":
                    self.assertEqual(self.drain(), b"first")
                else:
                    self.assertFalse(os.path.exists(self.path))

    def test_others_come_at_any_moment_of_a_receiver(self) -> None:
        def kept() -> None:
            self.drained()
            self.kept(b"kept")

        def take_and_send() -> bytes:
            taken = b""
            with (
                contextlib.suppress(mmapipc.RoleTaken, mmapipc.ChannelTimeout),
                self.receiver(timeout=0) as receiver,
            ):
                taken = receiver.read()
            with contextlib.suppress(mmapipc.ChannelTimeout, mmapipc.Undelivered):
                with mmapipc.Sender(self.name, capacity=50, timeout=0, file=self.path) as sender:
                    sender.write(b"next")
            return taken

        for taken, said in self.stopped("Receiver", kept, take_and_send):
            # Each stream is had by one of them, and whole.
            self.assertEqual((taken, said), (b"kept", "b'next'") if taken else (b"", "b'kept'"))

    def stopped(
        self, kind: str, prepare: Callable[[], object], act: Callable[[], object]
    ) -> Iterator[tuple[object, str]]:
        """Stop an end of another process at moments of its opening, one after the other, and act meanwhile.

        Gives what `act` returned, and what the end then said: bytes, or an error.
        """
        self.stopping = self.python(STOPS, stdin=subprocess.PIPE)
        self.assertEqual(self.stopping.line(), "ready")
        at = 1
        while True:
            prepare()
            self.stopping.feed(f"{kind} {at} {self.path}\n".encode())
            said = self.stopping.line()
            if said == "opened":
                break
            self.assertEqual(said, "stopped")
            acted = act()
            self.stopping.feed(b"\n")
            yield acted, self.stopping.line()
            at += STEP
        self.assertGreater(at, 200)
        self.stopping.end_input()
        self.stopping.end()
        self.gone()


class Spellings(HomesTest):
    """One file by two paths is one ring."""

    def setUp(self) -> None:
        super().setUp()
        (self.folder / "deep").mkdir()

    def aliases(self) -> Iterator[str]:
        """Other paths of the file, which is there."""
        for path in self.aliases_of_folder():
            yield os.path.join(path, "ring")
        if WINDOWS:
            yield f"{self.folder}\\RING"
            yield "\\\\?\\" + self.path.upper()
        else:
            os.symlink(self.path, self.folder / "symbolic")
            yield str(self.folder / "symbolic")
        os.link(self.path, self.folder / "hard")
        yield str(self.folder / "hard")

    def aliases_of_folder(self) -> Iterator[str]:
        """Other paths of the folder, where the file need not be yet."""
        yield str(self.folder / "deep" / "..")
        if WINDOWS:
            yield f"\\\\?\\{self.folder}"
            yield str(self.folder).upper()
        else:
            yield os.path.relpath(self.folder)
            os.symlink(self.folder, self.folder / "there")
            yield str(self.folder / "there")

    def test_a_second_end_is_refused_by_whatever_path(self) -> None:
        sent = noise(3000)
        with self.sender(capacity=2000) as sender, self.receiver() as receiver:
            taken = b""
            for number, alias in enumerate(self.aliases()):
                with self.subTest(alias=alias):
                    for kind, role in (("Sender", "sender"), ("Receiver", "receiver")):
                        refused = f"RoleTaken {self.name}: there is a {role} already (pid {os.getpid()})"
                        self.assertTrue(self.opens(kind, alias).startswith(refused))
                    sender.write(sent[number * 100 : number * 100 + 100])
                    taken += receiver.read(100)
            self.assertGreater(number, 3)
            self.assertEqual(taken, sent[: len(taken)])
            self.assertEqual(len(taken), 100 * (number + 1))

    def test_another_name_is_refused_by_whatever_path(self) -> None:
        with self.sender() as sender:
            sender.write(b"abc")
            for alias in self.aliases():
                with self.assertRaises(mmapipc.RoleTaken):
                    mmapipc.Sender(f"{self.name}-other", timeout=DEADLINE, file=alias)
                with self.assertRaisesRegex(mmapipc.LayoutError, "whose name is not"):
                    mmapipc.Receiver(f"{self.name}-other", timeout=DEADLINE, file=alias)
        self.assertEqual(self.drain(), b"abc")

    @unittest.skipIf(WINDOWS, "POSIX only: a file that is open can be renamed")
    def test_a_renamed_file(self) -> None:
        renamed = f"{self.path}-renamed"
        with self.sender() as sender:
            sender.write(b"first")
            os.rename(self.path, renamed)
            self.assertIn(f"(pid {os.getpid()})", self.opens("Sender", renamed))
            # The path is free for another file, and so is its ring.
            with self.sender() as other:
                other.write(b"other")
            sender.write(b", and more")
            with mmapipc.Receiver(self.name, timeout=DEADLINE, file=renamed) as receiver:
                self.assertEqual(receiver.read(5), b"first")
                sender.finish()
                self.assertEqual(receiver.read(), b", and more")
        self.assertEqual(self.drain(), b"other")

    @unittest.skipUnless(can_mount(), "Linux only, as root: a folder that is mounted twice")
    def test_a_folder_that_is_mounted_twice(self) -> None:
        code = f"""
import threading
folder, twice = sys.argv[2:]
with mmapipc.Sender(name, timeout=DEADLINE, file=folder + '/ring') as sender:
    for kind in (mmapipc.Sender, mmapipc.Receiver):
        try:
            with mmapipc.Receiver(name, timeout=DEADLINE, file=folder + '/ring') as receiver:
                kind(name, timeout=DEADLINE, file=twice + '/ring')
        except mmapipc.RoleTaken as error:
            say(error)
def receive():
    with mmapipc.Receiver(name, timeout=DEADLINE, file=twice + '/new') as receiver:
        say(receiver.read())
waiting = threading.Thread(target=receive)
waiting.start()
with mmapipc.Sender(name, timeout=DEADLINE, file=folder + '/new') as sender:
    sender.write(b'new')
waiting.join()
"""
        mount = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        folders = [str(self.folder), str(self.folder / "deep")]
        python = [*PYTHON, "-c", PRELUDE + code, self.name, *folders]
        child = self.start(["unshare", "-m", "sh", "-c", mount, "sh", *folders, *python])
        status, out, err = child.end()
        self.assertEqual((status, err), (0, ""))
        pid = f"(pid {child.pid}); end that process, or use another file"
        refusals = [f"{self.name}: there is a {role} already {pid}" for role in ("sender", "receiver")]
        self.assertEqual(out.decode().splitlines(), [*refusals, "b'new'"])

    def test_a_receiver_waits_for_a_file_by_another_path(self) -> None:
        for alias in self.aliases_of_folder():
            with self.subTest(alias=alias):
                self.gone()
                receiver = self.waits_for_file(os.path.join(alias, "ring"))
                sent = noise(3000)
                with self.sender(capacity=1000) as sender:
                    sender.write(sent)
                self.assertEqual(receiver.line(), "attached")
                self.assertEqual(self.taken_by(receiver), sent)

    def test_of_two_receivers_that_wait_by_different_paths_one_attaches(self) -> None:
        for alias in self.aliases_of_folder():
            with self.subTest(alias=alias):
                self.gone()
                paths = (self.path, os.path.join(alias, "ring"))
                receivers = [self.waits_for_file(path) for path in paths]
                with self.sender() as sender:
                    sender.write(b"once")
                    answers = [receiver.line() for receiver in receivers]
                    won = answers.index("attached")
                    pid = f"(pid {receivers[won].pid}); end that process, or use another file"
                    refusal = f"{self.name}: there is a receiver already {pid}"
                    self.assertEqual(answers[1 - won], refusal)
                self.assertEqual(self.taken_by(receivers[won]), b"once")
                self.assertEqual(receivers[1 - won].end(), (0, b"", ""))

    @unittest.skipIf(WINDOWS, "POSIX only: symbolic links for everybody")
    def test_a_link_to_a_file_that_is_not_there_yet(self) -> None:
        links = [str(self.folder / name) for name in ("first", "second")]
        os.symlink(self.path, links[0])
        os.symlink(links[0], links[1])
        receiver = self.waits_for_file(links[0])
        with mmapipc.Sender(self.name, timeout=DEADLINE, file=links[1]) as sender:
            sender.write(b"by way of two links")
        self.assertEqual(receiver.line(), "attached")
        self.assertEqual(self.taken_by(receiver), b"by way of two links")
        self.assertTrue(os.path.islink(links[0]))

    @unittest.skipIf(WINDOWS, "POSIX only: a file that is open can be replaced")
    def test_the_file_is_replaced_while_receivers_wait(self) -> None:
        self.drained()
        waiting = self.receive("--file", self.path)
        eventually(lambda: self.status() == "no sender", "it waits")
        with mmapipc.Sender(self.name, timeout=DEADLINE, file=f"{self.path}-new") as sender:
            sender.write(b"the new one's")
        os.replace(f"{self.path}-new", self.path)
        self.assertEqual(waiting.end(), (0, b"the new one's", ""))

    @unittest.skipIf(WINDOWS, "POSIX only: a file that is open can be removed")
    def test_two_receivers_of_one_process_wait_for_two_files_at_one_path(self) -> None:
        # The first has its role on a file that is gone: the role of the next file is another's.
        self.drained()
        waiting = [Background(self.drain)]
        eventually(lambda: self.status() == "no sender", "it waits")
        os.rename(self.path, f"{self.path}-old")
        waiting.append(Background(self.drain))
        self.kept(b"one")
        eventually(self.used_again, "one of them has taken it")
        got = []
        for one in waiting:
            with contextlib.suppress(mmapipc.RoleTaken):
                got.append(one.result())
        if len(got) < 2:
            got.append(self.drain())
        self.assertEqual(sorted(got), [b"one", b"two"])

    def used_again(self) -> bool:
        try:
            self.kept(b"two")
        except mmapipc.Undelivered:
            return False
        return True

    def status(self) -> str:
        """What `inspect --file` says."""
        with contextlib.closing(inspection.Looker(self.name, self.path)) as looker:
            return looker.look().status


class Others(HomesTest):
    """What is the user's stays, byte for byte."""

    def test_files_that_begin_like_a_ring(self) -> None:
        mark = layout.BEGUN_MARK
        version = b"mmapipc" + bytes([layout.VERSION])
        for content in (
            b"mmapipc",
            b"mmapipc is a command",
            b"mmapipc: notes\n" * 1000,
            mark + b"and my own text",
            mark + bytes(100) + b"x",
            mark + b"and my own text\n" * 1000,
            mark + b"\1",
            version,
            version + noise(100),
            version + noise(10_000),
            version + bytes(10_000),
            b"mmapipc\x63" + noise(10_000),
        ):
            with self.subTest(content=content[:30], size=len(content)):
                Path(self.path).write_bytes(content)
                for end in (self.sender, self.receiver):
                    with self.assertRaises(mmapipc.LayoutError) as caught:
                        end(timeout=0) if end == self.receiver else end()
                    self.assertRegex(
                        str(caught.exception), rf"^{self.name}: \S*ring is a file of another kind"
                    )
                self.assertEqual(self.content(), content)
        code, _, err = self.send("--file", self.path, self.file(b"new")).end()
        self.assertEqual(code, 1)
        self.assertIn(f"{self.path} is a file of another kind, and was not changed", err)
        self.assertEqual(self.content(), content)


class Removed(HomesTest):
    """The file goes while a sender is at it."""

    @unittest.skipIf(WINDOWS, "POSIX only: a file that is open can be removed")
    def test_what_nobody_took_is_not_there(self) -> None:
        for remove in (os.unlink, self.replace, self.replace_with_folder):
            with self.subTest(how=remove.__name__):
                sender = self.sender()
                sender.write(b"abc")
                remove(self.path)
                with self.assertRaisesRegex(mmapipc.NoSuchMapping, f"^{self.name}: .*removed or replaced"):
                    sender.close()
                self.assertTrue(sender.closed)
                self.clear()

                child = self.send("--file", self.path, "--progress", stdin=subprocess.PIPE)
                child.feed(b"abc")
                eventually(lambda: self.written() == 3, "it is in the file")
                remove(self.path)
                child.end_input()
                code, out, err = child.end()
                self.assertEqual((code, out), (1, b""), err)
                self.assertRegex(
                    err, f"mmapipc: {self.name}: .*removed or replaced while the stream was in it"
                )
                self.clear()

    @unittest.skipIf(WINDOWS, "POSIX only: a file that is open can be removed")
    def test_nobody_waits_for_a_receiver_that_cannot_come(self) -> None:
        lost = f"^{self.name}: .*removed or replaced"
        for remove in (os.unlink, self.replace):
            with self.subTest(how=remove.__name__):
                sender = self.sender(capacity=10)
                with self.receiver() as receiver:
                    sender.write(bytes(10))
                    remove(self.path)
                    # Who is there still gets its bytes.
                    reading = Background(lambda: receiver.read(20) + receiver.read(20))
                    sender.write(bytes(5))
                    self.assertEqual(len(reading.result()), 15)
                with self.assertRaisesRegex(mmapipc.NoSuchMapping, lost):
                    sender.write(bytes(20))
                with self.assertRaisesRegex(mmapipc.NoSuchMapping, lost):
                    sender.close()
                self.gone()

    @unittest.skipIf(WINDOWS, "POSIX only: a file that is open can be removed")
    def test_what_was_taken_needs_no_file(self) -> None:
        with self.sender() as sender, self.receiver() as receiver:
            sender.write(b"abc")
            os.unlink(self.path)
            self.assertEqual(receiver.read(3), b"abc")
            sender.close()
            self.assertEqual(receiver.read(), b"")

    @unittest.skipIf(WINDOWS, "POSIX only: a file that is open can be removed")
    def test_an_end_that_nobody_had_is_not_there(self) -> None:
        def killed() -> None:
            child = self.python(
                f"r = mmapipc.Receiver(name, file={self.path!r}); say(r.read(3)); sys.stdin.read()",
                stdin=subprocess.PIPE,
            )
            self.assertEqual(child.line(), "b'abc'")
            child.kill()

        def gave_up() -> None:
            receiver = self.receiver()
            self.assertEqual(receiver.read(3), b"abc")
            receiver.abort()

        def left() -> None:
            with self.receiver() as receiver:
                self.assertEqual(receiver.read(3), b"abc")

        for take, data in ((None, b""), (killed, b"abc"), (gave_up, b"abc")):
            with self.subTest(take=take):
                sender = self.sender()
                sender.write(data)
                if take is not None:
                    take()
                os.unlink(self.path)
                with self.assertRaisesRegex(mmapipc.NoSuchMapping, f"^{self.name}: .*removed or replaced"):
                    sender.close()
        # Who has left wants no more.
        with self.sender() as sender:
            sender.write(b"abc")
            left()
            os.unlink(self.path)

    @unittest.skipUnless(WINDOWS, "Windows only: a file that is open stays")
    def test_it_cannot_be_removed(self) -> None:
        with self.sender() as sender:
            sender.write(b"abc")
            for remove in (os.unlink, self.replace):
                with self.assertRaises(PermissionError):
                    remove(self.path)
        self.assertEqual(self.drain(), b"abc")

    def replace(self, path: str) -> None:
        Path(f"{path}-new").write_bytes(b"something else")
        os.replace(f"{path}-new", path)

    def replace_with_folder(self, path: str) -> None:
        os.rename(path, f"{path}-old")
        os.mkdir(path)

    def clear(self) -> None:
        if os.path.isdir(self.path):
            os.rmdir(self.path)
        self.gone()

    def written(self) -> int:
        with contextlib.suppress(mmapipc.ChannelError):
            with contextlib.closing(inspection.Looker(self.name, self.path)) as looker:
                stream = looker.look().stream
                return 0 if stream is None else stream.written
        return 0


class Killed(HomesTest):
    def test_nothing_but_the_file_is_left(self) -> None:
        sends = (
            f"s = mmapipc.Sender(name, capacity=100, file={self.path!r}); s.write(b'abc')\n"
            "say('up'); sys.stdin.read()"
        )
        reads = f"r = mmapipc.Receiver(name, file={self.path!r}); say(r.read(1)); sys.stdin.read()"
        for _ in range(2):
            sender = self.python(sends, stdin=subprocess.PIPE)
            receiver = self.python(reads, stdin=subprocess.PIPE)
            self.assertEqual((sender.line(), receiver.line()), ("up", "b'a'"))
            sender.kill()
            receiver.kill()
            # The bells stay, until a ring in a file is left.
            self.assertTrue(all(name.endswith("-bell") for name in os.listdir(self.memory)))
            self.assertEqual(os.listdir(self.folder), ["ring"])
            # One who waited for a file that never came has left nothing either.
            missing = str(self.folder / "missing")
            waiting = self.python(f"say('up'); mmapipc.Receiver(name, file={missing!r})")
            self.assertEqual(waiting.line(), "up")
            waiting.kill()
            self.assertEqual(os.listdir(self.folder), ["ring"])
            with self.receiver() as receiver:
                self.assertEqual(receiver.read(2), b"bc")
                self.assertRaises(mmapipc.SenderDied, receiver.read, 1)
        self.assertEqual(os.listdir(self.memory), [])

    @unittest.skipIf(WINDOWS, "POSIX only: a file that is open can be removed")
    def test_bells_of_a_file_that_is_gone_do_not_stay(self) -> None:
        sends = f"s = mmapipc.Sender(name, file={self.path!r}); say('up'); sys.stdin.read()"
        sender = self.python(sends, stdin=subprocess.PIPE)
        self.assertEqual(sender.line(), "up")
        killed = sorted(os.listdir(self.memory))
        sender.kill()
        os.rename(self.path, f"{self.path}-renamed")
        other = mmapipc.Sender(f"{self.name}-other", file=str(self.folder / "other"))
        there = sorted(os.listdir(self.memory))
        # Another end leaves, which takes what is nobody's along, and nothing else.
        self.exchange(self.path)
        self.assertEqual(sorted(os.listdir(self.memory)), sorted(set(there) - set(killed)))
        other.abort()
        self.assertEqual(os.listdir(self.memory), [])


@unittest.skipIf(WINDOWS, "POSIX only: bells are files in a directory")
class OtherDirectories(HomesTest):
    def test_ends_that_cannot_ring_each_other_look_by_themselves(self) -> None:
        # Each has bells of its own, as in two containers that share a folder.
        memory = self.folder / "memory"
        memory.mkdir()
        code = f"""
os.environ['MMAPIPC_DIR'] = {str(memory)!r}
with mmapipc.Receiver(name, file={self.path!r}, timeout=60) as receiver:
    while receiver.read(1) == b'x':
        say(receiver._link.waiter.spans[1])
"""
        with self.sender(capacity=100) as sender:
            receiver = self.python(code)

            def longest_sleep() -> float:
                sender.write(b"x")
                seconds = float(receiver.line())
                eventually(lambda: sender._link.half.called & layout.PARKED, "it sleeps")
                return seconds

            eventually(lambda: longest_sleep() <= 0.04, "it does not wait for a bell")
        self.assertEqual(receiver.end(), (0, b"", ""))
        self.assertEqual(os.listdir(memory), [])
