"""Ends in an event loop: as of asyncio, cancelled at any moment, many at once, in every kind of loop."""

import asyncio
import contextlib
import hashlib
import os
import random
import subprocess
import sys
import threading
import unittest
from unittest import mock

import mmapipc
from mmapipc import aio
from mmapipc._meeting import looping, waiting
from mmapipc._ring import layout

from .helpers import DEADLINE, WINDOWS, ChannelTest, apart, needs_bells, noise, open_handles
from .test_wait import SENDS, bells, no_bells

# Sends its input as lines of hexadecimal digits say it.
SENDS_PIECES = """
with mmapipc.Sender(name, capacity=int(sys.argv[2]), timeout=60) as end:
    for line in sys.stdin:
        end.write(bytes.fromhex(line))
        if len(line) % 7 == 0:
            time.sleep(0.0002)
"""
# Takes the streams of the names in its input; says of each how much came, its digest, and how it ended.
TAKES_ALL = """
import hashlib, random
for late, line in enumerate(sys.stdin):
    got, how = b'', 'whole'
    with mmapipc.Receiver(line.strip(), timeout=60) as end:
        try:
            time.sleep(late % 2 / 10)  # the ring of every other one is full meanwhile
            while data := end.read(random.randrange(1, 8)):
                got += data
                if end.tell() % 3 == 0:
                    time.sleep(0.0003)
        except OSError as error:
            how = type(error).__name__
    say(f'{len(got)} {hashlib.sha256(got).hexdigest()} {how}')
"""
ECHOES = """
import asyncio
from mmapipc import aio
async def main():
    async with await aio.open_sender(name + '.back') as back, await aio.open_receiver(name) as there:
        while data := await there.read(4096):
            await back.write(data)
asyncio.run(main())
"""


def digest(data):
    return hashlib.sha256(data).hexdigest()


class DeafLoop(asyncio.SelectorEventLoop):
    """A loop that cannot listen to descriptors, as that of Windows."""

    def add_reader(self, fd, callback, *args):
        raise NotImplementedError


class AioTest(ChannelTest):
    """Runs each test's coroutine in a loop of `new_loop`."""

    new_loop = staticmethod(asyncio.new_event_loop)

    def run_in_loop(self, main):
        loop = self.new_loop()
        loop.slow_callback_duration = DEADLINE  # or it says in development mode that the machine is slow
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(asyncio.wait_for(main, DEADLINE))
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
                with contextlib.suppress(BaseException):
                    loop.run_until_complete(task)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            loop.close()

    @contextlib.asynccontextmanager
    async def ends(self, **options):
        """Both ends in one loop; whatever the test leaves open is given up."""
        sender = await aio.open_sender(self.name, **options)
        try:
            receiver = await aio.open_receiver(self.name)
            try:
                yield sender, receiver
            finally:
                receiver.abort()
        finally:
            sender.abort()

    async def asleep(self, end):
        """Return when a task waits in that end."""
        peer = end._half
        for _ in range(int(DEADLINE * 1000)):
            if end._waiter._future is not None and peer.words[peer.own_calls] & layout.PARKED:
                return
            await asyncio.sleep(0.001)
        raise AssertionError("nobody waits")


def in_loop(test):
    """The coroutine is run in the test's loop."""
    return lambda self: self.run_in_loop(test(self))


