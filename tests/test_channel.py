"""Sender and Receiver: bytes, views, raw files, timeouts."""

import array
import contextlib
import errno
import gc
import io
import os
import pickle
import shutil
import sys
import threading
import time
import unittest
import warnings
from unittest import mock

import mmapipc
from mmapipc._meeting import waiting
from mmapipc._ring import layout
from mmapipc._system import names, system
from mmapipc._system.claims import Claiming

from .helpers import DEADLINE, WINDOWS, Background, ChannelTest, eventually, noise


@contextlib.contextmanager
def unraisable_ignored():
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


class Streaming(ChannelTest):
    def test_every_capacity_carries_the_stream_between_threads(self):
        sent = noise(20_000)
        for capacity in (1, 2, 3, 7, 4095, 4096, 4097, 65536, 1 << 20):
            with self.subTest(capacity=capacity), self.both(capacity=capacity) as (sender, receiver):
                size = 2000 if capacity < 4 else len(sent)

                def produce():
                    sender.write(sent[:size])
                    sender.close()

                writer = Background(produce)
                self.assertEqual(receiver.read(), sent[:size])
                writer.result()

    def test_both_ends_in_one_thread(self):
        with mmapipc.Sender(self.name, capacity=8, timeout=DEADLINE) as sender:
            with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                self.assertEqual((sender.name, sender.capacity, receiver.capacity), (self.name, 8, 8))
                for turn in range(20):
                    self.assertEqual(sender.write(b"abcde"), 5)
                    self.assertEqual(sender.tell(), 5 * turn + 5)
                    self.assertEqual(receiver.tell(), 5 * turn)
                    got = receiver.read(100)
                    self.assertEqual(got, b"abcde"[: len(got)])
                    while len(got) < 5:
                        got += receiver.read(100)
                    self.assertEqual(got, b"abcde")
                sender.finish()
                self.assertEqual(receiver.read(1), b"")
                self.assertEqual(receiver.readinto(bytearray(1)), 0)
                self.assertEqual(len(receiver.peek(1)), 0)

    def test_any_buffer(self):
        for data in (
            b"bytes",
            bytearray(b"bytearray"),
            memoryview(b"view"),
            array.array("I", [1, 2, 3]),
            memoryview(array.array("d", [1.5] * 6)).cast("B").cast("d", (2, 3)),
            memoryview(bytes(range(6))).cast("B", (2, 3)),
            memoryview(b"every other byte")[::2],
            memoryview(array.array("I", range(10)))[::3],
            pickle.PickleBuffer(b"pickle"),
            b"",
            array.array("I"),
        ):
            with self.subTest(data=data), self.both(capacity=100) as (sender, receiver):
                whole = memoryview(data).tobytes()
                self.assertEqual(sender.write(data), len(whole))
                sender.finish()
                self.assertEqual(receiver.read(), whole)
        with self.both() as (sender, _):
            for wrong in ("text", 5, None, [1, 2]):
                with self.assertRaises(TypeError):
                    sender.write(wrong)

    def test_readinto_any_writable_buffer(self):
        with self.both() as (sender, receiver):
            sender.write(bytes(range(16)))
            numbers = array.array("I", [0, 0])
            self.assertEqual(receiver.readinto(numbers), 8)
            self.assertEqual(numbers.tobytes(), bytes(range(8)))
            self.assertEqual(receiver.readinto(bytearray()), 0)
            self.assertEqual(receiver.readinto(memoryview(bytearray(4)).cast("B", (2, 2))), 4)
            with self.assertRaises((TypeError, BufferError)):
                receiver.readinto(b"fixed")
            self.assertEqual(receiver.read(0), b"")
            self.assertEqual(receiver.tell(), 12)


class Views(ChannelTest):
    def test_reserve_and_commit(self):
        with self.both(capacity=8) as (sender, receiver):
            view = sender.reserve(100)
            self.assertEqual((len(view), view.readonly), (8, False))
            view[:3] = b"abc"
            sender.commit(3)
            self.assertEqual(sender.tell(), 3)
            with self.assertRaises(ValueError):
                view[0]
            self.assertEqual(receiver.read(9), b"abc")
            self.assertEqual(len(sender.reserve(4)), 4)
            self.assertEqual(len(sender.reserve(100)), 5)
            sender.commit(0)
            self.assertEqual(sender.tell(), 3)
            for wrong in (1, -1):
                with self.assertRaises(ValueError):
                    sender.commit(wrong)
            sender.reserve(2)
            with self.assertRaises(ValueError):
                sender.commit(3)
            with self.assertRaises(ValueError):
                sender.write(b"x")
            sender.commit(0)
            for wrong in (0, -1):
                with self.assertRaises(ValueError):
                    sender.reserve(wrong)

    def test_peek_and_consume(self):
        with self.both(capacity=8) as (sender, receiver):
            sender.write(b"abcdef")
            view = receiver.peek(4)
            self.assertEqual((bytes(view), view.readonly), (b"abcd", True))
            self.assertEqual(bytes(receiver.peek(100)), b"abcdef")
            with self.assertRaises(ValueError):
                view[0]
            view = receiver.peek(100)
            receiver.consume(2)
            with self.assertRaises(ValueError):
                view[0]
            self.assertEqual(receiver.tell(), 2)
            for wrong in (1, -1):
                with self.assertRaises(ValueError):
                    receiver.consume(wrong)
            sender.write(b"ghij")
            self.assertEqual(bytes(receiver.peek(100)), b"cdefgh")
            receiver.consume(6)
            self.assertEqual(bytes(receiver.peek(100)), b"ij")
            view = receiver.peek(1)
            self.assertEqual(receiver.read(1), b"i")
            with self.assertRaises(ValueError):
                view[0]

    def test_views_are_released_by_close(self):
        with self.both(capacity=8) as (sender, receiver):
            free = sender.reserve(2)
            sender.commit(2)
            free, unread = sender.reserve(2), receiver.peek(2)
            sender.abort()
            receiver.close()
            for view in (free, unread):
                with self.assertRaises(ValueError):
                    view[0]

    def test_what_is_built_on_a_view_keeps_it(self):
        with self.both(capacity=8) as (sender, receiver):
            view = sender.reserve(4)
            built = pickle.PickleBuffer(view)
            with self.assertRaises(BufferError):
                sender.commit(4)
            self.assertEqual(sender.tell(), 0)
            built.release()
            sender.commit(4)
            built = pickle.PickleBuffer(receiver.peek(4))
            with self.assertRaises(BufferError):
                receiver.consume(1)
            built.release()
            receiver.consume(1)
            self.assertEqual(receiver.tell(), 1)


