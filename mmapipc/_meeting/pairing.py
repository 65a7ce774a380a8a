"""One end of a connection: two rings in one memory, one for each direction, and a role for both.

    +----------+--------------+----------+--------------+
    |  header  |  first ring  |  header  | second ring  |
    +----------+--------------+----------+--------------+
       its sender has the          its sender has the
       sender's role               receiver's role

Whoever makes the memory begins both streams.  An end enters as the sender of the
one and attaches to the other, at once or later; the pid of a sender, which is 0
until then, says whether it has come.  Once both ends have, nobody else can, so
the names go: killed processes leave nothing behind.
"""

from __future__ import annotations

import contextlib
import os

from .._ring import layout, states
from .._ring.messages import MessageConsumer, MessageProducer
from .._ring.states import Verdict
from .._system import PEER, RECEIVER, SENDER, Place, system
from .._system.claims import Claiming
from ..errors import (
    ChannelError,
    ChannelTimeout,
    LayoutError,
    ReceiverGone,
    ReceiverLeft,
    RoleTaken,
    SenderDied,
    StreamAborted,
)
from .homes import Home
from .link import Link, ReceivingLink, SendingLink
from .waiting import CLOCK, Clock, until

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Sequence

    from .._system.contract import Bells, Claim, Keep, Memory

ROLES = (SENDER, RECEIVER)  # of the end that sends in the first ring, in the second
_PAGE = layout.HEADER_SIZE


