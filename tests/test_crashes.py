"""The crash matrix: who is killed outright, when, and what the other end then meets.

Each row runs two real processes and a kill; then the name must work at once.
Who waits is killed, or stopped, in each way of waiting.  And storms of kills
against persistent streams.
"""

import os
import random
import signal
import subprocess
import unittest

import mmapipc
from mmapipc._ring import layout

from .helpers import DEADLINE, MEETS, MMAPIPC, WINDOWS, Background, ChannelTest, apart, eventually, noise
from .test_bells import PATIENT
from .ways import SENDING, WAYS, function, here

CAPACITY = 100

# Where the victim is when it is killed: what it does up to there, and what it
# then waits in, for the line "there" is printed just before that wait begins.
SENDER = {
    "before the peer attached": "s.write(bytes(10)); say('there'); sys.stdin.read()",
    "ring full": "s.write(bytes(100)); say('there'); sys.stdin.read()",
    "ring empty": "say('there'); sys.stdin.read()",
    "ring wrapped": "s.write(bytes(70)); peer(70); s.write(bytes(60)); say('there'); sys.stdin.read()",
    "finished but not drained": "s.write(bytes(10)); s.finish(); say('there'); sys.stdin.read()",
    "waits in write": "s.write(bytes(100)); say('there'); s.write(b'x')",
    "waits in reserve": "s.write(bytes(100)); say('there'); s.reserve(1)",
    "waits in close": "s.write(bytes(10)); say('there'); s.close()",
}
# Bytes that are published, and whether the end was marked.
PUBLISHED = {
    "before the peer attached": (10, False),
    "ring full": (100, False),
    "ring empty": (0, False),
    "ring wrapped": (130, False),
    "finished but not drained": (10, True),
    "waits in write": (100, False),
    "waits in reserve": (100, False),
    "waits in close": (10, None),  # killed before or after it marked the end
}
RECEIVER = {
    "ring full": "say('there'); sys.stdin.read()",
    "ring empty": "r.read(100); say('there'); sys.stdin.read()",
    "ring wrapped": "r.read(70); say('there'); sys.stdin.read()",
    "finished but not drained": "r.read(30); say('there'); sys.stdin.read()",
    "waits in read": "r.read(100); say('there'); r.read(1)",
    "waits in peek": "r.read(100); say('there'); r.peek(1)",
    "holds a view": "v = r.peek(100); say('there'); sys.stdin.read()",
}
TAKEN = {
    "ring full": 0,
    "ring empty": 100,
    "ring wrapped": 70,
    "finished but not drained": 30,
    "waits in read": 100,
    "waits in peek": 100,
    "holds a view": 0,
}