class RawFiles(ChannelTest):
    def test_capabilities(self):
        with self.both() as (sender, receiver):
            self.assertEqual((sender.writable(), sender.readable(), sender.seekable()), (True, False, False))
            self.assertEqual(
                (receiver.writable(), receiver.readable(), receiver.seekable()), (False, True, False)
            )
            for end in (sender, receiver):
                self.assertIsInstance(end, io.RawIOBase)
                self.assertFalse(end.isatty())
                with self.assertRaises(io.UnsupportedOperation):
                    end.fileno()
            for call in (sender.read, sender.readline, lambda: sender.read(1), lambda: receiver.write(b"x")):
                with self.assertRaises(io.UnsupportedOperation):
                    call()

    def test_what_an_end_tells_of_itself(self):
        with mmapipc.Sender(self.name, capacity=10, timeout=DEADLINE) as sender:
            sender.write(b"abcde")
            self.assertFalse(sender.attached)
            self.assertEqual(
                repr(sender), f"<mmapipc.Sender {self.name!r} at byte 5, 5 of 10 in flight, no receiver>"
            )
            with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                receiver.read(2)
                self.assertEqual((sender.in_flight, receiver.in_flight), (3, 3))
                self.assertTrue(sender.attached and receiver.attached)
                told = f"{self.name!r} at byte %d, 3 of 10 in flight, %s attached>"
                self.assertEqual(repr(sender), "<mmapipc.Sender " + told % (5, "receiver"))
                self.assertEqual(repr(receiver), "<mmapipc.Receiver " + told % (2, "sender"))
                sender.finish()
                self.assertFalse(receiver.attached)
                receiver.read(3)
        with self.both() as (sender, receiver):
            sender._link.half.words[layout.RECEIVER_STATE] = 99
            self.assertEqual(repr(sender), f"<mmapipc.Sender {self.name!r} damaged>")
            sender._link.half.words[layout.RECEIVER_STATE] = layout.OPEN
        for end in (sender, receiver):
            self.assertEqual(repr(end), f"<mmapipc.{type(end).__name__} {self.name!r} closed>")

    def test_after_close_every_call_raises_value_error(self):
        with self.both() as (sender, receiver):
            sender.finish()
            for call in (lambda: sender.write(b"x"), lambda: sender.reserve(1), lambda: sender.commit(0)):
                with self.assertRaises(ValueError):
                    call()
            sender.close()
            receiver.close()
            for end in (sender, receiver):
                self.assertTrue(end.closed)
                end.close()
                for ask in ("in_flight", "attached", "capacity"):
                    with self.assertRaises(ValueError):
                        getattr(end, ask)
            for call in (
                lambda: sender.write(b"x"),
                lambda: sender.write(b""),
                lambda: sender.writelines([b"x"]),
                lambda: sender.reserve(1),
                lambda: sender.commit(0),
                sender.tell,
                sender.finish,
                sender.flush,
                sender.writable,
                sender.readable,
                sender.seekable,
                lambda: sender.read(1),
                sender.isatty,
                sender.fileno,
                sender.__enter__,
                lambda: receiver.read(1),
                receiver.read,
                receiver.readall,
                receiver.readline,
                receiver.readlines,
                lambda: next(receiver),
                lambda: receiver.readinto(bytearray(1)),
                lambda: receiver.peek(1),
                lambda: receiver.consume(0),
                receiver.tell,
                receiver.readable,
                receiver.writable,
                lambda: receiver.write(b"x"),
                receiver.seekable,
                receiver.fileno,
                receiver.__enter__,
            ):
                with self.assertRaises(ValueError):
                    call()
            sender.abort()

    def test_lines(self):
        text = b"one\n\ntwo, longer than the ring\nlast"
        with self.both(capacity=5) as (sender, receiver):
            writer = Background(lambda: (sender.write(text), sender.close()))
            self.assertEqual(list(receiver), text.splitlines(keepends=True))
            writer.result()
        with self.both() as (sender, receiver):
            sender.write(text)
            self.assertEqual(
                [receiver.readline(2), receiver.readline(2), receiver.readline(0)], [b"on", b"e\n", b""]
            )

    def test_buffered_and_text_wrappers(self):
        lines = [f"line {number} ü\n" for number in range(3000)]
        for wrap_sender, wrap_receiver in (
            (io.BufferedWriter, io.BufferedReader),
            (lambda raw: raw, lambda raw: raw),
        ):
            with self.both(capacity=1000) as (sender, receiver):

                def produce():
                    with io.TextIOWrapper(wrap_sender(sender), "utf-8", newline="\n") as out:
                        out.writelines(lines)

                writer = Background(produce)
                with io.TextIOWrapper(wrap_receiver(receiver), "utf-8", newline="\n") as text:
                    self.assertEqual(list(text), lines)
                writer.result()

    def test_copyfileobj(self):
        sent = noise(300_000)
        with self.both(capacity=5000) as (sender, receiver):
            writer = Background(lambda: (shutil.copyfileobj(io.BytesIO(sent), sender), sender.close()))
            got = io.BytesIO()
            shutil.copyfileobj(receiver, got)
            writer.result()
            self.assertEqual(got.getvalue(), sent)

    def test_pickle(self):
        things = [{"a": [1, 2.5, "ü"]}, noise(200_000), list(range(5000)), None]
        with self.both(capacity=4096) as (sender, receiver):

            def produce():
                for thing in things:
                    pickle.dump(thing, sender)
                sender.close()

            writer = Background(produce)
            reader = io.BufferedReader(receiver)
            for thing in things:
                self.assertEqual(pickle.load(reader), thing)
            self.assertEqual(reader.read(), b"")
            writer.result()
        # Unbuffered, across the edge of the ring.
        with self.both(capacity=1000) as (sender, receiver):
            for number in range(1000):
                pickle.dump([number, b"x" * (number % 900)], sender)
                self.assertEqual(pickle.load(receiver)[0], number)
        with self.both() as (sender, receiver):
            pickle.dump({"small": 1}, sender)
            pickle.dump([2], sender)
            self.assertEqual(pickle.load(receiver), {"small": 1})
            self.assertEqual(pickle.load(receiver), [2])


