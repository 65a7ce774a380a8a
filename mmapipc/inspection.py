"""Inspecting a channel from outside, and removing what killed processes left of it.

Inspecting takes no role, stores nothing, and maps the memory read-only.  What
it returns is a copy, each value of which was loaded once and checked.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

from ._meeting.homes import InMemory, home, sweep_connections
from ._ring import layout, states
from ._system import RECEIVER, SENDER, system
from .errors import LayoutError, MemoryRefused, NoChannel, NoSuchMapping, RoleTaken, UnsafeMemory

TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    from ._meeting.homes import InFile
    from ._system.contract import Observed

_BETWEEN_LOOKS = 0.1  # seconds
_LOOKS = 10  # at fields that do not fit each other, before they are called damaged
_MOMENT = 0.01  # seconds that those who leave have for tidying up
_LOOKS_FOR_A_STREAM = 10  # at a name that seems to be left over and has none
_LEAVING = 1.0  # seconds for those who are just leaving
_DIED = layout.STATE_NAMES[layout.DIED]


class Side(NamedTuple):
    """One side of a channel: its sender or its receiver.

    state    "absent", "open", "finished" (the sender has written everything), "aborted", "closed" or "died"
    pid      the process that attached last; None if none has
    claimed  whether that process is alive and attached
    waiting  the process that has this role and is not attached to this stream; 0 if its id is not
             known, None if there is none
    """

    state: str
    pid: int | None
    claimed: bool
    waiting: int | None


class Stream(NamedTuple):
    """The stream in a channel's ring.

    capacity    the size of the ring, in bytes
    stream_id   a number that no other stream has
    persistent  whether the sender lets a next receiver continue
    written     bytes that the sender has written
    read        bytes that the receiver has read
    """

    capacity: int
    stream_id: int
    persistent: bool
    written: int
    read: int

    @property
    def in_flight(self) -> int:
        """Bytes that were written and not yet read."""
        return self.written - self.read

    @property
    def fill(self) -> float:
        """How full the ring is, in percent."""
        return 100 * self.in_flight / self.capacity


class ChannelInfo(NamedTuple):
    """What `mmapipc.inspect` returns: a channel at one moment.

    name      the channel's name
    location  where its memory is: a path, or on Windows the name of a section
    stream    the stream in it, a `Stream`; None if there is none yet
    sender    the sender's side, a `Side`
    receiver  the receiver's side, a `Side`
    exists    whether the channel still existed just after that moment
    in_file   whether the ring is in a file, where it stays
    """

    name: str
    location: str
    stream: Stream | None
    sender: Side
    receiver: Side
    exists: bool
    in_file: bool = False

    @property
    def status(self) -> str:
        """The channel in a word or two, as `mmapipc list` shows it; COMMAND.md explains each."""
        if self.sender.claimed:
            return "running" if self.receiver.claimed else "no receiver"
        if self.receiver.claimed:
            return "ended" if self.ended else "draining"
        if self.sender.waiting is not None:
            return "starting"
        if self.receiver.waiting is not None:
            return "no sender"
        if self.in_file:
            return "kept" if self.stream is not None and self.stream.in_flight else "drained"
        return "stale" if self.exists else "ended"

    @property
    def ended(self) -> bool:
        """Whether it is finished: no byte will be written or read any more."""
        if self.stream is None:
            return self.sender.waiting is None and self.receiver.waiting is None
        return not self.sender.claimed and not (self.receiver.claimed and self.stream.in_flight)

    def facts(self) -> dict[str, object]:
        """Return everything as `mmapipc inspect --json` prints it."""
        stream = self.stream
        return {
            "name": self.name,
            "location": self.location,
            "status": self.status,
            "version": stream and layout.VERSION,
            "capacity": stream and stream.capacity,
            "stream_id": stream and f"{stream.stream_id:016x}",  # too large for the numbers of many readers
            "persistent": stream and stream.persistent,
            "sender": self.sender._asdict(),
            "receiver": self.receiver._asdict(),
            "written": stream and stream.written,
            "read": stream and stream.read,
            "in_flight": stream and stream.in_flight,
            "fill": stream and round(stream.fill, 3),
        }


class Looker:
    """Looks at one channel, as often as wanted."""

    def __init__(self, name: str, file: str | None = None) -> None:
        self._home = home(name, file)
        self._memory: Observed | None = None

    def look(self) -> ChannelInfo:
        """Look once.  A stream, once seen, is looked at to its end, also when its name is gone.

        Raises NoChannel when there is nothing of that name, LayoutError,
        UnsafeMemory, MemoryRefused.
        """
        look = self._look()
        if look.stream is None and not look.exists and look.ended:
            where = f"in {self._home.location}" if self._home.kept else "of that name"
            raise NoChannel(f"{self._home.name}: there is no channel {where}")
        return look

    def watch(self) -> Iterator[ChannelInfo]:
        """Look again and again until the channel has ended, as the last look shows.  Raises as `look`."""
        look = self.look()
        ended = False
        # Once more after the end: those who have left may still be tidying up.
        while not (ended and look.ended):
            ended = look.ended
            if not ended:
                yield look
            time.sleep(_BETWEEN_LOOKS)
            look = self._look()
        yield look

    def close(self) -> None:
        """Let go of the memory."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _look(self) -> ChannelInfo:
        """Look; what cannot have been there at one moment is looked at again."""
        try:
            look = self._look_once()
        except LayoutError:
            # A sender may just have begun the next stream in the file; its header then says so at once.
            self.close()
            look = self._look_once()
        for _ in range(_LOOKS_FOR_A_STREAM):
            if look.status != "stale":
                return look
            # Those who leave may just have given their roles back, and be about to tidy up; or others
            # have just come, or have the name by now.  What is stale stays as it is.
            time.sleep(_MOMENT)
            with contextlib.closing(Looker(look.name)) as other:
                anew = other._look_once()
            if look.stream is not None:
                there = None if anew.stream is None else anew.stream.stream_id
                stays = anew.status == "stale" and there == look.stream.stream_id and not self._home.in_use()
                return look if stays else look._replace(exists=False)
            look = anew
        return look._replace(exists=not self._home.in_use()) if look.status == "stale" else look

    def _look_once(self) -> ChannelInfo:
        where = self._home
        if self._memory is None:
            self._memory = where.observe()
        for _ in range(_LOOKS):
            # Claims before states, and states before counters: who is seen to be
            # gone has stored everything that it ever will.
            holders = _holder(where, SENDER), _holder(where, RECEIVER)
            seen = None if self._memory is None else _read(where, self._memory, *holders)
            # One that attached between the two looks as if it had died.
            if seen is None or all(
                side.state != _DIED or side.pid != _holder(where, role)
                for role, side in ((SENDER, seen[1]), (RECEIVER, seen[2]))
            ):
                break
        if seen is None:
            # Perhaps its creator died, and the next one makes another.
            self.close()
            seen = None, _nobody(holders[0]), _nobody(holders[1])
        stream, sender, receiver = seen
        return ChannelInfo(where.name, where.location, stream, sender, receiver, where.exists(), where.kept)


