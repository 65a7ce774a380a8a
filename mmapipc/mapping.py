"""`Mapping`: shared memory without a stream, by name, by tagname or of a file; and its `Guard`.

The memory is the system's `Memory`, as under every channel.  Here it belongs to
everybody who has it open; there it belongs to the two ends.
"""

from __future__ import annotations

import contextlib
import mmap
import operator
import os
import warnings
import weakref

from ._meeting.waiting import checked_seconds
from ._system import Place, system
from .errors import ChannelTimeout, InvalidName, InvalidSize, InvalidView, MappingTooSmall, in_bytes

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal, NoReturn, Protocol

    from typing_extensions import Self

    from ._system import contract

    class HasFileno(Protocol):
        """An open file."""

        def fileno(self) -> int:
            """Its descriptor."""


_ACCESS = {"write": mmap.ACCESS_WRITE, "read": mmap.ACCESS_READ, "copy": mmap.ACCESS_COPY}
_LARGEST_SIZE = 2**62  # bytes

_CLOSED = "the mapping is closed"
_FORKED = "a forked child does not inherit the mapping; open it again there"


class Guard:
    """What `Mapping.lock` returns: inside its `with` block nobody else has the lock.

    Thread-safety: each thread calls `lock` for a guard of its own.
    """

    abandoned: bool = False
    """Whether the last holder ended without releasing the lock: the data may be half written."""

    def __init__(self, mapping: Mapping, timeout: float | None, tagname: str | None) -> None:
        self._mapping = mapping
        self._timeout = timeout
        self._tagname = tagname
        self._taken: contract.Guard | None = None

    def __enter__(self) -> Self:
        guard = self._mapping._guard(self._tagname)
        try:
            if not guard.acquire(self._timeout):
                pid = guard.holder()
                raise ChannelTimeout(
                    f"{self._mapping._label}: {f'pid {pid}' if pid else 'somebody else'} "
                    f"still has the lock after {self._timeout:g} s"
                )
            self._taken, self.abandoned = guard, guard.abandoned
        except BaseException:
            guard.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        guard, self._taken = self._taken, None
        if guard is not None:
            guard.release()


