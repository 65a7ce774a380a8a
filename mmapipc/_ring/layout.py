"""The bytes of a channel's memory.  No other module knows an offset.

LAYOUT.md says the same to those who write an end in another language.

A channel is one object of shared memory: a header page, then the ring.  All
fields are unsigned 64-bit integers in the machine's own byte order (both ends
are on one machine), each on an 8-byte boundary.

    offset
         0  +----------------------------------------------------------+
            | magic "mmapipc" + version | header size                  |
        16  | capacity                  | stream id                    |
        32  | flags: 1 = persistent     | owner: whose file, or 0 (*)  |
            |   written once, by the sender; magic + version last      |
       128  +----------------------------------------------------------+
            | write_seq                    written by the sender only  |
       256  +----------------------------------------------------------+
            | read_seq                   written by the receiver only  |
       384  +----------------------------------------------------------+
            | sender's state | its pid | calls                         |
            |                              written by the sender only  |
       512  +----------------------------------------------------------+
            | receiver's state | its pid | calls | receivers so far    |
            |                            written by the receiver only  |
            +- - - - - - - - - - - - - - - - - - - - - - - - - - - - - +
            | zero                                                     |
      4096  +----------------------------------------------------------+
            | ring: capacity bytes                                     |
            |   the byte with sequence i lies at i mod capacity        |
            +----------------------------------------------------------+

The parts with one writer are 128 bytes apart: a cache line has 64 bytes on
x86-64, but its prefetcher moves lines in pairs, and some aarch64 processors
have lines of 128.

The two sequences count bytes since the start of the stream and never wrap (at
100 GB/s a 64-bit counter lasts for five years).  Unread bytes are
`write_seq - read_seq`, free ones are `capacity` less that.

"Calls" is what an end wants of its peer, which looks there after every counter
that it stores: an odd number = parked, ring when your counter is no longer half
of it; 2 = the receiver left.

(*) That of a listener's name is no channel, and has a word of `introducing` there.

A ring in a file of the user's has the same bytes; `owner` there stands for the
channel's name, so that no other channel takes the file for its own.  While the
sender prepares the file for a new stream, version is 0.  That is on the disk
before the first byte of the stream can be, and its last byte is there before
the mark of its end: so, whatever pages a power cut leaves out, no end is read
that does not belong to the bytes before it.

States are stored by `states` alone; `ring` and `waiting` say what orders the
counters and the calls.

Fields are read and written through `memoryview.cast("Q")`.  CPython moves
such an item with one 8-byte `memcpy`, which compilers turn into a single
aligned load or store, so nobody sees half a counter; `struct.pack_into("<Q")`
would go byte by byte.
"""

from __future__ import annotations

import sys

from ..errors import LayoutError

if sys.maxsize < 2**63 - 1:
    raise ImportError(
        "mmapipc needs a 64-bit Python: a 32-bit one cannot load or store a sequence counter in one step"
    )

VERSION = 2
HEADER_SIZE = 4096
BYTE_ORDER = sys.byteorder

# One word holds both, so that one store makes the header valid.
_MAGIC = int.from_bytes(b"mmapipc" + bytes([VERSION]), sys.byteorder)

# What a file begins with from the moment on in which it is made for a ring.
BEGUN_MARK = b"mmapipc\0"
_BEGUN = int.from_bytes(BEGUN_MARK, sys.byteorder)

# Places of the fields, as indexes into the header seen as 64-bit words.
MAGIC = 0 // 8
HEADER_BYTES = 8 // 8
CAPACITY = 16 // 8
STREAM_ID = 24 // 8
FLAGS = 32 // 8
OWNER = 40 // 8
WRITE_SEQ = 128 // 8
READ_SEQ = 256 // 8
SENDER_STATE = 384 // 8
SENDER_PID = 392 // 8
SENDER_CALLS = 400 // 8
RECEIVER_STATE = 512 // 8
RECEIVER_PID = 520 // 8
RECEIVER_CALLS = 528 // 8
RECEIVERS = 536 // 8
_UNUSED = 544 // 8  # from here on there are zeros

