"""What can go wrong, as one small tree.

Each class is a `ChannelError`, and also the built-in exception for the same
trouble, with its `errno`.  A message is one line.  It begins with the name of the
channel or mapping; if that has no name, with the path of its file.
"""

from __future__ import annotations

import errno as _errno

__all__ = [
    "AlreadyLocked",
    "ChannelError",
    "ChannelTimeout",
    "FileRefused",
    "InvalidCapacity",
    "InvalidName",
    "InvalidSize",
    "InvalidView",
    "LayoutError",
    "MappingExists",
    "MappingTooSmall",
    "MemoryRefused",
    "NameTaken",
    "NoChannel",
    "NoSuchMapping",
    "ReadFailed",
    "ReceiverGone",
    "ReceiverLeft",
    "RoleTaken",
    "SenderDied",
    "StreamAborted",
    "Undelivered",
    "UnsafeMemory",
]


def in_bytes(count: int) -> str:
    """So many bytes, in words."""
    return f"{count} byte{'' if count == 1 else 's'}"


def in_units(count: int) -> str:
    """The same, with a larger unit for whole MiB and KiB: never rounded."""
    for size, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count and not count % size:
            return f"{count // size} {unit}"
    return in_bytes(count)


class _Brief(type):
    """Lets `help` show of an exception what is its own: the rest is Python's, and the same for all."""

    def __dir__(cls) -> list[str]:
        return [name for name in vars(cls) if not name.startswith("_")]


class ChannelError(Exception, metaclass=_Brief):
    """Base of all errors that mmapipc raises about a channel or a mapping."""


class InvalidName(ChannelError, ValueError):
    """The name is empty, or too long, or the system has no such name."""


class InvalidCapacity(ChannelError, ValueError):
    """No ring can have a capacity of so many bytes."""


class InvalidSize(ChannelError, ValueError):
    """The mapping would have no bytes, or more than any can have."""


class InvalidView(ChannelError, ValueError):
    """The offset is not a multiple of the granularity, or the view is not inside the mapping."""


class ChannelTimeout(ChannelError, TimeoutError):
    """A wait took longer than `timeout` seconds."""

    errno = _errno.ETIMEDOUT


class ReadFailed(ChannelError, OSError):
    """A file that wraps the Receiver may have lost bytes in an earlier read that failed."""

    errno = _errno.EIO


class RoleTaken(ChannelError, FileExistsError):
    """Another process is the sender, or the receiver, of the channel."""

    errno = _errno.EEXIST


class NoChannel(ChannelError, FileNotFoundError):
    """There is no channel of that name."""

    errno = _errno.ENOENT


class ReceiverGone(ChannelError, BrokenPipeError):
    """The receiver left, gave up or died before it had acknowledged every byte."""

    errno = _errno.EPIPE


class ReceiverLeft(ReceiverGone):
    """The receiver closed its end before the end of the stream: it wants no more."""


class StreamAborted(ChannelError, ConnectionAbortedError):
    """The sender gave up: the stream is not whole."""

    errno = _errno.ECONNABORTED


class SenderDied(ChannelError, ConnectionResetError):
    """The sender was killed, or ended without closing: the stream is not whole."""

    errno = _errno.ECONNRESET


class Undelivered(ChannelError, FileExistsError):
    """The file has bytes of an earlier stream that no receiver has acknowledged."""

    errno = _errno.EEXIST


class LayoutError(ChannelError, ValueError):
    """The memory is damaged, or has no channel that this version can use."""


class MappingTooSmall(LayoutError):
    """The memory, or the file, has fewer bytes than were asked for."""


class MappingExists(ChannelError, FileExistsError):
    """There is such memory, or such a file, already; a new one was asked for."""

    errno = _errno.EEXIST


class AlreadyLocked(ChannelError, RuntimeError):
    """This thread has the lock already, and would wait for itself."""


class NoSuchMapping(ChannelError, FileNotFoundError):
    """There is no memory of that name, or no such file."""

    errno = _errno.ENOENT


class MemoryRefused(ChannelError, OSError):
    """The system refused to give the memory."""


class UnsafeMemory(ChannelError, PermissionError):
    """Another user could change the memory, so it is not used."""

    errno = _errno.EACCES


class FileRefused(MemoryRefused, PermissionError):
    """The system does not allow that use of the file, or of the memory."""

    errno = _errno.EACCES


class NameTaken(UnsafeMemory, FileExistsError):
    """The name belongs to an object of another kind."""

    errno = _errno.EEXIST
