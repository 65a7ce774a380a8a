"""The peers of the benchmark: the ways to move bytes between two processes that it compares."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import mmap
import multiprocessing
import multiprocessing.connection
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mmapipc  # noqa: E402
import mmapipc.aio  # noqa: E402
import mmapipc.connection  # noqa: E402
from mmapipc.files import BufferedReceiver  # noqa: E402

WINDOWS = os.name == "nt"
if WINDOWS:
    import msvcrt
    from ctypes import wintypes
    from multiprocessing.connection import PipeConnection

    Connection = PipeConnection
else:
    from multiprocessing.connection import Connection as Connection

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30  # bytes
SIZES = (1, 64, KIB, 4 * KIB, 64 * KIB, MIB)  # bytes a write
SPAWN = multiprocessing.get_context("spawn")  # a fork would copy this process with all its connections

OURS = "mmapipc"
MESSAGES = "mmapipc.connection"
PIPE = "os.pipe"
THEIR_MESSAGES = "multiprocessing.Pipe"
IN_LOOP = "mmapipc.aio"
PIPE_IN_LOOP = "os.pipe and add_reader"
HANDSHAKE = "two events a byte"


class InLoop(NamedTuple):
    """What sends and receives in this event loop, which does not run between two measurements."""

    loop: asyncio.AbstractEventLoop
    send: Callable[[bytes], Awaitable[object]]
    receive: Callable[[int], Awaitable[bytes]]  # at most so many bytes


class Link(NamedTuple):
    """A process's end of a connection, both ways."""

    send: Callable[[bytes], object]  # sends all of it
    receive_into: Callable[[bytearray], int]  # waits; returns how many bytes it put there, at least 1
    flush: Callable[[], object] = lambda: None  # to be called when nothing follows for now
    close: Callable[[], object] = lambda: None
    lines: Callable[[], Iterator[bytes]] | None = None  # what is received, as a buffered file
    send_items: Callable[[list[bytes]], object] | None = None  # sends small pieces
    objects: tuple[Callable[[object], object], Callable[[], Any]] | None = None  # sends one, receives one
    loop: InLoop | None = None  # the same for those that wait in an event loop


# What a function that makes a connection gives to the writer, and to the reader.
Shares = tuple[Any, Any]


def crossed(one: Any, other: Any) -> Shares:
    """Two one-way connections as (outgoing, incoming) of the writer and of the reader."""
    return (one, other), (other, one)


def fresh_name() -> str:
    """A name that nobody else uses."""
    return f"benchmark-{os.getpid()}-{secrets.token_hex(4)}"


def share_names(_: contextlib.ExitStack) -> Shares:
    return crossed(fresh_name(), fresh_name())


def open_channels(given: tuple[str, str]) -> Link:
    outgoing, incoming = given
    sender = mmapipc.Sender(outgoing)
    receiver = mmapipc.Receiver(incoming)

    def close() -> None:
        sender.close()
        receiver.close()

    file = BufferedReceiver(receiver)
    return Link(
        sender.write, receiver.readinto, lines=lambda: iter(file), send_items=sender.writelines, close=close
    )


def share_pipes(stack: contextlib.ExitStack) -> Shares:
    there_out, there_in = os.pipe()
    back_out, back_in = os.pipe()
    for fd in (there_out, there_in, back_out, back_in):
        stack.callback(os.close, fd)
    handle: Callable[[int], int] = int
    if WINDOWS:
        handle = msvcrt.get_osfhandle
    return (handle(there_in), handle(back_out)), (handle(back_in), handle(there_out))


def open_pipes(handles: tuple[int, int]) -> Link:
    outgoing, incoming = handles
    if WINDOWS:
        outgoing = msvcrt.open_osfhandle(outgoing, os.O_BINARY | os.O_WRONLY)
        incoming = msvcrt.open_osfhandle(incoming, os.O_BINARY | os.O_RDONLY)
    file = os.fdopen(incoming, "rb")
    raw = open(incoming, "rb", buffering=0, closefd=False)

    def send_items(items: list[bytes]) -> None:
        for item in items:
            os.write(outgoing, item)

    return Link(
        open(outgoing, "wb", buffering=0).write, raw.readinto, lines=lambda: iter(file), send_items=send_items
    )


def share_socketpair(stack: contextlib.ExitStack) -> Shares:
    one, other = (stack.enter_context(end) for end in socket.socketpair())
    return (one.fileno(),), (other.fileno(),)


def open_socket(handles: tuple[int]) -> Link:
    connected = socket.socket(fileno=handles[0])
    return Link(connected.sendall, connected.recv_into, close=connected.close)


def meet_tcp(port: int | None, announce: Callable[[object], None]) -> Link:
    if port is None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            announce(server.getsockname()[1])
            connected = server.accept()[0]
    else:
        connected = socket.create_connection(("127.0.0.1", port))

    def flush() -> None:
        # Joining small writes (Nagle's algorithm) makes its stream several times
        # faster, but the last piece would wait for a late acknowledgement.
        for off in (True, False):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, off)

    return Link(connected.sendall, connected.recv_into, flush, connected.close)