class Subclasses(ChannelTest):
    def test_one_that_overrides_is_honoured(self):
        class Counting(mmapipc.Sender):
            count = 0

            def write(self, data):
                self.count += 1
                return super().write(data)

        class Shouting(mmapipc.Receiver):
            def readinto(self, buffer):
                count = super().readinto(buffer)
                buffer[:count] = bytes(buffer[:count]).upper()
                return count

        with (
            Counting(self.name, timeout=DEADLINE) as sender,
            Shouting(self.name, timeout=DEADLINE) as receiver,
        ):
            sender.write(b"a, ")
            sender.writelines([b"b, ", b"c, "])
            with io.BufferedWriter(sender) as buffered, io.BufferedReader(receiver) as reader:
                buffered.write(b"d")
                buffered.flush()
                self.assertEqual(sender.count, 4)
                sender.finish()
                self.assertEqual(reader.read(10), b"A, B, C, D")


class Arguments(ChannelTest):
    def test_wrong_arguments(self):
        for capacity in (0, -1, 2**62 + 1):
            with self.assertRaises(mmapipc.InvalidCapacity):
                mmapipc.Sender(self.name, capacity=capacity)
        for wrong in (1.5, "4MiB"):
            with self.assertRaises(TypeError):
                mmapipc.Sender(self.name, capacity=wrong)
        for timeout in (-1, float("nan")):
            with self.assertRaises(ValueError):
                mmapipc.Receiver(self.name, timeout=timeout)
        with self.assertRaises(TypeError):
            mmapipc.Receiver(b"bytes", timeout=0)

    def test_more_memory_than_there_is(self):
        with self.assertRaises(mmapipc.MemoryRefused) as caught:
            mmapipc.Sender(self.name, capacity=2**50)
        self.assertIsInstance(caught.exception, OSError)
        self.assertTrue(str(caught.exception).startswith(f"{self.name}: "))

    def test_errors_are_what_people_already_catch(self):
        for ours, known in (
            (mmapipc.ChannelTimeout, TimeoutError),
            (mmapipc.RoleTaken, FileExistsError),
            (mmapipc.ReceiverGone, BrokenPipeError),
            (mmapipc.ReceiverLeft, mmapipc.ReceiverGone),
            (mmapipc.StreamAborted, ConnectionAbortedError),
            (mmapipc.SenderDied, ConnectionResetError),
            (mmapipc.LayoutError, ValueError),
            (mmapipc.UnsafeMemory, PermissionError),
            (mmapipc.MemoryRefused, OSError),
        ):
            self.assertTrue(issubclass(ours, known))
            self.assertTrue(issubclass(ours, mmapipc.ChannelError))
            copy = pickle.loads(pickle.dumps(ours("name: what")))
            self.assertEqual((type(copy), str(copy)), (ours, "name: what"))


class FailedWrites(ChannelTest):
    def test_a_failed_flush_is_not_followed_by_a_clean_end(self):
        for written in (b"", b"ab", b"abcd"):
            with self.subTest(written=written), self.both(capacity=4, timeout=0.05) as (sender, receiver):
                sender.write(written)
                wrapped = io.BufferedWriter(sender)
                wrapped.write(b"never wholly in the ring")
                with self.assertRaises(mmapipc.ChannelError):
                    wrapped.close()
                self.assertTrue(sender.closed)
                with self.assertRaises(mmapipc.StreamAborted):
                    receiver.read()

    def test_a_failed_flush_that_is_repeated_doubles_nothing(self):
        with self.both(capacity=4, timeout=0.05) as (sender, receiver):
            wrapped = io.BufferedWriter(sender)
            wrapped.write(b"abcdefgh")
            with self.assertRaises(mmapipc.ChannelTimeout):
                wrapped.flush()
            self.assertEqual(receiver.read(9), b"abcd")
            with self.assertRaises(ValueError):
                wrapped.flush()
            with self.assertRaises((ValueError, mmapipc.StreamAborted)):
                wrapped.close()
            sender.abort()
            with self.assertRaises(mmapipc.StreamAborted):
                receiver.read(9)

    def test_a_failed_write_may_be_made_good_with_a_view_and_a_write(self):
        with self.both(capacity=4, timeout=0.05) as (sender, receiver):
            sender.write(b"abcd")
            with self.assertRaises(mmapipc.ChannelTimeout):
                sender.write(b"e")
            self.assertEqual(receiver.read(4), b"abcd")
            sender.reserve(1)[:] = b"e"
            sender.commit(1)
            sender.write(b"f")
            self.assertEqual(receiver.read(1) + receiver.read(1), b"ef")
            sender.close()
            self.assertEqual(receiver.read(1), b"")

    def test_a_write_that_did_not_begin_may_be_repeated(self):
        with self.both(capacity=4, timeout=0.05) as (sender, receiver):
            sender.write(b"abcd")
            with self.assertRaises(mmapipc.ChannelTimeout):
                sender.write(b"e")
            self.assertEqual(receiver.read(9), b"abcd")
            sender.write(b"e")
            sender.finish()
            self.assertEqual(receiver.read(), b"e")


