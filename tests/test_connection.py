"""Connections: messages both ways, between real processes that come, stop, fork, and are killed."""

import array
import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import unittest
import warnings
from unittest import mock

import mmapipc
from mmapipc import connection, inspection
from mmapipc._meeting import introducing, pairing
from mmapipc._ring import layout
from mmapipc._system import RECEIVER

from .helpers import (
    DEADLINE, PRELUDE, PYTHON, WINDOWS, Background, ChannelTest, eventually, noise, open_handles,
)  # fmt: skip

CAPACITY = 4096
STRIDE = int(os.environ.get("MMAPIPC_STRIDE", "29"))  # of the steps at which a call is interrupted
CODE = os.path.dirname(mmapipc.__file__)
# Before 3.13 each lock of an end that was closed is a handle on Windows.
COUNTS = not WINDOWS or sys.version_info >= (3, 13)
# Those of a header that a process at the other end may have damaged.
FIELDS = [
    layout.MAGIC, layout.CAPACITY, layout.WRITE_SEQ, layout.READ_SEQ,
    layout.SENDER_STATE, layout.SENDER_PID, layout.SENDER_CALLS,
    layout.RECEIVER_STATE, layout.RECEIVER_PID, layout.RECEIVER_CALLS, layout.RECEIVERS,
]  # fmt: skip
# What a child of these tests has at hand.
START = """
from mmapipc import connection
from mmapipc._meeting import introducing, pairing
from mmapipc._ring import messages, states
def stop_before(where, function):
    "Say so just before the first call of that function, and stay there."
    def stop(*_, **__):
        say("there")
        sys.stdin.read()
    setattr(where, function, stop)
def stop_after(where, function):
    "The same just after it."
    true = getattr(where, function)
    def stop(*arguments, **options):
        true(*arguments, **options)
        say("there")
        sys.stdin.read()
    setattr(where, function, stop)
"""


class ConnectionTest(ChannelTest):
    """Has pipes, listeners and clients that end with the test."""

    def pipe(self, **options):
        options = {"capacity": CAPACITY, "timeout": DEADLINE, **options}
        ends = connection.Pipe(**options)
        for end in ends:
            self.addCleanup(end.close)
        return ends

    def listener(self, **options):
        options = {"capacity": CAPACITY, "timeout": DEADLINE, **options}
        listener = connection.Listener(self.name, **options)
        self.addCleanup(listener.close)
        return listener

    def accepted(self, listener):
        end = listener.accept()
        self.addCleanup(end.close)
        return end

    def child(self, code):
        """Start Python code with these at hand."""
        return self.start([*PYTHON, "-c", PRELUDE + START + code, self.name], stdin=subprocess.PIPE)

    def client(self, code):
        """Start a client in a process of its own: `c` is its connection."""
        return self.child(f"c = connection.Client(name, timeout={DEADLINE})\n{code}")

    def setUp(self):
        super().setUp()
        # After all else is closed, and before it looks for what is left.
        self.addCleanup(self._end_children)

    def _end_children(self):
        for child in self._children:
            child.dispose()