class Streams(AioTest):
    @in_loop
    async def test_reading_is_as_of_a_stream_reader(self):
        """Random calls give what asyncio's own reader gives of the same bytes, whatever the ring's size."""
        rng = random.Random(7)
        for capacity in (1, 5, 64, 4096):
            data = bytes(rng.choices(b"abc\n", weights=(5, 5, 5, 1), k=3000))
            theirs = asyncio.StreamReader()
            theirs.feed_data(data)
            theirs.feed_eof()

            async def sending(sender, data=data):
                view = memoryview(data)
                while view:
                    count = rng.randrange(1, 50)
                    self.assertEqual(await sender.write(view[:count]), len(view[:count]))
                    view = view[count:]
                await sender.close()

            async with self.ends(capacity=capacity) as (sender, ours):
                task = asyncio.ensure_future(sending(sender))
                while True:
                    call = rng.choice(
                        (
                            lambda reader, n=rng.randrange(40): reader.readexactly(n),
                            lambda reader: reader.readline(),
                            lambda reader: reader.readuntil(b"ab"),
                            lambda reader: reader.readuntil(b"\n"),
                            lambda reader: reader.readuntil(b"aaaa"),
                        )
                    )
                    wanted = await self.outcome(call(theirs))
                    self.assertEqual(await self.outcome(call(ours)), wanted, capacity)
                    self.assertEqual(ours.at_eof() and theirs.at_eof(), theirs.at_eof())
                    if theirs.at_eof():
                        break
                for call in (
                    lambda reader: reader.read(),
                    lambda reader: reader.read(5),
                    lambda reader: reader.readline(),
                    lambda reader: reader.readexactly(1),
                    lambda reader: reader.readuntil(b"x"),
                    lambda reader: reader.readexactly(-1),
                    lambda reader: reader.readuntil(b""),
                ):
                    self.assertEqual(await self.outcome(call(ours)), await self.outcome(call(theirs)))
                await task

    async def outcome(self, reading):
        try:
            return await reading
        except asyncio.IncompleteReadError as error:
            return "incomplete", error.partial, error.expected
        except ValueError:
            return ValueError

    @in_loop
    async def test_a_stream_between_processes(self):
        child = self.python(ECHOES)
        lines = [noise(number, number).replace(b"\n", b"") + b"\n" for number in range(200)]
        async with await aio.open_sender(self.name, capacity=64) as there:
            async with await aio.open_receiver(f"{self.name}.back") as back:

                async def sending():
                    for line in lines:
                        await there.write(line)
                    await there.close()

                task = asyncio.ensure_future(sending())
                got = [line async for line in back]
                await task
                self.assertEqual(got, lines)
                self.assertTrue(back.at_eof())
                self.assertEqual(await back.read(), b"")
        await self.ended(child)

    async def ended(self, child):
        self.assertEqual(await asyncio.to_thread(child.end), (0, b"", ""))

    @in_loop
    async def test_all_of_a_stream_larger_than_the_ring(self):
        sent = noise(3_000_000)
        async with self.ends(capacity=100_000) as (sender, receiver):

            async def sending():
                for data in (sent[:7], bytearray(sent[7:1_000_000]), memoryview(sent)[1_000_000:]):
                    self.assertEqual(await sender.write(data), len(data))
                await sender.close()

            task = asyncio.ensure_future(sending())
            self.assertEqual(await receiver.read(1), sent[:1])
            self.assertEqual(digest(await receiver.read()), digest(sent[1:]))
            await task
            self.assertTrue(sender.closed)

    @in_loop
    async def test_what_comes_just_after_a_search_is_not_overlooked(self):
        async with self.ends() as (sender, receiver):
            for call in (receiver.readline, receiver.readuntil):
                sender._end.write(b"a li")
                find = receiver._half.find

                def search(separator, seen, there, find=find):
                    end = find(separator, seen, there)
                    if receiver.in_flight == 4:
                        sender._end.write(b"ne\n")
                    return end

                with mock.patch.object(receiver._half, "find", search):
                    self.assertEqual(await asyncio.wait_for(call(), DEADLINE / 4), b"a line\n")

    @in_loop
    async def test_buffers_of_any_kind(self):
        import array

        async with self.ends(capacity=8) as (sender, receiver):
            words = array.array("I", range(10))
            every_other = memoryview(bytes(range(40)))[::2]
            wanted = words.tobytes() + every_other.tobytes()
            reading = asyncio.ensure_future(receiver.readexactly(len(wanted)))
            self.assertEqual(await sender.write(words), 40)
            self.assertEqual(await sender.write(every_other), 20)
            self.assertEqual(await sender.write(b""), 0)
            self.assertEqual(await reading, wanted)
            with self.assertRaises(TypeError):
                await sender.write("text")
            with self.assertRaises(mmapipc.StreamAborted):
                await sender.finish()  # what was not written is missed

    @in_loop
    async def test_the_loop_goes_on_while_bytes_pass_without_a_wait(self):
        sent, ticks, most = noise(1000), 0, 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with self.ends(capacity=1 << 20) as (sender, receiver):
            ticking = asyncio.ensure_future(tick())
            for _ in range(1000):
                await sender.write(sent)
            self.assertGreater(ticks, 2)
            ticks = 0
            for _ in range(1000):
                self.assertEqual(len(await receiver.readexactly(1000)), 1000)
            self.assertGreater(ticks, 2)
            ticking.cancel()

    @in_loop
    async def test_how_a_stream_ends(self):
        class Failed(Exception):
            pass

        # An exception, and a cancellation, give up.
        for error in (Failed, asyncio.CancelledError):
            receiver = None
            with contextlib.suppress(error):
                async with await aio.open_sender(self.name) as sender:
                    receiver = await aio.open_receiver(self.name)
                    await sender.write(b"one\ntwo")
                    raise error
            self.assertEqual(await receiver.readline(), b"one\n")
            with self.assertRaises(mmapipc.StreamAborted):
                await receiver.readexactly(9)
            with self.assertRaises(mmapipc.StreamAborted):
                await receiver.read()
            self.assertFalse(receiver.at_eof())
            self.assertEqual(await receiver.readline(), b"two")  # as of Receiver: then it raises
            with self.assertRaises(mmapipc.StreamAborted):
                await receiver.readline()
            await receiver.close()
        # A receiver that leaves, or gives up.
        for leave, error in ((aio.Receiver.close, mmapipc.ReceiverLeft), (None, mmapipc.ReceiverGone)):
            async with self.ends(capacity=4) as (sender, receiver):
                await sender.write(b"abcd")
                writing = asyncio.ensure_future(sender.write(b"e"))
                await self.asleep(sender)
                if leave is None:
                    receiver.abort()
                else:
                    await leave(receiver)
                with self.assertRaises(error):
                    await writing
                with self.assertRaises(error):
                    await sender.close()
                self.assertTrue(sender.closed)
                await sender.close()

    @in_loop
    async def test_close_waits_until_every_byte_is_taken(self):
        async with self.ends(capacity=8) as (sender, receiver):
            await sender.write(b"abcdef")
            closing = asyncio.ensure_future(sender.close())
            for byte in b"abcdef":
                await self.asleep(sender)
                self.assertFalse(closing.done())
                self.assertEqual(await receiver.read(1), bytes([byte]))
            await closing
            self.assertTrue(sender.closed)
            self.assertEqual(await receiver.read(1), b"")
        sender = await aio.open_sender(self.name, timeout=0.02)
        await sender.write(b"abc")
        with self.assertRaisesRegex(mmapipc.ChannelTimeout, "3 bytes were not delivered"):
            await sender.close()
        sender = await aio.open_sender(self.name)
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(sender.close(), 0.02)
        self.assertTrue(sender.closed)

    @in_loop
    async def test_a_killed_peer_is_told_of(self):
        child = self.python(
            "s = mmapipc.Sender(name); s.write(b'x'); say('up'); sys.stdin.read()", stdin=subprocess.PIPE
        )
        await asyncio.to_thread(child.line)
        async with await aio.open_receiver(self.name) as receiver:
            self.assertEqual(await receiver.read(1), b"x")
            reading = asyncio.ensure_future(receiver.read(1))
            await self.asleep(receiver)
            await asyncio.to_thread(child.kill)
            with self.assertRaises(mmapipc.SenderDied):
                await reading
        child = self.python(
            "r = mmapipc.Receiver(name); r.read(1); say('up'); sys.stdin.read()", stdin=subprocess.PIPE
        )
        sender = await aio.open_sender(self.name, capacity=2)
        await sender.write(b"ab")
        await asyncio.to_thread(child.line)
        writing = asyncio.ensure_future(sender.write(b"cd"))
        await self.asleep(sender)
        await asyncio.to_thread(child.kill)
        with self.assertRaises(mmapipc.ReceiverGone):
            await writing
        sender.abort()

    @in_loop
    async def test_a_persistent_stream_goes_on_with_the_next_receiver(self):
        lost, sent = [], noise(1000)
        code = "r = mmapipc.Receiver(name); say(r.read(100).hex()); sys.stdin.read()"
        async with await aio.open_sender(self.name, capacity=64, persist=True, on_lost=lost.append) as sender:
            writing = asyncio.ensure_future(sender.write(sent))
            got = b""
            for number in range(3):
                child = self.python(code, stdin=subprocess.PIPE)
                got += bytes.fromhex(await asyncio.to_thread(child.line))
                await self.asleep(sender)
                await asyncio.to_thread(child.kill)
                while len(lost) == number:
                    await asyncio.sleep(0.001)
            async with await aio.open_receiver(self.name) as receiver:
                self.assertEqual(receiver.tell(), len(got))
                got += await receiver.readexactly(len(sent) - len(got))
                await writing
                await sender.finish()
                self.assertEqual(await receiver.read(), b"")
        self.assertEqual((got, lost), (sent, [1, 1, 1]))

    @in_loop
    async def test_timeouts_take_nothing_away(self):
        async with self.ends(capacity=8) as (sender, receiver):
            await sender.write(b"abc")
            for receiver.timeout in (0, 0.01):
                for reading in (receiver.readexactly(4), receiver.readline(), receiver.read()):
                    with self.assertRaises(mmapipc.ChannelTimeout):
                        await reading
            self.assertEqual(receiver.tell(), 0)
            await sender.write(b"defgh")
            for sender.timeout in (0.01, 0):
                with self.assertRaises(mmapipc.ChannelTimeout):
                    await sender.write(b"ij")
            self.assertEqual(await receiver.read(1), b"a")
            with self.assertRaises(mmapipc.ChannelTimeout):
                await sender.write(b"ij")  # all of it or, with 0, nothing
            sender.timeout = receiver.timeout = None
            await sender.write(b"i")
            await sender.finish()  # that was made good for
            self.assertEqual(await receiver.read(), b"bcdefghi")

    @in_loop
    async def test_opening(self):
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.ensure_future(tick())
        with self.assertRaisesRegex(mmapipc.ChannelTimeout, "no sender came"):
            await aio.open_receiver(self.name, timeout=0.1)
        opening = asyncio.ensure_future(aio.open_receiver(self.name))
        async with await aio.open_sender(self.name) as sender, await opening as receiver:
            for call in (aio.open_sender, aio.open_receiver):
                with self.assertRaises(mmapipc.RoleTaken):
                    await call(self.name)
                with self.assertRaisesRegex(mmapipc.ChannelTimeout, f"pid {os.getpid()}"):
                    await call(self.name, wait_for_role=True, timeout=0.1)
            waiting_for_role = asyncio.ensure_future(aio.open_sender(self.name, wait_for_role=True))
            await sender.finish()
            self.assertEqual(await receiver.read(), b"")
        async with await waiting_for_role as sender:
            ready = ticks
            while ticks < ready + 10:
                await asyncio.sleep(0.001)
            sender.abort()
        self.assertGreater(ticks, 10)
        ticking.cancel()
        for wrong in ({"capacity": 0}, {"timeout": -1}):
            with self.assertRaises(ValueError):
                await aio.open_sender(self.name, **wrong)
        with self.assertRaises(TypeError):
            await aio.open_sender(7)

    @in_loop
    async def test_an_opening_that_is_cancelled_leaves_nothing(self):
        async def cancelled(opening, seconds):
            task = asyncio.ensure_future(opening)
            await asyncio.sleep(seconds)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        counts = []
        for number in range(40):
            await cancelled(aio.open_receiver(self.name), number / 4000)
            self.assertEqual(os.listdir(self.memory), [])
            async with await aio.open_sender(self.name) as sender:
                receiver = await aio.open_receiver(self.name)
                sender.abort()
                await cancelled(aio.open_sender(self.name), number / 4000)  # an older receiver is still there
                await cancelled(aio.open_sender(self.name, wait_for_role=True), 0)
                await receiver.close()
            counts.append(open_handles())
        self.assertEqual(counts[5:-1], counts[6:])
        async with self.ends() as (sender, receiver):
            await sender.write(b"again")
            self.assertEqual(await receiver.read(9), b"again")

    @in_loop
    async def test_a_ring_in_a_file(self):
        path = str(self.folder / "ring")
        async with await aio.open_sender(self.name, file=path, capacity=100) as sender:
            await sender.write(b"kept")
        self.assertTrue(sender.closed)  # nobody is waited for
        async with await aio.open_receiver(self.name, file=path) as receiver:
            self.assertEqual(await receiver.read(), b"kept")

    @in_loop
    async def test_several_tasks_write_each_in_one_piece(self):
        async with self.ends(capacity=7) as (sender, receiver):
            lines = [bytes([65 + number]) * 30 + b"\n" for number in range(20)]
            writing = [asyncio.ensure_future(sender.write(line)) for line in lines]
            self.assertEqual([await receiver.readline() for _ in lines], lines)
            await asyncio.gather(*writing)
        async with self.ends(capacity=7) as (sender, receiver):
            first = asyncio.ensure_future(sender.write(b"abcdefghij"))
            await self.asleep(sender)
            self.assertEqual(await receiver.read(5), b"abcde")
            # There is room for it, but it is not its turn.
            second = asyncio.ensure_future(sender.write(b"k"))
            self.assertEqual(await receiver.readexactly(6), b"fghijk")
            await asyncio.gather(first, second)
            finishing = asyncio.ensure_future(sender.finish())
            await finishing
            self.assertEqual(await receiver.read(), b"")

    @in_loop
    async def test_a_write_that_is_cancelled_before_its_turn_is_missed_too(self):
        for makes_good in (False, True):
            async with self.ends(capacity=4) as (sender, receiver):
                first = asyncio.ensure_future(sender.write(b"abcdefgh"))
                await self.asleep(sender)
                second = asyncio.ensure_future(sender.write(b"missed"))
                await asyncio.sleep(0)
                second.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await second
                self.assertEqual(await receiver.readexactly(8), b"abcdefgh")
                await first
                if makes_good:
                    await sender.write(b"i")
                    await sender.finish()
                    self.assertEqual(await receiver.read(), b"i")
                else:
                    with self.assertRaises(mmapipc.StreamAborted):
                        await sender.finish()

    @in_loop
    async def test_one_task_at_a_time_reads(self):
        async with self.ends() as (sender, receiver):
            reading = asyncio.ensure_future(receiver.readexactly(2))
            await self.asleep(receiver)
            for call in (
                receiver.read(1),
                receiver.readline(),
                receiver.readexactly(1),
                receiver.readuntil(),
            ):
                with self.assertRaisesRegex(RuntimeError, "another task"):
                    await call
            await sender.write(b"ab")
            self.assertEqual(await reading, b"ab")

    @in_loop
    async def test_closing_ends_the_waits_of_other_tasks(self):
        async with self.ends(capacity=2) as (sender, receiver):
            reading = asyncio.ensure_future(receiver.read(1))
            await self.asleep(receiver)
            receiver.abort()
            with self.assertRaisesRegex(ValueError, "closed channel"):
                await reading
            for call in (
                receiver.read(1),
                receiver.readline(),
                receiver.readexactly(1),
                receiver.readuntil(),
            ):
                with self.assertRaisesRegex(ValueError, "closed channel"):
                    await call
            for call in (
                receiver.at_eof,
                receiver.tell,
                lambda: receiver.timeout,
                lambda: receiver.in_flight,
            ):
                with self.assertRaisesRegex(ValueError, "closed channel"):
                    call()
            await receiver.close()
            receiver.abort()
        async with self.ends(capacity=2) as (sender, receiver):
            await sender.write(b"ab")
            calls = (sender.write(b"c"), sender.write(b"d"), sender.finish(), sender.close())
            waiting_tasks = [asyncio.ensure_future(call) for call in calls]
            await self.asleep(sender)
            sender.abort()
            for task in waiting_tasks:
                with self.assertRaisesRegex(ValueError, "closed channel"):
                    await task
            self.assertRegex(repr(sender), "mmapipc.aio.Sender .* closed>")
            with self.assertRaisesRegex(ValueError, "closed channel"):
                async with sender:
                    pass

    @in_loop
    async def test_what_it_tells(self):
        async with self.ends(capacity=10) as (sender, receiver):
            await sender.write(b"abc")
            self.assertEqual((sender.name, sender.capacity, sender.timeout), (self.name, 10, None))
            self.assertEqual((sender.tell(), sender.in_flight, receiver.tell()), (3, 3, 0))
            self.assertTrue(sender.attached and receiver.attached)
            self.assertEqual(
                repr(receiver),
                f"<mmapipc.aio.Receiver '{self.name}' at byte 0, 3 of 10 in flight, sender attached>",
            )
            self.assertFalse(receiver.closed)
            with self.assertRaises(ValueError):
                receiver.timeout = -1

    @in_loop
    async def test_time_limits_of_asyncio(self):
        async with self.ends() as (sender, receiver):
            await sender.write(b"part")
            for _ in range(20):
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(receiver.readline(), 0.002)
                if sys.version_info >= (3, 11):
                    with self.assertRaises(TimeoutError):
                        async with asyncio.timeout(0.002):
                            await receiver.readexactly(5)
            self.assertEqual(receiver.tell(), 0)
            await sender.write(b"s\n")
            self.assertEqual(await asyncio.wait_for(receiver.readline(), DEADLINE), b"parts\n")

    @unittest.skipIf(sys.version_info < (3, 11), "task groups came with Python 3.11")
    @in_loop
    async def test_task_groups(self):
        got = {}

        async def sending(number):
            async with await aio.open_sender(f"{self.name}.{number}", capacity=16) as sender:
                for _ in range(50):
                    await sender.write(b"%d\n" % number)

        async def receiving(number):
            async with await aio.open_receiver(f"{self.name}.{number}") as receiver:
                got[number] = [line async for line in receiver]

        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(receiving(number))
                group.create_task(sending(number))
        self.assertEqual(got, {number: [b"%d\n" % number] * 50 for number in range(10)})

    @in_loop
    async def test_nothing_is_left_open(self):
        async def exchange():
            async with self.ends(capacity=1) as (sender, receiver):
                reading = asyncio.ensure_future(receiver.read(1))
                await self.asleep(receiver)
                await sender.write(b"x")
                await reading

        for _ in range(3):
            await exchange()
        before = open_handles()
        for _ in range(20):
            await exchange()
        self.check_open(before)

    @in_loop
    async def test_an_end_that_is_forgotten_warns_and_gives_up(self):
        sender = await aio.open_sender(self.name)
        async with await aio.open_receiver(self.name) as receiver:
            await sender.write(b"part")
            with self.assertWarnsRegex(ResourceWarning, "unclosed"):
                del sender
            self.assertEqual(await receiver.read(9), b"part")
            with self.assertRaises(mmapipc.StreamAborted):
                await receiver.read(9)


    def test_an_end_can_outlive_its_loop(self):
        async def leave_open():
            sender = await aio.open_sender(self.name, capacity=1)
            receiver = await aio.open_receiver(self.name)
            reading = asyncio.ensure_future(receiver.read(1))
            await self.asleep(receiver)
            return sender, receiver, reading

        with self.assertNoLogs() if hasattr(self, "assertNoLogs") else contextlib.nullcontext():
            sender, receiver, reading = self.run_in_loop(leave_open())
            sender.abort()
            receiver.abort()
        self.assertEqual(
            [thread.name for thread in threading.enumerate() if thread.name == "mmapipc.aio"], []
        )


