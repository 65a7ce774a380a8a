"""Every schedule of a few actors over shared memory, in the style of Rust's `loom`.

An actor is a function that gets a `Machine` and runs real code on the memory
objects that it has.  Each load, store, barrier and system call is one step,
and `explore` runs the steps of all actors in every order there is.  Python
cannot stop a function in the middle, so a step is found by running the actor
again from its start with the answers that it got so far; what it asks for
next is remembered, so that each history runs once.

Stores go through a store buffer for each actor, which empties into memory at
any time: in order ("tso", as x86 does), or in any order that keeps the stores
to one cell ("weak"; loads are not reordered).  An actor that may die does so
at each of its steps; what is in its buffer still reaches memory, and then the
kernel takes its claim.

Two schedules that lead to the same memory, buffers and histories have the same
future, so that state is explored once; a `checkpoint` makes more histories one.  `Exploration.schedules` counts all the
schedules that were covered in this way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

_BUFFER = 6  # stores that a processor holds back at most

Step = tuple[Any, ...]
Actor = Callable[["Machine"], Any]

SENDER_CLAIM = "sender's claim"
RECEIVER_CLAIM = "receiver's claim"


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

    def step(self, *step: Any) -> Any:
        for answer in self._answers:
            return answer
        # What the actor does while it is being stopped (`finally`) does not count.
        self.pending = self.pending or step
        raise _Pause

    def load(self, cell: Hashable) -> Any:
        return self.step("load", cell)

    def store(self, cell: Hashable, value: Any) -> None:
        self.step("store", cell, value)

    def barrier(self) -> None:
        """Until the actor's own stores are in memory."""
        self.step("barrier")

    def barrier_everywhere(self) -> None:
        """Until the stores of all actors are."""
        self.step("barrier everywhere")

    def block(self, *seen: tuple[Hashable, Any]) -> None:
        """Until one of these cells has another value than the one seen."""
        self.step("block", seen)

    def block_for_a_while(self, *seen: tuple[Hashable, Any]) -> bool:
        """As `block`, but return False when all others are done and none has."""
        return bool(self.step("block for a while", seen))

    def sleep(self, cell: Hashable, expected: Any) -> bool:
        """A futex: return if the cell has another value, else sleep until `wake`.

        The bound on the sleep ends it only if the cell has not changed or an
        actor has died: any other change that nobody wakes for is to be found.
        Returns False when the others are all done.
        """
        return bool(self.step("sleep", cell, expected))

    def wake(self, cell: Hashable) -> None:
        self.step("wake", cell)

    def follow(self, actor: int) -> None:
        """Until that actor is done."""
        self.step("follow", actor)

    def claim(self, claim: str) -> None:
        """Until the claim is free; then it is this actor's until `release` or death."""
        self.step("claim", claim)

    def release(self, claim: str) -> None:
        self.step("release", claim)

    def stands(self, claim: str) -> bool:
        return bool(self.load(claim))

    def checkpoint(self, *local: Hashable) -> None:
        """Say that `local` is all that the actor's future depends on, whatever it loaded so far.

        Histories that come to the same checkpoint are one from there on.
        """
        self.step("checkpoint", (*local, bytes(self.output)))

    def words(self) -> Words:
        return Words(self)


