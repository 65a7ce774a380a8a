"""One end of a channel: its half of the ring, and all that the end holds for it.

A link owns the role, the memory and the mapping from the moment that it gets
them, and gives all of them back in `leave`.  It tells what its half sees of the
peer as exceptions.
"""

from __future__ import annotations

import _thread  # not threading, which is slow to import
import contextlib
import errno
import os

from .._ring import layout, ring
from .._ring.ring import Consumer, Producer
from .._ring.states import Verdict
from .._system import PEER, RECEIVER, SENDER, system
from ..errors import (
    ChannelError,
    ChannelTimeout,
    LayoutError,
    ReceiverGone,
    ReceiverLeft,
    SenderDied,
    StreamAborted,
    UnsafeMemory,
    in_bytes,
    in_units,
)
from .waiting import CLOCK, Clock, Waiter

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from .._ring.ring import Half
    from .._system.contract import Bells, Claim, Memory
    from .homes import InFile, InMemory, Mapped

    _Half = TypeVar("_Half", bound=Half)
    _Result = TypeVar("_Result")

# A test runs everything without them too: nothing depends on a ring.
_WITH_BELLS = "MMAPIPC_NO_BELLS" not in os.environ


def alone(lock: _thread.RLock, step: Callable[[], _Result]) -> _Result:
    """Do it while this thread has the lock.

    In place of `with lock`, which in CPython 3.14 leaves it taken if a signal handler raises just then.
    """
    try:
        lock.acquire()
        return step()
    finally:
        if lock._is_owned():  # type: ignore[attr-defined]
            lock.release()


