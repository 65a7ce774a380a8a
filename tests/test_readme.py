"""Every command and snippet of the README and of the documents beside the code, run as a reader would."""

import hashlib
import os
import posixpath
import re
import shlex
import signal
import subprocess
import tarfile
import unittest
from pathlib import Path
from unittest import mock

import mmapipc

from .helpers import DEADLINE, MMAPIPC, PYTHON, WINDOWS, ChannelTest, Child, eventually, noise
from .terminal import TerminalTest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(mmapipc.__file__).resolve().parent  # which may be an installed one
README = "README.md"


def path_of(name):
    """Where a file is, by its path in the checkout."""
    return (PACKAGE.parent if name.startswith("mmapipc/") else ROOT) / name


NAMES = [README, "scripts/performance.md", *sorted(f"mmapipc/{path.name}" for path in PACKAGE.glob("*.md"))]
DOCUMENTS = {name: path_of(name).read_text(encoding="utf-8") for name in NAMES}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def parts(language, text):
    """What of a block is run together: a shell's up to an empty line, without comments that have a line."""
    if language != "sh":
        return [text]
    return [
        re.sub(r"^#.*\n", "", f"{part}\n", flags=re.MULTILINE)
        for part in text.removesuffix("\n").split("\n\n")
    ]


# Each part of a block: document, language, text.  tests/test_examples.py runs those of EXAMPLES.md.
BLOCKS = [
    (name, language, part)
    for name, document in DOCUMENTS.items()
    if name != "mmapipc/EXAMPLES.md"
    for language, text in BLOCK.findall(document)
    for part in parts(language, text)
]
RUN = set()  # the blocks that a test below runs
# What cannot be run from inside the suite, by one of its lines, and what runs it.
ELSEWHERE = {
    "python3 -m unittest": ".ci/run",
    ".ci/windows 3.13 -m unittest": ".ci/run",
    ".ci/pythons 3.15 -m unittest": ".ci/run",
    "python3 -m tests.soak --seconds 3600 --pythons 3.10 3.15": ".ci/run",
    "pipx install .                     # Debian has pipx as a package": ".ci/package",
    ". ~/mmapipc-venv/bin/activate      # in each terminal": ".ci/package",
    "python3 mmapipc.pyz --version": ".ci/package",
}
FOR_PEOPLE = ".ci/run"  # which runs the rest


def located(line, document=None):
    """The block that has this line, of that document or of any: (document, text)."""
    found = [
        (name, text) for name, _, text in BLOCKS if document in (None, name) and line in text.splitlines()
    ]
    assert len(found) == 1, f"{len(found)} blocks of the documents have {line!r}"
    return found[0]


def block(line, document=None):
    """The text of the block that has this line."""
    return located(line, document)[1]


def shows(line, *documents):
    """The test runs the block that has this line, in each of these documents or in any, and is given it."""
    blocks = {located(line, document) for document in documents or (None,)}
    RUN.update(blocks)

    def decorate(test):
        def run(self):
            for document, text in sorted(blocks):
                with self.subTest(document):
                    test(self, text)

        return run

    return decorate


def printed(snippet):
    """What the comments of a snippet of Python say that it prints, a line each."""
    return "".join(f"{line}\n" for line in re.findall(r"# prints (.*)$", snippet, re.MULTILINE))


def session(text):
    """The commands of a terminal session, each with the output that is shown below it."""
    return re.findall(r"^\$ (.*\n)((?:(?!\$ ).+\n)*)", text, re.MULTILINE)


def rows(document):
    """The rows of a document's tables, as tuples of cells."""
    lines = re.findall(r"^\|(.*)\|$", DOCUMENTS[document], re.MULTILINE)
    return [tuple(cell.strip() for cell in line.split(" | ")) for line in lines]


