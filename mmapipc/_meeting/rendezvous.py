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


def open(opening: Beginning | Attaching) -> None:
    """Attempt it until it has succeeded; the end then takes part in the stream.  Raises ChannelTimeout."""
    link = opening.link
    with undone(link):
        if not until(opening.attempt, link.timeout, link.clock):
            raise ChannelTimeout(opening.too_late)
        link.join()


@contextlib.contextmanager
def undone(link: SendingLink | ReceivingLink) -> Iterator[None]:
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


class Beginning:
    """A sender's attempts to begin a stream, once no receiver is attached to an earlier one."""

    def __init__(self, link: SendingLink, capacity: int) -> None:
        self.link = link
        self._home = link.home
        self._capacity = capacity
        self._obstacle = "another process still removes the file again and again"  # what the last attempt met

    @property
    def too_late(self) -> str:
        """What the error says when no attempt has succeeded in time."""
        return f"{self.link.name}: {self._obstacle} after {self.link.timeout:g} s; end it or wait longer"

    def attempt(self) -> bool | None:
        """Begin; None while something is in the way."""
        link, home = self.link, self._home
        if not _take_role(link):
            self._obstacle = (
                _rival(link) or "a process that leaves, or inspects the channel, still has the role"
            )
            return None
        with home.changing() as allowed:
            found = home.find() if allowed else None
            try:
                if not _confirm_role(link):
                    return None
                if not allowed:
                    self._obstacle = "a process still attaches to an earlier stream"
                    return None
                if found is not None and self._settle(found):
                    self._obstacle = "a receiver still reads an earlier stream"
                    return None
                link.memory = home.renew(found, self._capacity)
            finally:
                if found is not None and found is not link.memory:
                    found.close()
            if link.memory is None:
                self._obstacle = "a process that is not attached still has the memory of that name open"
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

    def _settle(self, found: Memory) -> bool:
        """End what a dead sender left; return True while a receiver is still attached to it.

        From then on only receivers change it, and they make its bytes fewer.
        """
        with self._home.header(found) as known:
            if known is None:
                return False
            words, constant = known
            states.settle_sender(words, self._home.name)
            if states.has_receiver(words, self._home.name) and self.link.peer_of(words):
                return True
            self._home.check_taken(words, constant)
            return False


class Attaching:
    """A receiver's attempts to attach to a stream, once there is one that wants a receiver."""

    def __init__(self, link: ReceivingLink) -> None:
        self.link = link

    @property
    def too_late(self) -> str:
        """What the error says when no attempt has succeeded in time."""
        name, seconds = self.link.name, self.link.timeout
        rival = _rival(self.link)
        if rival:
            return f"{name}: {rival} after {seconds:g} s; end it or wait longer"
        return f"{name}: no sender came within {seconds:g} s; start one or wait longer"

    def attempt(self) -> bool | None:
        """Attach; None while there is no stream that wants a receiver."""
        return _attach(self.link)


def _attach(link: ReceivingLink) -> bool | None:
    """Attach; None while there is no stream that wants a receiver."""
    home, name = link.home, link.home.name
    if not _take_role(link):
        return None
    with home.changing() as allowed:
        memory = home.find() if allowed else None
        if memory is None:
            return None
        try:
            if not _confirm_role(link):
                return None
            with home.header(memory) as known:
                if known is None:
                    return None
                words, constant = known
                if constant.owner and not home.kept:
                    raise LayoutError(
                        f"{name}: the name belongs to a listener, not to a channel; "
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


def _take_role(link: SendingLink | ReceivingLink) -> bool:
    """Take the role, unless this end has it already; return whether it has it now."""
    if link.claim is None:
        link.claim = link.home.claim(link.role)
    return link.claim is not None


def _rival(link: SendingLink | ReceivingLink) -> str:
    """Who has the role that this end waits for, in words; nothing when nobody has."""
    pid = link.home.claiming.rival if link.claim is None else None
    return "" if pid is None else f"another {link.role} (pid {pid}) still has the role"


def _confirm_role(link: SendingLink | ReceivingLink) -> bool:
    """Give the role back if it is that of a file which was replaced; return whether this end still has it.

    Called after the file was opened: from then on nothing is done by its path.
    """
    claim = link.claim
    if claim is not None and not claim.stands():
        link.claim = None
        claim.release()
    return link.claim is not None
