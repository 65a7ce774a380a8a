"""What can go wrong, as one small tree.

Every class is a `ChannelError` and also the built-in exception that people
already catch for the same trouble.  Messages are one line and begin with the
name of the channel.
"""

from __future__ import annotations


class ChannelError(Exception):
    """Base of all errors that mmapipc raises about a channel."""


class InvalidName(ChannelError, ValueError):
    """The name is empty or too long."""


class InvalidCapacity(ChannelError, ValueError):
    """The capacity is not a number of bytes that a ring can have."""


class ChannelTimeout(ChannelError, TimeoutError):
    """A wait took longer than the `timeout` that was asked for."""


class RoleTaken(ChannelError, FileExistsError):
    """The channel has a sender, or a receiver, already."""


class ReceiverGone(ChannelError, BrokenPipeError):
    """The receiver left, or died, before it had taken every byte."""


class StreamAborted(ChannelError, ConnectionAbortedError):
    """The sender gave the stream up: what arrived is not the whole."""


class SenderDied(ChannelError, ConnectionResetError):
    """The sender ended without a word: what arrived is not the whole."""


class LayoutError(ChannelError, ValueError):
    """What lies in the memory is not a ring that this version can use."""


class MemoryRefused(ChannelError, OSError):
    """The system did not give the named memory."""


class UnsafeMemory(ChannelError, PermissionError):
    """The named memory could be changed by somebody else, so it is not used."""