# A side's state.  Fresh memory is zero on every platform.
ABSENT = 0
OPEN = 1
FINISHED = 2  # sender: write_seq is the end of the stream
ABORTED = 3  # it gave up: the sender's stream ends here unfinished, the receiver could not go on
CLOSED = 4  # receiver: it left, and wants no more
DIED = 5  # stored by the next holder of its role
_SENDER_STATES = (OPEN, FINISHED, ABORTED, DIED)
_RECEIVER_STATES = (ABSENT, OPEN, ABORTED, CLOSED, DIED)

STATE_NAMES = ("absent", "open", "finished", "aborted", "closed", "died")

# What an end's calls say: that it sleeps until the peer's counter is no longer `known`, or that it left.
LEFT = 2
PARKED = 1  # the bit that is set in the first


def parked(known: int) -> int:
    """The calls of an end that sleeps, and takes no more than `known` for the peer's counter."""
    return known << 1 | PARKED


_PERSISTENT = 1

# Far beyond any stream, and far enough from 2**64 that no sum overflows a field.
LARGEST_CAPACITY = 2**62
_LARGEST_SEQUENCE = 2**62
_LARGEST_PID = 2**32 - 1


class Header:
    """A copy of the fields that never change.

    `capacity` in bytes; `persistent` streams outlive their receivers; `owner`
    is not 0 in a file of the user's.
    """

    def __init__(self, capacity: int, stream_id: int, persistent: bool, owner: int = 0) -> None:
        self.capacity = capacity
        self.stream_id = stream_id
        self.persistent = persistent
        self.owner = owner


def owner(name: str) -> int:
    """What stands for the channel's name in a file of the user's."""
    import zlib  # seldom needed

    return 1 + zlib.crc32(name.encode("utf-8", "surrogatepass"))


def initialise(words: memoryview, header: Header, pid: int) -> None:
    """Write the constant fields and the sender's pid into zeroed memory, all but the magic."""
    words[HEADER_BYTES] = HEADER_SIZE
    words[CAPACITY] = header.capacity
    words[STREAM_ID] = header.stream_id
    words[FLAGS] = _PERSISTENT if header.persistent else 0
    words[OWNER] = header.owner
    words[SENDER_PID] = pid


def complete(words: memoryview) -> None:
    """Store magic and version: from now on the header is there for others.

    The caller puts a full barrier before this on weakly ordered processors.
    """
    words[MAGIC] = _MAGIC


def is_complete(words: memoryview) -> bool:
    """Whether the creator has got as far as the magic.

    Before it loads another field, the caller puts a full barrier on weakly
    ordered processors.
    """
    return words[MAGIC] not in (0, _BEGUN)


def take_back(words: memoryview) -> None:
    """Store that the header is not complete any more.

    A process that dies from here on leaves what the next one takes for its own.
    """
    words[MAGIC] = _BEGUN


def is_ours(page: memoryview) -> bool:
    """Whether a file of the user's, of which this is the first page or all, is a ring.

    That is one of any version, or one that was just made or begun.  A file is
    ours only if all that is there is: a text that begins with "mmapipc" is not.
    """
    beginning = bytes(page[:8])
    if beginning[:7] != BEGUN_MARK[:7]:
        return False
    if len(page) < HEADER_SIZE:
        return beginning == BEGUN_MARK and not any(page[8:])
    with page.cast("Q") as words:
        if beginning == BEGUN_MARK:
            return (
                words[HEADER_BYTES] in (0, HEADER_SIZE)
                and words[OWNER] <= 1 + 2**32
                and not any(words[_UNUSED:])
            )
        if beginning[7] == VERSION:
            return words[HEADER_BYTES] == HEADER_SIZE and not any(words[_UNUSED:])
        return words[HEADER_BYTES] == HEADER_SIZE


def owner_of(words: memoryview) -> int:
    """Whose file it is, also when the header is only begun; 0 when that is not said."""
    found: int = words[OWNER]
    return found


