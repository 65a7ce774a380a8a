"""Every schedule of a few actors over shared memory, in the style of Rust's `loom`.

An actor is a function that gets a `Machine` and runs real code on the memory
objects that it has.  Each load, store, barrier and system call is one step,
and `explore` runs the steps of all actors in every order there is.  Python
cannot stop a function in the middle, so a step is found by running the actor
again from its start with the answers that it got so far; what it asks for
next is remembered, so that each history runs once.

Stores go through a store buffer for each actor, which empties into memory at
any time, in order: "tso", as x86 does.  An actor that may die does so at each
of its steps; what is in its buffer still reaches memory, and then the kernel
takes its claim.

On the weakly ordered machine ("weak", after aarch64) only a barrier keeps order:

-   Stores leave the buffer in any order that keeps the stores to one cell.
-   Loads are satisfied early: a load returns any value that its cell has had
    since the actor's last barrier, but none older than what the actor last
    loaded from that cell or stored there.
-   Copies of bytes are satisfied early, or late: as long as the actor has made
    no barrier, a store that changes the cell may still change the copy.  No
    actor looks at what it copies, so that is an error at once.
-   Other loads are not satisfied late.  CPython branches on each word that it
    loads (the kind of its `int` depends on the value), and aarch64 keeps a
    store behind each load that an earlier branch depends on ("control
    dependency" in the Arm Architecture Reference Manual, B2.3; Linux relies on
    it too, see "CONTROL DEPENDENCIES" in its memory-barriers.txt).  A load
    after such a branch may be early all the same.
-   Memory is one for all: a store that one other actor sees, all see (Armv8 is
    "other-multi-copy atomic").

About system calls it is assumed:

-   Who gets a claim sees all that its earlier holders stored until they
    released it, or died.  A kernel keeps its locks with locks (ACQUIRE and
    RELEASE in memory-barriers.txt).
-   `release` and `wake` come after the actor's own stores.
-   Who blocks or sleeps has stored before: a kernel makes a barrier when it
    gives the processor to another process (membarrier(2) relies on that).
-   Apart from that they order nothing: `sleep`, `wake`, `release`
    and the blocks leave early what is early, and a look at a claim is early itself.
    Kernels do order more, but nobody promises it.
-   When nothing has happened until all others are done, so much time has passed
    that no load is that early.

Two schedules that lead to the same memory, buffers and histories have the same
future, so that state is explored once; a `checkpoint` makes more histories one.
`Exploration.schedules` counts all the schedules that were covered in this way.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, TypeVar

_BUFFER = 6  # stores that a processor holds back at most

Step = tuple[Any, ...]
Actor = Callable[["Machine"], Any]
_Method = TypeVar("_Method", bound=Callable[..., Any])

SENDER_CLAIM = "sender's claim"
RECEIVER_CLAIM = "receiver's claim"
CHANGER_CLAIM = "changer's claim"


class Violation(AssertionError):
    """A schedule that breaks a promise."""


class _Pause(BaseException):
    """The actor has run as far as its answers reach."""


class Machine:
    """What an actor may do; each call is a step."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = iter(answers)
        self.pending: Step | None = None
        self.output = bytearray()  # what the actor has brought to safety so far
        self._seen: dict[Hashable, Any] = {}  # what it loaded last since it rested, or made a checkpoint

    def step(self, *step: Any) -> Any:
        for answer in self._answers:
            return answer
        # What the actor does while it is being stopped (`finally`) does not count.
        self.pending = self.pending or step
        raise _Pause

    def load(self, cell: Hashable) -> Any:
        value = self._seen[cell] = self.step("load", cell)
        return value

    def store(self, cell: Hashable, value: Any) -> None:
        self.step("store", cell, value)

    def copy(self, cell: Hashable) -> Any:
        """A load of a byte that is not looked at."""
        return self.step("copy", cell)

    def barrier(self) -> None:
        """Until the actor's own stores are in memory.

        No later load is satisfied before it, and no earlier copy after it.
        """
        self.step("barrier")

    def barrier_everywhere(self) -> None:
        """A barrier of all actors at once."""
        self.step("barrier everywhere")

    def block_for_a_while(self, *seen: tuple[Hashable, Any]) -> bool:
        """Until one of these cells has another value than the one seen.

        Returns False when all others are done and none has.
        """
        return bool(self.step("block for a while", seen))

    def rest(self) -> bool:
        """As `block_for_a_while`, on all that was loaded since the last rest or checkpoint."""
        seen, self._seen = self._seen, {}
        return self.block_for_a_while(*seen.items())

    def sleep(self, bell: Hashable, *quiet: tuple[Hashable, tuple[Any, ...]]) -> bool:
        """Return if the bell has rung since the last sleep, else sleep until it rings.

        The bound on the sleep ends it only if each of the cells in `quiet` has
        one of the values there, or an actor has died: any other change that
        nobody rings for is to be found.  Returns False when the others are all done.
        """
        return bool(self.step("sleep", bell, quiet))

    def listen(self, bells: tuple[Hashable, ...], *quiet: tuple[Hashable, tuple[Any, ...]]) -> Any:
        """Sleep until some of the bells have rung; return those.  They stay rung until `drain`.

        For the bound on the sleep see `sleep`: then nothing is returned, and
        None when the others are all done.
        """
        return self.step("listen", bells, quiet)

    def drain(self, bell: Hashable) -> None:
        """Forget that the bell has rung.  No barrier."""
        self.step("drain", bell)

    def ring(self, bell: Hashable) -> None:
        """Wake who sleeps until that bell rings, or the next who would.  A full barrier."""
        self.step("ring", bell)

    def follow(self, actor: int) -> None:
        """Until that actor is done."""
        self.step("follow", actor)

    def claim(self, claim: str) -> None:
        """Until the claim is free; then it is this actor's until `release` or death."""
        self.step("claim", claim)

    def release(self, claim: str) -> None:
        self.step("release", claim)

    def checkpoint(self, *local: Hashable, resting_on: tuple[Hashable, ...] = ()) -> None:
        """Say that `local` is all that the actor's future depends on, whatever it loaded so far.

        Histories that come to the same checkpoint are one from there on.  The
        next `rest` is also on what was loaded from the cells in `resting_on`.
        """
        self._seen = {cell: self._seen[cell] for cell in resting_on if cell in self._seen}
        self.step("checkpoint", (*local, *self._seen.items(), bytes(self.output)))


