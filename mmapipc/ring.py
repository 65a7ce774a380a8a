"""The ring and the state protocol around it, as pure memory.

No operating system, clock or sleep here: a `Producer` and a `Consumer` look at
two views of memory that they share and say what they see; for waiting they
call what they were given.  That makes every interleaving of the two testable.

The rules that both keep:

1.  `write_seq` and the sender's state are stored by the producer only,
    `read_seq` and the receiver's state by the consumer only.
2.  Data is copied before the counter that publishes it is stored, and the
    last counter is stored before the state that ends the stream.  So whoever
    loads a state and *then* the counter has every byte that belongs to it.
3.  A role is claimed outside this module (the kernel holds the claims).  Who
    newly holds a role first settles what a dead predecessor left: the state
    OPEN becomes DIED.  A claim that stands can therefore never lend life
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
    none, sender DIED, or OPEN without claim   DIED

    what the producer sees                     verdict
    -----------------------------------------  ---------
    receiver CLOSED                            LEFT     (*)
    receiver ABORTED                           GAVE_UP  (*)
    receiver DIED, or OPEN without claim       DIED     (*)
    otherwise, free bytes                      READY
    otherwise                                  WAIT

    (*) A persistent stream waits for its next receiver instead.

Memory order.  On x86-64 stores become visible in program order, and loads
happen in program order, which is all that rule 2 needs.  Elsewhere (aarch64)
the barrier given to the constructor is called on both sides: between header
and magic, data and counter, counter and state; see `Barrier`.  For each call
`test_interleavings` names a stream that goes wrong without it, or says why
none does.  CPython itself never reorders or drops the stores: each is a
separate call into `memoryview`.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from itertools import repeat

from . import layout

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer, WriteableBuffer

    Stands = Callable[[], bool]

# The most bytes that `write` and `readinto` copy before the peer hears of them,
# so that both ends copy at the same time and a long piece does not wait for
# itself; of a small ring, half, but not less than a page.  Measured, see
# "Capacity and step" in scripts/performance.md: smaller steps let the consumer
# follow so closely that it reads from the other processor's own cache, which is
# slower than the cache that they share.
STEP = 1 << 20
_SMALLEST_STEP = 4096

# The hot paths' words, as globals of this module: one look-up less.
_WRITE_SEQ = layout.WRITE_SEQ
_READ_SEQ = layout.READ_SEQ
_SENDER_CALLS = layout.SENDER_CALLS
_RECEIVER_CALLS = layout.RECEIVER_CALLS


class Verdict(enum.Enum):
    """What an end sees of its peer."""

    WAIT = "nothing to do yet"
    READY = "bytes can be moved"
    END = "the stream is finished and every byte is here"
    LEFT = "the peer wants no more"
    GAVE_UP = "the peer could not go on"
    DIED = "the peer is gone without a word"


_GONE = {layout.CLOSED: Verdict.LEFT, layout.ABORTED: Verdict.GAVE_UP, layout.DIED: Verdict.DIED}


def _between(least: int, value: int, most: int) -> int:
    """The value, or the bound that it is beyond: for a sight of counters that move, or that lie."""
    return max(least, min(value, most))


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


def load_header(
    words: memoryview, name: str, *, barrier: Callable[[], None], ordered: bool
) -> layout.Header | None:
    """Check the header and return a copy of it, or None when its creator has not completed it.

    Raises LayoutError.  `barrier` and `ordered` are those of `Producer`.
    """
    if not layout.is_complete(words):
        return None
    # Whoever sees the magic sees all of the header: no field is loaded before
    # the magic.  The barrier in `Producer.create` is the other half of this.
    if not ordered:
        barrier()
    return layout.validate(words, name)


class Half:
    """What both halves have in common: the memory, the barrier, the way to wait."""

    _calls: int
    _peer_calls: int
    own_counter: int  # the words that the two ends sleep on
    peer_counter: int

    def __init__(
        self,
        words: memoryview,
        data: memoryview,
        name: str,
        *,
        barrier: Callable[[], None],
        ordered: bool,
        wait: Callable[[], bool],
        answer: Callable[[int], None],
    ) -> None:
        self._words = words
        self._data = data
        self._name = name
        self._barrier = barrier
        self._ordered = ordered
        self._wait = wait
        self._answer = answer
        self._capacity = len(data)
        self._step = min(STEP, max(_SMALLEST_STEP, len(data) // 2))
        self._shut: str | None = None
        self._view: memoryview | None = None
        self.sequence = 0
        self.looks = 1

    @property
    def awaited(self) -> int:
        """The peer's counter as last seen: what a wait waits to change."""
        raise NotImplementedError

    @property
    def moved(self) -> bool:
        """Whether the peer's counter is no longer as last seen."""
        return bool(self._words[self.peer_counter] != self.awaited)

    @property
    def backlog(self) -> int:
        """Bytes published and not yet acknowledged, now.  Any thread may ask: nothing is changed by it."""
        raise NotImplementedError

    @property
    def peer_attached(self) -> bool:
        """Whether the peer's state says that it is there.  Any thread may ask."""
        raise NotImplementedError

    @property
    def peer_calls(self) -> int:
        """What the peer wants of this end."""
        calls: int = self._words[self._peer_calls]
        return calls

    def verdict(self, stands: Stands | None = None) -> Verdict:
        """What is to be done, see the tables above."""
        raise NotImplementedError

    def park(self, fence: Callable[[], None], look: Callable[[], bool], sleep: Callable[[int], object]) -> bool:
        """Sleep until the peer's counter moves, after one more look; return whether it has.

        Tells the peer, which then calls its `answer()` after the next counter
        that it stores.  `fence()` is a full barrier here, and in the peer
        between its store of the counter and its load of our call: with both,
        either the peer sees the call or we see the counter.  `look()` is whether
        there is still only to wait; `sleep(known)` returns at once when the low
        half of the counter is not that of `known`, and otherwise when the peer
        wakes it, or some time later.
        """
        words = self._words
        try:
            words[self._calls] = layout.PARKED
            fence()
            known = self.awaited
            if words[self.peer_counter] == known and look():
                sleep(known)
        finally:
            words[self._calls] = 0
        return bool(words[self.peer_counter] != known)

    def _check_not_shut(self) -> None:
        if self._shut is not None:
            raise ValueError(self._shut)

    def shut(self, reason: str) -> None:
        """Let every later call raise ValueError with this reason."""
        raise NotImplementedError

    def abort(self) -> None:
        """Mark that this end could not go on."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Release the view handed out, if something built on it does not hold it."""
        if self._view is not None:
            with contextlib.suppress(BufferError):
                self._view.release()
            self._view = None

    def _take_back(self, count: int) -> None:
        """Release the view handed out, of which `count` bytes are to be moved."""
        self._check_not_shut()
        size = 0 if self._view is None else len(self._view)
        if not 0 <= count <= size:
            raise ValueError(f"{self._name}: {count} bytes of a view that has {size}")
        if self._view is not None:
            self._view.release()  # BufferError, and nothing has happened, while something is built on it
            self._view = None

    def _order(self) -> None:
        """The barrier that a weakly ordered processor needs."""
        if not self._ordered:
            self._barrier()


