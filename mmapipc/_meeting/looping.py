"""How an end waits in an event loop of asyncio, which goes on meanwhile.

The end parks as `waiting` describes; in the place of the sleep its task awaits a
future.  What wakes the task:

- The bell, and the end of the peer's process where the system tells of it.  A
  loop that can listen to descriptors does so from the opening of an end to its
  close: to begin and to end a wait is then no system call.  For other loops
  (on Windows) a thread sleeps.
- A look now and then at all ends of the loop that wait: one timer for all.  Where
  there are no bells this is all, and comes more often.

Nothing is moved in here.  So a task that is cancelled while it waits leaves
everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import sys
import threading
import weakref

from .._ring import layout
from .._ring.states import Verdict
from .._system import system
from ..errors import ChannelTimeout
from .rendezvous import undone
from .waiting import naps

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from .._system.contract import Bells
    from .link import Link
    from .rendezvous import Attaching, Beginning

    _T = TypeVar("_T")
    _Look = Callable[[bool], Verdict | None]

# What an end may do before the loop's other tasks have a turn: a millisecond's work or so, in bytes; a call
# counts as so many more.
_TURN = 1 << 20
CALL = 1 << 12
_LONGEST_SLEEP = 60.0  # seconds: of a thread, which then looks whether its loop is closed


async def open(opening: Beginning | Attaching) -> None:
    """`rendezvous.open`, with naps in which the loop goes on.  When cancelled, everything is given back."""
    link = opening.link
    with undone(link):
        for nap in naps(link.timeout, link.clock):
            if opening.attempt():
                break
            await asyncio.sleep(nap)
        else:
            if not opening.attempt():
                raise ChannelTimeout(opening.too_late)
        link.join()


async def in_thread(call: Callable[[], _T]) -> _T:
    """What the call returns.  A cancelled task waits for it too: an end is for one thread at a time."""
    running = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(running)
    finally:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])


class LoopWaiter:
    """How the end of `link`, which is open, waits in the loop that runs."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._side = _side_of(self._loop)
        self._heard: list[int] = []  # what is listened to: the bell, and the peer's process
        self._helper: _Helper | None = None
        self._look: _Look = link.look
        self._future: asyncio.Future[Verdict | None] | None = None
        self._late = False
        self.busy = False  # whether a task waits here, or gives way
        self.credit = _TURN  # what may be done before `give_way`
        self.first_span = link.waiter.next_span(0.0)
        self.span = 0.0  # seconds between the last two looks; 0 before the first
        self.due = 0.0  # when the next one is due, as the loop tells the time
        if link.bells is not None:
            self._listen(link.bells)

    async def give_way(self) -> None:
        """Let the loop's other tasks have a turn; to be done when `credit` is used up."""
        self.busy = True
        try:
            await asyncio.sleep(0)
        finally:
            self.busy = False
            self.credit = _TURN

    async def until(self, look: _Look, timeout: float | None) -> Verdict | None:
        """As `Waiter.until_moved`.  When cancelled, nothing has happened."""
        link, waiter, loop = self._link, self._link.waiter, self._loop
        half = link.half
        words, known = half.words, half.awaited
        timer: asyncio.TimerHandle | None = None
        self._look = look
        self._late = timeout == 0
        self.busy = True
        try:
            if timeout:
                timer = loop.call_later(timeout, self._be_late)
            while True:
                waiter.check_not_dismissed()
                waiter.call()
                probe = self._late or waiter.probe_is_due()
                # ORDER: our call before the peer's state and counter, without a fence, which can take longer
                # than all of this: hundreds of nanoseconds have passed between the two, and a store stays
                # unseen for less.  If it did not, there is another look soon.
                if probe or words[half.peer_state] != layout.OPEN or words[half.peer_counter] != known:
                    verdict = look(probe)
                    if verdict is None and half.awaited != known:
                        verdict = Verdict.READY
                    if verdict is not None or self._late:
                        return verdict
                if probe and link.bells is not None:
                    self._listen(link.bells)  # it may be known by now which process to watch
                self._side.look_after(self)
                self._future = loop.create_future()
                verdict = await self._future
                if verdict is not None:
                    return verdict
        except ValueError:
            waiter.check_not_dismissed()  # the memory may have gone
            raise
        finally:
            self.busy = False
            self._future = None
            self._side.waiting.discard(self)
            if timer is not None:
                timer.cancel()
            try:
                waiter.take_back()
            except ValueError:
                pass  # the same
            self.credit = _TURN

    def look_again(self, now: float) -> None:
        """Wake the task if there is something to do."""
        self.span = self._link.waiter.next_span(self.span)
        self.due = now + self.span
        future = self._future
        if future is None or future.done():
            return
        try:
            verdict = self._look(self._link.waiter.probe_is_due())
            if verdict is not None:
                future.set_result(verdict)
        except Exception as error:
            future.set_exception(error)

    def _be_late(self) -> None:
        self._late = True
        self._wake()

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def hear(self, which: int) -> None:
        """One of those that are listened to has something to say."""
        bells = self._link.bells
        if bells is None:
            return  # closed meanwhile
        if which == self._heard[0]:
            bells.drain()
        else:
            bells.told(which)
            self._link.waiter.suspect()
            self._listen(bells)
        self._wake()

    def _listen(self, bells: Bells) -> None:
        """Listen to what the bells say that there is."""
        heard = bells.heard()
        if heard == self._heard:
            return
        before, self._heard = self._heard, heard
        if self._helper is None:
            try:
                bells.fileno()  # on Windows there is none that a loop could take
                for which in before:
                    if which not in heard:
                        self._loop.remove_reader(which)
                for which in heard:
                    if which not in before:
                        self._loop.add_reader(which, self.hear, which)
                return
            except (io.UnsupportedOperation, NotImplementedError):
                self._helper = self._side.helper()
        self._helper.listen(self, bells, before, heard)

    def forget(self) -> None:
        """Listen no more, since the end is about to be closed; let a task that waits see that."""
        heard, self._heard = self._heard, []
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.forget(heard)
            self._side.let_go(helper)
        if not self._loop.is_closed():
            if helper is None:
                for which in heard:
                    self._loop.remove_reader(which)
            self._wake()


