"""The ring and the state protocol around it, as pure memory.

No operating system, clock or sleep here: a `Producer` and a `Consumer` look at
two views of memory that they share, say what they see, and never wait.  That
makes every interleaving of the two testable.

The rules that both keep:

1.  `write_seq` and the sender's state are stored by the producer only,
    `read_seq` and the receiver's state by the consumer only.
2.  Data is copied before the counter that publishes it is stored, and the
    last counter is stored before the state that ends the stream.  So whoever
    loads a state and *then* the counter has every byte that belongs to it.
3.  A role is claimed outside this module (the kernel holds the claims).  Who
    newly holds a role first settles what a dead predecessor left: the state
    OPEN becomes ABORTED.  A claim that stands can therefore never lend life
    to the dead end whose role it is.
4.  A missing claim means death only together with a look at state and counter
    made *after* the claim was seen missing: the peer may have finished
    properly in between.

    what the consumer sees                     verdict
    -----------------------------------------  ---------
    unread bytes, whatever the state           READY
    none, sender OPEN, its claim stands        WAIT
    none, sender FINISHED                      END
    none, sender ABORTED                       GAVE_UP
    none, sender OPEN, its claim is gone       DIED

    what the producer sees                     verdict
    -----------------------------------------  ---------
    receiver CLOSED                            GAVE_UP
    receiver ABORTED, or OPEN without a claim  DIED
    otherwise, free bytes                      READY
    otherwise                                  WAIT

Memory order.  On x86-64 stores become visible in program order, and loads
happen in program order, which is all that rule 2 needs.  Elsewhere (aarch64)
the barrier given to the constructor is called between data and counter on
both sides; see `Barrier`.  CPython itself never reorders or drops the stores:
each is a separate call into `memoryview`.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable

from . import layout

Stands = Callable[[], bool]


class Verdict(enum.Enum):
    """What an end sees of its peer."""

    WAIT = "nothing to do yet"
    READY = "bytes can be moved"
    END = "the stream is finished and every byte is here"
    GAVE_UP = "the peer left on purpose"
    DIED = "the peer is gone without a word"


class Barrier:
    """A full memory barrier out of a lock, the one thing in pure Python that has one.

    Releasing a lock is a store-release and taking it a load-acquire (or
    stronger) in each of CPython's lock implementations.  AArch64 keeps a
    load-acquire behind an earlier store-release (the RCsc rule of its memory
    model), so everything before the release is ordered with everything after
    the next acquire, stores with later loads included.  Taking the lock twice
    gives that pair; on x86-64 each is a locked instruction and a full barrier
    of its own.  Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            pass
        with self._lock:
            pass


class Producer:
    """The writing half of a ring.  One thread at a time.

    `words` is the header as 64-bit words, `data` the ring as bytes; `barrier`
    is a full memory barrier, and `ordered` says that the processor keeps
    stores in order and loads in order, so that data and counter need none.
    `name` is the channel's, for error messages.
    """

    def __init__(
        self, words: memoryview, data: memoryview, name: str, *, barrier: Callable[[], None], ordered: bool
    ) -> None:
        self._words = words
        self._data = data
        self._name = name
        self._barrier = barrier
        self._order = _nothing if ordered else barrier
        self._capacity = len(data)
        self.sequence = 0
        self._acknowledged = 0

    @staticmethod
    def settle(words: memoryview, name: str) -> bool:
        """End what a dead sender left in `words`; return whether a receiver is still attached.

        For the holder of the sender's role only.
        """
        if layout.load_sender_state(words, name) == layout.OPEN:
            words[layout.SENDER_STATE] = layout.ABORTED
        return layout.load_receiver_state(words, name) == layout.OPEN

    @property
    def in_flight(self) -> int:
        """Bytes published and not yet acknowledged, as last seen."""
        return self.sequence - self._acknowledged

    @property
    def seen(self) -> bool:
        """Whether a receiver is, or was, attached to this stream."""
        return layout.load_receiver_state(self._words, self._name) != layout.ABSENT

    def _refresh(self) -> None:
        read = self._words[layout.READ_SEQ]
        if not self._acknowledged <= read <= self.sequence:
            raise layout.damaged(self._name, f"read_seq {read} outside {self._acknowledged} to {self.sequence}")
        self._acknowledged = read
        # The consumer's loads of these bytes come before our stores over them.
        self._order()

    def verdict(self, stands: Stands | None = None) -> Verdict:
        """What is to be done; `stands` asks whether the receiver's claim does.

        Without `stands` a dead receiver is not noticed.  Raises LayoutError.
        """
        state = layout.load_receiver_state(self._words, self._name)
        self._order()
        if state == layout.OPEN and stands is not None and not stands():
            # Rule 4: it may have left properly between our two looks.
            self._barrier()
            state = layout.load_receiver_state(self._words, self._name)
            self._order()
            if state == layout.OPEN:
                state = layout.ABORTED
        self._refresh()
        if state == layout.CLOSED:
            return Verdict.GAVE_UP
        if state == layout.ABORTED:
            return Verdict.DIED
        return Verdict.READY if self.in_flight < self._capacity else Verdict.WAIT

    def claim(self, most: int) -> memoryview:
        """The next free bytes in one piece: up to `most`, empty when the ring is full."""
        start = self.sequence % self._capacity
        room = min(most, self._capacity - start)
        if self._capacity - self.in_flight < room:
            self._refresh()
            room = min(room, self._capacity - self.in_flight)
        return self._data[start : start + room]

    def publish(self, count: int) -> None:
        """Make the first `count` bytes of the claimed ones readable."""
        self.sequence += count
        self._order()
        self._words[layout.WRITE_SEQ] = self.sequence

    def put(self, source: memoryview) -> int:
        """Copy in and publish as much of `source` (bytes) as fits; return how much, in bytes."""
        moved = 0
        while moved < len(source):
            target = self.claim(len(source) - moved)
            count = len(target)
            if not count:
                break
            target[:] = source[moved : moved + count]
            self.publish(count)
            moved += count
        return moved

    def finish(self) -> None:
        """Mark the end of the stream.  The last counter is visible before the mark."""
        self._end(layout.FINISHED)

    def abort(self) -> None:
        """Mark that the stream ends here unfinished."""
        self._end(layout.ABORTED)

    def _end(self, state: int) -> None:
        if self._words[layout.SENDER_STATE] == layout.OPEN:
            self._order()
            self._words[layout.SENDER_STATE] = state


