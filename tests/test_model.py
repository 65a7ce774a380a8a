"""Random histories of a channel against a model of what we promise.

Each case is one history, drawn from one seed: a channel of some bytes, a program
that sends (through a Sender, or a file of `mmapipc.open`), one that receives,
in one process and by turns.  Calls time out, and exceptions of a pretended
signal handler come between any two bytecodes of ours.  To run one case again:

    python3 -c "from tests import test_model as m; m.run_case(1234)"
"""

from __future__ import annotations

import array
import contextlib
import dis
import io
import os
import random
import sys
import unittest
from collections.abc import Callable
from typing import Any

import mmapipc
from mmapipc import files
from mmapipc._meeting import link, waiting
from mmapipc._ring import ring

from .helpers import WINDOWS, ChannelTest, apart

CASES = 2_000 if WINDOWS else 5_000  # Wine opens a channel slowly
SOON = 1e-6  # seconds: a wait that times out in the middle of a call
TRACED = {module.__file__ for module in (ring, link, waiting)}
# What these do not come to give back, the garbage collector does, not in silence.
LAST_STEPS = ("leave", "unmap")
# What a signal handler raises there is as if it came before or after the call.
EMPTY = ("NOP", "RESUME", "EXTENDED_ARG", "POP_BLOCK", "SETUP_FINALLY", "RETURN_VALUE", "RETURN_CONST")
EMPTY += ("PUSH_EXC_INFO", "POP_EXCEPT", "RERAISE", "COPY", "CHECK_EXC_MATCH", "NOT_TAKEN")
# An end that is not clean; who is interrupted in `close` itself leaves as if dead.
BROKEN = (mmapipc.StreamAborted, mmapipc.SenderDied)
TEXT = "abcdefgh\n\n\räß€😀"


class Interrupted(Exception):
    """Raised by a signal handler."""


def is_ours(frame: Any) -> bool:
    """Whether the frame is code in which an exception must do no harm."""
    file, function = frame.f_code.co_filename, frame.f_code.co_name
    if function == "alone":  # it does a step of its caller
        function = frame.f_back.f_code.co_name
    return file in TRACED and function not in LAST_STEPS or (file, function) == (files.__file__, "read1")


def interrupt(call: Callable[[], Any], at: int) -> Any:
    """Call, and raise at the so many-th bytecode of ours, but not in the first line: as if it came before."""
    left = at

    def trace(frame: Any, event: str, argument: object) -> Any:
        if not is_ours(frame):
            return None
        first_line = None if is_ours(frame.f_back) else 0

        def step(frame: Any, event: str, argument: object) -> Any:
            nonlocal left, first_line
            frame.f_trace_opcodes = True
            if event == "line" and first_line == 0:
                first_line = frame.f_lineno
            if event == "opcode" and frame.f_lineno != first_line:
                if dis.opname[frame.f_code.co_code[frame.f_lasti]] not in EMPTY:
                    left -= 1
                    if left == 0:
                        raise Interrupted
            return step

        return step(frame, event, argument)

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for it as tracing begins
    sys.settrace(trace)
    try:
        return call()
    finally:
        sys.settrace(before)