class Debts(ChannelTest):
    """Nothing ends cleanly after a failed write, whatever failed."""

    def check_not_whole(self, sender, receiver, arrives=b""):
        for close in (sender.finish, sender.close):
            with self.assertRaises(mmapipc.StreamAborted):
                close()
        self.assertEqual(receiver.read(99), arrives) if arrives else None
        with self.assertRaises(mmapipc.StreamAborted):
            receiver.read(99)

    def test_a_timeout_in_the_middle(self):
        with self.both(capacity=4, timeout=0.05) as (sender, receiver):
            with self.assertRaises(mmapipc.ChannelTimeout):
                sender.write(b"abcdefgh")
            self.check_not_whole(sender, receiver, b"abcd")

    def test_a_reserved_view(self):
        for commits in (False, True):
            with self.subTest(commits=commits), self.both() as (sender, receiver):
                sender.reserve(1)[:] = b"v"
                with self.assertRaisesRegex(ValueError, "commit"):
                    sender.write(b"refused")
                if commits:
                    sender.commit(1)
                self.check_not_whole(sender, receiver, b"v" if commits else b"")

    def test_no_bytes(self):
        for wrong in ("text", 5, None, [1]):
            for write in (lambda s, data: s.write(data), lambda s, data: s.writelines([b"", data])):
                with self.subTest(wrong=wrong), self.both() as (sender, receiver):
                    with self.assertRaises(TypeError):
                        write(sender, wrong)
                    self.check_not_whole(sender, receiver)

    def test_an_empty_write_makes_good_for_nothing(self):
        with self.both() as (sender, receiver):
            with self.assertRaises(TypeError):
                sender.write("text")
            sender.write(b"")
            sender.writelines([])
            self.check_not_whole(sender, receiver)

    def test_a_commit_of_too_much(self):
        with self.both() as (sender, receiver):
            sender.reserve(3)
            with self.assertRaises(ValueError):
                sender.commit(4)
            self.check_not_whole(sender, receiver)

    def test_a_commit_is_made_good_for_by_a_commit(self):
        with self.both() as (sender, receiver):
            view = sender.reserve(3)
            held = pickle.PickleBuffer(view)
            with self.assertRaises(BufferError):
                sender.commit(3)
            held.release()
            view[:] = b"abc"
            sender.commit(3)
            sender.finish()
            self.assertEqual(receiver.read(), b"abc")

    def test_items_of_which_one_fails(self):
        def items():
            yield b"first"
            raise LookupError

        with self.both() as (sender, receiver):
            with self.assertRaises(LookupError):
                sender.writelines(items())
            self.check_not_whole(sender, receiver, b"first")

    def test_a_buffered_writer(self):
        with self.both(capacity=4, timeout=0.05) as (sender, receiver):
            writer = io.BufferedWriter(sender)
            writer.write(b"abcdefgh")
            with self.assertRaises(mmapipc.ChannelTimeout):
                writer.flush()
            with self.assertRaises((ValueError, mmapipc.StreamAborted)):
                writer.close()
            self.assertEqual(receiver.read(4), b"abcd")
            with self.assertRaises(mmapipc.StreamAborted):
                receiver.read(1)

    def test_after_a_finished_stream_nothing_is_owed(self):
        with self.both() as (sender, receiver):
            sender.write(b"all")
            sender.finish()
            with self.assertRaisesRegex(ValueError, "finished"):
                sender.write(b"more")
            self.assertEqual(receiver.read(), b"all")
            sender.close()

    def test_without_waiting_all_or_nothing(self):
        with self.both(capacity=8, timeout=0) as (sender, receiver):
            sender.write(b"abcde")
            for data in (b"fghi", memoryview(b"f.g.h.i.")[::2], bytes(100)):
                with self.assertRaises(mmapipc.ChannelTimeout):
                    sender.write(data)
                self.assertEqual(sender.tell(), 5)
            with self.assertRaises(mmapipc.ChannelTimeout):
                sender.writelines([b"fg", b"hi"])
            self.assertEqual(receiver.read(3), b"abc")
            self.assertEqual(sender.write(b"fghi"), 4)
            self.assertEqual(receiver.read(9), b"defghi")
            sender.finish()
            self.assertEqual(receiver.read(9), b"")


