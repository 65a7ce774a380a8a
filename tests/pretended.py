"""A world for `rendezvous` and `link` out of a `Machine`: each load and store, and each call of the system, is a step.

One `World` is all that one end of a channel has: the home in which the ring
lives, and the clock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from mmapipc._meeting import homes
from mmapipc._meeting.waiting import Waiter
from mmapipc._ring import layout, states
from mmapipc._ring.states import Verdict
from mmapipc._system import PEER, RECEIVER, SENDER

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

    def sleep(self, seconds: float, events: int = 1) -> None:
        """Sleep until it rings."""
        world = self._world
        half = world.link.half
        counter = first_cell(world.link.mapped.number) + half.peer_counter
        world.others_left(world.machine.sleep(BELLS[world.role], counter, half.awaited))

    def ring(self) -> None:
        """Wake who sleeps."""
        self._world.machine.ring(BELLS[PEER[self._world.role]])

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
        """Nothing: one ring is as good as many."""

    def close(self) -> None:
        """Nothing."""


class Claim:
    """A role that this end has."""

    def __init__(self, world: World) -> None:
        self._world = world

    def holder(self, role: str) -> int | None:
        """The pid of who has that role."""
        actor = self._world.machine.load(CLAIMS[role])
        return self._world.pids[actor - 1] if actor else None

    def bells(self) -> Bells | None:
        """The bells, if they are had here."""
        return Bells(self._world) if self._world.parking else None

    def stands(self) -> bool:
        """True: nobody removes the file."""
        return True

    def release(self, *, memory: bool = True) -> None:
        """Give it back.  The memory stays: it may, and it can be found longer so."""
        self._world.machine.release(CLAIMS[self._world.role])


class World:
    """The home and the clock of one end, whose role this is.

    `pids` are those of all actors.  `barrier` is the machine's, or one that is
    left out in places.  Unless it `excludes`, nothing keeps the two apart who
    change a file.
    """

    name = "x"
    location = "the file"
    owner = 7

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
        self.machine.claim(CLAIMS[role])
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
        """A barrier of all actors."""
        if self._fences:
            self.machine.barrier_everywhere()

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
        """Say where in its life this end is.  Apart from that, all depends on what its half and its link keep."""
        halves = [self.link.half] if hasattr(self.link, "half") else []
        kept = [
            value
            for each in (*halves, self.link)
            for value in vars(each).values()
            if isinstance(value, (int, str, Verdict, type(None)))
        ]
        memory = self.link.mapped.number if self.link.mapped else 0, self._removed
        local = *self.where, *where, self._others, *memory, *kept
        self.machine.checkpoint(*local, resting_on=tuple(CLAIMS.values()))

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


class CheckpointWaiter(Waiter):
    """Says where it is when it begins and ends to wait, and whenever it has slept.

    So histories that wait long become one.
    """

    _clock: Any

    def rest(self, known: int) -> int:
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
