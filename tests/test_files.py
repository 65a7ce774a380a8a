"""`mmapipc.open`: buffered and text files over the ends."""

from __future__ import annotations

import copy
import csv
import gc
import io
import pickle
import shutil
import unittest
import warnings

import mmapipc
from mmapipc import files

from .helpers import DEADLINE, Background, ChannelTest, noise


class FileTest(ChannelTest):
    def setUp(self) -> None:
        super().setUp()
        self.opened: list = []
        self.addCleanup(lambda: [file.abort() for file in self.opened])

    def pair(self, kind: str = "b", **options):
        """A writing and a reading file of that kind; the pair before is given up."""
        for file in self.opened:
            file.abort()
        writer = mmapipc.open(self.name, "w" + kind, timeout=options.pop("timeout", DEADLINE), **options)
        self.opened = [writer]
        text = {name: options[name] for name in ("encoding", "errors", "newline") if name in options}
        reader = mmapipc.open(self.name, "r" + kind, timeout=DEADLINE, **text)
        self.opened.append(reader)
        return writer, reader

    def raw(self, file) -> mmapipc.Sender | mmapipc.Receiver:
        return file.raw if hasattr(file, "raw") else file.buffer.raw


class Modes(FileTest):
    def test_each_gives_the_file_that_io_has_for_it(self) -> None:
        kinds = {
            ("wb", "rb"): (io.BufferedWriter, io.BufferedReader),
            ("w", "r"): (io.TextIOWrapper, io.TextIOWrapper),
            ("wt", "rt"): (io.TextIOWrapper, io.TextIOWrapper),
        }
        for modes, classes in kinds.items():
            with mmapipc.open(self.name, modes[0], timeout=DEADLINE) as writer:
                with mmapipc.open(self.name, modes[1], timeout=DEADLINE) as reader:
                    for file, kind, mode in zip((writer, reader), classes, modes):
                        self.assertIsInstance(file, kind)
                        self.assertEqual((file.name, file.mode), (self.name, mode.rstrip("t")))
                        self.assertEqual((file.readable(), file.writable()), (mode[0] == "r", mode[0] == "w"))
                        self.assertFalse(file.seekable())
                        with self.assertRaises(OSError):
                            file.fileno()
                    writer.write(b"x" if "b" in modes[0] else "x")
                    closing = Background(writer.close)
                    reader.read()
                    closing.result()

    def test_reading_is_what_is_done_without_a_mode(self) -> None:
        with mmapipc.open(self.name, "wb", buffering=0, timeout=DEADLINE) as sender:
            self.assertIs(type(sender), mmapipc.Sender)
            with mmapipc.open(self.name, timeout=DEADLINE) as reader:
                self.assertIs(type(reader), files.BufferedReceiver)
            sender.abort()
        with mmapipc.open(self.name, "wb", buffering=0, timeout=DEADLINE) as sender:
            with mmapipc.open(self.name, buffering=0, timeout=DEADLINE) as receiver:
                self.assertIs(type(receiver), mmapipc.Receiver)

    def test_what_is_refused(self) -> None:
        for mode in ("", "b", "t", "a", "ab", "x", "r+", "rb+", "w+b", "br", "rbt", "U", "rw"):
            with self.assertRaisesRegex(ValueError, f"{self.name}: the mode must be"):
                mmapipc.open(self.name, mode)
        for mode in ("rb", "wb"):
            for option in ("encoding", "errors", "newline"):
                with self.assertRaisesRegex(ValueError, f"{self.name}: a binary file has no {option}"):
                    mmapipc.open(self.name, mode, **{option: "x"})
        for mode in ("r", "w"):
            with self.assertRaisesRegex(ValueError, "buffering=0"):
                mmapipc.open(self.name, mode, buffering=0)
            with self.assertRaises(LookupError):
                mmapipc.open(self.name, mode, encoding="no such encoding")
        with self.assertRaises(TypeError):
            mmapipc.open(self.name, "rb", capacity=100)
        with self.assertRaises(mmapipc.ChannelTimeout):
            mmapipc.open(self.name, "r", timeout=0)

    def test_what_io_refuses_late_gives_the_stream_up(self) -> None:
        with self.assertRaises((LookupError, ValueError)):
            mmapipc.open(self.name, "w", newline="no newline", timeout=DEADLINE)

    def test_lines_at_once_are_for_text(self) -> None:
        for mode in ("wb", "rb"):
            with self.assertWarnsRegex(RuntimeWarning, f"{self.name}: .*line buffering.*text"):
                with self.assertRaises((mmapipc.InvalidCapacity, TypeError)):
                    mmapipc.open(self.name, mode, buffering=1, capacity=0)

    def test_the_classes_take_what_those_of_io_take(self) -> None:
        with self.both() as (sender, receiver):
            writer = files.TextSender(files.BufferedSender(raw=sender, buffer_size=10), line_buffering=True)
            reader = files.TextReceiver(
                files.BufferedReceiver(raw=receiver, buffer_size=10), write_through=True
            )
            writer.write("a line\n")
            self.assertEqual(reader.readline(), "a line\n")
            writer.abort()
            reader.abort()

    def test_options_reach_the_ends(self) -> None:
        lost = []
        path = str(self.folder / "ring")
        options = {"capacity": 77, "persist": True, "file": path, "on_lost": lost.append}
        with mmapipc.open(self.name, "wb", timeout=0.5, **options) as writer:
            self.assertEqual((writer.raw.capacity, writer.raw.timeout), (77, 0.5))
            writer.write(b"kept")
        with mmapipc.open(self.name, file=path, timeout=DEADLINE) as reader:
            self.assertEqual(reader.read(), b"kept")