def _starts(capacities: Sequence[int]) -> tuple[int, int, int]:
    """Where the first ring's header is, where the second's, and where the memory ends."""
    second = -(-(_PAGE + capacities[0]) // _PAGE) * _PAGE
    return 0, second, second + _PAGE + capacities[1]


def claimed(place: Place, role: str) -> Claim:
    """The role of an end, also if others tidy up, or look, just now.  Raises RoleTaken, MemoryRefused."""
    claiming = Claiming(system.channel_roles(place))
    claim = until(lambda: claiming.attempt(role), None, CLOCK)
    assert claim is not None
    return claim


def make(place: Place, capacities: Sequence[int]) -> Memory:
    """Make the memory of a connection, with both streams begun.  The caller keeps an end, or has a role."""
    starts = _starts(capacities)
    memory = system.create(place, starts[2])
    try:
        home = Home(place.name)
        with memory.map(starts[2]) as mapping, memoryview(mapping) as whole:
            for start, capacity in zip(starts, capacities):
                with whole[start : start + _PAGE] as octets, octets.cast("Q") as words:
                    stream_id = int.from_bytes(os.urandom(8), "little")
                    states.begin(words, layout.Header(capacity, stream_id, False), 0, home.order)
    except BaseException:
        memory.close()
        raise
    return memory


class _Part:
    """One of the rings as a link has it."""

    def __init__(self, whole: memoryview, start: int, capacity: int) -> None:
        self.words = whole[start : start + _PAGE].cast("Q")
        self.data = whole[start + _PAGE : start + _PAGE + capacity]

    def close(self) -> None:
        """Let go of the views; the memory is the pair's."""
        self.words.release()
        self.data.release()


class _PartOfClaim:
    """The claim of an end as one of its two links has it: the end gives it back."""

    def __init__(self, claim: Claim, ring: int) -> None:
        self._claim = claim
        self._ring = ring

    def bells(self) -> Bells | None:
        return self._claim.bells(self._ring)

    def release(self, *, memory: bool = True) -> None:
        pass


class Outgoing(SendingLink):
    """What an end sends."""

    half: MessageProducer

    def __init__(self, pair: Pair, timeout: float | None, clock: Clock) -> None:
        super().__init__(pair, timeout, clock)  # type: ignore[arg-type]  # of a home it takes the order only
        self.pair = pair

    def join(self) -> None:
        """Make the half for the ring that is mapped."""
        self.half = self._join(MessageProducer)

    def peer_lives(self) -> bool:
        return self.pair.lives_for(self)

    def look(self, probe: bool) -> Verdict | None:
        # There is no file that could be removed, and nobody to be told of receivers.
        return Link.look(self, probe)

    def check_peer(self) -> None:
        """Now and then raise if the other end is gone, which may be before the ring is full."""
        if self.waiter.probe_is_due():
            self.raise_if_gone()

    def finish(self) -> None:
        """Mark the end, without waiting; of a message that was cut short, that this end gave up."""
        if self.half.is_cut:
            self.abort()
        else:
            self.half.finish()
            self.hail()

    def raise_unless_fine(self, verdict: Verdict | None, timeout: float | None) -> None:
        if verdict in (Verdict.READY, Verdict.END):
            return
        if verdict is None:
            raise ChannelTimeout(
                f"{self.name}: the other end received nothing for {timeout:g} s, so the message was not sent"
            )
        if verdict is Verdict.LEFT:
            raise ReceiverLeft(f"{self.name}: the other end has closed the connection")
        raise ReceiverGone(f"{self.name}: {self.pair.death()}")


class Incoming(ReceivingLink):
    """What it gets."""

    half: MessageConsumer

    def __init__(self, pair: Pair, timeout: float | None, clock: Clock) -> None:
        super().__init__(pair, timeout, clock)  # type: ignore[arg-type]  # as above
        self.pair = pair

    def join(self) -> None:
        """Make the half for the ring that is mapped."""
        self.half = self._join(MessageConsumer)

    def peer_lives(self) -> bool:
        return self.pair.lives_for(self)

    def has_news(self, probe: bool) -> bool:
        if not self.pair.invites:
            return super().has_news(probe)
        try:
            return self.pair.has_come()
        except LayoutError:  # who accepts meets it again
            return True

    def raise_unless_fine(self, verdict: Verdict | None, timeout: float | None) -> None:
        if verdict in (Verdict.READY, Verdict.END):
            return
        if verdict is None:
            raise ChannelTimeout(f"{self.name}: the other end sent nothing for {timeout:g} s")
        if verdict is Verdict.GAVE_UP:
            raise StreamAborted(
                f"{self.name}: the other end gave up in the middle of a message, "
                "or before the connection was accepted"
            )
        raise SenderDied(f"{self.name}: {self.pair.death()}")


class Pair(Home):
    """An end of a connection, in use by this process.

    `invites` as long as it is a listener's that waits for somebody to come.
    """

    kept = False
    invites = False

    def __init__(self, place: Place, role: str, timeout: float | None, clock: Clock = CLOCK) -> None:
        super().__init__(place.name)
        self.role = role
        self.place = place
        self.claim: Claim | None = None
        self._mapping: mmap.mmap | None = None
        self.outgoing = Outgoing(self, timeout, clock)
        self.incoming = Incoming(self, timeout, clock)
        self.incoming.seeing = self.outgoing.seeing  # on POSIX the two ring and close the same bells

    @property
    def links(self) -> tuple[Outgoing, Incoming]:
        """Both."""
        return self.outgoing, self.incoming

    def enter(self, memory: Memory, claim: Claim) -> bool:
        """Become this end, whose role was taken; False, and nothing is taken, when somebody has been it."""
        self.claim = claim
        try:
            entered = self._enter(memory, claim)
        except BaseException:
            self.leave("")
            raise
        if not entered:
            self.leave("")
        return entered

    def _enter(self, memory: Memory, claim: Claim) -> bool:
        capacities = self._capacities(memory)
        starts = _starts(capacities)
        self._mapping = memory.map(starts[2])
        own = ROLES.index(self.role)
        with memoryview(self._mapping) as whole:
            for link, ring in ((self.outgoing, own), (self.incoming, 1 - own)):
                link.mapped = _Part(whole, starts[ring], capacities[ring])  # type: ignore[assignment]
                link.claim = _PartOfClaim(claim, ring)  # type: ignore[assignment]
        assert self.outgoing.mapped is not None and self.incoming.mapped is not None
        sending, receiving = self.outgoing.mapped.words, self.incoming.mapped.words
        if self._sender(sending) or layout.load_receiver_state(receiving, self.name) != layout.ABSENT:
            return False
        for link in self.links:
            link.join()
        pid = os.getpid()
        states.enter(sending, pid)
        states.attach(receiving, pid, self.name, self.order)
        # ORDER: that this end has come before the look whether the other has: one of the two sees it of both.
        self.barrier()
        self.unname_if_complete()
        return True

    def _capacities(self, memory: Memory) -> list[int]:
        """Those of the two rings, which fit the memory's size."""
        capacities: list[int] = []
        size = start = 0
        for _ in ROLES:
            if not memory.has(start + _PAGE):
                raise layout.damaged(self.name, "it is too small for a connection")
            with memory.map(start + _PAGE) as mapping, memoryview(mapping) as whole:
                with whole[start:] as octets, octets.cast("Q") as words:
                    header = states.load_header(words, self.name, self.order)
            if header is None or header.capacity % 8 or header.capacity > layout.LARGEST_CAPACITY:
                raise layout.damaged(self.name, "no connection")
            capacities.append(header.capacity)
            _, start, size = _starts((*capacities, 0)[:2])
        if not memory.fits(size):
            raise layout.damaged(self.name, f"capacities {capacities} do not fit its size")
        return capacities

    def _sender(self, words: memoryview) -> int:
        return layout.load_pids(words, self.name)[0]

    def has_come(self) -> bool:
        """Whether the other end has ever been used."""
        assert self.outgoing.mapped is not None
        return layout.load_receiver_state(self.outgoing.mapped.words, self.name) != layout.ABSENT

    def is_claimed(self) -> bool:
        """Whether a process has the other end's role, or had it and died after it had entered."""
        assert self.claim is not None and self.incoming.mapped is not None
        held = self.claim.holder(PEER[self.role]) is not None
        return held or self._sender(self.incoming.mapped.words) != 0

    def is_wanted(self) -> bool:
        """Whether the other end has not given up."""
        assert self.incoming.mapped is not None
        return layout.load_sender_state(self.incoming.mapped.words, self.name) != layout.ABORTED

    def check(self) -> None:
        """LayoutError when the memory is not one that the other end could become a part of."""
        for link in self.links:
            assert link.mapped is not None
            words, capacity = link.mapped.words, link.half.capacity
            header = states.load_header(words, self.name, self.order)
            if header is None or header.capacity != capacity:
                raise layout.damaged(self.name, "no connection")
            layout.load_sequences(words, capacity, self.name)
            layout.load_sender_state(words, self.name)
            layout.load_receiver_state(words, self.name)
            layout.load_receivers(words, self.name)
            layout.load_pids(words, self.name)

    def unname_if_complete(self) -> None:
        """Take the names away if both ends have come."""
        if self.has_come():
            assert self.claim is not None
            self.claim.unname()

    def lives_for(self, link: Link) -> bool:
        """`peer_lives`; let the link sleep by its bells only if the other end has them too, and watch it."""
        assert self.incoming.mapped is not None
        lives = self.peer_lives()
        pid = self._sender(self.incoming.mapped.words)
        if lives and pid:
            if link.bells is not None:
                link.waiter.use(link.bells if link.bells.are_shared() else None, link.timeout)
            link.waiter.watch(pid)
        return lives

    def peer_lives(self) -> bool:
        """Whether the process at the other end has its role still, or somebody can still come."""
        assert self.claim is not None and self.incoming.mapped is not None
        pid = self._sender(self.incoming.mapped.words)
        if pid:
            return self.claim.holder(PEER[self.role]) == pid
        # Who comes takes the role before it lets go of what it kept.
        return self.claim.is_kept(PEER[self.role]) or self.is_claimed()

    def death(self) -> str:
        """How the other end has gone, in words."""
        assert self.incoming.mapped is not None
        pid = self._sender(self.incoming.mapped.words)
        if not pid:
            return "the other end was never used, and no process has it any more"
        return f"the process at the other end (pid {pid}) was killed, or ended without closing the connection"

    def close(self) -> None:
        """Say that nothing more comes, and that nothing more is wanted; give everything back."""
        reason = f"{self.name}: the connection is closed"
        try:
            try:  # at once: an exception between the two would leave without a mark
                self._mark_closed(reason)
            except BaseException:  # of a signal handler, perhaps before all was stored
                self._mark_closed(reason)
                raise
        finally:
            self.leave(reason)

    def _mark_closed(self, reason: str) -> None:
        if all(link.is_joined for link in self.links):
            self.outgoing.half.shut(reason)
            try:
                self.outgoing.finish()
            finally:
                self.incoming.close()

    def give_up(self) -> None:
        """Say that this end is not to be used; give everything back, also the names, whoever is coming."""
        try:
            for link in self.links:
                if link.is_joined:
                    link.abort()
            if self.claim is not None:
                self.claim.unname()
        finally:
            self.leave(f"{self.name}: the connection is closed")

    def leave(self, reason: str) -> None:
        """Give everything back.  What the other end is to know was stored before."""
        try:
            # Before the halves are shut, which would look to a thread that waits as if the counter had moved.
            for link in self.links:
                if link.is_joined:
                    link.dismiss(reason)
            for link in self.links:
                link.leave(reason)
        finally:
            claim, self.claim = self.claim, None
            mapping, self._mapping = self._mapping, None
            try:
                if mapping is not None:
                    with contextlib.suppress(BufferError):
                        mapping.close()
            finally:
                if claim is not None:
                    claim.release()

    def disown(self, reason: str) -> None:
        """In a forked child: let go of everything without a word to the other end."""
        for link in self.links:
            link.disown(reason)
        if self._mapping is not None:
            with contextlib.suppress(BufferError):
                self._mapping.close()
        self.claim = self._mapping = None


class Kept:
    """An end that nobody uses yet: forked children have copies, and it can be pickled for a new process."""

    def __init__(self, place: Place, role: str, keep: Keep) -> None:
        self.place = place
        self.role = role
        self.keep: Keep | None = keep

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.place.name, self.place.location, self.role, self.keep)

    def use(self, timeout: float | None, own: Callable[[Pair], object]) -> None:
        """Let `own` have the end, for this process alone.  RoleTaken when another process was first."""
        place = self.place
        try:
            claim = claimed(place, self.role)
        except RoleTaken:
            raise self._taken() from None
        pair = Pair(place, self.role, timeout)
        try:
            memory = system.open_existing(place)
        except BaseException:
            claim.release()
            raise
        if memory is None:
            claim.release()
            raise self._taken()
        try:
            if not pair.enter(memory, claim):
                raise self._taken()
            own(pair)
        except BaseException:
            if pair.outgoing.is_joined:  # of a signal handler: it is in use all the same
                own(pair)
            else:
                pair.leave("")
            raise
        finally:
            memory.close()
        self.let_go()

    def _taken(self) -> RoleTaken:
        return RoleTaken(
            f"{self.place.name}: another process uses, or has used, this end of the connection; "
            "an end belongs to the process that first uses it"
        )

    def let_go(self) -> None:
        """Keep it no longer."""
        keep, self.keep = self.keep, None
        if keep is not None:
            keep.close()

    def close(self) -> None:
        """Keep it no longer; the last who does tells the other end that nothing comes."""
        if self.keep is None:
            return
        self.let_go()
        roles = system.channel_roles(self.place)
        with contextlib.suppress(ChannelError):
            if roles.exists() and not roles.is_kept(self.role):
                self.use(None, Pair.close)


def _restored(name: str, location: str, role: str, keep: Keep) -> Kept:
    return Kept(Place(name, location), role, keep)


def pipes() -> Place:
    """What the places of all pipes begin with.  Nothing else has it, as `+` is in no encoded name."""
    place = system.place("pipe")
    return Place(place.name, place.of(""))


def pipe(capacities: Sequence[int]) -> tuple[Kept, Kept]:
    """Both ends of a new connection, which anybody may use who gets them."""
    beginning = pipes()
    place = Place(beginning.name, beginning.of(os.urandom(8).hex()))
    roles = system.channel_roles(place)
    kept: list[Kept] = []
    try:
        for role in ROLES:
            kept.append(Kept(place, role, roles.keep(role)))
        memory = make(place, capacities)
        try:
            for end in kept:
                assert end.keep is not None
                end.keep.hold(place)
        finally:
            memory.close()
    except BaseException:
        for end in kept:
            end.let_go()
        roles.sweep()
        raise
    return kept[0], kept[1]
