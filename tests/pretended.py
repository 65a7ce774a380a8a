"""A world for `rendezvous` and `link` out of a `Machine`: each load, store and call of the system is a step.

One `World` is all that one end of a channel has: the home in which the ring
lives, and the clock.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from mmapipc._meeting import homes
from mmapipc._meeting.link import SendingLink
from mmapipc._meeting.waiting import Waiter
from mmapipc._ring import layout, ring, states
from mmapipc._ring.states import Verdict
from mmapipc._system import PEER, RECEIVER, SENDER

from . import interleave
from .interleave import CHANGER_CLAIM, RECEIVER_CLAIM, SENDER_CLAIM, Machine, Readable, Words, Writable

TIMEOUT = 1e6  # seconds; far more than an end asks for the time
CLAIMS = {SENDER: SENDER_CLAIM, RECEIVER: RECEIVER_CLAIM}
BELLS = {SENDER: "the sender's bell", RECEIVER: "the receiver's bell"}
NAME = "name"  # the cell with the number of the memory that has the channel's name
NEXT = 1 << 12  # cells from one such memory to the next

FIELDS = frozenset(
    getattr(layout, field)
    for field in (
        *("MAGIC", "HEADER_BYTES", "CAPACITY", "STREAM_ID", "FLAGS", "OWNER", "WRITE_SEQ", "READ_SEQ"),
        *("SENDER_STATE", "SENDER_PID", "SENDER_CALLS"),
        *("RECEIVER_STATE", "RECEIVER_PID", "RECEIVER_CALLS", "RECEIVERS"),
    )
)


def first_cell(number: int) -> int:
    """Where the memory of that number begins, among the cells."""
    return (number - 1) * NEXT


class Memory:
    """The memory of that number, open."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.number = number
        self.words = Words(machine, FIELDS, first_cell(number))

    def close(self) -> None:
        """Nothing."""


class Mapped:
    """Its header and its ring."""

    def __init__(self, world: World, memory: Memory, capacity: int) -> None:
        self._world = world
        self._base = first_cell(memory.number)
        self.number = memory.number
        self.words = memory.words
        kind = Writable if world.role == SENDER else Readable
        self.data = kind(world.machine, capacity, self._base)

    def close(self) -> None:
        """Nothing."""