class History:
    """One channel, its two programs, and what the receiving one must get."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        chance = self.chance
        self.name = f"model-{os.getpid()}-{seed}"
        self.capacity = chance.choice((1, 2, 3, 7, 16, 64, 300))
        self.timeout = chance.choice((0.0, SOON))
        self.interrupts = chance.random() < 0.5
        self.was_interrupted = False
        self.stream = bytearray()  # what was sent, in order
        self.ending = ""  # "whole", "broken"; "either" when the call that ends it was interrupted
        self.log: list[str] = []

    def data(self, most: int) -> bytes:
        """Some bytes, with newlines among them."""
        size = self.chance.randint(0 if self.chance.random() < 0.05 else 1, most)
        return bytes(10 if self.chance.random() < 0.1 else self.chance.randrange(256) for _ in range(size))

    def size(self) -> int:
        """The size of a call: small, or more than the ring holds."""
        return self.chance.randint(1, self.chance.choice((3, self.capacity, 2 * self.capacity + 3)))

    def call(self, what: str, call: Callable[[], Any], *expected: type[BaseException]) -> Any:
        """Make a call, interrupted perhaps; return its result, or an exception that it may raise."""
        self.log.append(what)
        try:
            if self.interrupts and self.chance.random() < 0.3:
                at = self.chance.randint(1, self.chance.choice((50, 180)))
                self.log[-1] += f", interrupted at {at}"
                result = interrupt(call, at)
            else:
                result = call()
            gives_nothing = any(word in what for word in ("write", "commit", "consume", "close"))
            assert result is not None or gives_nothing
            self.log[-1] += f" = {bytes(result) if isinstance(result, memoryview) else result!r}"
            return result
        except Interrupted as error:
            self.was_interrupted = True
            self.log[-1] += ": interrupted"
            return error.with_traceback(None)
        except expected as error:
            self.log[-1] += f": {error!r}"
            return error.with_traceback(None)


class Sending:
    """A program that writes to a Sender."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.raw = mmapipc.Sender(history.name, capacity=history.capacity, timeout=history.timeout)
        self.view: memoryview | None = None
        # What is missing: nothing, what a commit or a write can make up for ("commit",
        # "write"), or a part of a write ("final").
        self.debt = ""
        self.may_have_view = False

    def step(self) -> None:
        chance = self.history.chance
        chance.choice((self.write, self.write, self.writelines, self.reserve, self.commit, self.poll))()

    def published(self, before: int, asked: bytes) -> int:
        """Note what a call has published; return how much."""
        count = self.raw.tell() - before
        assert 0 <= count <= len(asked), (count, len(asked))
        self.history.stream += asked[:count]
        return count

    def write(self) -> None:
        history = self.history
        data = history.data(history.size())
        kinds = (bytes, bytearray, memoryview, lambda data: array.array("B", data))
        given = history.chance.choice(kinds)(data)
        self._write("write", lambda: self.raw.write(given), data)

    def writelines(self) -> None:
        history = self.history
        pieces = [history.data(history.size()) for _ in range(history.chance.randint(0, 5))]
        given: Any = pieces if history.chance.random() < 0.7 else iter(pieces)
        self._write("writelines", lambda: self.raw.writelines(given), b"".join(pieces))

    def _write(self, what: str, call: Callable[[], Any], data: bytes) -> None:
        before = self.raw.tell()
        error = self.history.call(f"{what} {data!r}", call, mmapipc.ChannelTimeout, ValueError)
        count = self.published(before, data)
        if isinstance(error, BaseException):
            if isinstance(error, ValueError):
                assert self.debt == "final" or self.view is not None or self.may_have_view, error
                assert not count
            if isinstance(error, mmapipc.ChannelTimeout) and not self.raw_timeout and what == "write":
                assert not count, "a write without a wait is all or nothing"
            if self.is_as_if_outside(error):
                self.debt = "" if count else self.debt
                assert count in (0, len(data))
            else:
                self.debt = "final" if count or self.debt == "final" else "write"
        else:
            assert count == len(data) and self.debt != "final"
            assert error in (None, len(data))
            if count:
                self.debt = ""

    def is_as_if_outside(self, error: BaseException) -> bool:
        """Whether an interruption is as if before or after the call: in its last step, or as it failed."""
        return isinstance(error, Interrupted) and not self.raw._link.half.owes

    @property
    def raw_timeout(self) -> float:
        timeout = self.raw.timeout
        assert timeout is not None
        return timeout

    def reserve(self) -> None:
        history = self.history
        most = history.size()
        self.view = None
        view = history.call(
            f"reserve {most}", lambda: self.raw.reserve(most), mmapipc.ChannelTimeout, ValueError
        )
        if isinstance(view, memoryview):
            assert 1 <= len(view) <= most and self.debt != "final"
            self.view = view
            self.may_have_view = False
        elif isinstance(view, ValueError):
            assert self.debt == "final", view
        elif isinstance(view, Interrupted):
            self.may_have_view = True

    def commit(self) -> None:
        history, view = self.history, self.view
        if self.may_have_view:
            return
        size = 0 if view is None else len(view)
        count = history.chance.randint(0, size + (history.chance.random() < 0.1))
        data = history.data(size) if size else b""
        data = data.ljust(size, b"+")
        if view is not None:
            view[:] = data
        before = self.raw.tell()
        error = history.call(f"commit {count} of {data!r}", lambda: self.raw.commit(count), ValueError)
        done = self.published(before, data)
        if not isinstance(error, BaseException):
            assert done == count and count <= size and self.debt != "final"
            if count and self.debt == "commit":
                self.debt = ""
            self.view = None
            return
        if isinstance(error, ValueError):
            assert not done and (count > size or self.debt == "final"), error
        else:
            self.view, self.may_have_view = None, True
        if self.is_as_if_outside(error):
            self.debt = "" if done else self.debt
            assert done in (0, count)
        elif self.debt == "write" and done == count and self.raw._link.half._debt == self.raw.tell():
            pass  # interrupted after its last step: the write is still to be made good for
        elif done or self.debt == "final":
            self.debt = "final"
        elif self.debt != "write":
            self.debt = "commit"

    def poll(self) -> None:
        assert isinstance(
            self.history.call("poll to write", self.raw.poll, ValueError), (bool, Interrupted, ValueError)
        )

    def end(self) -> None:
        """End the stream in one of the ways that there are."""
        history = self.history
        how = history.chance.choice(("finish", "close", "close", "abort", "leave a with block"))
        if how == "abort":
            self.raw.abort()
            history.ending = "broken"
        elif how == "leave a with block":
            with contextlib.suppress(ZeroDivisionError), self.raw:
                raise ZeroDivisionError
            history.ending = "broken"
        else:
            self._end_well(how)
        history.log.append(f"{how}: {history.ending}")

    def _end_well(self, how: str) -> None:
        history = self.history
        error = history.call(
            f"close by {how}", getattr(self.raw, how), mmapipc.StreamAborted, mmapipc.ChannelTimeout
        )
        if self.debt:
            assert isinstance(error, (mmapipc.StreamAborted, Interrupted)), f"a {how} in spite of {self.debt}"
            history.ending = "broken"
        elif isinstance(error, Interrupted):
            history.ending = "either"
        else:
            # One that timed out is finished too, but not yet taken.
            assert not isinstance(error, mmapipc.StreamAborted), error
            history.ending = "whole"

    def dispose(self) -> None:
        self.raw.abort()


