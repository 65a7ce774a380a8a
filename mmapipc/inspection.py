"""Looking at a channel from outside, without a trace, and removing what killed processes left.

Who looks claims no role, stores nothing, and maps the memory read-only.  What
is seen is a copy, each value of which was loaded once and checked.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from . import layout, platform, ring
from .errors import LayoutError, MemoryRefused, NoChannel, NoSuchMapping, RoleTaken

_BETWEEN_LOOKS = 0.1  # seconds
_LOOKS = 10  # at fields that do not fit each other, before they are called damaged
_PATIENCE = 1.0  # seconds for those who are just leaving


class Side(NamedTuple):
    """One side of a channel."""

    state: str  # a name from `layout`, "absent" without a stream
    pid: int | None  # of who attached last
    claimed: bool  # whether its claim stands: it is attached, and lives
    waiting: int | None  # pid of somebody who has the role and is not attached (yet), 0 when it is not known


class Stream(NamedTuple):
    """What the memory says of its stream."""

    capacity: int
    stream_id: int
    persistent: bool
    written: int
    read: int

    @property
    def in_flight(self) -> int:
        """Bytes written and not yet acknowledged."""
        return self.written - self.read

    @property
    def fill(self) -> float:
        """How much of the ring they take, in percent."""
        return 100 * self.in_flight / self.capacity


class Look(NamedTuple):
    """What one look at a channel has seen; `stream` is None when there is none (yet)."""

    name: str
    location: str
    stream: Stream | None
    sender: Side
    receiver: Side
    exists: bool  # whether there was anything of that name just afterwards
    in_file: bool = False  # of the user's, where it stays

    @property
    def status(self) -> str:
        """The whole in one word or two."""
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
        """Whether no byte will move any more."""
        if self.stream is None:
            return self.sender.waiting is None and self.receiver.waiting is None
        return not self.sender.claimed and not (self.receiver.claimed and self.stream.in_flight)

    def facts(self) -> dict[str, object]:
        """All of it, under the names that `--json` gives."""
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
        self._place = platform.place(name)
        self._file = None if file is None else os.path.abspath(file)
        if self._file is not None:
            self._place = self._place.in_file(self._file)
        self._memory: platform.Observed | _InFile | None = None

    def look(self) -> Look:
        """Look once.  A stream, once seen, is looked at to its end, also when its name is gone.

        Raises NoChannel when there is nothing of that name, LayoutError,
        UnsafeMemory, MemoryRefused.
        """
        look = self._look()
        if look.stream is None and not look.exists:
            where = "of that name" if self._file is None else f"in {self._file}"
            raise NoChannel(f"{self._place.name}: there is no channel {where}")
        return look

    def watch(self) -> Iterator[Look]:
        """Look again and again until the channel has ended, as the last look shows.  Raises as `look` does."""
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

    def _observe(self) -> platform.Observed | _InFile | None:
        """The memory: the one place that gets it."""
        return platform.observe(self._place) if self._file is None else _InFile.open(self._place, self._file)

    def _look(self) -> Look:
        place = self._place
        if self._memory is None:
            self._memory = self._observe()
        # Claims before states, and states before counters: who is seen to be
        # gone has stored everything that it ever will.
        holders = platform.holder(place, platform.SENDER), platform.holder(place, platform.RECEIVER)
        seen = None if self._memory is None else _read(self._memory, place.name, *holders)
        if seen is None:
            # Perhaps its creator died, and the next one makes another.
            self.close()
            seen = None, _nobody(holders[0]), _nobody(holders[1])
        stream, sender, receiver = seen
        if self._file is None:
            return Look(place.name, place.location, stream, sender, receiver, platform.exists(place))
        return Look(place.name, self._file, stream, sender, receiver, os.path.exists(self._file), in_file=True)


class _InFile:
    """A file of the user's, to be looked at only."""

    def __init__(self, place: platform.Place, memory: platform.Memory) -> None:
        self._place = place
        self._memory = memory

    @classmethod
    def open(cls, place: platform.Place, path: str) -> _InFile | None:
        """Open the file; None when there is none.  Raises LayoutError when it is of another kind."""
        try:
            memory = platform.open_file(None, path, 0, create=False, writable=False)[0]
        except NoSuchMapping:
            return None
        opened = cls(place, memory)
        try:
            if opened.has(layout.HEADER_SIZE):
                with opened.look(layout.HEADER_SIZE) as octets, octets.cast("Q") as words:
                    if layout.is_ours(bytes(octets[:8])):
                        layout.check_owner(words, place.name, path)
                        return opened
            raise LayoutError(f"{place.name}: {path} is a file of another kind")
        except BaseException:
            opened.close()
            raise

    def has(self, length: int) -> bool:
        """Whether the file has as many bytes."""
        return self._memory.size() >= length

    fits = has  # it may have had a larger ring before

    @contextlib.contextmanager
    def look(self, length: int) -> Iterator[memoryview]:
        """A read-only view of the first `length` bytes."""
        with self._memory.map(length, access=mmap.ACCESS_READ) as page, memoryview(page) as view:
            yield view

    def stands(self, role: str) -> bool:
        """Whether somebody has that role."""
        return platform.holder(self._place, role) is not None

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()


