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

A byte is acknowledged when a call returns it, or when `consume` says so: a
program that must lose nothing, not even when it is killed, uses `peek`, brings
the bytes to safety, and then calls `consume`.  Of a line, or a `read()` of all,
that is longer than the ring, the bytes are acknowledged as they come; when such
a call raises, the next call returns them.

Thread-safety: an end is for one thread at a time, as other raw files are; those
of `mmapipc.open` lock.  Any thread may ask for `tell()`, `in_flight`,
`attached`, `capacity`, `timeout` and the `repr`, and may `close()` or `abort()`
an end: a thread that waits in it gets a ValueError at once.  The two ends may
be in different threads, or in one.

A forked child does not inherit its parent's ends: in the child they are closed.
"""

from __future__ import annotations

import io
import operator
import os
import sys
import warnings
import weakref

from ._meeting import rendezvous
from ._meeting.homes import home
from ._meeting.link import ReceivingLink, SendingLink
from ._meeting.waiting import checked_seconds
from ._ring import layout
from ._system import PEER, RECEIVER, SENDER
from .errors import InvalidCapacity, LayoutError, SenderDied, StreamAborted
from .waiting import Bell

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, NoReturn

    from _typeshed import ReadableBuffer, WriteableBuffer

    from ._meeting.link import Link

DEFAULT_CAPACITY = 1 << 22  # bytes


class _End(io.RawIOBase):
    """The file that an end is, over its `_link`."""

    _link: Link
    mode: str  # as of other binary files
    # Not the property of `io`, which a buffered file asks for each line: it takes 60 ns longer.
    __slots__ = ("closed",)
    closed: bool

    def __init__(self, name: str) -> None:
        super().__init__()
        self.closed = False
        if not isinstance(name, str):
            raise TypeError(f"the name of a channel is a str, not {type(name).__name__}")
        self._name = name
        self._closed_message = f"{name}: I/O operation on closed channel"
        _open_ends.add(self)  # something to be undone in a forked child

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    @property
    def timeout(self) -> float | None:
        """The most seconds that a call waits for the other end; None: as long as it takes; 0: not at all.

        Can be set at any time, for the calls that follow.  Any thread may ask.
        """
        self._check_open()
        return self._link.timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self._check_open()
        self._link.timeout = checked_seconds(self._name, timeout)

    @property
    def capacity(self) -> int:
        """Size of the ring in bytes.  Any thread may ask."""
        self._check_open()
        return self._link.half.capacity

    @property
    def in_flight(self) -> int:
        """Bytes published and not yet acknowledged, at this moment.  Any thread may ask."""
        count: int = self._seen("backlog")
        return count

    @property
    def attached(self) -> bool:
        """Whether the other end is there; one that was killed, until that is noticed.  Any thread may ask."""
        is_there: bool = self._seen("peer_attached")
        return is_there

    def _seen(self, what: str) -> Any:
        """What the half sees in the memory now; another thread that closes this end meanwhile waits."""
        with self._link.seeing:
            self._check_open()
            try:
                return getattr(self._link.half, what)
            except ValueError:
                self._check_open()  # a signal handler may just have closed it
                raise

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether to move a byte would not wait: there is one, or room for one, or an end, or an error.

        Waits until that is so, at most `timeout` seconds; None: as long as it takes.
        """
        self._check_open()
        seconds = checked_seconds(self._name, timeout)
        self._link.half.check_not_shut()
        return self._link.poll(seconds)

    @property
    def bell(self) -> Bell:
        """What an event loop can wait on for this end; its own `fileno()` is unsupported."""
        self._check_open()
        return Bell(self._link)

    def __repr__(self) -> str:
        kind = f"mmapipc.{type(self).__name__} {self._name!r}"
        try:
            peer = PEER[self._link.role]
            there = f"{peer} attached" if self.attached else f"no {peer}"
            place = f"at byte {self._link.half.sequence}, {self.in_flight} of {self.capacity} in flight"
            return f"<{kind} {place}, {there}>"
        except LayoutError:
            return f"<{kind} damaged>"
        except (ValueError, AttributeError):  # closed, or never opened
            return f"<{kind} closed>"

    def tell(self) -> int:
        """The sequence counter: bytes published, or acknowledged, so far.  Any thread may ask."""
        self._check_open()
        return self._link.half.sequence

    def _leave(self) -> None:
        """Give everything back.  What the peer is to know was stored before."""
        _open_ends.discard(self)
        try:
            self._link.leave(self._closed_message)
        finally:
            self._mark_closed()

    def _mark_closed(self) -> None:
        try:
            super().close()
        finally:
            self.closed = True

    def _disown(self) -> None:
        """In a forked child: be closed without a word to the peer."""
        if self._is_open:
            self._link.disown(self._closed_message)
        self._mark_closed()

    @property
    def _is_open(self) -> bool:
        return hasattr(self, "_link") and self._link.mapped is not None

    def _check_open(self) -> None:
        if self._link.mapped is None:
            raise ValueError(self._closed_message)

    def abort(self) -> None:
        """Close this end as somebody who could not go on, without waiting.

        After a sender the receiver gets every published byte and then
        StreamAborted, unless the stream was finished already; after a receiver
        the sender gets ReceiverGone, unless every byte was taken.
        """
        if self._is_open:
            try:
                self._link.abort()
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

    def readable(self) -> bool:
        """Whether this is the receiving end."""
        self._check_open()
        return self._link.role == RECEIVER

    def writable(self) -> bool:
        """Whether this is the sending end."""
        self._check_open()
        return self._link.role == SENDER

    def seekable(self) -> bool:
        """False: a channel is a stream."""
        self._check_open()
        return False

    def __reduce__(self) -> NoReturn:
        """Unsupported: another process, or another end, opens the channel by its name."""
        raise TypeError(
            f"{self._name}: cannot pickle or copy an end of a channel; pass its name on, and open that"
        )

    def __del__(self) -> None:
        self._dealloc_warn(self)

    def _dealloc_warn(self, source: object) -> None:
        # The buffered classes call this too, when they are collected without
        # close() and before they close what they wrap (as on io.FileIO).
        if self._is_open:
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

    With `wait_for_role`, waits for a role that another sender has, instead of
    raising RoleTaken.  Of several that wait, any may be the next.
    (Nobody waits for a receiver of what that one left in a file: Undelivered.)

    A stream that is finished ends cleanly at the receiver.  One that is given
    up (`abort()`, a `with` block left by an exception, a Sender collected
    without `close()`, a killed process) gives the receiver every published
    byte and then an error: a truncated stream is never taken for a whole one.
    (The `with` block of `io.BufferedWriter` closes the Sender properly even when
    an exception leaves it; that of `mmapipc.open` gives the stream up.)

    `on_lost(count)` is called, in the thread that writes or closes, when a
    stream that persists has lost so many more receivers.

    Raises InvalidName, InvalidCapacity, RoleTaken (the error names the other
    sender's pid), ChannelTimeout, MemoryRefused, UnsafeMemory, LayoutError,
    Undelivered.
    """

    _link: SendingLink
    mode = "wb"

    def __init__(
        self,
        name: str,
        *,
        capacity: int = DEFAULT_CAPACITY,
        timeout: float | None = None,
        persist: bool = False,
        file: str | os.PathLike[str] | None = None,
        on_lost: Callable[[int], object] | None = None,
        wait_for_role: bool = False,
    ) -> None:
        rendezvous.open(
            self._opening(
                name,
                capacity=capacity,
                timeout=timeout,
                persist=persist,
                file=file,
                on_lost=on_lost,
                wait_for_role=wait_for_role,
            )
        )
        self._opened()

    def _opening(
        self,
        name: str,
        *,
        capacity: int,
        timeout: float | None,
        persist: bool,
        file: str | os.PathLike[str] | None,
        on_lost: Callable[[int], object] | None,
        wait_for_role: bool,
    ) -> rendezvous.Beginning:
        """What is to be attempted until it succeeds; `_opened` is to follow.  In one step they are `__init__`."""
        super().__init__(name)
        seconds = checked_seconds(name, timeout)
        capacity = operator.index(capacity)
        if not 1 <= capacity <= layout.LARGEST_CAPACITY:
            raise InvalidCapacity(f"{name}: a ring has at least 1 byte and at most 2**62, not {capacity}")
        self._link = SendingLink(
            home(name, file, wait_for_role), seconds, persistent=persist, on_lost=on_lost
        )
        return rendezvous.Beginning(self._link, capacity)

    def _opened(self) -> None:
        # One call less on the hot path, and nothing before the first step that counts; the methods
        # below have the descriptions.
        for method, calls in (("write", "write"), ("writelines", "write"), ("commit", "commit")):
            if all(getattr(type(self), each) is getattr(Sender, each) for each in (method, calls)):
                setattr(self, method, getattr(self._link.half, method))

    def read(self, n: int | None = -1) -> bytes:
        """Unsupported: this end writes."""
        raise io.UnsupportedOperation("read")

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Unsupported: this end writes."""
        raise io.UnsupportedOperation("readinto")

    def write(self, data: ReadableBuffer) -> int:
        """Write all of `data`, any buffer; return its size in bytes.

        Waits while the ring is full.  Raises ReceiverGone when the receiver
        left or died, ChannelTimeout when it took nothing for `timeout` seconds,
        NoSuchMapping when it waits and the `file` is removed, so that no receiver
        can come, ValueError when the stream is closed or finished or a reserved
        view is not yet committed, LayoutError.  With a timeout of 0 it publishes all of
        `data` or, with ChannelTimeout, nothing.

        After an error `tell()` says how much was published.  If that was none
        of `data`, the same may be written again; if it was a part, the stream
        cannot go on.  Either way `finish()` and `close()` give such a stream
        up, unless a later write has made good for it.  That holds for whatever
        is raised, also by a signal handler; but not if the handler runs before
        the first step of this method, which is as if it ran before the call.
        An `io.BufferedWriter` around this end drops what it cannot send of a
        piece larger than its buffer, and a later write makes good for that;
        the file that `mmapipc.open` gives goes no further instead.
        (A program that drops what does not fit asks `poll()`, or uses `reserve`
        and `commit`: what was not written is then not missed.)
        """
        self._check_open()
        return self._link.half.write(data)

    def writelines(self, lines: Iterable[ReadableBuffer]) -> None:
        """Write all the items, as one `write` does: the small ones of a list or tuple together.

        The items of any other iterable are written one by one, as they come.
        Raises as `write` does.
        """
        self._check_open()
        if type(self).write is Sender.write:
            self._link.half.writelines(lines)
        else:  # a subclass has its own
            super().writelines(lines)

    def make_failures_final(self) -> None:
        """Let no later write make good for one that failed.

        For what wraps this end, and may forget the bytes of that write.
        """
        self._check_open()
        self._link.half.strict = True

    def reserve(self, n: int) -> memoryview:
        """A writable view of 1 to `n` contiguous free bytes of the ring; waits for at least 1.

        Fill it, then `commit()`.  A second `reserve` before that replaces the
        first.  Raises as `write` does.
        """
        self._check_open()
        _check_positive(n)
        link = self._link
        if link.waiter.probe_is_due():
            link.raise_if_left()
        return link.half.reserve(n)

    def commit(self, k: int) -> None:
        """Publish the first `k` bytes of the reserved view, and release it.

        Raises ValueError when the view has fewer, ReceiverGone, and BufferError
        while an object holds the buffer of the view itself, as
        `struct.iter_unpack` does.  Slices of the view, casts, copies and ctypes
        objects go unnoticed: the program must not write through them any more.
        After an error `finish()` and `close()` give the stream up, unless a
        later commit or write has made good for it.
        """
        self._check_open()
        self._link.half.commit(k)

    def check_receiver(self) -> None:
        """Raise ReceiverGone if the receiver is gone, even one that has taken every byte so far.

        For a program that waits for something else before it sends more.  Does
        not wait; a stream that persists loses nothing, so then nothing is
        raised, nor before the first receiver comes.
        """
        self._check_open()
        self._link.raise_if_gone()

    def finish(self) -> None:
        """Mark the end of the stream, without waiting.  Nothing can be written after it.

        Raises StreamAborted when another process has taken the stream and ended
        it, or when a write had failed: then the stream is given up.
        """
        self._check_open()
        self._link.finish()

    def close(self) -> None:
        """Mark the end of the stream and wait until the receiver has acknowledged the last byte.

        A return without an error means that every byte was taken (an empty
        stream: that a receiver came); with `file`, which is not waited for,
        that every byte is on the disk.  Raises ChannelTimeout or ReceiverGone,
        which say how many bytes were not delivered, StreamAborted when a write
        had failed or another process took the stream, or NoSuchMapping when
        the file was removed or replaced; this end is closed all the same.
        """
        if not self._is_open:
            self._mark_closed()
            return
        try:
            self._link.finish()
            self._link.deliver()
        finally:
            self._leave()


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
    (The `with` block of `io.BufferedReader` closes the Receiver properly even
    when an exception leaves it; that of `mmapipc.open` gives up.)

    With `file`, the path that the sender has, the sender may have gone already:
    what it left is read, and ends as it ended.

    With `wait_for_role`, waits for a role that another receiver has, instead of
    raising RoleTaken.  Of several that wait, any may be the next.

    Raises InvalidName, RoleTaken (the error names the other receiver's pid),
    ChannelTimeout, MemoryRefused, UnsafeMemory, LayoutError.
    """

    _link: ReceivingLink
    mode = "rb"

    def __init__(
        self,
        name: str,
        *,
        timeout: float | None = None,
        file: str | os.PathLike[str] | None = None,
        wait_for_role: bool = False,
    ) -> None:
        rendezvous.open(self._opening(name, timeout=timeout, file=file, wait_for_role=wait_for_role))
        self._opened()

    def _opening(
        self,
        name: str,
        *,
        timeout: float | None,
        file: str | os.PathLike[str] | None,
        wait_for_role: bool,
    ) -> rendezvous.Attaching:
        """As of Sender."""
        super().__init__(name)
        self._link = ReceivingLink(home(name, file, wait_for_role), checked_seconds(name, timeout))
        return rendezvous.Attaching(self._link)

    def _opened(self) -> None:
        if type(self).readinto is Receiver.readinto:
            # One call less on the hot path; the method below has the description.
            self.readinto = self._link.half.readinto  # type: ignore[method-assign]

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether a read would not wait: there are bytes, or the end, or an error.

        Waits until that is so, at most `timeout` seconds; None: as long as it takes.
        """
        self._check_open()
        self._link.half.resume()
        return super().poll(timeout)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` with at least 1 byte; return how many, 0 at the end of a finished stream.

        Waits for the first byte.  The bytes are acknowledged once they are in
        `buffer`.  Releases the view of an earlier `peek`.  Raises
        StreamAborted, SenderDied, ChannelTimeout, LayoutError, TypeError for a
        buffer that is read-only or not in one piece.

        After an error other than the first two, `readinto` and `readall` raise
        ReadFailed until the program has called `poll`, `read`, `readline` or
        `peek` of this Receiver: a file that wraps it forgets what it had read
        before the error, and would skip that.  (What a signal handler raises
        before the first step of this method goes unnoticed.)
        """
        self._check_open()
        return self._link.half.readinto(buffer)

    def check_not_refused(self) -> None:
        """Raise ReadFailed if `readinto` would, see there."""
        self._check_open()
        self._link.half.check_not_refused()

    def refuse_after(self, error: BaseException) -> None:
        """Let `readinto` and `readall` raise ReadFailed if the error can have lost bytes.

        It came in what wraps this end, and may forget what it had read.
        """
        self._link.half.refuse_after(error)

    def write(self, data: ReadableBuffer) -> int:
        """Unsupported: this end reads."""
        raise io.UnsupportedOperation("write")

    def read(self, n: int | None = -1) -> bytes:
        """At least 1 and at most `n` bytes, `b""` at the end of a finished stream; all of it without `n`.

        After a timeout the next call goes on where this one was.  Raises
        StreamAborted, SenderDied, ChannelTimeout, LayoutError.
        """
        self._check_open()
        if n is None or n < 0:
            return self._link.half.read_to_end()
        return self._link.half.read(n)

    def read1(self, n: int | None = -1) -> bytes:
        """`read`, as a text file that wraps this end calls it; with -1 what is there.

        Refuses to go on as `readinto` does.
        """
        self._check_open()
        return self._link.half.read1(sys.maxsize if n is None or n < 0 else n)

    def readall(self) -> bytes:
        """Everything up to the end of the stream.

        Raises as `readinto` does, also when bytes came first: what came before
        a broken end is not the whole.  Those bytes are there for the next read.
        """
        self._check_open()
        return self._link.half.readall()

    def readline(self, size: int | None = -1) -> bytes:
        """Bytes up to and with the next newline, at most `size` of them; what is left at the end.

        Raises as `read` does.  When part of a line came before a broken end,
        returns that part, and the next call raises; when it came before a
        timeout, raises, and the part is there for the next read.
        """
        self._check_open()
        return self._link.half.readline(sys.maxsize if size is None or size < 0 else size)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """The lines up to the end of the stream; with `hint` above 0, as many as have so many bytes together.

        Raises as `read` does.  The lines before an error are there for the next read.
        """
        self._check_open()
        return self._link.half.readlines(max(hint or 0, 0))

    def peek(self, n: int) -> memoryview:
        """A read-only view of 1 to `n` contiguous unread bytes; empty at the end of a finished stream.

        Waits for at least 1 byte.  The bytes stay the receiver's until
        `consume()`.  A second `peek`, or a read, releases the first view.
        Raises as `read` does.
        """
        self._check_open()
        _check_positive(n)
        return self._link.half.peek(n)

    def watch_output(self, file: int | io.IOBase) -> None:
        """Let a wait for bytes end with BrokenPipeError when nobody reads the pipe or socket `file` any more.

        For a program that passes the bytes on to that file, which must stay open
        as long as this end: it would notice no earlier than at its next write.
        """
        self._check_open()
        self._link.watch_output(file if isinstance(file, int) else file.fileno())

    def consume(self, k: int) -> None:
        """Acknowledge the first `k` bytes of the view from `peek`, and release it.

        Raises ValueError when the view has fewer, BufferError as
        `Sender.commit` does.
        """
        self._check_open()
        self._link.half.consume(k)

    def close(self) -> None:
        """Leave the stream.  Before its end, that gives the sender ReceiverLeft, a BrokenPipeError."""
        if not self._is_open:
            self._mark_closed()
            return
        try:
            self._link.close()
        finally:
            self._leave()


def _check_positive(n: int) -> None:
    if n < 1:
        raise ValueError(f"a view has at least 1 byte, not {n}")


_open_ends: weakref.WeakSet[_End] = weakref.WeakSet()


def _disown_all() -> None:
    for end in list(_open_ends):
        end._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
