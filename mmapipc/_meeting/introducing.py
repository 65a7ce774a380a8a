"""How clients come to a listener, any number of them at the same time.

The listener has the sender's role of its name, and a board in the memory of that
name: one word for each connection that it has made and nobody has come to yet,
0 where there is none.  A client looks at the board, claims the other end of one of
these connections (the kernel gives it to one of those who try), and is introduced:
it may send, close and end before the listener has noticed.

So nobody waits for long for a client that stops or dies on the way.  One that dies
before it has come leaves the connection to the next; in the place of one that is
stopped there is a new one after a second, and it is accepted all the same when it
comes.
"""

from __future__ import annotations

import contextlib
import math
import os

from .._ring import layout, states
from .._system import RECEIVER, SENDER, Place, system
from .._system.claims import Claiming
from ..errors import ChannelError, ChannelTimeout, LayoutError, RoleTaken
from . import pairing, rendezvous, together
from .homes import InMemory, sweep_connections
from .link import SendingLink
from .pairing import Pair
from .waiting import CLOCK, Clock, until

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable

_WORD = 8  # bytes
# Stands in the header where a file has its owner: this memory is a board.
_MARK = int.from_bytes(b"listener", "big")
_LONGEST_BOARD = 1 << 16  # words
_COMING = 1.0  # seconds that a client may take from the claim until it has come


class _Board(InMemory):
    """The memory of a listener's name."""

    owner = _MARK


class Invitations:
    """A listener's end: `count` connections that clients may come to, kept up as they do."""

    def __init__(
        self, name: str, capacity: int, count: int, timeout: float | None, clock: Clock = CLOCK
    ) -> None:
        self.name = name
        self._capacity = capacity
        self._clock = clock
        self._count = min(count, _LONGEST_BOARD)
        # Those to which nobody has come yet, or who came was not accepted; and where the board has each.
        # The oldest is the first: so nobody is overtaken again and again.
        self._pairs: dict[Pair, int | None] = {}
        self._coming: dict[Pair, float] = {}  # those that were seen claimed, and since when
        self._board = _Board(name)
        self._link = SendingLink(self._board, timeout, clock)

    def open(self) -> None:
        """Take the name.  Raises RoleTaken, and what a sender raises."""
        try:
            rendezvous.open(rendezvous.Beginning(self._link, _WORD * self._count))
            assert self._link.mapped is not None
            self._words = self._link.mapped.data.cast("Q")
            sweep_connections(self._board.place)
            self._invite()
        except RoleTaken:
            with contextlib.suppress(LayoutError):  # it is a channel's, and the error says so
                if _words(self._board) is not None:
                    pid = self._board.claiming.rival
                    raise RoleTaken(
                        f"{self.name}: another listener has this address (pid {pid}); "
                        "use another address, or close that listener"
                    ) from None
            raise
        except BaseException:
            self.close(f"{self.name}: the listener is closed")
            raise

    def _invite(self) -> None:
        """Make connections where there are too few."""
        for pair in list(self._pairs):
            if pair.claim is None:  # an exception came as it was handed over, or dropped
                self._forget(pair)
        for number in set(range(self._count)).difference(self._pairs.values()):
            self._make(number)

    def _make(self, number: int) -> None:
        """Make a new connection, which the board tells of."""
        word = int.from_bytes(os.urandom(_WORD), "little") | 1
        place = _place(self.name, word)
        claim = pairing.claimed(place, SENDER)
        pair = Pair(place, SENDER, self._link.timeout, self._clock)
        try:
            memory = pairing.make(place, (self._capacity, self._capacity))
        except BaseException:
            claim.release()
            raise
        try:
            with contextlib.closing(memory):  # before all else: as long as it is open, it cannot be removed
                entered = pair.enter(memory, claim)
            if not entered:
                raise layout.damaged(self.name, "somebody has come to a connection that nobody was told of")
            pair.invites = True
            # Before the word, as `close` lets go of the words before it looks at the pairs: another thread
            # that closes either finds this one, or the word cannot be stored.
            self._pairs[pair] = number
            # ORDER: all of that before the word.  Pairs with `invited`, which maps it after.
            self._link.home.order()
            self._words[number] = word
        except BaseException:
            self._pairs.pop(pair, None)
            pair.give_up()
            raise

    def accept(self, timeout: float | None, own: Callable[[Pair], object]) -> None:
        """Let `own` have the end of a connection to which a client has come.

        Raises ChannelTimeout, MemoryRefused.
        """
        end = math.inf if timeout is None else self._clock.now() + timeout
        while True:
            self._invite()
            waiting = {pair.incoming: pair for pair in list(self._pairs)}
            left = max(0.0, end - self._clock.now())
            news, _ = together.wait(list(waiting), (), min(left, _COMING), self._clock)
            for pair in (waiting[link] for link in news):  # type: ignore[index]
                try:
                    pair.unname_if_complete()
                except LayoutError:
                    self._drop(pair)
                else:
                    self._hand_over(pair, own)
                    return
            if not news:
                self._look_around()
                if left <= _COMING:
                    raise ChannelTimeout(
                        f"{self.name}: no client came within {timeout:g} s; start one or wait longer"
                    )

    def _hand_over(self, pair: Pair, own: Callable[[Pair], object]) -> None:
        try:
            self._forget(pair)
            pair.invites = False
            own(pair)
        except KeyError:
            raise ValueError(f"{self.name}: another thread has closed the listener") from None
        except BaseException:
            pair.give_up()
            raise

    def _withdraw(self, pair: Pair) -> None:
        """Take it off the board."""
        number = self._pairs[pair]
        if number is not None:
            self._words[number] = 0
            self._pairs[pair] = None

    def _forget(self, pair: Pair) -> None:
        self._withdraw(pair)
        self._coming.pop(pair, None)
        del self._pairs[pair]

    def _drop(self, pair: Pair) -> None:
        """Give one up whose memory is damaged."""
        pair.give_up()
        self._forget(pair)

    def _look_around(self) -> None:
        """Make room on the board: take off what clients block that are stopped or dead, or that lie."""
        now = self._clock.now()
        for pair, number in list(self._pairs.items()):
            try:
                pair.check()
                if pair.has_come():
                    continue  # there is news
                if number is None:
                    self._give_up_if_deserted(pair)
                elif not pair.is_claimed():
                    self._coming.pop(pair, None)
                elif now - self._coming.setdefault(pair, now) >= _COMING / 2:
                    # It may come still, and is accepted then.
                    self._withdraw(pair)
            except LayoutError:
                self._drop(pair)

    def _give_up_if_deserted(self, pair: Pair) -> None:
        """Give up one that is off the board, if who was about to come is gone."""
        claim = None
        with contextlib.suppress(ChannelError):  # RoleTaken, most often
            claim = Claiming(system.channel_roles(pair.place)).attempt(RECEIVER)
        if claim is not None:  # so nobody else can come any more
            try:
                if not pair.has_come():
                    self._drop(pair)
            finally:
                claim.release()

    def prepare(self) -> None:
        """Let the next client come, if there is room for it now; `accept` says if there is not."""
        try:
            self._invite()
        except (OSError, ValueError, KeyError):  # or another thread closes it by now
            pass

    def close(self, reason: str) -> None:
        """Give the name back; who has come and was not accepted is told that this end gave up.

        A thread that waits in `accept` raises ValueError.
        """
        try:
            for pair in list(self._pairs):
                pair.incoming.dismiss(reason)
            if self._link.is_joined:
                self._link.half.abort()
            if hasattr(self, "_words"):
                self._words.release()
            for pair in list(self._pairs):
                try:
                    del self._pairs[pair]
                    pair.give_up()
                except KeyError:  # a thread that accepts has just taken it
                    pass
                except BaseException:  # of a signal handler, perhaps between the two
                    pair.give_up()
                    raise
        finally:
            self._link.leave(reason)

    def disown(self, reason: str) -> None:
        """In a forked child."""
        for pair in self._pairs:
            pair.disown(reason)
        if hasattr(self, "_words"):
            self._words.release()
        self._link.disown(reason)