class Link:
    """What both ends share.  `timeout`, in seconds or None, bounds each wait."""

    role: str
    half: Half
    waiter: Waiter

    def __init__(self, home: InMemory | InFile, timeout: float | None, clock: Clock = CLOCK) -> None:
        self.home = home
        self.name = home.name
        self._timeout = timeout
        self.clock = clock
        self.claim: Claim | None = None
        self.memory: Memory | None = None
        self.mapped: Mapped | None = None
        self.bells: Bells | None = None
        # Who looks into the memory or rings this end's bell from another thread has this meanwhile.  Without
        # a GIL CPython itself does not keep a view from being released while it is read.
        self.seeing = _thread.RLock()

    def _join(self, kind: type[_Half], **options: bool) -> _Half:
        """Make this end's half of the ring in `mapped`, and its waiter."""
        mapped, home = self.mapped, self.home
        assert mapped is not None and self.claim is not None
        half = kind(
            mapped.words,
            mapped.data,
            self.name,
            barrier=home.barrier,
            ordered=home.ordered,
            link=self,
            **options,
        )
        self.bells = self.claim.bells() if _WITH_BELLS else None
        self.waiter = Waiter(half, self.bells, self.clock, system.join_fences())
        self.waiter.limit(self._timeout)
        return half

    @property
    def timeout(self) -> float | None:
        """The most seconds that each wait takes; None: as long as it takes."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self._timeout = timeout
        self.waiter.limit(timeout)

    @property
    def is_joined(self) -> bool:
        """Whether this end takes part in a stream."""
        return self.mapped is not None and hasattr(self, "half")

    def wait(self) -> bool:
        """Wait for the peer; whether there is something to move, False at the end of the stream.

        Raises what `raise_unless_fine` does.
        """
        verdict = self.waiter.until_moved(self.look, self.timeout)
        self.raise_unless_fine(verdict, self.timeout)
        return verdict is Verdict.READY

    def raise_unless_fine(self, verdict: Verdict | None, timeout: float | None) -> None:
        """Raise what the verdict means, None that `timeout` seconds have passed."""
        raise NotImplementedError

    def refuse_to_wait(self, size: int) -> None:
        """Raise when this end does not wait at all, and so many bytes do not fit now."""
        raise NotImplementedError

    def peer_lives(self) -> bool:
        """Whether the peer that is attached to this very stream has its role still.

        That is so as long as the kernel names the pid that the header names.
        Whoever got the role since then has another, or is about to say that
        its predecessor died.
        """
        assert self.mapped is not None and self.claim is not None
        pid = self.claim.holder(PEER[self.role])
        if pid is None or pid != self._pid_of_peer(self.mapped.words):
            return False
        if self.bells is not None:
            # Asked each time: a peer that is just opening has not got its bells yet.
            self.waiter.use(self.bells if self.bells.are_shared() else None, self._timeout)
        self.waiter.watch(pid)
        return True

    def peer_of(self, words: memoryview) -> bool:
        """`peer_lives`, for the stream of which these are the header's words."""
        assert self.claim is not None
        return self.claim.holder(PEER[self.role]) == self._pid_of_peer(words)

    def _pid_of_peer(self, words: memoryview) -> int:
        sender, receiver = layout.load_pids(words, self.name)
        return sender if self.role == RECEIVER else receiver

    def poll(self, timeout: float | None) -> bool:
        """Whether to move a byte would not wait, be it for an error; waits so many seconds for that."""
        if self.half.is_ready:
            return True
        if timeout == 0:
            return self.look(self.waiter.probe_is_due()) is not None
        return self.waiter.until_moved(self.look, timeout) is not None

    def has_news(self, probe: bool) -> bool:
        """Whether to move a byte would not wait, be it for an error; `probe` asks whether the peer lives."""
        try:
            return self.half.is_ready or self.look(probe) is not None
        except ChannelError:
            return True

    def abort(self) -> None:
        """Say that this end could not go on, unless a thread or a signal handler has just closed it."""
        self._say(self.half.abort)

    def _say(self, store: Callable[[], object]) -> None:
        """Store this end's last state, and let the peer see it; nothing once the memory is let go of."""

        def say() -> None:
            try:
                if self.mapped is not None:
                    store()
                    self._hail()
            except ValueError:
                if self.mapped is not None:  # otherwise a signal handler has just closed this end
                    raise

        # Not while another thread that leaves lets go of the memory.
        alone(self.seeing, say)

    def look(self, probe: bool) -> Verdict | None:
        """The half's verdict, None while there is only to wait; `probe` asks whether the peer lives."""
        verdict = self.half.verdict(probe)
        return None if verdict is Verdict.WAIT else verdict

    def hail(self) -> None:
        """Let a peer that sleeps see that a state has changed."""
        # Not while another thread that leaves closes the bell: see `_ring_own`.
        alone(self.seeing, self._hail)

    def _hail(self) -> None:
        calls = self.half.called
        if calls & layout.PARKED:
            self._ring(calls)

    def answer(self, calls: int) -> None:
        """Do what the peer wants, which had these calls after our counter was stored."""
        if not calls & layout.PARKED:
            self._unheard(calls)
        # One that parks at this very counter has seen it, and waits for the next: rung for now, it would
        # park with the same calls again, and not be rung for then.
        elif calls != layout.parked(self.half.sequence):
            self._ring(calls)

    def _ring(self, calls: int) -> None:
        """Wake the peer, which has parked with these calls."""
        try:
            self.half.ring()
        except ValueError:
            self.half.check_not_shut()  # by another thread
            raise
        self.half.rung = calls
        if ring.wrote or self.role == RECEIVER:
            # A stream: this process writes on, or the ring was full.  The peer may be on this very
            # processor; while it runs, the caches still have what the two pass on.
            self.clock.give_way()
        ring.rang = True

    def _unheard(self, calls: int) -> None:
        """The peer has called, and does not sleep."""

    def unmap(self, reason: str) -> None:
        """Let go of the memory's bytes; every later call of the half is a ValueError with this reason."""
        mapped, self.mapped = self.mapped, None
        if mapped is not None:
            if hasattr(self, "half"):
                self.half.shut(reason)
            mapped.close()

    def dismiss(self, reason: str) -> None:
        """Let a thread that waits raise ValueError with this reason; return when it has left."""
        self.waiter.dismiss(reason, self._ring_own)

    def _ring_own(self) -> None:
        # Not while another thread that leaves closes it: the descriptor might be another file's by then.
        # It may be closed already, by that thread or before an earlier `leave` was interrupted.
        with contextlib.suppress(ValueError):
            alone(self.seeing, self.waiter.bells.ring_own)

    def leave(self, reason: str, error: BaseException | None = None) -> None:
        """Give everything back.  What the peer is to know was stored before.

        `error` is why this end did not open; memory that is not ours stays.
        """
        bells = self.bells
        try:
            if self.is_joined:
                self.half.shut(reason)
                self.dismiss(reason)
            alone(self.seeing, lambda: self.unmap(reason))
        finally:
            # Not before: another thread that finds this end still mapped may use them.
            memory, self.memory = self.memory, None
            claim, self.claim = self.claim, None
            try:
                if bells is not None:
                    alone(self.seeing, bells.close)
                    self.bells = None  # not before: who was interrupted leaves once more
            finally:
                try:
                    if memory is not None:
                        memory.close()
                finally:
                    if claim is not None:
                        claim.release(memory=not isinstance(error, (LayoutError, UnsafeMemory)))

    def disown(self, reason: str) -> None:
        """In a forked child: let go of everything without a word to the peer."""
        # No other thread is there, and one of the parent's may have had `seeing`.
        self.unmap(reason)
        if self.bells is not None:
            self.bells.close()
        self.bells = self.memory = self.claim = None