class Messages(ConnectionTest):
    def test_of_every_size_both_ways(self):
        first, second = self.pipe()
        near = (CAPACITY - 17, *range(CAPACITY - 9, CAPACITY + 10))
        for size in (*range(40), *near, 10 * CAPACITY + 3, 1 << 20):
            sent = noise(size)
            for here, there in ((first, second), (second, first)):
                sending = Background(lambda here=here, sent=sent: here.send_bytes(sent))
                self.assertEqual(there.recv_bytes(), sent, size)
                sending.result()

    def test_of_every_size_into_a_buffer_of_the_callers(self):
        first, second = self.pipe()
        for size in (0, 1, 39, *range(CAPACITY - 9, CAPACITY + 10), 10 * CAPACITY + 3):
            for offset in (0, 5):
                for buffer in (bytearray(size + 8), array.array("I", bytes(4 * size + 8))):
                    sent = noise(size)
                    sending = Background(lambda sent=sent: first.send_bytes(sent))
                    self.assertEqual(second.recv_bytes_into(buffer, offset), size)
                    sending.result()
                    got = bytes(buffer) if offset else bytes(buffer)[: size + 3]
                    self.assertEqual(got, bytes(offset) + sent + bytes(len(got) - offset - size), size)

    def test_a_buffer_is_let_go_of(self):
        first, second = self.pipe()
        second.timeout = 0
        buffer = bytearray(8)
        try:
            second.recv_bytes_into(buffer)
        except TimeoutError as error:
            buffer.clear()  # BufferError if the error still had it
            self.assertTrue(error)
        first.send_bytes(b"fits")
        buffer += bytes(4)
        second.recv_bytes_into(buffer)
        buffer.clear()

    def test_many_in_the_ring_at_once_keep_their_bounds(self):
        first, second = self.pipe()
        sent = [noise(size) for size in range(60)]
        for _ in range(20):
            for each in sent:
                first.send_bytes(each)
            self.assertEqual([second.recv_bytes() for _ in sent], sent)

    def test_objects(self):
        first, second = self.pipe()
        for sent in ({"a": [1, None]}, b"", "text", print):
            first.send(sent)
            self.assertEqual(second.recv(), sent)

    def test_after_a_timeout_a_message_that_fits_was_not_sent_and_the_next_is(self):
        first, second = self.pipe()
        first.timeout = 0.01
        sent = 0
        with self.assertRaisesRegex(TimeoutError, "so the message was not sent"):
            while True:
                first.send_bytes(b"%5d" % sent * 200)
                sent += 1
        self.assertEqual(sent, 4)
        for number in range(sent):
            self.assertEqual(second.recv_bytes()[:5], b"%5d" % number)
        self.assertFalse(second.poll(0.01))
        first.send_bytes(b"next")
        self.assertEqual(second.recv_bytes(), b"next")

    def test_with_a_timeout_of_0_nothing_waits(self):
        first, second = self.pipe(timeout=0)
        with self.assertRaises(TimeoutError):
            second.recv()
        with self.assertRaises(TimeoutError):
            first.send_bytes(bytes(2 * CAPACITY))  # nothing of it was sent
        first.send_bytes(bytes(CAPACITY))
        with self.assertRaises(TimeoutError):
            first.send_bytes(b"")
        self.assertEqual(second.recv_bytes(), bytes(CAPACITY))
        first.send_bytes(b"last")
        self.assertEqual(second.recv_bytes(), b"last")

    def test_a_long_one_that_is_cut_short_breaks_the_connection_and_both_are_told(self):
        first, second = self.pipe()
        second.poll()
        first.timeout = 0.01
        first.send_bytes(b"before")
        with self.assertRaises(TimeoutError):
            first.send_bytes(bytes(2 * CAPACITY))
        with self.assertRaisesRegex(ConnectionAbortedError, "cut short"):
            first.send_bytes(b"after")
        second.send_bytes(b"the other way")
        self.assertEqual(first.recv_bytes(), b"the other way")
        self.assertEqual(second.recv_bytes(), b"before")
        with self.assertRaisesRegex(ConnectionAbortedError, "in the middle of a message"):
            second.recv_bytes()

    def test_a_long_one_of_which_a_part_came_is_gone_on_with(self):
        first, second = self.pipe()
        half = second._used().incoming.half
        acknowledge = half.acknowledge

        def receive_into():
            buffer = bytearray(3 * CAPACITY)
            second.recv_bytes_into(buffer)
            return buffer

        for begin, go_on in itertools.product((second.recv_bytes, receive_into), repeat=2):
            sent = noise(3 * CAPACITY)
            sending = Background(lambda sent=sent: first.send_bytes(sent))
            steps = []

            def only_twice(count, steps=steps):
                steps.append(count)
                if len(steps) > 2:
                    raise mmapipc.ChannelTimeout
                acknowledge(count)

            with mock.patch.object(half, "acknowledge", only_twice), self.assertRaises(TimeoutError):
                begin()
            self.assertEqual(go_on(), sent)
            sending.result()

    @unittest.skipIf(WINDOWS, "POSIX only: interval timers")
    def test_what_a_signal_handler_raises_leaves_whole_messages(self):
        first, second = self.pipe()

        class Interrupted(Exception):
            pass

        def interrupt(*_):
            raise Interrupted

        def receive():
            got = []
            while not got or got[-1] != b"end":
                got.append(second.recv_bytes())
            return [message for message in got if message]

        receiving = Background(receive)
        first.poll()
        before = signal.signal(signal.SIGALRM, interrupt)
        sent, interrupted = 0, set()
        try:
            while len(interrupted) < 200:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 20e-6 + len(interrupted) * 1e-6)
                    while True:
                        first.send_bytes(b"%d," % sent * (sent % 700))
                        sent += 1
                except Interrupted:
                    interrupted.add(sent)  # it may be sent, or not
                    sent += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        first.send_bytes(b"end")
        got = receiving.result()
        wanted = [b"%d," % number * (number % 700) for number in range(sent)]
        numbers = []
        for message in got[:-1]:
            number = int(message.partition(b",")[0])
            self.assertEqual(message, wanted[number])
            numbers.append(number)
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertLessEqual({n for n in range(sent) if n % 700} - set(numbers), interrupted)

    def test_a_buffer_that_is_too_short_is_told_the_message(self):
        first, second = self.pipe()
        for size in (20, 2 * CAPACITY):
            sent = noise(size)
            sending = Background(lambda sent=sent: first.send_bytes(sent))
            with self.assertRaises(multiprocessing.BufferTooShort) as raised:
                second.recv_bytes_into(bytearray(size + 2), 3)
            self.assertEqual(raised.exception.args, (sent,))
            sending.result()
        first.send_bytes(b"fits")
        buffer = bytearray(6)
        self.assertEqual(second.recv_bytes_into(buffer, 2), 4)
        self.assertEqual(buffer, b"\0\0fits")

    def test_a_wrong_buffer_takes_nothing_away(self):
        first, second = self.pipe()
        first.send_bytes(b"here")
        with self.assertRaises(TypeError):
            second.recv_bytes_into(bytes(10))
        with self.assertRaises(ValueError):
            second.recv_bytes_into(bytearray(10), 11)
        self.assertEqual(second.recv_bytes(), b"here")

    def test_one_with_more_bytes_than_the_caller_takes_ends_the_reading(self):
        for duplex in (True, False):
            second, first = self.pipe(duplex=duplex)
            first.send_bytes(b"too long")
            with self.assertRaisesRegex(OSError, "longer than maxlength"):
                second.recv_bytes(7)
            with self.assertRaises(OSError):
                second.recv_bytes()
            self.assertEqual(second.closed, not duplex)

    def test_directions(self):
        reader, writer = self.pipe(duplex=False)
        self.assertEqual((reader.readable, reader.writable), (True, False))
        self.assertEqual((writer.readable, writer.writable), (False, True))
        for call in (lambda: reader.send(1), writer.recv, writer.poll, lambda: writer.bell):
            with self.assertRaises(OSError):
                call()

    def test_two_threads_send_and_receive_at_the_same_time(self):
        first, second = self.pipe()
        sent = [noise(size) for size in (10, CAPACITY, 3 * CAPACITY) * 100]
        sending = [
            Background(lambda end=end: [end.send_bytes(each) for each in sent]) for end in (first, second)
        ]
        got = [Background(lambda end=end: [end.recv_bytes() for _ in sent]) for end in (first, second)]
        for each in got:
            self.assertEqual(each.result(), sent)
        for each in sending:
            each.result()


