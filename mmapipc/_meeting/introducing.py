"""How clients come to a listener, any number of them at the same time.

The listener has the sender's role of its name, and a board in the memory of that
name: one word for each connection that it has made and nobody has come to yet,
0 where there is none.  A client looks at the board, claims the other end of one of
these connections (the kernel gives it to one of those who try), and is introduced:
it may send, close and end before the listener has noticed.

So nobody waits for long for a client that stops or dies on the way.  One that dies
before it has come leaves the connection to the next; one that is stopped loses it
to a new one after a second, and goes to another when it wakes.
"""

from __future__ import annotations

import math
import os

from .._ring import layout, states
from .._system import RECEIVER, SENDER, Place, system
from .._system.claims import Claiming
from ..errors import ChannelTimeout, LayoutError, RoleTaken
from . import pairing, rendezvous, together
from .homes import InMemory, sweep_connections
from .link import SendingLink
from .pairing import Pair
from .waiting import CLOCK, Clock, until

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from .._system.contract import Claim

_WORD = 8  # bytes
# Stands in the header where a file has its owner: this memory is a board.
_MARK = int.from_bytes(b"listener", "big")
_LONGEST_BOARD = 1 << 16  # words
_COMING = 1.0  # seconds that a client may take from the claim until it has come


class _Board(InMemory):
    """The memory of a listener's name."""

    owner = _MARK

    def claim(self, role: str) -> Claim | None:
        try:
            return super().claim(role)
        except RoleTaken:
            raise RoleTaken(
                f"{self.name}: the name is taken (pid {self.claiming.rival}); "
                "end that process, or use another name"
            ) from None


class Invitations:
    """A listener's end: `count` connections that clients may come to, kept up as they do."""

    def __init__(
        self, name: str, capacity: int, count: int, timeout: float | None, clock: Clock = CLOCK
    ) -> None:
        self.name = name
        self._capacity = capacity
        self._clock = clock
        self._pairs: list[Pair | None] = [None] * min(count, _LONGEST_BOARD)
        self._coming: dict[Pair, float] = {}  # those that were seen claimed, and since when
        self._link = SendingLink(_Board(name), timeout, clock)
        rendezvous.open(rendezvous.Beginning(self._link, _WORD * len(self._pairs)))
        try:
            assert self._link.mapped is not None
            self._words = self._link.mapped.data.cast("Q")
            sweep_connections(name)
            self._invite()
        except BaseException:
            self.close()
            raise

    def _invite(self) -> None:
        """Make connections where there are too few."""
        for number, pair in enumerate(self._pairs):
            if pair is None:
                self._make(number)

    def _make(self, number: int) -> None:
        """Make a new connection, which the board tells of."""
        word = int.from_bytes(os.urandom(_WORD), "little") | 1
        place = _place(self.name, word)
        claim = Claiming(system.channel_roles(place)).attempt(SENDER)
        assert claim is not None  # nobody else has the name
        pair = Pair(place, SENDER, self._link.timeout, self._clock)
        try:
            memory = pairing.make(place, (self._capacity, self._capacity))
        except BaseException:
            claim.release()
            raise
        try:
            pair.enter(memory, claim)
            pair.invites = True
            # Before the word, as `close` lets go of the words before it looks at the pairs: another thread
            # that closes either finds this one, or the word cannot be stored.
            self._pairs[number] = pair
            # ORDER: all of that before the word.  Pairs with `invited`, which maps it after.
            self._link.home.order()
            self._words[number] = word
        except BaseException:
            self._pairs[number] = None
            pair.give_up()
            raise
        finally:
            memory.close()

    def accept(self, timeout: float | None) -> Pair:
        """The end of a connection to which a client has come.  Raises ChannelTimeout, MemoryRefused."""
        end = math.inf if timeout is None else self._clock.now() + timeout
        while True:
            self._invite()
            waiting = {pair.incoming: pair for pair in self._pairs if pair is not None}
            left = max(0.0, end - self._clock.now())
            news, _ = together.wait(list(waiting), (), min(left, _COMING), self._clock)
            if news:
                pair = next(pair for link, pair in waiting.items() if link is news[0])
                self._withdraw(pair)
                pair.invites = False
                pair.unname_if_complete()
                return pair
            self._withdraw_stopped()
            if left <= _COMING:
                raise ChannelTimeout(
                    f"{self.name}: no client came within {timeout:g} s; start one or wait longer"
                )

    def _withdraw(self, pair: Pair) -> None:
        number = self._pairs.index(pair)
        self._words[number] = 0
        self._pairs[number] = None
        self._coming.pop(pair, None)

    def _withdraw_stopped(self) -> None:
        """Give up connections of which a client has claimed an end a while ago, and then stopped or died."""
        now = self._clock.now()
        claimed = [pair for pair in self._pairs if pair is not None and pair.is_claimed()]
        self._coming = {pair: self._coming.get(pair, now) for pair in claimed}
        for pair, since in list(self._coming.items()):
            if now - since >= _COMING / 2 and not pair.has_come():
                self._withdraw(pair)
                pair.give_up()

    def prepare(self) -> None:
        """Let the next client come, if there is room for it now; `accept` says if there is not."""
        try:
            self._invite()
        except (OSError, ValueError):  # or it is closed by now
            pass

    def dismiss(self, reason: str) -> None:
        """Let a thread that waits in `accept` raise ValueError."""
        for pair in self._pairs:
            if pair is not None:
                pair.incoming.waiter.dismiss(reason)

    def close(self) -> None:
        """Give the name back; who has come and was not accepted is told that this end gave up."""
        try:
            if self._link.is_joined:
                self._link.half.abort()
            if hasattr(self, "_words"):
                self._words.release()
            for pair in self._pairs:
                if pair is not None:
                    pair.give_up()
        finally:
            self._link.leave(f"{self.name}: the listener is closed")

    def disown(self, reason: str) -> None:
        """In a forked child."""
        for pair in self._pairs:
            if pair is not None:
                pair.disown(reason)
        if hasattr(self, "_words"):
            self._words.release()
        self._link.disown(reason)


