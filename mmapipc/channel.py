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
    closes before that, or is killed     `ReceiverGone` (a BrokenPipeError)

Thread-safety: an end is for one thread at a time, as other raw files are; wrap
it in `io.BufferedReader` or `io.BufferedWriter`, which lock.  The two ends may
be in different threads, or in one.

A forked child does not inherit its parent's ends: in the child they are closed.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import operator
import os
import secrets
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from . import layout, platform, ring, waiting
from .errors import (
    ChannelError,
    ChannelTimeout,
    InvalidCapacity,
    ReceiverGone,
    SenderDied,
    StreamAborted,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

DEFAULT_CAPACITY = 1 << 20  # bytes

_LINE_PIECE = 8192  # bytes looked through at a time for the end of a line


class _End(io.RawIOBase):
    """What both ends share: the name, the claim, the memory, the view handed out."""

    _role: str
    _mapping: mmap.mmap | None = None  # set once the end is open
    _claim: platform.Claim | None = None
    _memory: platform.Memory | None = None
    _view: memoryview | None = None

    def __init__(self, name: str, timeout: float | None) -> None:
        super().__init__()
        if not isinstance(name, str):
            raise TypeError(f"the name of a channel is a str, not {type(name).__name__}")
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"{name}: timeout is a number of seconds from 0 on, or None; not {timeout}")
        self._name = name
        self._timeout = timeout

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    @property
    def capacity(self) -> int:
        """Size of the ring in bytes."""
        self._check_open()
        return len(self._data)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"at {self._end.sequence}"
        return f"<mmapipc.{type(self).__name__} {self._name!r} {state}>"

    def _map(self, memory: platform.Memory, capacity: int) -> None:
        """Map header and ring; from here on the end is open."""
        self._memory = memory
        self._mapping = memory.map(layout.HEADER_SIZE + capacity)
        with memoryview(self._mapping) as whole:
            self._words = whole[: layout.HEADER_SIZE].cast("Q")
            self._data = whole[layout.HEADER_SIZE :]
        _open_ends.add(self)

    def _unmap(self) -> None:
        """Let go of memory and views."""
        _open_ends.discard(self)
        if self._mapping is None:
            return
        self._let_go_of_view()
        self._words.release()
        self._data.release()
        # A slice that the user made of a view keeps the memory until it is collected.
        with contextlib.suppress(BufferError):
            self._mapping.close()
        self._mapping = None

    def _leave(self) -> None:
        """Give everything back.  What the ends are told was stored before."""
        self._unmap()
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
        if self._claim is not None:
            self._claim.release()
            self._claim = None
        if memory is not None:
            # Tidying up must not hide the outcome of the stream.
            with contextlib.suppress(ChannelError):
                platform.sweep(self._name)
        super().close()

    def _disown(self) -> None:
        """In a forked child: be closed without a word to the peer."""
        self._unmap()
        self._memory = self._claim = None
        super().close()

    def _check_open(self) -> None:
        if self._mapping is None or self.closed:
            raise ValueError(f"{self._name}: I/O operation on closed channel")

    def _hand_out(self, view: memoryview) -> memoryview:
        self._view = view
        return view

    def _let_go_of_view(self) -> None:
        """Release the view handed out, if something built on it does not hold it."""
        if self._view is not None:
            with contextlib.suppress(BufferError):
                self._view.release()
            self._view = None

    def _take_back(self, count: int, verb: str) -> None:
        """Release the view handed out, of which `count` bytes are to be moved."""
        self._check_open()
        size = 0 if self._view is None else len(self._view)
        if not 0 <= count <= size:
            raise ValueError(f"{self._name}: cannot {verb} {count} bytes, the view has {size}")
        if self._view is not None:
            self._view.release()  # BufferError, and nothing has happened, while something is built on it
            self._view = None

    def _stands(self, role: str) -> Callable[[], bool]:
        memory = self._memory
        assert memory is not None
        return lambda: memory.stands(role)

    def seekable(self) -> bool:
        """False: a channel is a stream."""
        self._check_open()
        return False

    def _collected(self) -> None:
        """What is to happen to an end that nobody closed."""
        raise NotImplementedError

    def __del__(self) -> None:
        if self._mapping is not None:
            self._dealloc_warn(self)

    def _dealloc_warn(self, source: object) -> None:
        # The buffered classes call this too, when they are collected without
        # close() and before they close what they wrap (as on io.FileIO).
        if self._mapping is not None:
            try:
                warnings.warn(f"unclosed {source!r}", ResourceWarning, stacklevel=2, source=source)
            finally:
                self._collected()


