"""The header's bytes: what is refused, which file of a user's is a ring, and what LAYOUT.md says of them."""

import os
import re
import sys
import unittest
from pathlib import Path

import mmapipc
from mmapipc._meeting import homes, waiting
from mmapipc._ring import layout, states
from mmapipc._system import claims, names, system
from mmapipc.errors import LayoutError, UnsafeMemory

from .helpers import WINDOWS, ChannelTest, noise
from .test_ring import Ring, nothing


class Headers(unittest.TestCase):
    def test_a_wrong_header_is_refused_with_its_reason(self):
        for word, value, reason in (
            (layout.MAGIC, 1, "not an mmapipc channel"),
            (layout.MAGIC, int.from_bytes(b"mmapipc\x09", "little"), "layout version 9"),
            (layout.CAPACITY, 0, "damaged"),
            (layout.CAPACITY, 2**64 - 1, "damaged"),
            (layout.HEADER_BYTES, 8192, "damaged"),
            (layout.FLAGS, 2, "damaged"),
        ):
            with self.subTest(word=word, value=value):
                words = Ring(5).words
                words[word] = value
                with self.assertRaisesRegex(LayoutError, reason):
                    layout.validate(words, "x")
        header = layout.validate(Ring(5).words, "x")
        self.assertEqual((header.capacity, header.stream_id, header.persistent), (5, 7, False))

    def test_sequences_that_cannot_be(self):
        for read, write in ((1, 0), (0, 6), (2**62, 2**62 + 1)):
            ring = Ring(5)
            ring.words[layout.READ_SEQ], ring.words[layout.WRITE_SEQ] = read, write
            with self.assertRaises(LayoutError):
                layout.load_sequences(ring.words, 5, "x")


def page(capacity: int = 5) -> bytearray:
    """The first page of a ring."""
    return Ring(capacity).memory[: layout.HEADER_SIZE]


def of_version(version: int) -> bytearray:
    """The first page of a ring of that version."""
    first = page()
    first[:8] = b"mmapipc" + bytes([version])
    return first


class Ours(unittest.TestCase):
    """A file is ours only if all that is there is ours."""

    def test_a_ring_is(self):
        begun = memoryview(bytearray(page())).cast("Q")
        states.clear(begun, layout.owner("x"), nothing)
        for ours in (
            page(),
            layout.BEGUN_MARK,
            layout.BEGUN_MARK + bytes(100),
            layout.BEGUN_MARK + bytes(layout.HEADER_SIZE - 8),
            begun.cast("B"),
            of_version(1),
        ):
            with self.subTest(bytes(ours[:16])):
                self.assertTrue(layout.is_ours(memoryview(ours)))

    def test_what_only_begins_like_one_is_not(self):
        unused = page()
        unused[2000] = 1
        for theirs in (
            b"",
            b"mmapipc",
            b"mmapipc is a tool\n",
            b"mmapipc\0 is a tool\n",
            b"mmapipc\0" + b"x" * 5000,
            b"mmapipc " + b"x" * 5000,
            b"mmapipc" + bytes([layout.VERSION]) + bytes(5000),
            bytes(unused),
            noise(layout.HEADER_SIZE),
        ):
            with self.subTest(theirs[:16]):
                self.assertFalse(layout.is_ours(memoryview(theirs[: layout.HEADER_SIZE])))


class Versions(ChannelTest):
    def refused(self, **options: str) -> None:
        for kind in (mmapipc.Sender, mmapipc.Receiver):
            with self.assertRaises(LayoutError) as caught:
                kind(self.name, timeout=0, **options)
            self.assertEqual(
                str(caught.exception),
                f"{self.name}: the channel has layout version 1, this mmapipc has {layout.VERSION}; "
                "use the same version of mmapipc at both ends",
            )

    def test_a_file_of_version_1(self):
        content = bytes(of_version(1)) + bytes(5)
        path = self.file(content)
        self.refused(file=path)
        self.assertEqual(Path(path).read_bytes(), content)

    def test_memory_of_version_1(self):
        memory = system.create(system.place(self.name), layout.HEADER_SIZE + 5)
        with memory.map(layout.HEADER_SIZE) as mapped:
            states.begin(memoryview(mapped).cast("Q"), layout.Header(5, 7, False), 1, nothing)
            mapped[:8] = b"mmapipc\x01" if sys.byteorder == "little" else b"\x01cpipamm"
            self.refused()
        memory.close()
        system.remove(system.place(self.name))


DOCUMENT = (Path(mmapipc.__file__).parent / "LAYOUT.md").read_text("utf-8")