def _holder(where: InMemory | InFile, role: str) -> int | None:
    try:
        return where.roles.holder(role)
    except NoSuchMapping:
        return None  # there is no such file


def _read(
    where: InMemory | InFile, memory: Observed, sender: int | None, receiver: int | None
) -> tuple[Stream | None, Side, Side] | None:
    """What the memory says, given the pids of the roles' holders; None when there is no complete header."""
    if not memory.has(layout.HEADER_SIZE):
        return None
    with memory.look(layout.HEADER_SIZE) as octets, octets.cast("Q") as words:
        header = states.load_header(words, where.name, where.order)
        if header is None:
            return None
        if not where.fits(memory, layout.HEADER_SIZE + header.capacity):
            raise layout.damaged(where.name, f"capacity {header.capacity} does not fit its size")
        sides = layout.load_sender_state(words, where.name), layout.load_receiver_state(words, where.name)
        pids = layout.load_pids(words, where.name)
        # ORDER: the states before the counters: who is seen to have left has stored its last.  Pairs with
        # `states.finish`, `give_up` and `leave`.
        where.order()
        read, written = _sequences(words, header.capacity, where.name)
    return (
        Stream(header.capacity, header.stream_id, header.persistent, written, read),
        _side(sides[0], (layout.OPEN, layout.FINISHED), pids[0], sender),
        _side(sides[1], (layout.OPEN,), pids[1], receiver),
    )