class Documents(unittest.TestCase):
    def test_every_block_is_run(self):
        commands = {(name, text) for name, language, text in BLOCKS if language != "text"}
        self.assertEqual(commands, RUN | {located(line) for line in (*ELSEWHERE, FOR_PEOPLE)})
        # And there are no others, that would not be found.
        for name, document in DOCUMENTS.items():
            rest = BLOCK.sub("", document)
            self.assertNotIn("```", rest, name)
            self.assertNotRegex(rest, r"\n\n    ", name)

    def test_what_runs_the_others_does(self):
        for path, said in (
            (".ci/run", "\npython3 -m unittest\n"),
            (".ci/run", '.ci/windows "$job" -m unittest'),
            (".ci/run", '.ci/pythons "$@"'),
            (".ci/run", "python3 -m tests.soak --seconds 120"),
            (".ci/package", "print(test_readme.block("),
            *((".ci/package", f'"{line}"') for line, path in ELSEWHERE.items() if path == ".ci/package"),
        ):
            self.assertIn(path, ELSEWHERE.values())
            self.assertIn(said, (ROOT / path).read_text(encoding="utf-8"))

    def test_what_they_name_is_there(self):
        for document, text in DOCUMENTS.items():
            for module, name in set(re.findall(r"`(?:tests/)?(test_\w+)(?:\.py)?(?:\.(\w+))?`", text)):
                tests = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
                self.assertIn(f"\nclass {name}(" if name else "", tests, document)
            for name in set(re.findall(r"`([A-Z]\w+)` \(an? `(?:\w+Error|ReceiverGone)`\)", text)):
                self.assertIn(name, mmapipc.__all__, document)
            for target, part in set(re.findall(r"\]\((.*?)(?:#(.*?))?\)", text)):
                place = (
                    posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
                    if target
                    else document
                )
                self.assertTrue(path_of(place).is_file(), f"{document}: {target}")
                if part:
                    self.assertIn(f"\n## {part.capitalize()}\n", DOCUMENTS[place], f"{document}: {part}")

    def test_the_page_leads_to_every_document(self):
        linked = set(re.findall(r"\]\(([^)#]*\.md)\)", DOCUMENTS[README]))
        self.assertEqual(linked, DOCUMENTS.keys() - {README})

    def test_the_page_has_rows_of_the_whole_table_of_performance(self):
        shown = [row for row in rows(README) if row[-1] in ("ok", "below", "above")]
        self.assertEqual(len(shown), 6)
        self.assertLessEqual(set(shown), set(rows("scripts/performance.md")))


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
        return self.start([*PYTHON, "-c", code])

    def ends_well(self, *children):
        """They end with code 0, without a word; what the last one printed."""
        for child in children:
            code, out, err = child.end()
            self.assertEqual((code, err), (0, ""))
        return out


class Snippets(ReadmeTest):
    def prints_what_it_says(self, text, *children):
        """They end well, and the last one prints what the comments of the snippet say."""
        said = printed(text)
        self.assertTrue(said)
        self.assertEqual(self.ends_well(*children).decode().replace("\r\n", "\n"), said)

    def two(self, text, name="greeting"):
        """The programs for two processes."""
        start, *halves = re.split(r"# in one process\n|# in another\n", self.renamed(text, name))
        return [start + half for half in halves]

    @shows('with mmapipc.open("greeting", "wb") as f:         # "w" for text')
    def test_files(self, text):
        self.prints_what_it_says(text, *map(self.snippet, self.two(text)))

    @shows('with connection.Listener("greeter") as listener:', README)
    def test_a_connection(self, text):
        self.prints_what_it_says(text, *map(self.snippet, self.two(text, "greeter")))

    @shows('async with await mmapipc.aio.open_sender("greeting") as s:')
    def test_coroutines(self, text):
        programs = []
        for program in self.two(text):
            start, inside = program.split("\n", 1)
            inside = "".join(f"    {line}\n" for line in inside.splitlines())
            programs.append(f"import asyncio\n{start}\nasync def main():\n{inside}\nasyncio.run(main())\n")
        self.prints_what_it_says(text, *map(self.snippet, programs))

    @shows('with mmapipc.Sender("greeting", capacity=1 << 22, timeout=None) as s:')
    def test_the_library(self, text):
        sending, receiving = self.two(text)
        receiving += "    print(data, r.tell(), r.read(1))\n"
        self.assertEqual(self.ends_well(*map(self.snippet, (sending, receiving))).rstrip(), b"b'hello' 6 b''")

    @shows('with connection.Listener("greeter") as listener:', "mmapipc/CONNECTIONS.md")
    def test_connections(self, text):
        self.prints_what_it_says(text, *map(self.snippet, self.two(text, "greeter")))

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
            sorted(
                [f"{self.name} b'a line'"] * 2
                + [f"{weather} b'a line'", f"{self.name} b''", f"{weather} b''"]
            ),
        )

    @shows("for name in mmapipc.channels():                  # not on Windows, which does not tell the names")
    @unittest.skipIf(WINDOWS, "POSIX only: names can be listed")
    def test_what_there_is(self, text):
        with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
            sender.write(b"0123456789")
            self.assertEqual(
                self.ends_well(self.snippet(text)).decode(), f"{self.name} no receiver {os.getpid()} 10\n"
            )
            sender.abort()

    @shows("asyncio.run(main())")
    def test_asyncio(self, text):
        self.prints_what_it_says(text, self.snippet(self.renamed(text)))

    @shows('with mmapipc.Mapping("table", 4096) as m:                # made, or opened: m.created')
    def test_a_mapping(self, text):
        Path("data.bin").write_bytes(bytes(123))
        self.prints_what_it_says(text, self.snippet(self.renamed(text, "table")))

    @shows('with mmapipc.Mapping(tagname="ShareMemoryTest", size=1 << 20) as m:   # opened, or made')
    def test_memory_of_any_program(self, text):
        text = self.renamed(text, "ShareMemoryTest")
        check = (
            f"    with mmapipc.Mapping(tagname={self.name!r}, create=False) as n: print(bytes(n.buf[:5]))\n"
        )
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
            children.append(self.start([*PYTHON, str(ROOT / script), *arguments]))
        self.ends_well(*children)
        self.assertEqual(Path("copy.jpg").read_bytes(), photo)


