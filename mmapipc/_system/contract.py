"""What a system is to the rest of mmapipc.  mypy holds each sibling against this; nothing imports it to run.

Two siblings, `posix` and `windows`, are modules of these names.  `mmapipc._system`
is the only place that chooses between them.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .names import Place


class Claim(Protocol):
    """A role of a channel that this process has.  The kernel takes it back when the process ends."""

    def holder(self, role: str) -> int | None:
        """The pid of who has another role of the channel, or None.  Needs no new descriptor."""

    def bells(self, ring: int = 0) -> Bells | None:
        """The bells of the two ends; None where they are not to be had, or not to be trusted.

        Memory with two rings has two sleepers at each end: each asks for the bells of its ring.
        """

    def is_kept(self, role: str) -> bool:
        """Whether somebody keeps the end of that role for later, see `Keep`."""

    def unname(self) -> None:
        """Take all names of the place away: who is to have it has it open."""

    def stands(self) -> bool:
        """Whether the role is still that of the place: in the place of a file there may be another by now."""

    def release(self, *, memory: bool = True) -> None:
        """Give the role back.

        Where names do not vanish by themselves, the last one who leaves removes
        them; that of the memory unless told not to.
        """


class Keep(Protocol):
    """A copy of an end that nobody uses yet: that lives as long as somebody has one, and the memory too.

    A forked child has a copy of each of its parent's, and `multiprocessing` can pass one to a process that
    it starts, by pickling it.
    """

    def hold(self, place: Place) -> None:
        """Keep the memory, which is there now."""

    def close(self) -> None:
        """Let go of this copy."""


class Roles(Protocol):
    """Where the roles of one channel are: one in memory, or one in a file, however that is spelled."""

    @property
    def place(self) -> Place:
        """The channel, or the file, for messages."""

    def attempt(self, role: str) -> Claim | None:
        """Take the role; None when somebody has it, or is just letting go."""

    def holder(self, role: str) -> int | None:
        """The pid of who has the role; None when nobody has it."""


class ChannelRoles(Roles, Protocol):
    """The roles of a channel in memory."""

    def keep(self, role: str) -> Keep:
        """Keep the end of that role for later, before there is memory."""

    def is_kept(self, role: str) -> bool:
        """Whether somebody keeps that end.  Takes nothing."""

    def parts(self) -> list[Place]:
        """The places of connections that were begun under this name, as long as they have names."""

    def exists(self) -> bool:
        """Whether there is anything of the channel, if only what is left of it."""

    def in_use(self) -> bool:
        """Whether somebody has a role, or is just tidying up.  Takes nothing."""

    def sweep(self) -> None:
        """Remove what is left of a channel at which nobody is."""


class View(Protocol):
    """Bytes of memory, mapped for a `Mapping`."""

    @property
    def buf(self) -> memoryview:
        """The bytes."""

    def flush(self, offset: int, length: int) -> None:
        """Bring what was stored in these bytes to the disk, if they are a file's."""

    def close(self) -> None:
        """Unmap them.

        While somebody has a slice or an array of them: BufferError, and there is a new `buf`.
        """


class Guard(Protocol):
    """What guards memory: one thread of all processes has it; the kernel takes it back with the process."""

    @property
    def abandoned(self) -> bool:
        """Whether who had it before ended without giving it back."""

    def acquire(self, timeout: float | None) -> bool:
        """Take it within so many seconds; return whether it could be had.

        Raises AlreadyLocked when this thread has it.
        """

    def holder(self) -> int | None:
        """The pid of who has it; None where the system does not tell."""

    def release(self) -> None:
        """Give it back, if it was taken, in this thread."""


