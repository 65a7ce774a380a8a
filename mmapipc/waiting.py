"""`wait`, which waits for several ends at once, and `Bell`, on which an event loop waits for one.

The other end rings the bell when it has moved bytes, or leaves.  A process that was
killed does not ring, so an end that waits also looks every half second or so.
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
    """What an event loop waits on for one end: `end.bell`, also of a file of `mmapipc.open`.

    The loop watches the descriptor, on Windows the handle.  At the start, each time that
    it is ready, and at least every half second, do this:

        while not bell.arm():
            ...            # move what can be moved without waiting, or stop at an end or an error
        ...                # armed: go back to sleep

    A ring is only a hint; `arm` says whether there is something to do.  Another call that
    waits (a read, a write, `poll`, `mmapipc.wait`) disarms the bell, so call `arm` last.
    The half second is for the other end that was killed, which does not ring, and for
    a ring that is missed, which is rare, and does not happen on Linux.  Remove the
    descriptor from the loop before you close the end.

    Thread-safety: as of the end, one thread at a time.  Each call raises ValueError when
    the end is closed (`arm` also when the stream is finished), and
    io.UnsupportedOperation where there are no bells: the directory cannot have FIFOs, or
    has something else in their place.
    """

    def __init__(self, link: Link, has_more: Callable[[], bool] | None = None) -> None:
        self._link = link
        self._file_has_more = has_more

    def fileno(self) -> int:
        """Return the descriptor, which is ready for reading from a ring until `arm` or `disarm`.

        Do not read from it.  Raises io.UnsupportedOperation on Windows.
        """
        return self._bells().fileno()

    @property
    def handle(self) -> int:
        """The handle of a semaphore: a ring sets it, and a wait for it resets it.

        Do not release it.  Raises AttributeError on POSIX.
        """
        return self._bells().handle

    def arm(self) -> bool:
        """Return True if there is nothing to do: the bell will ring when there is.  False: do it now.

        That is: a byte to read, room for a byte to write, the end of the stream, or an
        error.  Empties the bell.  Now and then asks the system whether the other end lives.
        """
        self._bells()
        self._link.half.check_not_shut()
        return not self._has_more() and self._link.waiter.arm(self._link.has_news)

    def disarm(self) -> None:
        """Let the bell ring no more, and forget a ring that has come."""
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

    Waits for at most `timeout` seconds, and then returns an empty list; None: no limit;
    0: does not wait.  A Receiver, or a file that reads, is ready when a read of a byte
    would not wait; a Sender, or a file that writes, when the ring has room for a byte;
    each also when the next call would raise, or return the end of the stream.  Moves no
    bytes, and releases no view.

    `ends` may also have connections, descriptors and objects with a `fileno()`, which are
    ready when they can be read from; on Windows handles, and what
    `multiprocessing.connection.wait` takes.

    A kill of the other end is noticed within about half a second.  On Windows a thread
    waits for at most 59 handles, and an end has one or two: for more ends, more threads
    run while this waits.

    Thread-safety: one thread at a time for each end.  Raises ValueError when an end is
    closed, also by another thread while this waits, and for a wrong timeout; TypeError for
    what cannot be waited for.
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
