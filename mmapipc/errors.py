"""What can go wrong, as one small tree.

Every class is a `ChannelError` and also the built-in exception that people
already catch for the same trouble, with its `errno`.  Messages are one line and begin with the
name of the channel or mapping, or without a name with the path of its file.
"""

from __future__ import annotations

import errno as _errno


def in_bytes(count: int) -> str:
    """So many bytes, in words."""
    return f"{count} byte{'' if count == 1 else 's'}"


class ChannelError(Exception):
    """Base of all errors that mmapipc raises about a channel or a mapping."""


class InvalidName(ChannelError, ValueError):
    """The name is empty or too long, or not one that the system has."""


class InvalidCapacity(ChannelError, ValueError):
    """The capacity is not a number of bytes that a ring can have."""


class InvalidSize(ChannelError, ValueError):
    """The mapping would have no bytes, or more than there can be."""


class InvalidView(ChannelError, ValueError):
    """The offset is not a multiple of the granularity, or the view is not inside the mapping."""


class ChannelTimeout(ChannelError, TimeoutError):
    """A wait took longer than the `timeout` that was asked for."""

    errno = _errno.ETIMEDOUT


class ReadFailed(ChannelError, OSError):
    """An earlier read through a wrapper did not succeed, and may have lost bytes in the wrapper."""

    errno = _errno.EIO


class RoleTaken(ChannelError, FileExistsError):
    """The channel has a sender, or a receiver, already."""

    errno = _errno.EEXIST


class NoChannel(ChannelError, FileNotFoundError):
    """There is nothing of that name to be looked at or removed."""

    errno = _errno.ENOENT


class ReceiverGone(ChannelError, BrokenPipeError):
    """The receiver left, gave up or died before it had taken every byte."""

    errno = _errno.EPIPE


class ReceiverLeft(ReceiverGone):
    """The receiver closed its end before the end of the stream: it wants no more."""


class StreamAborted(ChannelError, ConnectionAbortedError):
    """The sender gave the stream up: what arrived is not the whole."""

    errno = _errno.ECONNABORTED


class SenderDied(ChannelError, ConnectionResetError):
    """The sender ended without a word: what arrived is not the whole."""

    errno = _errno.ECONNRESET


class Undelivered(ChannelError, FileExistsError):
    """The file has bytes of an earlier stream that no receiver has taken."""

    errno = _errno.EEXIST


class LayoutError(ChannelError, ValueError):
    """What lies in the memory is not a ring that this version can use."""


class MappingTooSmall(LayoutError):
    """There is memory of that name, or the file, but with fewer bytes than were asked for."""


class MappingExists(ChannelError, FileExistsError):
    """There is memory of that name, or the file, and it was to be new."""

    errno = _errno.EEXIST


class AlreadyLocked(ChannelError, RuntimeError):
    """This thread has the lock already, and would wait for itself."""


class NoSuchMapping(ChannelError, FileNotFoundError):
    """Nobody has memory of that name open, or there is no such file."""

    errno = _errno.ENOENT


class MemoryRefused(ChannelError, OSError):
    """The system did not give the named memory."""


class UnsafeMemory(ChannelError, PermissionError):
    """The named memory could be changed by somebody else, so it is not used."""

    errno = _errno.EACCES


class FileRefused(MemoryRefused, PermissionError):
    """The system does not let the file, or the memory, be used in that way."""

    errno = _errno.EACCES


class NameTaken(UnsafeMemory, FileExistsError):
    """In the place of the memory is an object of another kind."""

    errno = _errno.EEXIST
