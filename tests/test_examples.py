"""The programs of EXAMPLES.md, run as a reader would: each in a process of its own."""

import os
import re
import signal
import unittest
import zlib
from collections.abc import Iterator
from pathlib import Path

import mmapipc
from mmapipc import connection

from .helpers import DEADLINE, PYTHON, ChannelTest, Child, noise

TEXT = (Path(mmapipc.__file__).parent / "EXAMPLES.md").read_text("utf-8")
PROGRAMS = {
    (heading, file): code
    for heading, part in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    for file, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
}


class Examples(ChannelTest):
    def example(self, heading: str, name: str, file: str, *arguments: str) -> Child:
        """Start that program of that part, with the test's name in the place of that one."""
        code = PROGRAMS[heading, file]
        self.assertIn(f'"{name}"', code)
        path = self.folder / f"{heading}.{file}"
        if not path.exists():  # or one that starts just now finds it empty
            path.write_text(code.replace(f'"{name}"', f'"{self.name}"'), "utf-8")
        return self.start([*PYTHON, str(path), *arguments])

    def setUp(self) -> None:
        super().setUp()
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(Path(mmapipc.__file__).resolve().parent.parent)
        self.addCleanup(
            lambda: os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
        )

    def test_all_are_here_and_short(self) -> None:
        self.assertEqual(len(re.findall("^```python$", TEXT, re.MULTILINE)), len(PROGRAMS))
        self.assertEqual(len(re.findall("^```", TEXT, re.MULTILINE)), 2 * len(PROGRAMS))
        for program, code in PROGRAMS.items():
            self.assertLess(len(code.splitlines()), 25, program)

    def test_a_server_with_clients(self) -> None:
        def client(*words: str) -> Child:
            return self.example("A server with clients", "shouting", "client.py", *words)

        clients = [client("early", str(number)) for number in range(3)]
        server = self.example("A server with clients", "shouting", "server.py")
        for number, child in enumerate(clients):
            self.assertEqual(child.end(), (0, f"EARLY{os.linesep}{number}{os.linesep}".encode(), ""))
        # One that is killed costs the others nothing.
        killed = client(*["again"] * 10_000)
        self.assertEqual(killed.line(), "AGAIN")
        killed.kill()
        self.assertEqual(client("late").end(), (0, f"LATE{os.linesep}".encode(), ""))
        server.kill()
        connection.Listener(self.name).close()  # the next server removes what that one has left

    def test_a_server_that_is_killed_and_started_again(self) -> None:
        heading = "A server that is killed and started again"

        def server() -> Child:
            return self.example(heading, "counting", "server.py")

        first = server()
        client = self.example(heading, "counting", "client.py")
        self.assertEqual(self.answers(client, first), 3)
        first.kill()
        second = server()
        self.assertGreaterEqual(self.answers(client, second), 1)
        client.kill()
        second.kill()
        connection.Listener(self.name).close()

    @unittest.skipIf(os.name == "nt", "POSIX only: SIGINT")
    def test_a_server_ends_cleanly_at_ctrl_c(self) -> None:
        for heading, name in (
            ("A server with clients", "shouting"),
            ("A server that is killed and started again", "counting"),
        ):
            server = self.example(heading, name, "server.py")
            with connection.Client(self.name, timeout=DEADLINE) as client:
                client.send("x" if name == "shouting" else [1, 2])
                client.recv()
                os.kill(server.pid, signal.SIGINT)
                self.assertEqual(server.end(), (0, b"", ""))
                with self.assertRaises(EOFError):
                    client.recv()

    def answers(self, client: Child, server: Child) -> int:
        """How many answers there are to be of this server when three are awaited; all are right."""
        count = 0
        for line in self.lines(client):
            if "gone" in line:
                continue
            pid, answer = map(int, line.split())
            self.assertEqual(answer, self.next_answer)
            self.next_answer += 1
            count += pid == server.pid
            if count == 3:
                break
        return count

    next_answer = 1

    def lines(self, child: Child) -> Iterator[str]:
        while True:
            yield child.line()

    def test_logs(self) -> None:
        heading = "Logs of one program, shipped by another"
        shipper = self.example(heading, "app-log", "shipper.py")
        program = self.example(heading, "app-log", "program.py")
        self.assertEqual(program.end(), (0, b"", ""))
        code, out, err = shipper.end()
        self.assertEqual((code, err), (0, ""))
        size = sum(len(f"INFO request {number} is answered{os.linesep}") for number in range(1000))
        size += len(f"WARNING no more requests{os.linesep}")
        self.assertEqual(out.decode().strip(), f"WARNING no more requests (at byte {size})")

    def test_binary_frames(self) -> None:
        heading = "Binary frames without a copy"
        frames = [noise(size, size) for size in (5, 0, 10_000_000, 1, 4 << 20)]
        reader = self.example(heading, "frames", "reader.py")
        program = self.example(heading, "frames", "program.py", *map(self.file, frames))
        self.assertEqual(program.end(), (0, b"", ""))
        code, out, err = reader.end()
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out.decode().split(), [f"{zlib.crc32(frame):08x}" for frame in frames])