def _place(name: str, word: int) -> Place:
    return Place(name, system.place(name).of(f"{word:016x}"))


def invited(
    name: str, timeout: float | None, own: Callable[[Pair], object], clock: Clock = CLOCK
) -> None:
    """Come to the listener of that name.  Raises ChannelTimeout, LayoutError.

    `own` is given each end that may become this client's, before it does; the last of them is it.
    """
    home = _Board(name)
    if not until(lambda: _come(home, timeout, own, clock), timeout, clock):
        if _words(home) is None:
            raise ChannelTimeout(f"{name}: no listener came within {timeout:g} s; start one or wait longer")
        raise ChannelTimeout(f"{name}: the listener accepted nobody within {timeout:g} s; wait longer")


def _come(home: _Board, timeout: float | None, own: Callable[[Pair], object], clock: Clock) -> bool | None:
    words = _words(home) or []
    # Those who come together do not all try for the same one first.
    first = os.urandom(1)[0] % len(words) if words else 0
    for word in words[first:] + words[:first]:
        if _enter(_place(home.name, word), timeout, own, clock):
            return True
    return None


def _enter(place: Place, timeout: float | None, own: Callable[[Pair], object], clock: Clock) -> bool:
    """Become the end at that place; False when another client has it, or it is gone or damaged."""
    memory = system.open_existing(place)
    if memory is None:
        return False
    try:
        try:
            claim = Claiming(system.channel_roles(place)).attempt(RECEIVER)
        except RoleTaken:
            return False
        if claim is None:
            return False
        pair = Pair(place, RECEIVER, timeout, clock)
        own(pair)
        wanted = False
        with contextlib.suppress(LayoutError):  # the listener makes another
            if pair.enter(memory, claim):
                pair.outgoing.hail()  # the listener may sleep
                # Or it has closed, or was killed, while this process was stopped.
                wanted = pair.is_wanted() and pair.peer_lives()
        if not wanted:
            pair.give_up()
        return wanted
    finally:
        memory.close()


def _words(home: _Board) -> list[int] | None:
    """What the board says; None when there is no living listener.  LayoutError when it is no listener's."""
    if home.roles.holder(SENDER) is None:
        return None
    memory = home.observe()
    if memory is None:
        return None
    try:
        if not memory.has(layout.HEADER_SIZE):
            return None
        with memory.look(layout.HEADER_SIZE) as octets, octets.cast("Q") as words:
            header = states.load_header(words, home.name, home.order)
            if header is None or layout.load_sender_state(words, home.name) != layout.OPEN:
                return None
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
