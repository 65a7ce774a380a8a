"""The two ends of a channel for asyncio: an event loop goes on while they wait.

    async with await mmapipc.aio.open_sender("greeting") as sender:
        await sender.write(b"hello\\n")

    async with await mmapipc.aio.open_receiver("greeting") as receiver:
        async for line in receiver:
            print(line)

They have the options, errors and guarantees of `mmapipc.Sender` and `Receiver`; the
other end of the channel may be of either kind.  A Receiver reads as
`asyncio.StreamReader` does.  `write`, `finish` and `close` are coroutines, so there is
no `drain`.

Cancelling loses nothing.  A read that is cancelled keeps what it has for the next one.
A write that is cancelled may have published a part: `tell()` shows how much.  Then
nothing can follow, and `finish()` and `close()` give the stream up and raise.  If it has
published nothing, write the same again; until a later write succeeds, `finish()` and
`close()` give the stream up too.  (A task that is cancelled before its first step has
not called anything.)

`timeout`, in seconds, limits each wait, as for the other ends.  `asyncio.timeout` and
`asyncio.wait_for` limit whatever is inside them.

Thread-safety: none, as in asyncio.  An end belongs to the loop in which it was opened.
Several tasks may write to one end: one write comes after the other, each in one piece.
One task at a time may read.
"""

from __future__ import annotations

import asyncio

from . import channel
from ._meeting import looping
from ._ring.states import Verdict
from .errors import SenderDied, StreamAborted

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeVar

    from _typeshed import ReadableBuffer

    _Self = TypeVar("_Self", bound="_End")

__all__ = ["Receiver", "Sender", "open_receiver", "open_sender"]


async def open_receiver(
    name: str,
    *,
    timeout: float | None = None,
    file: str | os.PathLike[str] | None = None,
    wait_for_role: bool = False,
) -> Receiver:
    """Open the reading end of the channel `name`; wait until there is a stream to read.

    Options and errors are those of `mmapipc.Receiver`.  When cancelled, it leaves nothing
    behind.
    """
    end = channel.Receiver.__new__(channel.Receiver)
    await looping.open(end._opening(name, timeout=timeout, file=file, wait_for_role=wait_for_role))
    end._opened()
    return Receiver(end)


async def open_sender(
    name: str,
    *,
    capacity: int = channel.DEFAULT_CAPACITY,
    timeout: float | None = None,
    persist: bool = False,
    file: str | os.PathLike[str] | None = None,
    on_lost: Callable[[int], object] | None = None,
    wait_for_role: bool = False,
) -> Sender:
    """Open the writing end of the channel `name`; wait while a receiver still reads an older stream.

    Options and errors are those of `mmapipc.Sender`; `on_lost` is called in the loop.
    When cancelled, it leaves nothing behind.
    """
    end = channel.Sender.__new__(channel.Sender)
    await looping.open(
        end._opening(
            name,
            capacity=capacity,
            timeout=timeout,
            persist=persist,
            file=file,
            on_lost=on_lost,
            wait_for_role=wait_for_role,
        )
    )
    end._opened()
    return Sender(end)