class Matrix(ChannelTest):
    def kinds(self):
        """Memory, a stream that outlives its receivers, one in a file: (persist, file)."""
        return (False, None), (True, None), (True, str(self.folder / "ring"))

    def test_the_sender_is_killed(self):
        for persist, file in self.kinds():
            for when, code in SENDER.items():
                with self.subTest(when=when, persist=persist, file=file):
                    child = self.python(
                        f"s = mmapipc.Sender(name, capacity={CAPACITY}, persist={persist}, file={file!r})\n"
                        "def peer(n):\n"
                        "    say('take'); sys.stdin.readline()\n"
                        f"{code}\n",
                        stdin=subprocess.PIPE,
                    )
                    if when == "before the peer attached" and file is None:
                        self.assertEqual(child.line(), "there")
                        child.kill()
                        with self.assertRaises(mmapipc.ChannelTimeout):
                            mmapipc.Receiver(self.name, timeout=0.1)
                        self.exchange()
                        continue
                    if when == "before the peer attached":
                        self.assertEqual(child.line(), "there")
                        child.kill()
                    with mmapipc.Receiver(self.name, timeout=DEADLINE, file=file) as receiver:
                        got = 0
                        if when == "ring wrapped":
                            self.assertEqual(child.line(), "take")
                            while got < 70:
                                got += len(receiver.read(70 - got))
                            child.feed(b"\n")
                        if when != "before the peer attached":
                            self.assertEqual(child.line(), "there")
                            child.kill()
                        whole = True
                        try:
                            while piece := receiver.read(17):
                                got += len(piece)
                        except mmapipc.SenderDied:
                            whole = False
                    published, finished = PUBLISHED[when]
                    self.assertEqual(got, published)
                    if finished is not None:
                        self.assertEqual(whole, finished)
                    self.exchange(file)

    def test_the_receiver_is_killed(self):
        for persist, file in self.kinds():
            for when, code in RECEIVER.items():
                with self.subTest(when=when, persist=persist, file=file):
                    sender = mmapipc.Sender(
                        self.name, capacity=CAPACITY, timeout=DEADLINE, persist=persist, file=file
                    )
                    child = self.python(
                        f"r = mmapipc.Receiver(name, file={file!r})\n{code}\n", stdin=subprocess.PIPE
                    )
                    sent = noise(CAPACITY)
                    sender.write(sent)
                    self.assertEqual(child.line(), "there")
                    taken = TAKEN[when]
                    if when == "ring wrapped":
                        sent += noise(60, 2)
                        sender.write(sent[CAPACITY:])
                    if when == "finished but not drained":
                        sender.finish()
                    child.kill()
                    if file is not None and taken == len(sent):
                        sender.close()  # there is nothing for another receiver
                    elif persist:
                        self.continues(sender, sent, taken, file)
                    elif taken == len(sent):
                        sender.close()  # everything was taken: nothing is lost
                    else:
                        with self.assertRaises(mmapipc.ReceiverGone) as caught:
                            if when == "ring full":
                                sender.write(b"more")
                            sender.close()
                        self.assertIn("bytes were not delivered", str(caught.exception))
                        sender.abort()
                    self.exchange(file)

    def continues(self, sender, sent, taken, file):
        """The next receiver gets the rest, from the first byte that was not acknowledged."""
        if file is not None:
            sender.close()  # it may go before that
        with mmapipc.Receiver(self.name, timeout=DEADLINE, file=file) as receiver:
            self.assertEqual(receiver.tell(), taken)
            got = b""
            while taken + len(got) < len(sent):
                got += receiver.read(999)
            self.assertEqual(got, sent[taken:])
            sender.close()
            self.assertEqual(receiver.read(1), b"")

    def test_a_receiver_killed_while_it_waits_for_a_sender(self):
        child = self.python(
            "from mmapipc._meeting import rendezvous\n"
            "until = rendezvous.until\n"
            "def told(*a): say('there'); return until(*a)\n"
            "rendezvous.until = told\n"
            "mmapipc.Receiver(name)\n"
        )
        self.assertEqual(child.line(), "there")
        child.kill()
        self.exchange()

    def test_a_sender_killed_while_it_waits_for_an_older_receiver(self):
        first = mmapipc.Sender(self.name, timeout=DEADLINE)
        with mmapipc.Receiver(self.name, timeout=DEADLINE):
            first.abort()
            child = self.python(
                "from mmapipc._meeting import rendezvous\n"
                "until = rendezvous.until\n"
                "def told(*a): say('there'); return until(*a)\n"
                "rendezvous.until = told\n"
                "mmapipc.Sender(name)\n"
            )
            self.assertEqual(child.line(), "there")
            child.kill()
        self.exchange()


class WaysTest(ChannelTest):
    def parked(self, end):
        """Whether that end of this process sleeps until it is rung for."""
        half = end._link.half
        return half.words[half.own_calls] & layout.PARKED

    def peer_parked(self, end):
        """Whether the other end does."""
        return end._link.half.called & layout.PARKED