class Lies(ConnectionTest):
    """The process at the other end stores in the memory what it likes."""

    def lie(self, length, published, read=0):
        first, second = self.pipe()
        first.send_bytes(b"true")
        self.assertEqual(second.recv_bytes(), b"true")
        half = first._pair.outgoing.half
        half._lengths[half.sequence // 8] = length
        half.words[layout.WRITE_SEQ] = half.sequence + published
        return second

    def test_about_a_length(self):
        for length, published in (
            (2**64 - 1, 16),
            (2**63, 4096),
            (2**62 + 1, 16),
            (100, 16),
            (9, 16),
            (1, 8),
            (0, 4),
        ):
            with self.subTest(length=length, published=published):
                second = self.lie(length, published)
                for _ in range(2):
                    with self.assertRaisesRegex(mmapipc.errors.LayoutError, "damaged"):
                        second.recv_bytes()

    def test_a_long_message_that_never_comes_takes_no_memory(self):
        second = self.lie(2**61, 4096)
        second.timeout = 0.01
        with self.assertRaises(TimeoutError):
            second.recv_bytes()

    def test_about_the_counters(self):
        second = self.lie(8, 1 << 30)
        with self.assertRaisesRegex(mmapipc.errors.LayoutError, "write_seq"):
            second.recv_bytes()

    def test_of_one_client_cost_the_next_nothing(self):
        for field in FIELDS:
            for ring in ("outgoing", "incoming"):
                with self.subTest(field=field, ring=ring), self.listener() as listener:
                    lying = connection.Client(self.name, timeout=DEADLINE)
                    lying.send("a lie")
                    getattr(lying._pair, ring).mapped.words[field] = 2**64 - 1
                    with connection.Client(self.name, timeout=DEADLINE) as honest:
                        honest.send("next")
                        self.assertEqual(self.first_said(listener), "next")
                    with contextlib.suppress(mmapipc.ChannelError):
                        lying.close()
                self.assertEqual(os.listdir(self.memory), [])

    def first_said(self, listener):
        """What the first client sends that does not lie; two that do may come before."""
        for _ in range(3):
            with contextlib.suppress(mmapipc.ChannelError, EOFError), listener.accept() as end:
                said = end.recv()
                if said != "a lie":
                    return said
        self.fail("nobody can")

    def test_of_clients_that_died_before_they_had_come_cost_the_next_nothing(self):
        for field in FIELDS:
            for ring in ("outgoing", "incoming"):
                with self.subTest(field=field, ring=ring), mock.patch.object(introducing, "_COMING", 0.02):
                    with self.listener() as listener:
                        for pair in listener._invitations._pairs:
                            getattr(pair, ring).mapped.words[field] = 2**64 - 1
                        said = []

                        def come(said=said):
                            while not said:
                                with contextlib.suppress(mmapipc.ChannelError):
                                    with connection.Client(self.name, timeout=0.1) as honest:
                                        honest.send("next")

                        coming = Background(come)
                        said.append(self.first_said(listener))
                        coming.result()
                        self.assertEqual(said, ["next"])
                    self.assertEqual(os.listdir(self.memory), [])

    def test_a_client_that_is_given_up_as_it_comes_leaves_nothing(self):
        listener = self.listener()
        look = pairing.Pair._capacities

        def give_up(pair, memory):  # the client has the role, and no bells yet; then it finds damage
            if pair.role == RECEIVER:
                for invited in list(listener._invitations._pairs):
                    invited.outgoing.mapped.words[layout.READ_SEQ] = 2**64 - 1
                    listener._invitations._drop(invited)
            return look(pair, memory)

        with mock.patch.object(pairing.Pair, "_capacities", give_up):
            with contextlib.suppress(mmapipc.ChannelError):
                connection.Client(self.name, timeout=0.1).close()
        listener.close()
        self.assertEqual(os.listdir(self.memory), [])

    def test_about_the_memory_of_a_connection(self):
        first, second = connection.Pipe(capacity=CAPACITY)
        self.addCleanup(first.close)
        self.addCleanup(second.close)
        memory = mmapipc._meeting.pairing.system.open_existing(first._kept.place)
        self.addCleanup(memory.close)
        with memory.map(layout.HEADER_SIZE) as page, memoryview(page) as octets, octets.cast("Q") as words:
            true = words[layout.CAPACITY]
            for lie in (0, 7, 8, 2**62, 2**62 - 8, 2**64 - 1, true + 4096):
                words[layout.CAPACITY] = lie
                with self.assertRaises(mmapipc.errors.LayoutError):
                    first.send(1)
            words[layout.CAPACITY] = true
        first.send(1)
        self.assertEqual(second.recv(), 1)


class Ends(ConnectionTest):
    def test_what_was_sent_before_close_is_received_and_then_the_end(self):
        first, second = self.pipe()
        second.poll()
        first.send("last")
        first.close()
        self.assertTrue(first.closed)
        self.assertEqual(second.recv(), "last")
        for _ in range(2):
            with self.assertRaises(EOFError):
                second.recv()
        self.assertTrue(second.poll())
        with self.assertRaisesRegex(BrokenPipeError, "has closed"):
            second.send(1)
        for call in (
            first.recv,
            first.poll,
            lambda: first.send(1),
            lambda: first.recv_bytes_into(bytearray(1)),
        ):
            with self.assertRaises(OSError):
                call()
        first.close()

    def test_a_thread_that_waits_is_told_when_another_closes_its_end(self):
        long = bytes(3 * CAPACITY)
        for call in (lambda end: end.recv(), lambda end: end.send_bytes(long), lambda end: end.poll(None)):
            first, second = self.pipe(timeout=None)
            second.poll()
            waiting = Background(lambda call=call, first=first: call(first))
            links = first._used().links
            eventually(lambda links=links: any(link.waiter._thread for link in links), "it waits")
            first.close()
            with self.assertRaises(OSError):
                waiting.result()

    def test_a_process_that_exits_has_closed_its_connections(self):
        for code in ("pass", "sys.exit(3)", "raise SystemError"):
            listener = self.listener()
            child = self.client(f"c.send(1)\n{code}")
            end = self.accepted(listener)
            self.assertEqual(end.recv(), 1)
            with self.assertRaises(EOFError):
                end.recv()
            child.end()
            listener.close()

    def test_a_child_of_multiprocessing_that_returns_has_closed_its_connections(self):
        for method in multiprocessing.get_all_start_methods():
            first, second = self.pipe()
            process = multiprocessing.get_context(method).Process(target=_send_one, args=(second,))
            process.start()
            second.close()
            self.assertEqual(first.recv(), 1)
            with self.assertRaises(EOFError, msg=method):
                first.recv()
            process.join()
            if method == "forkserver":
                multiprocessing.forkserver._forkserver._stop()

    def test_what_is_closed_takes_no_memory_and_no_descriptor(self):
        gc.disable()
        self.addCleanup(gc.enable)
        before = None
        for _ in range(3):
            first, second = self.pipe()
            first.send(1)
            self.assertEqual(second.recv(), 1)
            first.close()
            second.close()
            before = before or open_handles()
        if COUNTS:
            self.check_open(before)

    def test_what_is_collected_is_closed(self):
        first, second = self.pipe()
        third, fourth = connection.Pipe()
        third.send(1)
        self.assertEqual(fourth.recv(), 1)
        del third
        with self.assertRaises(EOFError):
            fourth.recv()
        fourth.close()

    def test_wait_and_bells(self):
        first, second = self.pipe()
        third, fourth = self.pipe()
        self.assertIs(connection.wait, mmapipc.wait)
        self.assertEqual(connection.wait([second, fourth], 0), [])
        first.send(1)
        self.assertEqual(connection.wait([fourth, second], DEADLINE), [second])
        self.assertFalse(second.bell.arm())
        self.assertEqual(second.recv(), 1)
        waiting = Background(lambda: connection.wait([second, fourth], DEADLINE))
        third.close()
        self.assertEqual(waiting.result(), [fourth])

    def test_a_descriptor_there_is_none(self):
        with self.assertRaisesRegex(OSError, "wait"):
            self.pipe()[0].fileno()


def _send_one(end):
    end.send(1)


def _use(end, said):
    try:
        end.send(2)
    except OSError as error:
        said.send(repr(error))
    said.close()


class UnusedEnds(ConnectionTest):
    """The ends of `Pipe` until somebody uses them."""

    def test_the_last_copy_that_is_closed_tells_the_other_end(self):
        first, second = self.pipe()
        second.close()
        with self.assertRaises(EOFError):
            first.recv()
        with self.assertRaises(BrokenPipeError):
            first.send(1)

    def test_both_closed_leave_nothing(self):
        for end in self.pipe():
            end.close()
        self.assertEqual(os.listdir(self.memory), [])

    def test_what_was_sent_waits_for_who_comes_later(self):
        first, second = self.pipe()
        first.send("early")
        first.close()
        self.assertEqual(second.recv(), "early")
        with self.assertRaises(EOFError):
            second.recv()

    def test_one_that_is_used_can_not_be_passed_on(self):
        first, second = self.pipe()
        first.poll()
        with self.assertRaisesRegex(TypeError, "used"):
            first.__reduce__()
        with self.assertRaises(RuntimeError):
            second.__reduce__()  # no process is being started

    @unittest.skipIf(WINDOWS, "POSIX only: forks")
    def test_an_end_belongs_to_the_process_that_first_used_it(self):
        first, second = self.pipe()
        here, there = self.pipe()
        there.poll()
        first.poll()
        second.send(1)  # in use here
        process = multiprocessing.get_context("fork").Process(target=_use, args=(second, here))
        process.start()
        here.close()
        self.assertRegex(there.recv(), "in use by the process")
        process.join()
        second.send(2)
        self.assertEqual([first.recv(), first.recv()], [1, 2])

    @unittest.skipIf(WINDOWS, "POSIX only: forks")
    def test_the_second_process_that_uses_it_is_refused(self):
        first, second = self.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                second.send(1)
                signal.pause()
            os._exit(0)
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.kill, child, signal.SIGKILL)
        self.assertEqual(first.recv(), 1)
        for _ in range(2):
            with self.assertRaisesRegex(mmapipc.RoleTaken, "belongs to the process"):
                second.send(2)
        second.close()
        self.assertFalse(first.poll(0.01))

    @unittest.skipIf(WINDOWS, "POSIX only: forks")
    def test_a_process_that_dies_before_it_uses_its_end_is_noticed(self):
        first, second = self.pipe()
        child = os.fork()
        if not child:
            signal.pause()
            os._exit(0)
        second.close()
        self.assertFalse(first.poll(0.1))  # the child has a copy
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with self.assertRaisesRegex(ConnectionResetError, "never used"):
            first.recv()

    def test_what_killed_processes_leave_at_names_that_were_made_up_the_next_removes(self):
        for makes in (lambda: connection.Pipe()[0], connection.Listener):
            child = self.child("""
ends = connection.Pipe()
listener = connection.Listener()
say(listener.address)
sys.stdin.read()
""")
            address = child.line()
            client = self.child(f"c = connection.Client({address!r}); say('there'); sys.stdin.read()")
            self.assertEqual(client.line(), "there")
            child.kill()
            with mock.patch.object(connection, "_next_sweep", 0):
                makes().close()  # and leaves alone what the client has
            client.kill()
            with mock.patch.object(connection, "_next_sweep", 0):
                makes().close()
            self.assertEqual(os.listdir(self.memory), [])

    def test_a_name_of_the_users_is_never_that_of_a_pipe(self):
        ends = self.pipe()
        with self.assertRaises(mmapipc.errors.NoChannel):
            inspection.remove("pipe")
        with connection.Listener("pipe", timeout=DEADLINE) as listener:
            with connection.Client("pipe", timeout=DEADLINE), listener.accept():
                pass
        with self.assertRaises(mmapipc.errors.NoChannel):
            inspection.remove("pipe")
        ends[0].send(1)
        self.assertEqual(ends[1].recv(), 1)


