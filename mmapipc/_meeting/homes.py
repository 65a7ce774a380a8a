"""Where a ring lives: in memory, by name, or in a file of the user's.

Both homes have the same methods; nothing else asks which of the two it has.
"""

from __future__ import annotations

import contextlib
import os

from .._ring import layout, states
from .._ring.ring import barrier
from .._system import SENDER, Place, system
from .._system.claims import Claiming
from .._system.names import CHANGER
from ..errors import (
    ChannelError,
    InvalidSize,
    LayoutError,
    MemoryRefused,
    NoSuchMapping,
    Undelivered,
    in_units,
)

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._system.contract import Claim, Memory, Observed

_LINGER = 60  # looks, in growing steps about 5 s, at memory that nobody is attached to


class Mapped:
    """The header and the ring of one stream, mapped: `words` and `data`."""

    def __init__(self, memory: Memory, capacity: int) -> None:
        self.mapping = memory.map(layout.HEADER_SIZE + capacity)
        with memoryview(self.mapping) as whole:
            self.words = whole[: layout.HEADER_SIZE].cast("Q")
            self.data = whole[layout.HEADER_SIZE :]

    def close(self) -> None:
        """Let go of it.  A slice that the user made of a view keeps the memory until it is collected."""
        self.words.release()
        self.data.release()
        with contextlib.suppress(BufferError):
            self.mapping.close()


class Home:
    """What is the same in both homes."""

    ordered = system.ORDERED  # whether the processor keeps loads and stores of the memory in order

    def __init__(self, name: str) -> None:
        self.name = name  # the channel's
        self.barrier = barrier

    def order(self) -> None:
        """A full barrier where the processor needs one."""
        if not self.ordered:
            self.barrier()

    @contextlib.contextmanager
    def header(self, memory: Memory) -> Iterator[tuple[memoryview, layout.Header] | None]:
        """The words of a complete header, and the copy that was checked; None while there is none."""
        if not memory.has(layout.HEADER_SIZE):
            yield None
            return
        with memory.map(layout.HEADER_SIZE) as page, memoryview(page) as octets, octets.cast("Q") as words:
            found = states.load_header(words, self.name, self.order)
            yield None if found is None else (words, found)

    def map(self, memory: Memory, capacity: int) -> Mapped:
        """Map header and ring."""
        return Mapped(memory, capacity)


class InMemory(Home):
    """A ring in memory that has the channel's name.  Each stream has memory of its own."""

    kept = False  # whether the stream outlives both ends
    owner = 0  # see `layout`

    def __init__(self, name: str, waits_for_role: bool = False) -> None:
        super().__init__(name)
        self.place = system.place(name)
        self.roles = system.channel_roles(self.place)
        self.claiming = Claiming(self.roles, waits_for_role)
        self._lingered = 0

    @property
    def location(self) -> str:
        """The ring's place as the system knows it."""
        return self.place.location

    def claim(self, role: str) -> Claim | None:
        """Take a role; None, or RoleTaken, while that cannot be: see `Claiming.attempt`."""
        return self.claiming.attempt(role)

    @contextlib.contextmanager
    def changing(self) -> Iterator[bool]:
        """Around beginning a stream or attaching to one: whether that may be done now."""
        yield True

    def find(self) -> Memory | None:
        """The memory that is there, or None."""
        return system.open_existing(self.place)

    def check_taken(self, words: memoryview, header: layout.Header) -> None:
        """Nothing: what nobody took of an earlier stream went with its sender."""

    def renew(self, found: Memory | None, capacity: int) -> Memory | None:
        """Memory for a new stream; None while that of the last one is in the way."""
        if found is None:
            return system.create(self.place, layout.HEADER_SIZE + capacity)
        system.remove(self.place)
        # Where names vanish by themselves, a receiver that looks for a stream
        # may have it open for a moment; nobody else should.
        self._lingered += 1
        if self._lingered > _LINGER:
            raise MemoryRefused(
                f"{self.name}: a process that is not attached has the memory of that name open; "
                "end it, or use another name"
            )
        return None

    def fits(self, memory: Memory | Observed, size: int) -> bool:
        """Whether the memory has the size of a stream that needs `size` bytes."""
        return memory.fits(size)

    def flush(self, memory: Memory, mapped: Mapped) -> None:
        """Nothing: memory has no disk."""

    def check_kept(self, memory: Memory) -> None:
        """Nothing: the stream does not outlive its ends."""

    def is_lost(self, memory: Memory) -> bool:
        """False: nobody takes the name from memory that is in use."""
        return False

    def observe(self) -> Observed | None:
        """The memory to look at only; None when there is none."""
        return system.observe(self.place)

    def exists(self) -> bool:
        """Whether there is anything of the channel."""
        return self.roles.exists()

    def in_use(self) -> bool:
        """Whether somebody has a role, or is just tidying up."""
        return self.roles.in_use()

    def sweep(self) -> None:
        """Remove what is left of a channel at which nobody is."""
        self.roles.sweep()


def sweep_connections(place: Place) -> None:
    """Remove what killed processes have left of connections that were begun at that place."""
    with contextlib.suppress(ChannelError, OSError):
        for part in system.channel_roles(place).parts():
            with contextlib.suppress(ChannelError, OSError):
                system.channel_roles(part).sweep()


def sweep_listeners(beginning: str) -> None:
    """Remove what killed listeners have left whose names begin so, and their connections."""
    with contextlib.suppress(ChannelError):  # where the system does not tell names, nothing is left
        for name in system.channels():
            if name.startswith(beginning):
                place = system.place(name)
                sweep_connections(place)
                roles = system.channel_roles(place)
                with contextlib.suppress(ChannelError, OSError):
                    if not roles.parts():  # by the name they can be found later
                        roles.sweep()


