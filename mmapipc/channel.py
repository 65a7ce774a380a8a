"""`Sender` and `Receiver`: a ring in named memory, with a role at each end, as raw files.

How each end can end, and what the other end then meets:

    the sender ...                       the receiver gets every published byte, then
    -----------------------------------  --------------------------------------------
    `finish()`, or `close()`             a clean end (`b""`)
    `abort()`; leaves a `with` block     `StreamAborted` (a ConnectionAbortedError)
      by an exception; is collected
      without `close()`
    is killed                            `SenderDied` (a ConnectionResetError)

    the receiver ...                     the sender gets
    -----------------------------------  --------------------------------------------
    took every byte                      nothing: its `close()` returns
    `close()` before that                `ReceiverLeft` (a ReceiverGone)
    `abort()`; leaves a `with` block     `ReceiverGone` (a BrokenPipeError)
      by an exception; is collected
      without `close()`; is killed
    any of these, and the sender has     nothing: the next receiver goes on at the
      `persist`                          first byte not acknowledged

A byte is acknowledged when `read`, `readinto` or `readline` returns it, or when
`consume` says so: a program that must lose nothing, not even when it is killed,
uses `peek`, brings the bytes to safety, and then calls `consume`.

Thread-safety: an end is for one thread at a time, as other raw files are; wrap
it in `io.BufferedReader` or `io.BufferedWriter`, which lock.  Any thread may ask
for `tell()`, `in_flight`, `attached`, `capacity` and the `repr`.  The two ends
may be in different threads, or in one.

A forked child does not inherit its parent's ends: in the child they are closed.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import operator
import os
import sys
import time
import warnings
import weakref

from . import layout, platform, ring, waiting
from .errors import (
    ChannelError,
    ChannelTimeout,
    InvalidCapacity,
    InvalidSize,
    LayoutError,
    MemoryRefused,
    NoSuchMapping,
    ReceiverGone,
    ReceiverLeft,
    RoleTaken,
    SenderDied,
    StreamAborted,
    Undelivered,
    UnsafeMemory,
)

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, TypeVar

    from _typeshed import ReadableBuffer, WriteableBuffer

    _Half = TypeVar("_Half", bound=ring.Half)

DEFAULT_CAPACITY = 1 << 22  # bytes

_LOOKING = 1.0  # seconds that others may take who look for a stream in a file
_LINGER = 5.0  # seconds that memory with nobody attached may go on existing
_LINE_PIECE = 8192  # bytes looked through at a time for the end of a line


class _End(io.RawIOBase):
    """What both ends share: the name, the claim, the memory, the way to wait."""

    _end: ring.Half
    _role: str
    _peer: str  # the other end's role
    _mapping: mmap.mmap | None = None  # set while the end is open
    _memory: platform.Memory | None = None
    _claim: platform.Claim | None = None
    _waiter: waiting.Waiter

    def __init__(self, name: str, timeout: float | None, file: str | os.PathLike[str] | None) -> None:
        super().__init__()
        if not isinstance(name, str):
            raise TypeError(f"the name of a channel is a str, not {type(name).__name__}")
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"{name}: timeout is a number of seconds from 0 on, or None; not {timeout}")
        self._name = name
        self._place = platform.place(name)
        self._timeout = timeout
        # A process may change its directory.
        self._file = None if file is None else os.path.abspath(os.fsdecode(file))
        if self._file is not None:
            self._place = self._place.in_file(self._file)
        self._closed_message = f"{name}: I/O operation on closed channel"

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    @property
    def capacity(self) -> int:
        """Size of the ring in bytes."""
        self._check_open()
        return len(self._data)

    @property
    def in_flight(self) -> int:
        """Bytes published and not yet acknowledged, at this moment.  Any thread may ask."""
        self._check_open()
        return self._end.backlog

    @property
    def attached(self) -> bool:
        """Whether the other end is there; one that was killed, until that is noticed.  Any thread may ask."""
        self._check_open()
        return self._end.peer_attached

    def __repr__(self) -> str:
        kind = f"mmapipc.{type(self).__name__} {self._name!r}"
        try:
            peer = f"{self._peer} attached" if self.attached else f"no {self._peer}"
            return f"<{kind} at byte {self._end.sequence}, {self.in_flight} of {self.capacity} in flight, {peer}>"
        except LayoutError:
            return f"<{kind} damaged>"
        except (ValueError, AttributeError):  # closed, or there is no stream yet
            return f"<{kind} closed>"

    def _map(self, memory: platform.Memory, capacity: int) -> None:
        """Map header and ring."""
        self._memory = memory
        mapping = memory.map(layout.HEADER_SIZE + capacity)
        with memoryview(mapping) as whole:
            self._words = whole[: layout.HEADER_SIZE].cast("Q")
            self._data = whole[layout.HEADER_SIZE :]
        self._mapping = mapping

    def _connect(self, half: type[_Half], **options: Any) -> _Half:
        """Make this end's half of the ring, and its waiter.

        Both call back, and must not keep this end alive.
        """
        mapping = self._mapping
        assert mapping is not None
        wait, unheard = weakref.WeakMethod(self._wait), weakref.WeakMethod(self._unheard)
        platform.join_fences()
        waiter = self._waiter = waiting.Waiter(
            platform.futex(mapping, half.own_counter * 8),
            platform.futex(mapping, half.peer_counter * 8),
            lambda: unheard()(),  # type: ignore[misc]
        )
        end = waiter.end = half(
            self._words,
            self._data,
            self._name,
            barrier=ring.Barrier(),
            ordered=platform.ORDERED,
            wait=lambda: wait()(),  # type: ignore[misc]
            answer=waiter.answer,
            **options,
        )
        return end

    def _unmap(self) -> None:
        """Let go of memory and views."""
        _open_ends.discard(self)
        mapping, self._mapping = self._mapping, None
        if mapping is None:
            return
        if hasattr(self, "_end"):
            self._end.shut(self._closed_message)
        self._words.release()
        self._data.release()
        # A slice that the user made of a view keeps the memory until it is collected.
        with contextlib.suppress(BufferError):
            mapping.close()

    def _leave(self) -> None:
        """Give everything back.  What the peer is to know was stored before."""
        self._unmap()
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
        if self._claim is not None:
            self._release_claim()
            # Tidying up must not hide the outcome of the stream.
            with contextlib.suppress(ChannelError):
                platform.sweep(self._place)
        super().close()

    def _release_claim(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()

    @contextlib.contextmanager
    def _leaving_on_error(self) -> Iterator[None]:
        """Around what opens this end, once the role is claimed."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, (LayoutError, UnsafeMemory)):
                # Sweep nothing: what is there is not ours.
                self._release_claim()
            self._leave()
            raise

    def _disown(self) -> None:
        """In a forked child: be closed without a word to the peer."""
        self._unmap()
        self._memory = self._claim = None
        super().close()

    def _check_open(self) -> None:
        if self._mapping is None:
            raise ValueError(self._closed_message)

    def _verdict(self, probe: bool) -> ring.Verdict:
        """The ring's verdict; `probe` asks the system whether the peer lives."""
        return self._end.verdict(self._peer_stands if probe else None)

    def _peer_stands(self) -> bool:
        memory = self._memory
        assert memory is not None
        return self._stands_in(memory, self._words)

    def _stands_in(self, memory: platform.Memory, words: memoryview) -> bool:
        """Whether the peer that attached to this very memory lives.

        In a file by the pid, when that is known: somebody else may have taken
        the role and not yet said in the file that his predecessor died.
        """
        if self._file is None:
            return memory.stands(self._peer)
        holder = platform.holder(self._place, self._peer)
        sender, receiver = layout.load_pids(words, self._name)
        return holder is not None and holder in (0, sender if self._peer == platform.SENDER else receiver)

    def _verdict_at_last(self, probe: bool) -> ring.Verdict | None:
        """The ring's verdict, or None while there is only to wait."""
        verdict = self._verdict(probe)
        return None if verdict is ring.Verdict.WAIT else verdict

    def _wait(self) -> bool:
        """Wait for the peer; return whether there is something to move.  Raises at a broken end."""
        raise NotImplementedError

    def _unheard(self) -> None:
        """The peer has set its calls, and does not sleep."""

    def _hail(self) -> None:
        """Let a peer that sleeps see that a state has changed."""
        if self._end.peer_calls == layout.PARKED:
            self._waiter.wake()

    def abort(self) -> None:
        """Close this end as somebody who could not go on, without waiting.

        After a sender the receiver gets every published byte and then
        StreamAborted, unless the stream was finished already; after a receiver
        the sender gets ReceiverGone, unless every byte was taken.
        """
        if self._mapping is not None:
            self._end.abort()
            self._hail()
        self._leave()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception, abort."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def readable(self) -> bool:
        """Whether this is the receiving end."""
        self._check_open()
        return self._role == platform.RECEIVER

    def writable(self) -> bool:
        """Whether this is the sending end."""
        self._check_open()
        return self._role == platform.SENDER

    def seekable(self) -> bool:
        """False: a channel is a stream."""
        self._check_open()
        return False

    def __del__(self) -> None:
        self._dealloc_warn(self)

    def _dealloc_warn(self, source: object) -> None:
        # The buffered classes call this too, when they are collected without
        # close() and before they close what they wrap (as on io.FileIO).
        if self._mapping is not None:
            try:
                warnings.warn(f"unclosed {source!r}", ResourceWarning, stacklevel=2, source=source)
            finally:
                self.abort()


