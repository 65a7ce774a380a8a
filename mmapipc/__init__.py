"""Stream bytes from one process to another, by name, through shared memory.

    with mmapipc.Sender("greeting") as s:       # in one process
        s.write(b"hello")

    with mmapipc.Receiver("greeting") as r:     # in another
        print(r.read())

Both ends are raw binary files (`io.RawIOBase`): loop over lines, wrap them in
`io.BufferedReader` or `io.TextIOWrapper`, give them to `pickle` or `shutil`.
What ends without an error is whole.  Otherwise a call raises one of these, each
a ChannelError and also the built-in exception for the same trouble:

    StreamAborted    reading: the sender gave up, all that it published is read
    SenderDied       reading: the same, and the sender was killed
    ReceiverLeft     writing, closing: the receiver wants no more
    ReceiverGone     writing, closing: it gave up or was killed (ReceiverLeft is one)
    ChannelTimeout   the other end lets us wait for longer than `timeout` seconds
    RoleTaken        there is a sender, or a receiver, already
    LayoutError      the memory is damaged, or is no channel

`Mapping` is shared memory alone, by name or of a file.

Start with help(mmapipc.Sender), help(mmapipc.Receiver), help(mmapipc.Mapping);
on the command line with `mmapipc --help`.
"""

from .channel import Receiver, Sender
from .errors import (
    ChannelError,
    ChannelTimeout,
    FileRefused,
    InvalidCapacity,
    InvalidName,
    InvalidSize,
    InvalidView,
    LayoutError,
    MappingTooSmall,
    MemoryRefused,
    NameTaken,
    NoSuchMapping,
    ReceiverGone,
    ReceiverLeft,
    RoleTaken,
    SenderDied,
    StreamAborted,
    Undelivered,
    UnsafeMemory,
)
from .mapping import Mapping

__version__ = "0.1.0"

__all__ = [
    "ChannelError",
    "ChannelTimeout",
    "FileRefused",
    "InvalidCapacity",
    "InvalidName",
    "InvalidSize",
    "InvalidView",
    "LayoutError",
    "Mapping",
    "MappingTooSmall",
    "MemoryRefused",
    "NameTaken",
    "NoSuchMapping",
    "Receiver",
    "ReceiverGone",
    "ReceiverLeft",
    "RoleTaken",
    "Sender",
    "SenderDied",
    "StreamAborted",
    "Undelivered",
    "UnsafeMemory",
]