class _End:
    """What both ends have in common; `_end` is the file that waits in the usual way."""

    _end: channel.Sender | channel.Receiver

    def __init__(self) -> None:
        self._waiter = looping.LoopWaiter(self._end._link)

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._end.name

    @property
    def timeout(self) -> float | None:
        """The most seconds that each wait for the other end may take; None: no limit; 0: never wait.

        Can be set at any time, for later calls.  Raises ValueError for a wrong one.
        """
        return self._end.timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self._end.timeout = timeout

    @property
    def capacity(self) -> int:
        """The size of the ring in bytes."""
        return self._end.capacity

    @property
    def in_flight(self) -> int:
        """How many bytes are published and not yet acknowledged."""
        return self._end.in_flight

    @property
    def attached(self) -> bool:
        """Whether the other end is attached.  One that was killed counts until that is noticed."""
        return self._end.attached

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._end.closed

    def tell(self) -> int:
        """How many bytes of the stream are published (Sender) or acknowledged (Receiver)."""
        return self._end.tell()

    def __repr__(self) -> str:
        return repr(self._end).replace("mmapipc.", "mmapipc.aio.", 1)

    def abort(self) -> None:
        """Give up: close this end at once, and let the other end get an error.

        A task that waits in this end gets a ValueError.
        """
        self._waiter.forget()
        self._end.abort()

    async def close(self) -> None:
        """Close this end."""
        raise NotImplementedError

    async def __aenter__(self: _Self) -> _Self:
        self._end._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception, also a cancellation, give up."""
        if kind is None:
            await self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if hasattr(self, "_waiter"):
            self._waiter.forget()  # before the end warns that it was not closed, and closes


class Receiver(_End):
    """The reading end, from `open_receiver`; see `mmapipc.Receiver` for how a stream ends.

    If the sender gave up or was killed, a read raises StreamAborted or SenderDied once
    there are no more bytes; `read()`, `readexactly` and `readuntil` once there are too few,
    and those stay for the next read.  Each read also raises ChannelTimeout, which loses
    nothing; LayoutError; ValueError when this end is closed; RuntimeError while another
    task reads.
    """

    _end: channel.Receiver

    def __init__(self, end: channel.Receiver) -> None:
        self._end = end
        self._link = end._link
        self._half = end._link.half
        super().__init__()

    async def read(self, n: int = -1) -> bytes:
        """Wait for bytes; return 1 to `n` of them, `b""` at the end.  Without `n`, the rest of the stream."""
        self._check_free()
        if n == 0:
            return b""
        if n > 0:
            if self._waiter.credit < 0 or not self._half.available():
                if not await self._more_than(0):
                    return b""
            return self._take(min(n, self._half.available()))
        while await self._more_than(self._half.available()):
            pass
        return self._take(self._half.available())

    async def readexactly(self, n: int) -> bytes:
        """Return exactly `n` bytes.

        Raises asyncio.IncompleteReadError, which has the bytes that are left, when the
        stream ends before; ValueError when `n` is below 0.
        """
        await self._begin()
        if n < 0:
            raise ValueError(f"{self.name}: readexactly() needs 0 bytes or more, not {n}")
        while (there := self._half.available()) < n:
            if not await self._more_than(there):
                raise asyncio.IncompleteReadError(self._take(there), n)
        return self._take(n)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Return the bytes up to and with the next `separator`.

        Raises asyncio.IncompleteReadError, which has the bytes that are left, when the
        stream ends before; ValueError when the separator is empty.
        """
        await self._begin()
        if not separator:
            raise ValueError(f"{self.name}: readuntil() needs a separator of at least 1 byte")
        end = await self._end_of(separator)
        if not end:
            raise asyncio.IncompleteReadError(self._take(self._half.available()), None)
        return self._take(end)

    async def readline(self) -> bytes:
        """Return the bytes up to and with the next newline; at the end, what is left.

        Returns that also when the sender gave up or was killed; then the next call raises.
        """
        await self._begin()
        try:
            end = await self._end_of(b"\n")
        except (StreamAborted, SenderDied):
            if not self._half.available():
                raise
            end = 0
        return self._take(end or self._half.available())

    def at_eof(self) -> bool:
        """Whether the sender has finished the stream, and every byte of it was read."""
        self._end._check_open()
        return not self._half.available() and self._link.look(False) is Verdict.END

    def __aiter__(self) -> Receiver:
        """Loop over the lines of the stream, as `readline` returns them."""
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def close(self) -> None:
        """Leave the stream, without waiting.  Before its end, the sender gets ReceiverLeft."""
        self._waiter.forget()
        self._end.close()

    def _check_free(self) -> None:
        """Raise if this end is closed, or another task reads."""
        if self._link.mapped is None:
            self._end._check_open()
        if self._waiter.busy:
            raise RuntimeError(f"{self.name}: another task reads from this end; let one read at a time")

    async def _begin(self) -> None:
        """Begin to read."""
        self._check_free()
        if self._waiter.credit < 0:
            await self._waiter.give_way()
            self._check_free()

    def _take(self, count: int) -> bytes:
        """Return, and acknowledge, so many bytes that are there."""
        self._waiter.credit -= looping.CALL + count
        return self._half.take(count)

    async def _end_of(self, separator: bytes) -> int:
        """How many bytes go up to and with the next separator; 0 when the stream ends before."""
        half = self._half
        seen, there = 0, half.available()
        while not (end := half.find(separator, seen, there)):
            seen = there
            if not await self._more_than(seen):
                break
            there = half.available()
        return end

    async def _more_than(self, seen: int) -> bool:
        """Wait until there are more than `seen` bytes, which are there; False when the stream ends before."""
        half, link = self._half, self._link
        if self._waiter.credit < 0:
            await self._waiter.give_way()
            self._end._check_open()
        if half.available() > seen:
            return True
        if not seen:
            verdict = await self._waiter.until(link.look, link.timeout)
        else:
            try:
                half.expect(seen)
                verdict = await self._waiter.until(link.look, link.timeout)
            finally:
                half.expect(0)
        if verdict is Verdict.READY:
            return True
        link.raise_unless_fine(verdict, link.timeout)
        return False