class Introducing(ConnectionTest):
    def test_a_listener_that_is_closed_while_a_thread_accepts_leaves_nothing(self):
        for number in range(200):
            listener, ends, clients = self.listener(), [], []

            def accept(listener=listener, ends=ends):
                with self.assertRaisesRegex(OSError, "the listener is closed"):
                    while True:
                        ends.append(listener.accept())

            accepting = Background(accept)
            for _ in range(number % 4):
                clients.append(connection.Client(self.name, timeout=DEADLINE))
            listener.close()
            accepting.result()
            for end in (*ends, *clients):
                end.close()
            self.assertEqual(os.listdir(self.memory) if not WINDOWS else [], [])

    def test_the_name_has_one_listener(self):
        listener = self.listener()
        self.assertEqual(listener.address, self.name)
        self.assertIsNone(listener.last_accepted)
        with self.assertRaisesRegex(
            FileExistsError, rf"another listener .*\(pid {os.getpid()}\); use another"
        ):
            connection.Listener(self.name)
        listener.close()
        with self.both(), self.assertRaisesRegex(FileExistsError, rf"a sender already \(pid {os.getpid()}\)"):
            connection.Listener(self.name)
        self.listener().close()
        with self.assertRaises(OSError):
            listener.accept()

    def test_names_are_made_up(self):
        with connection.Listener() as first, connection.Listener() as second:
            self.assertNotEqual(first.address, second.address)
            with connection.Client(first.address) as client, first.accept() as end:
                client.send(1)
                self.assertEqual(end.recv(), 1)

    def test_a_client_may_come_send_and_go_before_it_is_accepted(self):
        listener = self.listener()
        for number in range(5):
            self.client(f"c.send({number})").end()
            end = self.accepted(listener)
            self.assertEqual(end.recv(), number)
            with self.assertRaises(EOFError):
                end.recv()

    def test_a_client_waits_for_its_listener(self):
        child = self.client("c.send('hello')")
        self.assertEqual(self.accepted(self.listener()).recv(), "hello")
        child.end()

    def test_nobody_overtakes_a_client_again_and_again(self):
        listener = self.listener()  # two may come before they are accepted
        clients, order = [], []
        for number in range(20):
            while len(clients) < number + 2:
                clients.append(connection.Client(self.name, timeout=DEADLINE))
                self.addCleanup(clients[-1].close)
                clients[-1].send(len(clients) - 1)
            order.append(self.accepted(listener).recv())
        for number in range(19):
            self.assertIn(number, order[max(0, number - 1) : number + 2], order)

    def test_waits_end(self):
        with self.assertRaisesRegex(TimeoutError, "no listener came"):
            connection.Client(self.name, timeout=0.01)
        listener = self.listener(timeout=0.01)
        with self.assertRaisesRegex(TimeoutError, "no client came"):
            listener.accept()
        clients = [connection.Client(self.name, timeout=DEADLINE) for _ in range(2)]
        with self.assertRaisesRegex(TimeoutError, "accepted nobody"):
            for _ in range(3):
                clients.append(connection.Client(self.name, timeout=0.01))
        for client in clients:
            self.accepted(listener)
            client.close()

    def test_wrong_arguments(self):
        for call in (connection.Listener, connection.Client):
            with self.assertRaisesRegex(ValueError, "authkey"):
                call(self.name, authkey=b"secret")
            with self.assertRaisesRegex(ValueError, "AF_INET"):
                call(self.name, family="AF_INET")
            with self.assertRaisesRegex(TypeError, "address"):
                call(("localhost", 6000))
            with self.assertRaises(ValueError):
                call(self.name, timeout=-1)
        for call in (connection.Listener, connection.Pipe):
            with self.assertRaises(mmapipc.InvalidCapacity):
                call(capacity=0)

    def test_a_channel_is_no_listener(self):
        sender = mmapipc.Sender(self.name)
        self.addCleanup(sender.abort)
        with self.assertRaisesRegex(mmapipc.LayoutError, "to a channel"):
            connection.Client(self.name, timeout=DEADLINE)

    def test_a_listener_is_no_channel(self):
        self.listener()
        with self.assertRaisesRegex(mmapipc.LayoutError, "to a listener"):
            mmapipc.Receiver(self.name, timeout=DEADLINE)
        with self.assertRaises(mmapipc.RoleTaken):
            mmapipc.Sender(self.name)

    def test_a_thread_in_accept_is_told_when_another_closes_the_listener(self):
        listener = self.listener(timeout=None)
        waiting = Background(listener.accept)
        invitations = listener._invitations
        eventually(lambda: next(iter(invitations._pairs)).incoming.waiter._thread, "it waits")
        listener.close()
        with self.assertRaisesRegex(OSError, "closed"):
            waiting.result()

    def test_who_was_not_accepted_is_told(self):
        listener = self.listener()
        client = connection.Client(self.name, timeout=DEADLINE)
        self.addCleanup(client.close)
        listener.close()
        with self.assertRaisesRegex(ConnectionAbortedError, "before the connection was accepted"):
            client.recv()

    def test_connections_outlive_their_listener(self):
        listener = self.listener()
        client = connection.Client(self.name, timeout=DEADLINE)
        self.addCleanup(client.close)
        end = self.accepted(listener)
        listener.close()
        end.send(1)
        self.assertEqual(client.recv(), 1)

    def test_200_clients_at_once_within_64_mb(self):
        processes, each = 4, 50
        code = f"""
import threading, traceback
def run(number):
    try:
        with connection.Client(name, timeout={DEADLINE}) as c:
            c.send(number)
            got = c.recv()
            barrier.wait()        # all are connected
            c.send(got + 1)
            if c.recv() != "bye":
                raise SystemError
    except BaseException:
        traceback.print_exc()
        os._exit(1)
barrier = threading.Barrier({each} + 1)
threads = [threading.Thread(target=run, args=(number,)) for number in range({each})]
for thread in threads: thread.start()
barrier.wait()
for thread in threads: thread.join()
"""
        listener = self.listener(capacity=connection.DEFAULT_CAPACITY)
        children = [self.child(code) for _ in range(processes)]
        ends = []
        for _ in range(processes * each):
            end = self.accepted(listener)
            ends.append(end)
            number = end.recv()
            end.send(number * 10)
        if sys.platform == "linux":
            with open("/proc/self/maps") as maps:
                mapped = [line.split()[0].split("-") for line in maps if "mmapipc." in line]
            sizes = [int(end, 16) - int(start, 16) for start, end in mapped]
            self.assertGreaterEqual(len(sizes), processes * each)
            self.assertLess(sum(sizes), 64_000_000)
        got = []
        while ends:
            for end in mmapipc.wait(ends, DEADLINE):
                got.append(end.recv())
                end.send("bye")
                ends.remove(end)
        self.assertEqual(sorted(got), sorted([number * 10 + 1 for number in range(each)] * processes))
        for child in children:
            self.assertEqual(child.end(), (0, b"", ""))

    @unittest.skipIf(WINDOWS, "POSIX only: SIGSTOP")
    def test_a_client_that_stops_holds_nobody_up(self):
        listener = self.listener()
        # One in the middle of coming, one in the middle of a long message.
        for step in (
            "stop_before(states, 'attach')",
            "stop_after(states, 'enter')",
            "stop_after(states, 'attach')",
        ):
            accepting = Background(listener.accept) if "after(states, 'attach" in step else None
            child = self.child(f"{step}; connection.Client(name)")
            self.assertEqual(child.line(), "there")
            os.kill(child.pid, signal.SIGSTOP)
        accepting.result().close()
        stopped = self.client("c.send('here'); say('there'); c.send_bytes(bytes(1 << 20))")
        slow = self.accepted(listener)
        self.assertEqual(slow.recv(), "here")
        os.kill(stopped.pid, signal.SIGSTOP)
        others = self.client("for i in range(100): c.send(i); assert c.recv() == i")
        end = self.accepted(listener)
        with contextlib.suppress(EOFError):
            while True:
                end.send(end.recv())
        self.assertEqual(others.end()[0], 0)
        end.close()
        os.kill(stopped.pid, signal.SIGCONT)
        self.assertEqual(slow.recv_bytes(), bytes(1 << 20))


    def slow_clients(self):
        """Clients that stop on the way until they are fed: as many as a listener's board has room for."""
        code = """
attach = states.attach
def slow(*arguments):
    say('there')
    sys.stdin.readline()
    attach(*arguments)
states.attach = slow
with connection.Client(name, timeout=DEADLINE) as c:
    say('came')
    c.send('slow')
    assert c.recv() == 'welcome'
"""
        clients = [self.child(code) for _ in range(2)]
        for each in clients:
            self.assertEqual(each.line(), "there")
        return clients

    def test_a_client_that_stops_on_the_way_and_comes_late_is_accepted(self):
        listener = self.listener()
        slow = self.slow_clients()
        still = list(slow)
        give_up = pairing.Pair.give_up

        def go_on(pair=None):
            while still:
                child = still.pop()
                child.feed(b"\n")
                self.assertEqual(child.line(), "came")
            if pair is not None:
                give_up(pair)

        with mock.patch.object(pairing.Pair, "give_up", go_on):
            self.client("c.send('next')")
            self.assertEqual(self.accepted(listener).recv(), "next")
        go_on()
        for _ in slow:
            end = self.accepted(listener)
            self.assertEqual(end.recv(), "slow")
            end.send("welcome")
        for each in slow:
            self.assertEqual(each.end()[0], 0)

    def test_what_a_client_leaves_that_stops_on_the_way_and_dies_is_removed(self):
        listener = self.listener(timeout=0.05)
        connections = listener._invitations._pairs
        with mock.patch.object(introducing, "_COMING", 0.05):
            slow = self.slow_clients()
            for child, count in ((None, 4), (slow[0], 3), (slow[1], 2)):
                if child is not None:
                    child.kill()

                def enough(count=count):
                    with contextlib.suppress(TimeoutError):
                        self.fail(listener.accept())
                    return len(connections) == count

                eventually(enough, f"there are {count} connections")

    @unittest.skipIf(WINDOWS, "POSIX only: SIGSTOP")
    def test_clients_that_stop_hold_nobody_up_who_accepts_with_a_short_timeout(self):
        listener = self.listener(timeout=0.05)
        for _ in range(2):
            child = self.child("stop_before(states, 'attach'); connection.Client(name)")
            self.assertEqual(child.line(), "there")
            os.kill(child.pid, signal.SIGSTOP)
        self.client("c.send('next')")
        accepted = []

        def accepts():
            with contextlib.suppress(TimeoutError):
                accepted.append(self.accepted(listener))
            return accepted

        eventually(accepts, "a client is accepted")
        self.assertTrue(accepted[0].poll(DEADLINE))
        self.assertEqual(accepted[0].recv(), "next")


