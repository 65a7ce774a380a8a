"""Every command and snippet of the README, run as a reader would."""

import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import unittest
from pathlib import Path
from unittest import mock

import mmapipc

from .helpers import DEADLINE, WINDOWS, ChannelTest, Child, eventually, noise

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(mmapipc.__file__).resolve().parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
RUN = set()  # the blocks that a test below runs
# What cannot be run from inside the suite, by one of its lines, and what runs it.
ELSEWHERE = {
    "python3 -m unittest": ".ci/run",
    ".ci/windows 3.13 -m unittest": ".ci/run",
    "python3 -m pip install .": ".ci/package",
    "python3 mmapipc.pyz --version": ".ci/package",
}
FOR_PEOPLE = ".ci/run"  # which runs the rest


def block(line):
    """The block that has this line."""
    found = [text for _, text in BLOCKS if line in text.splitlines()]
    assert len(found) == 1, f"{len(found)} blocks of the README have {line!r}"
    return found[0]


def shows(line):
    """The test runs the block that has this line, and is given it."""
    text = block(line)
    RUN.add(text)
    return lambda test: lambda self: test(self, text)


class Readme(unittest.TestCase):
    def test_every_block_is_run(self):
        commands = {text for language, text in BLOCKS if language != "text"}
        self.assertEqual(commands, RUN | {block(line) for line in (*ELSEWHERE, FOR_PEOPLE)})
        # And there are no others, that would not be found.
        self.assertEqual(len(re.findall(r"^\s*```", README, re.MULTILINE)), 2 * len(BLOCKS))
        self.assertNotRegex(README, r"\n\n    ")

    def test_what_runs_the_others_does(self):
        for path, said in (
            (".ci/run", "\npython3 -m unittest\n"),
            (".ci/run", '.ci/windows "$job" -m unittest'),
            (".ci/package", "print(test_readme.block("),
        ):
            self.assertIn(path, ELSEWHERE.values())
            self.assertIn(said, (ROOT / path).read_text(encoding="utf-8"))

    def test_what_it_names_is_there(self):
        for module, name in set(re.findall(r"`(?:tests/)?(test_\w+)(?:\.py)?(?:\.(\w+))?`", README)):
            text = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
            self.assertIn(f"\nclass {name}(" if name else "", text)
        for name in set(re.findall(r"`([A-Z]\w+)` \(an? `(?:\w+Error|ReceiverGone)`\)", README)):
            self.assertIn(name, mmapipc.__all__)
        for name in set(re.findall(r"\]\((.*?)\)", README)):
            top = PACKAGE.parent if name.startswith("mmapipc/") else ROOT  # the package may be an installed one
            self.assertTrue((top / name).is_file(), name)


class ReadmeTest(ChannelTest):
    """Has what a reader has: a folder, `python3` and `mmapipc`; the channel's name is the test's own."""

    def setUp(self):
        super().setUp()
        # The package that is tested is found from any folder.
        self.change("PYTHONPATH", str(PACKAGE.parent))
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)

    def change(self, variable, value):
        """Set a variable of the environment while the test lasts."""
        changed = mock.patch.dict(os.environ, {variable: value})
        changed.start()
        self.addCleanup(changed.stop)

    def renamed(self, text, name="greeting"):
        """The text with the test's name in the place of that one."""
        self.assertIn(name, text)
        return re.sub(rf"(?<![.\w]){name}(?![.\w])", self.name, text)

    def snippet(self, code):
        return self.start([sys.executable, "-c", code])

    def ends_well(self, *children):
        """They end with code 0, without a word; what the last one printed."""
        for child in children:
            code, out, err = child.end()
            self.assertEqual((code, err), (0, ""))
        return out