class Memory(Protocol):
    """Memory, open."""

    def map(self, length: int, offset: int = 0, access: int = mmap.ACCESS_WRITE) -> mmap.mmap:
        """Map bytes of it; MappingTooSmall when there are fewer."""

    def flush(self, mapping: mmap.mmap) -> None:
        """Bring what was stored to the disk, if it is a file's."""

    def view(self, length: int, offset: int, access: int) -> View:
        """Map bytes of it for a `Mapping`.  Needs the right to read only, unless `access` is ACCESS_WRITE."""

    def guard(self, tag: str | None) -> Guard:
        """What guards it; on Windows perhaps a mutex of that tagname.  InvalidName where there is no such."""

    def unlink(self) -> None:
        """Take its tagname away, if it is this memory's still; nothing where tagnames go by themselves."""

    def size(self) -> int:
        """How many bytes there are; on Windows without a file in whole pages."""

    def has(self, length: int) -> bool:
        """Whether there are as many bytes yet."""

    def fits(self, length: int) -> bool:
        """Whether there are just as many, as the system counts them."""

    def extend(self, size: int) -> None:
        """Give a file of the user's so many bytes; the new ones are zero."""

    def is_at(self, path: str) -> bool:
        """Whether the path leads to this memory, which is a file's."""

    def is_nameless(self) -> bool:
        """Whether no path leads to this memory any more, so that nobody else can open it."""

    def close(self) -> None:
        """Let go of it."""


class Observed(Protocol):
    """Memory to look at only: this disturbs nobody, however long it is kept."""

    def look(self, length: int) -> AbstractContextManager[memoryview]:
        """A read-only view of the first `length` bytes."""

    def size(self) -> int:
        """As `Memory.size`."""

    def has(self, length: int) -> bool:
        """As `Memory.has`."""

    def fits(self, length: int) -> bool:
        """As `Memory.fits`."""

    def close(self) -> None:
        """Let go of it."""


class Bells(Protocol):
    """What one end sleeps on until the other end rings.

    A ring that comes before the sleep ends it at once; many rings may be one.
    Bells live as long as somebody has the channel.
    """

    def sleep(self, seconds: float, events: int = 1) -> object:
        """Sleep until this end's bell rings, the watched process ends, or for so many seconds.

        Returns something true unless it slept for all of them, or was interrupted.

        `events` is always 1, by position: so this can be a system's own function, in C.
        """

    def ring(self) -> object:
        """Ring the other end's bell.  Raises ValueError when this end has closed its bells.

        A full memory barrier: what follows comes after what was stored before.
        """

    def ring_own(self) -> object:
        """Ring this end's, for another thread that sleeps.  Raises ValueError, as above."""

    def are_shared(self) -> bool:
        """Whether another end has this end's bell open: it may have others, in another directory."""

    def watch(self, pid: int) -> bool:
        """Let a sleep end when that process does, once; return whether the system can."""

    def watch_output(self, descriptor: int) -> None:
        """Let a sleep end when nobody reads any more what is written there, once, where the system can."""

    def drain(self) -> None:
        """Forget rings; to be called now and then, or so many may gather that no more can be heard."""

    def fileno(self) -> int:
        """The descriptor that is readable once this end's bell has rung.  UnsupportedOperation on Windows."""

    @property
    def handle(self) -> int:
        """The handle that a ring sets, and a wait for it resets.  Raises AttributeError on POSIX."""

    def heard(self) -> list[int]:
        """What a sleep waits for, see `System.sleep_on`: the bell, and the watched process if any."""

    def told(self, which: int) -> None:
        """Take note that this one of them has ended a sleep: it is news only once."""

    def close(self) -> None:
        """Let go of them."""


