"""The ring, as pure memory: counters and copies.

No operating system, clock or sleep here: a `Producer` and a `Consumer` look at
two views of memory that they share and say what they see; for waiting they
call the `Link` that they were given.  That makes every interleaving of the two
testable.

The rules that both keep:

1.  `write_seq` is stored by the producer only, `read_seq` by the consumer only;
    who stores a state stands in `states`.
2.  Data is copied before the counter that publishes it is stored, and the
    last counter is stored before the state that ends the stream.  So whoever
    loads a state and *then* the counter has every byte that belongs to it.
3.  Roles are claimed outside of `_ring` (the kernel holds the claims).
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
and magic, data and counter, counter and state; see `barrier`.  For each call
`test_interleavings` names a stream that goes wrong without it, or says why
none does.  CPython itself never reorders or drops the stores: each is a
separate call into `memoryview`.  A comment that begins with ORDER
stands at each place that relies on an order: it says which, and what loads or
stores on the other side it pairs with.
"""

from __future__ import annotations

import _thread  # not threading, which is slow to import
import contextlib
import sys
from io import BytesIO
from itertools import repeat

from ..errors import ReadFailed, SenderDied, StreamAborted, in_bytes
from . import layout, states
from .states import Verdict

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol, TypeVar

    from _typeshed import ReadableBuffer, WriteableBuffer

    _Result = TypeVar("_Result")

    class Link(Protocol):
        """What a half of a ring knows of the world around it."""

        def wait(self) -> bool:
            """Wait for the peer.

            Returns whether there is something to move, False at the end of the
            stream; raises when the peer is gone, or too late.
            """

        def refuse_to_wait(self, size: int) -> None:
            """Raise when this end does not wait at all, and so many bytes do not fit now."""

        def answer(self, calls: int) -> None:
            """Do what the peer wants, which has set its calls; raises when that is the end of the stream."""

        def peer_lives(self) -> bool:
            """Whether the peer that is attached to this very stream has its role still."""


# The most bytes that `write` and `readinto` copy before the peer hears of them,
# so that both ends copy at the same time and a long piece does not wait for
# itself; of a small ring, half, but not less than a page.  Measured, see
# "Capacity and step" in scripts/performance.md: smaller steps let the consumer
# follow so closely that it reads from the other processor's own cache, which is
# slower than the cache that they share.
STEP = 1 << 20
_SMALLEST_STEP = 4096

_MANY = 1024  # items that `writelines` looks at together
_FIRST_SEARCH = 4096  # bytes looked through for the end of a line, at first; then more

STRANGER = 3e-4  # seconds: a yield that takes longer gave way to somebody else's work

# The hot paths' words, as globals of this module: one look-up less.
_WRITE_SEQ = layout.WRITE_SEQ
_READ_SEQ = layout.READ_SEQ
_SENDER_STATE = layout.SENDER_STATE
_SENDER_CALLS = layout.SENDER_CALLS
_RECEIVER_CALLS = layout.RECEIVER_CALLS


# What an end that waits wants to know of this process, see `waiting`: whether it has published anything
# since it last took something, or waited for that; whether it has rung a bell since it last waited.
wrote = rang = False


def _between(least: int, value: int, most: int) -> int:
    """The value, or the bound that it is beyond.  Counters move while we look, and may lie."""
    return max(least, min(value, most))


def barrier() -> None:
    """A full memory barrier out of a lock, the one thing in pure Python that has one.

    Releasing a lock is a store-release and taking it a load-acquire (or
    stronger) in each of CPython's lock implementations.  AArch64 keeps a
    load-acquire behind an earlier store-release (the RCsc rule of its memory
    model), so everything before the release is ordered with everything after
    the next acquire, stores with later loads included.  Taking the lock twice
    gives that pair; on x86-64 each is a locked instruction and a full barrier
    of its own.  The lock is a new one each time: one that an exception of a
    signal handler leaves taken (CPython 3.14 can do that to any `with lock`)
    must be in nobody's way.
    """
    lock = _thread.allocate_lock()
    with lock:
        pass
    with lock:
        pass


