"""What people read on a terminal: text of a certain width, sizes and rates, pictures drawn in place."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections import deque
from collections.abc import Callable

from ..errors import in_bytes

_RATED_OVER = 1.0  # seconds


class Rate:
    """How fast a counter has moved lately: `value`, in bytes a second."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, int]] = deque()
        self.value = 0.0

    def add(self, now: float, count: int) -> None:
        """Take what the counter showed at the time `now`, in seconds."""
        past = self._past
        past.append((now, count))
        while len(past) > 2 and past[1][0] <= now - _RATED_OVER:
            past.popleft()
        then, first = past[0]
        if now > then:
            self.value = (count - first) / (now - then)


class Picture:
    """Lines on a terminal, each time drawn anew, during the `with` block; the last ones stay.

    They are drawn on the terminal's other screen, as editors and pagers do: what
    stood there before comes back, and a window whose size changes leaves nothing
    behind.  `write` writes a text on the terminal.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last: list[str] = []

    def __enter__(self) -> Picture:
        return self

    def __exit__(self, *error: object) -> None:
        if self._last:
            self._write("\x1b[?1049l" + "".join(f"{line}\n" for line in self._last))

    def draw(self, lines: list[str], columns: int, rows: int) -> None:
        """Draw the lines, without the last column, where terminals differ, and in so many rows."""
        begin = "" if self._last else "\x1b[?1049h"
        self._last = [cut(line, columns - 1) for line in lines]
        fitting = self._last[-max(rows - 1, 1) :]
        self._write(f"{begin}\x1b[H" + "".join(f"{line}\x1b[K\n" for line in fitting) + "\x1b[J")


def terminal_size(descriptor: int) -> tuple[int, int]:
    """Return columns and rows of the terminal; the usual number for one that it does not tell."""
    columns = rows = 0
    with contextlib.suppress(OSError):
        columns, rows = os.get_terminal_size(descriptor)
    return columns or 80, rows or 24


def human(size: float) -> str:
    """Return a number of bytes with a unit, in at most ten columns."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 999.95:
            break
        size /= 1024
    else:
        unit = "PiB"
    return f"{size:.{0 if unit == 'B' else 1}f} {unit}"


def exactly(size: int) -> str:
    """Return a number of bytes, and behind a large one the same with a unit."""
    return in_bytes(size) + (f" ({human(size)})" if size >= 1000 else "")


def width(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    return sum(map(_columns, text))


def cut(text: str, columns: int) -> str:
    """Shorten the text to so many columns."""
    if width(text) <= columns:
        return text
    dots = "..."[:columns]
    kept, room = "", columns - len(dots)
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        kept += character
    return kept + dots


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "FW" else 1