class Mapping:
    """Memory that several processes share: `buf`, a memoryview of bytes.

    name      the memory of this name, zero when it is made.  It lives while a process
              has it open; kills leave nothing.  Without name, tagname and file, a name
              is made up.  A name cannot be used while a channel of that name has an end.
    tagname   the memory that any program knows by this name: on Windows a mapping
              object, on Linux what `shm_open` opens, and on both what
              `multiprocessing.shared_memory` makes.  On Windows it lives while a process
              has it open, on Linux until `unlink`.  To open it stores nothing there.
              On Linux, a program that shortens it kills every process that then touches
              the missing part (SIGBUS).
    file      a path, an open file or a descriptor: the bytes are the file's.  Together
              with a name, `created` and `exist_ok` are about the name, and everybody who
              uses the name must give the same file (on Windows they get the first one's).
    size      in bytes.  0: as large as what exists.  A file that is shorter is extended
              with zeros, and one that is missing is made, only for its owner, if `create`
              and `access` allow that.
    create    make what does not exist, as CreateFileMapping does; False: only open, as
              OpenFileMapping does
    exist_ok  False: raise MappingExists instead of opening what exists
    access    "write"; "read": a store raises TypeError; or "copy": nobody else sees what
              you store.  "read" and "copy" need the right to read only.
    offset    where the view begins, in bytes: a multiple of `mmap.ALLOCATIONGRANULARITY`
    length    how many bytes the view has; None: up to the end

    From Python 3.12 on the mapping itself is a buffer, as `buf` is everywhere.

    Raises InvalidName, InvalidSize, InvalidView, NoSuchMapping, MappingExists,
    MappingTooSmall, NameTaken, FileRefused, UnsafeMemory, MemoryRefused; ValueError and
    TypeError for other wrong arguments.

    Thread-safety: any thread may use `buf`, but only `lock` orders what threads and
    processes store.  One thread at a time may open and close.  After a fork, the mapping
    is closed in the child.  It cannot be pickled: give its name to the other process.
    """

    _view: contract.View | None = None  # set while open
    _why_closed = _CLOSED

    def __init__(
        self,
        name: str | None = None,
        size: int = 0,
        *,
        tagname: str | None = None,
        file: str | bytes | os.PathLike[str] | HasFileno | int | None = None,
        create: bool = True,
        exist_ok: bool = True,
        access: Literal["write", "read", "copy"] = "write",
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        for given in (name, tagname):
            if given is not None and not isinstance(given, str):
                raise TypeError(f"the name of a mapping must be a str, not {type(given).__name__}")
        if name is not None and tagname is not None:
            raise InvalidName(f"{name}: give a name or a tagname, not both")
        if name is None and tagname is None and file is None:
            if not create:
                raise InvalidName("(no name): give the name, the tagname or the file to open")
            name, exist_ok = f"mapping-{os.urandom(8).hex()}", False
        of_file = None if file is None else _place(name or tagname, file)
        self._name = name if tagname is None else tagname
        self._label = label = self._name or (of_file.name if of_file else "")
        self._is_tagged = tagname is not None
        if not (create or exist_ok):
            raise ValueError(f"{label}: exist_ok=False makes something new, so it needs create=True")
        if access not in _ACCESS:
            raise ValueError(f"{label}: access must be 'write', 'read' or 'copy', not {access!r}")
        self._access = _ACCESS[access]
        size, offset = operator.index(size), operator.index(offset)
        length = None if length is None else operator.index(length)
        if not 0 <= size <= _LARGEST_SIZE or not size and create and of_file is None:
            raise InvalidSize(
                f"{label}: the size must be from 1 to 2**62 bytes, not {size}; "
                "use create=False to open memory with the size that it has"
            )
        place = None
        if tagname is not None:
            place = system.tagged(tagname, of_file is not None)
        elif name is not None:
            place = system.place(name)
        if size:  # before anything is made
            self._check_view(size, offset, length)
        how = size, create, access == "write", exist_ok
        if of_file is not None:
            self._memory, self._created = system.open_file(place, of_file, *how)
        else:
            assert place is not None
            share = system.share if tagname is None else system.share_tagged
            self._memory, self._created = share(place, *how)
        try:
            there = self._memory.size()
            if size > there:
                raise MappingTooSmall(f"{label}: the memory has {in_bytes(there)}, not {size}; ask for fewer")
            self._size = size or there
            length = self._check_view(self._size, offset, length)
            self._view = self._memory.view(length, offset, self._access)
        except BaseException:
            self._memory.close()
            raise
        _open_mappings.add(self)

    def _check_view(self, size: int, offset: int, length: int | None) -> int:
        """Return the length of the view in bytes, or raise InvalidView."""
        if offset % mmap.ALLOCATIONGRANULARITY:
            raise InvalidView(
                f"{self._label}: offset {offset} is not a multiple of {mmap.ALLOCATIONGRANULARITY} "
                "(mmap.ALLOCATIONGRANULARITY); use the multiple below it"
            )
        if length is None:
            length = size - offset
        if offset < 0 or length < 1 or offset + length > size:
            raise InvalidView(
                f"{self._label}: the view must have at least 1 byte and be inside the mapping of "
                f"{in_bytes(size)}, not {in_bytes(length)} at offset {offset}"
            )
        return length

    @property
    def buf(self) -> memoryview:
        """The bytes of the view.  Raises ValueError when the mapping is closed."""
        return self._check_open().buf

    def __buffer__(self, flags: int, /) -> memoryview:
        return self.buf

    @property
    def name(self) -> str | None:
        """The name or tagname, as given or made up; None for a file without one."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether the mapping is closed."""
        return self._view is None

    @property
    def size(self) -> int:
        """How many bytes the whole mapping has: as asked for, else as found.

        On Windows named memory that is found has whole pages.
        """
        return self._size

    @property
    def created(self) -> bool:
        """Whether this made the name (no ERROR_ALREADY_EXISTS); without a name, whether it made the file."""
        return self._created

    def flush(self, offset: int = 0, length: int | None = None) -> None:
        """Write `length` bytes of the view, from `offset` on, to the file; return when the disk has them.

        By default all bytes.  Does nothing without a file, or unless `access` is "write".
        Raises InvalidView, MemoryRefused; ValueError when the mapping is closed.
        """
        view = self._check_open()
        there = len(view.buf)
        offset = operator.index(offset)
        length = there - offset if length is None else operator.index(length)
        if not 0 <= offset <= offset + length <= there:
            raise InvalidView(
                f"{self._label}: {in_bytes(length)} at offset {offset} cannot be flushed: "
                f"the view has {in_bytes(there)}"
            )
        if length and self._access == mmap.ACCESS_WRITE:
            view.flush(offset, length)

    def lock(self, *, timeout: float | None = None, tagname: str | None = None) -> Guard:
        """Return a `Guard`: `with mapping.lock() as guard:` lets nobody else have the memory's lock.

        It holds back only those who use the lock too, in any process.  Waits for at most
        `timeout` seconds; None: no limit.  A process that ends, or is killed, loses the
        lock, and `guard.abandoned` is then true for the next holder.

        On Windows it is a mutex, named as the memory and `+lock`, and for a file one that
        belongs to the file; with `tagname` the mutex of any program, made if it is missing.
        On POSIX it is a lock on the memory's file, which only mmapipc sees.  Processes that
        may only read share it, and `abandoned` is known of processes of the same user.

        Raises ValueError for a wrong timeout.  At the start of the block: ChannelTimeout,
        AlreadyLocked (this thread has the lock), InvalidName, NameTaken, MemoryRefused,
        FileRefused, ValueError (the mapping is closed).
        """
        return Guard(self, checked_seconds(self._label, timeout), tagname)

    def _guard(self, tagname: str | None) -> contract.Guard:
        self._check_open()
        return self._memory.guard(tagname)

    def unlink(self) -> None:
        """Remove the tagname; those who have the memory open keep it.  Also works when closed.

        On Windows tagnames go by themselves, so this does nothing.  Raises ValueError without
        a tagname; NoSuchMapping when the tagname is gone or belongs to other memory now;
        FileRefused.
        """
        if not self._is_tagged:
            raise ValueError(f"{self._label}: only a tagname can be unlinked")
        self._memory.unlink()

    def close(self) -> None:
        """Let go of the memory and the name; both are gone when the last process does so.

        Raises BufferError, and stays open, while a slice or an array of `buf` exists; `buf`
        itself must then be taken anew.
        """
        if self._view is not None:
            try:
                self._view.close()
            except BufferError:
                raise BufferError(
                    f"{self._label}: a slice or an array of the mapping is in use; release it, then close"
                ) from None
            self._let_go()
            self._memory.close()

    def _let_go(self, why: str = _CLOSED) -> None:
        """Be closed.  A slice or an array keeps the memory until it is collected; on Windows the name too."""
        view, self._view = self._view, None
        self._why_closed = why
        _open_mappings.discard(self)
        if view is not None:
            with contextlib.suppress(BufferError):
                view.close()

    def _check_open(self) -> contract.View:
        if self._view is None:
            raise ValueError(f"{self._label}: {self._why_closed}")
        return self._view

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self._label}: a mapping cannot be pickled; give its name, and open it there")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # which has the slices in its traceback, and is not to be hidden
            self._abandon()

    def _abandon(self) -> None:
        if self._view is not None:
            self._let_go()
            self._memory.close()

    def __repr__(self) -> str:
        state = "closed" if self._view is None else f"{len(self._view.buf)} of {self._size} bytes"
        return f"<mmapipc.Mapping {self._label!r} {state}>"

    def __del__(self) -> None:
        if self._view is not None:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            finally:
                self._abandon()


def _place(name: str | None, file: str | bytes | os.PathLike[str] | HasFileno | int) -> Place:
    """Where the file is: at a path, or open.  Its name in messages is the mapping's, if that has one."""
    if isinstance(file, (str, bytes, os.PathLike)):
        path = os.fsdecode(file)
        return Place(name or path, path)
    if not isinstance(file, int) and not hasattr(file, "fileno"):
        raise TypeError(
            f"the file of a mapping must be a path, a file or a descriptor, not {type(file).__name__}"
        )
    descriptor = file if isinstance(file, int) else file.fileno()
    known = getattr(file, "name", None)
    path = known if isinstance(known, str) else f"descriptor {descriptor}"
    return Place(name or path, path, descriptor)


_open_mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()


def _disown_all() -> None:
    # The system disowns what keeps the name.
    for mapping in list(_open_mappings):
        mapping._let_go(_FORKED)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