class Moving(FileTest):
    def test_everything_arrives(self) -> None:
        for capacity in (1, 100, 1 << 20):
            with self.subTest(capacity=capacity):
                sent = noise(2000 if capacity == 1 else 300_000)
                writer, reader = self.pair(capacity=capacity)

                def produce(writer=writer, sent=sent) -> None:
                    with writer:
                        for first in range(0, len(sent), 777):
                            writer.write(sent[first : first + 777])

                producing = Background(produce)
                self.assertEqual(reader.read(10), sent[:10])
                self.assertEqual(reader.peek(1)[:1], sent[10:11])
                self.assertEqual(reader.read(), sent[10:])
                self.assertEqual(reader.read(), b"")
                producing.result()
                reader.close()

    def test_lines(self) -> None:
        lines = [noise(size).replace(b"\n", b" ") + b"\n" for size in range(300)] + [
            b"the last one has no end"
        ]
        writer, reader = self.pair(capacity=64)
        producing = Background(lambda: (writer.writelines(lines), writer.close()))
        self.assertEqual(next(reader), lines[0])
        self.assertEqual(list(reader), lines[1:])
        producing.result()

    def test_text(self) -> None:
        writer, reader = self.pair("", encoding="utf-8", newline=None)
        lines = ["plain\n", "ä€😀\n", "\n", "end"]
        producing = Background(lambda: (writer.writelines(lines), writer.close()))
        self.assertEqual(next(reader), lines[0])
        self.assertEqual(list(reader), lines[1:])
        with self.assertRaises(StopIteration):
            next(reader)
        producing.result()

    def test_a_line_at_once(self) -> None:
        writer, reader = self.pair("t", encoding="utf-8", buffering=1)
        writer.write("one\ntwo")
        self.assertEqual(reader.readline(), "one\n")

    def test_pickle_copyfileobj_and_csv(self) -> None:
        things = [list(range(1000)), {"a": noise(5000)}, "x" * 10_000]
        writer, reader = self.pair(capacity=100)

        def produce() -> None:
            with writer:
                for thing in things:
                    pickle.dump(thing, writer)
                shutil.copyfileobj(io.BytesIO(b"copied"), writer)

        producing = Background(produce)
        self.assertEqual([pickle.load(reader) for _ in things], things)
        copy = io.BytesIO()
        shutil.copyfileobj(reader, copy)
        self.assertEqual(copy.getvalue(), b"copied")
        producing.result()
        reader.close()
        writer, reader = self.pair("", encoding="utf-8", newline="")
        rows = [["a", "b\nc"], ["", "ü"]]
        producing = Background(lambda: (csv.writer(writer).writerows(rows), writer.close()))
        self.assertEqual(list(csv.reader(reader)), rows)
        producing.result()


class Ends(FileTest):
    def test_an_attempt_to_pickle_or_copy_does_no_harm(self) -> None:
        for kind, item in (("b", b"x"), ("", "x")):
            writer, reader = self.pair(kind)
            for file in (writer, reader, self.raw(writer), self.raw(reader)):
                for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                    with self.assertRaisesRegex(TypeError, "pickle"):
                        pickle.dumps(file, protocol)
                with self.assertRaisesRegex(TypeError, "pickle"):
                    copy.copy(file)
            writer.write(item)
            writer.flush()
            self.assertEqual(reader.read(1), item)

    def test_an_exception_that_leaves_the_block_gives_the_stream_up(self) -> None:
        for kind, data in (("b", b"part"), ("", "part")):
            for flushes in (True, False):
                with self.subTest(kind=kind, flushes=flushes):
                    writer, reader = self.pair(kind)
                    with self.assertRaises(KeyError), writer:
                        writer.write(data)
                        if flushes:
                            writer.flush()
                        raise KeyError
                    self.assertTrue(writer.closed)
                    with self.assertRaises(mmapipc.StreamAborted):
                        reader.read()
                    reader.close()

    def test_a_reader_too(self) -> None:
        writer, reader = self.pair()
        with self.assertRaises(KeyError), reader:
            writer.write(b"x" * (files.BUFFER_SIZE - 1))
            raise KeyError
        with self.assertRaises(mmapipc.ReceiverGone) as caught:
            writer.close()
        self.assertNotIsInstance(caught.exception, mmapipc.ReceiverLeft)

    def test_collected_without_close(self) -> None:
        for kind, data in (("b", b"part"), ("", "part")):
            with self.subTest(kind=kind), warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                writer = mmapipc.open(self.name, "w" + kind, timeout=DEADLINE)
                with mmapipc.open(self.name, timeout=DEADLINE) as reader:
                    writer.write(data)
                    del writer
                    gc.collect()
                    with self.assertRaises(mmapipc.StreamAborted):
                        reader.read()
                self.assertEqual([warning.category for warning in told], [ResourceWarning])

    def test_a_close_that_is_interrupted_gives_the_stream_up(self) -> None:
        for kind, data in (("b", b"part"), ("", "part")):
            with self.subTest(kind=kind):
                writer, reader = self.pair(kind)
                writer.write(data)

                def interrupted(data: object) -> int:
                    raise KeyboardInterrupt  # as a signal handler may, before the first step of `write`

                self.raw(writer).write = interrupted
                with self.assertRaises(KeyboardInterrupt):
                    writer.close()
                self.assertTrue(writer.closed)
                with self.assertRaises(mmapipc.StreamAborted):
                    reader.read()

    def test_a_closed_one_is_not_looped_over(self) -> None:
        for kind in ("b", ""):
            _, reader = self.pair(kind)
            reader.close()
            with self.assertRaisesRegex(ValueError, "closed"):
                iter(reader)

    def test_a_failed_write_is_final(self) -> None:
        for kind, data in (("b", b"abcdefgh"), ("", "abcdefgh")):
            with self.subTest(kind=kind):
                writer, reader = self.pair(kind, capacity=8, timeout=0, buffering=2)
                writer.write(data)
                writer.flush()
                with self.assertRaises(mmapipc.ChannelTimeout):
                    for _ in range(3):
                        writer.write(data)
                        writer.flush()
                self.assertEqual(reader.read(8), data)
                self.raw(writer).timeout = DEADLINE
                with self.assertRaises((ValueError, OSError)):
                    writer.close()
                with self.assertRaises(mmapipc.StreamAborted):
                    reader.read()
                reader.close()