class ShellTest(ReadmeTest):
    """Has the tools that a shell's user has."""

    def setUp(self):
        super().setUp()
        tools = self.folder / "tools"
        tools.mkdir()
        python = shlex.join(PYTHON)
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


@unittest.skipIf(WINDOWS, "POSIX only: a shell")
class Commands(ShellTest):
    @shows("printf 'hello\\n' | python3 scripts/send.py greeting & python3 scripts/receive.py greeting")
    def test_one_terminal(self, text):
        self.assertEqual(self.ends_well(*self.terminals(text)), b"hello\n")

    @shows("mmapipc send disk disk.img --hash sha256")
    def test_a_file(self, text):
        Path("disk.img").write_bytes(noise(3_000_000))
        digest = hashlib.sha256(noise(3_000_000)).hexdigest()
        for child, path in zip(self.terminals(text, "disk"), ("disk.img", "copy.img")):
            self.assertEqual(self.ends_well(child).decode(), f"{digest}  {path}\n")
        self.assertEqual(Path("copy.img").read_bytes(), Path("disk.img").read_bytes())

    @shows("mmapipc send disk disk.img --progress")
    def test_progress(self, text):
        Path("disk.img").write_bytes(noise(3_000_000))
        sender, receiver = self.terminals(text, "disk")
        code, _, err = sender.end()
        self.assertEqual(code, 0, err)
        self.assertIn("sent 3000000 bytes (2.9 MiB) in ", err)
        self.ends_well(receiver)
        self.assertEqual(Path("copy.img").read_bytes(), Path("disk.img").read_bytes())

    @shows("head -c 3000000 /dev/zero | mmapipc send zeros --progress --size 3MB")
    def test_a_size(self, text):
        sender, receiver = self.terminals(text, "zeros")
        code, _, err = sender.end()
        self.assertEqual(code, 0, err)
        self.assertIn("sent 3000000 bytes (2.9 MiB) in ", err)
        self.ends_well(receiver)
        self.assertEqual(os.path.getsize("zeros.bin"), 3_000_000)

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
                    lambda size=size: os.path.exists("copy.iso") and os.path.getsize("copy.iso") == size,
                    "it is there",
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
            [*MMAPIPC, "receive", self.name],
            env={**os.environ, "MMAPIPC_DIR": str(self.folder)},
        )
        self.assertEqual(self.ends_well(sender, across, there), sent)
        self.assertEqual([each for each in os.listdir() if each.startswith("mmapipc.")], [])

    @shows(
        "mmapipc inspect --watch greeting   # the same, updated in place, with rates and a bar, "
        "until the channel ends"
    )
    def test_looking_inside(self, text):
        inspect, watch, listing, remove = self.renamed(text).splitlines()
        sender = self.send(stdin=subprocess.PIPE)
        sender.feed(b"12345")
        eventually(lambda: b"written   5 bytes" in self.shell(inspect).end()[1], "it is there")
        self.assertRegex(
            self.ends_well(self.shell(listing)).decode(),
            rf"\n{self.name}  no receiver +{sender.pid} +- +0 B +0 %\n",
        )
        watcher = self.shell(watch)
        self.assertIn("no receiver", watcher.line())
        sender.kill()
        self.assertIn("stale", self.ends_well(watcher).decode())
        self.assertIn("stale", self.ends_well(self.shell(listing)).decode())
        self.assertEqual(self.ends_well(self.shell(remove)), b"")
        self.assertEqual(self.ends_well(self.shell(listing)), b"")

    @shows(
        "mmapipc map --tagname ShareMemoryTest --create 1MiB                  # make it; hold it until Ctrl-C"
    )
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

    @shows("mmapipc receive greeting --file mailbox", README, "mmapipc/FILES.md")
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


@unittest.skipIf(WINDOWS, "POSIX only: a shell at a terminal")
class TwoTerminals(ShellTest, TerminalTest):
    @shows("$ mmapipc receive greeting                      # in another one, before or after that")
    def test_what_each_shows(self, text):
        (sending, waiting), (receiving, received) = session(self.renamed(text))
        sender = self.shell(f"exec >{self.tty} 2>&1; {sending}")
        seen = ""
        while len(seen) < len(waiting):
            seen += self.read().replace("\r\n", "\n")
        self.assertEqual(seen, waiting)
        self.assertEqual(self.ends_well(self.shell(receiving)), received.encode())
        self.assertEqual(self.ends_well(sender), b"")
