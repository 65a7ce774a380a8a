"""Messages, both ways, to any number of clients: the interface of `multiprocessing.connection`.

    with mmapipc.connection.Listener("greeter") as listener:    # in one process
        with listener.accept() as connection:
            connection.send("hello " + connection.recv())

    with mmapipc.connection.Client("greeter") as connection:    # in others
        connection.send("world")
        print(connection.recv())

An address is a name, like that of a channel.  Only processes of the same user can
connect.  This is different from the standard library's module:

    a process that was killed, or ended by    its peer gets ConnectionResetError, after all that
      `os._exit`, with a connection open       was sent; EOFError only after a proper end
    `close()`                                 does not wait; what was sent can still be received
    a message of up to `capacity` bytes       is sent as a whole or not at all: after a timeout
                                               the connection can be used as before
    a longer one that is cut short            breaks the connection, and both sides get an error
    `timeout`, in seconds                     limits every wait (ChannelTimeout, which is a
                                               TimeoutError); None: no limit
    `Client` before its `Listener`            waits for it
    an end of `Pipe()`                        belongs to the process that first uses it
    `fileno()`                                is unsupported: use `wait`, or the `bell`

A process that exits, also by an exception, closes its connections.  `send` and `recv`
pickle as multiprocessing does: unpickle only what you trust.

Thread-safety: one thread may send while another receives.  Any thread may `close()`.
"""

from __future__ import annotations

import _thread  # not threading, which is slow to import
import atexit
import io
import itertools
import operator
import os
import sys
import weakref

from ._meeting import introducing, pairing
from ._meeting.homes import sweep_connections, sweep_listeners
from ._meeting.link import alone
from ._meeting.pairing import Kept, Pair
from ._meeting.waiting import CLOCK, checked_seconds
from ._ring import layout
from ._ring.messages import TooLong, room_for
from .errors import ChannelTimeout, InvalidCapacity
from .waiting import Bell, wait

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from _typeshed import ReadableBuffer, WriteableBuffer

    from ._ring.messages import MessageConsumer

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]

DEFAULT_CAPACITY = 1 << 16  # bytes
_MADE_UP = "listener-"  # begins the names of listeners that were given none
_SWEEPS = 10.0  # seconds between two looks for what killed processes have left
_FAMILIES = (None, "AF_UNIX", "AF_PIPE")
_numbers = itertools.count(1)