def share_connections(stack: contextlib.ExitStack) -> Shares:
    one, other = (stack.enter_context(end) for end in multiprocessing.Pipe())
    return (one.fileno(),), (other.fileno(),)


def connection_link(connection: Any) -> Link:
    objects = connection.send, connection.recv
    return Link(connection.send_bytes, connection.recv_bytes_into, close=connection.close, objects=objects)


def open_connection(handles: tuple[int]) -> Link:
    return connection_link(Connection(handles[0]))


def meet_named_pipe(address: str | None, announce: Callable[[object], None]) -> Link:
    if address is None:
        with multiprocessing.connection.Listener(family="AF_PIPE") as listener:
            announce(listener.address)
            return connection_link(listener.accept())
    return connection_link(multiprocessing.connection.Client(address, family="AF_PIPE"))


def meet_listener(address: str | None, announce: Callable[[object], None]) -> Link:
    if address is None:
        with mmapipc.connection.Listener() as listener:
            announce(listener.address)
            return connection_link(listener.accept())
    return connection_link(mmapipc.connection.Client(address))


def loop_link(here: InLoop, close: Callable[[], object] = lambda: None) -> Link:
    def send(data: bytes) -> None:
        here.loop.run_until_complete(here.send(data))

    def receive_into(buffer: bytearray) -> int:
        data = here.loop.run_until_complete(here.receive(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    return Link(send, receive_into, close=close, loop=here)


def open_channels_in_loop(given: tuple[str, str]) -> Link:
    outgoing, incoming = given
    loop = asyncio.new_event_loop()
    sender = loop.run_until_complete(mmapipc.aio.open_sender(outgoing))
    receiver = loop.run_until_complete(mmapipc.aio.open_receiver(incoming))

    def close() -> None:
        loop.run_until_complete(sender.close())
        loop.run_until_complete(receiver.close())

    return loop_link(InLoop(loop, sender.write, receiver.read), close)


def open_pipes_in_loop(handles: tuple[int, int]) -> Link:
    outgoing, incoming = handles
    loop = asyncio.new_event_loop()
    waiting: list[asyncio.Future[bytes]] = []
    loop.add_reader(incoming, lambda: waiting.pop().set_result(os.read(incoming, 64 * KIB)))

    async def send(data: bytes) -> None:
        os.write(outgoing, data)

    async def receive(_: int) -> bytes:
        waiting.append(loop.create_future())
        return await waiting[0]

    return loop_link(InLoop(loop, send, receive))


def by_message(send: Callable[[bytes], object], receive: Callable[[], Any]) -> Link:
    """The link of a peer that gives every message as a new object."""

    def receive_into(buffer: bytearray) -> int:
        message = receive()
        buffer[: len(message)] = message
        return len(message)

    return Link(send, receive_into)


def share_queues(_: contextlib.ExitStack) -> Shares:
    return crossed(SPAWN.Queue(), SPAWN.Queue())


def open_queues(given: tuple[Any, Any]) -> Link:
    outgoing, incoming = given
    return by_message(outgoing.put, incoming.get)


class Mailbox(NamedTuple):
    """One byte of shared memory, handed over by two events: what the original does."""

    cell: Any
    tell_written: Callable[[], object]
    await_written: Callable[[], object]
    tell_taken: Callable[[], object]
    await_taken: Callable[[], object]


def mailbox_link(outgoing: Mailbox, incoming: Mailbox) -> Link:
    def send(data: bytes) -> None:
        for byte in data:
            outgoing.cell[0] = byte
            outgoing.tell_written()
            outgoing.await_taken()

    def receive_into(buffer: bytearray) -> int:
        incoming.await_written()
        buffer[0] = incoming.cell[0]
        incoming.tell_taken()
        return 1

    return Link(send, receive_into)


def share_semaphores(_: contextlib.ExitStack) -> Shares:
    def parts() -> tuple[Any, Any, Any]:
        return SPAWN.RawArray("B", 1), SPAWN.Semaphore(0), SPAWN.Semaphore(0)

    return crossed(parts(), parts())


if WINDOWS:

    def open_mailbox(name: str) -> Mailbox:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateEventW.restype = wintypes.HANDLE
        kernel.CreateEventW.argtypes = [wintypes.LPVOID, wintypes.BOOL, wintypes.BOOL, wintypes.LPCWSTR]
        kernel.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
        for function in (kernel.SetEvent, kernel.ResetEvent):
            function.argtypes = [wintypes.HANDLE]

        def event(what: str) -> tuple[Callable[[], object], Callable[[], object]]:
            handle = kernel.CreateEventW(None, True, False, f"{name}-{what}")
            if not handle:
                raise ctypes.WinError(ctypes.get_last_error())

            def wait() -> None:
                kernel.WaitForSingleObject(handle, wintypes.DWORD(-1))
                kernel.ResetEvent(handle)

            return lambda: kernel.SetEvent(handle), wait

        return Mailbox(mmap.mmap(-1, 1, tagname=name), *event("written"), *event("taken"))

else:

    def open_mailbox(parts: tuple[Any, Any, Any]) -> Mailbox:
        cell, written, taken = parts
        return Mailbox(cell, written.release, written.acquire, taken.release, taken.acquire)


def open_mailboxes(given: tuple[Any, Any]) -> Link:
    outgoing, incoming = map(open_mailbox, given)
    return mailbox_link(outgoing, incoming)


def meet_zmq(address: bytes | None, announce: Callable[[object], None]) -> Link:
    import zmq

    paired: Any = zmq.Context.instance().socket(zmq.PAIR)
    if address is None:
        paired.bind("tcp://127.0.0.1:*" if WINDOWS else f"ipc://{os.environ['MMAPIPC_DIR']}/{fresh_name()}")
        announce(paired.last_endpoint)
    else:
        paired.connect(address)
    return by_message(paired.send, paired.recv)


def share_faster_fifos(_: contextlib.ExitStack) -> Shares:
    import faster_fifo

    def fifo() -> Any:
        return faster_fifo.Queue(max_size_bytes=4 * MIB, dumps=bytes, loads=bytes)

    return crossed(fifo(), fifo())


def open_iceoryx2(given: tuple[str, str]) -> Link:
    import iceoryx2

    iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
    node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)

    def services(name: str) -> tuple[Any, Any]:
        service = iceoryx2.ServiceName.new(name)
        messages = node.service_builder(service).publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
        messages = messages.enable_safe_overflow(False).subscriber_max_buffer_size(16)
        return messages.open_or_create(), node.service_builder(service).event().open_or_create()

    (messages_out, events_out), (messages_in, events_in) = map(services, given)
    patient = iceoryx2.BackpressureStrategy.RetryUntilDelivered
    publisher = (
        messages_out.publisher_builder().initial_max_slice_len(MIB).backpressure_strategy(patient).create()
    )
    notifier = events_out.notifier_builder().create()
    subscriber = messages_in.subscriber_builder().create()
    listener = events_in.listener_builder().create()

    def send(data: bytes) -> None:
        sample = publisher.loan_slice_uninit(len(data))
        ctypes.memmove(sample.payload_ptr, data, len(data))
        sample.assume_init().send()
        notifier.notify()

    def receive_into(buffer: bytearray) -> int:
        while (sample := subscriber.receive()) is None:
            listener.blocking_wait()
        payload = sample.payload()
        size: int = payload.len()
        buffer[:size] = payload.as_memory_view()
        sample.delete()
        return size

    return Link(send, receive_into)


def no_named_pipe() -> str | None:
    return None if WINDOWS else "only on Windows"


def no_add_reader() -> str | None:
    return "Windows' event loop has no add_reader for pipes" if WINDOWS else None


def no_socketpair() -> str | None:
    return "not on Windows, where Python makes it of TCP loopback" if WINDOWS else None


def needs_package(name: str) -> Callable[[], str | None]:
    return lambda: None if importlib.util.find_spec(name) else "not installed"


@dataclass(frozen=True)
class Peer:
    """A way to move bytes.  How its two processes come by a connection is one of three:

    - `share` makes it (or names for it), and each process calls `open` with its
      part; with `inherits` these are handles that the processes inherit, with
      `spawned` objects that only multiprocessing can hand over;
    - or, without `share`, they `meet`: the writer announces an address.
    """

    label: str
    share: Callable[[contextlib.ExitStack], Shares] | None = None
    open: Callable[[Any], Link] | None = None
    meet: Callable[[Any, Callable[[object], None]], Link] | None = None
    inherits: bool = False
    spawned: bool = False
    sizes: Sequence[int] = SIZES
    missing: Callable[[], str | None] = lambda: None


PEERS = (
    Peer(OURS, share_names, open_channels),
    Peer(PIPE, share_pipes, open_pipes, inherits=True),
    Peer("socketpair", share_socketpair, open_socket, inherits=True, missing=no_socketpair),
    Peer("TCP loopback", meet=meet_tcp),
    Peer(MESSAGES, meet=meet_listener),
    Peer(THEIR_MESSAGES, share_connections, open_connection, inherits=True),
    Peer(IN_LOOP, share_names, open_channels_in_loop, sizes=()),
    Peer(PIPE_IN_LOOP, share_pipes, open_pipes_in_loop, inherits=True, sizes=(), missing=no_add_reader),
    Peer("named pipe", meet=meet_named_pipe, missing=no_named_pipe),
    Peer("multiprocessing.Queue", share_queues, open_queues, spawned=True),
    Peer(
        HANDSHAKE,
        share_names if WINDOWS else share_semaphores,
        open_mailboxes,
        spawned=not WINDOWS,
        sizes=(1,),
    ),
    Peer("pyzmq", meet=meet_zmq, missing=needs_package("zmq")),
    Peer("faster-fifo", share_faster_fifos, open_queues, spawned=True, missing=needs_package("faster_fifo")),
    Peer("iceoryx2", share_names, open_iceoryx2, missing=needs_package("iceoryx2")),
)