class Sender(_End):
    """The writing end of the channel `name`: makes it, and is a raw, writable file.

    Returns as soon as the channel exists, whether or not a receiver is there.
    When a receiver is still attached to an older stream of that name, waits
    until it has left.  `capacity` is the size of the ring in bytes.  `timeout`
    bounds every wait, in seconds; None waits as long as it takes, as a FIFO does.

    A stream that is finished ends cleanly at the receiver.  One that is given
    up (`abort()`, a `with` block left by an exception, a Sender collected
    without `close()`, a killed process) gives the receiver every published
    byte and then an error: a truncated stream is never taken for a whole one.
    (Close a wrapper such as `io.BufferedWriter` only at the good end: its own
    `with` block closes the Sender properly even when an exception leaves it.)

    Raises InvalidName, InvalidCapacity, RoleTaken (the error names the other
    sender's pid), ChannelTimeout, MemoryRefused, UnsafeMemory, LayoutError.
    """

    _role = platform.SENDER
    _end: ring.Producer

    def __init__(self, name: str, capacity: int = DEFAULT_CAPACITY, timeout: float | None = None) -> None:
        super().__init__(name, timeout)
        capacity = operator.index(capacity)
        if not 1 <= capacity <= layout.LARGEST_CAPACITY:
            raise InvalidCapacity(f"{name}: a ring has at least 1 byte and at most 2**62, not {capacity}")
        self._finished = False
        self._claim = platform.claim(name, platform.SENDER)
        try:
            if not waiting.until(self._take_over, timeout):
                raise ChannelTimeout(
                    f"{name}: a receiver is still attached to an earlier stream after {timeout:g} s; end it or wait longer"
                )
            self._map(platform.create(name, layout.HEADER_SIZE + capacity), capacity)
            barrier = ring.Barrier()
            self._end = ring.Producer(
                self._words, self._data, name, barrier=barrier, ordered=platform.ORDERED
            )
            layout.initialise(self._words, capacity, secrets.randbits(64), os.getpid())
            barrier()
            layout.complete(self._words)
        except BaseException:
            self._leave()
            raise

    def _take_over(self, probe: bool) -> bool | None:
        """End and remove what an earlier sender left; None while a receiver is attached to it."""
        memory = platform.open_existing(self._name)
        if memory is None:
            return True
        try:
            with _header(memory, self._name) as words:
                attached = (
                    words is not None
                    and ring.Producer.settle(words, self._name)
                    and memory.stands(platform.RECEIVER)
                )
        finally:
            memory.close()
        if not attached:
            platform.remove(self._name)
        return None

    def writable(self) -> bool:
        """True."""
        self._check_open()
        return True

    def _check_writable(self) -> None:
        self._check_open()
        if self._finished:
            raise ValueError(f"{self._name}: the stream is finished")

    def _wait_for_room(self) -> None:
        """Return when bytes can be written; raise ReceiverGone or ChannelTimeout."""
        stands = self._stands(platform.RECEIVER)

        def poll(probe: bool) -> ring.Verdict | None:
            verdict = self._end.verdict(stands if probe else None)
            return None if verdict is ring.Verdict.WAIT else verdict

        self._raise_if_gone(waiting.until(poll, self._timeout))

    def _raise_if_gone(self, verdict: ring.Verdict | None) -> None:
        if verdict in (ring.Verdict.READY, ring.Verdict.END):
            return
        undelivered = f"{self._end.in_flight} bytes were not delivered"
        if verdict is None:
            there = "the receiver took nothing" if self._end.seen else "no receiver came"
            raise ChannelTimeout(f"{self._name}: {there} for {self._timeout:g} s; {undelivered}")
        if verdict is ring.Verdict.GAVE_UP:
            raise ReceiverGone(f"{self._name}: the receiver left early; {undelivered}")
        raise ReceiverGone(f"{self._name}: the receiver died; {undelivered}")

    def write(self, data: ReadableBuffer) -> int:
        """Write all of `data`, any contiguous buffer; return its size in bytes.

        Waits while the ring is full.  Raises ReceiverGone when the receiver
        left or died, ChannelTimeout when it took nothing for `timeout` seconds
        (`tell()` says how much was published), ValueError when the stream is
        closed or finished or a reserved view is not yet committed, LayoutError.
        """
        self._check_writable()
        if self._view is not None:
            raise ValueError(f"{self._name}: commit() the reserved view first")
        with memoryview(data) as given:
            size = given.nbytes
            if not size:
                return 0
            with given.cast("B") as source:
                done = 0
                while done < size:
                    self._wait_for_room()
                    with source[done:] as rest:
                        done += self._end.put(rest)
        return size

    def reserve(self, n: int) -> memoryview:
        """A writable view of 1 to `n` contiguous free bytes of the ring; waits for at least 1.

        Fill it, then `commit()`.  A second `reserve` before that replaces the
        first.  Raises as `write` does.
        """
        self._check_writable()
        _check_positive(n)
        self._let_go_of_view()
        self._wait_for_room()
        return self._hand_out(self._end.claim(n))

    def commit(self, k: int) -> None:
        """Publish the first `k` bytes of the reserved view, and release it.

        Raises ValueError when the view has fewer, BufferError while something
        built on the view (an array, say) holds it.
        """
        self._check_writable()
        self._take_back(k, "commit")
        if k:
            self._end.publish(k)

    def tell(self) -> int:
        """Bytes published so far: the sequence counter."""
        self._check_open()
        return self._end.sequence

    def finish(self) -> None:
        """Mark the end of the stream, without waiting.  Nothing can be written after it."""
        self._check_open()
        self._let_go_of_view()
        self._finished = True
        self._end.finish()

    def abort(self) -> None:
        """Give the stream up, without waiting, and close this end.

        The receiver gets every published byte and then StreamAborted, unless
        the stream was finished already.
        """
        if self._mapping is not None:
            self._end.abort()
        self._leave()

    def close(self) -> None:
        """Mark the end of the stream and wait until the receiver has acknowledged the last byte.

        A return without an error means that every byte was taken (an empty
        stream: that a receiver came).  Raises ChannelTimeout or ReceiverGone,
        which say how many bytes were not delivered; this end is closed all the
        same.
        """
        if self._mapping is None:
            super().close()
            return
        try:
            self.finish()
            stands = self._stands(platform.RECEIVER)

            def poll(probe: bool) -> ring.Verdict | None:
                verdict = self._end.verdict(stands if probe else None)
                if not self._end.in_flight and self._end.seen:
                    return ring.Verdict.END
                return verdict if verdict in (ring.Verdict.GAVE_UP, ring.Verdict.DIED) else None

            self._raise_if_gone(waiting.until(poll, self._timeout))
        finally:
            self._leave()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception, abort."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def _collected(self) -> None:
        self.abort()