class _Side:
    """What the ends of one loop have in common."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._span = math.inf  # seconds from now, at most, to a look at an end that begins to wait now
        self._helpers: list[_Helper] = []
        self.waiting: set[LoopWaiter] = set()

    def look_after(self, waiter: LoopWaiter) -> None:
        """Look at this one now and then, soon at first, until it is no more in `waiting`."""
        waiter.span = 0.0
        self.waiting.add(waiter)
        if waiter.first_span < self._span:
            self._span = waiter.first_span
            self._look_around_at(self._loop.time() + self._span)

    def _look_around_at(self, when: float) -> None:
        if self._timer is not None:
            when = min(when, self._timer.when())
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look_around)

    def _look_around(self) -> None:
        """Look at the new ones, and at all that are due, or nearly: so long waits come together."""
        self._timer = None
        self._span = math.inf
        now = self._loop.time()
        for each in tuple(self.waiting):
            if not each.span or each.due - now <= each.span / 4:
                each.look_again(now)
        if self.waiting:
            self._look_around_at(min(each.due for each in self.waiting))

    def helper(self) -> _Helper:
        """A thread that can sleep for one more end."""
        for helper in self._helpers:
            if helper.has_room:
                break
        else:
            helper = _Helper(self._loop)
            self._helpers.append(helper)
        helper.ends += 1
        return helper

    def let_go(self, helper: _Helper) -> None:
        """That thread sleeps for one less."""
        helper.ends -= 1
        if not helper.ends:
            self._helpers.remove(helper)
            helper.end()


# A loop is kept by its ends, and by nobody else.
_sides: weakref.WeakValueDictionary[asyncio.AbstractEventLoop, _Side] = weakref.WeakValueDictionary()


def _side_of(loop: asyncio.AbstractEventLoop) -> _Side:
    side = _sides.get(loop)
    if side is None:
        side = _sides[loop] = _Side(loop)
    return side


class _Helper:
    """A thread that sleeps in the place of a loop that cannot listen, for as many ends as a thread can."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ends = 0
        self._loop = loop
        self._heard: dict[int, tuple[LoopWaiter, Bells]] = {}
        self._bells = system.own_bells()
        self._changed = threading.Condition()
        self._changes = 0  # that were asked for
        self._seen = 0  # how many of them the thread knows
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="mmapipc.aio", daemon=True)
        self._thread.start()

    @property
    def has_room(self) -> bool:
        """Whether it can sleep for one more end, which has a bell and a process; one is for itself."""
        return 2 * self.ends + 3 <= system.AT_ONCE

    def listen(self, waiter: LoopWaiter, bells: Bells, before: list[int], heard: list[int]) -> None:
        """Listen for that end to these, and no more to what was before."""
        with self._changed:
            for which in before:
                self._heard.pop(which, None)
            self._heard.update(dict.fromkeys(heard, (waiter, bells)))
            self._changes += 1
        self._bells.ring()

    def forget(self, heard: list[int]) -> None:
        """Listen no more to these, which may be closed once this returns."""
        with self._changed:
            for which in heard:
                self._heard.pop(which, None)
            self._changes += 1
            change = self._changes
            self._bells.ring()
            self._changed.wait_for(lambda: self._seen >= change)

    def end(self) -> None:
        """Let the thread end."""
        self._ends = True
        self._bells.ring()
        self._thread.join()
        self._bells.close()

    def _run(self) -> None:
        (own,) = self._bells.heard()
        try:
            while not self._ends and not self._loop.is_closed():
                with self._changed:
                    self._seen = self._changes
                    self._changed.notify_all()
                    heard = list(self._heard)
                for which in system.sleep_on([own, *heard], _LONGEST_SLEEP):
                    if which == own:
                        self._bells.told(own)
                    else:
                        self._tell(which)
        except RuntimeError:
            pass  # the loop is closed
        finally:
            with self._changed:
                self._seen = sys.maxsize  # nothing is used any more
                self._changed.notify_all()

    def _tell(self, which: int) -> None:
        with self._changed:
            if which not in self._heard:
                return  # forgotten meanwhile
            waiter, bells = self._heard[which]
            if which == bells.heard()[0]:
                bells.drain()
            else:
                del self._heard[which]  # a process has ended, and that does not change
        self._loop.call_soon_threadsafe(waiter.hear, which)