def _sequences(words: memoryview, capacity: int, name: str) -> tuple[int, int]:
    for _ in range(_LOOKS - 1):
        try:
            return layout.load_moving_sequences(words, capacity, name)
        except LayoutError:
            pass
    return layout.load_moving_sequences(words, capacity, name)


def _side(state: int, alive: tuple[int, ...], pid: int, holder: int | None) -> Side:
    # Who newly holds a role settles the state that a dead predecessor left, but
    # not that of one which had finished: the pids tell them apart.
    claimed = state in alive and holder == pid
    shown = _DIED if state == layout.OPEN and not claimed else layout.STATE_NAMES[state]
    return Side(shown, pid or None, claimed, None if claimed else holder)


def _nobody(holder: int | None) -> Side:
    return Side(layout.STATE_NAMES[layout.ABSENT], None, False, holder)


def channels() -> list[str]:
    """Return the names of this user's channels, sorted; also of those that only killed processes have left.

    Channels in files (`file=`) are not among them.  Any thread may call this.
    Raises MemoryRefused on Windows, where no public call lists named objects.
    """
    return system.channels()


def inspect(name: str, *, file: str | None = None) -> ChannelInfo:
    """Return what the channel `name` is like now, as a `ChannelInfo`.

    `file` is the path of the file that its ring is in, if it is in one.  This
    is read-only, never blocks the two ends, and tolerates damaged memory.  Any
    thread may call it.

    Raises NoChannel when there is no such channel, InvalidName, LayoutError
    when the memory is damaged or not a channel, UnsafeMemory when another user
    could change it, MemoryRefused when the system does not let it be read.
    """
    with contextlib.closing(Looker(name, file)) as looker:
        return looker.look()


def remove(name: str) -> None:
    """Delete what killed processes have left of a channel, or of a listener and its connections.

    Any thread may call this.  It waits for a second at most.

    Raises NoChannel when there is nothing, RoleTaken while a process has one of
    its ends, InvalidName, LayoutError when the memory is not a channel of this
    version, MemoryRefused, and UnsafeMemory when something of another kind, or
    another user's, is in the place of a part of it: the other parts are removed
    first.
    """
    where = InMemory(name)
    if not where.exists() and not where.roles.parts():
        raise NoChannel(f"{name}: there is no channel of that name")
    sweep_connections(where.place)
    foreign = None
    try:
        _check_version(where)
    except UnsafeMemory as error:
        foreign = error
    deadline = time.perf_counter() + _LEAVING
    while True:
        try:
            for role in (SENDER, RECEIVER):
                pid = where.roles.holder(role)
                if pid is not None:
                    raise RoleTaken(f"{name}: there is a {role} (pid {pid}); end it first")
        except UnsafeMemory as error:  # so nobody of this user's has a role
            foreign = error
        # It locks both roles first, and leaves everything as it is if it does not get them.
        where.sweep()
        if foreign is not None:
            raise foreign
        if not where.exists():
            return
        if time.perf_counter() > deadline:
            raise MemoryRefused(
                f"{name}: a process that is not attached has it open; it goes with the last such process"
            )
        time.sleep(_BETWEEN_LOOKS)


def _check_version(where: InMemory) -> None:
    """LayoutError when the memory is not ours to remove.  A damaged header is."""
    memory = where.observe()
    if memory is None:
        return
    try:
        if memory.has(layout.HEADER_SIZE):
            with memory.look(layout.HEADER_SIZE) as octets, octets.cast("Q") as words:
                if layout.is_complete(words):
                    layout.check_version(words, where.name)
    finally:
        memory.close()
