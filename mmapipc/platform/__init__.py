"""The operating system's part: named memory, and claims that die with their holder.

Two siblings with the same functions; this is the only place that chooses.

`claim(name, role)`
    Take a role of a channel, or raise RoleTaken.  The kernel holds the claim:
    it goes with the process, however that ends.  Returns a `Claim`.
`create(name, size)`
    Make the memory; the caller holds the sender's claim.  Returns a `Memory`.
`open_existing(name)`
    The memory of that name, or None when there is none.  Never creates.
`remove(name)`
    Take the name from memory that nobody needs; the caller holds the sender's
    claim.  Nothing to do where names vanish by themselves.
`sweep(name)`
    Remove what is left of a channel at which nobody is.
`location(name)`
    The name as the system knows it: a tagname, a path.
`yield_processor()`
    Let others run.
`futex(mapping, offset)`
    The counter there as something to sleep on, or None where that is not to be had.
`join_fences()`
    Let other processes' futex fences order this process's loads and stores too.
`ORDERED`
    Whether this processor keeps stores in order and loads in order.

A `Memory` has `map(length)` (an `mmap.mmap` of its first bytes, writable),
`is_empty()` (whether it has no bytes yet), `fits(length)` (whether it has as
many as that), `stands(role)` (whether the sender of this very stream lives;
whether somebody has the receiver's role) and `close()`.
"""

import sys

from ._names import LONGEST_NAME, RECEIVER, SENDER

if sys.platform == "win32":
    from ._windows import (
        ORDERED,
        Claim,
        Memory,
        claim,
        create,
        futex,
        join_fences,
        location,
        open_existing,
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
        futex,
        join_fences,
        location,
        open_existing,
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
    "claim",
    "create",
    "futex",
    "join_fences",
    "location",
    "open_existing",
    "remove",
    "sweep",
    "yield_processor",
]
