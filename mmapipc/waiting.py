"""`wait`, for several ends at once, and `Bell`, an end as an event loop can wait for it.

The other end rings the bell when it has moved bytes, or leaves.  Until then
nobody looks, except every half second or so: who was killed rings nobody.
"""

from __future__ import annotations

import io

from ._meeting import together
from ._meeting.waiting import checked_seconds

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from ._meeting.link import Link
    from ._system.contract import Bells

    _T = TypeVar("_T")


class Bell:
    """What an event loop waits on for one end: `end.bell`, also of the files that `mmapipc.open` gives.

    A loop watches the descriptor, or on Windows the handle, and each time that
    it is ready, and once at the start, does this:

        while not bell.arm():
            ...            # move what can be moved without waiting, or stop at an end or an error
        ...                # armed: go back to sleep

    A ring is a hint: `arm` says what there is.  Whatever else waits at this end
    (a read, a write, `poll`, `mmapipc.wait`) disarms the bell, so `arm` comes
    last.  Who was killed rings nobody, and except on Linux a ring can, rarely,
    be missed: let the loop do the same every half second at least, and `arm`
    tells of a death too.  Before the end is closed, let the loop forget the
    descriptor.

    Thread-safety: as of the end, one thread at a time.  Each call raises
    ValueError when the end is closed (`arm` also when the stream is finished),
    and io.UnsupportedOperation where there are no bells (in a directory that
    cannot have FIFOs, or has something else in their place).
    """

    def __init__(self, link: Link, has_more: Callable[[], bool] | None = None) -> None:
        self._link = link
        self._file_has_more = has_more

    def fileno(self) -> int:
        """The descriptor that can be read from once the bell has rung, until `arm` or `disarm` empties it.

        Do not read from it.  Raises io.UnsupportedOperation on Windows.
        """
        return self._bells().fileno()

    @property
    def handle(self) -> int:
        """The handle of a semaphore that a ring sets, and a wait for it resets.

        Do not release it.  Raises AttributeError on POSIX.
        """
        return self._bells().handle

    def arm(self) -> bool:
        """True: there is nothing to do, the bell rings when there is.  False: there is, and nothing is armed.

        That is a byte to read, or room for one to write, or an end, or an error.
        Empties the bell first.  Now and then asks the system whether the other end lives.
        """
        self._bells()
        self._link.half.check_not_shut()
        return not self._has_more() and self._link.waiter.arm(self._link.has_news)

    def disarm(self) -> None:
        """Let the bell ring no more, and forget what has rung; look yourself for what there is."""
        bells = self._bells()
        self._link.waiter.take_back()
        bells.drain()

    def _has_more(self) -> bool:
        """Whether a read does not wait, whatever the ring has: there is something in the file's buffer."""
        return self._file_has_more is not None and self._file_has_more()

    def _bells(self) -> Bells:
        link = self._link
        if link.mapped is None:
            link.half.check_not_shut()
        if link.bells is None:
            raise io.UnsupportedOperation(
                f"{link.name}: there are no bells for this channel; use poll() or mmapipc.wait()"
            )
        return link.bells


def wait(ends: Iterable[_T], timeout: float | None = None) -> list[_T]:
    """Wait until some of `ends` are ready; return those that are, in the order given.

    Waits for `timeout` seconds at most, and returns an empty list then; None:
    as long as it takes; 0: not at all.  A Receiver, or a file that reads, is
    ready when a read of a byte would not wait; a Sender, or a file that writes,
    when the ring has room for a byte; each also when the next call would raise
    an error, or tell of the end.  Nothing is moved by that, and no view released.

    Beside ends and the files of `mmapipc.open`, `ends` may have descriptors and
    objects with a `fileno()` that is one, ready when they can be read from; on
    Windows handles, and what `multiprocessing.connection.wait` takes.

    Sleeps once for all, until a bell rings.  That the other end was killed is
    told within half a second or so.  On Windows a thread waits for 59 handles
    at most, and an end has one or two: with more there are more threads, while
    it sleeps.

    Thread-safety: one thread at a time for each end, as always.  Raises
    ValueError when an end is closed, or is closed by another thread meanwhile,
    and for a wrong timeout; TypeError for what cannot be waited for.
    """
    ends = list(ends)
    seconds = checked_seconds("wait", timeout)
    links, others, more = [], [], []
    bells = [_bell(each) for each in ends]
    for each, bell in zip(ends, bells):
        if bell is None:
            if not isinstance(each, int) and not hasattr(each, "fileno"):
                raise TypeError(f"wait: {each!r} is not an end of a channel, and has no descriptor or handle")
            others.append(each)
        else:
            bell._link.half.check_not_shut()
            links.append(bell._link)
            if bell._has_more():
                more.append(bell._link)
    news, ready = together.wait(links, others, 0.0 if more else seconds)
    found = {id(one) for one in (*news, *more, *ready)}
    return [each for each, bell in zip(ends, bells) if id(each if bell is None else bell._link) in found]


def _bell(each: object) -> Bell | None:
    """The bell of an end, or of a file; None of something else."""
    bell = getattr(each, "bell", None)
    return bell if isinstance(bell, Bell) else None