class Bells:
    """The bells of both ends; the peer may be any of its role, one after the other."""

    def __init__(self, world: World) -> None:
        self._world = world

    def quiet(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """What is in the peer's words as long as there is nothing for which it has to ring."""
        link = self._world.link
        half, base = link.half, first_cell(link.mapped.number)
        counter = base + half.peer_counter, (half.awaited,)
        if isinstance(link, SendingLink) and link.persistent:
            return (counter,)  # receivers come and go
        # (A receiver that comes says nothing before it takes something.)
        return counter, (base + half.peer_state, (layout.ABSENT, layout.OPEN))

    def sleep(self, seconds: float, events: int = 1) -> None:
        """Sleep until it rings."""
        world = self._world
        assert world.may_sleep, "it was said that this does not wait"
        world.others_left(world.machine.sleep(world.bells[world.role], *self.quiet()))

    def sleep_briefly(self, seconds: float, events: int = 1) -> None:
        """Sleep until it rings, but not for long, whatever else happens."""
        world = self._world
        assert world.may_sleep, "it was said that this does not wait"
        world.others_left(world.machine.sleep(world.bells[world.role]))

    def ring(self) -> None:
        """Wake who sleeps."""
        world = self._world
        world.machine.ring(world.bells[PEER[world.role]])

    def ring_own(self) -> None:
        """Nothing: no other thread sleeps."""

    def are_shared(self) -> bool:
        """True."""
        return True

    def watch(self, pid: int) -> bool:
        """False: whoever sleeps wakes when somebody has died."""
        return False

    def watch_output(self, descriptor: int) -> None:
        """Nothing: there is none."""

    def drain(self) -> None:
        """Forget what has rung."""
        self._world.machine.drain(self._world.bells[self._world.role])

    def heard(self) -> list[Any]:
        """This, for `sleep_on`."""
        return [self]

    def told(self, which: object) -> None:
        """Forget it."""
        self.drain()

    def listen(self, *others: Bells) -> list[Bells] | None:
        """Those of these bells that have rung, none after a while; None when nobody is left to ring."""
        both = [self, *others]
        names = [each._world.bells[each._world.role] for each in both]
        quiet = [cell for each in both for cell in each.quiet()]
        rung = self._world.machine.listen(tuple(names), *quiet)
        return None if rung is None else [each for each, name in zip(both, names) if name in rung]

    def close(self) -> None:
        """Nothing."""


class Claim:
    """A role that this end has."""

    def __init__(self, world: World) -> None:
        self._world = world

    def holder(self, role: str) -> int | None:
        """The pid of who has that role."""
        actor = self._world.machine.load(self._world.claims[role])
        return self._world.pids[actor - 1] if actor else None

    def bells(self) -> Bells | None:
        """The bells, if they are had here."""
        return Bells(self._world) if self._world.parking else None

    def stands(self) -> bool:
        """True: nobody removes the file."""
        return True

    def release(self, *, memory: bool = True) -> None:
        """Give it back.  The memory stays: it may, and it can be found longer so."""
        self._world.machine.release(self._world.claims[self._world.role])


class World:
    """The home and the clock of one end, whose role this is.

    `pids` are those of all actors.  `barrier` is the machine's, or one that is
    left out in places.  Unless it `excludes`, nothing keeps the two apart who
    change a file.
    """

    name = "x"
    location = "the file"
    # The cells of the roles and of the bells, by role.
    claims: dict[str, Hashable] = CLAIMS  # type: ignore[assignment]
    bells: dict[str, Hashable] = BELLS  # type: ignore[assignment]
    may_sleep = True

    def __init__(
        self,
        machine: Machine,
        role: str,
        pids: list[int],
        barrier: Callable[[], None],
        *,
        kept: bool,
        ordered: bool,
        parking: bool,
        fence: bool,
        excludes: bool,
    ) -> None:
        self.machine = machine
        self.role = role
        self.pids = pids
        self.barrier = barrier
        self.kept = kept
        self.owner = 7 if kept else 0  # as the two homes have it
        self.ordered = ordered
        self.parking = parking
        self._fences = fence
        self._excludes = excludes
        self._now = 0.0
        self._others = True
        self._removed = 0  # the number of the memory that had the name
        self.link: Any = None
        self.where: tuple[object, ...] = ()  # in its life, see `checkpoint`

    def order(self) -> None:
        """As in `homes`."""
        if not self.ordered:
            self.barrier()

    # The home.

    def claim(self, role: str) -> Claim:
        """Wait for the role, and take it."""
        self.machine.claim(self.claims[role])
        return Claim(self)

    @contextlib.contextmanager
    def changing(self) -> Iterator[bool]:
        """In a file, one at a time."""
        if not (self.kept and self._excludes):
            yield True
            return
        self.machine.claim(CHANGER_CLAIM)
        try:
            yield True
        finally:
            self.machine.release(CHANGER_CLAIM)

    def find(self) -> Memory | None:
        """The file, which is there, or the memory that has the name."""
        number = 1 if self.kept else self.machine.load(NAME)
        return Memory(self.machine, number) if number else None

    @contextlib.contextmanager
    def header(self, memory: Memory) -> Iterator[tuple[Any, layout.Header] | None]:
        """As in `homes`."""
        found = states.load_header(memory.words, self.name, self.order)  # type: ignore[arg-type]
        yield None if found is None else (memory.words, found)

    def map(self, memory: Memory, capacity: int) -> Mapped:
        """Map header and ring."""
        return Mapped(self, memory, capacity)

    def check_taken(self, words: Any, header: layout.Header) -> None:
        """As in `homes`."""
        if self.kept:
            homes.InFile.check_taken(self, words, header)  # type: ignore[arg-type]

    def renew(self, found: Memory | None, capacity: int) -> Memory | None:
        """As in `homes`: a file is cleared, memory makes room for other memory."""
        if self.kept:
            assert found is not None
            states.clear(found.words, self.owner, self.order)  # type: ignore[arg-type]
            return found
        if found is not None:
            self.machine.store(NAME, 0)
            self._removed = found.number
            return None
        number = self._removed + 1
        self.machine.store(NAME, number)
        return Memory(self.machine, number)

    def fits(self, memory: Memory, size: int) -> bool:
        """True."""
        return True

    def flush(self, memory: Memory, mapped: Mapped) -> None:
        """Nothing."""

    def check_kept(self, memory: Memory) -> None:
        """Nothing: nobody removes the file."""

    def is_lost(self, memory: Memory) -> bool:
        """False: as above."""
        return False

    def sweep(self) -> None:
        """Nothing."""

    # The clock.

    def now(self) -> float:
        """A second later each time: nobody yields for so long, and the peer is asked for at each look."""
        self._now += 1
        return self._now

    def fence(self) -> None:
        """A barrier of all actors; of this one where nobody is rung for, and so nobody relies on more."""
        if self._fences and self.parking:
            self.machine.barrier_everywhere()
        elif self._fences:
            self.machine.barrier()

    def give_way(self) -> None:
        """Nothing: others run anyway."""

    def sleep(self, seconds: float) -> None:
        """Until something of what was loaded has changed."""
        self.others_left(self.machine.rest())
        if not self.link.is_joined:
            self.checkpoint("not yet there", self.link.claim is None)

    def others_left(self, left: bool) -> None:
        """Note whether anybody is left to wait for; else let the time run out."""
        self._others = left
        if not left:
            self._now += 2 * TIMEOUT

    def checkpoint(self, *where: object) -> None:
        """Say where in its life this end is.  All else depends on what its half and its link keep."""
        halves = [self.link.half] if hasattr(self.link, "half") else []
        kept = [
            value
            for each in (*halves, self.link)
            for value in vars(each).values()
            if isinstance(value, (int, str, Verdict, type(None)))
        ]
        memory = self.link.mapped.number if self.link.mapped else 0, self._removed
        local = *self.where, *where, self._others, *memory, *kept
        self.machine.checkpoint(*local, resting_on=tuple(self.claims.values()))

    def leave(self, result: str | Verdict, say: Callable[[], object] = lambda: None) -> str | Verdict:
        """Say so, and leave with that result.

        Both store what does not depend on what this end has seen or moved: so
        the many ways to get here become one, before the peer goes on.
        """
        self.machine.checkpoint("leaves", result, self.link.mapped.number)
        say()
        self.link.leave("closed")
        return result

    def begin_to_wait(self) -> None:
        """Somebody is left until the contrary is seen."""
        self._others = True
        self.checkpoint("waits")


class Process(World):
    """One end of a stream that is under way, of a process that may have several: `number` is the memory's.

    The rendezvous is over: the memory is as `under_way` says.  Where in the code
    a checkpoint is need not be said.
    """

    def __init__(
        self, machine: Machine, number: int, kind: Any, capacity: int, pids: list[int], **options: Any
    ) -> None:
        super().__init__(machine, kind.role, pids, kept=False, parking=True, excludes=True, **options)
        self.number = number
        self.claims, self.bells = claims_of(number), bells_of(number)
        self.of_process = [self]  # all ends of it
        self.link = kind(self, TIMEOUT, self)
        self.link.claim = Claim(self)
        self.link.memory = Memory(machine, number)
        self.link.mapped = Mapped(self, self.link.memory, capacity)
        self.link.join()

    def checkpoint(self, *where: object) -> None:
        """As in `World`, of all ends of the process, and what these have in common."""
        kept = [
            value
            for each in self.of_process
            if each.link.mapped
            for of in (each.link.half, each.link)
            for value in vars(of).values()
            if isinstance(value, (int, str, Verdict, type(None)))
        ]
        others = [each._others for each in self.of_process]
        streams = [each.link.mapped.number for each in self.of_process if each.link.mapped]
        local = _position(), *self.where, *where, self.number, *others, *streams, ring.wrote, ring.rang, *kept
        self.machine.checkpoint(*local)


def _position() -> tuple[int, ...]:
    """Where the actor is: the lines of the calls that lead to this one."""
    lines = []
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename != interleave.__file__:
        lines.append(frame.f_lineno)
        frame = frame.f_back
    return tuple(lines)


def claims_of(number: int) -> dict[str, Hashable]:
    """The cells of that stream's roles."""
    return {role: (claim, number) for role, claim in CLAIMS.items()}


def bells_of(number: int) -> dict[str, Hashable]:
    """The cells of that stream's bells."""
    return {role: (bell, number) for role, bell in BELLS.items()}


def under_way(number: int, sender: int, receiver: int, pids: list[int]) -> dict[Hashable, Any]:
    """The memory of a stream of which nothing is written yet, both ends being these actors."""
    words = {
        layout.SENDER_STATE: layout.OPEN,
        layout.SENDER_PID: pids[sender],
        layout.RECEIVER_STATE: layout.OPEN,
        layout.RECEIVER_PID: pids[receiver],
        layout.RECEIVERS: 1,
    }
    claims = claims_of(number)
    return {
        **{first_cell(number) + word: value for word, value in words.items()},
        claims[SENDER]: sender + 1,
        claims[RECEIVER]: receiver + 1,
    }


class CheckpointWaiter(Waiter):
    """Says where it is when it begins and ends to wait, and whenever it has slept.

    So histories that wait long become one.
    """

    _clock: Any

    def rest(self, known: int, yielded: float = 0.0) -> int:
        """Nothing here: what it learns would make too many histories.  It parks as `park` does."""
        return known

    def until_moved(self, *arguments: Any) -> Any:
        self._clock.begin_to_wait()
        verdict = super().until_moved(*arguments)
        # What else it saw while it waited, the half keeps or nobody does.
        self._clock.checkpoint("waited", verdict)
        return verdict

    def park(self, *arguments: Any) -> bool:
        self._clock.checkpoint("parks")
        moved = super().park(*arguments)
        self._clock.checkpoint("slept", moved)
        return moved


class RestingWaiter(CheckpointWaiter):
    """Waits for an answer as `Waiter` does, but learns nothing of it, or no history would be like another."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._at_first = {name: value for name, value in vars(self).items() if type(value) in (int, float)}

    def rest(self, known: int, yielded: float = 0.0) -> int:
        self._clock.checkpoint()
        counter = Waiter.rest(self, known, yielded)
        vars(self).update(self._at_first)
        self._half.eager, self._half.yields, self._half.spins = 0, True, False
        self._clock.checkpoint(counter, self._began is None)
        return counter

    def until_moved(self, *arguments: Any) -> Any:
        if self._began is None:
            return super().until_moved(*arguments)
        # The wait goes on that `rest` began; all others may have left since then.
        self._clock.checkpoint()
        verdict = Waiter.until_moved(self, *arguments)
        self._clock.checkpoint(verdict)
        return verdict