class Snippets(ReadmeTest):
    LIBRARY = 'with mmapipc.Sender("greeting", capacity=1 << 22, timeout=None) as s:'
    ASYNCIO = "asyncio.run(main())"
    FILES = 'with mmapipc.open("greeting", "wb") as f:     # or "w": text'

    @shows(FILES)
    def test_files(self, text):
        start, sending, receiving = re.split(r"# in one process|# in another", self.renamed(text))
        sender = self.snippet(start + sending)
        receiver = self.snippet(start + receiving)
        self.assertEqual(self.ends_well(sender, receiver).strip(), rb"b'hello\n'")

    @shows(LIBRARY)
    def test_the_library(self, text):
        start, sending, receiving = re.split(r"# in one process|# in another", self.renamed(text))
        sender = self.snippet(start + sending)
        receiver = self.snippet(start + receiving + "    print(data, r.tell(), r.read(1))\n")
        self.assertEqual(self.ends_well(sender, receiver).rstrip(), b"b'hello' 6 b''")

    @shows('with connection.Listener("greeter") as listener:')
    def test_connections(self, text):
        start, serving, coming = re.split(r"# in one process|# in another", self.renamed(text, "greeter"))
        server = self.snippet(start + serving)
        client = self.snippet(start + coming)
        self.assertEqual(self.ends_well(server, client).strip(), b"{'hello': 'world'} b'and some bytes'")

    @shows('receivers = [mmapipc.Receiver(name) for name in ("greeting", "weather")]')
    def test_several_at_once(self, text):
        weather = f"{self.name}.weather"
        child = self.snippet(self.renamed(text).replace("weather", weather))
        with mmapipc.Sender(self.name) as first, mmapipc.Sender(weather) as second:
            for sender in (second, first, first):
                sender.write(b"a line")
                eventually(lambda sender=sender: not sender.in_flight, "it is taken")
        self.assertEqual(
            sorted(self.ends_well(child).decode().splitlines()),
            sorted([f"{self.name} b'a line'"] * 2 + [f"{weather} b'a line'", f"{self.name} b''", f"{weather} b''"]),
        )

    @shows(ASYNCIO)
    def test_asyncio(self, text):
        self.assertEqual(self.ends_well(self.snippet(self.renamed(text))).split(), [b"hello"])

    @shows('with mmapipc.Mapping("table", 4096) as m:                # made, or opened: m.created')
    def test_a_mapping(self, text):
        Path("data.bin").write_bytes(bytes(123))
        self.assertEqual(self.ends_well(self.snippet(self.renamed(text, "table"))).strip(), b"123")


    @shows('with mmapipc.Mapping(tagname="ShareMemoryTest", size=1 << 20) as m:   # opened, or made')
    def test_memory_of_any_program(self, text):
        text = self.renamed(text, "ShareMemoryTest")
        check = f"    with mmapipc.Mapping(tagname={self.name!r}, create=False) as n: print(bytes(n.buf[:5]))\n"
        self.assertIn("    m.unlink()", text)
        child = self.snippet(text.replace("    m.unlink()", check + "    m.unlink()"))
        self.assertEqual(self.ends_well(child).strip(), b"b'hello'")


@unittest.skipUnless(WINDOWS, "Windows only: its command line")
class WindowsCommands(ReadmeTest):
    @shows("py scripts\\send.py greeting photo.jpg")
    def test_the_two_scripts(self, text):
        photo = noise(100_000)
        Path("photo.jpg").write_bytes(photo)
        children = []
        for line in self.renamed(text).splitlines():
            command, script, *arguments = line.split()
            self.assertEqual(command, "py")
            children.append(self.start([sys.executable, str(ROOT / script), *arguments]))
        self.ends_well(*children)
        self.assertEqual(Path("copy.jpg").read_bytes(), photo)