class Cancelled(AioTest):
    """Cancelling at any moment takes nothing away."""

    MOMENTS = 300 if WINDOWS else 2000  # there the shortest sleep takes 16 ms

    async def cut_short(self, rng, call):
        """Let it run for a moment, then cancel it; its result, or None."""
        task = asyncio.ensure_future(call)
        if rng.random() < 0.1:
            await asyncio.sleep(rng.random() / 1000)
        else:
            for _ in range(rng.randrange(8)):
                await asyncio.sleep(0)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return None
        except asyncio.IncompleteReadError as error:
            return error.partial

    def test_reading(self):
        for capacity, largest in ((97, 90), (50, 130)):
            with self.subTest(capacity):
                self.run_in_loop(self.read_and_cancel(capacity, largest))

    async def read_and_cancel(self, capacity, largest):
        rng = random.Random(capacity)
        sent, enough = bytearray(), False
        child = self.python(SENDS_PIECES, str(capacity), stdin=subprocess.PIPE)

        def feed():
            letters = random.Random(capacity)
            while not enough:
                piece = bytes(letters.choices(b"ab\n", weights=(20, 20, 1), k=letters.randrange(1, 40)))
                sent.extend(piece)
                child.feed(piece.hex().encode() + b"\n")
            child.end_input()

        feeding = asyncio.get_running_loop().run_in_executor(None, feed)
        got, cancelled = bytearray(), 0
        async with await aio.open_receiver(self.name) as receiver:
            while not receiver.at_eof():
                calls = [
                    lambda: receiver.read(rng.randrange(1, largest)),
                    lambda: receiver.readexactly(rng.randrange(largest)),
                ]
                if largest > capacity:  # otherwise a line might be longer than the ring
                    calls += [receiver.readline, lambda: receiver.readuntil(b"aabb")]
                result = await self.cut_short(rng, rng.choice(calls)())
                if result is None:
                    cancelled += 1
                    enough = cancelled >= self.MOMENTS
                else:
                    got += result
                if largest < capacity:
                    # Not a byte is acknowledged that was not returned.
                    self.assertEqual(receiver.tell(), len(got))
        await feeding
        self.assertEqual(got, sent)
        self.assertEqual(await asyncio.to_thread(child.end), (0, b"", ""))

    @in_loop
    async def test_writing(self):
        rng = random.Random(3)
        child = self.python(TAKES_ALL, stdin=subprocess.PIPE)
        cancelled, how_many = 0, {"part": 0, "nothing": 0, "whole": 0}
        while cancelled < self.MOMENTS or min(how_many.values()) < 4:
            sent, how = b"", "whole"
            sender = await aio.open_sender(self.name, capacity=8)
            try:
                child.feed(self.name.encode() + b"\n")
                while not sender.attached:
                    await asyncio.sleep(0.0005)
                for _ in range(100):
                    # One byte, or so many that a part may go first.
                    data = rng.randbytes(1 if rng.random() < 0.98 else rng.randrange(1, 90))
                    start = sender.tell()
                    started = False

                    async def write(data=data):
                        nonlocal started
                        started = True
                        return await sender.write(data)

                    written = await self.cut_short(rng, write())
                    if not started:
                        continue
                    done = sender.tell() - start
                    sent += data[:done]
                    if written is not None:
                        self.assertEqual(written, done)
                        self.assertEqual(written, len(data))
                        how = "whole"
                        continue
                    cancelled += 1
                    how = "part" if done else "nothing"
                    if done:
                        self.assertLess(done, len(data))
                        with self.assertRaisesRegex(ValueError, "cut short"):
                            await sender.write(b"more")
                        break
                if how == "whole":
                    await sender.close()
                else:
                    with self.assertRaises((mmapipc.StreamAborted, ValueError)):
                        await sender.close()
            finally:
                sender.abort()
            how_many[how] += 1
            line = await asyncio.to_thread(child.line)
            self.assertEqual(
                line, f"{len(sent)} {digest(sent)} {'whole' if how == 'whole' else 'StreamAborted'}"
            )
        child.end_input()
        self.assertEqual(await asyncio.to_thread(child.end), (0, b"", ""))

    @in_loop
    async def test_closing_while_another_task_writes(self):
        """The stream is not finished then; the receiver is told so, and not that the sender died."""
        async with self.ends(capacity=8) as (sender, receiver):
            writing = asyncio.ensure_future(sender.write(bytes(100)))
            await self.asleep(sender)
            closing = asyncio.ensure_future(sender.close())
            await asyncio.sleep(0)
            closing.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await closing
            with self.assertRaisesRegex(ValueError, "closed"):
                await writing
            with self.assertRaises(mmapipc.StreamAborted):
                await receiver.read()


