"""A view of memory by `mmap`, for a `Mapping`."""

from __future__ import annotations

import mmap

from . import files
from .names import Place


class View:
    """See `contract.View`."""

    def __init__(self, place: Place, mapping: mmap.mmap) -> None:
        self._place = place
        self._mapping = mapping
        self.buf = memoryview(mapping)

    def flush(self, offset: int, length: int) -> None:
        """See `contract.View`."""
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        with files.opening(self._place):
            self._mapping.flush(start, offset + length - start)

    def close(self) -> None:
        """See `contract.View`."""
        self.buf.release()
        try:
            self._mapping.close()
        except BufferError:
            self.buf = memoryview(self._mapping)
            raise
