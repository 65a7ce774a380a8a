"""`open`: an end of a channel as a buffered or a text file.

The files are those of `io`, with their speed and their methods.  They differ in three
ways: when an exception leaves the `with` block, the stream is given up; no later write
can make good for one that failed; and `poll` waits with a limit.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import warnings

from .channel import Receiver, Sender
from .errors import ReadFailed
from .waiting import Bell

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Literal, NoReturn, overload

    _File = io.IOBase
    _Path = str | os.PathLike[str]
    _Lost = Callable[[int], object]
else:
    _File = object

BUFFER_SIZE = 1 << 16  # bytes
_POSITION = (1 << 64) - 1  # the part of `TextIOWrapper.tell()` that counts bytes
_LONGEST_CHARACTER = 8  # bytes, in any encoding


class _AbortingFile(_File):
    """What the files have in common: an exception that leaves the `with` block gives up."""

    def _raw(self) -> Receiver | Sender:
        """The end itself."""
        raise NotImplementedError

    @property
    def bell(self) -> Bell:
        """The `mmapipc.Bell` of the end, for event loops; it knows what is in the buffer."""
        return Bell(self._raw()._link, self._has_more)

    def _has_more(self) -> bool:
        """Whether a read does not wait, whatever the ring has."""
        return False

    def abort(self) -> None:
        """Give up: close without waiting, drop what is in the buffer, and let the other end get an error."""
        self._raw().abort()

    def close(self) -> None:
        """Send what is in the buffer, and close the end.  If that fails, give up and raise the error."""
        if not self.closed:
            try:
                self.flush()
            except BaseException:
                self.abort()
                raise
        super().close()

    def __reduce__(self) -> NoReturn:
        """Unsupported.  (Old protocols of pickle would wrap the file to see its state, and so close it.)"""
        self._raw().__reduce__()

    def __del__(self) -> None:
        # As the files of `io`, but without the errors of a flush that comes too late.
        with contextlib.suppress(ValueError, AttributeError):  # detached, or never opened
            self._raw()._dealloc_warn(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception, give up."""
        if kind is None:
            self.close()
        else:
            self.abort()


class BufferedReceiver(_AbortingFile, io.BufferedReader):
    """What `mmapipc.open(name, "rb")` gives: an `io.BufferedReader` over a Receiver, which is its `raw`."""

    raw: Receiver

    def __init__(self, raw: Receiver, buffer_size: int = BUFFER_SIZE) -> None:
        super().__init__(raw, buffer_size)
        self._handed_on = b""  # the last bytes that a text file has got
        self._tells = False

    def __iter__(self) -> Iterator[bytes]:
        super().__iter__()  # raises if this file is closed
        return iter(self.readline, b"")  # quicker than calling `__next__` of a subclass

    def _raw(self) -> Receiver:
        return self.raw

    def _let_tell(self, tells: bool) -> None:
        """While a text file is made: let it count how far it has read, for which it wants a `seek`."""
        self._tells = tells

    def seekable(self) -> bool:
        """False, but see `_let_tell`."""
        return self._tells

    def read1(self, size: int = -1, /) -> bytes:
        """See `io.BufferedReader`."""
        try:
            data = super().read1(size)
            self._handed_on = self._handed_on[-_LONGEST_CHARACTER:] + data
            return data
        except BaseException as error:
            self.raw._link.half.refuse_after(error)
            raise

    def _has_more(self) -> bool:
        try:
            self.raw._check_not_refused()
        except ReadFailed:
            return True  # a read raises that
        return self.tell() < self.raw.tell()

    def _last_handed_on(self, count: int) -> bytes:
        """The last `count` bytes of what `read1` has returned, or as many of them as are known."""
        return self._handed_on[-count:]

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait until there is a byte, the end of the stream, or an error; return whether there is.

        Waits for at most `timeout` seconds; None: no limit.  To wait with a limit and then
        go on, use this and not the timeout of a read, after which it raises ReadFailed.
        """
        self.raw._check_not_refused()
        return self.tell() < self.raw.tell() or self.raw.poll(timeout)


class BufferedSender(_AbortingFile, io.BufferedWriter):
    """What `mmapipc.open(name, "wb")` gives: an `io.BufferedWriter` over a Sender, which is its `raw`."""

    raw: Sender

    def __init__(self, raw: Sender, buffer_size: int = BUFFER_SIZE) -> None:
        super().__init__(raw, buffer_size)
        # What `write` refused may be in no buffer any more, so that no later write could make up for it.
        raw._link.half.strict = True

    def _raw(self) -> Sender:
        return self.raw

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait until the ring has room for a byte, or a write would raise; return whether that is so.

        Waits for at most `timeout` seconds; None: no limit.
        """
        return self.raw.poll(timeout)


