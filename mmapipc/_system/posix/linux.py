"""Linux: a memory barrier on all processors, by a system call through ctypes."""

from __future__ import annotations

import ctypes
import os

# The number of membarrier(2), by machine.
_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283}
# From linux/membarrier.h.
_GLOBAL_EXPEDITED = 1 << 1
_REGISTER_GLOBAL_EXPEDITED = 1 << 2

# It keeps the GIL: it is short.
_call = ctypes.PyDLL(None).syscall
_call.restype = ctypes.c_long
_NUMBER = ctypes.c_long(_NUMBERS.get(os.uname().machine, -1))  # -1: fails, and does nothing


def fence() -> None:
    """A full barrier on every processor that runs a process which has called `join_fences`."""
    _call(_NUMBER, _GLOBAL_EXPEDITED, 0, 0)


def join_fences() -> bool:
    """Take part in the fences of other processes; return whether the kernel has them."""
    return bool(_call(_NUMBER, _REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0)
