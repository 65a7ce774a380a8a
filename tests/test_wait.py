"""Waiting for several ends at once, beside other things; bells, for event loops."""

import asyncio
import io
import multiprocessing
import os
import select
import signal
import subprocess
import time
import unittest
from multiprocessing import connection
from unittest import mock

import mmapipc
from mmapipc._ring import layout
from mmapipc._system import system

from .helpers import DEADLINE, WINDOWS, Background, ChannelTest, alone, eventually, open_handles, needs_bells

if WINDOWS:
    from mmapipc._system.windows import bells
else:
    from mmapipc._system.posix import bells

# Opens ends of the channels name.0, name.1 and so on; does what its input says.
SENDS = """
ends = [mmapipc.Sender(f'{name}.{number}', capacity=8) for number in range(int(sys.argv[2]))]
say('ready')
for line in sys.stdin:
    number, text = line.split()
    if text == 'end':
        ends[int(number)].finish()
    else:
        ends[int(number)].write(text.encode())
for end in ends:
    end.abort()
"""
TAKES = """
end = mmapipc.Receiver(name)
for line in sys.stdin:
    end.read(int(line))
end.abort()
"""
ECHOES = """
with mmapipc.Sender(name + '.back') as back, mmapipc.Receiver(name) as there:
    while data := there.read(4096):
        back.write(data)
"""


def no_bells():
    """Here ends open without bells."""
    return mock.patch.object(bells, "bells", lambda own, peers: None)


class WaitTest(ChannelTest):
    def receivers(self, count):
        """Receivers, and the child that has all the senders."""
        child = self.python(SENDS, str(count), stdin=subprocess.PIPE)
        self.assertEqual(child.line(), "ready")
        receivers = [self.receiver(f"{self.name}.{number}") for number in range(count)]
        self.addCleanup(child.end)
        return receivers, child

    def receiver(self, name):
        receiver = mmapipc.Receiver(name, timeout=DEADLINE)
        self.addCleanup(receiver.close)
        return receiver

    def later(self, action):
        """Do that while the test waits; fail with it if it fails."""

        def act():
            time.sleep(0.1)
            action()

        thread = Background(act)
        self.addCleanup(thread.result)


