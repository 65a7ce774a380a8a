"""What `send` and `receive` do to the bytes on their way: hold them back to a rate, and hash them."""

from __future__ import annotations

import time

from .streams import PIECE

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import queue

_SLICE = 0.1  # seconds that a piece may last at the given rate, and of lost time that is made up for
_WAITING_TO_BE_HASHED = 4  # pieces


class Passing:
    """Holds bytes back to `rate` bytes a second, and hashes them with `algorithm`; either may be None.

    `digest` is there after the `with` block.  Only one thread at a time may use this.
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
            # A thread of its own hashes while we copy: hashing lets other threads run.
            self._thread = threading.Thread(target=self._hash, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._algorithm is not None:
            self._queue.put(b"")
            self._thread.join()
            self.digest = self._found.hexdigest()

    def turn(self) -> int:
        """Wait until bytes may pass; return how many may pass at once."""
        if self._rate is not None:
            time.sleep(max(0.0, self._due - time.perf_counter()))
        return self._most

    def passed(self, piece: memoryview, count: int) -> None:
        """Note that the first `count` bytes of `piece` have passed."""
        if self._rate is not None:
            # What a late wake-up cost is made up for, what a silent source did not use is not.
            self._due = max(self._due, time.perf_counter() - _SLICE) + count / self._rate
        if self._algorithm is not None and count:
            self._queue.put(bytes(piece[:count]))

    def _hash(self) -> None:
        while data := self._queue.get():
            self._found.update(data)


def check_algorithm(name: str) -> None:
    """Raise ValueError unless this Python has that hash and its digests have one size."""
    import hashlib

    if not hashlib.new(name, usedforsecurity=False).digest_size:
        raise ValueError(f"{name} has digests of any size")


def checksum_line(digest: str, path: str) -> str:
    """Return what `sha256sum` prints.  After a backslash, the name is one that is escaped to fit a line."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{digest}  {escaped}"
