"""Linux: a memory barrier on all processors, by a system call that Python has no name for."""

from __future__ import annotations

import _ctypes  # not ctypes, which takes three times as long to import
import os

# The number of membarrier(2), by machine.
_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283}
# From linux/membarrier.h.
_GLOBAL_EXPEDITED = 1 << 1
_REGISTER_GLOBAL_EXPEDITED = 1 << 2


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """A `long`, as `ctypes.c_long` is."""

    _type_ = "l"


class _Function(_ctypes.CFuncPtr):
    """A function of C that gives a `long`.  It keeps the GIL: it is short."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = _Long


_program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
_call = _Function(_ctypes.dlsym(_program, "syscall"))
_NUMBER = _Long(_NUMBERS.get(os.uname().machine, -1))  # -1: fails, and does nothing


def fence() -> None:
    """A full barrier on every processor that runs a process which has called `join_fences`."""
    _call(_NUMBER, _GLOBAL_EXPEDITED, 0, 0)


def join_fences() -> bool:
    """Take part in the fences of other processes; return whether the kernel has them."""
    return bool(_call(_NUMBER, _REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0)