def _read(
    memory: platform.Observed | _InFile, name: str, senders: int | None, receivers: int | None
) -> tuple[Stream | None, Side, Side] | None:
    """What the memory says, given the roles' holders; None when its creator has not completed the header."""
    if not memory.has(layout.HEADER_SIZE):
        return None
    with memory.look(layout.HEADER_SIZE) as octets, octets.cast("Q") as words:
        header = ring.load_header(words, name, barrier=ring.Barrier(), ordered=platform.ORDERED)
        if header is None:
            return None
        if not memory.fits(layout.HEADER_SIZE + header.capacity):
            raise layout.damaged(name, f"capacity {header.capacity} does not fit its size")
        # Not before the header is complete: see `platform`.
        stand = memory.stands(platform.SENDER), memory.stands(platform.RECEIVER)
        states = layout.load_sender_state(words, name), layout.load_receiver_state(words, name)
        pids = layout.load_pids(words, name)
        read, written = _sequences(words, header.capacity, name)
    return (
        Stream(header.capacity, header.stream_id, header.persistent, written, read),
        _side(states[0], (layout.OPEN, layout.FINISHED), pids[0], stand[0], senders),
        _side(states[1], (layout.OPEN,), pids[1], stand[1], receivers),
    )


def _sequences(words: memoryview, capacity: int, name: str) -> tuple[int, int]:
    for _ in range(_LOOKS - 1):
        try:
            return layout.load_moving_sequences(words, capacity, name)
        except LayoutError:
            pass
    return layout.load_moving_sequences(words, capacity, name)


def _side(state: int, alive: tuple[int, ...], pid: int, stands: bool, holder: int | None) -> Side:
    # Who newly holds a role settles the state that a dead predecessor left, but
    # not that of one which had finished: then the pids tell them apart.
    claimed = stands and state in alive and holder in (pid, 0, None)
    return Side(layout.STATE_NAMES[state], pid or None, claimed, None if claimed else holder)


def _nobody(holder: int | None) -> Side:
    return Side(layout.STATE_NAMES[layout.ABSENT], None, False, holder)


def names() -> list[str]:
    """The user's channels, and what is left of some.  Raises MemoryRefused where the system does not tell."""
    return platform.channels()


def remove(name: str) -> None:
    """Delete what killed processes have left of a channel.

    Raises NoChannel when there is nothing, RoleTaken while somebody has a
    role, LayoutError when the memory is no channel of this version,
    UnsafeMemory, MemoryRefused.
    """
    place = platform.place(name)
    if not platform.exists(place):
        raise NoChannel(f"{name}: there is no channel of that name")
    _check_version(place)
    deadline = time.perf_counter() + _PATIENCE
    while True:
        late = time.perf_counter() > deadline
        for role in (platform.SENDER, platform.RECEIVER):
            pid = platform.holder(place, role)
            if pid or (late and pid is not None):
                raise RoleTaken(f"{name}: there is a {role} (pid {pid}); end it first")
        # It takes both roles first, and leaves everything as it is if it does not get them.
        platform.sweep(place)
        if not platform.exists(place):
            return
        if late:
            raise MemoryRefused(
                f"{name}: a process that is not attached has it open; it goes with the last such process"
            )
        time.sleep(_BETWEEN_LOOKS)


def _check_version(place: platform.Place) -> None:
    """LayoutError when the memory is not ours to remove.  A damaged header is."""
    memory = platform.observe(place)
    if memory is None:
        return
    try:
        if memory.has(layout.HEADER_SIZE):
            with memory.look(layout.HEADER_SIZE) as octets, octets.cast("Q") as words:
                if layout.is_complete(words):
                    layout.check_version(words, place.name)
    finally:
        memory.close()
