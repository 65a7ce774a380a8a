"""Stream bytes from one process to another, by name, through shared memory.

    with mmapipc.open("greeting", "wb") as f:   # in one process
        f.write(b"hello")

    with mmapipc.open("greeting") as f:         # in another
        print(f.read())

`open` gives buffered and text files: loop over their lines, or give them to
`pickle`, `csv` or `shutil`.  `Sender` and `Receiver` are the two ends themselves: raw
binary files (`io.RawIOBase`) which need not copy.

No error means that every byte arrived.  Otherwise a call raises one of these; each is
a ChannelError, and also the built-in exception for the same trouble:

    StreamAborted    reading: the sender gave up; every byte that it published is read
    SenderDied       reading: the same, but the sender was killed
    ReceiverLeft     writing, closing: the receiver closed its end; it wants no more
    ReceiverGone     writing, closing: the receiver left, gave up or was killed
    ReadFailed       reading from a file that may have lost bytes at an earlier error
    ChannelTimeout   the other end made no progress for `timeout` seconds
    RoleTaken        another process is the sender, or the receiver
    LayoutError      the memory is damaged, or is not a channel

`wait` waits for several ends, and for other things, at once; an event loop can wait
for the `bell` of an end.  `mmapipc.aio`, which you import by that name, has both ends
for asyncio.  `mmapipc.connection` has messages: both ways, to any number of clients.
`Mapping` is shared memory without a stream: by a name, by the tagname of any program,
or of a file; its `lock` guards it.  All sizes are in bytes, and all times in seconds.

`channels`, `inspect` and `remove` do what the commands `list`, `inspect` and
`remove` do.

Start with help(mmapipc.open), help(mmapipc.Sender), help(mmapipc.Mapping);
on the command line with `mmapipc --help`.
"""

from .channel import Receiver, Sender
from .errors import (
    AlreadyLocked,
    ChannelError,
    ChannelTimeout,
    FileRefused,
    InvalidCapacity,
    InvalidName,
    InvalidSize,
    InvalidView,
    LayoutError,
    MappingExists,
    MappingTooSmall,
    MemoryRefused,
    NameTaken,
    NoChannel,
    NoSuchMapping,
    ReadFailed,
    ReceiverGone,
    ReceiverLeft,
    RoleTaken,
    SenderDied,
    StreamAborted,
    Undelivered,
    UnsafeMemory,
)
from .files import open
from .mapping import Guard, Mapping
from .waiting import Bell, wait

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from .inspection import ChannelInfo, channels, inspect, remove
del TYPE_CHECKING

__version__ = "0.2.0"

__all__ = [
    "AlreadyLocked",
    "Bell",
    "ChannelError",
    "ChannelInfo",
    "ChannelTimeout",
    "FileRefused",
    "Guard",
    "InvalidCapacity",
    "InvalidName",
    "InvalidSize",
    "InvalidView",
    "LayoutError",
    "Mapping",
    "MappingExists",
    "MappingTooSmall",
    "MemoryRefused",
    "NameTaken",
    "NoChannel",
    "NoSuchMapping",
    "ReadFailed",
    "Receiver",
    "ReceiverGone",
    "ReceiverLeft",
    "RoleTaken",
    "Sender",
    "SenderDied",
    "StreamAborted",
    "Undelivered",
    "UnsafeMemory",
    "channels",
    "inspect",
    "open",
    "remove",
    "wait",
]


def __getattr__(name: str) -> object:
    # Those who only send and receive start without that room.
    if name in ("ChannelInfo", "channels", "inspect", "remove"):
        from . import inspection

        return getattr(inspection, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