class SendingLink(Link):
    """The sender's.  `on_lost(count)` is called when a persistent stream has lost so many more receivers."""

    role = SENDER
    half: Producer
    _told_of = 0  # lost receivers
    _finished = False

    def __init__(
        self,
        home: InMemory | InFile,
        timeout: float | None,
        clock: Clock = CLOCK,
        *,
        persistent: bool = False,
        on_lost: Callable[[int], object] | None = None,
    ) -> None:
        super().__init__(home, timeout, clock)
        self.persistent = persistent or home.kept
        self._on_lost = on_lost

    def join(self) -> None:
        """Make the half for the stream that is mapped."""
        self.half = self._join(Producer, persistent=self.persistent)

    def look(self, probe: bool) -> Verdict | None:
        assert self.memory is not None
        tells = self.persistent and self._on_lost is not None
        came = self.half.receivers if tells else 0
        verdict = super().look(probe)
        if tells:
            self._tell_of_lost(came)
        if probe and verdict is None and self.home.is_lost(self.memory) and not self.half.peer_attached:
            self.home.check_kept(self.memory)
        return verdict

    def _tell_of_lost(self, came: int) -> None:
        """Tell of receivers that are lost, when `came` were counted before the last verdict."""
        assert self.claim is not None and self._on_lost is not None
        if self._finished and not self.half.in_flight:
            # All but the last, which has taken everything and may leave.
            lost = self.half.receivers - 1
        else:
            # All but one that is attached, also those that came and went between two looks.
            lost = came - (self.half.deserted is None)
            if self._told_of < lost == came and self.claim.holder(RECEIVER) is not None:
                lost -= 1  # the next one is about to attach, and may be counted already
        if self._told_of < lost:
            more, self._told_of = lost - self._told_of, lost
            self._on_lost(more)

    def refuse_to_wait(self, size: int) -> None:
        """Raise when the timeout is 0 and so many bytes do not fit now."""
        if self.timeout == 0:
            verdict = self.look(True)
            if size > self.half.capacity - self.half.in_flight:
                self.raise_unless_fine(None if verdict is Verdict.READY else verdict, self.timeout)

    def _unheard(self, calls: int) -> None:
        # It left, or is not where it said that it sleeps.
        if calls == layout.LEFT or self.waiter.probe_is_due():
            self.raise_if_left()

    def raise_if_left(self) -> None:
        """Raise when the receiver is gone and bytes are lost with it."""
        verdict = self.look(True)
        # Bytes published and taken in the meantime are delivered.
        if self.half.in_flight and verdict is not None:
            self.raise_unless_fine(verdict, None)

    def raise_if_gone(self) -> None:
        """Raise when the receiver is gone, also one that has taken every byte so far."""
        verdict = self.look(True)
        if verdict is not None:
            self.raise_unless_fine(verdict, None)

    def raise_unless_fine(self, verdict: Verdict | None, timeout: float | None) -> None:
        """Raise ReceiverGone, ReceiverLeft or ChannelTimeout."""
        if verdict in (Verdict.READY, Verdict.END):
            return
        lost = self.half.in_flight
        size = in_units(lost)
        undelivered = f"{size} {'was' if size.startswith('1 ') else 'were'} not delivered"
        if verdict is None:
            there = "the receiver read nothing for" if self.half.receivers else "no receiver came within"
            raise ChannelTimeout(f"{self.name}: {there} {timeout:g} s; {undelivered}")
        if verdict is Verdict.LEFT:
            raise ReceiverLeft(f"{self.name}: the receiver left early; {undelivered}")
        if verdict is Verdict.GAVE_UP:
            raise ReceiverGone(f"{self.name}: the receiver gave up; {undelivered}")
        raise ReceiverGone(f"{self.name}: the receiver died; {undelivered}")

    def finish(self) -> None:
        """Mark the end of the stream; give it up, and raise, if a write has failed."""
        assert self.memory is not None and self.mapped is not None
        if self.half.owes and not self._finished:
            self._give_up()
        self.half.shut(f"{self.name}: the stream is finished")
        # In a file: the mark is on the disk only when the bytes are.
        self.home.flush(self.memory, self.mapped)
        self.half.finish()
        self._finished = True
        self.home.flush(self.memory, self.mapped)
        self.hail()

    def deliver(self) -> None:
        """Return when the receiver has taken every byte of the finished stream, or the disk has them.

        Raises ReceiverGone, ReceiverLeft, ChannelTimeout, NoSuchMapping, LayoutError.
        """
        if self.home.kept:
            self._deliver_to_disk()
            return
        verdict: Verdict | None = Verdict.READY
        while verdict is Verdict.READY:  # the receiver goes on taking
            verdict = self.delivered(False) or self.waiter.until_moved(self.delivered, self.timeout)
        self.raise_unless_fine(verdict, self.timeout)

    def _deliver_to_disk(self) -> None:
        assert self.memory is not None
        self.half.verdict()  # LayoutError if the receiver's fields are damaged
        try:
            self.home.check_kept(self.memory)
        except ChannelError:
            # A receiver that has every byte, and lives or has left, does not need the file any more.
            # Otherwise the next receiver needs it, if only to learn of the end.
            self.half.verdict(True)
            failed = self.half.deserted in (Verdict.GAVE_UP, Verdict.DIED)
            if self.half.in_flight or failed or not self.half.receivers:
                raise

    def delivered(self, probe: bool) -> Verdict | None:
        """END once every byte is taken, None while that can still be."""
        self.hail()  # the receiver may have gone to sleep just when the end was marked
        verdict = self.look(probe)
        if not self.half.in_flight and self.half.receivers:
            return Verdict.END
        return None if verdict is Verdict.READY else verdict

    def _give_up(self) -> None:
        """End a stream that a failed write has left incomplete; raises what says so."""
        try:
            verdict = self.look(True)
        finally:
            self.half.shut(f"{self.name}: the stream was given up, because an earlier write failed")
            self.abort()
        if verdict is not None:
            self.raise_unless_fine(verdict, None)
        raise StreamAborted(
            f"{self.name}: an earlier write failed, so the stream was given up and not finished"
        )