class Kills(ConnectionTest):
    """The other process is killed at a step; this one, and those that come later, are told and go on."""

    def test_a_client_that_comes(self):
        listener = self.listener()
        for step in (
            "stop_before(pairing.Pair, 'enter')",
            "stop_before(states, 'enter')",
            "stop_after(states, 'enter')",
            "stop_before(states, 'attach')",
        ):
            with self.subTest(step):
                child = self.child(f"{step}; connection.Client(name)")
                self.assertEqual(child.line(), "there")
                child.kill()
                client = self.client("c.send('next'); c.recv()")
                end = self.accepted(listener)
                self.assertEqual(end.recv(), "next")
                end.send(1)
                end.close()
                self.assertEqual(client.end()[0], 0)
        for step in (
            "stop_after(states, 'attach')",
            "stop_before(pairing.Pair, 'unname_if_complete')",
            "stop_after(pairing.Pair, 'unname_if_complete')",
            "stop_before(pairing.Outgoing, 'hail')",
        ):
            with self.subTest(step):
                child = self.child(f"{step}; connection.Client(name)")
                self.assertEqual(child.line(), "there")
                child.kill()
                # It had come.
                with self.assertRaisesRegex(ConnectionResetError, f"pid {child.pid}"):
                    self.accepted(listener).recv()
        listener.close()
        self.assertEqual(os.listdir(self.memory), [])

    def test_a_listener(self):
        for step in (
            "l = connection.Listener(name); say('there'); sys.stdin.read()",
            "stop_before(introducing.pairing, 'make'); connection.Listener(name)",
            "stop_before(pairing.Pair, 'enter'); connection.Listener(name)",
            "stop_after(states, 'attach'); connection.Listener(name)",
        ):
            with self.subTest(step):
                child = self.child(step)
                self.assertEqual(child.line(), "there")
                child.kill()
                listener = self.listener()  # the next one takes the name over, and removes what is left
                client = self.client("c.send('next')")
                self.assertEqual(self.accepted(listener).recv(), "next")
                client.end()
                listener.close()
                self.assertEqual(os.listdir(self.memory), [])

    @unittest.skipIf(WINDOWS, "POSIX only: there killed processes leave nothing")
    def test_a_listener_whose_name_is_removed(self):
        for taken_over in (False, True):
            child = self.child("l = connection.Listener(name); say('there'); sys.stdin.read()")
            self.assertEqual(child.line(), "there")
            with self.assertRaisesRegex(mmapipc.RoleTaken, f"pid {child.pid}"):
                inspection.remove(self.name)
            connection.Client(self.name, timeout=DEADLINE).close()  # it is as it was
            child.kill()
            if taken_over:
                with self.both():  # a channel takes the name, and leaves
                    pass
            inspection.remove(self.name)
            self.assertEqual(os.listdir(self.memory), [])

    def test_a_listener_with_a_client_that_is_accepted_and_one_that_is_not(self):
        child = self.child(
            "l = connection.Listener(name); c = l.accept(); c.send(1); say('there'); sys.stdin.read()"
        )
        clients = [connection.Client(self.name, timeout=DEADLINE) for _ in range(2)]
        self.assertEqual(child.line(), "there")
        child.kill()
        got = []
        for client in clients:
            with self.assertRaisesRegex(ConnectionResetError, f"pid {child.pid}"):
                while True:
                    got.append(client.recv())
            with self.assertRaisesRegex(BrokenPipeError, f"pid {child.pid}"):
                client.send("to nobody")
            client.close()
        self.assertEqual(got, [1])
        self.listener().close()
        self.assertEqual(os.listdir(self.memory), [])

    def test_one_that_sends_receives_or_closes(self):
        for code, messages in (
            ("c.send(1); say('there'); sys.stdin.read()", [1]),
            ("c.send(1); stop_before(pairing.Incoming, 'wait'); c.recv()", [1]),
            ("c.send(1); stop_before(pairing.Outgoing, 'wait'); c.send_bytes(bytes(1 << 20))", [1]),
            ("c.send(1); stop_before(pairing.Outgoing, 'finish'); c.close()", [1]),
            ("c.send(1); stop_before(states, 'finish'); c.close()", [1]),
        ):
            with self.subTest(code):
                listener = self.listener()
                child = self.client(code)
                end = self.accepted(listener)
                self.assertEqual(child.line(), "there")
                child.kill()
                got = []
                with self.assertRaisesRegex(ConnectionResetError, f"pid {child.pid}"):
                    while True:
                        got.append(end.recv())
                self.assertEqual(got, messages)
                with self.assertRaises(BrokenPipeError):
                    end.send("to nobody")
                end.close()
                listener.close()
                self.assertEqual(os.listdir(self.memory), [])

    def test_one_that_has_closed(self):
        for step in (
            "stop_after(states, 'finish')",
            "stop_after(states, 'leave')",
            "stop_before(pairing.Pair, 'leave')",
        ):
            with self.subTest(step):
                listener = self.listener()
                child = self.client(f"c.send(1); {step}; c.close()")
                end = self.accepted(listener)
                self.assertEqual(child.line(), "there")
                child.kill()
                self.assertEqual(end.recv(), 1)
                with self.assertRaises(EOFError):
                    end.recv()
                end.close()
                listener.close()
                self.assertEqual(os.listdir(self.memory), [])

    def test_both(self):
        child = self.child("l = connection.Listener(name); c = l.accept(); say(c.recv()); sys.stdin.read()")
        client = self.client("c.send('there'); sys.stdin.read()")
        self.assertEqual(child.line(), "there")
        for each in (child, client):
            each.kill()
        self.listener().close()
        self.assertEqual(os.listdir(self.memory), [])


