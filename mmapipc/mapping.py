"""`Mapping`: shared memory alone, by name or of a file, as a memoryview.

The memory is the system's `Memory`, as under every channel; here it belongs
to whoever has it open, there to the two ends.
"""

from __future__ import annotations

import contextlib
import mmap
import operator
import os
import warnings
import weakref

from ._system import Place, system
from .errors import InvalidName, InvalidSize, InvalidView, MappingTooSmall, in_bytes

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal

    from typing_extensions import Self

_ACCESS = {"write": mmap.ACCESS_WRITE, "read": mmap.ACCESS_READ, "copy": mmap.ACCESS_COPY}
_LARGEST_SIZE = 2**62  # bytes


class Mapping:
    """Memory that several processes see: `buf`, a memoryview of bytes.

    Without `file`, memory by `name`, zero when it is made.  It lives while
    somebody has it open, and no longer; what killed holders had is gone with
    them.  With `create`, makes it with `size` bytes or opens what is there (as
    CreateFileMapping does; `created` tells which); with `create=False` only
    opens it (as OpenFileMapping does), and size 0 is the size that it has.

    With `file`, a path, the bytes are the file's.  Size 0 is the file's own; a
    larger one extends it with zeros, and makes a missing file (for its owner
    only), if `create` and `access` allow that.  A name given as well lives as
    above, and then `created` is about the name; everybody who uses it gives
    the same file (on Windows the first one's is what they get).

    `access` is "write"; "read", where a store raises TypeError; or "copy",
    where stores are seen here and nowhere else.  The view begins `offset`
    bytes in, a multiple of `mmap.ALLOCATIONGRANULARITY`, and has `length`
    bytes, or those up to the end.

    The name of a channel is not given while somebody has one of its roles.

    Raises InvalidName, InvalidSize (no bytes), InvalidView, NoSuchMapping,
    MappingTooSmall, NameTaken (by an object of another kind), FileRefused,
    UnsafeMemory, MemoryRefused.

    Thread-safety: any thread may use `buf`; nothing orders their stores, or
    other processes'.  One thread at a time may open and close.  A forked child
    does not inherit the mapping: there it is closed.
    """

    _mapping: mmap.mmap | None = None  # set while open

    def __init__(
        self,
        name: str | None = None,
        size: int = 0,
        *,
        file: str | os.PathLike[str] | None = None,
        create: bool = True,
        access: Literal["write", "read", "copy"] = "write",
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a mapping is a str, not {type(name).__name__}")
        path = None if file is None else os.fsdecode(file)
        if name is None and path is None:
            raise InvalidName("(no name): a mapping needs a name, a file, or both")
        self._name = name
        self._label = label = name or path or ""
        if access not in _ACCESS:
            raise ValueError(f"{label}: access is 'write', 'read' or 'copy', not {access!r}")
        self._access = _ACCESS[access]
        size, offset = operator.index(size), operator.index(offset)
        length = None if length is None else operator.index(length)
        if not 0 <= size <= _LARGEST_SIZE or not size and create and path is None:
            raise InvalidSize(
                f"{label}: a mapping has at least 1 byte and at most 2**62, not {size}; "
                "give a size, or create=False to open what is there"
            )
        place = None if name is None else system.place(name)
        if size:  # before anything is made
            self._check_view(size, offset, length)
        if path is not None:
            writable = self._access == mmap.ACCESS_WRITE
            self._memory, self._created = system.open_file(place, Place(label, path), size, create, writable)
        else:
            assert place is not None
            self._memory, self._created = system.share(place, size, create)
        try:
            there = self._memory.size()
            if size > there:
                raise MappingTooSmall(f"{label}: there are {in_bytes(there)}, not {size}; ask for fewer")
            self._size = size or there
            mapping = self._memory.map(self._check_view(self._size, offset, length), offset, self._access)
        except BaseException:
            self._memory.close()
            raise
        self._mapping = mapping
        self._buf = memoryview(mapping)
        _open_mappings.add(self)

    def _check_view(self, size: int, offset: int, length: int | None) -> int:
        """Return the length of the view in bytes, or raise InvalidView."""
        if offset % mmap.ALLOCATIONGRANULARITY:
            raise InvalidView(
                f"{self._label}: offset {offset} is not a multiple of {mmap.ALLOCATIONGRANULARITY} "
                "(mmap.ALLOCATIONGRANULARITY); begin at one and skip the rest"
            )
        if length is None:
            length = size - offset
        if offset < 0 or length < 1 or offset + length > size:
            raise InvalidView(
                f"{self._label}: a view of {in_bytes(length)} from {offset} on is not inside the {size} "
                "that there are; move it there"
            )
        return length

    @property
    def buf(self) -> memoryview:
        """The view's bytes.  ValueError once closed."""
        self._check_open()
        return self._buf

    @property
    def name(self) -> str | None:
        """The name as given."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes of the whole mapping, not of the view: as asked for, else as found.

        On Windows named memory is found in whole pages.
        """
        return self._size

    @property
    def created(self) -> bool:
        """Whether the name was new (no ERROR_ALREADY_EXISTS); without a name, whether the file was."""
        return self._created

    def flush(self) -> None:
        """Bring what was stored to the file, and return when the disk has it.

        Does nothing for memory by name, and unless `access` is "write".
        Raises MemoryRefused, ValueError once closed.
        """
        mapping = self._check_open()
        if self._access == mmap.ACCESS_WRITE:
            self._memory.flush(mapping)

    def close(self) -> None:
        """Let go of memory and name; the last to do so ends a name.

        A slice or an array made of `buf` keeps the memory until it is collected.
        """
        if self._mapping is not None:
            self._unmap()
            self._memory.close()

    def _unmap(self) -> None:
        mapping, self._mapping = self._mapping, None
        _open_mappings.discard(self)
        buf = self._buf
        del self._buf
        assert mapping is not None
        with contextlib.suppress(BufferError):
            buf.release()
            mapping.close()

    def _check_open(self) -> mmap.mmap:
        if self._mapping is None:
            raise ValueError(f"{self._label}: the mapping is closed")
        return self._mapping

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._mapping is None else f"{len(self._buf)} of {self._size} bytes"
        return f"<mmapipc.Mapping {self._label!r} {state}>"

    def __del__(self) -> None:
        if self._mapping is not None:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            finally:
                self.close()


_open_mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()


def _disown_all() -> None:
    # The system disowns what keeps the name.
    for mapping in list(_open_mappings):
        mapping._unmap()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