class SendingFile(Sending):
    """A program that writes to a file of `mmapipc.open`: binary, or text."""

    def __init__(self, history: History) -> None:
        self.history = history
        chance = history.chance
        self.is_text = chance.random() < 0.5
        options: dict[str, Any] = {"encoding": "utf-8", "newline": ""} if self.is_text else {}
        self.file: Any = mmapipc.open(
            history.name,
            "w" if self.is_text else "wb",
            buffering=chance.choice((-1, 1, 5)) if self.is_text else chance.choice((-1, 2, 5, 100)),
            capacity=history.capacity,
            timeout=history.timeout,
            **options,
        )
        self.raw = self.file.buffer.raw if self.is_text else self.file.raw
        self.failed = False

    def step(self) -> None:
        chance, history = self.history.chance, self.history
        how = chance.choice(("write", "write", "writelines", "flush", "poll"))
        pieces = [
            "".join(chance.choices(TEXT, k=history.size())).encode()
            if self.is_text
            else history.data(history.size())
            for _ in range(chance.randint(1, 4 if how == "writelines" else 1))
        ]
        given: list[Any] = [piece.decode() for piece in pieces] if self.is_text else pieces
        if how == "poll":
            history.call("poll to write", self.file.poll, ValueError)
            return
        calls = {
            "write": lambda: self.file.write(given[0]),
            "writelines": lambda: self.file.writelines(given),
            "flush": lambda: self.file.flush() or 0,
        }
        if not self.failed and how != "flush":
            history.stream += b"".join(pieces)  # as far as it is sent, see `Receiving.stream`
        error = history.call(f"{how} {given!r}", calls[how], mmapipc.ChannelTimeout, ValueError)
        if isinstance(error, BaseException):
            assert self.failed or not isinstance(error, ValueError), error
            self.failed = True

    def end(self) -> None:
        history = self.history
        how = history.chance.choice(("close", "close", "abort", "leave a with block"))
        self.failed = self.failed or how != "close"
        if how == "leave a with block":
            with contextlib.suppress(ZeroDivisionError), self.file:
                raise ZeroDivisionError
        else:
            error = history.call(f"close by {how}", getattr(self.file, how), mmapipc.ChannelError, ValueError)
            if self.failed:
                assert how == "abort" or isinstance(error, BaseException), (
                    "a close in spite of a failed write"
                )
            elif isinstance(error, Interrupted):
                self.raw.abort()
                history.ending = "either"
            elif isinstance(error, mmapipc.ChannelTimeout) and "given up" not in str(error):
                history.ending = "either"  # the flush, or the wait for the receiver
        history.ending = "broken" if self.failed else history.ending or "whole"
        history.log.append(f"{how}: {history.ending}")
        assert self.file.closed or how == "close"

    def dispose(self) -> None:
        self.file.abort()


