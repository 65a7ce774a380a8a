"""Stream bytes from one process to another, by name, through shared memory.

    with mmapipc.Sender("greeting") as s:       # in one process
        s.write(b"hello")

    with mmapipc.Receiver("greeting") as r:     # in another
        print(r.read())

Both ends are raw binary files.  A stream that ends without an error is whole.
"""

from .channel import Receiver, Sender
from .errors import (
    ChannelError,
    ChannelTimeout,
    InvalidCapacity,
    InvalidName,
    LayoutError,
    MemoryRefused,
    ReceiverGone,
    RoleTaken,
    SenderDied,
    StreamAborted,
    UnsafeMemory,
)

__version__ = "0.1.0"

__all__ = [
    "ChannelError",
    "ChannelTimeout",
    "InvalidCapacity",
    "InvalidName",
    "LayoutError",
    "MemoryRefused",
    "Receiver",
    "ReceiverGone",
    "RoleTaken",
    "Sender",
    "SenderDied",
    "StreamAborted",
    "UnsafeMemory",
]