@unittest.skipIf(WINDOWS, "POSIX only: a shell")
class Commands(ReadmeTest):
    def setUp(self):
        super().setUp()
        tools = self.folder / "tools"
        tools.mkdir()
        python = shlex.quote(sys.executable)
        for tool, command in (
            ("python3", f'exec {python} "$@"'),
            ("mmapipc", f'exec {python} -m mmapipc "$@"'),
            # The other machine has channels of its own.
            ("ssh", f'[ "$1" = host ] && shift && MMAPIPC_DIR={shlex.quote(str(self.folder))} exec "$@"'),
        ):
            (tools / tool).write_text(f"#!/bin/sh\n{command}\n")
            (tools / tool).chmod(0o755)
        self.change("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        os.symlink(ROOT / "scripts", "scripts")

    def shell(self, line, **options):
        """Run a line as somebody types it, in a process group of its own."""
        child = self.start(
            ["bash", "-c", f"set -o pipefail; {line}"], start_new_session=True, **options
        )
        self.addCleanup(self.end_group, child)
        return child

    @staticmethod
    def end_group(child: Child) -> None:
        """End what the line has started, if it has not ended."""
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def terminals(self, text, name="greeting"):
        """Start each line in a terminal of its own."""
        return [self.shell(line) for line in self.renamed(text, name).splitlines()]

    @shows("python3 scripts/receive.py greeting")
    def test_two_terminals(self, text):
        self.assertEqual(self.ends_well(*self.terminals(text)), b"hello\n")

    @shows("printf 'hello\\n' | python3 scripts/send.py greeting & python3 scripts/receive.py greeting")
    def test_one_terminal(self, text):
        self.assertEqual(self.ends_well(*self.terminals(text)), b"hello\n")

    @shows("mmapipc send disk disk.img --progress --hash sha256")
    def test_a_file(self, text):
        Path("disk.img").write_bytes(noise(3_000_000))
        told = []
        for child, path in zip(self.terminals(text, "disk"), ("disk.img", "copy.img")):
            code, out, err = child.end()
            self.assertEqual(code, 0, err)
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            self.assertEqual(out.decode(), f"{digest}  {path}\n")
            told.append(err)
        self.assertIn(f"mmapipc: {self.name}: sent 3000000 bytes (2.9 MiB) in ", told[0])
        self.assertEqual(told[1], "")

    @shows("tail -f app.log | mmapipc send log")
    def test_a_log(self, text):
        with open("app.log", "w", buffering=1) as log:
            sender, receiver = self.terminals(text, "log")
            for number in range(3):
                log.write(f"INFO {number}\nERROR {number}\n")
                self.assertEqual(receiver.line(), f"ERROR {number}")
        # As Ctrl-C would in each terminal.
        for child in (receiver, sender):
            os.killpg(child.pid, signal.SIGINT)
            child.end()

    @shows("tar c photos | gzip | mmapipc send photos --limit-rate 10MiB")
    def test_a_compressed_pipe(self, text):
        os.mkdir("photos")
        photos = {f"{number}.jpg": noise(100_000, number) for number in range(3)}
        for name, photo in photos.items():
            Path("photos", name).write_bytes(photo)
        lines = re.sub(r"(send|receive) photos", rf"\1 {self.name}", text).splitlines()
        self.ends_well(*map(self.shell, lines))
        with tarfile.open("photos.tar.gz") as packed:
            for name, photo in photos.items():
                self.assertEqual(packed.extractfile(f"photos/{name}").read(), photo)

    @shows("mmapipc send iso big.iso --persist")
    def test_a_receiver_that_is_killed(self, text):
        sent = noise(500_000)
        os.mkfifo("big.iso")
        sender, receiver = self.terminals(text, "iso")
        with open("big.iso", "wb", buffering=0) as source:
            for size in (100_000, 200_000, 300_000):
                source.write(sent[size - 100_000 : size])
                eventually(
                    lambda size=size: os.path.exists("copy.iso") and os.path.getsize("copy.iso") == size, "it is there"
                )
                self.end_group(receiver)
                receiver.end()
                receiver = self.shell(self.renamed(text, "iso").splitlines()[1])
            source.write(sent[300_000:])
        self.assertEqual(receiver.end(), (0, b"", ""))
        self.assertEqual(sender.end()[0], 0)
        self.assertEqual(Path("copy.iso").read_bytes(), sent)

    @shows("mmapipc receive greeting | ssh host mmapipc send greeting")
    def test_another_machine(self, text):
        (across,) = self.terminals(text)
        sent = noise(1_000_000)
        sender = self.send(self.file(sent))
        there = self.start(
            [sys.executable, "-m", "mmapipc", "receive", self.name],
            env={**os.environ, "MMAPIPC_DIR": str(self.folder)},
        )
        self.assertEqual(self.ends_well(sender, across, there), sent)
        self.assertEqual([each for each in os.listdir() if each.startswith("mmapipc.")], [])

    @shows("mmapipc inspect --watch greeting   # the same in place, with rates and a bar, until the channel ends")
    def test_looking_inside(self, text):
        inspect, watch, listing, remove = self.renamed(text).splitlines()
        sender = self.send(stdin=subprocess.PIPE)
        sender.feed(b"12345")
        eventually(lambda: b"written   5 bytes" in self.shell(inspect).end()[1], "it is there")
        self.assertIn(f"{self.name}  no receiver  sender {sender.pid}, ", self.ends_well(self.shell(listing)).decode())
        watcher = self.shell(watch)
        self.assertIn("no receiver", watcher.line())
        sender.kill()
        self.assertIn("stale", self.ends_well(watcher).decode())
        self.assertIn("stale", self.ends_well(self.shell(listing)).decode())
        self.assertEqual(self.ends_well(self.shell(remove)), b"")
        self.assertEqual(self.ends_well(self.shell(listing)), b"")

    @shows("mmapipc map --tagname ShareMemoryTest --create 1MiB                  # make it; hold it until Ctrl-C")
    def test_memory_of_any_program(self, text):
        making, *others = self.renamed(text, "ShareMemoryTest").splitlines()
        maker = self.shell(making, stdin=subprocess.PIPE)
        eventually(lambda: os.path.exists(f"/dev/shm/{self.name}"), "it is there")
        stored, shown, copied = (self.ends_well(self.shell(line)) for line in others)
        self.assertEqual((stored, copied), (b"", b"hello"))
        self.assertIn(b"1048576 bytes", shown)
        self.assertIn(b"|hello...........|", shown)
        os.killpg(maker.pid, signal.SIGINT)
        maker.end()
        self.assertFalse(os.path.exists(f"/dev/shm/{self.name}"))

    @shows("mmapipc receive greeting --file mailbox")
    def test_a_ring_in_a_file(self, text):
        for line in self.renamed(text).splitlines():
            told = self.ends_well(self.shell(line))  # one after the other
        self.assertEqual(told, b"hello\n")

    @shows("python3 scripts/benchmark.py --svg scripts/benchmark.svg")
    def test_the_benchmark(self, text):
        line = text.strip().replace("scripts/benchmark.svg", "chart.svg") + " --quick --repeat 1"
        code, out, err = self.shell(line).end()
        self.assertEqual(code, 0, err)
        for row in (
            "stream, 1 B, against os.pipe",
            "round trip, 1 ms apart, cores busy, p99, 64 B, against os.pipe",
            "death of a silent peer",
        ):
            self.assertIn(f"| {row} ".encode(), out)
        self.assertNotIn(b"Failed: ", out)
        self.assertTrue(Path("chart.svg").read_text().startswith("<svg"))
