"""Messages in a ring: a length and as many bytes, padded, each published by one store if it fits.

    +--------+----------------------+-----+--------+-- - -
    | length | the message          | pad | length | the next
    +--------+----------------------+-----+--------+-- - -
    ^ a multiple of 8

The length is one word of the ring, in the machine's own byte order.  A ring's
capacity is a multiple of 8 too, so no length lies across its edge.

A message that fits is there as a whole or not at all: who cannot send it in
time has sent nothing of it.  A longer one passes through the ring in pieces.
"""

from __future__ import annotations

from io import BytesIO

from ..errors import LayoutError, StreamAborted, in_bytes
from . import layout, ring
from .ring import Consumer, Producer

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Link(ring.Link, Protocol):
        """What a producer of messages knows of the world around it."""

        def hail(self) -> None:
            """Wake a peer that sleeps: a state has changed."""

        def check_peer(self) -> None:
            """Raise when the peer is gone, as far as that is known; asks the system now and then."""

_WRITE_SEQ = layout.WRITE_SEQ
_RECEIVER_CALLS = layout.RECEIVER_CALLS
_LENGTH = 8  # bytes that a length has
_LARGEST = 2**62  # bytes that no message has


class TooLong(Exception):
    """The next message, which stays where it is, has more bytes than the caller takes."""


def room_for(size: int) -> int:
    """How many bytes of the ring a message of `size` bytes takes."""
    return size + _LENGTH + 7 & -8


class MessageProducer(Producer):
    """A producer of messages.  `is_cut` once a long one could not be sent to its end."""

    _link: Link

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lengths = self._data.cast("Q")
        self.is_cut = False

    def shut(self, reason: str) -> None:
        super().shut(reason)
        self._lengths.release()  # or the memory would stay mapped

    def put_message(self, data: bytes | memoryview, size: int) -> None:
        """Send a message, plain bytes; waits for room.

        Whatever is raised: a message that fits the ring was then not sent, or
        (by a signal handler) sent as a whole, and the next one can follow.
        """
        self._link.check_peer()
        room = size + 15 & -8
        start = self.sequence
        end = start + room
        if end > self._limit:
            if room > self.capacity:
                self._put_long(data, size)
                return
            self._wait_for(room)
        capacity = self.capacity
        offset = start % capacity
        words = self.words
        try:
            self._lengths[offset >> 3] = size
            offset += _LENGTH
            if offset + size <= capacity:
                self._data[offset : offset + size] = data
            else:
                first = capacity - offset
                self._data[offset:capacity] = data[:first]
                self._data[: size - first] = data[first:]
            # ORDER: the bytes before write_seq.  Pairs with `Consumer._refresh`.
            if not self._ordered:
                self._barrier()
            self.sequence = end
            words[_WRITE_SEQ] = end
        except BaseException:
            if self.sequence != start:  # between the two
                words[_WRITE_SEQ] = end
            raise
        calls = words[_RECEIVER_CALLS]
        if calls and calls != self.rung:
            if not ring.wrote and calls & layout.PARKED and calls >> 1 != end:
                # As in `Producer.write`.
                self.ring()
                self.rung = calls
                ring.rang = True
            else:
                self._link.answer(calls)
        ring.wrote = True

    def _wait_for(self, room: int) -> None:
        """Wait until so many bytes are free, none of which is published meanwhile."""
        self.check_not_shut()
        self._check_not_cut()
        self._wanted = room
        try:
            free = self._refresh()
            if free < room:
                self._link.refuse_to_wait(room)
            while free < room:
                self._wait()
                free = self._refresh()
        finally:
            self._wanted = 1

    def _check_not_cut(self) -> None:
        if self.is_cut:
            raise StreamAborted(
                f"{self._name}: an earlier message was longer than the ring and was cut short, "
                "so nothing can follow it; close this connection"
            )

    def _put_long(self, data: bytes | memoryview, size: int) -> None:
        self._check_not_cut()
        self._link.refuse_to_wait(room_for(size))
        start = self.sequence
        try:
            self.is_cut = True  # until all of it is sent, whatever comes between
            self.write(size.to_bytes(_LENGTH, layout.BYTE_ORDER))
            self.write(data)
            self.write(bytes(-size % _LENGTH))
            self.is_cut = False
        except BaseException:
            if self.sequence == start:
                self.settle()
                self.is_cut = False
            else:
                self.owe(start)
                self.abort()
                self._link.hail()
            raise


def _put_into(begun: BytesIO, came: int, data: memoryview, size: int) -> None:
    """Add to what came of a message of that size."""
    end = came + len(data)
    if end > len(begun.getbuffer()):
        # Twice the memory each time, and just enough at last.  Of its own accord BytesIO takes an eighth
        # more, and glibc's malloc then maps new memory for each message of 128 KiB to 32 MiB.
        room = size
        while room >> 1 >= end:
            room >>= 1
        begun.seek(room - 1)
        begun.write(b"\0")
    begun.seek(came)
    begun.write(data)


