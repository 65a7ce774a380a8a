"""What happens to the bytes on their way through `send` and `receive`: held back to a rate, and hashed."""

from __future__ import annotations

import time

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import queue

PIECE = 1 << 20  # bytes moved by one read or write at most

_SLICE = 0.1  # seconds: how long a piece may last at the given rate, and how much lost time is made up for
_WAITING_TO_BE_HASHED = 4  # pieces


class ReaderGone(Exception):
    """Nobody reads any more what is written."""


class Passing:
    """Holds bytes back to `rate` bytes a second, and hashes them with `algorithm`; None: does not.

    `digest` is there once the `with` block has been left.  One thread at a time.
    """

    digest: str

    def __init__(self, rate: int | None, algorithm: str | None) -> None:
        self._rate = rate
        self._most = PIECE if rate is None else max(1, min(PIECE, int(rate * _SLICE)))
        self._due = time.perf_counter()  # when the next byte may pass
        self._algorithm = algorithm

    def __enter__(self) -> Passing:
        if self._algorithm is not None:
            import hashlib
            import queue
            import threading

            self._found = hashlib.new(self._algorithm, usedforsecurity=False)
            self._queue: queue.Queue[bytes] = queue.Queue(_WAITING_TO_BE_HASHED)
            # Beside the copying: hashing lets other threads run.
            self._thread = threading.Thread(target=self._hash, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._algorithm is not None:
            self._queue.put(b"")
            self._thread.join()
            self.digest = self._found.hexdigest()

    def turn(self) -> int:
        """Wait until bytes may pass; return how many may at once."""
        if self._rate is not None:
            time.sleep(max(0.0, self._due - time.perf_counter()))
        return self._most

    def passed(self, piece: memoryview, count: int) -> None:
        """Take note that the first `count` bytes of `piece` have passed."""
        if self._rate is not None:
            # What a silent source has not used is lost, what a late wake-up cost is not.
            self._due = max(self._due, time.perf_counter() - _SLICE) + count / self._rate
        if self._algorithm is not None and count:
            self._queue.put(bytes(piece[:count]))

    def _hash(self) -> None:
        while data := self._queue.get():
            self._found.update(data)


def check_algorithm(name: str) -> None:
    """ValueError unless it is a hash of this Python's with digests of one size."""
    import hashlib

    if not hashlib.new(name, usedforsecurity=False).digest_size:
        raise ValueError(f"{name} has digests of any size")


def checksum_line(digest: str, path: str) -> str:
    """What `sha256sum` prints: names that would break the line are escaped, and a backslash says so."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{digest}  {escaped}"
