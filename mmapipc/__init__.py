"""Stream bytes from one process to another, by name, through shared memory.

    with mmapipc.Sender("greeting") as s:       # in one process
        s.write(b"hello")

    with mmapipc.Receiver("greeting") as r:     # in another
        print(r.read())

Both ends are raw binary files.  A stream that ends without an error is whole.
`Mapping` is shared memory alone, by name or of a file.
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
