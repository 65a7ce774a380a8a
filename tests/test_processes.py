"""Two processes: deaths, refusals, and that nothing is left."""

import os
import signal
import unittest
from unittest import mock

import mmapipc
from mmapipc._system import names, system
from mmapipc._system.claims import Claiming

from .helpers import DEADLINE, MEETS, WAITS, WINDOWS, ChannelTest, eventually, noise

HOLD = "say('there'); sys.stdin.read()\n"


class Claims(ChannelTest):
    def test_exactly_one_of_twenty_wins_a_role(self):
        for kind in ("Sender", "Receiver"):
            with self.subTest(kind=kind):
                # All of them are up before any of them tries.
                code = f"""
say('ready'); sys.stdin.readline()
try:
    end = mmapipc.{kind}(name, timeout=DEADLINE)
    say('won'); sys.stdin.readline(); os._exit(0)
except FileExistsError as error:
    say(error)
except TimeoutError as error:
    say('timed out')
"""
                many = [self.python(code, stdin=-1) for _ in range(20)]
                for child in many:
                    self.assertEqual(child.line(), "ready")
                for child in many:
                    child.feed(b"\n")
                if kind == "Receiver":
                    # The winner is waiting; a stream lets it say so.
                    sender = mmapipc.Sender(self.name, timeout=DEADLINE)
                answers = [child.line() for child in many]
                self.assertEqual(answers.count("won"), 1, answers)
                winner = many[answers.index("won")]
                for child, answer in zip(many, answers):
                    if child is not winner:
                        self.assertIn(f"(pid {winner.pid})", answer)
                winner.feed(b"\n")
                winner.end()
                if kind == "Receiver":
                    sender.abort()
        # Two roles ended without a word; the next ends tidy up after them.
        self.exchange()

    def test_a_waiting_receiver_holds_the_role(self):
        waiting = self.python(WAITS)
        self.assertEqual(waiting.line(), "claimed")
        with self.assertRaises(mmapipc.RoleTaken) as caught:
            mmapipc.Receiver(self.name, timeout=DEADLINE)
        self.assertIn(f"pid {waiting.pid}", str(caught.exception))
        waiting.kill()
        self.exchange()

    def test_a_child_process_does_not_inherit_a_claim(self):
        with self.both() as (sender, receiver):
            child = self.python(HOLD, stdin=-1)
            self.assertEqual(child.line(), "there")
            sender.finish()
        self.exchange()
        child.feed(b"\n")