class Waits(WaitTest):
    def test_those_that_are_ready_in_the_order_given(self):
        receivers, child = self.receivers(3)
        first, second, third = receivers
        self.assertEqual(mmapipc.wait(receivers, 0), [])
        for _ in range(3):
            for number, receiver in enumerate(receivers):
                child.feed(b"%d a\n" % number)
                self.assertEqual(mmapipc.wait(receivers, DEADLINE), [receiver])
                self.assertEqual(receiver.read(9), b"a")
        child.feed(b"2 a\n0 b\n")
        eventually(lambda: first.in_flight and third.in_flight, "both are sent")
        self.assertEqual(mmapipc.wait(receivers), [first, third])
        self.assertEqual(mmapipc.wait(iter([third, second, first, third])), [third, first, third])

    def test_each_in_a_process_of_its_own(self):
        children, receivers = {}, []
        for number in range(3):
            name = f"{self.name}.{number}"
            code = f"end = mmapipc.Sender({name!r}); end.write(sys.stdin.readline().encode()); end.close()"
            children[name] = self.python(code, stdin=subprocess.PIPE)
            receivers.append(self.receiver(name))
        while receivers:
            receiver = receivers[len(receivers) // 2]
            child = children[receiver.name]
            self.later(lambda child=child: child.feed(b"a line\n"))
            self.assertEqual(mmapipc.wait(receivers, DEADLINE), [receiver])
            self.assertEqual(receiver.readline().strip(), b"a line")
            self.assertEqual(mmapipc.wait(receivers, DEADLINE), [receiver])
            self.assertEqual(receiver.read(1), b"")
            receivers.remove(receiver)
            self.assertEqual(child.end(), (0, b"", ""))

    def test_timeouts(self):
        with self.both(capacity=8) as (sender, receiver):
            self.assertEqual(mmapipc.wait([], 0), [])
            self.assertEqual(mmapipc.wait([], 0.01), [])
            for timeout in (0, 0.001, 0.2):
                start = time.perf_counter()
                self.assertEqual(mmapipc.wait([receiver], timeout), [])
                self.assertGreaterEqual(time.perf_counter() - start, timeout)
                self.assertEqual(sender._link.half.called, 0)
            self.assertEqual(mmapipc.wait([receiver, sender], 0), [sender])
            for timeout in (-1, "now", float("nan"), 1e30):
                with self.assertRaises(ValueError):
                    mmapipc.wait([receiver], timeout)

    @needs_bells
    def test_it_sleeps_and_does_not_look_all_the_time(self):
        with self.both(capacity=8) as (_, receiver):
            with mock.patch.object(system, "sleep_on", wraps=system.sleep_on) as slept:
                self.assertEqual(mmapipc.wait([receiver], 1.5), [])
            self.assertLess(slept.call_count, 12)
            spans = [call.args[1] for call in slept.call_args_list]
            self.assertLessEqual(max(spans), 0.5)

    @needs_bells
    def test_a_ring_ends_the_sleep(self):
        with self.both(capacity=8) as (sender, receiver):
            slept = system.sleep_on

            def sleep(waited, seconds):
                sender.write(b"a")  # after the last look
                start = time.perf_counter()
                ended = slept(waited, DEADLINE)
                self.assertLess(time.perf_counter() - start, DEADLINE / 2)
                return ended

            for _ in range(20):
                with mock.patch.object(system, "sleep_on", sleep):
                    self.assertEqual(mmapipc.wait([receiver]), [receiver])
                self.assertEqual(receiver.read(8), b"a")

    def test_room_for_a_byte(self):
        with mmapipc.Sender(self.name, capacity=4) as sender:
            child = self.python(TAKES, stdin=subprocess.PIPE)
            self.assertEqual(mmapipc.wait([sender]), [sender])
            sender.write(b"abcd")
            self.assertEqual(mmapipc.wait([sender], 0.01), [])
            self.later(lambda: child.feed(b"1\n"))
            self.assertEqual(mmapipc.wait([sender], DEADLINE), [sender])
            sender.write(b"e")
            self.assertEqual(mmapipc.wait([sender], 0.01), [])
            self.later(child.end_input)
            self.assertEqual(mmapipc.wait([sender], DEADLINE), [sender])  # for an error
            with self.assertRaises(mmapipc.ReceiverGone):
                sender.write(b"f")
            sender.abort()
            child.end()

    def test_the_end_of_a_stream(self):
        receivers, child = self.receivers(2)
        self.later(lambda: child.feed(b"1 end\n"))
        self.assertEqual(mmapipc.wait(receivers, DEADLINE), receivers[1:])
        self.assertEqual(receivers[1].read(1), b"")
        self.later(child.end_input)
        self.assertEqual(mmapipc.wait(receivers[:1], DEADLINE), receivers[:1])
        with self.assertRaises(mmapipc.StreamAborted):
            receivers[0].read(1)

    def test_a_killed_peer_is_told_of(self):
        receivers, child = self.receivers(2)
        for seconds in (0.0, 1.5):  # in its first sleep, and in a later one
            with self.subTest(seconds):
                self.assertEqual(mmapipc.wait(receivers, seconds), [])
                self.later(child.kill)
                start = time.perf_counter()
                self.assertEqual(len(mmapipc.wait(receivers, DEADLINE)) > 0, True)
                self.assertLess(time.perf_counter() - start, 5)
                eventually(lambda: mmapipc.wait(receivers, 1) == receivers, "both are told of")
                for receiver in receivers:
                    with self.assertRaises(mmapipc.SenderDied):
                        receiver.read(1)
                    receiver.close()
                receivers, child = self.receivers(2)

    @needs_bells
    def test_a_persistent_sender_whose_receiver_was_killed_sleeps_on(self):
        with mmapipc.Sender(self.name, capacity=4, persist=True) as sender:
            child = self.python(TAKES, stdin=subprocess.PIPE)
            sender.write(b"abcd")
            eventually(lambda: sender.attached, "it came")
            self.assertEqual(mmapipc.wait([sender], 0.5), [])
            child.kill()
            with mock.patch.object(system, "sleep_on", wraps=system.sleep_on) as slept:
                self.assertEqual(mmapipc.wait([sender], 1), [])
            self.assertLess(slept.call_count, 20)
            child = self.python(TAKES, stdin=subprocess.PIPE)
            child.feed(b"4\n")
            self.assertEqual(mmapipc.wait([sender], DEADLINE), [sender])
            child.end()
            sender.abort()

    @needs_bells
    def test_damaged_memory_is_an_error_to_be_met(self):
        with self.both(capacity=4) as (sender, receiver):
            words = sender._link.half.words
            words[layout.WRITE_SEQ] = 99
            self.assertFalse(receiver.bell.arm())
            self.assertEqual(mmapipc.wait([receiver], DEADLINE), [receiver])
            words[layout.WRITE_SEQ] = 0

    def test_two_hundred_ends(self):
        receivers, child = self.receivers(200)
        self.assertEqual(mmapipc.wait(receivers, 0.2), [])
        for number in (0, 199, 61, 62, 100, 100):
            self.later(lambda number=number: child.feed(b"%d a\n" % number))
            self.assertEqual(mmapipc.wait(receivers, DEADLINE), [receivers[number]])
            self.assertEqual(receivers[number].read(9), b"a")
        child.kill()
        eventually(lambda: mmapipc.wait(receivers, DEADLINE) == receivers, "all are told of")

    def test_closed_ends(self):
        with self.both(capacity=8) as (_, receiver):
            self.later(receiver.close)
            with self.assertRaisesRegex(ValueError, "closed channel"):
                mmapipc.wait([receiver], DEADLINE)
            with self.assertRaisesRegex(ValueError, "closed channel"):
                mmapipc.wait([receiver], 0)
        with mmapipc.open(self.name, "wb") as file:
            file.abort()
            with self.assertRaises(ValueError):
                mmapipc.wait([file], 0)

    def test_without_bells_it_naps(self):
        with no_bells(), self.both(capacity=8) as (sender, receiver):
            for _ in range(3):
                self.later(lambda: sender.write(b"a"))
                self.assertEqual(mmapipc.wait([receiver], DEADLINE), [receiver])
                self.assertEqual(receiver.read(9), b"a")
            self.assertEqual(mmapipc.wait([receiver], 0.2), [])

    def test_descriptors_do_not_grow(self):
        receivers, child = self.receivers(3)
        counts = set()
        for number in range(20):
            child.feed(b"%d a\n" % (number % 3))
            self.assertEqual(mmapipc.wait(receivers, DEADLINE), [receivers[number % 3]])
            receivers[number % 3].read(1)
            self.assertEqual(mmapipc.wait(receivers, 0.1), [])
            counts.add(open_handles())
        # On a busy machine a receiver may sleep, and have what it needs for that, only in a later round.
        self.assertLess(len(counts), 5)

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_what_a_handler_raises_disarms_all(self):
        class Interrupted(Exception):
            pass

        def interrupt(*_):
            raise Interrupted

        before = signal.signal(signal.SIGALRM, interrupt)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        senders = [mmapipc.Sender(f"{self.name}.{number}") for number in range(3)]
        for sender in senders:
            self.addCleanup(sender.abort)
        receivers = [self.receiver(sender.name) for sender in senders]
        for _ in range(5):
            with self.assertRaises(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                mmapipc.wait(receivers)
            self.assertEqual([sender._link.half.called for sender in senders], [0, 0, 0])
        # One that raises nothing does not end the wait; and one may close an end.
        signal.signal(signal.SIGALRM, lambda *_: senders[1].write(b"a"))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        self.assertEqual(mmapipc.wait(receivers, DEADLINE), [receivers[1]])
        receivers[1].read(1)
        signal.signal(signal.SIGALRM, lambda *_: receivers[2].close())
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with self.assertRaisesRegex(ValueError, "closed channel"):
            mmapipc.wait(receivers, DEADLINE)
        self.assertEqual([sender._link.half.called & layout.PARKED for sender in senders], [0, 0, 0])


class Mixes(WaitTest):
    def test_what_multiprocessing_waits_for(self):
        ours, theirs = multiprocessing.Pipe()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        with self.both(capacity=8) as (sender, receiver):
            mixed = [ours, receiver]
            self.assertEqual(mmapipc.wait(mixed, 0), [])
            self.assertEqual(mmapipc.wait(mixed, 0.1), [])
            self.later(lambda: theirs.send(1))
            self.assertEqual(mmapipc.wait(mixed, DEADLINE), [ours])
            sender.write(b"a")
            self.assertEqual(mmapipc.wait(mixed, DEADLINE), mixed)
            self.assertEqual(mmapipc.wait(mixed, 0), mixed)
            self.assertEqual(ours.recv(), 1)
            self.assertEqual(mmapipc.wait(mixed), [receiver])
            receiver.read(1)
            self.later(lambda: sender.write(b"a"))
            self.assertEqual(mmapipc.wait(mixed, DEADLINE), [receiver])
            with self.assertRaises(TypeError):
                mmapipc.wait([receiver, object()], 0)

    @unittest.skipIf(WINDOWS, "POSIX only: descriptors")
    def test_descriptors(self):
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with self.both(capacity=8) as (sender, receiver):
            with open(reading, "rb", buffering=0, closefd=False) as file:
                mixed = [receiver, reading, file]
                self.assertEqual(mmapipc.wait(mixed, 0.1), [])
                self.later(lambda: os.write(writing, b"a"))
                self.assertEqual(mmapipc.wait(mixed, DEADLINE), [reading, file])
                os.read(reading, 1)
                sender.write(b"a")
                self.assertEqual(mmapipc.wait(mixed, DEADLINE), [receiver])
                receiver.read(1)
                os.close(writing)
                self.assertEqual(mmapipc.wait(mixed), [reading, file])

    @unittest.skipUnless(WINDOWS, "Windows only: handles")
    def test_handles(self):
        from mmapipc._system.windows import win32

        semaphores = [win32.create_semaphore(None, 0, 1, None) for _ in range(70)]
        with self.both(capacity=8) as (sender, receiver):
            mixed = [receiver, *(each.value for each in semaphores)]
            self.assertEqual(mmapipc.wait(mixed, 0.1), [])
            for number in (0, 69):
                self.later(lambda number=number: win32.release_semaphore(semaphores[number], 1, None))
                self.assertEqual(mmapipc.wait(mixed, DEADLINE), [semaphores[number].value])
            self.later(lambda: sender.write(b"a"))
            self.assertEqual(mmapipc.wait(mixed, DEADLINE), [receiver])
            receiver.read(1)
            for number in (69, 0):  # in a batch that is not the first, and in that
                mixed[1 + number] = 0x7FFFFFF0  # nobody's
                with self.assertRaises(OSError):
                    mmapipc.wait(mixed, DEADLINE)
                mixed[1 + number] = semaphores[number].value

    @unittest.skipUnless(WINDOWS, "Windows only: handles")
    def test_handles_are_not_given_to_what_loses_some(self):
        # CPython 3.13 waits for more than 60 in threads of its own: a semaphore that was released was lost.
        from mmapipc._system.windows import win32

        semaphores = [win32.create_semaphore(None, 0, 1, None) for _ in range(200)]
        given = []

        def wait(objects, timeout):
            given.append(len(objects))
            return theirs(objects, timeout)

        theirs = connection.wait
        with mock.patch.object(connection, "wait", wait):
            self.assertEqual(mmapipc.wait([each.value for each in semaphores], 0.1), [])
        self.assertGreaterEqual(sum(given), 200)
        self.assertLessEqual(max(given), 60)

    @needs_bells
    def test_files_and_what_they_have_read_ahead(self):
        for mode in ("rb", "r"):
            with self.subTest(mode), mmapipc.Sender(self.name) as sender:
                with mmapipc.open(self.name, mode, timeout=DEADLINE) as file:
                    self.assertEqual(mmapipc.wait([file], 0.01), [])
                    self.later(lambda: sender.write(b"one\ntwo\n"))
                    self.assertEqual(mmapipc.wait([file], DEADLINE), [file])
                    self.assertTrue(file.readline())
                    self.assertFalse(file.raw.in_flight if mode == "rb" else file.buffer.raw.in_flight)
                    self.assertEqual(mmapipc.wait([file]), [file])
                    self.assertFalse(file.bell.arm())
                    self.assertTrue(file.readline())
                    self.assertEqual(mmapipc.wait([file], 0.01), [])
                    self.assertTrue(file.bell.arm())
                    file.bell.disarm()
                    self.later(sender.finish)
                    self.assertEqual(mmapipc.wait([file], DEADLINE), [file])
                    self.assertFalse(file.readline())

    @needs_bells
    def test_a_file_that_writes(self):
        for mode in ("wb", "w"):
            with self.subTest(mode), mmapipc.open(self.name, mode, capacity=4) as file:
                with self.receiver(self.name) as receiver:
                    self.assertEqual(mmapipc.wait([file]), [file])
                    file.write(b"abcd" if mode == "wb" else "abcd")
                    file.flush()
                    self.assertEqual(mmapipc.wait([file], 0.01), [])
                    self.assertTrue(file.bell.arm())
                    self.later(lambda: receiver.read(4))
                    self.assertEqual(mmapipc.wait([file], DEADLINE), [file])

    @needs_bells
    def test_a_file_that_refuses_to_go_on_is_ready_to_say_so(self):
        with mmapipc.Sender(self.name) as sender:
            with mmapipc.open(self.name, timeout=0.01) as file:
                with self.assertRaises(mmapipc.ChannelTimeout):
                    file.read(1)
                self.assertEqual(mmapipc.wait([file], DEADLINE), [file])
                self.assertFalse(file.bell.arm())
                with self.assertRaises(mmapipc.ReadFailed):
                    file.read(1)
            sender.abort()


@needs_bells
class Bells(WaitTest):
    def test_it_is_armed_only_when_there_is_nothing_to_do(self):
        with self.both(capacity=2) as (sender, receiver):
            self.assertFalse(sender.bell.arm())  # there is room
            self.assertEqual(receiver._link.half.called, 0)
            self.assertTrue(receiver.bell.arm())
            self.assertEqual(sender._link.half.called, layout.parked(0))
            receiver.bell.disarm()
            self.assertEqual(sender._link.half.called, 0)
            sender.write(b"ab")
            self.assertFalse(receiver.bell.arm())
            self.assertEqual(sender._link.half.called, 0)
            self.assertTrue(sender.bell.arm())
            self.assertEqual(receiver.read(2), b"ab")
            self.assertFalse(sender.bell.arm())
            self.assertTrue(receiver.bell.arm())
            sender.finish()
            self.assertFalse(receiver.bell.arm())  # the end
            with self.assertRaisesRegex(ValueError, "finished"):
                sender.bell.arm()
            sender.bell.disarm()
            bell = receiver.bell
        for call in (bell.arm, bell.disarm, bell.fileno, lambda: bell.handle, lambda: receiver.bell):
            with self.assertRaisesRegex(ValueError, "closed"):
                call()

    def rung(self, bell):
        """Whether it has rung, without a change."""
        self.assertFalse(WINDOWS)
        return bool(select.select([bell], [], [], 0)[0])

    @unittest.skipIf(WINDOWS, "POSIX only: descriptors")
    def test_it_can_be_read_from_once_it_has_rung(self):
        with self.both(capacity=2) as (sender, receiver):
            for _ in range(3):
                self.assertTrue(receiver.bell.arm())
                self.assertFalse(self.rung(receiver.bell))
                sender.write(b"a")
                self.assertTrue(self.rung(receiver.bell))
                sender.write(b"b")
                self.assertFalse(receiver.bell.arm())  # empties it
                self.assertFalse(self.rung(receiver.bell))
                self.assertTrue(sender.bell.arm())
                receiver.read(1)
                self.assertTrue(self.rung(sender.bell))
                sender.bell.disarm()
                self.assertFalse(self.rung(sender.bell))
                receiver.read(1)
                self.assertFalse(self.rung(sender.bell))  # it was not armed
            self.assertTrue(receiver.bell.arm())
            sender.abort()
            self.assertTrue(self.rung(receiver.bell))
            with self.assertRaises(AttributeError):
                receiver.bell.handle
            with self.assertRaises(io.UnsupportedOperation):
                receiver.fileno()

    @unittest.skipUnless(WINDOWS, "Windows only: handles")
    def test_a_ring_sets_its_handle(self):
        import _winapi

        with self.both(capacity=2) as (sender, receiver):
            handle = receiver.bell.handle
            for _ in range(3):
                self.assertTrue(receiver.bell.arm())
                self.assertEqual(_winapi.WaitForSingleObject(handle, 0), _winapi.WAIT_TIMEOUT)
                sender.write(b"a")
                self.assertEqual(_winapi.WaitForSingleObject(handle, 0), _winapi.WAIT_OBJECT_0)
                self.assertFalse(receiver.bell.arm())
                receiver.read(1)
                self.assertTrue(receiver.bell.arm())
                sender.write(b"a")
                receiver.bell.disarm()
                self.assertEqual(_winapi.WaitForSingleObject(handle, 0), _winapi.WAIT_TIMEOUT)
                receiver.read(1)
            with self.assertRaises(io.UnsupportedOperation):
                receiver.bell.fileno()

    def test_without_bells_it_says_so(self):
        with no_bells(), self.both(capacity=2) as (_, receiver):
            bell = receiver.bell
            for call in (bell.fileno, lambda: bell.handle, bell.arm, bell.disarm):
                with self.assertRaisesRegex(io.UnsupportedOperation, "no bells"):
                    call()

    def test_a_killed_peer_is_told_of_when_it_is_armed_again(self):
        (receiver,), child = self.receivers(1)
        self.assertTrue(receiver.bell.arm())
        child.kill()
        eventually(lambda: not receiver.bell.arm(), "it is told of")
        with self.assertRaises(mmapipc.SenderDied):
            receiver.read(1)

    @alone
    @unittest.skipIf(WINDOWS, "POSIX only: add_reader")
    def test_asyncio_loses_no_ring(self):
        count, missed = 3000, []

        async def echoed(sender, receiver):
            """Send one message after the other, each when the one before has come back."""
            loop = asyncio.get_running_loop()
            bell, done = receiver.bell, loop.create_future()
            got = 0

            def go_on():
                nonlocal got
                while not bell.arm():
                    number = int.from_bytes(receiver.read(4), "big")
                    self.assertEqual(number, got)
                    got += 1
                    if got == count:
                        done.set_result(None)
                        return
                    sender.write(got.to_bytes(4, "big"))

            def look_now_and_then():
                nonlocal timer
                if not self.rung(bell) and not bell.arm():
                    missed.append(got)
                go_on()
                timer = loop.call_later(0.5, look_now_and_then)

            timer = loop.call_later(0.5, look_now_and_then)
            loop.add_reader(bell.fileno(), go_on)
            try:
                sender.write(got.to_bytes(4, "big"))
                go_on()
                await asyncio.wait_for(done, DEADLINE)
            finally:
                loop.remove_reader(bell.fileno())
                timer.cancel()
                bell.disarm()
            return got

        child = self.python(ECHOES)
        with mmapipc.Receiver(f"{self.name}.back", timeout=DEADLINE) as receiver:
            with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                self.assertEqual(asyncio.run(echoed(sender, receiver)), count)
            self.assertEqual(receiver.read(1), b"")
        self.assertEqual(child.end(), (0, b"", ""))
        # (A look may come just between the peer's counter and its ring.)
        self.assertLess(len(missed), 5)

    @alone
    def test_wait_loses_no_ring(self):
        child = self.python(ECHOES)
        late = 0
        with mmapipc.Receiver(f"{self.name}.back", timeout=DEADLINE) as receiver:
            with mmapipc.Sender(self.name, timeout=DEADLINE) as sender:
                for number in range(3000):
                    sender.write(number.to_bytes(4, "big"))
                    start = time.perf_counter()
                    self.assertEqual(mmapipc.wait([receiver], DEADLINE), [receiver])
                    late += time.perf_counter() - start > 0.045
                    self.assertEqual(int.from_bytes(receiver.read(4), "big"), number)
        self.assertEqual(child.end(), (0, b"", ""))
        self.assertLess(late, 30)  # a missed ring costs the first sleep; on a busy machine some are late
