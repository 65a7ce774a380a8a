"""The two states: who may store which, when, and what the other side makes of it.

No other module stores a state.  Who holds a role, which the kernel says, may
store the state of its side:

    the sender's state             stored by
    -----------------------------  -----------------------------------------------
    ABSENT -> OPEN                 `begin`: the sender, with the header; of a connection,
                                     who makes it, and `enter` is the sender
    OPEN -> FINISHED               `finish`: the sender
    OPEN -> ABORTED                `give_up`: the sender
    OPEN -> DIED                   `settle_sender`: the next sender
    any -> ABSENT                  `clear`: the next sender, in a file

    the receiver's state           stored by
    -----------------------------  -----------------------------------------------
    ABSENT, or left -> OPEN        `attach`: the receiver
    OPEN -> CLOSED                 `leave`: the receiver, which wants no more
    OPEN -> ABORTED                `leave`: the receiver, which could not go on
    OPEN -> DIED                   `settle_receiver`: the next receiver
    any -> ABSENT                  `clear`: the next sender, in a file

Whoever newly holds a role settles what a dead predecessor left before it does
anything else.  A role that somebody has can therefore never lend life to the
dead end that had it before.

`order` is a full barrier on a weakly ordered processor, and nothing elsewhere.
"""

from __future__ import annotations

import enum

from ..errors import StreamAborted
from . import layout

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable

    Order = Callable[[], object]


class Verdict(enum.Enum):
    """What an end sees of its peer."""

    WAIT = "nothing to do yet"
    READY = "bytes can be moved"
    END = "the stream is finished and every byte is here"
    LEFT = "the peer wants no more"
    GAVE_UP = "the peer could not go on"
    DIED = "the peer is gone without a word"


# What a peer's last state says to an end that has moved every byte it can.
OF_SENDER = {layout.FINISHED: Verdict.END, layout.ABORTED: Verdict.GAVE_UP, layout.DIED: Verdict.DIED}
OF_RECEIVER = {layout.CLOSED: Verdict.LEFT, layout.ABORTED: Verdict.GAVE_UP, layout.DIED: Verdict.DIED}

# A receiver that may have had less than all of the stream.
_UNSATISFIED = (layout.ABSENT, layout.ABORTED, layout.DIED)


def clear(words: memoryview, owner: int, order: Order) -> None:
    """Empty the header of a file for a new stream; for a sender that keeps receivers away meanwhile."""
    layout.take_back(words)
    # ORDER: the magic before the other fields, for those who only look.  Pairs with `load_header`.
    order()
    words[layout.OWNER] = owner
    for word in range(layout.MAGIC + 1, len(words)):  # both states too
        if word != layout.OWNER:
            words[word] = 0


def load_header(words: memoryview, name: str, order: Order) -> layout.Header | None:
    """Check the constant fields and return a copy; None while they are not complete.  LayoutError."""
    if not layout.is_complete(words):
        return None
    # ORDER: the magic before the other fields.  Pairs with `begin`.
    order()
    return layout.validate(words, name)


def begin(words: memoryview, header: layout.Header, pid: int, order: Order) -> None:
    """Begin a stream in zeroed memory; for the sender that made or cleared it."""
    layout.initialise(words, header, pid)
    words[layout.SENDER_STATE] = layout.OPEN
    # ORDER: the other fields before the magic.  Pairs with `load_header`.
    order()
    layout.complete(words)


def enter(words: memoryview, pid: int) -> None:
    """Become the sender of a stream that was begun for an end of a connection."""
    words[layout.SENDER_PID] = pid


def settle_sender(words: memoryview, name: str) -> None:
    """End the stream of a dead sender; for the holder of the sender's role."""
    if layout.load_sender_state(words, name) == layout.OPEN:
        words[layout.SENDER_STATE] = layout.DIED


