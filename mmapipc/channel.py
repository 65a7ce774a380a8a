"""`Sender` and `Receiver`: the two ends of a channel, as raw files.

How an end can end, and what the other end then gets:

    the sender ...                       the receiver gets every published byte, then
    -----------------------------------  --------------------------------------------
    calls `finish()` or `close()`        a clean end (`b""`)
    gives up                             `StreamAborted` (a ConnectionAbortedError)
    is killed                            `SenderDied` (a ConnectionResetError)

    the receiver ...                     the sender gets
    -----------------------------------  --------------------------------------------
    acknowledges every byte              no error: its `close()` returns
    calls `close()` before that          `ReceiverLeft` (a ReceiverGone)
    gives up, or is killed               `ReceiverGone` (a BrokenPipeError)
    any of these, and the sender has     no error: the next receiver continues at the
      `persist`                          first byte that was not acknowledged

An end gives up when the program calls `abort()`, when an exception leaves its
`with` block, and when Python collects it although it was not closed.

The sender publishes bytes: the receiver can then read them.  The receiver
acknowledges bytes when a call returns them, or with `consume`: the sender may then
use their space again.  To lose nothing even when your program is killed: call
`peek`, store the bytes, then call `consume`; bytes not consumed are delivered
again.  A line, or a `read()` of everything, that is longer than the ring is
acknowledged as it arrives; if such a call raises, the next one returns those bytes.

Thread-safety: one thread at a time may use an end, as with other raw files; the
binary files of `mmapipc.open` have a lock.  Any thread may ask for `tell()`,
`in_flight`, `attached`, `capacity`, `timeout` and the `repr`, and may call `close()`
or `abort()`: another thread that waits in the end then gets a ValueError at once.
The two ends may be in different threads, or in one.

After a fork, both ends are closed in the child.
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
from ._meeting.link import ReceivingLink, SendingLink, alone
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
            raise TypeError(f"the name of a channel must be a str, not {type(name).__name__}")
        self._name = name
        self._closed_message = f"{name}: I/O operation on closed channel"
        _open_ends.add(self)  # something to be undone in a forked child

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    @property
    def timeout(self) -> float | None:
        """The most seconds that each wait for the other end may take; None: no limit; 0: never wait.

        Can be set at any time, for later calls.  Raises ValueError for a wrong one.
        """
        self._check_open()
        return self._link.timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self._check_open()
        self._link.timeout = checked_seconds(self._name, timeout)

    @property
    def capacity(self) -> int:
        """The size of the ring in bytes."""
        self._check_open()
        return self._link.half.capacity

    @property
    def in_flight(self) -> int:
        """How many bytes are published and not yet acknowledged."""
        count: int = self._seen("backlog")
        return count

    @property
    def attached(self) -> bool:
        """Whether the other end is attached.  One that was killed counts until that is noticed."""
        is_there: bool = self._seen("peer_attached")
        return is_there

    def _seen(self, what: str) -> Any:
        """What the half sees in the memory now; another thread that closes this end meanwhile waits."""

        def see() -> Any:
            self._check_open()
            try:
                return getattr(self._link.half, what)
            except ValueError:
                self._check_open()  # a signal handler may just have closed it
                raise

        return alone(self._link.seeing, see)

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait until the ring has room for a byte, or the next call would raise; return whether that is so.

        Waits for at most `timeout` seconds; None: no limit.  Raises LayoutError, ValueError.
        """
        self._check_open()
        seconds = checked_seconds(self._name, timeout)
        self._link.half.check_not_shut()
        return self._link.poll(seconds)

    @property
    def bell(self) -> Bell:
        """The `mmapipc.Bell` of this end, for event loops.  The end itself has no `fileno()`."""
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
        """How many bytes of the stream are published (Sender) or acknowledged (Receiver)."""
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
        """Give up: close this end without waiting, and let the other end get an error.

        A receiver gets every published byte and then StreamAborted, unless the stream
        was finished; a sender gets ReceiverGone, unless every byte was acknowledged.
        """
        if self._is_open:
            try:
                self._link.abort()
            finally:
                self._leave()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close this end; after an exception, give up."""
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
        """Return False: a channel is a stream."""
        self._check_open()
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        """Unsupported: a channel is a stream."""
        raise io.UnsupportedOperation("seek")

    def truncate(self, size: int | None = None) -> int:
        """Unsupported: a channel is a stream."""
        raise io.UnsupportedOperation("truncate")

    def __reduce__(self) -> NoReturn:
        """Unsupported: open the channel by its name instead."""
        raise TypeError(
            f"{self._name}: cannot pickle or copy an end of a channel; open the channel by its name"
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
    """The writing end of the channel `name`: a raw, writable file (`io.RawIOBase`).

    Makes the channel, and does not wait for a receiver.  Waits only while a
    receiver still reads an older stream of that name.

    capacity       the size of the ring, in bytes
    timeout        the most seconds that each wait may take; None: no limit; 0: never wait
    persist        when a receiver leaves early or dies, the next one continues at the
                   first byte that was not acknowledged
    file           a path: the ring is in that file, which is made if it is missing.
                   As with `persist`; what is not acknowledged outlives both processes.
                   `close()` returns when every byte is on the disk.
    on_lost        when a stream with `persist` has lost `count` more receivers,
                   `on_lost(count)` is called, in the thread that writes or closes
    wait_for_role  while another process is the sender, wait instead of raising
                   RoleTaken.  If several wait, any of them may be next.

    After `finish()` or `close()` the receiver sees a clean end.  After `abort()`, an
    exception that leaves the `with` block, or a kill, it gets every published byte and
    then an error: nobody takes a part for the whole.  (`io.BufferedWriter` closes its
    Sender even after an exception; a file of `mmapipc.open` gives up.)

    Raises InvalidName, InvalidCapacity, ValueError (timeout), RoleTaken (with the pid
    of the sender), ChannelTimeout, MemoryRefused, UnsafeMemory, LayoutError (also when
    the file is of another kind; it is left as it is); Undelivered when the file has bytes
    that no receiver has acknowledged; NoSuchMapping when its directory is missing.

    Thread-safety: one thread at a time; help(mmapipc.channel) says what others may do.
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
        """What to attempt until it succeeds; then call `_opened`.  Together they are `__init__`."""
        super().__init__(name)
        seconds = checked_seconds(name, timeout)
        capacity = operator.index(capacity)
        if not 1 <= capacity <= layout.LARGEST_CAPACITY:
            raise InvalidCapacity(f"{name}: the capacity must be from 1 to 2**62 bytes, not {capacity}")
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

    readall = readline = readlines = read  # type: ignore[assignment]

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Unsupported: this end writes."""
        raise io.UnsupportedOperation("readinto")

    def write(self, data: ReadableBuffer) -> int:
        """Write all of `data`, any buffer; return its size in bytes.

        Waits while the ring is full.  With a timeout of 0 it publishes all of `data`, or
        nothing and raises ChannelTimeout.

        Raises ReceiverGone when the receiver left or died; ChannelTimeout when it
        acknowledged nothing for `timeout` seconds; NoSuchMapping when the `file` was
        removed, so that this would wait for ever; ValueError when this end is closed or
        finished, or a reserved view is not committed; LayoutError.

        After an error `tell()` shows how much was published.  If it was nothing of `data`,
        write it again.  If it was a part, nothing can follow.  Until a later write succeeds,
        `finish()` and `close()` give the stream up.  This holds for every exception, also
        one that a signal handler raises, unless it comes before the first step of this
        method.  (To drop data on purpose, use `poll()`, or `reserve` and `commit`.)

        An `io.BufferedWriter` drops what it cannot send of a piece larger than its buffer,
        and a later write hides that.  A file of `mmapipc.open` does not.
        """
        self._check_open()
        return self._link.half.write(data)

    def writelines(self, lines: Iterable[ReadableBuffer]) -> None:
        """Write all the items; the small ones of a list or tuple together.

        Raises as `write` does.
        """
        self._check_open()
        if type(self).write is Sender.write:
            self._link.half.writelines(lines)
        else:  # a subclass has its own
            super().writelines(lines)

    def reserve(self, n: int) -> memoryview:
        """Wait for free bytes of the ring; return a writable view of 1 to `n` of them.

        Fill it, then call `commit`.  A second `reserve` before that replaces the view.
        Raises as `write` does.
        """
        self._check_open()
        _check_positive(n)
        link = self._link
        if link.waiter.probe_is_due():
            link.raise_if_left()
        return link.half.reserve(n)

    def commit(self, k: int) -> None:
        """Publish the first `k` bytes of the reserved view, and release it.

        Slices, casts and ctypes objects made of the view must not be used any more; this
        is not checked.  Raises ValueError when the view has fewer bytes; BufferError while
        an object such as `struct.iter_unpack` holds the view itself; ReceiverGone.  After
        an error `finish()` and `close()` give the stream up, until a later call succeeds.
        """
        self._check_open()
        self._link.half.commit(k)

    def check_receiver(self) -> None:
        """Raise ReceiverGone if the receiver has gone, even if it has acknowledged every byte so far.

        For a program that waits for something else.  Does not wait.  Raises no
        ReceiverGone before the first receiver comes, nor with `persist` or `file`;
        NoSuchMapping when the file was removed.
        """
        self._check_open()
        self._link.raise_if_gone()

    def finish(self) -> None:
        """Mark the end of the stream, without waiting.  Nothing can be written after it.

        Raises StreamAborted when a write has failed, and gives the stream up; also when
        another thread has given it up, or another process has taken it and ended it.
        """
        self._check_open()
        self._link.finish()

    def close(self) -> None:
        """Mark the end of the stream, and wait until the receiver has acknowledged every byte.

        No error means that every byte arrived (of an empty stream: that a receiver came);
        with `file`, that every byte is on the disk: no receiver is waited for.

        Raises ChannelTimeout or ReceiverGone, which say how many bytes were not delivered;
        StreamAborted as `finish` does; NoSuchMapping when the file was removed or
        replaced.  This end is closed in each case.
        """
        if not self._is_open:
            self._mark_closed()
            return
        try:
            self._link.finish()
            self._link.deliver()
        except Exception:
            self._check_open()  # another thread may have closed it meanwhile
            raise
        finally:
            self._leave()


class Receiver(_End):
    """The reading end of the channel `name`: a raw, readable file (`io.RawIOBase`).

    Waits until there is a stream to read.

    timeout        the most seconds that each wait may take; None: no limit; 0: never wait
    file           the path that the sender has.  The sender may have gone already: what
                   it left is read, and ends as it ended.
    wait_for_role  while another process is the receiver, wait instead of raising
                   RoleTaken.  If several wait, any of them may be next.

    A read returns `b""` only at the end of a stream that its sender finished.  If the
    sender gave up, a read raises StreamAborted, and if it was killed, SenderDied, each
    after every published byte.

    If a receiver leaves before the end, the sender gets ReceiverLeft (after `close()`) or
    ReceiverGone (after `abort()`, an exception that leaves the `with` block, or a kill).
    With `persist` it gets neither: the next receiver continues where this one stopped,
    and `tell()` is then not 0 at its start.  (`io.BufferedReader` closes its Receiver even
    after an exception; a file of `mmapipc.open` gives up.)

    Raises InvalidName, ValueError (timeout), RoleTaken (with the pid of the receiver),
    ChannelTimeout, MemoryRefused, UnsafeMemory, LayoutError.

    Thread-safety: one thread at a time; help(mmapipc.channel) says what others may do.
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
        """Wait until there is a byte, the end of the stream, or an error; return whether there is.

        Waits for at most `timeout` seconds; None: no limit.  Raises LayoutError, ValueError.
        """
        self._check_open()
        self._link.half.resume()
        return super().poll(timeout)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Wait for bytes, and move them into `buffer`; return how many, 0 at the end of the stream.

        Acknowledges them, and releases the view of an earlier `peek`.  Raises
        StreamAborted, SenderDied, ChannelTimeout, LayoutError; TypeError when the buffer
        is read-only or not in one piece.

        A file that wraps a Receiver forgets, at an error, what it had read before, and would
        skip that.  So after an error other than the first two, `readinto` and `readall`
        raise ReadFailed until the program calls `poll`, `read`, `readline` or `peek` of the
        Receiver itself.  (An error that a signal handler raises before the first step of
        this method does not count.)

        As in `io.FileIO`, no other method calls this one, even if a subclass has its own.
        """
        self._check_open()
        return self._link.half.readinto(buffer)

    def _check_not_refused(self) -> None:
        """Raise ReadFailed if `readinto` would, see there."""
        self._check_open()
        self._link.half.check_not_refused()

    def write(self, data: ReadableBuffer) -> int:
        """Unsupported: this end reads."""
        raise io.UnsupportedOperation("write")

    def read(self, n: int | None = -1) -> bytes:
        """Wait for bytes; return 1 to `n` of them, `b""` at the end.  Without `n`, the rest of the stream.

        Raises StreamAborted, SenderDied, ChannelTimeout, LayoutError.  After a timeout the
        next call continues where this one stopped.
        """
        self._check_open()
        if n is None or n < 0:
            return self._link.half.read_to_end()
        return self._link.half.read(n)

    def read1(self, n: int | None = -1) -> bytes:
        """As `read(n)`; without `n`, what is there.  For files that wrap this end: see `readinto`."""
        self._check_open()
        return self._link.half.read1(sys.maxsize if n is None or n < 0 else n)

    def readall(self) -> bytes:
        """Wait for the end of the stream; return everything up to it.

        Raises as `readinto` does.  The bytes that came before an error are there for the
        next read.
        """
        self._check_open()
        return self._link.half.readall()

    def readline(self, size: int | None = -1) -> bytes:
        """Return the bytes up to and with the next newline, at most `size`; at the end, what is left.

        Raises as `read` does.  If a part of a line came before StreamAborted or SenderDied,
        returns it, and the next call raises.  After a timeout it is there for the next read.
        """
        self._check_open()
        return self._link.half.readline(sys.maxsize if size is None or size < 0 else size)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """Return the lines up to the end of the stream; with `hint`, only until they have `hint` bytes.

        Raises as `read` does.  The lines before an error are there for the next read.
        """
        self._check_open()
        return self._link.half.readlines(max(hint or 0, 0))

    def peek(self, n: int) -> memoryview:
        """Wait for bytes; return a read-only view of 1 to `n` of them, empty at the end of the stream.

        They stay in the ring until `consume`.  A second `peek`, or a read, releases the view.
        Raises as `read` does.
        """
        self._check_open()
        _check_positive(n)
        return self._link.half.peek(n)

    def watch_output(self, file: int | io.IOBase) -> None:
        """Let a wait raise BrokenPipeError as soon as nobody reads the pipe or socket `file` any more.

        For a program that writes the bytes there.  `file`, a descriptor or a file, must stay
        open as long as this end.
        """
        self._check_open()
        self._link.watch_output(file if isinstance(file, int) else file.fileno())

    def consume(self, k: int) -> None:
        """Acknowledge the first `k` bytes of the view from `peek`, and release it.

        Raises ValueError when the view has fewer bytes; BufferError as `Sender.commit` does.
        """
        self._check_open()
        self._link.half.consume(k)

    def close(self) -> None:
        """Leave the stream, without waiting.  Before its end, the sender gets ReceiverLeft."""
        if not self._is_open:
            self._mark_closed()
            return
        try:
            self._link.close()
        finally:
            self._leave()


def _check_positive(n: int) -> None:
    if n < 1:
        raise ValueError(f"a view must have at least 1 byte, not {n}")


_open_ends: weakref.WeakSet[_End] = weakref.WeakSet()


def _disown_all() -> None:
    for end in list(_open_ends):
        end._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