class Turns(ChannelTest):
    """Ends that wait for a role that another process has."""

    def setUp(self):
        super().setUp()
        self.path = str(self.folder / "ring")

    def each(self, check):
        """Check each kind of end, in memory and in a file that is there."""
        self.exchange(self.path)
        for file in (None, self.path):
            for kind in ("Sender", "Receiver"):
                with self.subTest(kind=kind, file=file):
                    check(kind, file)

    def test_the_next_has_it_when_its_holder_leaves_or_is_killed(self):
        def check(kind, file):
            for is_killed in (False, True):
                # Receivers follow each other in one stream.
                sender = kind == "Receiver" and mmapipc.Sender(
                    self.name, timeout=DEADLINE, persist=True, file=file
                )
                opens = f"end = mmapipc.{kind}(name, timeout=DEADLINE, file={file!r}"
                first = self.python(f"{opens}); say('up'); sys.stdin.readline(); end.abort()", stdin=-1)
                self.assertEqual(first.line(), "up")
                then = "end.write(b'its own'); end.close()" if kind == "Sender" else "say(end.read())"
                waiting = self.python(
                    f"{MEETS}{opens}, wait_for_role=True); say('has it'); {then}; end.close()"
                )
                self.assertEqual(waiting.line(), str(first.pid))
                if is_killed:
                    first.kill()
                else:
                    first.feed(b"\n")
                self.assertEqual(waiting.line(), "has it")
                if sender:
                    sender.write(b"its own")
                    sender.close()
                    self.assertEqual(waiting.line(), "b'its own'")
                else:
                    with mmapipc.Receiver(self.name, timeout=DEADLINE, file=file) as receiver:
                        self.assertEqual(receiver.read(), b"its own")
                self.assertEqual(waiting.end(), (0, b"", ""))

        self.each(check)

    def test_each_of_ten_has_its_turn(self):
        # In a file, a sender would not wait until its stream is taken, and the next would be refused.
        taken = "end.finish()\nwhile end.in_flight: time.sleep(0.001)\nend.close()"

        def check(kind, file):
            then = (
                f"end.write(sys.argv[2].encode()); {taken}"
                if kind == "Sender"
                else "say(end.read().decode()); end.close()"
            )
            opens = f"end = mmapipc.{kind}(name, timeout=DEADLINE, file={file!r}, wait_for_role=True)"
            code = f"{MEETS}{opens}; {then}"
            with mmapipc.Sender(self.name, timeout=DEADLINE, file=file) as sender:
                with mmapipc.Receiver(self.name, timeout=DEADLINE, file=file) as receiver:
                    many = [self.python(code, str(number)) for number in range(10)]
                    for child in many:
                        self.assertEqual(child.line(), str(os.getpid()))
                    sender.finish()
                    self.assertEqual(receiver.read(), b"")
            came = []
            for number in range(10):
                if kind == "Sender":
                    with mmapipc.Receiver(self.name, timeout=DEADLINE, file=file) as receiver:
                        came.append(receiver.read().decode())
                else:
                    with mmapipc.Sender(self.name, timeout=DEADLINE, file=file) as sender:
                        sender.write(str(number).encode())
                        sender.finish()
                        eventually(lambda: not sender.in_flight, "it is taken")
            for child in many:
                code, out, err = child.end()
                self.assertEqual((code, err), (0, ""))
                came += out.decode().split()
            self.assertEqual(sorted(came), [str(number) for number in range(10)])

        self.each(check)

    def test_when_the_time_is_over_it_says_who_has_it(self):
        def check(kind, file):
            opens = f"end = mmapipc.{kind}(name, file={file!r}); sys.stdin.read()"
            holder = self.python(WAITS.replace("mmapipc.Receiver(name)", opens), stdin=-1)
            self.assertEqual(holder.line(), "claimed")
            who = rf"{self.name}: another {kind.lower()} \(pid {holder.pid}\) still has the role"
            for timeout in (0, 0.1):
                with self.assertRaises(mmapipc.ChannelTimeout) as caught:
                    getattr(mmapipc, kind)(self.name, timeout=timeout, file=file, wait_for_role=True)
                self.assertRegex(
                    str(caught.exception), rf"\A{who} after {timeout} s; end it or wait longer\Z"
                )
            with self.assertRaises(mmapipc.RoleTaken):
                getattr(mmapipc, kind)(self.name, timeout=0, file=file)
            for mode in ("w", "wb") if kind == "Sender" else ("r", "rb"):
                with self.assertRaisesRegex(mmapipc.ChannelTimeout, who):
                    mmapipc.open(self.name, mode, timeout=0, file=file, wait_for_role=True)
            holder.kill()

        self.each(check)
        # Nobody has the role, but there is no stream.
        for file in (None, str(self.folder / "missing")):
            with self.assertRaisesRegex(mmapipc.ChannelTimeout, "no sender came within 0 s"):
                mmapipc.Receiver(self.name, timeout=0, file=file, wait_for_role=True)

    def test_who_is_interrupted_while_it_waits_leaves_nothing(self):
        def check(kind, file):
            with mmapipc.Sender(self.name, timeout=DEADLINE, file=file) as sender:
                with mmapipc.Receiver(self.name, timeout=DEADLINE, file=file) as receiver:
                    # What was being opened just then goes to the collector, which in development mode
                    # says so.
                    code = (
                        "import signal, threading, warnings\n"
                        "warnings.simplefilter('ignore', ResourceWarning)\n"
                        "def press(): sys.stdin.readline(); signal.raise_signal(signal.SIGINT)\n"
                        "threading.Thread(target=press, daemon=True).start()\n"
                        f"try: mmapipc.{kind}(name, file={file!r}, wait_for_role=True)\n"
                        "except KeyboardInterrupt: say('interrupted'); sys.stdin.readline()\n"
                    )
                    waiting = self.python(MEETS + code, stdin=-1)
                    self.assertEqual(waiting.line(), str(os.getpid()))
                    waiting.feed(b"\n")
                    self.assertEqual(waiting.line(), "interrupted")
                    sender.write(b"undisturbed")
                    self.assertEqual(receiver.read(99), b"undisturbed")
                    sender.finish()
            # It still runs, and does not stand in the way.
            self.assertEqual(os.listdir(self.memory), [])
            self.exchange(file)
            waiting.feed(b"\n")
            self.assertEqual(waiting.end(), (0, b"", ""))

        self.each(check)

    def test_moments_of_leaving_do_not_add_up(self):
        roles = mock.Mock(**{"attempt.return_value": None, "holder.side_effect": (None, 1234, None)})
        claiming = Claiming(roles, True)
        with mock.patch("time.monotonic", side_effect=(0.0, 3600.0)):
            for rival in (None, 1234, None):
                self.assertIsNone(claiming.attempt(names.SENDER))
                self.assertEqual(claiming.rival, rival)