@apart
class Many(AioTest):
    def receivers(self, count):
        """A child that has all the senders."""
        child = self.python(SENDS, str(count), stdin=subprocess.PIPE)
        self.assertEqual(child.line(), "ready")
        return child

    @in_loop
    async def test_two_hundred_ends(self):
        child = await asyncio.to_thread(self.receivers, 200)
        receivers = [await aio.open_receiver(f"{self.name}.{number}") for number in range(200)]
        try:
            reading = [asyncio.ensure_future(receiver.read(9)) for receiver in receivers]
            for number in (0, 199, 61, 62, 100, 100, *range(0, 200, 7)):
                child.feed(b"%d a\n" % number)
                self.assertEqual(await reading[number], b"a")
                reading[number] = asyncio.ensure_future(receivers[number].read(9))
                await asyncio.sleep(0)
            self.assertEqual([task for task in reading if task.done()], [])
            child.kill()
            for task in reading:
                with self.assertRaises(mmapipc.SenderDied):
                    await task
        finally:
            for receiver in receivers:
                receiver.abort()

    @needs_bells
    @in_loop
    async def test_idle_ends_cost_nothing(self):
        """Hundreds that wait are looked at together, and seldom."""
        child = await asyncio.to_thread(self.receivers, 100)
        receivers = [await aio.open_receiver(f"{self.name}.{number}") for number in range(100)]
        try:
            reading = []
            for receiver in receivers:
                reading.append(asyncio.ensure_future(receiver.read(9)))
                await asyncio.sleep(0.02)
            await asyncio.sleep(3)  # the first looks come sooner
            with mock.patch.object(
                looping._Side, "_look_around", autospec=True, side_effect=looping._Side._look_around
            ) as looked:
                await asyncio.sleep(3)
            self.assertLess(looked.call_count, 20)
            child.end_input()  # it ends
            for task in reading:
                with self.assertRaises(mmapipc.StreamAborted):
                    await task
        finally:
            for receiver in receivers:
                receiver.abort()
        self.assertEqual(await asyncio.to_thread(child.end), (0, b"", ""))

    @needs_bells
    @in_loop
    async def test_a_ring_wakes_and_not_a_look(self):
        with mock.patch.object(waiting.Waiter, "next_span", lambda self, span: 1000.0):
            child = self.python(ECHOES)
            async with await aio.open_sender(self.name) as there:
                async with await aio.open_receiver(f"{self.name}.back") as back:
                    for number in range(100):
                        reading = asyncio.ensure_future(back.readexactly(4))
                        await self.asleep(back)
                        await there.write(number.to_bytes(4, "big"))
                        self.assertEqual(int.from_bytes(await reading, "big"), number)
                    await there.finish()
                    self.assertEqual(await back.read(), b"")
        self.assertEqual(await asyncio.to_thread(child.end), (0, b"", ""))

    @in_loop
    async def test_a_death_of_which_the_system_does_not_tell_costs_a_look(self):
        with mock.patch.object(bells.Bells, "watch", lambda self, pid: False):
            child = await asyncio.to_thread(self.receivers, 1)
            async with await aio.open_receiver(f"{self.name}.0") as receiver:
                reading = asyncio.ensure_future(receiver.read(9))
                await asyncio.sleep(0.5)  # the first looks are over
                child.kill()
                with self.assertRaises(mmapipc.SenderDied):
                    await reading

    @in_loop
    async def test_a_missed_ring_costs_a_look(self):
        async with self.ends() as (sender, receiver):
            for number in range(5):
                reading = asyncio.ensure_future(receiver.read(9))
                await self.asleep(receiver)
                with mock.patch.object(sender._half, "ring", lambda: None):
                    await sender.write(b"a")
                self.assertEqual(await reading, b"a")


