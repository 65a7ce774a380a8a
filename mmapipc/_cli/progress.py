"""How a transfer goes: a line on standard error that is drawn again and again, or only for whom it waits."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator

from .._meeting.homes import home
from .._system import RECEIVER, SENDER, system
from ..channel import Receiver, Sender
from ..errors import ChannelError, ReceiverLeft
from .streams import LONGEST_STOP, ReaderGone, printable, tell, write_error
from .terminal import Rate, cut, exactly, human, terminal_size, width

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from argparse import Namespace

    from typing_extensions import Self

_BETWEEN_REDRAWS = 0.1  # seconds
_BETWEEN_LINES = 1.0  # seconds, where a line cannot be drawn over
_BETWEEN_LOOKS = 0.5  # seconds, where only waits are told of
_LONG = 1.0  # seconds: a wait is told of that takes longer

# The parts of the line, in the order in which they are shown.  From a line that is too long
# the part with the highest number is left out first.
_PARTS = (
    ("bytes", 0),
    ("percent", 2),
    ("elapsed", 5),
    ("rate", 1),
    ("mean", 6),
    ("fill", 4),
    ("eta", 3),
)


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"


def fitted(parts: dict[str, str], columns: int) -> str:
    """Join the parts that fit into so many columns."""
    chosen: set[str] = set()
    for name, _ in sorted(_PARTS, key=lambda part: part[1]):
        if name in parts and len(" ".join(parts[each] for each in (*chosen, name))) <= columns:
            chosen.add(name)
    return " ".join(parts[name] for name, _ in _PARTS if name in chosen)


class Watch:
    """Follows a transfer during the `with` block; puts bytes, seconds and rate into `summary` at its end.

    `arguments` are the command's, and `sends` tells whether this end is the
    sender.  With `tells` it tells for whom the transfer has waited for more than
    a second.

    All is written by a thread of its own: on a terminal that somebody has
    stopped it waits, and nobody else does.
    """

    def __init__(self, arguments: Namespace, *, sends: bool, tells: bool = True) -> None:
        self._name: str = arguments.name
        self._ring_file: str | None = arguments.ring_file
        self._sends = sends
        self._role = SENDER if sends else RECEIVER
        self._waits_for_role: bool = arguments.wait
        self._summary: dict[str, object] = arguments.summary
        self._tells = tells
        self._kept = self._ring_file is not None  # so a sender need not wait for a receiver
        self._end: Sender | Receiver | None = None
        self._ending = False  # this end moves no more bytes
        self._met = False  # the other end was there
        self._first = 0  # where this end began
        self._moved = 0  # bytes that this end has moved
        self._bytes = 0  # those of them that count: for some senders, only what a receiver has taken
        self._fill = 0.0
        self._rate = Rate()
        self._began = time.perf_counter()
        self._opening = self._waiting_for("the receiver of an earlier stream" if sends else "a sender")
        self._waits = self._opening  # for whom, in words; nothing when it does not wait
        self._hint: str | None = None  # what may be wrong with that name
        self._lock = threading.Lock()  # whoever looks holds it; nobody does who writes
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None: it is over
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self._lock:
            if kind is None:
                self._bytes = self._moved  # the receiver has taken what was in flight
            if self._end is not None:
                elapsed = time.perf_counter() - self._began
                self._summary |= {
                    "bytes": self._bytes,
                    "seconds": round(elapsed, 6),
                    "rate": round(self._mean(elapsed)),
                }
                self._sum_up(kind, elapsed)
        self._lines.put(None)
        self._thread.join(LONGEST_STOP)

    @contextlib.contextmanager
    def following(self, end: Sender | Receiver) -> Iterator[None]:
        """Follow what `end` moves during the `with` block."""
        with self._lock:
            self._end = end
            self._first = end.tell()
            self._began = time.perf_counter()
            self._rate.add(self._began, 0)
            # A receiver opens only when there is a sender; a sender into a file needs no receiver.
            self._met = self._kept or not self._sends
        try:
            yield
        finally:
            with self._lock:
                self._ending = True
                self._look(time.perf_counter())

    def say(self, text: str) -> None:
        """Print a line that is not drawn over."""
        self._lines.put(text)

    def _run(self) -> None:
        waits, since, told = self._waits, time.perf_counter(), False
        for text in self._texts(_BETWEEN_LOOKS):
            if text:
                tell(text)
                continue
            with self._lock:
                now = time.perf_counter()
                self._look(now)
                if self._waits != waits:
                    waits, since, told = self._waits, now, False
            if self._tells and waits and not told and now - since > _LONG:
                tell(waits + self._advice())
                told = True

    def _texts(self, seconds: float) -> Iterator[str]:
        """What is to be said, until it is over; and now and then nothing."""
        due = time.perf_counter() + seconds
        while True:
            try:
                text = self._lines.get(timeout=max(due - time.perf_counter(), 0))
            except queue.Empty:
                yield ""
                due = time.perf_counter() + seconds
            else:
                if text is None:
                    return
                yield text

    def _look(self, now: float) -> None:
        """Look where the end is, and for whom it waits."""
        end = self._end
        if end is None:
            pid = self._rival()
            role = self._waiting_for(f"the {self._role}'s role")
            self._waits = self._opening if pid is None else f"{role} (pid {pid} has it)"
            return
        try:
            moved = end.tell() - self._first
            in_flight, capacity, attached = end.in_flight, end.capacity, end.attached
        except ValueError:
            return  # The end was just closed, or the memory is damaged, which others tell.
        self._moved = moved
        counts_taken = self._sends and not self._kept
        # `moved` was read first, so more may be in flight now.
        self._bytes = max(self._bytes, moved - in_flight) if counts_taken else moved
        self._fill = 100 * in_flight / capacity
        self._rate.add(now, self._bytes)
        self._met |= attached or in_flight < moved
        if not self._met:
            self._began = now  # the clock starts when the ends meet
        waits = self._sends and not attached
        if self._kept:
            waits = waits and in_flight == capacity
        if self._ending and self._met:
            waits = waits and in_flight > 0
        self._waits = self._waiting_for("a receiver") if waits else ""

    def _rival(self) -> int | None:
        """The pid of another process that has the role which this one waits for, if it does."""
        if self._waits_for_role:
            # Should there be trouble, opening the end meets it too.
            with contextlib.suppress(ChannelError):
                pid = home(self._name, self._ring_file).roles.holder(self._role)
                return None if pid == os.getpid() else pid
        return None

    def _advice(self) -> str:
        """What to say behind a wait for a sender: the name may be misspelt."""
        if self._hint is None:
            near = None
            if self._end is None and not self._sends and not self._kept:
                from .naming import near_name

                near = near_name(self._name)
            self._hint = "" if near is None else f" (there is a channel {near!r})"
        return self._hint if self._waits == self._opening else ""

    def _mean(self, elapsed: float) -> float:
        return self._bytes / elapsed if elapsed > 0 else 0.0

    def _sum_up(self, kind: type[BaseException] | None, elapsed: float) -> None:
        """Say, or not, how it went."""

    def _waiting_for(self, whom: str) -> str:
        return f"waiting for {whom} on {self._name!r}"


class Progress(Watch):
    """Shows how one transfer goes, during the `with` block; then sums it up.

    `size` is how many bytes there will be, if that is known; for the rest see `Watch`.
    """

    def __init__(self, arguments: Namespace, *, sends: bool, size: int | None) -> None:
        super().__init__(arguments, sends=sends)
        self._size = size
        self._drawn = ""

    def _run(self) -> None:
        told = ""
        stream = sys.stderr.fileno()
        with system.redrawing(stream) as redrawing:
            for text in self._texts(_BETWEEN_REDRAWS if redrawing else _BETWEEN_LINES):
                if text:
                    self._draw("")
                    tell(text)
                    continue
                with self._lock:
                    now = time.perf_counter()
                    self._look(now)
                    if redrawing:  # not in the last column, where terminals differ
                        columns = terminal_size(stream)[0] - 1
                        line = self._line(now, columns, cut(printable(self._name), columns // 4) + ": ")
                    else:  # a line of its own begins with the name anyway
                        line = self._line(now, sys.maxsize, "")
                if redrawing:
                    self._draw(line)
                elif line != told:
                    tell(f"{self._name}: {line}")
                    told = line
            self._draw("")

    def _draw(self, line: str) -> None:
        if line or self._drawn:
            blank = " " * (width(self._drawn) - width(line))
            back = "" if line else "\r"
            self._drawn = line
            write_error(f"\r{line}{blank}{back}")

    def _line(self, now: float, columns: int, label: str) -> str:
        """What to show in so many columns, with the label unless it says for whom the transfer waits."""
        elapsed = now - self._began
        if told := self._waits:
            told += self._advice()
            passed = f"{human(self._bytes)} sent, " if self._bytes else ""
            return cut(passed + told if width(passed + told) <= columns else told, columns)
        mean = self._mean(elapsed)
        parts = {
            "bytes": f"{human(self._bytes):>9}",
            "elapsed": clock(elapsed),
            "rate": f"{human(self._rate.value) + '/s':>11}",
            "mean": f"(mean {human(mean) + '/s':>11})",
            "fill": f"ring {self._fill:3.0f} %",
        }
        if self._size is not None:
            left = max(self._size - self._bytes, 0)
            parts["percent"] = f"{100 - 100 * left / self._size if self._size else 100:3.0f} %"
            parts["eta"] = f"ETA {clock(left / mean)}" if mean else "ETA -:--:--"
        return label + fitted(parts, columns - width(label))

    def _sum_up(self, kind: type[BaseException] | None, elapsed: float) -> None:
        if kind in (ReceiverLeft, ReaderGone):  # after these we say nothing
            return
        done = "sent" if self._sends else "received"
        mean = self._mean(elapsed)
        self._lines.put(f"{self._name}: {done} {exactly(self._bytes)} in {elapsed:.1f} s, {human(mean)}/s")
