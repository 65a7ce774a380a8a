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
`sweep(place)`
    Remove what is left of a channel at which nobody is.
`futex(mapping, offset)`
    The counter there as something to sleep on, or None where that is not to be had.
`join_fences()`
    Let other processes' futex fences order this process's loads and stores too.
`yield_processor()`
    Let others run.
`enlarge_pipe(descriptor, size)`
    Let a pipe hold so many bytes, where that can be had.
`ORDERED`
    Whether this processor keeps stores in order and loads in order.

A `Memory` has `map(length)` (an `mmap.mmap` of its first bytes, writable),
`has(length)` (whether it has as many bytes yet), `fits(length)` (whether it has
just as many), `stands(role)` (whether the sender of this very stream lives;
whether somebody has the receiver's role) and `close()`.
"""

import sys

from ._names import LONGEST_NAME, RECEIVER, SENDER, Place

if sys.platform == "win32":
    from ._windows import (
        ORDERED,
        Claim,
        Memory,
        claim,
        create,
        enlarge_pipe,
        futex,
        join_fences,
        open_existing,
        place,
        remove,
        sweep,
        yield_processor,
    )
else:
    from ._posix import (
        ORDERED,
        Claim,
        Memory,
        claim,
        create,
        enlarge_pipe,
        futex,
        join_fences,
        open_existing,
        place,
        remove,
        sweep,
        yield_processor,
    )

__all__ = [
    "LONGEST_NAME",
    "ORDERED",
    "RECEIVER",
    "SENDER",
    "Claim",
    "Memory",
    "Place",
    "claim",
    "create",
    "enlarge_pipe",
    "futex",
    "join_fences",
    "open_existing",
    "place",
    "remove",
    "sweep",
    "yield_processor",
]