class Several(AioTest):
    """Two loops at once, each in a thread of its own."""

    def test_two_loops(self):
        from .helpers import Background

        async def sending():
            async with await aio.open_sender(self.name, capacity=16) as sender:
                for number in range(500):
                    await sender.write(b"%d\n" % number)

        async def receiving():
            async with await aio.open_receiver(self.name) as receiver:
                return [line async for line in receiver]

        threads = [Background(lambda main=main: asyncio.run(main())) for main in (sending, receiving)]
        self.assertEqual(threads[1].result(), [b"%d\n" % number for number in range(500)])
        threads[0].result()


@unittest.skipIf(WINDOWS, "POSIX only: no loop of Windows listens to a bell anyway")
class DeafStreams(Streams):
    new_loop = DeafLoop


@unittest.skipIf(WINDOWS, "POSIX only: the same")
class DeafMany(Many):
    new_loop = DeafLoop


@unittest.skipIf(WINDOWS, "POSIX only: the same")
class DeafCancelled(Cancelled):
    new_loop = DeafLoop


@unittest.skipUnless(WINDOWS, "Windows only: its other loop")
class SelectorStreams(Streams):
    new_loop = asyncio.SelectorEventLoop


class BellLessStreams(Streams):
    """Where there are no bells, those who wait look."""

    def setUp(self):
        super().setUp()
        without = no_bells()
        without.start()
        self.addCleanup(without.stop)


class Start(ChannelTest):
    def test_who_needs_no_loop_imports_none(self):
        child = self.python("say(sorted({'asyncio', 'mmapipc.aio'} & set(sys.modules)))")
        self.assertEqual(child.end(), (0, f"[]{os.linesep}".encode(), ""))

    def test_its_public_names(self):
        self.assertEqual(aio.__all__, sorted(aio.__all__))
        for name in aio.__all__:
            self.assertTrue(getattr(aio, name).__doc__)


if __name__ == "__main__":
    unittest.main()