class Interruptions(ConnectionTest):
    """A signal handler raises between any two steps of a call."""

    def interrupted(self, call, last):
        """The call, with an exception at its step of that number; whether it has come so far."""

        class Interrupted(BaseException):
            pass

        steps = 0

        def is_ignored(frame):  # what is raised where Python itself frees an object, or closes a generator
            return frame is not None and (
                frame.f_code.co_name in ("__del__", "naps") or is_ignored(frame.f_back)
            )

        def trace(frame, event, _):
            nonlocal steps
            path = frame.f_code.co_filename
            if not path.startswith(CODE):
                return None
            frame.f_trace_opcodes = True
            steps += event == "opcode"
            if steps >= last and not is_ignored(frame):
                raise Interrupted
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call()
        except (Interrupted, BufferError):  # of a mapping that could not be closed at once
            return True
        finally:
            sys.settrace(before)
        return False

    def at_many_steps(self, prepare):
        """Interrupt what `prepare()` returns, at many steps, and call what that returns too afterwards."""
        gc.disable()  # not even that is needed to free what an interrupted call had
        self.addCleanup(gc.enable)
        caught = warnings.catch_warnings()  # of what an interrupted call had, and Python frees
        caught.__enter__()
        self.addCleanup(caught.__exit__, None, None, None)
        warnings.simplefilter("ignore", ResourceWarning)
        for step in itertools.count(1, STRIDE):
            call, check = prepare()
            with self.subTest(step=step):
                came = self.interrupted(call, step)
                call = None
                if WINDOWS:  # a mapping that an exception left keeps the name until it is collected
                    gc.collect()
                check()
                with mock.patch.object(connection, "_next_sweep", 0):
                    for end in connection.Pipe():
                        end.close()
                self.assertEqual(os.listdir(self.memory), [])
            if step == 1:
                before = open_handles()
            if not came:
                break
        with warnings.catch_warnings(record=True) as unclosed:
            warnings.simplefilter("always")
            gc.collect()
        self.assertEqual([str(each.message) for each in unclosed], [])
        if COUNTS:
            # An exception that comes at the end of an `except` keeps what was handled there alive.
            self.assertLessEqual(open_handles(), before + 2)

    def test_of_close(self):
        def prepare():
            first, second = self.pipe()
            first.send("last")
            second.poll()

            def check():
                first.close()
                self.assertEqual(second.recv(), "last")
                with self.assertRaises(EOFError):
                    second.recv()
                second.close()

            return first.close, check

        self.at_many_steps(prepare)

    def test_of_client_and_accept(self):
        def prepare():
            listener = self.listener()
            ends = []

            def come():
                ends.append(connection.Client(self.name, timeout=DEADLINE))
                ends.append(listener.accept())

            def check():
                for end in ends:
                    end.close()
                client = connection.Client(self.name, timeout=DEADLINE)
                client.send("next")
                while True:
                    with listener.accept() as end, contextlib.suppress(EOFError, ConnectionError):
                        self.assertEqual(end.recv(), "next")
                        break
                client.close()
                listener.close()
                self.listener().close()  # removes what is left

            return come, check

        self.at_many_steps(prepare)

    def test_of_listener(self):
        def prepare():
            def check():
                with self.listener() as listener, connection.Client(self.name, timeout=DEADLINE) as client:
                    client.send("hello")
                    with self.accepted(listener) as accepted:
                        self.assertEqual(accepted.recv(), "hello")

            return lambda: connection.Listener(self.name, timeout=DEADLINE).close(), check

        self.at_many_steps(prepare)

    @unittest.skipUnless(WINDOWS, "Windows only: handles")
    def test_of_a_handle(self):
        from mmapipc._system.windows import win32

        for step in itertools.count(1):
            with self.subTest(step=step):
                before = open_handles()
                handle = win32.create_semaphore(None, 0, 1, None)
                came = self.interrupted(handle.close, step)
                handle.close()
                self.assertEqual(open_handles(), before)
            if not came:
                return

    def test_of_the_first_use(self):
        def prepare():
            first, second = self.pipe()

            def check():
                try:
                    first.send("first")
                except mmapipc.RoleTaken:  # it was in use, and is not any more: the other end is told
                    first.close()
                    with self.assertRaises((EOFError, ConnectionError)):
                        second.recv()
                else:
                    self.assertEqual(second.recv(), "first")
                    first.close()
                second.close()

            return first.poll, check

        self.at_many_steps(prepare)