class ReceivingLink(Link):
    """The receiver's."""

    role = RECEIVER
    half: Consumer
    _output: int | None = None

    def join(self) -> None:
        """Make the half for the stream that is mapped."""
        self.half = self._join(Consumer)

    def watch_output(self, descriptor: int) -> None:
        """Let each wait end with BrokenPipeError when nobody reads any more what is written there."""
        self._output = descriptor
        self.waiter.bells.watch_output(descriptor)

    def look(self, probe: bool) -> Verdict | None:
        # As seldom as a look whether the sender lives, and at once when the bells know of something.
        if probe and self._output is not None and system.reader_left(self._output):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return super().look(probe)

    def raise_unless_fine(self, verdict: Verdict | None, timeout: float | None) -> None:
        """Raise StreamAborted, SenderDied or ChannelTimeout."""
        if verdict in (Verdict.READY, Verdict.END):
            return
        if verdict is None:
            raise ChannelTimeout(f"{self.name}: the sender sent nothing for {timeout:g} s")
        truncated = f"the stream is not whole: it stops after {in_bytes(self.half.sequence)}"
        if verdict is Verdict.GAVE_UP:
            raise StreamAborted(f"{self.name}: the sender gave up; {truncated}")
        raise SenderDied(f"{self.name}: the sender died; {truncated}")

    def close(self) -> None:
        """Say that this end wants no more, unless a thread or a signal handler has just closed it."""
        self._say(self.half.close)