class Timeouts(FileTest):
    def test_a_read_that_timed_out_is_not_gone_on_with(self) -> None:
        reads = {
            "b": (lambda f: f.read(6), lambda f: f.readline(), lambda f: f.read(), lambda f: list(f)),
            "": (lambda f: f.read(6), lambda f: f.readline(), lambda f: f.read(), lambda f: list(f)),
        }
        for kind, calls in reads.items():
            for call in calls:
                with self.subTest(kind=kind, call=call):
                    writer, reader = self.pair(kind)
                    sender, receiver = self.raw(writer), self.raw(reader)
                    receiver.timeout = 0
                    sender.write(b"foo")
                    with self.assertRaises(mmapipc.ChannelTimeout):
                        call(reader)
                    sender.write(b"bar\n")
                    for again in (*calls, lambda f: f.poll()):
                        with self.assertRaises(mmapipc.ReadFailed):
                            again(reader)
                    reader.abort()
                    writer.abort()

    def test_polling_goes_on(self) -> None:
        for kind, lines in (("b", [b"one\n", b"two\n", b"three\n"]), ("", ["one\n", "two\n", "three\n"])):
            with self.subTest(kind=kind):
                writer, reader = self.pair(kind)
                self.assertFalse(reader.poll())
                self.assertFalse(reader.poll(0.01))
                self.assertTrue(writer.poll())
                self.raw(writer).write(b"one\ntwo\nthree\n")
                self.raw(reader).timeout = 0
                for line in lines:
                    self.assertTrue(reader.poll(DEADLINE))
                    self.assertEqual(reader.readline(), line)
                self.assertFalse(reader.poll())
                self.raw(writer).finish()
                self.assertTrue(reader.poll(None))
                self.assertFalse(reader.readline())
                reader.close()
                writer.close()

    def test_polling_counts_characters_and_no_parts_of_them(self) -> None:
        for encoding in ("utf-8", "utf-16-le", "utf-32", "latin-1"):
            for newline in (None, "", "\n"):
                with self.subTest(encoding=encoding, newline=newline):
                    writer, reader = self.pair("", encoding=encoding, newline=newline)
                    sender = self.raw(writer)
                    self.raw(reader).timeout = 0
                    text = "aé€😀b\r\nc" if encoding != "latin-1" else "aéb\r\nc"
                    read = ""
                    for byte in text.encode(encoding):
                        sender.write(bytes([byte]))
                        while reader.poll():
                            try:
                                read += reader.read(1)
                            except mmapipc.ChannelTimeout:
                                break  # a part of a character: the file knows of it now
                        if reader.buffer.raw._link.half._refuses:
                            reader.buffer.raw.poll()  # nothing is lost by the read of a part
                    self.assertEqual(read, text.replace("\r\n", "\n") if newline is None else text)
                    sender.abort()
                    reader.abort()

    def test_polling_knows_of_reconfigured_newlines(self) -> None:
        writer, reader = self.pair("", encoding="ascii", newline=None)
        reader.reconfigure(newline="\n")
        reader.reconfigure(errors="replace")
        self.raw(writer).write(b"a\r")
        self.assertEqual(reader.read(1), "a")
        self.assertTrue(reader.poll())  # that is a character now, whatever follows
        self.assertEqual(reader.read(1), "\r")


if __name__ == "__main__":
    unittest.main()