class Producer(Half):
    """The writing half of a ring.  One thread at a time.

    `words` is the header as 64-bit words, `data` the ring as bytes, `name` the
    channel's, for messages.  `barrier` is a full memory barrier; `ordered`
    says that the processor keeps stores in order and loads in order, so that
    data and counter need none.  `wait()` is called when the ring is full and
    returns when it may not be, or raises; `answer(calls)` is called when the
    consumer has set its calls.  A `persistent` stream outlives its receivers.

    `sequence` is the number of bytes published; `looks`, 1 or more, how often a
    full ring is looked at before `wait()`; `deserted` tells how the last receiver of a
    persistent stream went, as last seen, or is None; `owes` whether a write has
    failed and was not made up for.
    """

    _calls = layout.SENDER_CALLS
    _peer_calls = layout.RECEIVER_CALLS
    own_counter = layout.WRITE_SEQ
    peer_counter = layout.READ_SEQ

    def __init__(
        self,
        words: memoryview,
        data: memoryview,
        name: str,
        *,
        barrier: Callable[[], None],
        ordered: bool,
        wait: Callable[[], bool],
        answer: Callable[[int], None],
        persistent: bool = False,
        owner: int = 0,
    ) -> None:
        super().__init__(words, data, name, barrier=barrier, ordered=ordered, wait=wait, answer=answer)
        self._persistent = persistent
        self._owner = owner
        self.deserted: Verdict | None = None
        self.owes = False
        self._acknowledged = 0
        # Sequence up to which may be written without another look; -1 sends
        # every write the slow way, where its reason is known.
        self._limit = self._capacity

    def create(self, stream_id: int, pid: int) -> None:
        """Write the header of a new stream into zeroed memory."""
        layout.initialise(self._words, layout.Header(self._capacity, stream_id, self._persistent, self._owner), pid)
        # Whoever sees the magic sees all of the header.
        self._order()
        layout.complete(self._words)

    @staticmethod
    def settle(words: memoryview, name: str) -> bool:
        """End what a dead sender left in `words`; return whether a receiver is still attached.

        For the holder of the sender's role only.
        """
        if layout.load_sender_state(words, name) == layout.OPEN:
            words[layout.SENDER_STATE] = layout.DIED
        return layout.load_receiver_state(words, name) == layout.OPEN

    @property
    def awaited(self) -> int:
        return self._acknowledged

    @property
    def backlog(self) -> int:
        # Our own counter first: what is acknowledged meanwhile only makes it less.
        return _between(0, self.sequence - self._words[_READ_SEQ], self._capacity)

    @property
    def peer_attached(self) -> bool:
        return self.deserted is None and layout.load_receiver_state(self._words, self._name) == layout.OPEN

    @property
    def in_flight(self) -> int:
        """Bytes published and not yet acknowledged, as last seen."""
        return self.sequence - self._acknowledged

    @property
    def receivers(self) -> int:
        """How many receivers this stream has had, with the one attached."""
        # Counted before the state is stored: one that died in between never came.
        if layout.load_receiver_state(self._words, self._name) == layout.ABSENT:
            return 0
        return layout.load_receivers(self._words, self._name)

    def _refresh(self, looks: int = 1) -> int:
        """Load read_seq, up to `looks` times until it has moved; return how many bytes are free."""
        words = self._words
        known = self._acknowledged
        for _ in repeat(None, looks):
            read: int = words[_READ_SEQ]
            if read != known:
                if not known < read <= self.sequence:
                    raise layout.damaged(self._name, f"read_seq {read} outside {known} to {self.sequence}")
                # The consumer's loads of these bytes come before our stores over them.
                if not self._ordered:
                    self._barrier()
                self._acknowledged = known = read
                if self._shut is None and self._view is None and not self.owes:
                    self._limit = read + self._capacity
                break
        return known + self._capacity - self.sequence

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
                state = layout.DIED
        free = self._refresh()
        gone = _GONE.get(state)
        if gone is not None and not self._persistent:
            return gone
        self.deserted = gone
        return Verdict.READY if free else Verdict.WAIT

    def write(self, data: ReadableBuffer) -> int:
        """Copy in and publish all of `data`, any buffer; return its size in bytes.

        Waits while the ring is full.  Raises ValueError when the producer is
        shut, and what `wait()` and `answer(calls)` raise.
        """
        # This is the path of every small piece: flat, one look at the peer.
        try:
            size = len(data)  # type: ignore[arg-type]
        except TypeError:
            return self._write_slowly(data)
        start = self.sequence
        end = start + size
        if end <= self._limit and size <= self._step:
            offset = start % self._capacity
            if offset + size <= self._capacity:
                try:
                    self._data[offset : offset + size] = data
                    if not self._ordered:
                        self._barrier()
                    self.sequence = end
                    words = self._words
                    words[_WRITE_SEQ] = end
                    calls = words[_RECEIVER_CALLS]
                    if calls:
                        self._answer(calls)
                    return size
                except (ValueError, TypeError):
                    if self.sequence != start:
                        self._cut_short(start)
                        raise
                    # Not plain bytes.
                except BaseException:
                    self._cut_short(start)
                    raise
        return self._write_slowly(data)

    def _write_slowly(self, data: ReadableBuffer) -> int:
        self._check_not_shut()
        if self._view is not None:
            raise ValueError(f"{self._name}: commit() the reserved view first")
        with memoryview(data) as given:
            size = given.nbytes
            if not size:
                return 0
            with given.cast("B") if given.c_contiguous else memoryview(given.tobytes()) as source:
                start = self.sequence
                done = 0
                try:
                    while done < size:
                        # Released even by an exception, whose traceback would keep the memory.
                        with self._claim(min(size - done, self._step)) as target:
                            count = len(target)
                            target[:] = source[done : done + count]
                        self._publish(count)
                        done += count
                except BaseException:
                    self._cut_short(start)
                    raise
        if self.owes:
            self.owes = False
            self._limit = self._acknowledged + self._capacity
        return size

    def _cut_short(self, start: int) -> None:
        """Remember that a write, begun at `start`, did not do what was asked.

        Until the same is written again the stream must not be finished: an
        `io.BufferedWriter` closes its raw file also after its flush has failed.
        When part of it is published, writing it again would double that part.
        """
        self.owes = True
        self._limit = -1
        if self.sequence != start:
            self.shut(f"{self._name}: an earlier write was cut short, the stream cannot go on")

    def _claim(self, most: int) -> memoryview:
        """The next free bytes in one piece: 1 to `most`; waits while the ring is full."""
        offset = self.sequence % self._capacity
        room = min(most, self._capacity - offset)
        free = self._acknowledged + self._capacity - self.sequence
        if free < room:
            free = self._refresh(1 if free else self.looks)
            while not free:
                self._wait()
                free = self._refresh()
            room = min(room, free)
        return self._data[offset : offset + room]

    def _publish(self, count: int) -> None:
        """Make the first `count` of the claimed bytes readable."""
        self._order()
        self.sequence += count
        self._words[_WRITE_SEQ] = self.sequence
        calls = self._words[_RECEIVER_CALLS]
        if calls:
            self._answer(calls)

    def reserve(self, most: int) -> memoryview:
        """Hand out a writable view of 1 to `most` free bytes in one piece; waits while the ring is full."""
        self._check_not_shut()
        self.let_go()
        view = self._claim(most)
        self._view = view
        self._limit = -1
        return view

    def commit(self, count: int) -> None:
        """Release the reserved view, and publish its first `count` bytes."""
        self._take_back(count)
        if not self.owes:
            self._limit = self._acknowledged + self._capacity
        if count:
            self._publish(count)

    def shut(self, reason: str) -> None:
        """Let every later call raise ValueError with this reason."""
        self.let_go()
        self._shut = reason
        self._limit = -1

    def finish(self) -> None:
        """Mark the end of the stream.  The last counter is visible before the mark."""
        self._end(layout.FINISHED)

    def abort(self) -> None:
        """Mark that the stream ends here unfinished."""
        self._end(layout.ABORTED)

    def _end(self, state: int) -> None:
        if self._words[layout.SENDER_STATE] == layout.OPEN:
            self._words[layout.WRITE_SEQ] = self.sequence  # see `write`
            self._order()
            self._words[layout.SENDER_STATE] = state