class Deaths(ChannelTest):
    def test_sender_killed_mid_stream(self):
        sent = noise(100_000)
        child = self.python(
            "s = mmapipc.Sender(name, capacity=1000)\n"
            f"s.write(open({self.file(sent)!r}, 'rb').read()); say('no')\n"
        )
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            got = b""
            while len(got) < 600:
                got += receiver.read(300)
            child.kill()
            with self.assertRaises(mmapipc.SenderDied) as caught:
                while True:
                    got += receiver.read(300)
            self.assertIsInstance(caught.exception, ConnectionResetError)
            self.assertEqual(got, sent[: len(got)])
            self.assertGreaterEqual(len(got), 600)

    def test_every_byte_that_a_killed_sender_published_arrives(self):
        child = self.python(
            "s = mmapipc.Sender(name); s.write(b'x' * 5000); say(s.tell()); sys.stdin.read()\n", stdin=-1
        )
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            self.assertEqual(child.line(), "5000")
            child.kill()
            got = b""
            with self.assertRaises(mmapipc.SenderDied):
                while True:
                    got += receiver.read(999)
            self.assertEqual(got, b"x" * 5000)

    def test_receiver_killed_mid_stream(self):
        child = self.python(
            "r = mmapipc.Receiver(name); r.read(10); say('took'); sys.stdin.read()\n", stdin=-1
        )
        with self.assertRaises(BrokenPipeError) as caught:
            with mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE) as sender:
                sender.write(bytes(100))
                self.assertEqual(child.line(), "took")
                child.kill()
                sender.write(bytes(100))
        self.assertIn("bytes were not delivered", str(caught.exception))

    def test_receiver_killed_while_the_sender_closes(self):
        child = self.python(
            "r = mmapipc.Receiver(name); r.read(10); say('took'); sys.stdin.read()\n", stdin=-1
        )
        sender = mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE)
        sender.write(bytes(100))
        self.assertEqual(child.line(), "took")
        child.kill()
        with self.assertRaises(mmapipc.ReceiverGone) as caught:
            sender.close()
        self.assertIn("90 bytes were not delivered", str(caught.exception))

    def test_what_two_killed_ends_left_is_taken_over(self):
        sender = self.python(
            "s = mmapipc.Sender(name); s.write(b'old'); say('up'); sys.stdin.read()\n", stdin=-1
        )
        receiver = self.python("r = mmapipc.Receiver(name); say('up'); sys.stdin.read()\n", stdin=-1)
        self.assertEqual((sender.line(), receiver.line()), ("up", "up"))
        sender.kill()
        receiver.kill()
        with self.assertRaises(mmapipc.ChannelTimeout):
            mmapipc.Receiver(self.name, timeout=0.1)
        with (
            mmapipc.Sender(self.name, timeout=DEADLINE) as s,
            mmapipc.Receiver(self.name, timeout=DEADLINE) as r,
        ):
            s.write(b"new")
            self.assertEqual(r.read(9), b"new")

    def test_a_waiting_receiver_is_not_fooled_by_what_a_killed_sender_left(self):
        sender = self.python(
            "s = mmapipc.Sender(name); s.write(b'old'); say('up'); sys.stdin.read()\n", stdin=-1
        )
        self.assertEqual(sender.line(), "up")
        sender.kill()
        receiver = self.receive("--timeout", str(DEADLINE))
        with mmapipc.Sender(self.name, timeout=DEADLINE) as s:
            s.write(b"new")
        self.assertEqual(receiver.end(), (0, b"new", ""))

    def test_a_process_that_exits_without_close_did_not_finish(self):
        child = self.python(
            "s = mmapipc.Sender(name); s.write(b'part'); say('up'); sys.stdin.readline()\n", stdin=-1
        )
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            self.assertEqual(child.line(), "up")
            child.feed(b"\n")
            self.assertEqual(child.end()[0], 0)
            self.assertEqual(receiver.read(9), b"part")
            with self.assertRaises(mmapipc.StreamAborted):
                receiver.read(9)


