"""Waiting: until something is there, in growing steps; parked, and woken; interrupted."""

import signal
import unittest

from mmapipc._meeting.waiting import Clock, Waiter, until
from mmapipc._ring import layout, ring as ring_module
from mmapipc._ring.states import Verdict

from .helpers import WINDOWS, Background, ChannelTest, eventually
from .test_ring import Ring


class FakeClock(Clock):
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.slept.append(seconds)

    def give_way(self) -> None:
        self.time += 1e-4

    def fence(self) -> None:
        pass


class FakeBells:
    """Bells that nobody rings; `asleep` is called while somebody sleeps."""

    def __init__(self, clock: FakeClock, asleep=lambda: None) -> None:
        self.clock = clock
        self.asleep = asleep

    def sleep(self, seconds: float, events: int = 1) -> None:
        self.clock.sleep(seconds)
        self.asleep()

    def ring(self) -> None:
        pass

    def drain(self) -> None:
        pass


class Until(unittest.TestCase):
    def test_what_is_there_is_had_at_once(self):
        clock = FakeClock()
        self.assertEqual(until(lambda: "there", 0, clock), "there")
        self.assertEqual(clock.slept, [])

    def test_the_last_look_is_at_the_very_end(self):
        clock = FakeClock()
        looks = []
        self.assertIsNone(until(lambda: looks.append(clock.time), 2.0, clock))
        self.assertAlmostEqual(looks[-1], 102.0)
        self.assertAlmostEqual(sum(clock.slept), 2.0)

    def test_steps_grow_and_stay_short(self):
        clock = FakeClock()
        until(lambda: clock.time > 110 or None, None, clock)
        self.assertEqual(clock.slept, sorted(clock.slept))
        self.assertLess(clock.slept[0], 0.001)
        self.assertLessEqual(clock.slept[-1], 0.1)


class Parking(unittest.TestCase):
    def waiter(self, asleep=lambda: None) -> tuple[Ring, Waiter, FakeClock]:
        """A consumer's waiter over an empty ring."""
        ring, clock = Ring(4), FakeClock()
        return ring, Waiter(ring.consumer, FakeBells(clock, asleep), clock), clock

    def test_who_parks_says_so_and_takes_it_back(self):
        said = []
        ring, waiter, _ = self.waiter(
            lambda: (said.append(ring.words[layout.RECEIVER_CALLS]), ring.put(b"a"))
        )
        self.assertIs(waiter.until_moved(lambda probe: None, None), Verdict.READY)
        self.assertEqual(said, [layout.parked(0)])
        self.assertEqual(ring.words[layout.RECEIVER_CALLS], 0)

    def test_an_interrupted_sleep_takes_it_back_too(self):
        class Interrupted(Exception):
            pass

        def interrupt():
            raise Interrupted

        ring, waiter, _ = self.waiter(interrupt)
        with self.assertRaises(Interrupted):
            waiter.until_moved(lambda probe: None, None)
        self.assertEqual(ring.words[layout.RECEIVER_CALLS], 0)

    def test_nobody_sleeps_over_what_came_just_before(self):
        ring, waiter, clock = self.waiter()
        looks = []

        def look(probe):
            looks.append(probe)
            if len(looks) == 2:  # the one between the call and the sleep
                ring.put(b"a")
                return Verdict.READY
            return None

        self.assertIs(waiter.until_moved(look, None), Verdict.READY)
        self.assertEqual(clock.slept, [])

    def test_every_sleep_is_bounded_and_the_peer_asked_after(self):
        _, waiter, clock = self.waiter()
        probes = []

        def look(probe):
            probes.append((clock.time, probe))
            return Verdict.DIED if clock.time > 130 else None

        self.assertIs(waiter.until_moved(look, None), Verdict.DIED)
        self.assertLessEqual(max(clock.slept), 0.5)
        asked = [time for time, probe in probes if probe]
        self.assertLessEqual(max(later - sooner for sooner, later in zip(asked, asked[1:])), 1.1)

    def test_a_timeout_is_kept_and_looks_once_more(self):
        _, waiter, clock = self.waiter()
        looks = []
        self.assertIsNone(waiter.until_moved(lambda probe: looks.append((clock.time, probe)), 3.0))
        self.assertAlmostEqual(clock.time, 103.0, delta=0.01)
        self.assertTrue(looks[-1][1])