class Receiver(_End):
    """The reading end of the channel `name`: a raw, readable file.

    Waits until there is a stream to attach to.  `timeout` bounds every wait,
    in seconds; None waits as long as it takes, as a FIFO does.

    Reading gives `b""` only at the end of a stream that its sender finished.
    A stream that its sender gave up raises StreamAborted, one whose sender was
    killed SenderDied, each after every byte that was published.

    A receiver that closes before the end gives the sender a BrokenPipeError.

    Raises InvalidName, RoleTaken (the error names the other receiver's pid),
    ChannelTimeout, MemoryRefused, UnsafeMemory, LayoutError.
    """

    _role = platform.RECEIVER
    _end: ring.Consumer

    def __init__(self, name: str, timeout: float | None = None) -> None:
        super().__init__(name, timeout)
        self._claim = platform.claim(name, platform.RECEIVER)
        try:
            if not waiting.until(self._attach, timeout):
                raise ChannelTimeout(f"{name}: no sender came for {timeout:g} s; start one or wait longer")
        except BaseException:
            self._leave()
            raise

    def _attach(self, probe: bool) -> bool | None:
        """Attach to the stream; None while there is none."""
        memory = platform.open_existing(self._name)
        if memory is None:
            return None
        try:
            with _header(memory, self._name) as words:
                if words is None or not ring.Consumer.attachable(
                    words, self._name, lambda: memory.stands(platform.SENDER)
                ):
                    return None
                capacity = layout.validate(words, self._name).capacity
            if not memory.fits(layout.HEADER_SIZE + capacity):
                raise layout.damaged(self._name, f"capacity {capacity} does not fit its size")
            self._map(memory, capacity)
            self._end = ring.Consumer(
                self._words, self._data, self._name, barrier=ring.Barrier(), ordered=platform.ORDERED
            )
            self._end.attach(os.getpid())
            return True
        finally:
            if self._memory is None:
                memory.close()

    def readable(self) -> bool:
        """True."""
        self._check_open()
        return True

    def _wait_for_bytes(self) -> bool:
        """Return whether there are bytes: False at a clean end.  Raise at any other."""
        stands = self._stands(platform.SENDER)

        def poll(probe: bool) -> ring.Verdict | None:
            verdict = self._end.verdict(stands if probe else None)
            return None if verdict is ring.Verdict.WAIT else verdict

        verdict = waiting.until(poll, self._timeout)
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
        self._let_go_of_view()
        with memoryview(buffer) as given:
            if given.readonly:
                raise TypeError("readinto() needs a writable buffer")
            if not given.nbytes or not self._wait_for_bytes():
                return 0
            with given.cast("B") as target:
                return self._end.take(target)

    def read(self, n: int | None = -1) -> bytes:
        """At least 1 and at most `n` bytes, `b""` at the end of a finished stream; all of it without `n`.

        Raises as `readinto` does.
        """
        if n is None or n < 0:
            return self.readall()
        self._check_open()
        self._let_go_of_view()
        if not n or not self._wait_for_bytes():
            return b""
        return self._take_bytes(n)

    def _take_bytes(self, n: int) -> bytes:
        """Take up to `n` of the bytes that are there in one piece."""
        with self._end.view(n) as view:
            data = bytes(view)
        self._end.acknowledge(len(data))
        return data

    def readall(self) -> bytes:
        """Everything up to the end of the stream.

        Raises as `readinto` does, also when bytes came first: what came before
        a broken end is not the whole.
        """
        self._check_open()
        self._let_go_of_view()
        everything = bytearray()
        while self._wait_for_bytes():
            everything += self._take_bytes(len(self._data))
        return bytes(everything)

    def readline(self, size: int | None = -1) -> bytes:
        """Bytes up to and with the next newline, at most `size` of them; what is left at the end.

        Raises as `readinto` does; when part of a line came before the error,
        returns that part, and the next call raises.
        """
        self._check_open()
        self._let_go_of_view()
        left = len(self._data) if size is None or size < 0 else size
        line = bytearray()
        while left > 0:
            try:
                if not self._wait_for_bytes():
                    break
            except ChannelError:
                if line:
                    break
                raise
            with self._end.view(min(left, _LINE_PIECE)) as view:
                piece = bytes(view)
            end = piece.find(b"\n") + 1
            count = end or len(piece)
            line += piece[:count]
            self._end.acknowledge(count)
            if end:
                break
            if size is not None and size >= 0:
                left -= count
        return bytes(line)

    def peek(self, n: int) -> memoryview:
        """A read-only view of 1 to `n` contiguous unread bytes; empty at the end of a finished stream.

        Waits for at least 1 byte.  The bytes stay the receiver's until
        `consume()`.  A second `peek` replaces the first view.  Raises as
        `readinto` does.
        """
        self._check_open()
        _check_positive(n)
        self._let_go_of_view()
        self._wait_for_bytes()
        with self._end.view(n) as view:
            return self._hand_out(view.toreadonly())

    def consume(self, k: int) -> None:
        """Acknowledge the first `k` bytes of the view from `peek`, and release it.

        Raises ValueError when the view has fewer, BufferError while something
        built on the view (an array, say) holds it.
        """
        self._take_back(k, "consume")
        if k:
            self._end.acknowledge(k)

    def tell(self) -> int:
        """Bytes acknowledged so far: the sequence counter."""
        self._check_open()
        return self._end.sequence

    def close(self) -> None:
        """Leave the stream.  Before its end, that gives the sender a BrokenPipeError."""
        if self._mapping is None:
            super().close()
            return
        self._end.close()
        self._leave()

    def _collected(self) -> None:
        self.close()


@contextlib.contextmanager
def _header(memory: platform.Memory, name: str) -> Iterator[memoryview | None]:
    """The words of a valid header, or None when its creator has not got so far."""
    if memory.is_empty():
        yield None
        return
    with memory.map(layout.HEADER_SIZE) as page, memoryview(page) as octets, octets.cast("Q") as words:
        if not layout.is_complete(words):
            yield None
            return
        layout.validate(words, name)
        yield words


def _check_positive(n: int) -> None:
    if n < 1:
        raise ValueError(f"a view has at least 1 byte, not {n}")


_open_ends: weakref.WeakSet[_End] = weakref.WeakSet()


def _disown_all() -> None:
    for end in list(_open_ends):
        end._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