class Words:
    """A header of 64-bit words, of which only `fields` are there; cells from number `base` on."""

    def __init__(self, machine: Machine, fields: frozenset[int], base: int = 0) -> None:
        self._machine = machine
        self._fields = fields
        self._base = base

    def __len__(self) -> int:
        return max(self._fields) + 1

    def __getitem__(self, word: int) -> int:
        value = self._machine.load(self._base + word)
        assert isinstance(value, int)
        return value

    def __setitem__(self, word: int, value: int) -> None:
        if word in self._fields:
            self._machine.store(self._base + word, value)


class Readable:
    """The ring as a consumer sees it: a slice copies its bytes."""

    def __init__(self, machine: Machine, capacity: int, base: int = 0) -> None:
        self._machine = machine
        self._capacity = capacity
        self._base = base

    def __len__(self) -> int:
        return self._capacity

    def __getitem__(self, piece: slice) -> Snapshot:
        assert 0 <= piece.start <= piece.stop <= self._capacity
        return Snapshot(self._machine.copy(("data", self._base + i)) for i in range(piece.start, piece.stop))


class Snapshot(bytes):
    """Copied bytes, to be used as a view."""

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Writable(Readable):
    """The ring as a producer sees it: a slice is a place to store to."""

    def __getitem__(self, piece: slice) -> Place:  # type: ignore[override]
        return Place(self, piece)

    def __setitem__(self, piece: slice, data: bytes) -> None:
        assert 0 <= piece.start <= piece.stop <= self._capacity
        assert len(data) == piece.stop - piece.start
        for i, value in zip(range(piece.start, piece.stop), data):
            self._machine.store(("data", self._base + i), value)


class Place:
    """A slice of a `Writable`."""

    def __init__(self, ring: Writable, piece: slice) -> None:
        self._ring = ring
        self._piece = piece

    def __len__(self) -> int:
        return int(self._piece.stop - self._piece.start)

    def __setitem__(self, everything: slice, data: bytes) -> None:
        self._ring[self._piece] = bytes(data)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _shown(step: Step) -> str:
    """A line of a schedule: the actor, and what it does."""
    return f"{step[0]}: " + " ".join(map(str, step[1:]))


