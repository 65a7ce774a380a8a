"""How two ends find each other: a sender begins a stream, a receiver attaches to it.

Each takes its role first.  What a dead predecessor of the role left is settled
before anything else; see `states`.
"""

from __future__ import annotations

import contextlib
import os

from .._ring import layout, states
from ..errors import ChannelError, ChannelTimeout, LayoutError
from .link import ReceivingLink, SendingLink
from .waiting import until

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._system.contract import Memory


def begin(link: SendingLink, capacity: int) -> None:
    """Begin a stream, once no receiver is attached to an earlier one.  Raises ChannelTimeout."""
    beginning = _Beginning(link, capacity)
    with _undone(link):
        if not until(beginning.attempt, link.timeout, link.clock):
            raise ChannelTimeout(
                f"{link.name}: {beginning.obstacle} after {link.timeout:g} s; end it or wait longer"
            )
        link.join()


def attach(link: ReceivingLink) -> None:
    """Attach to a stream, once there is one that wants a receiver.  Raises ChannelTimeout."""
    with _undone(link):
        if not until(lambda: _attach(link), link.timeout, link.clock):
            rival = _rival(link)
            raise ChannelTimeout(
                f"{link.name}: {rival} after {link.timeout:g} s; end it or wait longer"
                if rival
                else f"{link.name}: no sender came for {link.timeout:g} s; start one or wait longer"
            )
        link.join()


@contextlib.contextmanager
def _undone(link: SendingLink | ReceivingLink) -> Iterator[None]:
    """Around what opens an end: should it fail, what was taken is given back."""
    try:
        yield
    except BaseException as error:
        claimed = link.claim is not None
        try:
            if link.is_joined:
                link.abort()
        finally:
            link.leave("", error)
            if not claimed and not isinstance(error, ChannelError):
                # It came just when the role was taken: that has gone with its owner, what marks it has not.
                with contextlib.suppress(ChannelError):
                    link.home.sweep()
        raise


class _Beginning:
    """A sender's attempts to begin a stream; `obstacle` says what the last one met."""

    def __init__(self, link: SendingLink, capacity: int) -> None:
        self._link = link
        self._home = link.home
        self._capacity = capacity
        self.obstacle = "the file was removed again and again"

    def attempt(self) -> bool | None:
        """Begin; None while something is in the way."""
        link, home = self._link, self._home
        if not _has_role(link):
            self.obstacle = (
                _rival(link) or "a process that is just leaving, or that looks, still has the role"
            )
            return None
        with home.changing() as allowed:
            found = home.find() if allowed else None
            try:
                if not _is_at_home(link):
                    return None
                if not allowed:
                    self.obstacle = "a receiver that attaches to an earlier stream is still at it"
                    return None
                if found is not None and self._is_attached(found):
                    self.obstacle = "a receiver is still attached to an earlier stream"
                    return None
                link.memory = home.renew(found, self._capacity)
            finally:
                if found is not None and found is not link.memory:
                    found.close()
            if link.memory is None:
                self.obstacle = "a process that is not attached still holds the memory of that name"
                return None
            link.mapped = home.map(link.memory, self._capacity)
            stream_id = int.from_bytes(os.urandom(8), "little")
            states.begin(
                link.mapped.words,
                layout.Header(self._capacity, stream_id, link.persistent, home.owner),
                os.getpid(),
                home.order,
            )
            return True

    def _is_attached(self, found: Memory) -> bool:
        """End what a dead sender left; return whether a receiver is still at it.

        From then on only receivers change it, and they make its bytes fewer.
        """
        with self._home.header(found) as known:
            if known is None:
                return False
            words, constant = known
            states.settle_sender(words, self._home.name)
            if states.has_receiver(words, self._home.name) and self._link.peer_of(words):
                return True
            self._home.check_taken(words, constant)
            return False


def _attach(link: ReceivingLink) -> bool | None:
    """Attach; None while there is no stream that wants a receiver."""
    home, name = link.home, link.home.name
    if not _has_role(link):
        return None
    with home.changing() as allowed:
        memory = home.find() if allowed else None
        if memory is None:
            return None
        try:
            if not _is_at_home(link):
                return None
            with home.header(memory) as known:
                if known is None:
                    return None
                words, constant = known
                if constant.owner and not home.kept:
                    raise LayoutError(
                        f"{name}: is the name of a listener, not of a channel; "
                        "use mmapipc.connection.Client, or another name"
                    )
                states.settle_receiver(words, name)
                if not states.wants_receiver(
                    words,
                    name,
                    persistent=constant.persistent,
                    kept=home.kept,
                    sender_lives=link.peer_of(words),
                ):
                    return None
            if not home.fits(memory, layout.HEADER_SIZE + constant.capacity):
                raise layout.damaged(name, f"capacity {constant.capacity} does not fit its size")
            link.mapped = home.map(memory, constant.capacity)
            link.memory = memory
        finally:
            if link.memory is None:
                memory.close()
        words = link.mapped.words
        layout.load_sequences(words, constant.capacity, name)
        states.attach(words, os.getpid(), name, home.order)
        return True


def _has_role(link: SendingLink | ReceivingLink) -> bool:
    """Take the role if this end has it not yet."""
    if link.claim is None:
        link.claim = link.home.claim(link.role)
    return link.claim is not None


def _rival(link: SendingLink | ReceivingLink) -> str:
    """Who has the role that this end waits for, in words; nothing when nobody has."""
    pid = link.home.claiming.rival if link.claim is None else None
    return "" if pid is None else f"another {link.role} (pid {pid}) still has the role"


def _is_at_home(link: SendingLink | ReceivingLink) -> bool:
    """Whether what was just found is what the role is of; if a file was replaced, give the role back.

    Asked after it was opened: from then on nothing is done by its path.
    """
    claim = link.claim
    if claim is not None and not claim.stands():
        link.claim = None
        claim.release()
    return link.claim is not None