class Asleep(WaysTest):
    """One of two is killed while it waits, or while the other waits, in each way that there is to wait."""

    def check_nothing_stays(self):
        """Once the survivor has left."""
        if not WINDOWS:
            self.assertEqual(os.listdir(self.memory), [])
        self.exchange()

    def test_a_receiver_is_killed_while_it_waits(self):
        for way in WAYS:
            with self.subTest(way):
                child = self.python(
                    f"{PATIENT}{function(way)}\nend = mmapipc.Receiver(name)\n"
                    "end.read(1); until_ready(end); end.readinto(bytearray(1))"
                )
                sender = mmapipc.Sender(self.name, timeout=DEADLINE)
                sender.write(b"a")
                eventually(lambda: not sender.in_flight and self.peer_parked(sender), "it waits")
                child.kill()
                with self.assertRaises(mmapipc.ReceiverGone):
                    sender.check_receiver()
                with self.assertRaises(mmapipc.ReceiverGone):
                    sender.write(b"b")
                    sender.close()
                sender.abort()
                self.check_nothing_stays()

    def test_a_sender_is_killed_while_it_waits(self):
        for way in SENDING:
            with self.subTest(way):
                child = self.python(
                    f"{PATIENT}{function(way)}\nend = mmapipc.Sender(name, capacity=4)\n"
                    "end.write(b'abcd'); until_ready(end); end.write(b'e')"
                )
                with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                    eventually(lambda: self.peer_parked(receiver), "it waits")
                    child.kill()
                    self.assertEqual(receiver.read(9), b"abcd")
                    with self.assertRaises(mmapipc.SenderDied):
                        receiver.read(1)
                self.check_nothing_stays()

    def test_a_receiver_waits_for_one_that_is_killed(self):
        for way in WAYS:
            with self.subTest(way):
                child = self.python(
                    "end = mmapipc.Sender(name); end.write(b'a'); sys.stdin.read()", stdin=subprocess.PIPE
                )
                with mmapipc.Receiver(self.name, timeout=DEADLINE) as end:
                    self.assertEqual(end.read(1), b"a")
                    until_ready = here(way)

                    def receive(end=end, until_ready=until_ready):
                        until_ready(end)
                        return end.readinto(bytearray(1))

                    waiting = Background(receive)
                    eventually(lambda: self.parked(end), "it waits")
                    child.kill()
                    with self.assertRaises(mmapipc.SenderDied):
                        waiting.result()
                self.check_nothing_stays()

    def test_a_sender_waits_for_one_that_is_killed(self):
        for way in SENDING:
            with self.subTest(way):
                child = self.python(
                    "end = mmapipc.Receiver(name); end.peek(4); say('up'); sys.stdin.read()",
                    stdin=subprocess.PIPE,
                )
                end = mmapipc.Sender(self.name, capacity=4, timeout=DEADLINE)
                end.write(b"abcd")
                self.assertEqual(child.line(), "up")
                until_ready = here(way)

                def send(end=end, until_ready=until_ready):
                    until_ready(end)
                    return end.write(b"e")

                waiting = Background(send)
                eventually(lambda: self.parked(end), "it waits")
                child.kill()
                with self.assertRaises(mmapipc.ReceiverGone):
                    waiting.result()
                end.abort()
                self.check_nothing_stays()

    def test_one_is_killed_while_it_waits_for_a_role(self):
        for kind in ("Sender", "Receiver"):
            with self.subTest(kind), self.both() as (sender, receiver):
                end = sender if kind == "Sender" else receiver
                child = self.python(f"{MEETS}mmapipc.{kind}(name, wait_for_role=True, timeout=60)")
                self.assertEqual(child.line(), str(os.getpid()))
                child.kill()
                # It was no end of the stream: nothing comes of it.
                sender.write(b"a")
                self.assertEqual(receiver.read(1), b"a")
                self.assertTrue(end.attached)
                sender.finish()
                self.assertEqual(receiver.read(1), b"")
            self.check_nothing_stays()