class Answers(unittest.TestCase):
    """Waiting for an answer."""

    def waiter(self, asleep: object = lambda: None) -> tuple[Ring, Waiter, FakeClock]:
        ring, clock = Ring(4), FakeClock()
        waiter = Waiter(ring.consumer, FakeBells(clock, asleep), clock)
        waiter.limit(None)
        self.addCleanup(setattr, ring_module, "wrote", False)
        ring_module.wrote = True
        return ring, waiter, clock

    def test_an_answer_ends_it(self) -> None:
        ring, waiter, clock = self.waiter(lambda: ring.put(b"a"))
        self.assertEqual(waiter.rest(0), 1)
        self.assertEqual(ring.words[layout.RECEIVER_CALLS], 0)
        self.assertEqual(ring.take(1), b"a")
        # The next wait has its own time.
        waiter.bells.asleep = lambda: None
        clock.time += 100
        self.assertIsNone(waiter.until_moved(lambda probe: None, 3.0))
        self.assertAlmostEqual(clock.time, clock.slept[0] + 203.0, delta=0.1)

    def test_without_an_answer_its_time_counts(self) -> None:
        _, waiter, clock = self.waiter()
        self.assertEqual(waiter.rest(0), 0)
        self.assertIsNone(waiter.until_moved(lambda probe: None, 3.0))
        self.assertAlmostEqual(clock.time, 103.0, delta=0.1)

    def test_nobody_waits_for_an_answer_that_cannot_come(self) -> None:
        for why in ("the stream has ended", "it is not to wait", "nothing was asked"):
            ring, waiter, clock = self.waiter()
            if why == "the stream has ended":
                ring.producer.finish()
            elif why == "it is not to wait":
                waiter.limit(0.0)
            else:
                ring_module.wrote = False
            with self.subTest(why):
                self.assertEqual(waiter.rest(0), 0)
                self.assertEqual(clock.slept, [])

    def test_rings_do_not_gather_until_a_bell_is_full(self) -> None:
        ring, waiter, clock = self.waiter()
        most, gathered = 0, 0

        def asleep() -> None:
            nonlocal most, gathered
            gathered += 1
            most = max(most, gathered)

        def drain() -> None:
            nonlocal gathered
            gathered = 0

        waiter.bells.asleep, waiter.bells.drain = asleep, drain  # type: ignore[union-attr,method-assign]
        clock.sleep = lambda seconds: None  # type: ignore[method-assign]
        for helps in (False, True):
            for number in range(100_000):
                ring_module.wrote = True
                if helps and number % 2:
                    waiter._yields = 50  # as after one that did
                if ring.consumer.eager and not helps:
                    ring.consumer.eager -= 1  # as `readinto` parks
                    asleep()
                else:
                    ring.consumer.eager = 0
                    waiter.rest(0)
        self.assertLess(most, 1 << 16)  # a FIFO has room for so many

    def test_what_does_not_help_is_left_out(self) -> None:
        _, waiter, clock = self.waiter()
        yields = []
        waiter._clock.give_way = lambda: yields.append(clock.time)  # type: ignore[method-assign]
        for _ in range(8):
            ring_module.wrote = True
            waiter.rest(0)
        self.assertTrue(yields)
        del yields[:]
        for _ in range(10):
            ring_module.wrote = True
            waiter.rest(0)
        self.assertEqual(yields, [])


class Waits(ChannelTest):
    def test_a_missed_ring_costs_time_and_no_more(self):
        def take(count):
            got = b""
            while len(got) < count:
                got += receiver.read(count - len(got))
            return got

        with self.both(capacity=4) as (sender, receiver):
            for end in sender, receiver:
                end._link.half.ring = lambda: None
            waiting = Background(lambda: receiver.read(1))
            eventually(lambda: sender._link.half.called & layout.PARKED, "the receiver sleeps")
            sender.write(b"abcd")
            self.assertEqual(waiting.result(), b"a")
            sender.write(b"e")
            waiting = Background(lambda: sender.write(b"fgh"))
            eventually(lambda: receiver._link.half.called & layout.PARKED, "the sender sleeps")
            self.assertEqual(take(7), b"bcdefgh")
            self.assertEqual(waiting.result(), 3)
            waiting = Background(lambda: receiver.read(1))
            eventually(lambda: sender._link.half.called & layout.PARKED, "the receiver sleeps")
            sender.finish()
            self.assertEqual(waiting.result(), b"")

    def test_who_parks_again_before_it_was_rung_for_is_rung_for_the_next_byte(self):
        with self.both(capacity=4) as (sender, receiver):
            rung = []
            for end in sender, receiver:
                end._link.half.ring = lambda end=end: rung.append(end)
            words = sender._link.half.words
            # The peer took the byte, and parks at its counter, before this end looks at the calls.
            words[layout.RECEIVER_CALLS] = layout.parked(1)
            sender.write(b"a")
            del rung[:]
            sender.write(b"b")
            self.assertEqual(rung, [sender])
            words[layout.RECEIVER_CALLS] = 0
            words[layout.SENDER_CALLS] = layout.parked(1)
            receiver.read(1)
            del rung[:]
            receiver.read(1)
            self.assertEqual(rung, [receiver])
            words[layout.SENDER_CALLS] = 0

    @unittest.skipIf(WINDOWS, "POSIX only: signals")
    def test_a_signal_interrupts_a_wait_and_loses_nothing(self):
        class Interrupted(Exception):
            pass

        def interrupt(*_):
            raise Interrupted

        before = signal.signal(signal.SIGALRM, interrupt)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        with self.both(capacity=4) as (sender, receiver):
            for wait in (lambda: receiver.read(1), receiver.readline, lambda: receiver.peek(1)):
                with self.assertRaises(Interrupted):
                    signal.setitimer(signal.ITIMER_REAL, 0.05)
                    wait()
                self.assertEqual(sender._link.half.called, 0)
            sender.write(b"abcd")
            for wait in (lambda: sender.write(b"e"), lambda: sender.reserve(1)):
                with self.assertRaises(Interrupted):
                    signal.setitimer(signal.ITIMER_REAL, 0.05)
                    wait()
            self.assertEqual(receiver.read(4), b"abcd")
            sender.write(b"e")
            self.assertEqual(receiver.read(4), b"e")
            # A handler that does not raise does not end the wait.
            signal.signal(signal.SIGALRM, lambda *_: sender.write(b"f"))
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            self.assertEqual(receiver.read(4), b"f")