class _Node:
    """An actor after a history of answers: what it asks for next, or what it returned."""

    def __init__(self, actor: Actor, answers: list[Any], checkpoints: dict[Any, _Node]) -> None:
        self._actor = actor
        self._answers = answers
        self._checkpoints = checkpoints
        self._next: dict[Any, _Node] = {}
        machine = Machine(answers)
        self.result: Any = None
        try:
            self.result = actor(machine)
        except _Pause:
            pass
        except Exception as error:
            self.result = error
        self.pending = machine.pending
        self.output = bytes(machine.output)

    def after(self, answer: Any) -> _Node:
        if answer not in self._next:
            node = _Node(self._actor, [*self._answers, answer], self._checkpoints)
            if node.pending and node.pending[0] == "checkpoint":
                local = node.pending[1]
                if local not in self._checkpoints:
                    self._checkpoints[local] = node.after(None)
                node = self._checkpoints[local]
            elif node.pending is None:
                node = self._checkpoints.setdefault(("ended", repr(node.result), node.output), node)
            self._next[answer] = node
        return self._next[answer]

    def grave(self) -> _Node:
        """The end of an actor that dies here: only its output is left."""
        node = self._checkpoints.get(("died", self.output))
        if node is None:
            node = self._checkpoints["died", self.output] = copy.copy(self)
            node.pending = None
        return node


def _first_node(actor: Actor) -> _Node:
    """The actor before its first step."""
    node = _Node(actor, [], {})
    return node.after(None) if node.pending and node.pending[0] == "checkpoint" else node


