"""The operating system's part: named memory, and claims that die with their holder.

Two siblings with the same functions; this is the only place that chooses.

`place(name)`
    Where the channel of that name is, a `Place`: what the others want.
`claim(place, role)`
    Take a role of a channel, or raise RoleTaken.  The kernel holds the claim:
    it goes with the process, however that ends.  Returns a `Claim`.
`create(place, size)`
    Make the memory; the caller holds the sender's claim.  Returns a `Memory`.
`open_existing(place)`
    The memory, or None when there is none.  Never creates.
`remove(place)`
    Take the name from memory that nobody needs; the caller holds the sender's
    claim.  Nothing to do where names vanish by themselves.
`share(place, size, create)`
    The memory of that name for a `Mapping`: it lives while anybody has it so,
    and no longer.  Makes it with `size` zero bytes if it is not there and
    `create` says so.  Returns (`Memory`, whether it was made).
`open_file(place, path, size, create, writable)`
    A file of the user's as memory, under a name unless `place` is None.  Size
    0 is the file's own; with `create`, if `writable`, makes the file and
    extends it.  Returns (`Memory`, whether the name was new, without one
    whether the file was).
`mark(file, beginning)`
    Make a file of the user's, or take an empty one, and let it begin so.
`sweep(place)`
    Remove what is left of a channel at which nobody is.
`observe(place)`
    The memory as something to look at only, an `Observed`, or None when there
    is none.  It disturbs nobody, however long it is kept.
`holder(place, role)`
    The pid of who has the role, 0 when it is not known, None when nobody has
    it.  A look: it makes no claimant fail.
`exists(place)`
    Whether there is anything of the channel, if only what is left of it.
`channels()`
    The names of this user's channels.  Raises MemoryRefused where the system
    does not tell.
`redrawing(descriptor)`
    A context manager: whether escape sequences can draw there, while it lasts.
`futex(mapping, offset)`
    The counter there as something to sleep on, or None where that is not to be had.
`join_fences()`
    Let other processes' futex fences order this process's loads and stores too.
`yield_processor()`
    Let others run.
`enlarge_pipe(descriptor, size)`
    Let a pipe hold so many bytes, where that can be had.
`reader_is_gone(error, descriptor)`
    Whether a write there has failed because nobody reads any more.
`STALE`
    What memory is at which nobody is, in words.
`ORDERED`
    Whether this processor keeps stores in order and loads in order.

A `Memory` has `map(length, offset=0, access=mmap.ACCESS_WRITE)` (an
`mmap.mmap` of its bytes), `flush(mapping)` (to the disk, if it is a file's),
`size()` (in bytes), `has(length)` (whether it has as many bytes yet),
`fits(length)` (whether it has just as many), `stands(role)` (whether the sender
of this very stream lives; whether somebody has the receiver's role) and
`close()`.  An `Observed` has the same but for `map` and `flush`; instead
`look(length)` gives a context manager with a read-only memoryview.  Its
`stands(SENDER)` is for memory whose header is complete.
"""

import sys

from ._files import mark
from ._names import LONGEST_NAME, RECEIVER, SENDER, Place

if sys.platform == "win32":
    from ._windows import (
        ORDERED,
        STALE,
        Claim,
        Memory,
        Observed,
        channels,
        claim,
        create,
        enlarge_pipe,
        exists,
        futex,
        holder,
        join_fences,
        observe,
        open_existing,
        open_file,
        place,
        reader_is_gone,
        redrawing,
        remove,
        share,
        sweep,
        yield_processor,
    )
else:
    from ._posix import (
        ORDERED,
        STALE,
        Claim,
        Memory,
        Observed,
        channels,
        claim,
        create,
        enlarge_pipe,
        exists,
        futex,
        holder,
        join_fences,
        observe,
        open_existing,
        open_file,
        place,
        reader_is_gone,
        redrawing,
        remove,
        share,
        sweep,
        yield_processor,
    )

__all__ = [
    "LONGEST_NAME",
    "ORDERED",
    "RECEIVER",
    "SENDER",
    "STALE",
    "Claim",
    "Memory",
    "Observed",
    "Place",
    "channels",
    "claim",
    "create",
    "enlarge_pipe",
    "exists",
    "futex",
    "holder",
    "join_fences",
    "mark",
    "observe",
    "open_existing",
    "open_file",
    "place",
    "reader_is_gone",
    "redrawing",
    "remove",
    "share",
    "sweep",
    "yield_processor",
]