class InFile(Home):
    """A ring in a file of the user's, which stays.  One stream after the other has it."""

    kept = True

    def __init__(self, name: str, path: str, waits_for_role: bool = False) -> None:
        super().__init__(name)
        system.place(name)  # raises InvalidName
        self.owner = layout.owner(name)
        self.location = os.path.abspath(path)  # a process may change its directory
        self.place = Place(name, self.location)
        self.roles = system.file_roles(self.place)
        self.claiming = Claiming(self.roles, waits_for_role, "file")

    def claim(self, role: str) -> Claim | None:
        """Take a role; None as `InMemory.claim`, and while there is no file, which a sender makes."""
        if role == SENDER:
            system.make(self.place)
        try:
            return self.claiming.attempt(role)
        except NoSuchMapping:
            return None

    @contextlib.contextmanager
    def changing(self) -> Iterator[bool]:
        """Around beginning a stream or attaching to one: whether that may be done now.

        So no receiver attaches to a stream that a sender is just clearing away.
        """
        changer = None
        with contextlib.suppress(NoSuchMapping):
            changer = self.roles.attempt(CHANGER)
        try:
            yield changer is not None
        finally:
            if changer is not None:
                changer.release()

    def find(self) -> Memory | None:
        """The file, None while it is missing or empty.  LayoutError when it is not a ring of this channel."""
        try:
            memory, _ = system.open_file(None, self.place, 0, create=False, writable=True)
        except (NoSuchMapping, InvalidSize):
            return None
        try:
            size = min(memory.size(), layout.HEADER_SIZE)
            with memory.map(size) as page, memoryview(page) as octets:
                self._check_ours(octets)
            return memory
        except BaseException:
            memory.close()
            raise

    def _check_ours(self, page: memoryview) -> None:
        if not layout.is_ours(page):
            raise self._of_another_kind()
        if len(page) == layout.HEADER_SIZE:
            with page.cast("Q") as words:
                layout.check_owner(words, self.name, self.location)

    def _of_another_kind(self) -> LayoutError:
        return LayoutError(
            f"{self.name}: {self.location} is a file of another kind, and was not changed; use another file"
        )

    def check_taken(self, words: memoryview, header: layout.Header) -> None:
        """Undelivered when the last stream has bytes that nobody took."""
        read, write = layout.load_sequences(words, header.capacity, self.name)
        if read != write:
            raise Undelivered(
                f"{self.name}: {self.location} still has {in_units(write - read)} of an earlier stream; "
                "receive them, or remove the file"
            )

    def renew(self, found: Memory | None, capacity: int) -> Memory | None:
        """The file, with an empty header and room for a new stream.

        None when it was empty: it has become a ring now, and is found by the next attempt.  None when it
        was missing too: then the next attempt makes it.
        """
        if found is None:
            # The file becomes a ring here: from now on it begins as one.  Only who has the sender's role
            # does that, or two would; whoever dies before that leaves an empty file.
            with contextlib.suppress(NoSuchMapping):
                system.mark(self.place, layout.BEGUN_MARK)
            return None
        size = layout.HEADER_SIZE + capacity
        if found.size() < size:
            found.extend(size)
        with found.map(layout.HEADER_SIZE) as page:
            with memoryview(page) as octets, octets.cast("Q") as words:
                states.clear(words, self.owner, self.order)
            # Or the disk might go on having the end of the stream before, with bytes of this one.
            found.flush(page)
        return found

    def fits(self, memory: Memory | Observed, size: int) -> bool:
        """Whether the file has room for `size` bytes.  It may be longer: it had a larger ring before."""
        return memory.size() >= size

    def flush(self, memory: Memory, mapped: Mapped) -> None:
        """Return when the disk has all that was stored."""
        memory.flush(mapped.mapping)

    def check_kept(self, memory: Memory) -> None:
        """NoSuchMapping when the path no longer leads to the file that has the stream."""
        if not memory.is_at(self.location):
            raise NoSuchMapping(
                f"{self.name}: {self.location} was removed or replaced while the stream was in it; "
                "its end, and what no receiver has acknowledged, is lost: send the stream again"
            )

    def is_lost(self, memory: Memory) -> bool:
        """Whether no receiver can come any more: the file that has the stream is removed."""
        return memory.is_nameless()

    def observe(self) -> Observed | None:
        """The file to look at only; None when it is missing or empty.  LayoutError when it is not ours."""
        try:
            seen = system.observe_file(self.place)
        except (NoSuchMapping, InvalidSize):
            return None
        try:
            with seen.look(min(seen.size(), layout.HEADER_SIZE)) as page:
                self._check_ours(page)
            return seen
        except BaseException:
            seen.close()
            raise

    def exists(self) -> bool:
        """Whether there is such a file, and it has bytes: an empty one is a ring only for who is at it."""
        try:
            return os.stat(self.location).st_size > 0
        except OSError:
            return False

    def in_use(self) -> bool:
        """False: of a file nothing is ever left."""
        return False

    def sweep(self) -> None:
        """Nothing: the file is the user's."""


def home(name: str, file: str | os.PathLike[str] | None, waits_for_role: bool = False) -> InMemory | InFile:
    """Where the ring of that channel lives: in the file at that path, or in memory."""
    if file is None:
        return InMemory(name, waits_for_role)
    return InFile(name, os.fsdecode(file), waits_for_role)