class Lines(ChannelTest):
    def test_many_items_arrive_in_order(self):
        items = [noise(40)[: size % 41] for size in range(5000)]
        items[777] = noise(3 << 20)
        items[778] = array.array("I", [1, 2, 3])
        items[3000] = memoryview(b"e.v.e.r.y.")[::2]
        whole = b"".join(memoryview(item).tobytes() for item in items)
        for kind in (list, tuple, iter):
            with self.subTest(kind=kind), self.both() as (sender, receiver):

                def produce(items=items, kind=kind, sender=sender):
                    sender.writelines(kind(items))
                    sender.close()

                writer = Background(produce)
                self.assertEqual(receiver.read(), whole)
                writer.result()

    def test_a_line_that_is_longer_than_the_ring(self):
        for size in (8, 9, 100_000, 5 << 20):
            with self.subTest(size=size), self.both(capacity=min(size, 4096)) as (sender, receiver):
                line = b"x" * (size - 1) + b"\n"

                def produce(line=line, sender=sender):
                    sender.writelines([line, b"short\n", b"rest"])
                    sender.close()

                writer = Background(produce)
                self.assertEqual(list(receiver), [line, b"short\n", b"rest"])
                writer.result()

    def test_a_part_of_a_line_is_not_acknowledged(self):
        for read in (lambda r: r.readline(), lambda r: r.read(), lambda r: r.readall(), lambda r: next(r)):
            with (
                self.subTest(read=read),
                self.both(capacity=16, timeout=0.05, persist=True) as (sender, receiver),
            ):
                sender.write(b"half a line")
                with self.assertRaises(mmapipc.ChannelTimeout):
                    read(receiver)
                self.assertEqual(sender.in_flight, 11)
                receiver.close()
                with mmapipc.Receiver(self.name, timeout=DEADLINE) as following:
                    sender.write(b" \n")
                    self.assertEqual(following.readline(), b"half a line \n")


class FailedReads(ChannelTest):
    """A timeout takes nothing away."""

    def test_each_way_to_read_goes_on_with_what_a_timeout_left(self):
        for first in (lambda r: r.readline(), lambda r: r.read()):
            for then in (
                lambda r: r.read(3) + r.read(3),
                lambda r: r.readline(2) + r.readline(2),
                lambda r: b"".join([bytes(r.peek(2)), r.consume(2) or b"", r.read(9)]),
                lambda r: (lambda b: bytes(b[: r.readinto(b)]))(bytearray(9)),
            ):
                with self.subTest(first=first, then=then), self.both(timeout=0.05) as (sender, receiver):
                    sender.write(b"half")
                    with self.assertRaises(mmapipc.ChannelTimeout):
                        first(receiver)
                    self.assertEqual(then(receiver), b"half")
                    sender.write(b"rest\n")
                    self.assertEqual(receiver.readline(), b"rest\n")

    def test_a_read_of_all_goes_on(self):
        with self.both(timeout=0.05) as (sender, receiver):
            sender.write(b"part1 ")
            with self.assertRaises(mmapipc.ChannelTimeout):
                receiver.read()
            sender.write(b"part2")
            sender.finish()
            self.assertEqual(receiver.read(), b"part1 part2")

    def test_what_came_before_a_broken_end_can_still_be_had(self):
        with self.both() as (sender, receiver):
            sender.write(b"published")
            sender.abort()
            for _ in range(2):
                with self.assertRaises(mmapipc.StreamAborted):
                    receiver.read()
            self.assertEqual(receiver.read(99), b"published")
            with self.assertRaises(mmapipc.StreamAborted):
                receiver.read(99)


class Wrappers(ChannelTest):
    """What wraps a Receiver skips nothing in silence."""

    def test_a_read_that_timed_out_is_not_gone_on_with(self):
        wrappers = {
            "read": lambda r: io.BufferedReader(r, 10).read(6),
            "readline": lambda r: io.BufferedReader(r, 10).readline(),
            "all": lambda r: io.BufferedReader(r, 10).read(),
            "text": lambda r: io.TextIOWrapper(io.BufferedReader(r, 10)).readline(),
        }
        for name, make in wrappers.items():
            for again in ("poll", "read", "readline", "peek"):
                with self.subTest(wrapper=name, again=again), self.both(timeout=0.05) as (sender, receiver):
                    wrapped = []  # closes the Receiver when it is collected

                    def read(make=make, receiver=receiver, wrapped=wrapped):
                        class Kept(io.RawIOBase):
                            readable = lambda self: True  # noqa: E731
                            readinto = staticmethod(receiver.readinto)
                            readall = staticmethod(receiver.readall)

                        wrapped.append(Kept())
                        return make(wrapped[-1])

                    sender.write(b"foo")
                    with self.assertRaises(mmapipc.ChannelTimeout):
                        read()
                    sender.write(b"bar\n")
                    for _ in range(2):
                        with self.assertRaises(mmapipc.ReadFailed):
                            read()
                    lost = 0 if name == "all" else 3  # which only the wrapper has had
                    going_on = {
                        "poll": lambda: self.assertTrue(receiver.poll()) or receiver.read(9),
                        "read": lambda: receiver.read(9),
                        "readline": lambda: receiver.readline(),
                        "peek": lambda: bytes(receiver.peek(9)),
                    }[again]
                    got = going_on()
                    self.assertEqual(b"foobar\n"[lost:][: len(got)], got)

    def test_a_broken_end_stays_one(self):
        with self.both() as (sender, receiver):
            sender.write(b"foo")
            sender.abort()
            reader = io.BufferedReader(receiver, 10)
            for _ in range(3):
                with self.assertRaises(mmapipc.StreamAborted):
                    reader.read(6)