class MessageConsumer(Consumer):
    """A consumer of messages."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lengths = self._data.cast("Q")
        # What came of a message that is acknowledged, as a whole or in part, and not yet returned.
        self._begun: BytesIO | None = None
        self._begun_size = 0  # bytes that the whole message has
        self._begun_end = 0  # the sequence where it ends

    def shut(self, reason: str) -> None:
        super().shut(reason)
        self._lengths.release()  # as above

    @property
    def is_ready(self) -> bool:
        return (self._begun is not None and self.sequence == self._begun_end) or super().is_ready

    def take_message(self, most: int | None = None, target: memoryview | None = None) -> Any:
        """The next message (bytes) or, if it is to be copied into a target, plain bytes, its size (an int).

        None at the end of the stream.  Waits while there is none.  TooLong when it has
        more than `most` bytes.  What is raised takes nothing away.
        """
        if self._begun is not None:
            return self._take_rest(most, target)
        start = self.sequence
        ready = self._published - start
        capacity = self.capacity
        if ready < _LENGTH:
            # Flat, as far as an answer comes soon: after a pause each call takes microseconds.
            write = self.words[_WRITE_SEQ] if self._shut is None else 0
            if write == start and ring.wrote:
                write = self.rest(start)
            if start + _LENGTH <= write <= start + capacity and not ready:
                # ORDER: write_seq before the bytes.  Pairs with `MessageProducer.put_message`.
                if not self._ordered:
                    self._barrier()
                self._published = write
                ready = write - start
            else:
                ready = self._more() if ready <= 0 else ready
                if not ready:
                    return None
                if ready < _LENGTH:
                    raise self._lie(f"whose length has {in_bytes(ready)}")
        offset = start % capacity
        # One load of what the peer can change at any time: from here on only the copy counts.
        size: int = self._lengths[offset >> 3]
        if most is not None and size > most:
            raise TooLong
        room = size + 15 & -8
        if room > ready:
            self._begin_long(size, room, ready)
            return self._take_rest(most, target)
        offset += _LENGTH
        if offset + size <= capacity:
            if target is None:
                data = bytes(self._data[offset : offset + size])
            else:
                target[:size] = self._data[offset : offset + size]
        elif target is None:
            data = self._copied(size, _LENGTH)
        else:
            self._copy_across_the_edge(target, size, _LENGTH)
        try:
            self.acknowledge(room)
            return data if target is None else size
        except BaseException:
            if self.sequence != start:
                self._begin(size, self.sequence, data if target is None else target[:size])
            raise

    def _begin_long(self, size: int, room: int, ready: int) -> None:
        if size > _LARGEST:
            raise self._lie(f"of {size} bytes")
        if room <= self.capacity:
            # It was published by one store, so all of it would be there.
            raise self._lie(f"of {in_bytes(size)}, of which {ready - _LENGTH} are there")
        start = self.sequence
        try:
            self._begin(size, start + room, b"")
            self.acknowledge(_LENGTH)
        except BaseException:
            if self.sequence == start:
                self._begun = None
            raise

    def _begin(self, size: int, end: int, came: bytes | memoryview) -> None:
        self._begun_size, self._begun_end = size, end
        self._begun = BytesIO(came)

    def _take_rest(self, most: int | None, target: memoryview | None) -> bytes | int:
        """Gather the rest of a message as it comes.  What came before an error stays for the next call."""
        begun, size = self._begun, self._begun_size
        assert begun is not None
        if most is not None and size > most:
            raise TooLong
        first = self._begun_end - room_for(size) + _LENGTH
        if target is not None:
            begun.seek(0)
            begun.readinto(target[: min(size, self.sequence - first)])
        try:
            self._gather(begun, target, first)
            whole = begun.getvalue() if target is None else size
            self._begun = None
            return whole
        except BaseException:
            if target is not None:
                begun = BytesIO(target[: min(size, self.sequence - first)])
            self._begun = begun
            raise

    def _gather(self, begun: BytesIO, target: memoryview | None, first: int) -> None:
        # A function of its own, as `_put_all` is.
        size, end = self._begun_size, self._begun_end
        while self.sequence < end:
            came = self.sequence - first
            with self.view(end - self.sequence) as piece:
                count = min(len(piece), self._step)
                if not count:
                    raise StreamAborted(
                        f"{self._name}: the other end closed the connection in the middle of a message: "
                        f"{came} of {in_bytes(size)} came"
                    )
                with piece[: min(count, size - came)] as data:  # without what pads it
                    if target is None:
                        _put_into(begun, came, data, size)
                    else:
                        target[came : came + len(data)] = data
            self.acknowledge(count)

    def _lie(self, what: str) -> LayoutError:
        return layout.damaged(self._name, f"a message {what}")