class Consumer:
    """The reading half of a ring.  One thread at a time.  Made by `attach`."""

    def __init__(
        self, words: memoryview, data: memoryview, name: str, *, barrier: Callable[[], None], ordered: bool
    ) -> None:
        self._words = words
        self._data = data
        self._name = name
        self._barrier = barrier
        self._order = _nothing if ordered else barrier
        self._capacity = len(data)
        self.sequence, self._published = layout.load_sequences(words, self._capacity, name)

    @staticmethod
    def attachable(words: memoryview, name: str, stands: Stands) -> bool:
        """Whether `words` is a live stream that no receiver has had; settles a dead predecessor.

        For the holder of the receiver's role only.
        """
        receiver = layout.load_receiver_state(words, name)
        if receiver == layout.OPEN:
            words[layout.RECEIVER_STATE] = receiver = layout.ABORTED
        sender = layout.load_sender_state(words, name)
        return receiver == layout.ABSENT and sender != layout.ABORTED and stands()

    def attach(self, pid: int) -> None:
        """Take the stream.  From here on a new sender waits for this end to leave."""
        self._words[layout.RECEIVER_PID] = pid
        self._order()
        self._words[layout.RECEIVER_STATE] = layout.OPEN

    def _refresh(self) -> int:
        write = self._words[layout.WRITE_SEQ]
        if not self._published <= write <= self.sequence + self._capacity:
            raise layout.damaged(
                self._name, f"write_seq {write} outside {self._published} to {self.sequence + self._capacity}"
            )
        self._published = write
        # No byte is loaded before the counter that published it.
        self._order()
        return write - self.sequence

    def verdict(self, stands: Stands | None = None) -> Verdict:
        """What is to be done; `stands` asks whether the sender's claim does.

        Without `stands` a dead sender is not noticed.  Raises LayoutError.
        """
        # Rule 2: the state first, then the counter.
        state = layout.load_sender_state(self._words, self._name)
        self._order()
        if self._refresh():
            return Verdict.READY
        if state == layout.OPEN:
            if stands is None or stands():
                return Verdict.WAIT
            # Rule 4: it may have published, and finished, between our two looks.
            self._barrier()
            state = layout.load_sender_state(self._words, self._name)
            self._order()
            if self._refresh():
                return Verdict.READY
        if state == layout.FINISHED:
            return Verdict.END
        return Verdict.GAVE_UP if state == layout.ABORTED else Verdict.DIED

    def view(self, most: int) -> memoryview:
        """The next unread bytes in one piece: up to `most`, empty when there are none."""
        start = self.sequence % self._capacity
        ready = min(most, self._capacity - start)
        if self._published - self.sequence < ready:
            ready = min(ready, self._refresh())
        return self._data[start : start + ready]

    def acknowledge(self, count: int) -> None:
        """Give the first `count` unread bytes back to the producer."""
        self.sequence += count
        # Our loads of these bytes come before the producer's next stores.
        self._order()
        self._words[layout.READ_SEQ] = self.sequence

    def take(self, target: memoryview) -> int:
        """Copy out and acknowledge what fits into `target` (bytes); return how much, in bytes."""
        moved = 0
        while moved < len(target):
            source = self.view(len(target) - moved)
            count = len(source)
            if not count:
                break
            target[moved : moved + count] = source
            self.acknowledge(count)
            moved += count
        return moved

    def close(self) -> None:
        """Mark that the receiver left."""
        self._order()
        self._words[layout.RECEIVER_STATE] = layout.CLOSED


def _nothing() -> None:
    """The barrier that an ordered processor needs."""