class Polling(ChannelTest):
    def test_a_receiver(self):
        with self.both() as (sender, receiver):
            self.assertFalse(receiver.poll())
            self.assertFalse(receiver.poll(0.01))
            writer = Background(lambda: eventually(lambda: receiver.poll(DEADLINE), "it comes"))
            sender.write(b"x")
            writer.result()
            self.assertTrue(receiver.poll())
            receiver.read(1)
            self.assertFalse(receiver.poll())
            sender.finish()
            self.assertTrue(receiver.poll(None))
            self.assertEqual(receiver.read(1), b"")
        with self.assertRaises(ValueError):
            receiver.poll()

    def test_a_broken_end_does_not_wait(self):
        with self.both() as (sender, receiver):
            sender.abort()
            self.assertTrue(receiver.poll(DEADLINE))
            with self.assertRaises(mmapipc.StreamAborted):
                receiver.read(1)

    def test_a_sender(self):
        with self.both(capacity=2) as (sender, receiver):
            self.assertTrue(sender.poll())
            sender.write(b"ab")
            self.assertFalse(sender.poll())
            self.assertFalse(sender.poll(0.01))
            receiver.read(1)
            self.assertTrue(sender.poll())
            sender.write(b"c")
            receiver.close()
            self.assertTrue(sender.poll(DEADLINE))
            with self.assertRaises(mmapipc.ReceiverLeft):
                sender.write(b"d")

    def test_wrong_timeouts(self):
        with self.both() as ends:
            for end in ends:
                for wrong in (float("nan"), -1, "soon", float("inf"), 1e300, 10**400):
                    with self.assertRaisesRegex(ValueError, f"{self.name}: the timeout must be"):
                        end.poll(wrong)
                    with self.assertRaisesRegex(ValueError, f"{self.name}: the timeout must be"):
                        end.timeout = wrong
                end.timeout = 0
                self.assertEqual(end.timeout, 0)
                end.timeout = None
                self.assertIsNone(end.timeout)

    def test_a_timeout_is_for_what_follows(self):
        with self.both(capacity=1) as (sender, receiver):
            sender.write(b"x")
            sender.timeout = 0.01
            with self.assertRaisesRegex(mmapipc.ChannelTimeout, "for 0.01 s"):
                sender.write(b"y")
            sender.timeout = DEADLINE
            writer = Background(lambda: sender.write(b"y"))
            self.assertEqual(receiver.read(1) + receiver.read(1), b"xy")
            writer.result()
            receiver.timeout = 0
            with self.assertRaises(mmapipc.ChannelTimeout):
                receiver.read(1)


class OtherThreads(ChannelTest):
    def test_an_end_that_is_closed_while_a_thread_waits_in_it(self):
        for waits in ("read", "write", "close", "poll"):
            with self.subTest(waits=waits), self.both(capacity=1) as (sender, receiver):
                end = receiver if waits == "read" else sender
                if waits != "read":
                    sender.write(b"x")
                calling = {
                    "read": lambda: receiver.read(1),
                    "write": lambda: sender.write(b"y"),
                    "close": sender.close,
                    "poll": lambda: sender.poll(DEADLINE),
                }[waits]
                waiting = Background(calling)
                word = end._link.half.own_calls
                eventually(lambda: end._link.mapped.words[word] & layout.PARKED, "it sleeps")
                end.abort()
                with self.assertRaisesRegex(ValueError, f"{self.name}: I/O operation on closed channel"):
                    waiting.result()

    def test_threads_that_all_close(self):
        before = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, before)
        sys.setswitchinterval(1e-6)
        for number in range(200):
            file = str(self.folder / "ring") if number % 2 else None
            with self.both(file=file) as (sender, receiver):
                start = threading.Barrier(3)
                call = (sender.close, sender.abort, receiver.abort, receiver.close)[number // 2 % 4]
                closing = [Background(lambda: (start.wait(DEADLINE), call())) for _ in range(3)]
                for thread in closing:
                    try:
                        thread.result()
                    except ValueError as error:  # another was first: whether all arrived, only that one knows
                        self.assertEqual(call, sender.close)
                        self.assertEqual(str(error), f"{self.name}: I/O operation on closed channel")

    def test_threads_that_only_look(self):
        before = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, before)
        sys.setswitchinterval(1e-6)
        for number in range(40):
            with self.both(capacity=100) as ends:
                ends[0].write(b"abc")
                for end in ends[:: 1 if number % 2 else -1]:
                    looking = [Background(lambda end=end: self.look(end)) for _ in range(3)]
                    (end.abort if number % 4 < 2 or end is ends[0] else end.close)()
                    for thread in looking:
                        self.assertEqual(thread.result(), f"{self.name}: I/O operation on closed channel")

    def look(self, end):
        """Look at the end until it is closed; what it then says."""
        while True:
            shown = repr(end)
            try:
                values = (end.in_flight, end.attached, end.tell(), end.capacity, end.timeout)
            except ValueError as error:
                return str(error)
            self.assertIn(values[0], (0, 3))
            self.assertIs(type(values[1]), bool)
            self.assertEqual(values[2:], (3 if isinstance(end, mmapipc.Sender) else 0, 100, DEADLINE))
            self.assertRegex(shown, r" [03] of 100 in flight, |closed>$")

    def test_nothing_is_unmapped_while_a_thread_looks_at_it(self):
        for looking, seen in (("in_flight", 3), ("attached", True)):
            with self.subTest(looking), self.both(capacity=100) as (sender, _):
                sender.write(b"abc")
                there, closing = threading.Event(), threading.Event()

                class Words:
                    def __getitem__(self, word, words=sender._link.mapped.words):
                        there.set()
                        assert closing.wait(DEADLINE)
                        for _ in range(1000):  # the other thread goes as far as it can
                            time.sleep(0)
                        return words[word]

                sender._link.half.words = Words()
                look = Background(lambda looking=looking: getattr(sender, looking))
                assert there.wait(DEADLINE)
                sender._link.half.words = sender._link.mapped.words
                closing.set()
                sender.abort()
                self.assertEqual(look.result(), seen)


