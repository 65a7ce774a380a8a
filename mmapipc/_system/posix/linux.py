"""Linux: sleeping until a word of shared memory changes, by system calls through ctypes."""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os

# Numbers of the system calls (futex, membarrier) by machine.
_NUMBERS = {"x86_64": (202, 324), "aarch64": (98, 283), "riscv64": (98, 283)}

# From linux/futex.h and linux/membarrier.h.  Not the "private" futexes: the
# two ends are different processes.
_FUTEX_WAIT = 0
_FUTEX_WAKE = 1
_GLOBAL_EXPEDITED = 1 << 1
_REGISTER_GLOBAL_EXPEDITED = 1 << 2

# What may sleep releases the GIL, what does not keeps it.
_blocking = ctypes.CDLL(None).syscall
_immediate = ctypes.PyDLL(None).syscall
for _call in (_blocking, _immediate):
    _call.restype = ctypes.c_long


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Futex:
    """The low half of a 64-bit counter in shared memory, as something to sleep on."""

    def __init__(self, address: int, numbers: tuple[int, int]) -> None:
        self._address = ctypes.c_void_p(address)
        self._futex, self._membarrier = (ctypes.c_long(number) for number in numbers)

    def wait(self, expected: int, seconds: float) -> None:
        """Sleep while the counter is still `expected`: until `wake`, a signal, or for so many seconds."""
        span = _Timespec(int(seconds), int(seconds % 1 * 1e9))
        _blocking(
            self._futex,
            self._address,
            _FUTEX_WAIT,
            ctypes.c_uint32(expected & 0xFFFFFFFF),
            ctypes.byref(span),
        )

    def wake(self) -> bool:
        """Wake whoever sleeps on the counter; return whether somebody did."""
        return bool(_immediate(self._futex, self._address, _FUTEX_WAKE, 1) > 0)

    def fence(self) -> None:
        """A full barrier on every processor that runs a process which has called `join_fences`."""
        _immediate(self._membarrier, _GLOBAL_EXPEDITED, 0, 0)


def join_fences() -> None:
    """Take part in the fences of other processes."""
    numbers = _numbers()
    if numbers is not None:
        _immediate(ctypes.c_long(numbers[1]), _REGISTER_GLOBAL_EXPEDITED, 0, 0)


def futex(mapping: mmap.mmap, offset: int) -> Futex | None:
    """The counter at `offset` bytes, for as long as the mapping is open; None where there is no futex."""
    numbers = _numbers()
    if numbers is None:
        return None
    # This object holds the mapping only as long as its address is asked for.
    return Futex(ctypes.addressof(ctypes.c_char.from_buffer(mapping, offset)), numbers)


@functools.lru_cache(maxsize=None)
def _numbers() -> tuple[int, int] | None:
    """The numbers of this machine's system calls; None when they are not known, or not there."""
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is not None:
        with_errno = ctypes.CDLL(None, use_errno=True).syscall
        word = ctypes.c_uint32(0)
        failed = with_errno(ctypes.c_long(numbers[0]), ctypes.byref(word), _FUTEX_WAKE, 0) < 0
        if failed and ctypes.get_errno() == errno.ENOSYS:
            return None
    return numbers