class Sender(_End):
    """The writing end, from `open_sender`; see `mmapipc.Sender` for how a stream ends."""

    _end: channel.Sender

    def __init__(self, end: channel.Sender) -> None:
        self._end = end
        self._link = end._link
        self._half = end._link.half
        self._turn = asyncio.Lock()  # one write, or the end of the stream, at a time
        self._missed = False  # whether a write was cancelled that waited for the one before
        super().__init__()

    async def write(self, data: ReadableBuffer) -> int:
        """Write all of `data`, any buffer; return its size in bytes.

        Waits while the ring is full, and until the writes of other tasks are done.  Raises
        as `mmapipc.Sender.write` does, with the same consequences.
        """
        if self._link.mapped is None:
            self._end._check_open()
        if type(data) is bytes and self._waiter.credit > 0 and not self._turn.locked():
            # Most often there is nothing to wait for.
            size = len(data)
            if size <= self._half.available():
                self._waiter.credit -= looping.CALL + size
                return self._half.write(data)
        try:
            await self._turn.acquire()
        except BaseException:
            if self._turn.locked():
                self._missed = True
            else:
                self._half.owe(self._half.sequence)
            raise
        try:
            self._end._check_open()
            return await self._write(data)
        finally:
            if self._missed:  # what the next one writes makes good for that
                self._missed = False
                self._half.owe(self._half.sequence)
            self._turn.release()

    async def _write(self, data: ReadableBuffer) -> int:
        half, waiter = self._half, self._waiter
        start = half.sequence
        try:
            if waiter.credit < 0:
                await waiter.give_way()
                self._end._check_open()
            with memoryview(data) as given:
                if given.nbytes > half.available():
                    # In one piece, and as bytes.
                    with given.cast("B") if given.c_contiguous else memoryview(given.tobytes()) as source:
                        return await self._write_in_parts(source)
                waiter.credit -= looping.CALL + given.nbytes
            return half.write(data)
        except BaseException:
            half.owe(start)
            raise

    async def _write_in_parts(self, source: memoryview) -> int:
        """Write all of it, as there is room for it."""
        half, link, waiter = self._half, self._link, self._waiter
        half.begin_to_write()
        link.refuse_to_wait(len(source))
        done = 0
        while done < len(source):
            if waiter.credit < 0:
                await waiter.give_way()
                self._end._check_open()
            free = half.available()
            if free:
                with source[done : done + free] as part:
                    done += half.put(part)
                waiter.credit -= free
            else:
                link.raise_unless_fine(await waiter.until(link.look, link.timeout), link.timeout)
        half.settle()
        return done

    async def finish(self) -> None:
        """Wait for the writes of other tasks, and mark the end of the stream.

        Nothing can be written after it.  Waits for the disk if the ring is in a file.
        Raises as `mmapipc.Sender.finish` does.
        """
        self._end._check_open()
        async with self._turn:
            await self._finish()

    async def _finish(self) -> None:
        self._end._check_open()
        if self._link.home.kept:
            await looping.in_thread(self._link.finish)
        else:
            self._link.finish()

    async def close(self) -> None:
        """Mark the end of the stream, and wait until the receiver has acknowledged every byte.

        Returns, and raises, as `mmapipc.Sender.close` does.  This end is closed in each
        case, also when this is cancelled: then nobody knows how many of the bytes in flight
        arrived.
        """
        if self.closed:
            return
        try:
            async with self._turn:
                await self._finish()
                await self._deliver()
        finally:
            self.abort()  # which says that the stream is broken off unless it is finished

    async def _deliver(self) -> None:
        link = self._link
        if link.home.kept:
            link.deliver()  # it does not wait for a receiver
            return
        verdict: Verdict | None = Verdict.READY
        while verdict is Verdict.READY:  # the receiver goes on taking
            verdict = link.delivered(False) or await self._waiter.until(link.delivered, link.timeout)
        link.raise_unless_fine(verdict, link.timeout)
