"""Windows, as `contract.System` wants it."""

from __future__ import annotations

import contextlib
import sys
import time

from ...errors import MemoryRefused
from .. import names
from ..files import make as make, mark as mark
from ..names import Place
from .bells import AT_ONCE as AT_ONCE, own_bells as own_bells, sleep_on as sleep_on
from .memory import (
    create as create,
    observe as observe,
    observe_file as observe_file,
    open_existing as open_existing,
    open_file as open_file,
    remove as remove,
    share as share,
    share_tagged as share_tagged,
    tagged as tagged,
)
from .roles import FileRoles, Roles
from .terminal import (
    enlarge_pipe as enlarge_pipe,
    reader_is_gone as reader_is_gone,
    reader_left as reader_left,
    redrawing as redrawing,
    watched_input as watched_input,
)

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

# Also for x64 Python on an ARM processor: the emulation keeps the order.
ORDERED = "amd64" in sys.version.lower()

channel_roles, file_roles = Roles, FileRoles

# What memory is at which nobody is.
STALE = "nobody is attached; it goes with the last process that has it open"


def place(name: str) -> Place:
    """Where the memory of that name is: its tagname.  Raises InvalidName."""
    prefix, encoded = names.split(name)
    return Place(name, f"{prefix}mmapipc.{encoded}")


def channels() -> list[str]:
    """Raises MemoryRefused."""
    raise MemoryRefused("Windows has no public call that lists named objects; name the channels")


def die_of(number: int) -> None:
    """Nothing: Windows has no signals to die of."""


def signals_put_off() -> AbstractContextManager[None]:
    """See `contract.System`."""
    return contextlib.nullcontext()


def yield_processor() -> None:
    """Let others run."""
    time.sleep(0)


def fence() -> None:
    """Nothing: Windows has such a call for the threads of one process only."""


def join_fences() -> bool:
    """False: there are none."""
    return False