@unittest.skipIf(WINDOWS, "POSIX only: forks")
class Forks(ConnectionTest):
    def in_child(self, function):
        """Run it in a forked child; its result, or error, as text."""
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            # Of a fork beside other threads, which is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            try:
                said = str(function())
            except BaseException as error:
                said = repr(error)
            os.write(writer, said.encode())
            os._exit(0)
        os.close(writer)
        with open(reader) as file:
            said = file.read()
        os.waitpid(child, 0)
        return said

    def test_a_connection_in_use_stays_the_parents(self):
        first, second = self.pipe()
        first.send(1)
        self.assertEqual(second.recv(), 1)
        for call in (lambda: second.send(2), second.recv, second.poll):
            self.assertRegex(self.in_child(call), "OSError.*forked")
        self.assertEqual(self.in_child(lambda: second.close() or second.closed), "True")
        second.send(3)
        self.assertEqual(first.recv(), 3)

    def test_a_fork_in_the_middle_of_messages(self):
        first, second = self.pipe()
        sent = [noise(size) for size in (10, CAPACITY, 3 * CAPACITY) * 50]
        sending = Background(lambda: [first.send_bytes(each) for each in sent])
        for number, each in enumerate(sent):
            self.assertEqual(second.recv_bytes(), each)
            if number % 15 == 0:
                self.in_child(lambda: None)
        sending.result()

    def test_a_listener_stays_the_parents(self):
        listener = self.listener()
        self.assertRegex(self.in_child(listener.accept), "OSError.*forked")
        self.assertEqual(
            self.in_child(lambda: connection.Client(self.name, timeout=DEADLINE).send("hello")), "None"
        )
        self.assertEqual(self.accepted(listener).recv(), "hello")

    def test_a_listener_in_which_a_thread_waits_stays_the_parents(self):
        listener = self.listener()
        waiting = Background(listener.accept)
        invitations = listener._invitations
        eventually(lambda: next(iter(invitations._pairs)).incoming.waiter._thread, "it waits")
        self.assertRegex(self.in_child(listener.accept), "OSError.*forked")
        self.client("pass").end()
        waiting.result().close()

    def test_a_child_that_serves_while_the_parent_goes_on(self):
        first, second = self.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                while True:
                    second.send(second.recv() + 1)
            os._exit(0)
        second.close()
        for number in range(100):
            first.send(number)
            self.assertEqual(first.recv(), number + 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with self.assertRaisesRegex(ConnectionResetError, f"pid {child}"):
            first.recv()


class Start(unittest.TestCase):
    def test_nothing_slow_is_imported(self):
        where = os.path.dirname(os.path.dirname(mmapipc.__file__))
        code = (
            f"import sys; sys.path.insert(0, {where!r}); import mmapipc, mmapipc.connection;"
            "print({'multiprocessing', 'pickle', 'threading', 'socket', 'random'} & set(sys.modules))"
        )
        command = [sys.executable, "-I", "-S", "-c", code]  # not what the site's own modules import
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        self.assertEqual(said.stdout.strip(), "set()")


if __name__ == "__main__":
    unittest.main()
