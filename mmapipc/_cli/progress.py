"""How a transfer goes: one line on standard error, drawn over while it lasts."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from .. import platform
from ..channel import Receiver, Sender
from .display import Rate, cut, exactly, human, terminal_size, width
from ..errors import ReceiverLeft
from .passing import ReaderGone

_BETWEEN_REDRAWS = 0.1  # seconds
_BETWEEN_LINES = 1.0  # seconds, where nothing can be drawn over

# The parts of the line in the order in which they are shown, and how soon each
# is left out where the line would be too long: the highest number first.
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
    """Hours, minutes and seconds."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"


def fitted(parts: dict[str, str], columns: int) -> str:
    """The parts that there are, as many as go into so many columns."""
    chosen: set[str] = set()
    for name, _ in sorted(_PARTS, key=lambda part: part[1]):
        if name in parts and len(" ".join(parts[each] for each in (*chosen, name))) <= columns:
            chosen.add(name)
    return " ".join(parts[name] for name, _ in _PARTS if name in chosen)


class Progress:
    """Tells how one transfer goes, from a thread of its own, while it is entered; at the end in one line.

    `name` is the channel's, `sends` whether this end does.  `size` is how many
    bytes there will be, if that is known.  `kept` says that a sender need not
    wait for a receiver.  `say` prints a line.
    """

    def __init__(self, name: str, *, sends: bool, size: int | None, kept: bool, say: Callable[[str], None]) -> None:
        self._name = name
        self._sends = sends
        self._size = size
        self._kept = kept
        self._say = say
        self._end: Sender | Receiver | None = None
        self._ending = False  # nothing more comes from this end
        self._met = False  # the other end was there
        self._first = 0
        self._moved = 0  # by this end
        self._bytes = 0  # of them, what a receiver has taken, if that is what counts
        self._fill = 0.0
        self._rate = Rate()
        self._began = time.perf_counter()
        self._waits_for = "the receiver of an earlier stream" if sends else "a sender"
        self._drawn = ""
        self._lock = threading.Lock()  # around what is drawn and looked at
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            self._bytes = self._moved  # what was in flight was taken
        if self._end is not None and kind not in (ReceiverLeft, ReaderGone):  # these are quiet
            self._say(self._summary())

    @contextlib.contextmanager
    def following(self, end: Sender | Receiver) -> Iterator[None]:
        """Around what `end` moves."""
        with self._lock:
            self._end = end
            self._first = end.tell()
            self._began = time.perf_counter()
            self._rate.add(self._began, 0)
            # Without a sender there would be no receiver; a ring in a file needs none.
            self._met = self._kept or not self._sends
        try:
            yield
        finally:
            with self._lock:
                self._ending = True
                self._look(time.perf_counter())

    def say(self, text: str) -> None:
        """Print a line that stays."""
        with self._lock:
            self._draw("")
            self._say(text)

    def _run(self) -> None:
        told = ""
        stream = sys.stderr.fileno()
        with platform.redrawing(stream) as redrawing:
            while not self._over.wait(_BETWEEN_REDRAWS if redrawing else _BETWEEN_LINES):
                with self._lock:
                    now = time.perf_counter()
                    self._look(now)
                    if redrawing:
                        # Not in the last column, where terminals differ.
                        self._draw(self._line(now, terminal_size(stream)[0] - 1))
                    elif (line := self._line(now, sys.maxsize)) != told:
                        self._say(f"{self._name}: {line}")
                        told = line
            with self._lock:
                self._draw("")

    def _draw(self, line: str) -> None:
        if line or self._drawn:
            blank = " " * (width(self._drawn) - width(line))
            back = "" if line else "\r"
            self._drawn = line
            with contextlib.suppress(OSError):
                print(f"\r{line}{blank}", end=back, file=sys.stderr, flush=True)

    def _look(self, now: float) -> None:
        """See where the end is, and whom it waits for."""
        end = self._end
        if end is None:
            return
        try:
            moved, in_flight, capacity, attached = end.tell() - self._first, end.in_flight, end.capacity, end.attached
        except ValueError:
            return  # it is closed just now, or damaged, which others tell
        self._moved = moved
        counts_taken = self._sends and not self._kept
        # More may be in flight than when `moved` was read.
        self._bytes = max(self._bytes, moved - in_flight) if counts_taken else moved
        self._fill = 100 * in_flight / capacity
        self._rate.add(now, self._bytes)
        self._met |= attached or in_flight < moved
        if not self._met:
            self._began = now  # waiting is not slowness
        waits = self._sends and not attached
        if self._kept:
            waits = waits and in_flight == capacity
        if self._ending and self._met:
            waits = waits and in_flight > 0
        self._waits_for = "a receiver" if waits else ""

    def _line(self, now: float, columns: int) -> str:
        elapsed = now - self._began
        if self._waits_for:
            told = f"waiting for {self._waits_for} on {self._name!r}"
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
        return fitted(parts, columns)

    def _mean(self, elapsed: float) -> float:
        return self._bytes / elapsed if elapsed > 0 else 0.0

    def _summary(self) -> str:
        elapsed = time.perf_counter() - self._began
        done = "sent" if self._sends else "received"
        mean = self._mean(elapsed)
        return f"{self._name}: {done} {exactly(self._bytes)} in {elapsed:.1f} s, {human(mean)}/s"