class Sender(_End):
    """The writing end of the channel `name`: makes it, and is a raw, writable file.

    Returns as soon as the channel exists, whether or not a receiver is there.
    When a receiver is still attached to an older stream of that name, waits
    until it has left.  `capacity` is the size of the ring in bytes.  `timeout`
    bounds every wait, in seconds; None waits as long as it takes, as a FIFO does.

    With `persist`, the stream outlives its receivers: when one leaves early or
    dies, the next goes on at the first byte that is not acknowledged.

    With `file`, a path, the ring is in that file, which is made if need be: the
    stream persists, and what is not acknowledged outlives both processes.
    `close()` then returns when the disk has it, and a receiver may come later.
    A file of another kind is left as it is; one whose last stream was taken is
    used again; Undelivered is raised when it has bytes that were not.

    A stream that is finished ends cleanly at the receiver.  One that is given
    up (`abort()`, a `with` block left by an exception, a Sender collected
    without `close()`, a killed process) gives the receiver every published
    byte and then an error: a truncated stream is never taken for a whole one.
    (Close a wrapper such as `io.BufferedWriter` only at the good end: its own
    `with` block closes the Sender properly even when an exception leaves it.)

    Raises InvalidName, InvalidCapacity, RoleTaken (the error names the other
    sender's pid), ChannelTimeout, MemoryRefused, UnsafeMemory, LayoutError,
    Undelivered.
    """

    _end: ring.Producer
    _role = platform.SENDER
    _peer = platform.RECEIVER
    _lingers_since: float | None = None
    _told_of = 0  # lost receivers
    _finished = False

    def __init__(
        self,
        name: str,
        capacity: int = DEFAULT_CAPACITY,
        timeout: float | None = None,
        *,
        persist: bool = False,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(name, timeout, file)
        capacity = operator.index(capacity)
        if not 1 <= capacity <= layout.LARGEST_CAPACITY:
            raise InvalidCapacity(f"{name}: a ring has at least 1 byte and at most 2**62, not {capacity}")
        self._persist = persist or file is not None
        self._claim = platform.claim(self._place, self._role)
        with self._leaving_on_error():
            path = self._file
            if path is None:
                begun = waiting.until(lambda probe: self._begin_in_memory(capacity), timeout)
            else:
                begun = waiting.until(lambda probe: self._begin_in_file(path, capacity), timeout)
            if not begun:
                raise ChannelTimeout(
                    f"{name}: a receiver is still attached to an earlier stream after {timeout:g} s; "
                    "end it or wait longer"
                )
            _open_ends.add(self)  # something to be undone in a forked child
        # One call less on the hot path; the method below has the description.
        self.write = self._end.write  # type: ignore[method-assign]

    def _begin(self, owner: int) -> None:
        """Make the ring in the memory that is mapped."""
        self._end = self._connect(ring.Producer, persistent=self._persist, owner=owner)
        self._end.create(int.from_bytes(os.urandom(8), "little"), os.getpid())

    def _begin_in_memory(self, capacity: int) -> bool | None:
        """Begin a stream in new memory; None while an earlier one is in the way."""
        if not self._take_over():
            return None
        self._map(platform.create(self._place, layout.HEADER_SIZE + capacity), capacity)
        self._begin(0)
        return True

    def _begin_in_file(self, path: str, capacity: int) -> bool | None:
        """Begin a stream in the file; None while a receiver is attached to an earlier one."""
        size = layout.HEADER_SIZE + capacity
        owner = layout.owner(self._name)
        memory = _find_file(self._name, path)
        if memory is None:
            with _naming(self._name):
                platform.mark(platform.Place(path, path), layout.BEGUN_MARK)
            memory = _find_file(self._name, path)
        if memory is None:
            return None  # somebody has just removed it
        try:
            if not self._settle_file(memory, path):
                return None
            if memory.size() < size:
                # Before the other role is taken, for it can last.
                larger = _open_file(self._name, path, size)
                memory.close()
                memory = larger
            # For this moment nobody may attach: receivers do it with their role.
            try:
                other = platform.claim(self._place, self._peer)
            except RoleTaken:
                return None
            try:
                with _words(memory) as words:
                    layout.begin(words, owner)
                self._map(memory, capacity)
                # Or the disk might go on having the end of the stream before, with bytes of this one.
                self._flush()
                self._begin(owner)
            finally:
                other.release()
            return True
        finally:
            if self._memory is None:
                memory.close()

    def _settle_file(self, memory: platform.Memory, path: str) -> bool:
        """Check that the file can be used, and end what a dead sender left; return whether no receiver is attached.

        From then on only receivers change it, and they make its bytes fewer.
        """
        if memory.size() < layout.HEADER_SIZE:
            return True  # it has just been made
        with _words(memory) as words:
            layout.check_owner(words, self._name, path)
            header = ring.load_header(words, self._name, barrier=ring.Barrier(), ordered=platform.ORDERED)
            if header is None:
                return True
            if ring.Producer.settle(words, self._name) and self._stands_in(memory, words):
                return False
            read, write = layout.load_sequences(words, header.capacity, self._name)
        if read != write:
            raise Undelivered(
                f"{self._name}: {path} has {write - read} bytes of an earlier stream that no receiver has taken; "
                "receive them, or remove the file"
            )
        return True

    def _take_over(self) -> bool:
        """End and remove what an earlier sender left; return whether nothing is in the way any more."""
        memory = platform.open_existing(self._place)
        if memory is None:
            return True
        try:
            with _header(memory, self._name) as found:
                attached = (
                    found is not None
                    and ring.Producer.settle(found[0], self._name)
                    and self._stands_in(memory, found[0])
                )
        finally:
            memory.close()
        if attached:
            self._lingers_since = None
            return False
        platform.remove(self._place)
        # Where names vanish by themselves, a receiver that looks for a stream
        # may have it open for a moment; nobody else should.
        now = time.perf_counter()
        if self._lingers_since is None:
            self._lingers_since = now
        if now - self._lingers_since > _LINGER:
            raise MemoryRefused(
                f"{self._name}: a process still holds memory of that name, but is not attached; end it or use another name"
            )
        return False

    def read(self, n: int | None = -1) -> bytes:
        """Unsupported: this end writes."""
        raise io.UnsupportedOperation("read")

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Unsupported: this end writes."""
        raise io.UnsupportedOperation("readinto")

    def _verdict(self, probe: bool) -> ring.Verdict:
        came = self._end.receivers
        verdict = super()._verdict(probe)
        if self._persist:
            if self._finished and not self._end.in_flight:
                # All but the last, which has taken everything and may leave.
                lost = self._end.receivers - 1
            else:
                # All but one that is attached, also those that came and went
                # between two looks.
                lost = came - (self._end.deserted is None)
                if self._told_of < lost == came and platform.holder(self._place, self._peer) is not None:
                    lost -= 1  # the next one is about to attach, and may be counted already
            if self._told_of < lost:
                more, self._told_of = lost - self._told_of, lost
                self._receivers_lost(more)
        return verdict

    def _receivers_lost(self, count: int) -> None:
        """Called when a persistent stream has lost so many more receivers."""

    def _wait(self) -> bool:
        self._raise_unless_fine(self._waiter.until_moved(self._verdict_at_last, self._timeout))
        return True

    def _unheard(self) -> None:
        # It left, or is not where it said that it sleeps.
        if self._end.peer_calls == layout.LEFT or self._waiter.probe_is_due():
            self._raise_if_left()

    def _raise_if_left(self) -> None:
        """Raise when the receiver is gone and bytes are lost with it."""
        verdict = self._verdict(True)
        # Bytes published and taken in the meantime are delivered.
        if self._end.in_flight:
            self._raise_unless_fine(verdict)

    def _raise_unless_fine(self, verdict: ring.Verdict | None) -> None:
        if verdict in (ring.Verdict.READY, ring.Verdict.WAIT, ring.Verdict.END):
            return
        undelivered = f"{self._end.in_flight} bytes were not delivered"
        if verdict is None:
            there = "the receiver took nothing" if self._end.receivers else "no receiver came"
            raise ChannelTimeout(f"{self._name}: {there} for {self._timeout:g} s; {undelivered}")
        if verdict is ring.Verdict.LEFT:
            raise ReceiverLeft(f"{self._name}: the receiver left early; {undelivered}")
        if verdict is ring.Verdict.GAVE_UP:
            raise ReceiverGone(f"{self._name}: the receiver gave up; {undelivered}")
        raise ReceiverGone(f"{self._name}: the receiver died; {undelivered}")

    def write(self, data: ReadableBuffer) -> int:
        """Write all of `data`, any buffer; return its size in bytes.

        Waits while the ring is full.  Raises ReceiverGone when the receiver
        left or died, ChannelTimeout when it took nothing for `timeout` seconds,
        ValueError when the stream is closed or finished or a reserved view is
        not yet committed, LayoutError.

        After an error `tell()` says how much was published.  If that was none
        of `data`, the same may be written again; if it was a part, the stream
        cannot go on.  Either way `close()` gives such a stream up, unless a
        later write has made good for it.  (To send what can be sent at once,
        use `reserve` and `commit`.)
        """
        self._check_open()
        return self._end.write(data)

    def reserve(self, n: int) -> memoryview:
        """A writable view of 1 to `n` contiguous free bytes of the ring; waits for at least 1.

        Fill it, then `commit()`.  A second `reserve` before that replaces the
        first.  Raises as `write` does.
        """
        self._check_open()
        _check_positive(n)
        if self._waiter.probe_is_due():
            self._raise_if_left()
        return self._end.reserve(n)

    def commit(self, k: int) -> None:
        """Publish the first `k` bytes of the reserved view, and release it.

        Raises ValueError when the view has fewer, BufferError while something
        built on the view (an array, say) holds it, ReceiverGone.
        """
        self._check_open()
        self._end.commit(k)

    def tell(self) -> int:
        """Bytes published so far: the sequence counter."""
        self._check_open()
        return self._end.sequence

    def finish(self) -> None:
        """Mark the end of the stream, without waiting.  Nothing can be written after it."""
        self._check_open()
        self._end.shut(f"{self._name}: the stream is finished")
        # In a file: the mark is on the disk only when the bytes are.
        self._flush()
        self._end.finish()
        self._finished = True
        self._flush()
        self._hail()

    def _flush(self) -> None:
        if self._file is not None:
            assert self._memory is not None and self._mapping is not None
            self._memory.flush(self._mapping)

    def close(self) -> None:
        """Mark the end of the stream and wait until the receiver has acknowledged the last byte.

        A return without an error means that every byte was taken (an empty
        stream: that a receiver came); with `file`, which is not waited for,
        that every byte is on the disk.  Raises ChannelTimeout or ReceiverGone,
        which say how many bytes were not delivered, or StreamAborted when a
        write had failed; this end is closed all the same.
        """
        if self._mapping is None:
            super().close()
            return
        try:
            if self._end.owes:
                self._give_up()
            self.finish()
            if self._file is not None:
                return
            while (verdict := self._delivered(False) or self._waiter.until_moved(self._delivered, self._timeout)) is ring.Verdict.READY:
                pass  # the receiver goes on taking
            self._raise_unless_fine(verdict)
        finally:
            self._leave()

    def _give_up(self) -> None:
        """End a stream that a failed write has left incomplete."""
        verdict = self._verdict(True)
        self._end.abort()
        self._hail()
        self._raise_unless_fine(verdict)
        raise StreamAborted(f"{self._name}: an earlier write failed, so the stream was given up and not finished")

    def _delivered(self, probe: bool) -> ring.Verdict | None:
        """END once every byte is taken, None while that can still be."""
        self._hail()  # the receiver may have gone to sleep just when the end was marked
        verdict = self._verdict(probe)
        if not self._end.in_flight and self._end.receivers:
            return ring.Verdict.END
        return None if verdict in (ring.Verdict.READY, ring.Verdict.WAIT) else verdict


class Receiver(_End):
    """The reading end of the channel `name`: a raw, readable file.

    Waits until there is a stream to attach to.  `timeout` bounds every wait,
    in seconds; None waits as long as it takes, as a FIFO does.

    Reading gives `b""` only at the end of a stream that its sender finished.
    A stream that its sender gave up raises StreamAborted, one whose sender was
    killed SenderDied, each after every byte that was published.

    A receiver that leaves before the end gives the sender a BrokenPipeError:
    ReceiverLeft after `close()`, ReceiverGone when it gives up (`abort()`, a
    `with` block left by an exception, collected without `close()`) or is killed.
    Unless the sender made the stream with `persist`: then the next receiver
    goes on where this one stopped, and `tell()` is not 0 at its start.
    (The `with` block of a wrapper such as `io.BufferedReader` closes the
    Receiver properly even when an exception leaves it.)

    With `file`, the path that the sender has, the sender may have gone already:
    what it left is read, and ends as it ended.

    Raises InvalidName, RoleTaken (the error names the other receiver's pid),
    ChannelTimeout, MemoryRefused, UnsafeMemory, LayoutError.
    """

    _end: ring.Consumer
    _role = platform.RECEIVER
    _peer = platform.SENDER
    _kept = b""  # acknowledged, and not yet given to anybody

    _refused_since: float | None = None
    _refusal: RoleTaken | None = None

    def __init__(
        self, name: str, timeout: float | None = None, *, file: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__(name, timeout, file)
        attach = self._attach if self._file is None else self._attach_file
        if self._file is None:
            self._claim = platform.claim(self._place, self._role)
        with self._leaving_on_error():
            if not waiting.until(attach, timeout):
                if self._refusal is not None:
                    raise self._refusal
                raise ChannelTimeout(f"{name}: no sender came for {timeout:g} s; start one or wait longer")
        # One call less on the hot path; the method below has the description.
        self.readinto = self._end.readinto  # type: ignore[method-assign]

    def _attach(self, probe: bool) -> bool | None:
        """Attach to the stream; None while there is none."""
        memory = platform.open_existing(self._place) if self._file is None else _find_file(self._name, self._file)
        if memory is None:
            return None
        try:
            with _header(memory, self._name) as found:
                if found is None:
                    return None
                words, header = found
                if self._file is not None:
                    layout.check_owner(words, self._name, self._file)
                if not ring.Consumer.attachable(
                    words,
                    self._name,
                    header.persistent,
                    lambda: self._stands_in(memory, words),
                    kept=self._file is not None,
                ):
                    return None
            size = layout.HEADER_SIZE + header.capacity
            # A file may be longer: it had a larger ring before.
            if not (memory.fits(size) if self._file is None else memory.size() >= size):
                raise layout.damaged(self._name, f"capacity {header.capacity} does not fit its size")
            self._map(memory, header.capacity)
            self._end = self._connect(ring.Consumer)
            self._end.attach(os.getpid())
            _open_ends.add(self)  # something to be undone in a forked child
            return True
        finally:
            if self._memory is None:
                memory.close()

    def _attach_file(self, probe: bool) -> bool | None:
        """As `_attach`, with the role taken for the look: a sender needs it to begin a stream in the file."""
        try:
            self._claim = platform.claim(self._place, self._role)
        except RoleTaken as refusal:
            self._refusal = refusal
            # Another that looks has it for a moment, one that is attached for long.
            now = time.perf_counter()
            if self._refused_since is None:
                self._refused_since = now
            if now - self._refused_since > _LOOKING:
                raise
            return None
        self._refused_since = self._refusal = None
        if self._attach(probe):
            return True
        self._release_claim()
        return None

    def _wait(self) -> bool:
        verdict = self._waiter.until_moved(self._verdict_at_last, self._timeout)
        if verdict is ring.Verdict.READY:
            return True
        if verdict is ring.Verdict.END:
            return False
        if verdict is None:
            raise ChannelTimeout(f"{self._name}: the sender sent nothing for {self._timeout:g} s")
        truncated = f"the stream is not whole, it stops after {self._end.sequence} bytes"
        if verdict is ring.Verdict.GAVE_UP:
            raise StreamAborted(f"{self._name}: the sender gave up; {truncated}")
        raise SenderDied(f"{self._name}: the sender died; {truncated}")

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` with at least 1 byte; return how many, 0 at the end of a finished stream.

        Waits for the first byte.  The bytes are acknowledged once they are in
        `buffer`.  Releases the view of an earlier `peek`.  Raises
        StreamAborted, SenderDied, ChannelTimeout, LayoutError.
        """
        self._check_open()
        if not self._kept:
            return self._end.readinto(buffer)
        with memoryview(buffer) as given, given.cast("B") as target:
            kept = self._take_kept(len(target))
            target[: len(kept)] = kept
        return len(kept)

    def write(self, data: ReadableBuffer) -> int:
        """Unsupported: this end reads."""
        raise io.UnsupportedOperation("write")

    def _keep(self, part: bytes) -> None:
        """Put back what a read that failed had taken already."""
        self._kept = part
        self.__dict__.pop("readinto", None)  # the method looks here first

    def _take_kept(self, n: int) -> bytes:
        """Up to `n` of the bytes that were put back."""
        part, self._kept = self._kept[:n], self._kept[n:]
        return part

    def read(self, n: int | None = -1) -> bytes:
        """At least 1 and at most `n` bytes, `b""` at the end of a finished stream; all of it without `n`.

        Raises as `readinto` does.
        """
        if n is None or n < 0:
            return self.readall()
        self._check_open()
        if self._kept or not n:
            return self._take_kept(n)
        return self._end.read(n)

    def readall(self) -> bytes:
        """Everything up to the end of the stream.

        Raises as `readinto` does, also when bytes came first: what came before
        a broken end is not the whole.  Those bytes are there for the next read.
        """
        self._check_open()
        pieces = [self._take_kept(len(self._kept))]
        try:
            while piece := self._end.read(ring.STEP):
                pieces.append(piece)
        except BaseException:
            self._keep(b"".join(pieces))
            raise
        return b"".join(pieces)

    def readline(self, size: int | None = -1) -> bytes:
        """Bytes up to and with the next newline, at most `size` of them; what is left at the end.

        Raises as `readinto` does.  When part of a line came before a broken
        end, returns that part, and the next call raises; when it came before a
        timeout, raises, and the part is there for the next read.
        """
        self._check_open()
        most = sys.maxsize if size is None or size < 0 else size
        line = b""
        while len(line) < most and not line.endswith(b"\n"):
            try:
                piece = self._piece_of_line(most - len(line))
            except (StreamAborted, SenderDied):
                if not line:
                    raise
                break
            except BaseException:
                self._keep(line)
                raise
            if not piece:
                break
            line += piece
        return line

    def _piece_of_line(self, most: int) -> bytes:
        """Some bytes, at most up to and with the next newline; empty at the end."""
        if self._kept:
            return self._take_kept(min(self._kept.find(b"\n") + 1 or most, most))
        with self._end.view(min(most, _LINE_PIECE)) as view:
            piece = bytes(view)
        piece = piece[: piece.find(b"\n") + 1 or len(piece)]
        self._end.acknowledge(len(piece))
        return piece

    def peek(self, n: int) -> memoryview:
        """A read-only view of 1 to `n` contiguous unread bytes; empty at the end of a finished stream.

        Waits for at least 1 byte.  The bytes stay the receiver's until
        `consume()`.  A second `peek` replaces the first view.  Raises as
        `readinto` does.
        """
        self._check_open()
        _check_positive(n)
        if self._kept:
            return memoryview(self._kept)[:n]
        return self._end.peek(n)

    def consume(self, k: int) -> None:
        """Acknowledge the first `k` bytes of the view from `peek`, and release it.

        Raises ValueError when the view has fewer, BufferError while something
        built on the view (an array, say) holds it.
        """
        self._check_open()
        if self._kept and 0 <= k <= len(self._kept):
            self._take_kept(k)
        else:
            self._end.consume(k)

    def tell(self) -> int:
        """Bytes acknowledged so far: the sequence counter."""
        self._check_open()
        return self._end.sequence

    def close(self) -> None:
        """Leave the stream.  Before its end, that gives the sender ReceiverLeft, a BrokenPipeError."""
        if self._mapping is None:
            super().close()
            return
        self._end.close()
        self._hail()
        self._leave()


@contextlib.contextmanager
def _words(memory: platform.Memory) -> Iterator[memoryview]:
    with memory.map(layout.HEADER_SIZE) as page, memoryview(page) as octets, octets.cast("Q") as words:
        yield words


@contextlib.contextmanager
def _header(memory: platform.Memory, name: str) -> Iterator[tuple[memoryview, layout.Header] | None]:
    """The words of a valid header and the copy that was checked; None when its creator has not got so far."""
    if not memory.has(layout.HEADER_SIZE):
        yield None
        return
    with _words(memory) as words:
        header = ring.load_header(words, name, barrier=ring.Barrier(), ordered=platform.ORDERED)
        yield None if header is None else (words, header)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Let an error about a file name the channel too."""
    try:
        yield
    except ChannelError as error:
        error.args = (f"{name}: {error}",)
        raise


def _open_file(name: str, path: str, size: int = 0) -> platform.Memory:
    """Open a file of the user's for a ring; with a size extend it."""
    with _naming(name):
        return platform.open_file(None, path, size, create=size > 0, writable=True)[0]


def _find_file(name: str, path: str) -> platform.Memory | None:
    """Open a file that begins as a ring does, None while it is missing or empty; LayoutError when it begins otherwise."""
    try:
        memory = _open_file(name, path)
    except (NoSuchMapping, InvalidSize):
        return None
    try:
        if memory.size() >= len(layout.BEGUN_MARK):
            with memory.map(len(layout.BEGUN_MARK)) as octets:
                if layout.is_ours(octets[:]):
                    return memory
        raise LayoutError(f"{name}: {path} is a file of another kind, and left as it is; use another path")
    except BaseException:
        memory.close()
        raise


def _check_positive(n: int) -> None:
    if n < 1:
        raise ValueError(f"a view has at least 1 byte, not {n}")


_open_ends: weakref.WeakSet[_End] = weakref.WeakSet()


def _disown_all() -> None:
    for end in list(_open_ends):
        end._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