def _remembered(method: _Method) -> _Method:
    """Call the method once for the same arguments."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any) -> Any:
        key = method, arguments
        result = self._results.get(key)
        if result is None:
            result = self._results[key] = method(self, *arguments)
        return result

    return call  # type: ignore[return-value]


class _Life:
    """One actor within a state.  There is one object for the same fields, so they compare by identity."""

    def __init__(self, node: _Node) -> None:
        self.node = node
        self.buffer: tuple[tuple[Hashable, Any], ...] = ()
        # How many of them, the last, nobody can tell from stores that are still to be made.
        self.tentative = 0
        # By cell: values that a load may still get instead of what is there.
        self.older: frozenset[tuple[Hashable, tuple[Any, ...]]] = frozenset()
        # Cells whose copies may still be late.
        self.copied: frozenset[Hashable] = frozenset()
        self.asleep = False
        self.dead = False
        self._all: dict[Any, _Life] = {}
        self._only()

    def _only(self) -> _Life:
        """The one object with these fields."""
        self.pending = None if self.dead else self.node.pending
        if self.pending is None:
            self.older = frozenset()
        self.done = self.pending is None and not self.buffer
        self._results: dict[Any, _Life] = {}
        fields = self.node, self.buffer, self.tentative, self.older, self.copied, self.asleep, self.dead
        return self._all.setdefault(fields, self)

    def _become(self, **changes: Any) -> _Life:
        life = object.__new__(_Life)  # `copy.copy` takes five times as long
        vars(life).update(vars(self), **changes)
        return life._only()

    @_remembered
    def after(self, answer: Any) -> _Life:
        """Go on with that answer."""
        return self._become(node=self.node.after(answer), asleep=False)

    @_remembered
    def storing(self, cell: Hashable, value: Any, tentative: bool) -> _Life:
        """Go on after a store, which is in the buffer now."""
        life = self.after(None).seeing_no_older(cell)
        return life._become(buffer=(*self.buffer, (cell, value)), tentative=self.tentative + tentative)

    @_remembered
    def settled(self) -> _Life:
        """All stores were made before what it does now."""
        return self._become(tentative=0)

    @_remembered
    def flushing(self, at: int) -> _Life:
        """The store at that place of the buffer is in memory."""
        after = self.buffer[at + 1 :]
        return self._become(buffer=self.buffer[:at] + after, tentative=min(self.tentative, len(after)))

    @_remembered
    def seeing_no_older(self, cell: Hashable, but: tuple[Any, ...] = ()) -> _Life:
        """No value of the cell that is older than what is there can be loaded any more, but for those."""
        older = dict(self.older)
        older.pop(cell, None)
        if but:
            older[cell] = but
        return self._become(older=frozenset(older.items()))

    @_remembered
    def seeing_change(self, cell: Hashable, old: Any) -> _Life:
        """Another actor has stored something else than `old`, which was there."""
        if cell in self.copied:
            raise Violation(f"{cell} changes, and the copy of {old!r} may still be late")
        older = dict(self.older)
        older[cell] = (*older.get(cell, ()), old)
        return self._become(older=frozenset(older.items()))

    @_remembered
    def copying(self, cell: Hashable) -> _Life:
        return self._become(copied=self.copied | {cell})

    @_remembered
    def ordered(self) -> _Life:
        """No later load is early, and no earlier copy is late."""
        return self._become(older=frozenset(), copied=frozenset())

    @_remembered
    def acquiring(self) -> _Life:
        """No later load is early."""
        return self._become(older=frozenset())

    def falling_asleep(self) -> _Life:
        return self._become(asleep=True)

    def woken(self, bell: Hashable) -> _Life:
        """Go on if asleep until that bell rings."""
        return self.after(True) if self.asleep and self.pending and self.pending[1] == bell else self

    @_remembered
    def dying(self) -> _Life:
        nothing: dict[str, Any] = {"buffer": (), "tentative": 0, "copied": frozenset(), "asleep": False}
        return self._become(node=self.node.grave(), dead=True, **nothing)


_Lives = tuple[_Life, ...]


class _Memory:
    """The values of all cells.  There is one object for the same values."""

    def __init__(self, all_memories: dict[Any, _Memory], cells: dict[Hashable, Any]) -> None:
        self._all = all_memories
        self._results: dict[Any, _Memory] = {}
        self.cells = cells

    def __getitem__(self, cell: Hashable) -> Any:
        return self.cells.get(cell, 0)

    @_remembered
    def after(self, cell: Hashable, value: Any) -> _Memory:
        if self[cell] == value:
            return self
        cells = {**self.cells, cell: value}
        return self._all.setdefault(frozenset(cells.items()), _Memory(self._all, cells))


class Outcome(NamedTuple):
    """How a schedule ended, by actor."""

    results: tuple[Any, ...]  # what it returned, the exception, or None when it died
    outputs: tuple[bytes, ...]
    dead: tuple[bool, ...]
    memory: dict[Hashable, Any]


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """While all that is made is kept, to look for garbage takes a quarter of the time and finds none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Exploration:
    """Explores all schedules of `actors`; `deaths` are those that may die, one in each schedule.

    `writers` says, for cells for which that is known, which actors may store
    there; each but the first of them comes when the one before is done.
    `constant` are cells that keep what is first stored there.  With both, some
    loads need no other order than the one.  `memory` is what is in some cells
    at first, and `claims` are the cells that an actor which dies gives back.
    With `fences`, actors may make a barrier of all actors.

    `check(memory)` is called for all that memory can be, and `end(outcome)` for
    each schedule's end; both raise Violation.
    """

    def __init__(
        self,
        actors: list[Actor],
        *,
        order: str = "tso",
        deaths: tuple[int, ...] = (),
        writers: dict[Hashable, tuple[int, ...]] | None = None,
        constant: frozenset[Hashable] = frozenset(),
        memory: dict[Hashable, Any] | None = None,
        claims: tuple[Hashable, ...] = (SENDER_CLAIM, RECEIVER_CLAIM, CHANGER_CLAIM),
        fences: bool = False,
        check: Callable[[dict[Hashable, Any]], None] = lambda memory: None,
        end: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._weak = order == "weak"
        self._deaths = deaths
        self._writers = writers or {}
        self._constant = constant
        self._first = dict(memory or {})
        self._claims = claims
        self._fences = fences
        self._check = check
        self._end = end
        self._roots = tuple(_Life(_first_node(actor)) for actor in actors)
        self.states = 0
        self.schedules = 0

    @_without_collecting()
    def run(self) -> None:
        """Explore; raise Violation with the schedule that led to it."""
        # States by number, in the order in which they are found.
        numbers: dict[Any, int] = {}
        before: list[list[int]] = []
        # Schedules from a state to the end, 0 until all of its successors are known.
        counts: list[int] = []
        ends: list[int] = []
        path: list[tuple[int, Iterator[tuple[Step, Any]], list[int]]] = []
        trail: list[Step] = []
        checked: set[_Memory] = set()

        def enter(state: Any, origin: list[int]) -> None:
            number = numbers[state] = len(before)
            before.append(origin)
            counts.append(0)
            lives, memory = state
            try:
                if memory not in checked:
                    self._check(memory.cells)
                    checked.add(memory)
                steps = list(self._steps(lives, memory))
                if not steps:
                    self._finish(lives, memory)
                    ends.append(number)
            except Violation as error:
                raise Violation(f"{error}\n" + "\n".join(map(_shown, trail))) from None
            path.append((number, iter(steps), []))

        enter((self._roots, _Memory({}, self._first)), [])
        while path:
            number, steps, successors = path[-1]
            for step, state in steps:
                successor = numbers.get(state, len(before))
                successors.append(successor)
                if successor == len(before):
                    trail.append(step)
                    enter(state, [number])
                    break
                before[successor].append(number)
            else:
                # A state that is still on the path is gone round to: no new schedule.  Only
                # who parks goes round; there the sum depends on the order of the steps, too.
                counts[number] = sum([counts[s] for s in successors]) if successors else 1
                path.pop()
                if trail:
                    trail.pop()
        self.states = len(before)
        self.schedules = counts[0]
        reached = self._that_can_end(before, ends)
        for (lives, _), number in numbers.items():
            if number not in reached:
                raise Violation(f"leads round for ever: {[life.pending for life in lives]}")

    @staticmethod
    def _that_can_end(before: list[list[int]], ends: list[int]) -> set[int]:
        """The states from which there is a way to an end."""
        reached = set(ends)
        while ends:
            for state in before[ends.pop()]:
                if state not in reached:
                    reached.add(state)
                    ends.append(state)
        return reached

    def _finish(self, lives: _Lives, memory: _Memory) -> None:
        stuck = [i for i, life in enumerate(lives) if not life.done]
        if stuck:
            raise Violation(f"stuck: {[(i, lives[i].pending) for i in stuck]}")
        self._end(
            Outcome(
                tuple(None if life.dead else life.node.result for life in lives),
                tuple(life.node.output for life in lives),
                tuple(life.dead for life in lives),
                memory.cells,
            )
        )

    def _steps(self, lives: _Lives, memory: _Memory) -> Iterator[tuple[Step, Any]]:
        """What can happen next, and the state that it leads to."""
        nobody_died = not any([life.dead for life in lives])
        for i, life in enumerate(lives):
            pending = life.pending
            if pending is None:
                continue
            if nobody_died and i in self._deaths:
                yield (i, "dies"), self._die(i, lives, memory)
            # What no other actor sees needs no other order.
            if pending[0] == "store" and len(life.buffer) < _BUFFER:
                # Seen when it leaves the buffer, and not earlier; except by a fence, which need not wait
                # for what is made only after it.
                yield (i, *pending), (_put(lives, i, life.storing(*pending[1:], self._fences)), memory)
                return
            if pending[0] == "barrier" and not life.buffer and not life.copied:
                # Later, it would forget more older values, and gain none.
                yield (i, *pending), (_put(lives, i, life.after(None).ordered()), memory)
                return
            if pending[0] == "load" and self._nobody_else_stores(i, pending[1], lives, memory):
                for answer, others, changed in self._answers(i, pending, life, lives, memory):
                    yield (i, *pending, "->", answer), (_put(others, i, others[i].after(answer)), changed)
                return
        for i, life in enumerate(lives):
            for at, (cell, value) in enumerate(life.buffer):
                if at and any([earlier == cell for earlier, _ in life.buffer[:at]]):
                    continue
                others = _put(lives, i, life.flushing(at))
                yield (i, " ", cell, "=", value, "is in memory"), self._change(i, cell, value, others, memory)
                if not self._weak:
                    break
            pending = life.pending
            if pending is not None:
                for answer, others, changed in self._answers(i, pending, life, lives, memory):
                    went_on = others[i].after(answer).settled()
                    yield (i, *pending, "->", answer), (_put(others, i, went_on), changed)
                can_sleep = pending[0] == "sleep" and not (life.asleep or life.buffer)
                if can_sleep and not memory[pending[1]]:
                    yield (i, *pending, "begins"), (_put(lives, i, life.falling_asleep()), memory)

    def _nobody_else_stores(self, i: int, cell: Hashable, lives: _Lives, memory: _Memory) -> bool:
        """Whether no other actor will store to the cell before this one is done."""
        if cell in self._constant and memory[cell]:
            return True
        writers = self._writers.get(cell)
        if writers is None:
            return False
        return all([j == i or lives[j].done or j > i and i in writers for j in writers])

    def _die(self, i: int, lives: _Lives, memory: _Memory) -> tuple[_Lives, _Memory]:
        for cell, value in lives[i].buffer:
            lives, memory = self._change(i, cell, value, lives, memory)
        for claim in self._claims:
            if memory[claim] == i + 1:
                lives, memory = self._change(i, claim, 0, lives, memory)
        return _put(lives, i, lives[i].dying()), memory

    def _change(
        self, i: int, cell: Hashable, value: Any, lives: _Lives, memory: _Memory
    ) -> tuple[_Lives, _Memory]:
        """What a store of the actor makes of the loads to come, and of memory."""
        if i not in self._writers.get(cell, (i,)):
            raise Violation(f"{cell} is not for {i} to store")
        if cell in self._constant and memory[cell] not in (0, value):
            raise Violation(f"{cell} changes")
        if self._weak:
            old = memory[cell]
            if old != value:
                lives = tuple([life.seeing_change(cell, old) for life in lives])
            lives = _put(lives, i, lives[i].seeing_no_older(cell))
        return lives, memory.after(cell, value)

    def _answers(
        self, i: int, pending: Step, life: _Life, lives: _Lives, memory: _Memory
    ) -> Iterator[tuple[Any, _Lives, _Memory]]:
        """The ways in which the pending step can be answered now.

        Each is an answer, and what it makes of the actors and of memory.
        """
        kind, *arguments = pending
        if kind in ("load", "copy"):
            cell = arguments[0]
            if kind == "copy" and self._weak:
                life = life.copying(cell)
            own = [value for stored, value in life.buffer if stored == cell]
            if own:
                yield own[-1], lives, memory
                return
            older = dict(life.older).get(cell, ()) if life.older else ()
            for at, value in enumerate(older):
                # The first of equal values leaves the most to later loads.
                if value not in older[:at]:
                    yield value, _put(lives, i, life.seeing_no_older(cell, older[at:])), memory
            if memory[cell] not in older:
                yield memory[cell], _put(lives, i, life.seeing_no_older(cell) if older else life), memory
        elif kind == "barrier":
            if not life.buffer:
                yield None, _put(lives, i, life.ordered()), memory
        elif kind == "barrier everywhere":
            assert self._fences
            made = [len(other.buffer) - other.tentative for other in lives]
            if not life.buffer and not any(made):
                yield None, tuple(other.ordered() for other in lives), memory
        elif kind == "block for a while":
            if life.buffer:
                return
            if any(memory[cell] != value for cell, value in arguments[0]):
                yield True, lives, memory
            elif self._others_are_done(i, lives):
                yield False, _put(lives, i, life.ordered()), memory
        elif kind == "sleep":
            bell, quiet = arguments
            if life.buffer:
                return
            if not life.asleep:
                if memory[bell]:
                    yield True, lives, memory.after(bell, 0)
            elif self._may_be_too_long(quiet, lives, memory):
                if self._others_are_done(i, lives):
                    yield False, _put(lives, i, life.ordered()), memory
                else:
                    yield True, lives, memory
        elif kind == "listen":
            bells, quiet = arguments
            if life.buffer:
                return
            rung = tuple([bell for bell in bells if memory[bell]])
            if rung:
                yield rung, lives, memory
            elif self._may_be_too_long(quiet, lives, memory):
                if self._others_are_done(i, lives):
                    yield None, _put(lives, i, life.ordered()), memory
                else:
                    yield (), lives, memory
        elif kind == "drain":
            yield None, lives, memory.after(arguments[0], 0)
        elif kind == "ring":
            # The kernel takes locks, each a full barrier, before it looks for sleepers.
            if not life.buffer:
                woken = tuple(other.woken(arguments[0]) for other in lives)
                yield None, woken, memory if woken != lives else memory.after(arguments[0], 1)
        elif kind == "follow":
            if lives[arguments[0]].done:
                yield None, _put(lives, i, life.acquiring()), memory
        elif kind == "claim":
            if not memory[arguments[0]]:
                yield None, *self._change(i, arguments[0], i + 1, _put(lives, i, life.acquiring()), memory)
        elif kind == "release":
            if not life.buffer:
                yield None, *self._change(i, arguments[0], 0, lives, memory)

    @staticmethod
    def _may_be_too_long(
        quiet: tuple[tuple[Hashable, tuple[Any, ...]], ...], lives: _Lives, memory: _Memory
    ) -> bool:
        """Whether the bound on a sleep may end it."""
        # Who dies after its store rings for nobody.
        return all([memory[cell] in values for cell, values in quiet]) or any([each.dead for each in lives])

    @staticmethod
    def _others_are_done(i: int, lives: _Lives) -> bool:
        """Or can do nothing before this one is done."""
        return all(other.done or other.pending == ("follow", i) for j, other in enumerate(lives) if j != i)


def _put(lives: _Lives, i: int, life: _Life) -> _Lives:
    return (*lives[:i], life, *lives[i + 1 :])