class Timeouts(ChannelTest):
    """Every wait is bounded, and says what it waited for."""

    def check(self, call, *words):
        with self.assertRaises(mmapipc.ChannelTimeout) as caught:
            call()
        for word in (self.name, *words):
            self.assertIn(word, str(caught.exception))

    def test_no_sender(self):
        self.check(lambda: mmapipc.Receiver(self.name, timeout=0.05), "no sender")
        self.check(lambda: mmapipc.Receiver(self.name, timeout=0), "no sender")

    def test_a_role_that_somebody_has_who_has_left(self):
        roles = type(system.channel_roles(system.place(self.name)))
        nobody = {"attempt": lambda *_: None, "holder": lambda *_: None}
        with mock.patch.multiple(roles, **nobody):
            for end in (mmapipc.Sender, mmapipc.Receiver):
                with self.assertRaises(mmapipc.ChannelTimeout):
                    end(self.name, timeout=0)
                with self.assertRaisesRegex(mmapipc.MemoryRefused, "^" + self.name):  # nothing hangs for ever
                    end(self.name)

    def test_one_byte(self):
        sender = mmapipc.Sender(self.name, timeout=0)
        sender.write(b"a")
        self.check(sender.close, "; 1 byte was not delivered")

    def test_no_receiver(self):
        sender = mmapipc.Sender(self.name, capacity=4, timeout=0.05)
        sender.write(b"abc")
        self.check(sender.close, "no receiver", "3 bytes were not delivered")
        self.assertTrue(sender.closed)
        with contextlib.closing(mmapipc.Sender(self.name, capacity=4, timeout=0.05)) as sender:
            self.check(lambda: sender.write(b"abcdefgh"), "no receiver", "4 bytes")
            self.assertEqual(sender.tell(), 4)
            sender.abort()
        with contextlib.closing(mmapipc.Sender(self.name, capacity=4, timeout=0.05)) as sender:
            sender.write(b"abcd")
            self.check(lambda: sender.reserve(1), "no receiver")
            sender.abort()

    def test_a_receiver_that_takes_nothing(self):
        with self.both(capacity=4, timeout=0.05) as (sender, receiver):
            sender.write(b"abcd")
            self.check(lambda: sender.reserve(1), "read nothing")
            receiver.read(1)
            self.check(sender.close, "3 bytes were not delivered")
            self.assertEqual(receiver.read(), b"bcd")

    def test_whenever_the_receiver_takes_something_the_time_begins_anew(self):
        parks = 0
        clock = mock.patch.object(
            waiting.CLOCK, "now", lambda: time.perf_counter() + 0.35 * DEADLINE * parks
        )
        with clock, self.both(capacity=16) as (sender, receiver):
            sender.write(b"abc")
            waiter = sender._link.waiter
            park = waiter.park

            def take_after(*options):
                nonlocal parks
                moved = park(*options)
                parks += 1
                if parks % 2 == 0:  # just when nobody looks, 0.7 of the time after the last
                    receiver.read(1)
                return moved

            waiter.park = take_after
            sender.close()
            self.assertEqual(parks, 6)

    def test_nobody_came_for_an_empty_stream(self):
        self.check(mmapipc.Sender(self.name, timeout=0.05).close, "no receiver", "0 bytes")

    def test_a_sender_that_sends_nothing(self):
        with self.both(timeout=0.05) as (_, receiver):
            for call in (
                lambda: receiver.read(1),
                receiver.read,
                receiver.readline,
                lambda: receiver.readinto(bytearray(1)),
                lambda: receiver.peek(1),
            ):
                self.check(call, "sent nothing")

    def test_a_receiver_of_an_older_stream_that_stays(self):
        first = mmapipc.Sender(self.name, timeout=DEADLINE)
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            first.write(b"old")
            first.abort()
            self.check(lambda: mmapipc.Sender(self.name, timeout=0.05), "still reads")
            waiting = Background(lambda: mmapipc.Sender(self.name, timeout=DEADLINE))
            self.assertEqual(receiver.read(9), b"old")
            with self.assertRaises(mmapipc.StreamAborted):
                receiver.read(9)
        second = waiting.result()
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            second.write(b"new")
            self.assertEqual(receiver.read(9), b"new")
            second.close()