def check_owner(words: memoryview, name: str, path: str) -> None:
    """LayoutError when the ring in the file `path` is that of a channel of another name."""
    if owner_of(words) not in (0, owner(name)):
        raise LayoutError(
            f"{name}: {path} belongs to a channel whose name is not {name!r}; use its name, or another file"
        )


def validate(words: memoryview, name: str) -> Header:
    """Check the constant fields of the channel `name` and return a copy of them.

    Raises LayoutError.  The states and counters change and are checked
    whenever they are loaded.
    """
    check_version(words, name)
    flags = words[FLAGS]
    header = Header(words[CAPACITY], words[STREAM_ID], flags == _PERSISTENT, words[OWNER])
    if words[HEADER_BYTES] != HEADER_SIZE or not 1 <= header.capacity <= LARGEST_CAPACITY:
        raise damaged(name, "impossible sizes")
    if flags not in (0, _PERSISTENT):
        raise damaged(name, f"flags {flags}")
    return header


def check_version(words: memoryview, name: str) -> None:
    """LayoutError when the memory is no channel at all, or one of another version."""
    magic = words[MAGIC].to_bytes(8, sys.byteorder)
    if magic[:7] != BEGUN_MARK[:7]:
        raise LayoutError(f"{name}: the memory of that name is not an mmapipc channel; use another name")
    if magic[7] != VERSION:
        raise LayoutError(
            f"{name}: the channel has layout version {magic[7]}, this mmapipc has {VERSION}; "
            "use the same version of mmapipc at both ends"
        )


def load_sender_state(words: memoryview, name: str) -> int:
    """Load the sender's state; LayoutError when it is none."""
    state: int = words[SENDER_STATE]
    if state not in _SENDER_STATES:
        raise damaged(name, f"sender state {state}")
    return state


def load_receiver_state(words: memoryview, name: str) -> int:
    """Load the receiver's state; LayoutError when it is none."""
    state: int = words[RECEIVER_STATE]
    if state not in _RECEIVER_STATES:
        raise damaged(name, f"receiver state {state}")
    return state


def load_receivers(words: memoryview, name: str) -> int:
    """Load how many receivers the stream has had; LayoutError when that cannot be."""
    count: int = words[RECEIVERS]
    if count > _LARGEST_SEQUENCE:
        raise damaged(name, f"{count} receivers")
    return count


def load_sequences(words: memoryview, capacity: int, name: str) -> tuple[int, int]:
    """Load (read_seq, write_seq) at the start; LayoutError when they do not fit."""
    # read_seq first: write_seq only grows, so a live sender cannot spoil the test.
    read, write = words[READ_SEQ], words[WRITE_SEQ]
    if not read <= write <= read + capacity or write > _LARGEST_SEQUENCE:
        raise damaged(name, f"sequences {read} and {write}")
    return read, write


def load_pids(words: memoryview, name: str) -> tuple[int, int]:
    """Load the pids of the sender and of the last receiver, 0 before there is one; or LayoutError."""
    pids: tuple[int, int] = words[SENDER_PID], words[RECEIVER_PID]
    if max(pids) > _LARGEST_PID:
        raise damaged(name, f"pids {pids[0]} and {pids[1]}")
    return pids


def load_moving_sequences(words: memoryview, capacity: int, name: str) -> tuple[int, int]:
    """Load (read_seq, write_seq) while both may move; LayoutError when they do not fit.

    On a processor that does not keep loads in order, they may not fit although
    nothing is wrong: then load them again.
    """
    # Both only grow.  So write_seq is not less than what read_seq was before it,
    # and not ahead by more than the capacity of what that is after it.
    before, write, after = words[READ_SEQ], words[WRITE_SEQ], words[READ_SEQ]
    if not before <= write <= after + capacity or before > after or write > _LARGEST_SEQUENCE:
        raise damaged(name, f"sequences {after} and {write}")
    return max(before, write - capacity), write


def damaged(name: str, what: str) -> LayoutError:
    """The error for a field that no correct peer can have written."""
    return LayoutError(
        f"{name}: the channel's memory is damaged ({what}); start the stream again, "
        "or remove the file that it is in"
    )