class Half:
    """What both halves have in common: the memory, the barrier, the link to the world around."""

    own_calls: int  # the words of the header that a wait is about
    peer_calls: int
    own_counter: int
    peer_counter: int
    peer_state: int

    def __init__(
        self,
        words: memoryview,
        data: memoryview,
        name: str,
        *,
        barrier: Callable[[], None],
        ordered: bool,
        link: Link,
    ) -> None:
        self.words = words
        self._data = data
        self._name = name
        self._barrier = barrier
        self._ordered = ordered
        self._link = link
        self.capacity = len(data)
        self._step = min(STEP, max(_SMALLEST_STEP, len(data) // 2))
        self._shut: str | None = None
        self._view: memoryview | None = None
        self.sequence = 0
        self.looks = 1
        self.rung = 0  # the peer's calls for which its bell has been rung
        # The link's to say: how many waits for an answer are to sleep at once, and how many seconds at most;
        # whether others are to begin with a yield, if there is no use in looks.
        self.eager = 0
        self.span = 0.0
        self.yields = False
        self.spins = False

    @property
    def awaited(self) -> int:
        """The peer's counter as last seen: what a wait waits to change."""
        raise NotImplementedError

    @property
    def moved(self) -> bool:
        """Whether the peer's counter is no longer as last seen."""
        return bool(self.words[self.peer_counter] != self.awaited)

    @property
    def backlog(self) -> int:
        """Bytes published and not yet acknowledged, now.  Any thread may ask: nothing is changed by it."""
        raise NotImplementedError

    @property
    def peer_attached(self) -> bool:
        """Whether the peer's state says that it is there.  Any thread may ask."""
        raise NotImplementedError

    @property
    def is_ready(self) -> bool:
        """Whether a byte can be moved, as last seen."""
        raise NotImplementedError

    @property
    def called(self) -> int:
        """What the peer wants of this end, as its calls say."""
        calls: int = self.words[self.peer_calls]
        return calls

    def verdict(self, probe: bool = False) -> Verdict:
        """What is to be done, see the tables above; `probe` asks the system whether the peer lives."""
        raise NotImplementedError

    def check_not_shut(self) -> None:
        """Raise ValueError with the reason if this half is shut."""
        if self._shut is not None:
            raise ValueError(self._shut)

    # A link that can wait puts functions of its own in the place of these: a call less each time.

    def ring(self) -> object:
        """Wake the peer, which is parked."""
        return None

    def sleep(self, seconds: float, events: int = 1) -> object:
        """Sleep until the peer rings, or for so many seconds; return something true if for fewer."""
        return None

    def give_way(self) -> None:
        """Let others have the processor."""

    def now(self) -> float:
        """The time in seconds."""
        return 0.0

    def rest(self, known: int, yielded: float = 0.0) -> int:
        """Wait a little for the peer's counter to be another than `known`, if it is; return the counter.

        `yielded` is when this wait began, if with a yield.
        """
        counter: int = self.words[self.peer_counter]
        return counter

    def _wait(self) -> bool:
        """`link.wait()`; ValueError with the reason when another thread shuts this half meanwhile."""
        try:
            moved = self._link.wait()
        except ValueError:
            self.check_not_shut()  # the memory may have gone
            raise
        self.check_not_shut()
        return moved

    def shut(self, reason: str) -> None:
        """Let every later call raise ValueError with this reason."""
        raise NotImplementedError

    def abort(self) -> None:
        """Mark that this end could not go on."""
        raise NotImplementedError

    def available(self) -> int:
        """How many bytes can be moved without a wait, now."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Release the view handed out, if something built on it does not hold it."""
        if self._view is not None:
            with contextlib.suppress(BufferError):
                self._view.release()
            self._view = None

    def _take_back(self, count: int) -> None:
        """Release the view handed out, of which `count` bytes are to be moved."""
        self.check_not_shut()
        size = 0 if self._view is None else len(self._view)
        if not 0 <= count <= size:
            raise ValueError(f"{self._name}: the view has {in_bytes(size)}, not {count}")
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
    data and counter need none.  `link.wait()` is called when the ring is full,
    `link.answer(calls)` when the consumer has set its calls.  A `persistent`
    stream outlives its receivers.

    `sequence` is the number of bytes published; `looks`, 1 or more, how often a
    full ring is looked at before `link.wait()`; `deserted` tells how the last receiver of a
    persistent stream went, as last seen, or is None.

    When anything stops a write or a commit in the middle, `owes` is true until a
    later one has made up for it: the stream must not be finished meanwhile.  A
    write makes up for every call before it, a commit for commits only.  When the
    call had published something, to do it again would double that: then nothing
    makes up for it, and later calls raise ValueError.  With `strict`, nothing
    ever does.
    """

    own_calls = layout.SENDER_CALLS
    peer_calls = layout.RECEIVER_CALLS
    own_counter = layout.WRITE_SEQ
    peer_counter = layout.READ_SEQ
    peer_state = layout.RECEIVER_STATE

    def __init__(
        self,
        words: memoryview,
        data: memoryview,
        name: str,
        *,
        barrier: Callable[[], None],
        ordered: bool,
        link: Link,
        persistent: bool = False,
    ) -> None:
        super().__init__(words, data, name, barrier=barrier, ordered=ordered, link=link)
        self._persistent = persistent
        self.deserted: Verdict | None = None
        self.strict = False
        # The sequence at which a call began that was not done.
        self._debt: int | None = None
        self._debt_of_commit = False
        self._acknowledged = 0
        self._wanted = 1  # free bytes that a call needs; fewer are not enough for it
        # Sequence up to which may be written without another look; -1 sends
        # every write the slow way, where its reason is known.
        self._limit = self.capacity

    @property
    def awaited(self) -> int:
        return self._acknowledged

    @property
    def backlog(self) -> int:
        # Our own counter first: what is acknowledged meanwhile only makes it less.
        return _between(0, self.sequence - self.words[_READ_SEQ], self.capacity)

    @property
    def peer_attached(self) -> bool:
        return self.deserted is None and layout.load_receiver_state(self.words, self._name) == layout.OPEN

    @property
    def is_ready(self) -> bool:
        return self._acknowledged + self.capacity >= self.sequence + self._wanted

    def available(self) -> int:
        return self._refresh()

    @property
    def in_flight(self) -> int:
        """Bytes published and not yet acknowledged, as last seen."""
        return self.sequence - self._acknowledged

    @property
    def owes(self) -> bool:
        """Whether a call has not done what was asked, and no later one has made up for it."""
        return self._debt is not None

    @property
    def receivers(self) -> int:
        """How many receivers this stream has had, with the one attached."""
        # ORDER: the state before the count, without a fence.  Pairs with `states.attach`, which counts first:
        # a receiver that died in between never came.  The next look puts right a count that is one too low.
        if layout.load_receiver_state(self.words, self._name) == layout.ABSENT:
            return 0
        return layout.load_receivers(self.words, self._name)

    def _refresh(self, looks: int = 1) -> int:
        """Load read_seq, up to `looks` times until it has moved; return how many bytes are free."""
        words = self.words
        known = self._acknowledged
        for _ in repeat(None, looks):
            read: int = words[_READ_SEQ]
            if read != known:
                if not known < read <= self.sequence:
                    raise layout.damaged(self._name, f"read_seq {read} outside {known} to {self.sequence}")
                # ORDER: read_seq before our stores.  Pairs with `Consumer.acknowledge` and `readinto`:
                # the consumer's loads of these bytes come before our stores over them.
                if not self._ordered:
                    self._barrier()
                self._acknowledged = known = read
                if self._shut is None and self._view is None and self._debt is None:
                    self._limit = read + self.capacity
                break
        return known + self.capacity - self.sequence

    def verdict(self, probe: bool = False) -> Verdict:
        """What is to be done; `probe` asks whether the receiver lives, or a dead one is not noticed.

        Raises LayoutError.
        """
        state = layout.load_receiver_state(self.words, self._name)
        # ORDER: the state before read_seq.  Pairs with `states.leave`.
        self._order()
        if probe and state == layout.OPEN and not self._link.peer_lives():
            # ORDER: the claim before the state, rule 4: it may have left properly between our two looks.
            self._barrier()
            state = layout.load_receiver_state(self.words, self._name)
            self._order()
            if state == layout.OPEN:
                state = layout.DIED
        free = self._refresh()
        gone = states.OF_RECEIVER.get(state)
        if gone is not None and not self._persistent:
            return gone
        self.deserted = gone
        return Verdict.READY if free >= self._wanted else Verdict.WAIT

    def write(self, data: ReadableBuffer) -> int:
        """Copy in and publish all of `data`, any buffer; return its size in bytes.

        Waits while the ring is full.  Raises ValueError when the producer is
        shut, and what the link raises.
        """
        # This is the path of every small piece: flat, one look at the peer.
        global wrote, rang
        start = self.sequence
        try:
            try:
                size = len(data)  # type: ignore[arg-type]
                end = start + size
                if end <= self._limit and size <= self._step:
                    offset = start % self.capacity
                    if offset + size <= self.capacity:
                        self._data[offset : offset + size] = data
                        # ORDER: the bytes before write_seq.  Pairs with `Consumer._refresh` and `readinto`.
                        if not self._ordered:
                            self._barrier()
                        self.sequence = end
                        words = self.words
                        words[_WRITE_SEQ] = end
                        calls = words[_RECEIVER_CALLS]
                        if calls and calls != self.rung:
                            if not wrote and calls & layout.PARKED and calls >> 1 != end:
                                # As the link answers who waits for a message; here, as in `readinto`.
                                self.ring()
                                self.rung = calls
                                rang = True
                            else:
                                self._link.answer(calls)
                        wrote = True
                        return size
            except (TypeError, ValueError):
                if self.sequence != start:
                    self.check_not_shut()  # by another thread
                    raise
                # Not plain bytes.
            return self._write_slowly(data)
        except BaseException:
            self.owe(start)
            raise

    def _write_slowly(self, data: ReadableBuffer) -> int:
        owed = self.begin_to_write()
        size = self.put(data)
        if size or not owed:
            self.settle()
        return size

    def writelines(self, lines: Iterable[ReadableBuffer]) -> None:
        """Write all the items: small ones of a list or tuple together, others as they come."""
        start = self.sequence
        try:
            owed = self.begin_to_write()
            self._put_all(_joined(lines) if isinstance(lines, (list, tuple)) else lines)
            if self.sequence != start or not owed:
                self.settle()
        except BaseException:
            self.owe(start)
            raise

    def begin_to_write(self) -> bool:
        """Owe what is to be written before a part of it is published; return whether a debt was there.

        Raises ValueError if nothing can be published now.
        """
        owed = self.owes
        self.owe(self.sequence)
        self._check_whole()
        if owed and self.strict:
            raise ValueError(f"{self._name}: an earlier write failed, so nothing can follow it")
        if self._view is not None:
            raise ValueError(f"{self._name}: commit() the reserved view first")
        return owed

    def owe(self, start: int) -> None:
        """Take note that a write which began at that sequence is not done; an older debt stays."""
        if self._debt is None:
            self._debt = start
        self._debt_of_commit = False
        self._limit = -1

    def _check_whole(self) -> None:
        """Raise ValueError when shut, or when a call was stopped after it had published something."""
        self.check_not_shut()
        if self._debt not in (None, self.sequence):
            self.shut(f"{self._name}: an earlier write was cut short, so nothing can follow it")
            self.check_not_shut()

    def settle(self) -> None:
        """Take note that nothing is owed any more."""
        self._debt = None
        self._limit = self._acknowledged + self.capacity

    def _put_all(self, pieces: Iterable[ReadableBuffer]) -> None:
        # A function of its own: in Python 3.12 and later what a signal handler raises
        # between two rounds of a loop is not caught by a `try` around it in the same function.
        for piece in pieces:
            self.put(piece)

    def put(self, data: ReadableBuffer) -> int:
        """Copy in and publish `data`; return its size in bytes."""
        with memoryview(data) as given:
            size = given.nbytes
            with given.cast("B") if given.c_contiguous else memoryview(given.tobytes()) as source:
                if size > self._acknowledged + self.capacity - self.sequence:
                    self._link.refuse_to_wait(size)
                done = 0
                while done < size:
                    # Released even by an exception, whose traceback would keep the memory.
                    with self._next_free(min(size - done, self._step)) as target:
                        count = len(target)
                        target[:] = source[done : done + count]
                    self._publish(count)
                    done += count
        return size

    def _next_free(self, most: int) -> memoryview:
        """The next free bytes in one piece: 1 to `most`; waits while the ring is full."""
        offset = self.sequence % self.capacity
        room = min(most, self.capacity - offset)
        free = self._acknowledged + self.capacity - self.sequence
        if free < room:
            free = self._refresh(1 if free else self.looks)
            while not free:
                self._wait()
                free = self._refresh()
            room = min(room, free)
        return self._data[offset : offset + room]

    def _publish(self, count: int) -> None:
        """Make the first `count` of the free bytes readable."""
        global wrote
        # ORDER: the bytes before write_seq, as in `write`.
        self._order()
        self.sequence += count
        self.words[_WRITE_SEQ] = self.sequence
        calls = self.words[_RECEIVER_CALLS]
        if calls and calls != self.rung:
            self._link.answer(calls)
        wrote = True

    def reserve(self, most: int) -> memoryview:
        """Hand out a writable view of 1 to `most` free bytes in one piece; waits while the ring is full."""
        if self._debt is not None:
            self._check_whole()
        self.check_not_shut()
        self.let_go()
        view = self._next_free(most)
        self._view = view
        self._limit = -1
        return view

    def commit(self, count: int) -> None:
        """Release the reserved view, and publish its first `count` bytes."""
        start = self.sequence
        try:
            if self._debt is not None:
                self._check_whole()
            self._take_back(count)
            if count:
                self._publish(count)
            if self._debt is None or (count and self._debt_of_commit and not self.strict):
                self.settle()
            else:
                self._debt = self.sequence  # that of a write stays, whatever is published meanwhile
        except BaseException:
            if self._debt is None:
                self._debt_of_commit = True
                self._debt = start
            self._limit = -1
            raise

    def shut(self, reason: str) -> None:
        """Let every later call raise ValueError with this reason."""
        self.let_go()
        self._shut = reason
        self._limit = -1

    def finish(self) -> None:
        """Mark the end of a stream that owes nothing.  StreamAborted if somebody else has ended it."""
        states.finish(self.words, self.sequence, self._name, self._order)

    def abort(self) -> None:
        """Mark that the stream ends here unfinished."""
        states.give_up(self.words, self.sequence, self._order)


def _joined(items: list[ReadableBuffer] | tuple[ReadableBuffer, ...]) -> Iterator[ReadableBuffer]:
    """The same bytes in fewer pieces, of at most `STEP` bytes if they are put together."""
    for first in range(0, len(items), _MANY):
        some = items[first : first + _MANY]
        try:
            joined = b"".join(some) if sum(map(len, some)) <= STEP else None  # type: ignore[arg-type]
        except (TypeError, BufferError):  # not all are plain bytes
            joined = None
        if joined is None:
            yield from some
        else:
            yield joined


class Consumer(Half):
    """The reading half of a ring.  One thread at a time.

    The arguments are those of `Producer`; `link.wait()` is called when the ring
    is empty.  `sequence` is the number of bytes acknowledged; `looks`, 1 or
    more, how often an empty ring is looked at before `link.wait()`.

    What is acknowledged was returned, or is kept for the next call.  A buffered
    file that wraps this end may lose bytes when `readinto` or `readall` raises
    in the middle of a read: it forgets what it had got before.  So both refuse
    to go on after that, with ReadFailed, until `resume`.
    """

    own_calls = layout.RECEIVER_CALLS
    peer_calls = layout.SENDER_CALLS
    own_counter = layout.READ_SEQ
    peer_counter = layout.WRITE_SEQ
    peer_state = layout.SENDER_STATE

    def __init__(
        self,
        words: memoryview,
        data: memoryview,
        name: str,
        *,
        barrier: Callable[[], None],
        ordered: bool,
        link: Link,
    ) -> None:
        super().__init__(words, data, name, barrier=barrier, ordered=ordered, link=link)
        self.sequence, self._published = layout.load_sequences(words, self.capacity, name)
        # ORDER: write_seq before the bytes.  Pairs with `Producer.write` and `_publish`.
        self._order()
        self._seen = 0  # unread bytes that a call has looked at, and that are not enough for it
        self._kept = bytearray()  # acknowledged, and not yet returned
        self._refuses = False

    @property
    def awaited(self) -> int:
        return self._published

    @property
    def backlog(self) -> int:
        return _between(0, self.words[_WRITE_SEQ] - self.sequence, self.capacity)

    @property
    def peer_attached(self) -> bool:
        return layout.load_sender_state(self.words, self._name) == layout.OPEN

    @property
    def is_ready(self) -> bool:
        return bool(self._kept) or self._published > self.sequence

    def available(self) -> int:
        return len(self._kept) + self._refresh()

    def _refresh(self, looks: int = 1) -> int:
        """Load write_seq, up to `looks` times until it has moved; return how many bytes are unread."""
        words = self.words
        known = self._published
        for _ in repeat(None, looks):
            write: int = words[_WRITE_SEQ]
            if write != known:
                most = self.sequence + self.capacity
                if not known < write <= most:
                    raise layout.damaged(self._name, f"write_seq {write} outside {known} to {most}")
                # ORDER: write_seq before the bytes.  Pairs with `Producer.write` and `_publish`.
                if not self._ordered:
                    self._barrier()
                self._published = known = write
                break
        return known - self.sequence

    def verdict(self, probe: bool = False) -> Verdict:
        """What is to be done; `probe` asks whether the sender lives, or a dead one is not noticed.

        Raises LayoutError.
        """
        state = layout.load_sender_state(self.words, self._name)
        # ORDER: the state before write_seq, rule 2.  Pairs with `states.finish` and `give_up`.
        self._order()
        if self._refresh() > self._seen:
            return Verdict.READY
        if state == layout.OPEN:
            if not probe or self._link.peer_lives():
                return Verdict.WAIT
            # ORDER: the claim before the state, rule 4: it may have finished properly between our two looks.
            self._barrier()
            state = layout.load_sender_state(self.words, self._name)
            self._order()
            if self._refresh() > self._seen:
                return Verdict.READY
        return states.OF_SENDER.get(state, Verdict.DIED)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Copy out and acknowledge bytes that are there; return how many, 0 at the end.

        Waits while there are none.  Raises ValueError when the consumer is
        shut, and what the link raises.
        """
        # This is the path of every small piece: flat, and what can be done
        # before the bytes are there comes before the look for them.
        global wrote, rang
        start, target = self.sequence, None
        try:
            target = memoryview(buffer)
            count = target.nbytes
            if type(buffer) is not bytearray and (not target.c_contiguous or target.readonly):
                raise TypeError(
                    f"{self._name}: readinto() needs a writable buffer whose bytes are in one piece"
                )
            if self._kept or self._refuses:
                return self._readinto_kept(target)
            if self._view is not None:
                self.let_go()
            words = self.words
            offset = start % self.capacity
            ready = self._published - start
            if ready <= 0:
                if not count or self._shut is not None:
                    self.check_not_shut()
                    return 0
                write = words[_WRITE_SEQ]
                if write == start and wrote:
                    # As the link's `rest` parks and yields; here, since after a pause each call takes
                    # microseconds.
                    if self.eager:
                        try:
                            words[_RECEIVER_CALLS] = start << 1 | 1  # `layout.parked`, one call less
                            wrote = rang = False
                            self.eager -= 1
                            # ORDER: our call before the sender's counter, without a fence: between the two
                            # there is time enough for each of us to have the other's store.  If not, the
                            # sleep is short.
                            write = words[_WRITE_SEQ]
                            if (
                                write == start
                                and words[_SENDER_STATE] == layout.OPEN
                                and self.sleep(self.span, 1)
                            ):
                                write = words[_WRITE_SEQ]
                                if write == start and words[_SENDER_STATE] == layout.OPEN:
                                    self.sleep(self.span, 1)  # that ring was for what is over
                                    write = words[_WRITE_SEQ]
                        finally:
                            words[_RECEIVER_CALLS] = 0
                    elif self.yields and (rang or not self.spins):
                        wrote = rang = False
                        began = self.now()
                        self.give_way()
                        write = words[_WRITE_SEQ]
                        if write == start or self.now() - began > STRANGER:
                            write = self.rest(start, began)
                    else:
                        write = self.rest(start)
                if start < write <= start + self.capacity:  # as in `_refresh`
                    # ORDER: write_seq before the bytes.  Pairs with `Producer.write` and `_publish`.
                    if not self._ordered:
                        self._barrier()
                    self._published = write
                    ready = write - start
                else:
                    ready = self._more()
                    if not ready:
                        return 0
            if count > ready:
                count = ready
            if count > self._step:
                count = self._step
            try:
                if offset + count <= self.capacity:
                    target[:count] = self._data[offset : offset + count]
                else:
                    self._copy_across_the_edge(target, count)
            except (ValueError, TypeError, NotImplementedError):  # not plain bytes
                self.check_not_shut()
                target = target.cast("B")
                self._copy_across_the_edge(target, count)
            # ORDER: our loads of these bytes before read_seq.  Pairs with `Producer._refresh`.
            if not self._ordered:
                self._barrier()
            end = start + count
            self.sequence = end
            words[_READ_SEQ] = end
            wrote = False
            calls = words[_SENDER_CALLS]
            if calls and calls != self.rung:
                self._link.answer(calls)
            return count
        except BaseException as error:
            if target is not None:
                if self.sequence != start:
                    self._keep_first(target, self.sequence - start)
                target.release()  # or the traceback would keep the caller's buffer
            self.refuse_after(error)
            if isinstance(error, ValueError):
                self.check_not_shut()  # by another thread
            raise

    def _copy_across_the_edge(self, target: memoryview, count: int, skipped: int = 0) -> None:
        """Copy out the next `count` unread bytes behind some that are skipped, wherever they lie."""
        offset = (self.sequence + skipped) % self.capacity
        first = min(count, self.capacity - offset)
        target[:first] = self._data[offset : offset + first]
        target[first:count] = self._data[0 : count - first]

    def _readinto_kept(self, target: memoryview) -> int:
        """`readinto`, of what is kept, unless the last one failed."""
        self.check_not_refused()
        self.let_go()
        with target.cast("B") as plain:
            part = self._kept[: len(plain)]
            count = len(part)
            plain[:count] = part
        before = len(self._kept)
        try:
            del self._kept[:count]
            return count
        except BaseException:
            if len(self._kept) != before:
                self._kept[:0] = part
            raise

    def check_not_refused(self) -> None:
        """Raise ReadFailed if `readinto` and `readall` refuse to go on."""
        self.check_not_shut()
        if self._refuses:
            raise ReadFailed(
                f"{self._name}: an earlier read failed, and the file around the Receiver may have lost "
                "bytes; read from the Receiver itself"
            )

    def refuse_after(self, error: BaseException) -> None:
        """Let `readinto` and `readall` go no further if an error in one of them could make it skip bytes."""
        broken = isinstance(error, (StreamAborted, SenderDied)) and not self.is_ready
        if not broken and not isinstance(error, TypeError):  # not a wrong buffer
            self._refuses = True

    def _keep_first(self, target: memoryview, count: int) -> None:
        """Keep the first bytes of the target, which are acknowledged, and which nobody gets now."""
        with target.cast("B") as plain:
            self._kept[:0] = plain[:count]
        self.words[_READ_SEQ] = self.sequence  # as in `acknowledge`

    def resume(self) -> None:
        """Let `readinto` go on, and release the view handed out: the program reads from this end itself."""
        if self._shut is not None:
            self.check_not_shut()
        self._refuses = False
        if self._view is not None:
            self.let_go()

    def read(self, most: int) -> bytes:
        """1 to `most` bytes in an object of their own, empty at the end; waits while there are none."""
        self.resume()
        ready = len(self._kept) or self._published - self.sequence
        if ready < most and not self._kept:
            ready = self._refresh() or self._more()
        data = self._next_bytes(min(most, ready))
        return self._returning(data, data)

    # The next four are for who waits elsewhere: none of them does.

    def find(self, separator: bytes, seen: int, there: int) -> int:
        """Where the first separator ends among the bytes that are there, kept and unread ones; 0 if nowhere.

        None ends among the first `seen` of them.
        """
        overlap = len(separator) - 1
        step = max(_FIRST_SEARCH, 2 * overlap)
        start = max(0, seen - overlap)
        while start + overlap < there:
            stop = min(start + step, there)
            found = self._part(start, stop).find(separator)
            if found >= 0:
                return start + found + len(separator)
            start = stop - overlap
            step = min(2 * step, STEP)
        return 0

    def _part(self, start: int, stop: int) -> bytes:
        """Those of the bytes that are there, kept and unread ones."""
        kept = len(self._kept)
        unread = self._copied(stop - max(start, kept), max(0, start - kept)) if stop > kept else b""
        return bytes(self._kept[start:stop]) + unread

    def take(self, count: int) -> bytes:
        """Return, and acknowledge, the next `count` bytes, which are there."""
        data = self._next_bytes(count)
        return self._returning(data, data)

    def expect(self, seen: int) -> None:
        """Let the verdict be READY only once there are more than `seen` bytes; those are there.

        What is as much as the ring holds is kept, and so is what follows, or there would never be more.
        """
        while seen >= self.capacity and self._published > self.sequence:
            self._keep(min(self._published - self.sequence, STEP))
        self._seen = max(0, seen - len(self._kept))

    def read1(self, most: int) -> bytes:
        """`read`, for what wraps this end."""
        try:
            self.check_not_refused()
            return self.read(most)
        except BaseException as error:
            self.refuse_after(error)
            raise

    def readall(self) -> bytes:
        """`read_to_end`, for what wraps this end."""
        try:
            self.check_not_refused()
            return self.read_to_end()
        except BaseException as error:
            self.refuse_after(error)
            raise

    def read_to_end(self) -> bytes:
        """All up to the end.  Acknowledged when it is returned; what the ring does not hold, as it comes."""
        data = self._next_bytes(self._size_of_all())
        return self._returning(data, data)

    def _size_of_all(self) -> int:
        self.resume()
        while True:
            ready = self._published - self.sequence
            # Once something had to be kept, the rest is too: both ends can copy at the same time.
            if ready == self.capacity or (ready and self._kept):
                self._keep(min(ready, STEP))
            elif not self._more_than(ready):
                return len(self._kept) + ready

    def readline(self, most: int) -> bytes:
        """Up to and with the next newline, at most `most` bytes; what is left at the end.

        Acknowledged when it is returned; of a line that is longer than the ring
        all but the last part as it comes.
        """
        self.resume()
        data = self._next_bytes(self._end_of_line(0, most))
        return self._returning(data, data)

    def readlines(self, least: int) -> list[bytes]:
        """Whole lines that have `least` bytes together; all up to the end if that is 0.

        Acknowledged as in `read`.
        """
        data = self._next_bytes(self._size_of_lines(least) if least else self._size_of_all())
        return self._returning(data, BytesIO(data).readlines())

    def _size_of_lines(self, least: int) -> int:
        self.resume()
        size, more = 0, True
        while more and size < least:
            end = self._end_of_line(size, sys.maxsize)
            more, size = end > size, end
        return size

    def _end_of_line(self, start: int, most: int) -> int:
        """How many bytes, kept and unread, go up to and with the next newline behind `start`; at most `most`.

        Waits for what is missing.  When the ring is full of one line, keeps that.
        """
        kept = self._kept
        end = kept.find(b"\n", start, most) + 1 if kept else 0
        while not end:
            size = len(kept)
            if size >= most:
                return most
            count, is_whole = self._find_end_of_line(max(start - size, 0), most - size)
            if is_whole:
                return size + count
            self._keep(count)
        return end

    def _find_end_of_line(self, seen: int, most: int) -> tuple[int, bool]:
        """How many unread bytes are the rest of a line, at most `most`; False when there is more of it.

        That is so when the ring is full of it.  Waits for what is missing.
        The first bytes, that are `seen`, have no newline that counts.
        """
        step = _FIRST_SEARCH
        while True:
            ready = min(self._published - self.sequence, most)
            while seen < ready:
                offset = (self.sequence + seen) % self.capacity
                piece = bytes(self._data[offset : min(offset + min(step, ready - seen), self.capacity)])
                found = piece.find(b"\n") + 1
                if found:
                    return seen + found, True
                seen += len(piece)
                step = min(2 * step, STEP)
            if seen == most:
                return seen, True
            if seen == self.capacity:
                return seen, False
            try:
                if not self._more_than(seen):
                    return seen, True
            except (StreamAborted, SenderDied):
                # A part of a line is returned; whoever calls again is told.
                if not seen and not self._kept:
                    raise
                return seen, True

    def _more_than(self, seen: int) -> bool:
        """Wait until there are more than `seen` unread bytes; False when the stream ends before."""
        try:
            self._seen = seen
            return self._wait_for_more_than(seen)
        except ValueError:
            self.check_not_shut()  # by another thread
            raise
        finally:
            self._seen = 0

    def _wait_for_more_than(self, seen: int) -> bool:
        # A function of its own, as `_put_all` is.
        if self._refresh() <= seen:
            self.rest(self._published)
        while self._refresh(self.looks) <= seen:
            if not self._wait():
                return False
        return True

    def _more(self) -> int:
        """Wait for unread bytes; return how many there are, 0 at the end."""
        self.check_not_shut()
        return self._published - self.sequence if self._more_than(0) else 0

    def _copied(self, count: int, skipped: int = 0) -> bytes:
        """The next `count` unread bytes behind some that are skipped; they are there."""
        offset = (self.sequence + skipped) % self.capacity
        first = self.capacity - offset
        if count <= first:
            return bytes(self._data[offset : offset + count])
        return b"".join((self._data[offset:], self._data[: count - first]))

    def _next_bytes(self, count: int) -> bytes:
        """The next `count` bytes, kept and then unread ones, which are there."""
        if not self._kept:
            return self._copied(count)
        before = len(self._kept)
        if count > before:
            return bytes(self._kept) + self._copied(count - before)
        with memoryview(self._kept) as view:
            return bytes(view[:count])

    def _returning(self, data: bytes, result: _Result) -> _Result:
        """Acknowledge the next bytes, which are `data`, and return what the caller gets for them."""
        kept = self._kept
        before = len(kept)
        start = self.sequence
        try:
            if len(data) > before:
                self.acknowledge(len(data) - before)
            if before:
                del kept[: len(data)]
            return result
        except BaseException:
            if len(kept) != before:
                kept[:0] = data
            elif self.sequence != start:
                kept += data[before:]
            raise

    def _keep(self, count: int) -> None:
        """Keep the next `count` unread bytes, which are there, and acknowledge them."""
        size = len(self._kept)
        start = self.sequence
        try:
            self._kept += self._copied(count)
            self.acknowledge(count)
        except BaseException:
            if self.sequence == start:
                del self._kept[size:]
            raise

    def view(self, most: int) -> memoryview:
        """The next unread bytes in one piece: 1 to `most`, empty at the end; waits while there are none."""
        if self._view is not None:
            self.let_go()
        ready = self._published - self.sequence
        offset = self.sequence % self.capacity
        room = min(most, self.capacity - offset)
        if ready < room:
            ready = self._more() if ready <= 0 else self._refresh()
        return self._data[offset : offset + min(room, ready)]

    def peek(self, most: int) -> memoryview:
        """Hand out a read-only view of what `view` gives, or of what is kept."""
        self.resume()
        if self._kept:
            peeked = memoryview(bytes(self._kept[:most]))
        else:
            with self.view(most) as view:
                peeked = view.toreadonly()
        self._view = peeked
        return peeked

    def acknowledge(self, count: int) -> None:
        """Give the first `count` unread bytes back to the producer."""
        global wrote
        # ORDER: our loads of these bytes before read_seq.  Pairs with `Producer._refresh`.
        if not self._ordered:
            self._barrier()
        words = self.words
        try:
            self.sequence = end = self.sequence + count
            words[_READ_SEQ] = end
        except BaseException:  # between the two, or the producer would wait for what it is not told
            words[_READ_SEQ] = self.sequence
            raise
        wrote = False
        calls = words[_SENDER_CALLS]
        if calls and calls != self.rung:
            self._link.answer(calls)

    def consume(self, count: int) -> None:
        """Release the peeked view, and acknowledge its first `count` bytes."""
        self._take_back(count)
        if self._kept:
            del self._kept[:count]
        elif count:
            self.acknowledge(count)

    def shut(self, reason: str) -> None:
        """Let every later call raise ValueError with this reason."""
        self.let_go()
        self._shut = reason
        self._published = -1

    def close(self) -> None:
        """Mark that the receiver left, and wants no more."""
        states.leave(self.words, layout.CLOSED, self._order)

    def abort(self) -> None:
        """Mark that the receiver left because it could not go on."""
        states.leave(self.words, layout.ABORTED, self._order)