@unittest.skipIf(WINDOWS, "POSIX only: fork")
class Forks(ChannelTest):
    def test_a_forked_child_owns_neither_end(self):
        code = """
import signal
s = mmapipc.Sender(name, timeout=DEADLINE)
s.write(b'from the parent')
pid = os.fork()
if not pid:
    try:
        s.write(b'from the child')
    except ValueError:
        say(f'refused {os.getpid()}')
    s.close(); del s
    signal.pause()
say('forked'); sys.stdin.read()
"""
        parent = self.python(code, stdin=-1)
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            answers = sorted((parent.line(), parent.line()))
            self.assertEqual(answers[0], "forked")
            child = int(answers[1].split()[1])
            try:
                self.assertEqual(receiver.read(99), b"from the parent")
                parent.kill()
                with self.assertRaises(mmapipc.SenderDied):
                    receiver.read(99)
                receiver.close()
                # The child still runs, and does not stand in the way.
                with mmapipc.Sender(self.name, timeout=DEADLINE):
                    mmapipc.Receiver(self.name, timeout=DEADLINE).close()
            finally:
                os.kill(child, signal.SIGKILL)

    # Each exits as processes do: at once, and after collecting what nobody closed.
    EXITS = ("os._exit(0)", "sys.exit()")

    def test_a_child_that_exits_does_not_end_the_parents_stream(self):
        for leave in self.EXITS:
            code = f"""
s = mmapipc.Sender(name, capacity=100, timeout=DEADLINE)
s.write(b'before ')
pid = os.fork()
if not pid:
    {leave}
os.waitpid(pid, 0)
s.write(b'after')
s.close()
"""
            with self.subTest(leave=leave):
                parent = self.python(code)
                with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                    self.assertEqual(receiver.read(), b"before after")
                self.assertEqual(parent.end(), (0, b"", ""))

    def test_a_child_that_exits_does_not_leave_the_parents_stream(self):
        for leave in self.EXITS:
            code = f"""
r = mmapipc.Receiver(name, timeout=DEADLINE)
view = r.peek(1)
pid = os.fork()
if not pid:
    {leave}
os.waitpid(pid, 0)
r.consume(1)
say('forked')
say(r.read())
r.close()
"""
            with self.subTest(leave=leave):
                parent = self.python(code)
                with mmapipc.Sender(self.name, capacity=100, timeout=DEADLINE) as sender:
                    sender.write(b"before ")
                    self.assertEqual(parent.line(), "forked")
                    sender.write(b"after")
                self.assertEqual(parent.end(), (0, b"b'efore after'\n", ""))

    def test_a_child_does_not_hold_the_receivers_role_beyond_its_parent(self):
        code = """
r = mmapipc.Receiver(name, timeout=DEADLINE)
r.read(1)
pid = os.fork()
if not pid:
    try:
        r.read(1)
    except ValueError:
        say(f'refused {os.getpid()}')
    r.close(); del r
    sys.stdin.read()  # as long as the test goes on
say('forked'); sys.stdin.read()
"""
        parent = self.python(code, stdin=-1)
        with self.assertRaisesRegex(mmapipc.ReceiverGone, "the receiver died; 3 bytes were not delivered"):
            with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                sender.write(b"abcd")
                answers = sorted((parent.line(), parent.line()))
                self.assertEqual(answers[0], "forked")
                self.assertTrue(answers[1].startswith("refused "), answers)
                parent.kill()
        # The child still runs, and does not stand in the way.
        with mmapipc.Sender(self.name, timeout=DEADLINE):
            mmapipc.Receiver(self.name, timeout=DEADLINE).close()


@unittest.skipIf(WINDOWS, "POSIX only: the directory")
class DefaultDirectory(ChannelTest):
    @unittest.skipUnless(os.path.isdir("/dev/shm"), "Linux only: /dev/shm")
    def test_dev_shm(self):
        del os.environ["MMAPIPC_DIR"]
        try:
            with self.both() as (sender, _):
                self.assertTrue(system.place(self.name).location.startswith("/dev/shm/"))
                self.assertTrue(os.path.exists(system.place(self.name).location))
            self.assertFalse([entry for entry in os.listdir("/dev/shm") if self.name in entry])
        finally:
            os.environ["MMAPIPC_DIR"] = str(self.memory)
