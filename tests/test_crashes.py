"""The crash matrix: who is killed outright, when, and what the other end then meets.

Each row runs two real processes and a kill; then the name must work at once.
And storms of kills against persistent streams.
"""

import os
import random
import subprocess
import sys

import mmapipc

from .helpers import DEADLINE, ChannelTest, eventually, noise

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
                    child = self.python(f"r = mmapipc.Receiver(name, file={file!r})\n{code}\n", stdin=subprocess.PIPE)
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


STREAMS = 2  # each with a storm of its own
ROUNDS = int(os.environ.get("MMAPIPC_STORM", "200" if os.name != "nt" else "40"))


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
        command = [sys.executable, "-m", "mmapipc", "receive", self.name, "-o", str(target), "--resume"]
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
        if os.environ.get("MMAPIPC_FIGURES"):
            print(f"\n{killed} receivers killed, {total} bytes")