def sections(text: str) -> set[str]:
    """The sections that a text cites."""
    cited = re.findall(r"[Ss]ections? ([\d.]+\d|\d)((?:, [\d.]*\d)*)", text)
    return {number for first, more in cited for number in (first, *more.split(", ")[1:])}


def rows(*titles: str) -> list[list[str]]:
    """The rows of all tables of the document whose first columns have these titles."""
    found = []
    inside = False
    for line in DOCUMENT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" |")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif inside and "---" not in cells:
            found.append(cells)
        elif cells[: len(titles)] == list(titles):
            inside = True
    assert found, titles
    return found


def value(cell: str) -> object:
    """What a cell says: a number, the name that is in it, or bytes."""
    if cell.startswith("`"):
        return cell.strip("`")
    if re.fullmatch(r"([0-9A-F]{2} )+[0-9A-F]{2}", cell):
        return bytes.fromhex(cell)
    assert re.fullmatch(r"[0-9a-fox^*+. -]+", cell), cell
    return eval(cell.replace("^", "**"))


class Document(ChannelTest):
    """LAYOUT.md and the code say the same."""

    def test_every_number_is_that_of_the_code(self):
        expected = {
            "HEADER_SIZE": layout.HEADER_SIZE,
            "VERSION": layout.VERSION,
            "MAGIC": layout._MAGIC.to_bytes(8, sys.byteorder),
            "BEGUN": layout.BEGUN_MARK,
            "PERSISTENT": layout._PERSISTENT,
            "LARGEST_CAPACITY": layout.LARGEST_CAPACITY,
            "LARGEST_SEQUENCE": layout._LARGEST_SEQUENCE,
            "LARGEST_PID": layout._LARGEST_PID,
            "LONGEST_NAME": names.LONGEST_NAME,
            "FIRST_PARK": waiting._FIRST_PARK,
            "LONGEST_PARK": waiting._LONGEST_PARK,
            "LONGEST_WATCHED_PARK": waiting._LONGEST_WATCHED_PARK,
            "LONGEST_NAP": waiting._LONGEST_NAP,
            "LONGEST_SEARCH": waiting._LONGEST_SEARCH,
            "PROBE": waiting._PROBE_EVERY,
            "TIDYING": claims._TIDYING,
            "LINGER": homes._LINGER,
            "CHANGER_TAG": names.Place("", "").of(names.CHANGER),
        }
        self.assertEqual(waiting._PARK_GROWTH, 2)  # "twice as long"
        # What only one system has, or what no name of the code has: see the tests below.
        elsewhere = {"PRIVATE", "FOREIGN", "SERIAL_DIGITS", "INDEX_DIGITS", "LARGEST_OWNER"}
        posix = {"SENDER_RANGE", "RECEIVER_RANGE", "CHANGER_RANGE", "ALL_RANGES"}
        linux = {"GLOBAL_EXPEDITED", "REGISTER_GLOBAL_EXPEDITED"}
        windows = {
            "SEMAPHORE_QUERY_STATE",
            "SemaphoreBasicInformation",
            "SYNCHRONIZE",
            "LARGEST_WINDOWS_PID",
        }
        if WINDOWS:
            from mmapipc._system.windows import roles, win32

            expected |= {
                "SEMAPHORE_QUERY_STATE": win32.SEMAPHORE_QUERY_STATE,
                "SemaphoreBasicInformation": win32.SEMAPHORE_BASIC_INFORMATION,
                "SYNCHRONIZE": win32.SYNCHRONIZE,
                "LARGEST_WINDOWS_PID": roles._LARGEST_PID,
            }
            elsewhere |= posix | linux
        else:
            from mmapipc._system.posix import roles

            for role in names.ROLES:
                expected[f"{role.upper()}_RANGE"] = roles._FIRST[role]
            self.assertEqual(roles._ALL[0], roles._FIRST[names.SENDER])
            expected["ALL_RANGES"] = roles._ALL[1]
            elsewhere |= windows
            if sys.platform == "linux":
                from mmapipc._system.posix import linux as fences

                expected |= {
                    "GLOBAL_EXPEDITED": fences._GLOBAL_EXPEDITED,
                    "REGISTER_GLOBAL_EXPEDITED": fences._REGISTER_GLOBAL_EXPEDITED,
                }
            else:
                elsewhere |= linux
        said = {name.strip("`"): value(number) for name, number, *_ in rows("name", "value")}
        self.assertEqual({name: number for name, number in said.items() if name not in elsewhere}, expected)
        self.assertLessEqual(elsewhere, said.keys())

    def test_no_number_stands_outside_of_what_is_compared(self):
        terms = r"UTF-8|CRC-32|64-bit|32-bit|x86-64|uint64_t|^\d+\. "
        for line in DOCUMENT.splitlines():
            cells = line.strip("|").split(" |")
            if line.startswith("#"):
                continue
            if line.startswith("|"):
                # The first two columns are compared, or are words.
                if not re.match(r"\| (\d+|2 \* known \+ 1|`\w+`) \|", line):
                    self.assertNotRegex(re.sub(terms, "", cells[0]), r"\d", line)
                    self.assertNotRegex(re.sub(rf"{terms}|[Ss]ections? [\d.]+", "", cells[1]), r"\d", line)
                line = " ".join(cells[2:])
            line = re.sub(r"[Ss]ections? [\d.]+(, [\d.]+)*", "", line)
            self.assertNotRegex(re.sub(terms, "", line), r"\d")

    def test_sections_that_it_cites(self):
        there = set(re.findall(r"^##+ ([\d.]*\d)", DOCUMENT, re.MULTILINE))
        self.assertLessEqual(sections(DOCUMENT), there)
        self.assertGreater(len(sections(DOCUMENT)), 10)

    def test_fields(self):
        fields = [
            *("magic", "header_bytes", "capacity", "stream_id", "flags", "owner", "write_seq", "read_seq"),
            *("sender_state", "sender_pid", "sender_calls"),
            *("receiver_state", "receiver_pid", "receiver_calls", "receivers"),
        ]
        expected = {field: 8 * getattr(layout, field.upper()) for field in fields}
        expected["unused"] = 8 * layout._UNUSED
        said = {name.strip("`"): value(place) for place, name, *_ in rows("offset", "field")}
        self.assertEqual(said, expected)

    def test_nothing_is_stored_anywhere_else(self):
        places = {value(place) for place, *_ in rows("offset", "field")}
        with mmapipc.Sender(self.name, capacity=5, timeout=0) as sender:
            with mmapipc.Receiver(self.name, timeout=0) as receiver:
                sender.write(b"abc")
                receiver.read(2)
                words = sender._link.mapped.words
                stored = {8 * word for word in range(len(words)) if words[word]}
                receiver.read(1)
        self.assertLess(stored, places)
        self.assertGreater(len(stored), 10)

    def test_states(self):
        for number, name, *sides in rows("value", "name", "of the sender"):
            state = value(number)
            self.assertEqual(layout.STATE_NAMES[state], name)
            for side, its_states in zip(sides, (layout._SENDER_STATES, layout._RECEIVER_STATES)):
                self.assertEqual(state in its_states, not re.match(r"no\b", side), (name, side))
        self.assertEqual(len(rows("value", "name", "of the sender")), len(layout.STATE_NAMES))

    def test_calls(self):
        said = {name: number for number, name, _ in rows("value", "name", "meaning")}
        self.assertEqual(value(said.pop("none")), 0)
        self.assertEqual(value(said.pop("left")), layout.LEFT)
        parked = said.pop("parked")
        self.assertEqual(said, {})
        for known in (0, 1, 2**62):
            self.assertEqual(eval(parked, {"known": known}), layout.parked(known))

    def number(self, name: str) -> object:
        """What the document says for that name."""
        (found,) = [number for title, number, *_ in rows("name", "value") if title == f"`{name}`"]
        return value(found)

    def test_the_largest_owner(self):
        largest = self.number("LARGEST_OWNER")
        for owner, ours in ((largest, True), (largest + 1, False)):
            begun = memoryview(bytearray(page())).cast("Q")
            states.clear(begun, owner, nothing)
            self.assertEqual(layout.is_ours(begun.cast("B")), ours)

    @unittest.skipIf(WINDOWS, "POSIX: modes of files")
    def test_modes(self):
        with mmapipc.Sender(self.name, timeout=0, persist=True) as sender:
            modes = {os.stat(self.memory / name).st_mode & 0o777 for name in os.listdir(self.memory)}
            self.assertEqual(modes, {self.number("PRIVATE")})
            place = system.place(self.name)
            for bit in (1 << number for number in range(9)):
                os.chmod(place.location, self.number("PRIVATE") | bit)
                if bit & self.number("FOREIGN"):
                    self.assertRaises(UnsafeMemory, system.open_existing, place)
                else:
                    system.open_existing(place).close()
            os.chmod(place.location, self.number("PRIVATE"))
            sender.abort()

    @unittest.skipUnless(WINDOWS, "Windows: tags of a file's roles")
    def test_tags_of_files(self):
        from mmapipc._system.windows import roles

        path = self.file(b"x")
        serial, index = self.number("SERIAL_DIGITS"), self.number("INDEX_DIGITS")
        self.assertRegex(
            roles._file_tags(names.Place("x", path)).location,
            rf"^Global\\mmapipc-file\.[0-9A-F]{{{serial}}}\.[0-9A-F]{{{index}}}$",
        )