class Consumer(Half):
    """The reading half of a ring.  One thread at a time.

    The arguments are those of `Producer`; `wait()` is called when the ring is
    empty and returns whether there can be more, or raises.  `sequence` is the
    number of bytes acknowledged; `looks`, 1 or more, how often an empty ring is
    looked at before `wait()`.
    """

    _calls = layout.RECEIVER_CALLS
    _peer_calls = layout.SENDER_CALLS
    own_counter = layout.READ_SEQ
    peer_counter = layout.WRITE_SEQ

    def __init__(
        self,
        words: memoryview,
        data: memoryview,
        name: str,
        *,
        barrier: Callable[[], None],
        ordered: bool,
        wait: Callable[[], bool],
        answer: Callable[[int], None],
    ) -> None:
        super().__init__(words, data, name, barrier=barrier, ordered=ordered, wait=wait, answer=answer)
        self.sequence, self._published = layout.load_sequences(words, self._capacity, name)

    @staticmethod
    def attachable(words: memoryview, name: str, persistent: bool, stands: Stands, kept: bool = False) -> bool:
        """Whether `words` is a stream that wants a receiver; settles a dead predecessor.

        That is a live one that no receiver has had, or that is persistent; and
        when it is `kept` in a file, also one whose sender has gone, if there
        is something that no receiver has had.  For the holder of the receiver's
        role only.
        """
        receiver = layout.load_receiver_state(words, name)
        if receiver == layout.OPEN:
            words[layout.RECEIVER_STATE] = receiver = layout.DIED
        sender = layout.load_sender_state(words, name)
        if kept:
            # A stream whose end somebody has had is over, whoever has the
            # sender's role.  Who died, or gave up, may not have had it.
            untaken = receiver in (layout.ABSENT, layout.ABORTED, layout.DIED) or words[_READ_SEQ] != words[_WRITE_SEQ]
            return untaken or (sender == layout.OPEN and stands())
        wanted = receiver == layout.ABSENT or persistent
        return wanted and sender in (layout.OPEN, layout.FINISHED) and stands()

    def attach(self, pid: int) -> None:
        """Take the stream.  From here on a new sender waits for this end to leave."""
        words = self._words
        words[layout.RECEIVER_PID] = pid
        words[layout.RECEIVER_CALLS] = 0
        words[layout.RECEIVERS] = layout.load_receivers(words, self._name) + 1
        self._order()
        words[layout.RECEIVER_STATE] = layout.OPEN

    @property
    def awaited(self) -> int:
        return self._published

    @property
    def backlog(self) -> int:
        return _between(0, self._words[_WRITE_SEQ] - self.sequence, self._capacity)

    @property
    def peer_attached(self) -> bool:
        return layout.load_sender_state(self._words, self._name) == layout.OPEN

    def _refresh(self, looks: int = 1) -> int:
        """Load write_seq, up to `looks` times until it has moved; return how many bytes are unread."""
        words = self._words
        known = self._published
        for _ in repeat(None, looks):
            write: int = words[_WRITE_SEQ]
            if write != known:
                most = self.sequence + self._capacity
                if not known < write <= most:
                    raise layout.damaged(self._name, f"write_seq {write} outside {known} to {most}")
                # No byte is loaded before the counter that published it.
                if not self._ordered:
                    self._barrier()
                self._published = known = write
                break
        return known - self.sequence

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

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Copy out and acknowledge bytes that are there; return how many, 0 at the end.

        Waits while there are none.  Raises ValueError when the consumer is
        shut, and what `wait()` and `answer(calls)` raise.
        """
        # This is the path of every small piece: flat, and what can be done
        # before the bytes are there comes before the look for them.
        target = memoryview(buffer)
        count = len(target)
        if self._view is not None:
            self.let_go()
        words = self._words
        start = self.sequence
        offset = start % self._capacity
        room = min(self._capacity - offset, self._step)
        ready = self._published - start
        if ready <= 0:
            if not count or self._shut is not None:
                self._check_not_shut()
                return 0
            most = start + self._capacity
            for _ in repeat(None, self.looks):
                write = words[_WRITE_SEQ]
                if start < write <= most:  # as in `_refresh`
                    if not self._ordered:
                        self._barrier()
                    self._published = write
                    ready = write - start
                    break
            else:
                try:
                    ready = self._more()
                except BaseException:
                    target.release()  # or the traceback would keep the caller's buffer
                    raise
                if not ready:
                    return 0
        if count > ready:
            count = ready
        if count > room:
            return self._readinto_in_pieces(target, count)
        try:
            target[:count] = self._data[offset : offset + count]
        except (ValueError, NotImplementedError):  # not plain bytes
            with target.cast("B") as plain:
                return self.readinto(plain)
        if not self._ordered:
            self._barrier()
        end = start + count
        self.sequence = end
        words[_READ_SEQ] = end
        calls = words[_SENDER_CALLS]
        if calls:
            self._answer(calls)
        return count

    def _readinto_in_pieces(self, target: memoryview, count: int) -> int:
        """Copy out `count` bytes that are there, across the ring's edge, acknowledging as it goes."""
        with target.cast("B") as plain:
            done = 0
            while done < count:
                with self.view(min(count - done, self._step)) as view:
                    plain[done : done + len(view)] = view
                    moved = len(view)
                self.acknowledge(moved)
                done += moved
        return done

    def read(self, most: int) -> bytes:
        """Up to `most` bytes, in an object of their own; otherwise as `readinto`."""
        with self.view(most) as view:
            data = bytes(view)
        self.acknowledge(len(data))
        # What lies beyond the ring's edge belongs to it.
        more = min(most - len(data), self._published - self.sequence)
        return data + self.read(more) if more > 0 and data else data

    def _more(self) -> int:
        """Wait for unread bytes; return how many there are, 0 at the end."""
        if self._shut is not None:
            raise ValueError(self._shut)
        ready = self._refresh(self.looks)
        while not ready:
            if not self._wait():
                return 0
            ready = self._refresh()
        return ready

    def view(self, most: int) -> memoryview:
        """The next unread bytes in one piece: 1 to `most`, empty at the end; waits while there are none."""
        if self._view is not None:
            self.let_go()
        ready = self._published - self.sequence
        offset = self.sequence % self._capacity
        room = min(most, self._capacity - offset)
        if ready < room:
            ready = self._more() if ready <= 0 else self._refresh()
        return self._data[offset : offset + min(room, ready)]

    def peek(self, most: int) -> memoryview:
        """Hand out a read-only view of what `view` gives."""
        with self.view(most) as view:
            self._view = view.toreadonly()
        return self._view

    def acknowledge(self, count: int) -> None:
        """Give the first `count` unread bytes back to the producer."""
        # Our loads of these bytes come before the producer's next stores.
        self._order()
        self.sequence += count
        self._words[_READ_SEQ] = self.sequence
        calls = self._words[_SENDER_CALLS]
        if calls:
            self._answer(calls)

    def consume(self, count: int) -> None:
        """Release the peeked view, and acknowledge its first `count` bytes."""
        self._take_back(count)
        if count:
            self.acknowledge(count)

    def shut(self, reason: str) -> None:
        """Let every later call raise ValueError with this reason."""
        self.let_go()
        self._shut = reason
        self._published = -1

    def close(self) -> None:
        """Mark that the receiver left, and wants no more."""
        self._leave(layout.CLOSED)

    def abort(self) -> None:
        """Mark that the receiver left because it could not go on."""
        self._leave(layout.ABORTED)

    def _leave(self, state: int) -> None:
        self._order()
        self._words[layout.RECEIVER_STATE] = state
        self._order()
        self._words[layout.RECEIVER_CALLS] = layout.LEFT