def _place(name: str, word: int) -> Place:
    return Place(name, system.place(name).of(f"{word:016x}"))


def invited(name: str, timeout: float | None, clock: Clock = CLOCK) -> Pair:
    """The other end of a connection of the listener of that name.  Raises ChannelTimeout, LayoutError."""
    home = _Board(name)
    pair = until(lambda: _come(home, timeout, clock), timeout, clock)
    if pair is None:
        if _words(home):
            raise ChannelTimeout(f"{name}: the listener accepted nobody within {timeout:g} s; wait longer")
        raise ChannelTimeout(f"{name}: no listener came within {timeout:g} s; start one or wait longer")
    return pair


def _come(home: _Board, timeout: float | None, clock: Clock) -> Pair | None:
    words = _words(home)
    # Those who come together do not all try for the same one first.
    first = os.urandom(1)[0] % len(words) if words else 0
    for word in words[first:] + words[:first]:
        pair = _enter(_place(home.name, word), timeout, clock)
        if pair is not None:
            return pair
    return None


def _enter(place: Place, timeout: float | None, clock: Clock) -> Pair | None:
    """The end at that place; None when another client has it, or it is gone."""
    memory = system.open_existing(place)
    if memory is None:
        return None
    try:
        try:
            claim = Claiming(system.channel_roles(place)).attempt(RECEIVER)
        except RoleTaken:
            return None
        if claim is None:
            return None
        pair = Pair(place, RECEIVER, timeout, clock)
        if not pair.enter(memory, claim):
            return None
        # The listener may sleep.
        pair.outgoing.hail()
        if not pair.is_wanted():
            pair.give_up()  # it was withdrawn meanwhile
            return None
        return pair
    finally:
        memory.close()


def _words(home: _Board) -> list[int]:
    """What the board says; nothing when there is no living listener."""
    if home.roles.holder(SENDER) is None:
        return []
    memory = home.observe()
    if memory is None:
        return []
    try:
        if not memory.has(layout.HEADER_SIZE):
            return []
        with memory.look(layout.HEADER_SIZE) as octets, octets.cast("Q") as words:
            header = states.load_header(words, home.name, home.order)
            if header is None or layout.load_sender_state(words, home.name) != layout.OPEN:
                return []
        if header.owner != _MARK:
            raise LayoutError(
                f"{home.name}: the name belongs to a channel, not to a listener; "
                "use mmapipc.Receiver, or the name of a listener"
            )
        size = layout.HEADER_SIZE + header.capacity
        if header.capacity % _WORD or header.capacity > _WORD * _LONGEST_BOARD or not memory.has(size):
            raise layout.damaged(home.name, f"a board of {header.capacity} bytes")
        with memory.look(size) as octets, octets.cast("Q") as words:
            return [word for word in words[layout.HEADER_SIZE // _WORD :] if word]
    finally:
        memory.close()