def settle_receiver(words: memoryview, name: str) -> None:
    """Say that a receiver died; for the holder of the receiver's role."""
    if layout.load_receiver_state(words, name) == layout.OPEN:
        words[layout.RECEIVER_STATE] = layout.DIED


def has_receiver(words: memoryview, name: str) -> bool:
    """Whether a receiver is attached, or was and died."""
    return layout.load_receiver_state(words, name) == layout.OPEN


def wants_receiver(words: memoryview, name: str, *, persistent: bool, kept: bool, sender_lives: bool) -> bool:
    """Whether the stream is one to attach to; for the holder of the receiver's role, after `settle_receiver`.

    That is a live one that no receiver has had, or that is persistent; and when
    it is `kept` in a file, also one whose sender has gone, if there is something
    that no receiver has had.
    """
    receiver = layout.load_receiver_state(words, name)
    sender = layout.load_sender_state(words, name)
    if kept:
        # A stream whose end somebody has had is over, whoever has the sender's
        # role.  Who died, or gave up, may not have had it.
        untaken = receiver in _UNSATISFIED or words[layout.READ_SEQ] != words[layout.WRITE_SEQ]
        return untaken or (sender == layout.OPEN and sender_lives)
    wanted = receiver == layout.ABSENT or persistent
    return wanted and sender in (layout.OPEN, layout.FINISHED) and sender_lives


def attach(words: memoryview, pid: int, name: str, order: Order) -> None:
    """Take the stream.  From here on a new sender waits for this receiver to leave."""
    words[layout.RECEIVER_PID] = pid
    words[layout.RECEIVER_CALLS] = 0
    words[layout.RECEIVERS] = layout.load_receivers(words, name) + 1
    # ORDER: pid and count before the state.  Pairs with the state before them in `Producer.receivers`.
    order()
    words[layout.RECEIVER_STATE] = layout.OPEN


def finish(words: memoryview, sequence: int, name: str, order: Order) -> None:
    """Mark the end of the stream after `sequence` bytes; for its sender.

    Raises StreamAborted when the stream has ended already: another thread has given it up,
    or a process that has the sender's role, which this one then has no more.
    """
    state = layout.load_sender_state(words, name)
    if state == layout.OPEN:
        words[layout.WRITE_SEQ] = sequence  # an exception can have come between the two in `Producer.write`
        # ORDER: the last write_seq before the state.  Pairs with `Consumer.verdict`.
        order()
        words[layout.SENDER_STATE] = layout.FINISHED
    elif state != layout.FINISHED:
        ended = "another process has taken the stream from this sender, and ended it"
        if state == layout.ABORTED:
            ended = "another thread has given up the stream"
        raise StreamAborted(f"{name}: {ended}; the receiver may not have all of it")


def give_up(words: memoryview, sequence: int, order: Order) -> None:
    """Mark that the stream ends unfinished after `sequence` bytes; for its sender.

    One that is ended stays as it is.
    """
    if words[layout.SENDER_STATE] == layout.OPEN:
        words[layout.WRITE_SEQ] = sequence  # an exception can have come between the two in `Producer.write`
        # ORDER: the last write_seq before the state.  Pairs with `Consumer.verdict`.
        order()
        words[layout.SENDER_STATE] = layout.ABORTED


def leave(words: memoryview, state: int, order: Order) -> None:
    """Leave the stream as CLOSED or ABORTED; for its receiver.

    One that has left stays as it is: of two threads, or if this is done again after an
    interrupt, the second might store into the next stream, which a sender has begun in a file.
    """
    if words[layout.RECEIVER_STATE] == layout.OPEN:
        # The call stays, so a sender that sees it before the state looks again.  The
        # state is the last: once it is stored, a sender may clear the file for a new stream.
        words[layout.RECEIVER_CALLS] = layout.LEFT
        # ORDER: the call and the last read_seq before the state.  Pairs with `Producer.verdict`.
        order()
        words[layout.RECEIVER_STATE] = state