class System(Protocol):
    """One of the two."""

    ORDERED: bool  # this processor keeps stores in order and loads in order
    STALE: str  # what memory is at which nobody is, in words

    def place(self, name: str) -> Place:
        """Where the channel of that name is.  Raises InvalidName."""

    def channel_roles(self, place: Place) -> ChannelRoles:
        """The roles of a channel in memory."""

    def file_roles(self, place: Place) -> Roles:
        """The roles of the ring in the file at that place; they raise NoSuchMapping without one."""

    def create(self, place: Place, size: int) -> Memory:
        """Make the memory of a channel, all zero; the caller has the sender's role."""

    def open_existing(self, place: Place) -> Memory | None:
        """The memory, or None when there is none.  Never creates."""

    def remove(self, place: Place) -> None:
        """Take the name from memory that nobody needs; the caller has the sender's role.

        Nothing to do where names vanish by themselves.
        """

    def share(
        self, place: Place, size: int, create: bool, writable: bool, exist_ok: bool
    ) -> tuple[Memory, bool]:
        """The memory of that name for a `Mapping`, and whether it was made; it lives while anybody has it.

        Raises MappingExists when it is there, unless `exist_ok`; so do the next two.
        """

    def tagged(self, tag: str, of_file: bool) -> Place:
        """Where the memory of that tagname is for any program.  Raises InvalidName, MemoryRefused."""

    def share_tagged(
        self, place: Place, size: int, create: bool, writable: bool, exist_ok: bool
    ) -> tuple[Memory, bool]:
        """The memory of that tagname, whoever made it, and whether that was us just now."""

    def open_file(
        self,
        place: Place | None,
        file: Place,
        size: int,
        create: bool,
        writable: bool,
        exist_ok: bool = True,
    ) -> tuple[Memory, bool]:
        """A file of the user's as memory, under a name unless `place` is None.

        Size 0 is the file's own; with `create`, if `writable`, makes the file and
        extends it.  Returns also whether the name was new, without one whether
        the file was.
        """

    def make(self, file: Place) -> None:
        """Make a file of the user's, empty, unless there is one."""

    def mark(self, file: Place, beginning: bytes) -> None:
        """Let an empty file of the user's begin so; for one process at a time."""

    def observe(self, place: Place) -> Observed | None:
        """The memory as something to look at only, or None when there is none."""

    def observe_file(self, place: Place) -> Observed:
        """The user's file at that place as something to look at only.  Raises NoSuchMapping, InvalidSize."""

    def channels(self) -> list[str]:
        """The names of this user's channels.  Raises MemoryRefused where the system does not tell."""

    def sleep_on(self, waited: Sequence[Any], seconds: float) -> list[Any]:
        """Sleep until some of these are ready, or for so many seconds; return those that are, in their order.

        On POSIX descriptors, or what has a `fileno()`, that can be read from; on
        Windows handles, or what `multiprocessing.connection.wait` takes.
        """

    AT_ONCE: int  # the most that one thread can sleep on so

    def own_bells(self) -> Bells:
        """Bells of this process alone: `ring` ends a sleep on what `heard` gives."""

    def fence(self) -> None:
        """A full barrier on each processor that runs a process which has called `join_fences`.

        Does nothing where there are no such barriers.
        """

    def join_fences(self) -> bool:
        """Let other processes' fences order our loads and stores too; return whether there are fences."""

    def die_of(self, number: int) -> None:
        """End this process by that signal, as if it did not catch it; nothing on Windows, which has none."""

    def signals_put_off(self) -> AbstractContextManager[None]:
        """Let signals come afterwards, for the one thread of a command; nothing on Windows, as above."""

    def yield_processor(self) -> None:
        """Let others run."""

    def redrawing(self, descriptor: int) -> AbstractContextManager[bool]:
        """Whether escape sequences can draw there, while it lasts."""

    def enlarge_pipe(self, descriptor: int, size: int) -> None:
        """Let a pipe hold so many bytes, where that can be had."""

    def watched_input(
        self, file: io.RawIOBase, look: Callable[[], object]
    ) -> AbstractContextManager[Callable[[memoryview], int | None]]:
        """The file's `readinto`; while it waits for input, `look()` is called now and then.

        What `look` raises ends the wait.  It runs while that thread only waits, on
        Windows in another one, and not at all where input cannot keep anybody waiting.
        """

    def reader_left(self, descriptor: int) -> bool:
        """Whether that is a pipe or a socket which nobody reads any more, as far as the system tells."""

    def reader_is_gone(self, error: OSError, descriptor: int) -> bool:
        """Whether a write there has failed because nobody reads any more."""