class Connection:
    """One end of a connection; `Pipe`, `Client` and `Listener.accept` make it."""

    _put: Callable[[bytes | memoryview, int], None] | None = None
    _consumer: MessageConsumer | None = None

    def __init__(
        self,
        kept: Kept | None,
        readable: bool = True,
        writable: bool = True,
        timeout: float | None = None,
    ) -> None:
        self._kept = kept
        self._pair: Pair | None = None
        self._readable = readable
        self._writable = writable
        self._timeout = timeout
        self._reason = "the connection is closed"
        self._beginning = _thread.RLock()
        _open.add(self)

    def _begin(self, pair: Pair) -> None:
        _close_at_exit()
        self._pair = pair
        self._kept = None

    def _used(self) -> Pair:
        """This end, in use by this process from now on.  Raises OSError if it is closed, or another's."""
        if self._pair is not None:
            return self._pair

        def begin() -> None:
            if self._pair is None and self._kept is not None:  # or another thread has just used it first
                self._kept.use(self._timeout, self._begin)

        alone(self._beginning, begin)
        pair = self._pair
        if pair is None:
            raise OSError(self._reason)
        return pair

    def _to_write(self) -> Callable[[bytes | memoryview, int], None]:
        pair = self._used()
        if not self._writable:
            raise OSError("the connection is read-only")
        self._put = put = pair.outgoing.half.put_message
        return put

    def _to_read(self) -> MessageConsumer:
        pair = self._used()
        if not self._readable:
            raise OSError("the connection is write-only, or had a message that was too long")
        self._consumer = consumer = pair.incoming.half
        return consumer

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._pair is None and self._kept is None

    @property
    def readable(self) -> bool:
        """Whether messages can be received."""
        return self._readable

    @property
    def writable(self) -> bool:
        """Whether messages can be sent."""
        return self._writable

    @property
    def timeout(self) -> float | None:
        """The most seconds that each wait of later calls may take; None: no limit; 0: never wait."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self._timeout = seconds = checked_seconds("connection", timeout)
        pair = self._pair
        if pair is not None:
            for link in pair.links:
                link.timeout = seconds

    @property
    def bell(self) -> Bell:
        """The `mmapipc.Bell` of this end: an event loop waits on it for something to receive."""
        self._to_read()
        return Bell(self._used().incoming)

    def fileno(self) -> int:
        """Unsupported: a connection has no descriptor."""
        raise io.UnsupportedOperation("a connection has no descriptor; use wait(), poll(), or its bell")

    def send_bytes(self, buf: ReadableBuffer, offset: int = 0, size: int | None = None) -> None:
        """Send any buffer as one message, or `size` bytes of it from `offset` on.

        Waits for room.  Raises BrokenPipeError (ReceiverGone) when the other end is closed
        or its process is gone; ChannelTimeout; ValueError for a wrong offset or size; OSError
        when this end is closed or read-only.  After an error nothing of a message of up to
        `capacity` bytes was sent, or, if a signal handler raised it, all.  A longer message
        that is cut short is the last: further calls raise StreamAborted.
        """
        put = self._put or self._to_write()
        if size is None and not offset and type(buf) is bytes:
            data: bytes | memoryview = buf
            size = len(buf)
        else:
            data, size = _part(buf, offset, size)
        try:
            put(data, size)
        except ValueError:
            self._check_not_closed()
            raise

    def send(self, obj: object) -> None:
        """Pickle an object and send it.  Raises what `send_bytes` and pickling raise."""
        put = self._put or self._to_write()
        data = (_dumps or _import_pickling())(obj)
        try:
            put(data, len(data))
        except ValueError:
            self._check_not_closed()
            raise

    def _received(self, most: int | None = None, target: memoryview | None = None) -> Any:
        """What `MessageConsumer.take_message` returns, with EOFError at the end."""
        consumer = self._consumer or self._to_read()
        try:
            received = consumer.take_message(most, target)
        except ValueError:
            self._check_not_closed()
            raise
        if received is None:
            raise EOFError("the other end has closed the connection")
        return received

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Wait for the next message; return its bytes.

        After all messages that were sent, raises EOFError when the other end has closed the
        connection; ConnectionResetError (SenderDied) when its process was killed;
        ConnectionAbortedError (StreamAborted) when it did not finish a message.  Also raises
        ChannelTimeout, after which the message is there for the next call; LayoutError when
        the memory is damaged; OSError when this end is closed or write-only, or when the
        message is longer than `maxlength` bytes: then nothing more can be received.
        """
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        try:
            data: bytes = self._received(maxlength)
            return data
        except TooLong:
            if self._writable:
                self._readable, self._consumer = False, None
            else:
                self.close()
            raise OSError(
                f"the message is longer than maxlength ({maxlength}); nothing more can be received"
            ) from None

    def recv_bytes_into(self, buf: WriteableBuffer, offset: int = 0) -> int:
        """Receive a message into a buffer, from byte `offset` on; return its size in bytes.

        Raises `multiprocessing.BufferTooShort`, which has the message, when it does not fit;
        otherwise as `recv_bytes` does.
        """
        target = given = memoryview(buf)
        try:
            if offset or type(buf) is not bytearray:
                self._to_read()
                if given.readonly or not given.c_contiguous:
                    raise TypeError("the buffer must be writable and in one piece")
                if not 0 <= offset <= given.nbytes:
                    raise ValueError("negative offset" if offset < 0 else "offset too large")
                target = given.cast("B")[offset:]
            try:
                size: int = self._received(len(target), target)
                return size
            except TooLong:
                from multiprocessing import BufferTooShort

                raise BufferTooShort(self._received()) from None
        except BaseException:
            target.release()  # or the traceback would keep the caller's buffer
            given.release()
            raise

    def recv(self) -> Any:
        """Receive an object.  Raises what `recv_bytes` and unpickling raise."""
        data = self._received()
        return (_loads or _import_unpickling())(data)

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait until there is a message, the end, or an error; return whether there is.

        Waits for at most `timeout` seconds; None: no limit.
        """
        self._to_read()
        seconds = None if timeout is None else checked_seconds("poll", max(0.0, timeout))
        try:
            return self._used().incoming.poll(seconds)
        except ValueError:
            self._check_not_closed()
            raise

    def _check_not_closed(self) -> None:
        """OSError if another thread has closed this end."""
        if self._pair is None:
            raise OSError(self._reason) from None

    def close(self) -> None:
        """Close this end, without waiting.  The other end still gets what was sent, and then EOFError.

        If this is an end of `Pipe()` that was never used, and another process has a copy of
        it, only this copy is closed, and the other end gets nothing.
        """
        ends = [end for end in (self._kept, self._pair) if end is not None]

        def close() -> None:  # of which nothing may stay behind
            self._kept = self._pair = self._put = self._consumer = None
            _open.discard(self)
            for end in ends:
                end.close()

        _all_the_same(close)

    def _disown(self) -> None:
        """In a forked child: an end that its parent uses is closed here without a word; others are copied."""
        pair, self._pair = self._pair, None
        self._beginning = _thread.RLock()  # that may be held by a thread that is not here
        if pair is not None:
            self._put = self._consumer = None
            self._reason = "the connection is in use by the process that this one was forked from"
            _open.discard(self)
            pair.disown(self._reason)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_pair"):
            self.close()

    def __reduce__(self) -> tuple[object, ...]:
        if self._kept is None:
            raise TypeError(
                "a connection that is closed, or that a process has used, cannot be passed on; "
                "pass an unused end of Pipe(), or the address of a Listener"
            )
        from multiprocessing import context

        context.assert_spawning(self)
        return Connection, (self._kept, self._readable, self._writable, self._timeout)

    def __repr__(self) -> str:
        if self._pair is None:
            state = "closed" if self._kept is None else "not used yet"
        else:
            state = repr(self._pair.name)
        return f"<mmapipc.connection.Connection {state}>"


class Listener:
    """Accepts clients at `address`, a name; None: a name is made up.

    Each connection has `capacity` bytes for each direction: a message of up to that size
    is sent in one step, a longer one in pieces.  `backlog` + 1 clients can connect, and
    send, before they are accepted; others wait.  `timeout`, in seconds, limits each wait
    of `accept` and of the connections; None: no limit.

    `family` may be "AF_UNIX" or "AF_PIPE", and has no effect.  `authkey` must be None: only
    processes of the same user can connect.

    Raises RoleTaken (a FileExistsError) when the name has a listener, and what
    `mmapipc.Sender` raises.  Thread-safety: any thread may call anything.
    """

    def __init__(
        self,
        address: str | None = None,
        family: str | None = None,
        backlog: int = 1,
        authkey: None = None,
        *,
        timeout: float | None = None,
        capacity: int = DEFAULT_CAPACITY,
    ) -> None:
        _check_common(family, authkey)
        name = _fresh_name() if address is None else _name(address)
        self._address = name
        self._timeout = checked_seconds(name, timeout)
        self._lock = _thread.RLock()
        self._reason = f"{name}: the listener is closed"
        invitations = introducing.Invitations(
            name, _room(name, capacity), max(1, operator.index(backlog)) + 1, self._timeout
        )
        self._invitations: introducing.Invitations | None = invitations
        _open.add(self)
        _close_at_exit()
        invitations.open()

    @property
    def address(self) -> str:
        """The name at which clients connect."""
        return self._address

    @property
    def last_accepted(self) -> None:
        """None: a client has no address."""
        return None

    def accept(self) -> Connection:
        """Wait for a client; return the connection to it.

        Raises ChannelTimeout; OSError when the listener is closed; MemoryRefused when there is
        no memory for another connection.
        """
        connection = Connection(None, timeout=self._timeout)
        try:
            if not self._lock.acquire(timeout=-1 if self._timeout is None else self._timeout):
                raise ChannelTimeout(
                    f"{self._address}: another thread still accepts after {self._timeout:g} s"
                )
            invitations = self._opened()
            try:
                invitations.accept(self._timeout, connection._begin)
            except Exception:
                self._opened()  # closed by another thread
                raise
            invitations.prepare()
            return connection
        finally:
            if self._lock._is_owned():  # type: ignore[attr-defined]
                self._lock.release()

    def _opened(self) -> introducing.Invitations:
        if self._invitations is None:
            raise OSError(self._reason)
        return self._invitations

    def close(self) -> None:
        """Stop accepting, and give the name back.

        Clients that were not accepted get an error.  Connections stay open.
        """
        invitations = self._invitations
        if invitations is not None:

            def close() -> None:  # which must not stay behind
                self._invitations = None
                _open.discard(self)
                invitations.close(self._reason)

            _all_the_same(close)

    def _disown(self) -> None:
        self._lock = _thread.RLock()  # that may be held by a thread that is not here
        invitations, self._invitations = self._invitations, None
        if invitations is not None:
            _open.discard(self)
            self._reason = f"{self._address}: the process that this one was forked from has the listener"
            invitations.disown(self._reason)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_invitations"):
            self.close()


def Client(
    address: str, family: str | None = None, authkey: None = None, *, timeout: float | None = None
) -> Connection:
    """Wait for the listener at `address`, and for room in its backlog; return a connection to it.

    `timeout`, in seconds, limits that, and each wait of the connection; None: no limit.
    Raises ChannelTimeout, LayoutError, MemoryRefused, InvalidName.  `family` and `authkey`
    are as for `Listener`.
    """
    _check_common(family, authkey)
    name = _name(address)
    seconds = checked_seconds(name, timeout)
    connection = Connection(None, timeout=seconds)
    introducing.invited(name, seconds, connection._begin)
    return connection


def Pipe(
    duplex: bool = True, *, capacity: int = DEFAULT_CAPACITY, timeout: float | None = None
) -> tuple[Connection, Connection]:
    """Return both ends of a connection; without `duplex` the first receives, and the second sends.

    An end belongs to the process that first uses it: this one, a forked child, or a process
    that `multiprocessing` starts and passes it to.  Other processes can then only close it.
    When the last process that can use an end closes it or dies, calls of the other end
    raise.  The memory stays until both ends are used, or no process has one.

    `capacity`, in bytes, and `timeout`, in seconds, are as for `Listener`.  Raises
    InvalidCapacity, MemoryRefused, ValueError (timeout).
    """
    _sweep()
    room, seconds = _room("Pipe", capacity), checked_seconds("Pipe", timeout)
    first, second = pairing.pipe((room if duplex else room_for(0), room))
    return (
        Connection(first, writable=duplex, timeout=seconds),
        Connection(second, readable=duplex, timeout=seconds),
    )


def _all_the_same(step: Callable[[], object]) -> None:
    """Do it; if an exception comes, perhaps of a signal handler, do it once more first."""
    try:
        step()
    except BaseException:
        step()
        raise


_next_sweep = 0.0


def _sweep() -> None:
    """Before an address is made up: remove what killed processes have left at such ones."""
    global _next_sweep
    if CLOCK.now() >= _next_sweep:
        _next_sweep = CLOCK.now() + _SWEEPS
        sweep_connections(pairing.pipes())
        sweep_listeners(_MADE_UP)


def _part(buf: ReadableBuffer, offset: int, size: int | None) -> tuple[memoryview, int]:
    view = memoryview(buf)
    view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    count = view.nbytes
    if offset < 0:
        raise ValueError("offset is negative")
    if count < offset:
        raise ValueError("buffer length < offset")
    if size is None:
        size = count - offset
    elif size < 0:
        raise ValueError("size is negative")
    elif offset + size > count:
        raise ValueError("buffer length < offset + size")
    return view[offset : offset + size], size


def _fresh_name() -> str:
    _sweep()
    return f"{_MADE_UP}{os.getpid()}-{next(_numbers)}-{os.urandom(8).hex()}"


def _name(address: object) -> str:
    if not isinstance(address, str):
        raise TypeError(f"the address must be a name (a str), not {address!r}")
    return address


def _room(name: str, capacity: int) -> int:
    capacity = operator.index(capacity)
    if not 1 <= capacity <= layout.LARGEST_CAPACITY // 2:
        raise InvalidCapacity(f"{name}: the capacity must be from 1 to 2**61 bytes, not {capacity}")
    return room_for(capacity)


def _check_common(family: str | None, authkey: object) -> None:
    if family not in _FAMILIES:
        raise ValueError(f"{family}: connections are between processes of one machine; leave the family out")
    if authkey is not None:
        raise ValueError(
            "an authkey is not needed, since only processes of the same user can connect; leave it out"
        )


# Pickling as multiprocessing does it, once it is needed.
_dumps: Callable[[object], Any] | None = None
_loads: Callable[[Any], Any] | None = None


def _import_pickling() -> Callable[[object], Any]:
    global _dumps
    from multiprocessing.reduction import ForkingPickler

    _dumps = ForkingPickler.dumps
    return ForkingPickler.dumps


def _import_unpickling() -> Callable[[Any], Any]:
    global _loads
    import pickle

    _loads = pickle.loads
    return pickle.loads


# ---------------------------------------------------------------- the end of the process, and its children

_open: weakref.WeakSet[Connection | Listener] = weakref.WeakSet()
_will_close = 0  # the pid of the process that will close all at its exit


def _close_at_exit() -> None:
    """Have this process close its connections when it exits; one of multiprocessing exits its own way."""
    global _will_close
    if _will_close != os.getpid():
        _will_close = os.getpid()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.Finalize(None, _close_all, exitpriority=-1)


def _close_all() -> None:
    for each in list(_open):
        try:
            each.close()
        except Exception:  # the process ends; what is left the system takes back
            pass


def _disown_all() -> None:
    for each in list(_open):
        each._disown()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
