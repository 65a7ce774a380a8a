"""Every interleaving of a wait: for an answer, of an event loop, and for several ends at once.

As in `test_interleavings`; but the two ends have met, and the streams are under
way, so that there is room for more of what a wait does.  Of a FIFO, or a
semaphore, that is a bell there is one bit: rung or not.  A case may begin with
one that was rung for what is long over.
"""

import contextlib
import itertools
import os
import unittest
from unittest import mock

import mmapipc
from mmapipc._meeting import link, together, waiting
from mmapipc._meeting.link import ReceivingLink, SendingLink
from mmapipc._ring import layout, ring
from mmapipc._ring.ring import Consumer, Producer
from mmapipc._ring.states import Verdict
from mmapipc._system import SENDER
from mmapipc.waiting import Bell

from .helpers import apart
from .interleave import Exploration, Violation
from .pretended import Process, RestingWaiter, bells_of, claims_of, first_cell, under_way
from .test_interleavings import GONE, OF_RECEIVER, OF_SENDER, met

CONSTANT = (layout.SENDER_PID, layout.RECEIVER_PID, layout.RECEIVERS)

# Ways to wait for an answer, within a read.  These make no fence, and one of them may last: a fault.
UNFENCED = {"at once": lambda bells: bells.sleep_briefly, "at once, for ever": lambda bells: bells.sleep}
ASKS = ("answer", *UNFENCED)