@unittest.skipIf(WINDOWS, "POSIX only: SIGSTOP")
class Stopped(WaysTest):
    """One of two is stopped in the middle of a wait, and goes on later: every byte arrives."""

    def stopped(self, child, move):
        os.kill(child.pid, signal.SIGSTOP)
        try:
            move()
        finally:
            os.kill(child.pid, signal.SIGCONT)

    def test_a_receiver_that_waits(self):
        for way in WAYS:
            with self.subTest(way):
                child = self.python(
                    f"{function(way)}\n"
                    "end = mmapipc.Receiver(name, timeout=60); buffer = bytearray(9); got = b''\n"
                    "while True:\n"
                    "    until_ready(end)\n"
                    "    count = end.readinto(buffer)\n"
                    "    got += buffer[:count]\n"
                    "    if not count: break\n"
                    "say(got.decode()); end.close()"
                )
                with mmapipc.Sender(self.name, capacity=2, timeout=DEADLINE) as sender:
                    for number in range(10):
                        eventually(lambda: not sender.in_flight and self.peer_parked(sender), "it waits")
                        self.stopped(child, lambda: sender.write(b"%d" % number))
                    eventually(lambda: not sender.in_flight and self.peer_parked(sender), "it waits")
                    self.stopped(child, sender.finish)
                self.assertEqual(child.end(), (0, b"0123456789\n", ""))

    def test_a_sender_that_waits(self):
        for way in SENDING:
            with self.subTest(way):
                child = self.python(
                    f"{function(way)}\nwith mmapipc.Sender(name, capacity=1, timeout=60) as end:\n"
                    "    for number in range(10):\n"
                    "        until_ready(end)\n"
                    "        end.write(b'%d' % number)\n"
                )
                got = []
                with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                    for _ in range(9):
                        eventually(lambda: receiver.in_flight and self.peer_parked(receiver), "it waits")
                        self.stopped(child, lambda: got.append(receiver.read(1)))
                    got.append(receiver.readall())
                self.assertEqual(b"".join(got), b"0123456789")
                self.assertEqual(child.end(), (0, b"", ""))

    def test_one_that_is_waited_for(self):
        child = self.python(
            "with mmapipc.Sender(name, capacity=1) as end, mmapipc.Receiver(name + '.back') as back:\n"
            "    for line in sys.stdin:\n"
            "        if line == 'send\\n': end.write(b'a')\n"
            "        if line == 'take\\n': assert back.read(1) == b'b'\n",
            stdin=subprocess.PIPE,
        )
        with mmapipc.Sender(self.name + ".back", capacity=1, timeout=DEADLINE) as sender:
            with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                sender.write(b"b")
                ways = [(receiver, way) for way in WAYS] + [(sender, way) for way in SENDING]
                for end, way in ways:
                    with self.subTest(way, end=end):
                        until_ready = here(way)
                        moved = bytearray(1)

                        def move(end=end, until_ready=until_ready, moved=moved):
                            until_ready(end)
                            return end.readinto(moved) if end is receiver else end.write(b"b")

                        os.kill(child.pid, signal.SIGSTOP)
                        waiting = Background(move)
                        eventually(lambda: self.parked(end), "it waits")
                        child.feed(b"send\n" if end is receiver else b"take\n")
                        os.kill(child.pid, signal.SIGCONT)
                        self.assertEqual(waiting.result(), 1)
                        if end is receiver:
                            self.assertEqual(moved, b"a")
                child.feed(b"take\n")
                child.end_input()
                self.assertEqual(receiver.read(1), b"")
        self.assertEqual(child.end(), (0, b"", ""))


STREAMS = 2  # each with a storm of its own
ROUNDS = 200 if os.name != "nt" else 40  # tests/soak.py goes on


@apart
class Storm(ChannelTest):
    def test_kills_at_random_moments_lose_and_double_nothing(self):
        seed = int(os.environ.get("MMAPIPC_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
        self.side_by_side(Storm.storm, range(seed, seed + STREAMS))

    def storm(self, seed):
        rounds = ROUNDS // STREAMS
        chance = random.Random(seed)
        target = self.folder / "target"
        # The stream is made as it goes: seeded blocks, until the storm is over.
        sender = self.python(
            f"""
import random, threading
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
chance = random.Random({seed})
with mmapipc.Sender(name, capacity={chance.choice((1000, 4096, 65536))}, persist=True) as s:
    while not over.is_set():
        s.write(chance.randbytes(chance.randint(1, 5000)))
        time.sleep(0.0002)
    s.write(b'the end')
    total = s.tell()
say(total)
""",
            stdin=subprocess.PIPE,
        )
        killed = 0
        command = [*MMAPIPC, "receive", self.name, "-o", str(target), "--resume"]
        # One waits for its turn while the other runs and is killed.
        while killed < rounds:
            receiver = self.start(command)
            before = target.stat().st_size if target.exists() else -1
            more = chance.choice((0, 1, 1, 2000, 20_000))
            eventually(
                lambda: receiver.process.poll() is not None
                or target.exists()
                and target.stat().st_size != before
                and target.stat().st_size >= before + more,
                f"the stream goes on, MMAPIPC_SEED={seed}",
            )
            self.assertIsNone(receiver.process.poll(), f"MMAPIPC_SEED={seed}")
            receiver.kill()
            receiver.dispose()
            killed += 1
        last = self.start(command)
        size = target.stat().st_size
        eventually(lambda: target.stat().st_size > size, "the last receiver is attached")
        sender.end_input()
        code, out, err = sender.end()
        self.assertEqual((code, err), (0, ""), f"MMAPIPC_SEED={seed}")
        self.assertEqual(last.end(), (0, b"", ""), f"MMAPIPC_SEED={seed}")
        total = int(out)
        blocks = random.Random(seed)
        expected = bytearray()
        while len(expected) < total - len(b"the end"):
            expected += blocks.randbytes(blocks.randint(1, 5000))
        expected += b"the end"
        self.assertEqual(len(expected), total)
        self.assertTrue(target.read_bytes() == expected, f"the file differs, MMAPIPC_SEED={seed}")


