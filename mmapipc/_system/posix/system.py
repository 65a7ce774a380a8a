"""POSIX, as `contract.System` wants it."""

from __future__ import annotations

import contextlib
import os
import signal

from ...errors import InvalidName, MemoryRefused
from .. import names
from ..files import disown_all, make as make, mark as mark
from ..names import Place
from .bells import AT_ONCE as AT_ONCE, own_bells as own_bells, sleep_on as sleep_on
from .memory import (
    create as create,
    observe as observe,
    observe_file as observe_file,
    open_existing as open_existing,
    open_file as open_file,
    share as share,
)
from .private import directory, remove as remove
from .roles import FileRoles, Roles
from .tagged import share_tagged as share_tagged, tagged as tagged
from .terminal import (
    enlarge_pipe as enlarge_pipe,
    reader_is_gone as reader_is_gone,
    reader_left as reader_left,
    redrawing as redrawing,
    watched_input as watched_input,
)

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

# Total store order; everything else is taken to be weakly ordered.
ORDERED = os.uname().machine.lower() in ("x86_64", "amd64", "i686", "i386")

channel_roles, file_roles = Roles, FileRoles

# What memory is at which nobody is.
STALE = "left by killed processes (mmapipc remove)"

yield_processor = os.sched_yield


def die_of(number: int) -> None:
    """End this process by that signal, as one that does not catch it."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


@contextlib.contextmanager
def signals_put_off() -> Iterator[None]:
    """See `contract.System`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


if os.uname().sysname == "Linux":
    from .linux import fence as fence, join_fences as join_fences
else:

    def fence() -> None:
        """Nothing: only Linux has such a call."""

    def join_fences() -> bool:
        """False: there are none."""
        return False


def place(name: str) -> Place:
    """Where the memory of that name is: the path of its file.  Raises InvalidName."""
    encoded = names.split(name)[1]
    return Place(name, os.path.join(directory(f"{name}: "), f"mmapipc.{os.geteuid()}.{encoded}"))


def channels() -> list[str]:
    """The names of this user's channels and of what is left of some.  Raises MemoryRefused."""
    folder = directory("")
    prefix = f"mmapipc.{os.geteuid()}."
    found = set()
    try:
        entries = os.listdir(folder)
    except OSError as error:
        refusal = MemoryRefused(f"{folder}: {error.strerror}; set MMAPIPC_DIR")
        refusal.errno = error.errno
        raise refusal from None
    for entry in entries:
        encoded, _, part = entry.partition("+")
        if encoded.startswith(prefix) and part in ("", "roles"):
            with contextlib.suppress(InvalidName):  # nobody's channel
                found.add(names.join(encoded[len(prefix) :]))
    return sorted(found)


os.register_at_fork(after_in_child=disown_all)