class _Text(_AbortingFile, io.TextIOWrapper):
    """A text file over one of the two."""

    buffer: BufferedReceiver | BufferedSender

    def _raw(self) -> Receiver | Sender:
        return self.buffer.raw


class TextSender(_Text):
    """What `mmapipc.open(name, "w")` gives: an `io.TextIOWrapper` over a BufferedSender."""

    buffer: BufferedSender
    mode = "w"

    def poll(self, timeout: float | None = 0.0) -> bool:
        """See `BufferedSender.poll`."""
        return self.buffer.poll(timeout)


class TextReceiver(_Text):
    """What `mmapipc.open(name, "r")` gives: an `io.TextIOWrapper` over a BufferedReceiver."""

    buffer: BufferedReceiver
    mode = "r"

    def __init__(
        self,
        buffer: BufferedReceiver,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        line_buffering: bool = False,
        write_through: bool = False,
    ) -> None:
        buffer._let_tell(True)
        super().__init__(buffer, encoding, errors, newline, line_buffering, write_through)
        buffer._let_tell(False)
        self._newline = newline

    def reconfigure(self, **options: Any) -> None:
        """See `io.TextIOWrapper`."""
        super().reconfigure(**options)
        self._newline = options.get("newline", self._newline)

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        super().__iter__()  # raises if this file is closed
        return iter(self.readline, "")

    def __next__(self) -> str:  # type: ignore[override]
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait until a read would not wait for its first byte; see `BufferedReceiver.poll`."""
        self.buffer.raw._check_not_refused()
        return self._has_characters() or self.buffer.poll(timeout)

    def _has_more(self) -> bool:
        return self.buffer._has_more() or self._has_characters()

    def _has_characters(self) -> bool:
        """Whether characters are decoded and not yet read."""
        count = self.buffer.tell() - (self.tell() & _POSITION)
        if not count:
            return False
        # Bytes that are not read: characters, or the beginning of one that is not yet there.
        decoder: codecs.IncrementalDecoder | io.IncrementalNewlineDecoder
        decoder = codecs.getincrementaldecoder(self.encoding)(self.errors or "strict")
        if not self._newline:
            decoder = io.IncrementalNewlineDecoder(decoder, False)  # keeps a CR that a LF may follow
        try:
            return bool(decoder.decode(self.buffer._last_handed_on(count)))
        except UnicodeError:
            return True  # a read raises that


if TYPE_CHECKING:

    @overload
    def open(  # type: ignore[overload-overlap]
        name: str,
        mode: Literal["rb"] = "rb",
        *,
        buffering: Literal[0],
        timeout: float | None = None,
        file: _Path | None = None,
        wait_for_role: bool = False,
    ) -> Receiver: ...
    @overload
    def open(
        name: str,
        mode: Literal["rb"] = "rb",
        *,
        buffering: int = -1,
        timeout: float | None = None,
        file: _Path | None = None,
        wait_for_role: bool = False,
    ) -> BufferedReceiver: ...
    @overload
    def open(
        name: str,
        mode: Literal["r", "rt"],
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        timeout: float | None = None,
        file: _Path | None = None,
        wait_for_role: bool = False,
    ) -> TextReceiver: ...
    @overload
    def open(  # type: ignore[overload-overlap]
        name: str,
        mode: Literal["wb"],
        *,
        buffering: Literal[0],
        capacity: int = ...,
        timeout: float | None = None,
        persist: bool = False,
        file: _Path | None = None,
        on_lost: _Lost | None = None,
        wait_for_role: bool = False,
    ) -> Sender: ...
    @overload
    def open(
        name: str,
        mode: Literal["wb"],
        *,
        buffering: int = -1,
        capacity: int = ...,
        timeout: float | None = None,
        persist: bool = False,
        file: _Path | None = None,
        on_lost: _Lost | None = None,
        wait_for_role: bool = False,
    ) -> BufferedSender: ...
    @overload
    def open(
        name: str,
        mode: Literal["w", "wt"],
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        capacity: int = ...,
        timeout: float | None = None,
        persist: bool = False,
        file: _Path | None = None,
        on_lost: _Lost | None = None,
        wait_for_role: bool = False,
    ) -> TextSender: ...


def open(
    name: str,
    mode: str = "rb",
    *,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    **options: Any,
) -> Any:
    """Open an end of the channel `name` as a file, as `open` and `gzip.open` do.

    mode              gives
    ----------------  ---------------------------------------------------------
    "rb"              a BufferedReceiver: `io.BufferedReader` over a Receiver
    "wb"              a BufferedSender: `io.BufferedWriter` over a Sender
    "r", "rt"         a TextReceiver: `io.TextIOWrapper` over the first
    "w", "wt"         a TextSender: `io.TextIOWrapper` over the second

    `encoding`, `errors` and `newline` are those of the built-in `open`, for text only.
    `buffering` is the size of the buffer in bytes; 0 gives the Receiver or Sender itself
    (binary only), 1 sends each line at once (text only).  The other options are those of
    Receiver and Sender, and so are the errors.

    If an exception leaves the `with` block of such a file, it gives the stream up.  After
    a read that timed out or failed, each further read raises ReadFailed, because the file
    may have lost bytes: to wait with a limit and then go on, call `poll(timeout)` before
    the read.  After a write that failed, also in part, `close()` raises, and the receiver
    gets no clean end.  (An error that a signal handler raises before the first step of
    `Receiver.readinto` or `Sender.write` does not count.)

    Thread-safety: as of the files of `io`: any threads may use a binary file.
    Raises ValueError for a wrong mode, and for an option that the mode does not have;
    LookupError for an unknown encoding.
    """
    if mode not in ("rb", "wb", "r", "rt", "w", "wt"):
        raise ValueError(f"{name}: the mode must be 'rb', 'wb', 'r', 'rt', 'w' or 'wt', not {mode!r}")
    is_text = "b" not in mode
    if is_text:
        if buffering == 0:
            raise ValueError(f"{name}: buffering=0 needs mode 'rb' or 'wb'; a text file always has a buffer")
        if encoding not in (None, "locale"):
            codecs.lookup(encoding)  # before anybody sees the end
    else:
        for option, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                raise ValueError(f"{name}: a binary file has no {option}; use mode {mode[0]!r}")
        if buffering == 1:  # as `open` does
            warnings.warn(
                f"{name}: line buffering (buffering=1) is for text files; "
                "this file has a buffer of the usual size",
                RuntimeWarning,
                stacklevel=2,
            )
    raw = Receiver(name, **options) if mode[0] == "r" else Sender(name, **options)
    if buffering == 0:
        return raw
    try:
        size = buffering if buffering > 1 else BUFFER_SIZE
        if isinstance(raw, Receiver):
            receiver = BufferedReceiver(raw, size)
            return TextReceiver(receiver, encoding, errors, newline) if is_text else receiver
        sender = BufferedSender(raw, size)
        return TextSender(sender, encoding, errors, newline, buffering == 1) if is_text else sender
    except BaseException:
        raw.abort()
        raise