class Receiving:
    """A program that reads from a Receiver."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.raw = mmapipc.Receiver(history.name, timeout=history.timeout)
        self.position = 0  # of the next byte that the program gets
        self.refused = False
        self.may_keep = False
        self.at_end = ""

    def step(self) -> None:
        getattr(self, self.history.chance.choice(self.STEPS))()

    STEPS = (
        "read read_all readinto read1 readall readline readline next_line readlines "
        "peek_and_consume peek poll"
    ).split()

    def read(self) -> None:
        most = self.history.size()
        self._get(f"read {most}", lambda: self.raw.read(most), most)

    def read_all(self) -> None:
        self._get("read to the end", self.raw.read, None)

    def readinto(self) -> None:
        most = self.history.size()
        exotic = self.history.chance.random() < 0.2
        buffer: Any = array.array("H", bytes(2 * most)) if exotic else bytearray(most)

        def readinto() -> bytes:
            count = self.raw.readinto(buffer)
            return bytes(memoryview(buffer).cast("B")[:count])

        self._get(f"readinto {most}", readinto, memoryview(buffer).nbytes, wrappers=True)

    def read1(self) -> None:
        most = self.history.size()
        self._get(f"read1 {most}", lambda: self.raw.read1(most), most, wrappers=True)

    def readall(self) -> None:
        self._get("readall", self.raw.readall, None, wrappers=True)

    def readline(self) -> None:
        most = self.history.size() if self.history.chance.random() < 0.3 else sys.maxsize
        line = self._get(f"readline {most}", lambda: self.raw.readline(most), most)
        self.check_line(line, most)

    def next_line(self) -> None:
        line = self._get("next line", lambda: next(iter(self.raw), b""), sys.maxsize)
        self.check_line(line, sys.maxsize)

    def check_line(self, line: bytes | None, most: int) -> None:
        if line:
            assert b"\n" not in line[:-1]
            assert line[-1:] == b"\n" or len(line) == most or self.history.ending, "a part of a line"

    def readlines(self) -> None:
        hint = self.history.chance.choice((0, self.history.size()))
        lines: list[bytes] = []

        def readlines() -> bytes:
            lines.extend(self.raw.readlines(hint))
            return b"".join(lines)

        self._get(f"readlines {hint}", readlines, None)
        for line in lines:
            assert line.find(b"\n") in (len(line) - 1, -1), lines
            assert line.endswith(b"\n") or self.history.ending, lines

    def poll(self) -> None:
        ready = self.history.call("poll to read", self.raw.poll)
        if not isinstance(ready, BaseException):
            assert ready == bool(self.raw.in_flight or self.history.ending or self.kept)
        self._note(ready, False)
        self._check()

    @property
    def kept(self) -> int:
        return len(self.raw._link.half._kept)

    def peek(self) -> None:
        self._peek()

    def _peek(self) -> bytes | None:
        most = self.history.size()
        view = self.history.call(
            f"peek {most}", lambda: self.raw.peek(most), mmapipc.ChannelTimeout, *BROKEN
        )
        self._note(view, False)
        self._check()
        if isinstance(view, BaseException):
            return None
        piece = bytes(view)
        assert piece == self.history.stream[self.position : self.position + len(piece)]
        assert piece or self.history.ending
        return piece

    def peek_and_consume(self) -> None:
        piece = self._peek()
        if not piece:
            return
        count = self.history.chance.randint(0, len(piece))
        error = self.history.call(f"consume {count}", lambda: self.raw.consume(count))
        if error is None:
            self.position += count
        else:  # interrupted: done, or not
            position = self.raw.tell() - self.kept
            assert position in (self.position, self.position + count)
            self.position = position
        self._check()

    def _get(
        self, what: str, call: Callable[[], bytes], most: int | None, wrappers: bool = False
    ) -> bytes | None:
        """Read by such a call, at most so many bytes or to the end; return what came, None after an error."""
        history = self.history
        # What is larger than the ring is kept as it comes.
        if most is None or most > history.capacity:
            self.may_keep = self.may_keep or self.raw.in_flight == history.capacity
        refused = self.refused and wrappers
        got = history.call(what, call, mmapipc.ChannelTimeout, mmapipc.ReadFailed, *BROKEN)
        self.may_keep = self.may_keep or history.was_interrupted
        if isinstance(got, BaseException):
            if isinstance(got, mmapipc.ReadFailed):
                assert refused
            if isinstance(got, BROKEN):
                assert history.ending in ("broken", "either")
            self._note(got, wrappers)
            self._check()
            return None
        assert not refused, "a wrapper would have skipped bytes"
        self.refused = False
        self.take(got, most)
        self._check()
        return got

    def _note(self, error: object, wrappers: bool) -> None:
        """Note whether `readinto` refuses after this."""
        if not wrappers:
            if not isinstance(error, Interrupted):
                self.refused = False
        elif isinstance(error, BROKEN):
            self.refused = self.refused or bool(self.raw.in_flight or self.kept)
        else:
            self.refused = True
        if isinstance(error, Interrupted) and not wrappers:
            # It may not have come so far as to let `readinto` go on.
            self.refused = self.raw._link.half._refuses

    def take(self, got: bytes, most: int | None) -> None:
        """The program has got these bytes, which end the stream if there are none."""
        stream = self.history.stream
        assert got == stream[self.position : self.position + len(got)], "not what was sent"
        self.position += len(got)
        if most is not None:
            assert len(got) <= most
        if not got:
            self.at_end = "whole"
            assert self.history.ending in ("whole", "either"), "a clean end of a stream that is not whole"

    def _check(self) -> None:
        """What is acknowledged was returned, or is kept for the next call."""
        assert self.raw.tell() - self.kept == self.position, (self.raw.tell(), self.kept, self.position)
        assert self.may_keep or self.history.was_interrupted or not self.kept

    def drain(self) -> None:
        """Read to the end."""
        self.history.interrupts = False
        while not self.at_end:
            got = self._get("drain", lambda: self.raw.read(100), 100)
            if got is None:
                self.at_end = "broken"

    def dispose(self) -> None:
        self.raw.abort()


class ReceivingFile(Receiving):
    """A program that reads from a file: of `mmapipc.open`, or of `io` over a Receiver."""

    def __init__(self, history: History) -> None:
        chance = history.chance
        self.history = history
        self.position = 0
        self.at_end = ""
        self.may_keep = True
        self.failed = False
        self.is_text = chance.random() < 0.5
        text: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
        size = chance.choice((-1, 2, 5, 100))
        if chance.random() < 0.7:
            self.file: Any = mmapipc.open(
                history.name,
                "r" if self.is_text else "rb",
                buffering=size,
                timeout=history.timeout,
                **(text if self.is_text else {}),
            )
        else:
            raw = mmapipc.Receiver(history.name, timeout=history.timeout)
            self.file = io.BufferedReader(raw, size if size > 0 else 64)
            if self.is_text:
                self.file = io.TextIOWrapper(self.file, **text)
        self.raw = self.file.buffer.raw if self.is_text else self.file.raw

    def step(self) -> None:
        history, file = self.history, self.file
        most = history.size()
        buffer = bytearray(most)
        calls: dict[str, Callable[[], Any]] = {
            f"read {most}": lambda: file.read(most),
            "read all": file.read,
            "readline": file.readline,
            f"readline {most}": lambda: file.readline(most),
            "next line": lambda: next(file, b""),
        }
        if not self.is_text:
            calls |= {
                f"read1 {most}": lambda: file.read1(most),
                f"readinto {most}": lambda: bytes(buffer[: file.readinto(buffer)]),
                f"readinto1 {most}": lambda: bytes(buffer[: file.readinto1(buffer)]),
                f"peek {most}": lambda: file.peek(most),
            }
        if hasattr(file, "poll"):
            calls["poll"] = file.poll
        what = history.chance.choice(list(calls))
        got = self._of_file(what, calls[what])
        if got is not None and what != "poll" and not what.startswith("peek"):
            self.take(got, None)

    def _of_file(self, what: str, call: Callable[[], Any]) -> Any:
        history = self.history
        got = history.call(
            f"{what} of a file", call, mmapipc.ChannelTimeout, mmapipc.ReadFailed, *BROKEN
        )
        if isinstance(got, BaseException):
            if isinstance(got, mmapipc.ReadFailed):
                assert self.failed
            if isinstance(got, BROKEN):
                assert history.ending in ("broken", "either")
            self.failed = True
            return None
        return got.encode("utf-8", "surrogateescape") if isinstance(got, str) else got

    def drain(self) -> None:
        history = self.history
        history.interrupts = False
        while not self.at_end:
            got = self._of_file("drain", lambda: self.file.read(3))
            if got is None:
                break
            self.take(got, None)
        if not self.at_end:
            # From here on it reads from the Receiver itself, which loses nothing of its own.
            self.position = self.raw.tell() - self.kept
            self.refused = self.raw._link.half._refuses
            super().drain()

    def dispose(self) -> None:
        self.raw.abort()


def run_case(seed: int) -> None:
    """Play the history of this seed to its end."""
    history = History(seed)
    chance = history.chance
    sending = chance.choice((Sending, Sending, SendingFile))(history)
    try:
        receiving = chance.choice((Receiving, ReceivingFile))(history)
        try:
            for _ in range(chance.randint(3, 40)):
                side = sending if chance.random() < 0.5 else receiving
                side.step()
                if chance.random() < 0.05:
                    side.raw.timeout = chance.choice((0.0, SOON))
            published = sending.raw.tell()
            sending.end()
            if isinstance(sending, Sending) and type(sending) is Sending:
                assert published == len(history.stream)
            receiving.drain()
            if receiving.at_end == "whole":
                assert history.ending in ("whole", "either"), history.ending
                assert receiving.raw.tell() == len(history.stream), "a clean end before the last byte"
            else:
                assert history.ending in ("broken", "either"), history.ending
        finally:
            receiving.dispose()
    except BaseException as error:
        raise AssertionError(f"case {seed}: {error!r} after\n" + "\n".join(history.log)) from error
    finally:
        sending.dispose()


@apart
class Model(ChannelTest):
    def test_random_histories(self) -> None:
        for seed in range(CASES):
            run_case(seed)


if __name__ == "__main__":
    unittest.main()