class Ends(ChannelTest):
    """The guarantees of the two tables in `mmapipc.channel`, within one process."""

    def test_close_waits_for_the_last_byte(self):
        with self.both() as (sender, receiver):
            sender.write(b"abc")
            closing = Background(sender.close)
            self.assertEqual(receiver.read(2), b"ab")
            self.assertTrue(closing.is_alive())
            self.assertEqual(receiver.read(2), b"c")
            closing.result()
            self.assertEqual(receiver.read(1), b"")

    def test_an_empty_stream_is_a_stream(self):
        sender = mmapipc.Sender(self.name, timeout=DEADLINE)
        closing = Background(sender.close)
        with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
            self.assertEqual(receiver.read(), b"")
        closing.result()

    def test_abort_by_exception(self):
        class Trouble(Exception):
            pass

        with self.both() as (sender, receiver):
            with self.assertRaises(Trouble), sender:
                sender.write(b"published")
                raise Trouble
            self.assertTrue(sender.closed)
            self.assertEqual(receiver.read(100), b"published")
            for _ in range(2):
                with self.assertRaises(mmapipc.StreamAborted) as caught:
                    receiver.read(100)
            self.assertIn("9 bytes", str(caught.exception))

    def test_reading_all_of_a_broken_stream_is_an_error(self):
        with self.both() as (sender, receiver):
            sender.write(b"published")
            sender.abort()
            with self.assertRaises(mmapipc.StreamAborted):
                receiver.read()

    def test_a_broken_last_line_comes_before_the_error(self):
        with self.both() as (sender, receiver):
            sender.write(b"one\ntw")
            sender.abort()
            self.assertEqual([receiver.readline(), receiver.readline()], [b"one\n", b"tw"])
            with self.assertRaises(mmapipc.StreamAborted):
                receiver.readline()

    def test_a_finished_stream_stays_finished(self):
        with self.both() as (sender, receiver):
            with self.assertRaises(KeyError), sender:
                sender.write(b"all")
                sender.finish()
                raise KeyError
            self.assertEqual(receiver.read(), b"all")

    def test_collected_without_close(self):
        for wrap in (
            lambda raw: raw,
            io.BufferedWriter,
            lambda raw: io.TextIOWrapper(io.BufferedWriter(raw)),
        ):
            with self.subTest(wrap=wrap):
                sender = mmapipc.Sender(self.name, timeout=DEADLINE)
                with mmapipc.Receiver(self.name, timeout=DEADLINE) as receiver:
                    sender.write(b"published")
                    wrapped = wrap(sender)
                    # In development mode the wrapper's own flush complains as well.
                    with warnings.catch_warnings(record=True) as caught, unraisable_ignored():
                        warnings.simplefilter("always")
                        del sender, wrapped
                        gc.collect()
                    self.assertEqual([w.category for w in caught], [ResourceWarning])
                    self.assertEqual(receiver.read(100), b"published")
                    with self.assertRaises(mmapipc.StreamAborted):
                        receiver.read(1)

    def test_early_close_by_the_receiver(self):
        with self.both(capacity=4) as (sender, receiver):
            sender.write(b"abcd")
            receiver.read(1)
            receiver.close()
            with self.assertRaises(mmapipc.ReceiverLeft) as caught:
                sender.write(b"e")
            self.assertIn("4 bytes were not delivered", str(caught.exception))
            with self.assertRaises(BrokenPipeError):
                sender.close()

    def test_a_receiver_that_could_not_go_on_did_not_just_leave(self):
        def fail(receiver):
            with receiver:
                raise KeyError

        for give_up in (mmapipc.Receiver.abort, fail):
            with self.both() as (sender, receiver):
                sender.write(b"abcd")
                receiver.read(1)
                with contextlib.suppress(KeyError):
                    give_up(receiver)
                with self.assertRaisesRegex(mmapipc.ReceiverGone, "the receiver gave up; 3 bytes") as caught:
                    sender.close()
                self.assertNotIsInstance(caught.exception, mmapipc.ReceiverLeft)

    def test_a_receiver_that_took_everything_may_leave_before_the_end(self):
        with self.both() as (sender, receiver):
            sender.write(b"abcd")
            receiver.read(4)
            receiver.close()
            sender.close()

    def test_a_receiver_that_finds_only_an_aborted_stream_tidies_up(self):
        waiting = Claiming(system.channel_roles(system.place(self.name))).attempt(names.RECEIVER)
        mmapipc.Sender(self.name, timeout=DEADLINE).abort()
        waiting.release()
        with self.assertRaises(mmapipc.ChannelTimeout):
            mmapipc.Receiver(self.name, timeout=0)

    def test_refusal_names_the_holder(self):
        with self.both() as (sender, receiver):
            for kind in (mmapipc.Sender, mmapipc.Receiver):
                with self.assertRaises(FileExistsError) as caught:
                    kind(self.name, timeout=DEADLINE)
                self.assertIn(f"pid {os.getpid()}", str(caught.exception))
        with self.assertRaises(mmapipc.ChannelTimeout):
            mmapipc.Receiver(self.name, timeout=0)


@unittest.skipIf(WINDOWS, "POSIX only: files in a directory")
class Files(ChannelTest):
    def test_a_foreign_object_in_its_place_is_refused(self):
        place = system.place(self.name).location
        elsewhere = self.file(b"x")
        for make, word in (
            (lambda: os.mkdir(place), "regular"),
            (lambda: os.mkfifo(place, 0o600), "regular"),
            (lambda: os.symlink(elsewhere, place), "regular"),
            (lambda: os.close(os.open(place, os.O_CREAT, 0o644)), "other users"),
        ):
            make()
            for kind in (mmapipc.Sender, mmapipc.Receiver):
                with self.subTest(word=word, kind=kind):
                    with self.assertRaises(mmapipc.UnsafeMemory) as caught:
                        kind(self.name, timeout=DEADLINE)
                    self.assertIn(word, str(caught.exception))
            os.rmdir(place) if os.path.isdir(place) else os.unlink(place)

    def test_memory_is_private(self):
        with self.both():
            for file in os.scandir(self.memory):
                self.assertEqual(file.stat().st_mode & 0o777, 0o600)

    def test_a_file_that_is_no_channel_is_left_alone(self):
        place = system.place(self.name).location
        with open(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(noise(10_000))
        for kind in (mmapipc.Sender, mmapipc.Receiver):
            with self.assertRaises(mmapipc.LayoutError):
                kind(self.name, timeout=DEADLINE)
        with open(place, "rb") as file:
            self.assertEqual(file.read(), noise(10_000))
        os.unlink(place)

    def test_a_missing_directory(self):
        os.environ["MMAPIPC_DIR"] = str(self.memory / "missing")
        for kind in (mmapipc.Sender, mmapipc.Receiver):
            with self.assertRaises(mmapipc.MemoryRefused) as caught:
                kind(self.name, timeout=DEADLINE)
            self.assertEqual(caught.exception.errno, errno.ENOENT)
        os.environ["MMAPIPC_DIR"] = str(self.memory)