class Words:
    """A header of 64-bit words."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getitem__(self, word: int) -> int:
        value = self._machine.load(word)
        assert isinstance(value, int)
        return value

    def __setitem__(self, word: int, value: int) -> None:
        self._machine.store(word, value)


class Readable:
    """The ring as a consumer sees it: a slice loads its bytes."""

    def __init__(self, machine: Machine, capacity: int) -> None:
        self._machine = machine
        self._capacity = capacity

    def __len__(self) -> int:
        return self._capacity

    def __getitem__(self, piece: slice) -> Snapshot:
        assert 0 <= piece.start <= piece.stop <= self._capacity
        return Snapshot(self._machine.load(("data", i)) for i in range(piece.start, piece.stop))


class Snapshot(bytes):
    """Loaded bytes, to be used as a view."""

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
            self._machine.store(("data", i), value)


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


class _Life(NamedTuple):
    """One actor within a state."""

    node: _Node
    buffer: tuple[tuple[Hashable, Any], ...] = ()
    asleep: bool = False
    dead: bool = False

    @property
    def done(self) -> bool:
        return self.dead or (self.node.pending is None and not self.buffer)


class Outcome(NamedTuple):
    """How a schedule ended, by actor."""

    results: tuple[Any, ...]  # what it returned, the exception, or None when it died
    outputs: tuple[bytes, ...]
    dead: tuple[bool, ...]
    memory: dict[Hashable, Any]


class Exploration:
    """Explores all schedules of `actors`; `deaths` are those that may die, one in each schedule.

    `check(memory)` is called in each state and `end(outcome)` for each
    schedule's end; both raise Violation.
    """

    def __init__(
        self,
        actors: list[Actor],
        *,
        order: str = "tso",
        deaths: tuple[int, ...] = (),
        memory: dict[Hashable, Any] | None = None,
        check: Callable[[dict[Hashable, Any]], None] = lambda memory: None,
        end: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self._order = order
        self._deaths = deaths
        self._check = check
        self._end = end
        self._roots = tuple(_Life(_Node(actor, [], {})) for actor in actors)
        self._initial = memory or {}
        self.states = 0
        self.schedules = 0

    def run(self) -> None:
        """Explore; raise Violation with the schedule that led to it."""
        start = (self._roots, self._freeze(self._initial))
        # Schedules from a state to the end, once all of its successors are known.
        counts: dict[Any, int] = {}
        before: dict[Any, list[Any]] = {start: []}
        ends: list[Any] = []
        path: list[tuple[Any, Iterator[tuple[str, Any]], list[Any]]] = []
        trail: list[str] = []

        def enter(state: Any) -> None:
            self.states += 1
            memory = dict(state[1])
            try:
                self._check(memory)
                steps = list(self._steps(state))
                if not steps:
                    self._finish(state, memory)
                    ends.append(state)
            except Violation as error:
                raise Violation(f"{error}\n" + "\n".join(trail)) from None
            path.append((state, iter(steps), []))

        enter(start)
        while path:
            state, steps, successors = path[-1]
            for label, successor in steps:
                successors.append(successor)
                if successor not in before:
                    before[successor] = [state]
                    trail.append(label)
                    enter(successor)
                    break
                before[successor].append(state)
            else:
                # A state that is still on the path is gone round to: no new schedule.
                counts[state] = sum(counts.get(s, 0) for s in successors) if successors else 1
                path.pop()
                if trail:
                    trail.pop()
        self.schedules = counts[start]
        self._check_that_all_can_end(before, ends)

    @staticmethod
    def _check_that_all_can_end(before: dict[Any, list[Any]], ends: list[Any]) -> None:
        """Raise Violation when a state leads round for ever and to no end."""
        reached = set(ends)
        while ends:
            for state in before[ends.pop()]:
                if state not in reached:
                    reached.add(state)
                    ends.append(state)
        for state in before:
            if state not in reached:
                raise Violation(f"no end: {[life.node.pending for life in state[0]]}")

    def _finish(self, state: Any, memory: dict[Hashable, Any]) -> None:
        lives = state[0]
        stuck = [i for i, life in enumerate(lives) if not life.done]
        if stuck:
            raise Violation(f"stuck: {[(i, lives[i].node.pending) for i in stuck]}")
        self._end(
            Outcome(
                tuple(None if life.dead else life.node.result for life in lives),
                tuple(life.node.output for life in lives),
                tuple(life.dead for life in lives),
                memory,
            )
        )

    @staticmethod
    def _freeze(memory: dict[Hashable, Any]) -> Any:
        return frozenset(memory.items())

    def _steps(self, state: Any) -> Iterator[tuple[str, Any]]:
        lives, frozen = state
        memory = dict(frozen)
        nobody_died = not any(life.dead for life in lives)

        def become(i: int, life: _Life, changed: dict[Hashable, Any] | None = None, others: Any = lives) -> Any:
            new = tuple(life if j == i else other for j, other in enumerate(others))
            return new, (frozen if changed is None else self._freeze(changed))

        moves: list[tuple[str, Any]] = []
        for i, life in enumerate(lives):
            if life.dead:
                continue
            if i in self._deaths and nobody_died and life.node.pending is not None:
                drained = {**memory, **dict(life.buffer)}
                for claim in (SENDER_CLAIM, RECEIVER_CLAIM):
                    if drained.get(claim) == i + 1:
                        drained[claim] = 0
                yield f"{i}: dies", become(i, _Life(life.node.grave(), dead=True), drained)
            pending = life.node.pending
            if pending and pending[0] == "store" and len(life.buffer) < _BUFFER:
                # Seen by nobody until it leaves the buffer: no need to try other orders.
                stored = life._replace(node=life.node.after(None), buffer=(*life.buffer, pending[1:]))
                yield f"{i}: {pending}", become(i, stored)
                return
        for i, life in enumerate(lives):
            if life.dead:
                continue
            for at, (cell, value) in enumerate(life.buffer):
                if any(earlier == cell for earlier, _ in life.buffer[:at]):
                    continue
                flushed = life._replace(buffer=life.buffer[:at] + life.buffer[at + 1 :])
                moves.append((f"{i}:   {cell} = {value} is in memory", become(i, flushed, {**memory, cell: value})))
                if self._order == "tso":
                    break
            if life.node.pending is not None:
                for answer, changed, others in self._answers(i, life, lives, memory):
                    moved = life._replace(node=life.node.after(answer), asleep=False)
                    moves.append((f"{i}: {life.node.pending} -> {answer}", become(i, moved, changed, others)))
                pending = life.node.pending
                if pending[0] == "sleep" and not life.asleep and memory.get(pending[1], 0) == pending[2]:
                    moves.append((f"{i}: {pending} begins", become(i, life._replace(asleep=True))))
        yield from moves

    def _answers(
        self, i: int, life: _Life, lives: tuple[_Life, ...], memory: dict[Hashable, Any]
    ) -> Iterator[tuple[Any, dict[Hashable, Any] | None, tuple[_Life, ...]]]:
        """The ways in which the pending step can be answered now: (answer, new memory, other actors)."""
        kind, *arguments = life.node.pending or ("",)
        if kind == "load":
            own = [value for cell, value in life.buffer if cell == arguments[0]]
            yield (own[-1] if own else memory.get(arguments[0], 0)), None, lives
        elif kind == "barrier":
            if not life.buffer:
                yield None, None, lives
        elif kind == "barrier everywhere":
            if not any(other.buffer for other in lives):
                yield None, None, lives
        elif kind == "block":
            if any(memory.get(cell, 0) != value for cell, value in arguments[0]):
                yield None, None, lives
        elif kind == "block for a while":
            if any(memory.get(cell, 0) != value for cell, value in arguments[0]):
                yield True, None, lives
            elif all(other.done for j, other in enumerate(lives) if j != i):
                yield False, None, lives
        elif kind == "sleep":
            unchanged = memory.get(arguments[0], 0) == arguments[1]
            # Who dies after its store wakes nobody: then the bound ends the sleep.
            if life.asleep == unchanged or any(other.dead for other in lives):
                yield not all(other.done for j, other in enumerate(lives) if j != i), None, lives
        elif kind == "wake" and not life.buffer:
            # The kernel has a full barrier before it looks for sleepers (futex/core.c).
            yield None, None, tuple(
                other._replace(node=other.node.after(True), asleep=False)
                if other.asleep and other.node.pending[1] == arguments[0]
                else other
                for other in lives
            )
        elif kind == "follow":
            if lives[arguments[0]].done:
                yield None, None, lives
        elif kind == "claim":
            if not memory.get(arguments[0]):
                yield None, {**memory, arguments[0]: i + 1}, lives
        elif kind == "release":
            if not life.buffer:
                yield None, {**memory, arguments[0]: 0}, lives