class Streams:
    """One case: streams that are under way, how their ends wait, and what is amiss.

    In each of `streams` a sender writes pieces of the sizes in `writes`, the
    second one piece less; one process receives all of the streams.  `sends` and
    `receives` say how each waits, see `WAYS`.  With `stale` bells each has been
    rung.  When the first sender is `silent` it says nothing until the receiver
    has the other stream.
    `patched` are objects, names in them, and what is in their place.
    """

    def __init__(
        self,
        capacity,
        writes,
        *,
        sends="stream",
        receives="stream",
        end="finish",
        streams=1,
        silent=False,
        leaves_after=None,
        stale=False,
        fence=True,
        ordered=True,
        waiter=RestingWaiter,
        producer=Producer,
        consumer=Consumer,
        bell=Bell,
        patched=(),
    ):
        self.__dict__.update(locals())
        size = sum(writes)
        self.payloads = {n: bytes(range(100 * n, 100 * n + size)) for n in range(1, 1 + streams)}
        self.pids = list(range(1, 2 + streams))

    def end_of(self, machine, number, kind):
        return Process(
            machine,
            number,
            kind,
            self.capacity,
            self.pids,
            barrier=machine.barrier,
            ordered=self.ordered,
            fence=self.fence,
        )

    # What an end does before it moves bytes.  Each time it then has to be true that this does not wait.

    def arm(self, world, bell):
        """As an event loop does."""
        while bell.arm():
            self.listen(world)

    def arm_and_disarm(self, world, bell):
        """As one that changes its mind, looks itself, and arms again."""
        while bell.arm():
            world.checkpoint()
            bell.disarm()
            world.checkpoint()
            if world.link.poll(0):
                return
            world.checkpoint()
            if not bell.arm():
                return
            self.listen(world)

    def arm_and_wait(self, world, bell):
        """As one that is armed, and then waits otherwise."""
        if bell.arm():
            world.checkpoint()
            self.wait(world)

    def poll(self, world, bell=None):
        """With `poll`."""
        world.may_sleep = True
        assert world.link.poll(None)

    def wait(self, world, bell=None):
        """With `mmapipc.wait`."""
        news, _ = together.wait([world.link], [], None, world)
        assert news == [world.link]

    def listen(self, world):
        """Sleep as an event loop does, that looks also when nothing has rung for long."""
        world.checkpoint()
        world.others_left(world.link.waiter.bells.listen() is not None)
        world.checkpoint()

    WAYS = {
        "arm": arm,
        "disarm": arm_and_disarm,
        "arm and wait": arm_and_wait,
        "poll": poll,
        "wait": wait,
    }

    def get_ready(self, world, way, bell):
        """Wait for the peer in that way, so that the next call does not."""
        way = self.WAYS.get(way)
        if way is not None:
            world.begin_to_wait()
            way(self, world, bell)
            world.may_sleep = False

    # The actors.

    def sender(self, machine, number=1):
        ring.wrote = ring.rang = False
        world = self.end_of(machine, number, SendingLink)
        if self.silent and number == 1:
            machine.follow(self.streams)
            return world.leave("abort", world.link.abort)
        half, payload, at = world.link.half, self.payloads[number], 0
        bell = self.bell(world.link)
        try:
            for size in self.writes[number - 1 :]:
                world.where = "write", at
                self.get_ready(world, self.sends, bell)
                world.checkpoint()
                half.write(payload[at : at + size])
                at += size
        except OSError as error:
            world.where = "end",
            return world.leave(met(error), world.link.abort)
        world.where = "end",
        world.checkpoint()
        return world.leave(self.end, world.link.finish if self.end == "finish" else world.link.abort)

    def second_sender(self, machine):
        return self.sender(machine, 2)

    def receiver(self, machine):
        ring.wrote = ring.rang = False
        worlds = [self.end_of(machine, number, ReceivingLink) for number in self.payloads]
        for world in worlds:
            world.of_process = worlds
        if self.streams > 1:
            return self.receive_all(worlds)
        (world,) = worlds
        bell = self.bell(world.link)
        habits = itertools.cycle(self.receives if isinstance(self.receives, tuple) else (self.receives,))
        taken = 0
        while self.leaves_after is None or taken < self.leaves_after:
            habit = next(habits)
            world.where = "read", taken, habit
            self.get_ready(world, habit, bell)
            # Whether it has asked, elsewhere, for what it now waits for.
            ring.wrote, ring.rang = habit in ASKS, False
            self.be_eager(world, habit)
            world.checkpoint()
            result = self.read(world)
            if result is not None:
                return world.leave(result, (lambda: None) if result == "whole" else world.link.abort)
            taken = world.link.half.sequence
        world.where = "leaves",
        return world.leave("left", world.link.close)

    def be_eager(self, world, habit):
        """Let the next read park at once, without a fence, if that is the habit."""
        waiter = world.link.waiter
        if habit in UNFENCED:
            waiter._park_at_once(1)
            world.link.half.sleep = UNFENCED[habit](waiter.bells)

    def read(self, world):
        """Read a piece; return how the stream ended, if it has."""
        buffer = bytearray(8)
        try:
            count = world.link.half.readinto(buffer)
        except OSError as error:
            return met(error)
        finally:
            world.may_sleep = True
        world.machine.output += buffer[:count]
        return None if count else "whole"

    def receive_all(self, worlds):
        """With one wait for all streams."""
        machine, results = worlds[0].machine, [None] * len(worlds)
        while None in results[self.silent :]:
            left = [world for world, result in zip(worlds, results) if result is None]
            for world in worlds:
                world.where = "waits", *results
                world.begin_to_wait()
            news, _ = together.wait([world.link for world in left], [], None, worlds[0])
            assert news
            for at, world in enumerate(worlds):
                if world.link in news:
                    world.where = "reads", *results, *(each.link in news for each in worlds)
                    world.checkpoint()
                    world.may_sleep = False
                    results[at] = self.read(world)
        machine.checkpoint("leaves", *results)
        for world in worlds:
            world.link.leave("closed")
        return tuple(results)

    @staticmethod
    def sleep_on(waited, seconds):
        """In the place of `system.sleep_on`: all of these are bells."""
        if not seconds:
            return []
        world = waited[0]._world
        world.checkpoint()
        rung = waited[0].listen(*waited[1:])
        for each in waited:
            each._world.others_left(rung is not None)
        world.checkpoint(*(each in (rung or ()) for each in waited))
        return rung or []

    # The promises.

    def check(self, memory):
        for number, payload in self.payloads.items():
            base = first_cell(number)
            read, written = (memory.get(base + word, 0) for word in (layout.READ_SEQ, layout.WRITE_SEQ))
            if not 0 <= written - read <= self.capacity:
                raise Violation(f"{written - read} bytes in flight")
            for sequence in range(read, written):
                if memory.get(("data", base + sequence % self.capacity), 0) != payload[sequence]:
                    raise Violation(f"byte {sequence} is published and not there")

    def ended(self, outcome):
        for result in outcome.results:
            if isinstance(result, Exception):
                raise Violation(f"{type(result).__name__}: {result}") from result
        results = outcome.results[-1]
        for number, result in zip(self.payloads, results if self.streams > 1 else (results,)):
            if not outcome.dead[-1] and not (self.silent and number == 1):
                self.check_received(number, result, outcome)
            self.check_sent(number, outcome)

    def check_received(self, number, result, outcome):
        memory, base = outcome.memory, first_cell(number)
        payload = self.payloads[number]
        published = payload[: memory.get(base + layout.WRITE_SEQ, 0)]
        got = bytes(value for value in outcome.outputs[-1] if value // 100 == number)
        state = memory[base + layout.SENDER_STATE]
        if result == "left":
            if got != payload[: self.leaves_after]:
                raise Violation(f"left with {got!r}")
        elif result == "nobody":
            raise Violation("an end waits for one that is gone")
        elif got != published:
            raise Violation(f"{result} after {got!r}, published was {published!r}")
        else:
            ended = {layout.FINISHED: "whole", layout.ABORTED: Verdict.GAVE_UP}.get(state, Verdict.DIED)
            if result != ended or (ended == Verdict.DIED and not outcome.dead[number - 1]):
                raise Violation(f"{result}, but the sender's state is {layout.STATE_NAMES[state]}")

    def check_sent(self, number, outcome):
        result = outcome.results[number - 1]
        if result == "nobody":
            raise Violation("an end waits for one that is gone")
        state = outcome.memory[first_cell(number) + layout.RECEIVER_STATE]
        if result == Verdict.LEFT and state != layout.CLOSED:
            raise Violation("the receiver has not left")
        if result == Verdict.DIED and not outcome.dead[-1]:
            raise Violation("the receiver lives")

    def actors(self):
        """Who takes part; and by the stream's number, which of them has its sender, and its receiver."""
        senders = [self.sender, self.second_sender][: self.streams]
        return [*senders, self.receiver], {n: (n - 1, self.streams) for n in self.payloads}

    def explore(self, deaths=(), order="tso"):
        actors, ends = self.actors()
        memory, writers, constant, claims = {}, {}, set(), []
        for number, (sender, receiver) in ends.items():
            base = first_cell(number)
            memory.update(under_way(number, sender, receiver, self.pids))
            memory.update(dict.fromkeys(bells_of(number).values(), 1) if self.stale else {})
            writers.update((base + word, (sender,)) for word in OF_SENDER)
            writers.update((base + word, (receiver,)) for word in OF_RECEIVER)
            constant.update(base + word for word in CONSTANT)
            claims += claims_of(number).values()
        exploration = Exploration(
            actors,
            order=order,
            deaths=deaths,
            writers=writers,
            constant=frozenset(constant),
            memory=memory,
            claims=tuple(claims),
            fences=True,
            check=self.check,
            end=self.ended,
        )
        with contextlib.ExitStack() as patches:
            for where, name, value in (
                (link, "Producer", self.producer),
                (link, "Consumer", self.consumer),
                (link, "Waiter", self.waiter),
                (waiting, "_LOOKS_AT_LEAST", 1),
                (ring, "wrote", False),
                (ring, "rang", False),
                (together.system, "sleep_on", self.sleep_on),
                *self.patched,
            ):
                patches.enter_context(mock.patch.object(where, name, value))
            exploration.run()
        return exploration


class RoundTrips(Streams):
    """Two processes: each sends one stream and receives the other, a question, an answer, and so on."""

    def __init__(self, questions, habits=("answer", "answer"), **options):
        super().__init__(1, (1,) * questions, streams=2, **options)
        self.habits = habits

    def actors(self):
        return [self.asks, self.answers], {1: (0, 1), 2: (1, 0)}

    def ends_of(self, machine, sends, receives):
        ring.wrote = ring.rang = False
        worlds = self.end_of(machine, sends, SendingLink), self.end_of(machine, receives, ReceivingLink)
        for world in worlds:
            world.of_process = list(worlds)
        return worlds

    def leave(self, worlds, result):
        machine = worlds[0].machine
        machine.checkpoint("leaves", result)
        for world in worlds:
            if result in ("whole", "asked"):
                world.link.finish() if world.role == SENDER else world.link.close()
            else:
                world.link.abort()
            world.link.leave("closed")
        return result

    def asks(self, machine):
        out, back = self.ends_of(machine, 1, 2)
        try:
            for at in range(len(self.writes)):
                out.where = back.where = "asks", at
                out.checkpoint()
                out.link.half.write(self.payloads[1][at : at + 1])
                self.be_eager(back, self.habits[0])
                out.checkpoint()
                result = self.read(back)
                if result is not None:
                    return self.leave((out, back), result)
        except OSError as error:
            return self.leave((out, back), met(error))
        return self.leave((out, back), "asked")

    def answers(self, machine):
        back, there = self.ends_of(machine, 2, 1)
        try:
            for at in itertools.count():
                there.where = back.where = "answers", at
                self.be_eager(there, self.habits[1])
                there.checkpoint()
                result = self.read(there)
                if result is not None:
                    return self.leave((back, there), result)
                there.checkpoint()
                back.link.half.write(self.payloads[2][at : at + 1])
        except OSError as error:
            return self.leave((back, there), met(error))

    def ended(self, outcome):
        for result in outcome.results:
            if isinstance(result, Exception):
                raise Violation(f"{type(result).__name__}: {result}") from result
        asked, answered = outcome.results
        if not any(outcome.dead):
            outputs = self.payloads[2], self.payloads[1]
            if outcome.results != ("asked", "whole") or outcome.outputs != outputs:
                raise Violation(f"{outcome.results}, {outcome.outputs}")
        elif not {asked, answered} <= {None, "asked", "whole", *GONE}:
            raise Violation(f"{outcome.results}")


@apart
class Waits(unittest.TestCase):
    """No schedule breaks a promise, or lets an end sleep over what it is to be woken for."""

    states = schedules = 0

    def explore(self, case, **options):
        exploration = case.explore(**options)
        type(self).states += exploration.states
        type(self).schedules += exploration.schedules
        self.assertGreater(exploration.schedules, 100)

    @classmethod
    def tearDownClass(cls):
        if os.environ.get("MMAPIPC_FIGURES"):
            print(f"\n{cls.states} states, {cls.schedules:.3g} schedules of waits explored")

    def test_for_an_answer(self):
        for capacity, habits, end in (
            (1, ("answer", "at once"), "abort"),
            (2, ("at once", "answer"), "finish"),
        ):
            with self.subTest(habits=habits, capacity=capacity):
                self.explore(Streams(capacity, (1, 1, 1), receives=habits, end=end))

    def test_for_an_answer_that_does_not_come(self):
        for habit in ("answer", "at once"):
            for victim in (0, 1):
                with self.subTest(habit=habit, victim=victim):
                    self.explore(Streams(1, (1, 1), receives=habit, stale=True), deaths=(victim,))

    def test_round_trips(self):
        self.explore(RoundTrips(2, ("at once", "answer")))
        self.explore(RoundTrips(1, ("answer", "answer")))
        self.explore(RoundTrips(1, ("at once", "at once")))
        for victim in (0, 1):
            with self.subTest(victim=victim):
                self.explore(RoundTrips(1, ("answer", "at once")), deaths=(victim,))

    def test_of_an_event_loop_and_those_who_only_want_to_know(self):
        for way in Streams.WAYS:
            with self.subTest(way=way):
                self.explore(Streams(1, (1, 1, 1), receives=way))
                self.explore(Streams(1, (1, 1), receives=way, stale=True, end="abort"))
                self.explore(Streams(1, (1, 1), sends=way))
                self.explore(Streams(1, (1, 1, 1), sends=way, stale=True, leaves_after=1))

    def test_of_an_event_loop_whose_peer_dies(self):
        for way in Streams.WAYS:
            for victim in (0, 1):
                with self.subTest(way=way, victim=victim):
                    self.explore(Streams(1, (1, 1), receives=way), deaths=(victim,))
                    if way in ("arm", "wait"):
                        self.explore(Streams(1, (1, 1), sends=way), deaths=(victim,))

    def test_of_both_ends_in_an_event_loop(self):
        for way in ("arm", "disarm"):
            with self.subTest(way=way):
                self.explore(Streams(1, (1, 1, 1), sends=way, receives=way))

    def test_for_two_ends_at_once(self):
        self.explore(Streams(1, (1,), streams=2, end="abort", stale=True))
        self.explore(Streams(1, (1, 1), streams=2, silent=True))
        for victim in (0, 1):
            with self.subTest(victim=victim):
                self.explore(Streams(1, (1, 1), streams=2, silent=True), deaths=(victim,))

    def test_on_weakly_ordered_processors(self):
        for way in ("answer", "at once", *Streams.WAYS):
            with self.subTest(way=way):
                self.explore(Streams(1, (1, 1), receives=way, ordered=False, end="abort"), order="weak")
        for way in ("arm", "wait"):
            with self.subTest(sends=way):
                self.explore(Streams(1, (1, 1), sends=way, ordered=False, end="abort"), order="weak")
        self.explore(RoundTrips(1, ordered=False), order="weak")


# Faults, each a plausible slip.


class Rests(RestingWaiter):
    """`rest` in short, with what a subclass leaves out or turns round."""

    def rest(self, known, yielded=0.0):
        if not (ring.wrote or yielded):
            return known
        ring.wrote = False
        self._rest(known)
        self._half.words[self._half.own_calls] = 0
        self._clock.checkpoint()
        return self._half.words[self._half.peer_counter]

    def call_for(self, known):
        self._half.words[self._half.own_calls] = layout.parked(known)
        self._clock.fence()

    def is_quiet(self, known):
        words = self._half.words
        return words[self._half.peer_state] == layout.OPEN and words[self._half.peer_counter] == known


class RestsAsItShould(Rests):
    def _rest(self, known):
        self.call_for(known)
        if self.is_quiet(known):
            self.bells.sleep(1.0)


class RestsWithoutASecondLook(Rests):
    def _rest(self, known):
        if self.is_quiet(known):
            self.call_for(known)
            self.bells.sleep(1.0)


class RestsOverTheEnd(Rests):
    def _rest(self, known):
        self.call_for(known)
        if self._half.words[self._half.peer_counter] == known:
            self.bells.sleep(1.0)


class TakesARingForNews(RestingWaiter):
    def park(self, look, seconds):
        super().park(look, seconds)
        return True


class DrainsAfterItsLook(RestingWaiter):
    def arm(self, has_news):
        self.call()
        self._clock.fence()
        armed = not has_news(True)
        self.bells.drain()
        if not armed:
            self.take_back()
        return armed


class ArmsWithoutALook(RestingWaiter):
    def arm(self, has_news):
        if has_news(True):
            return False
        self.bells.drain()
        self.call()
        self._clock.fence()
        return True


class NeverAsksWhetherThePeerLives(RestingWaiter):
    def probe_is_due(self, waited=0.0):
        return False


class BelievesThatNothingCameWhileItWasArmed(Bell):
    """So what rang until `disarm` is lost."""

    _was_armed = False

    def arm(self):
        if self._was_armed:
            self._was_armed = False
            self._link.waiter.call()
            return True
        return super().arm()

    def disarm(self):
        super().disarm()
        self._was_armed = True


class HastySender(Producer):
    """Rings before it stores the counter."""

    def write(self, data):
        with self._next_free(1) as place:
            place[:] = data
        calls = self.words[self.peer_calls]
        if calls and calls != self.rung:
            self._link.waiter.bells.ring()
            self.rung = calls
        self.sequence += 1
        self.words[layout.WRITE_SEQ] = self.sequence
        return 1


class HastyReceiver(Consumer):
    """The same."""

    def readinto(self, buffer):
        if not self._published - self.sequence and not self._more():
            return 0
        buffer[:1] = self._copied(1)
        calls = self.words[self.peer_calls]
        if calls and calls != self.rung:
            self._link.waiter.bells.ring()
            self.rung = calls
        self.sequence += 1
        self.words[layout.READ_SEQ] = self.sequence
        return 1


def ring_for_what_it_knows(self, calls):
    """As it was once: who parks again, just before it is rung for, is rung for now and not then."""
    if calls & layout.PARKED:
        self._ring(calls)


def say_no_counter(known):
    """In the place of `layout.parked`."""
    return layout.PARKED


def say_nothing(self):
    """In the place of `hail`."""


def wait_for_a_ring(links, others, timeout, clock):
    """In the place of `together.wait`: takes a ring for news."""
    news = [link for link in links if link.has_news(True)]
    while not news:
        for each in links:
            each.waiter.call()
        clock.fence()
        news = [link for link in links if link.has_news(True)]
        if not news:
            rung = Streams.sleep_on([each.bells for each in links], 1.0)
            news = [each for each in links if each.bells in rung]
    for each in links:
        each.bells.drain()
        each.waiter.take_back()
    return news, []


def wait_and_call_one(links, others, timeout, clock):
    """In the place of `together.wait`: calls the peer of the first link only."""
    while True:
        links[0].waiter.call()
        clock.fence()
        news = [link for link in links if link.has_news(True)]
        if news:
            links[0].waiter.take_back()
            return news, []
        for each in Streams.sleep_on([each.bells for each in links], 1.0):
            each.drain()


def drain_after_the_look(links, others, timeout, clock):
    """In the place of `together.wait`: forgets the rings between its look and its sleep."""
    while True:
        for each in links:
            each.waiter.call()
        clock.fence()
        news = [link for link in links if link.has_news(True)]
        if news:
            for each in links:
                each.waiter.take_back()
            return news, []
        for each in links:
            each.bells.drain()
        Streams.sleep_on([each.bells for each in links], 1.0)


FAULTS = (
    (
        "no look between the call and the sleep, waiting for an answer",
        Streams(1, (1,), receives="answer", waiter=RestsWithoutASecondLook),
        {},
    ),
    (
        "no look at the state before such a sleep",
        Streams(1, (1,), receives="answer", waiter=RestsOverTheEnd),
        {},
    ),
    ("no fence before such a sleep", Streams(1, (1,), receives="answer", fence=False), {}),
    ("a sleep without a fence that may last", Streams(1, (1,), receives="at once, for ever"), {}),
    *(
        (
            f"the ring comes before the counter, {way}",
            Streams(1, (1, 1), receives=way, producer=HastySender),
            {},
        )
        for way in ("stream", "answer", "arm", "wait", "poll")
    ),
    *(
        (
            f"the ring comes before the counter, {way} to send",
            Streams(1, (1, 1), sends=way, consumer=HastyReceiver),
            {},
        )
        for way in ("stream", "arm", "wait", "poll")
    ),
    *(
        (
            f"who parks again is rung for too early, {way}",
            Streams(1, (1, 1, 1), receives=way, patched=((link.Link, "answer", ring_for_what_it_knows),)),
            {},
        )
        for way in ("stream", "answer", "arm", "wait")
    ),
    (
        "the same in round trips",
        RoundTrips(2, patched=((link.Link, "answer", ring_for_what_it_knows),)),
        {},
    ),
    (
        "the calls do not say which counter is known",
        Streams(1, (1, 1), sends="wait", receives="arm", patched=((layout, "parked", say_no_counter),)),
        {},
    ),
    *(
        (
            f"nobody rings at the end, {way}",
            Streams(1, (1,), receives=way, patched=((link.Link, "hail", say_nothing),)),
            {},
        )
        for way in ("stream", "answer", "arm", "wait", "poll")
    ),
    (
        "a ring that is stale is news, poll",
        Streams(1, (1,), receives="poll", stale=True, waiter=TakesARingForNews),
        {},
    ),
    (
        "a ring that is stale is news, wait",
        Streams(1, (1,), receives="wait", stale=True, patched=((together, "wait", wait_for_a_ring),)),
        {},
    ),
    (
        "a ring that came late is news",
        Streams(1, (1, 1), receives="wait", patched=((together, "wait", wait_for_a_ring),)),
        {},
    ),
    (
        "rings are forgotten after the look, arm",
        Streams(1, (1,), receives="arm", waiter=DrainsAfterItsLook),
        {},
    ),
    (
        "rings are forgotten after the look, wait",
        Streams(1, (1,), receives="wait", patched=((together, "wait", drain_after_the_look),)),
        {},
    ),
    ("armed without a look", Streams(1, (1,), receives="arm", waiter=ArmsWithoutALook), {}),
    ("armed without a fence", Streams(1, (1,), receives="arm", fence=False), {}),
    ("armed without a fence, to send", Streams(1, (1, 1), sends="arm", fence=False), {}),
    ("no fence in a wait", Streams(1, (1,), receives="wait", fence=False), {}),
    (
        "a ring is lost by disarming",
        Streams(1, (1,), receives="disarm", bell=BelievesThatNothingCameWhileItWasArmed),
        {},
    ),
    (
        "nobody asks whether the peer lives",
        Streams(1, (1,), receives="arm", waiter=NeverAsksWhetherThePeerLives),
        {"deaths": (0,)},
    ),
    (
        "only one of two peers is called",
        Streams(1, (1,), streams=2, silent=True, patched=((together, "wait", wait_and_call_one),)),
        {},
    ),
    ("two ends, and no fence", Streams(1, (1,), streams=2, fence=False), {}),
    (
        "two ends, and a stale ring is news",
        Streams(1, (1,), streams=2, stale=True, patched=((together, "wait", wait_for_a_ring),)),
        {},
    ),
)


@apart
class SeededFaults(unittest.TestCase):
    """The checker finds each of these."""

    @classmethod
    def tearDownClass(cls):
        if os.environ.get("MMAPIPC_FIGURES"):
            print(f"\n{len(FAULTS)} seeded faults of waits")

    def test_each_fault_is_found(self):
        for what, case, options in FAULTS:
            with self.subTest(what), self.assertRaises(Violation):
                case.explore(**options)

    def test_what_the_faults_are_put_into_has_none(self):
        Streams(1, (1,), receives="answer", waiter=RestsAsItShould).explore()
