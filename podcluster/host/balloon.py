"""The balloon drivers: what hands the gap between maxmem and memory back to Xen, when, and how each gives up.

What        `LinuxBalloon` (docs/model.md C1) and `WindowsBalloon` (C2), each a stream of its guest. They decide; pages
            are found and hypercalls made by the memory they are given.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     goal   pages that the balloon is to hold: Linux static-max - target (C1.2), Windows the same without the
                   video RAM (C2.1)
            need   goal less what it holds; below 0 it deflates
            D      debt, E - C
Invariants  [BA-1] batch k after an anchor happens at anchor + k batch / rate, in integers; doing many at once changes
                   nothing.
            [BA-2] a batch of n <= D pages neither takes from the host's heap nor gives to it (P12): only then may it be
                   done out of turn.
            [BA-3] it takes only pages that the guest has free or in page cache: it stops above the working set and
                   retries.
Departs     "Free" is all that is not in use: no reserve below which Linux refuses (C1.5), no low-memory event of
            Windows (C2.5). The rate is the driver's own and does not suffer from the guest's other work. Linux finds
            its target at `start_s` (the first xenstore watch). A cancelled driver tries again after an hour, as its
            thread does. Windows never gives up: each time it stalls short of its target is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from podcluster.host.lock import Lock
from podcluster.host.streams import BALLOON, NEVER
from podcluster.units import NS_PER_S

LINUX_TRIES: Final = 4  # failed tries, then it is cancelled (C1.7)
LINUX_DELAY_S_MAX: Final = 32
LINUX_CANCELLED_NS: Final = 3600 * NS_PER_S
BARRIER_TIMEOUT_NS: Final = 180 * NS_PER_S  # xen.balloon_boot_timeout (C1.8)
WINDOWS_RETRY_NS: Final = 1 * NS_PER_S  # C2.5

START, WORK, FINISH, CANCELLED, STALLED = range(5)


class BalloonMemory(Protocol):
    """The pages a driver works on."""

    lock: Lock  # what its hypercalls wait for

    @property
    def debt(self) -> int:
        """D."""

    @property
    def available(self) -> int:
        """Pages free or in page cache."""

    @property
    def ballooned_pages(self) -> int:
        """Pages the balloon holds."""

    @property
    def crashed(self) -> bool:
        """The guest died of its last access."""

    def inflate(self, pages: int, *, batch_pages: int, scrub: bool, ascending: bool) -> tuple[int, bool]:
        """Give pages back, a hypercall a batch; pages given, and whether each hypercall did all it was asked."""

    def deflate(self, pages: int) -> int:
        """Ask for ballooned pages again; pages got."""


class BalloonOwner(Protocol):
    """The guest a driver belongs to, and who looks on."""

    @property
    def waits_for_balloon(self) -> bool:
        """Its boot barrier is shut."""

    def balloon_done(self, at_ns: int) -> None:
        """The goal is reached."""

    def balloon_gave_up(self, at_ns: int, need_pages: int) -> None:
        """The driver stopped short of its goal."""

    def balloon_gave_room(self, at_ns: int) -> None:
        """The guest has more memory than before."""

    def balloon_bug(self, at_ns: int) -> None:
        """Xen did fewer extents than asked, which the driver does not survive (C1.6)."""

    def boot_barrier_failed(self, at_ns: int) -> None:
        """`Initial ballooning failed!` (C1.8)."""

    def die(self, at_ns: int) -> None:
        """The guest died of an access."""


class Balloon:
    """What both drivers share: batches at a rate towards a goal."""

    rank = BALLOON
    ascending = False  # the order of pages in a hypercall

    def __init__(
        self,
        memory: BalloonMemory,
        owner: BalloonOwner,
        goal: Callable[[], int],
        *,
        pages_per_s: int,
        batch_pages: int,
        scrub: bool,
    ) -> None:
        """`goal()` reads the target from xenstore [pages to balloon out].

        `scrub`: each page is zeroed before it is given back, and so populated first (C1.5).
        """
        self.next_ns = NEVER  # until its guest's kernel starts it
        self._scrub = scrub
        self.gave_up = 0
        self._memory = memory
        self._owner = owner
        self._read_goal = goal
        self._goal = 0
        self._pages_per_s = pages_per_s
        self._batch_pages = batch_pages
        self._phase = START
        self._anchor_ns = 0
        self._batches = 0  # since the anchor
        self._progress_ns = 0
        self._lock = memory.lock
        self._forgive()

    def start(self, at_ns: int) -> None:
        """Plan its first page for `at_ns`."""
        self.next_ns = self._progress_ns = at_ns

    @property
    def up(self) -> bool:
        """It runs, and has said so."""
        return self._phase != START

    @property
    def idle(self) -> bool:
        """It is where it was told to be, and does nothing until it is told something else."""
        return self._phase == FINISH and self.next_ns == NEVER

    def postpone(self, ns: int) -> None:
        """Begin later than planned, if it is planned and has not begun."""
        if self._phase == START and self.next_ns < NEVER:
            self.start(self.next_ns + ns)

    # -- as a stream -------------------------------------------------------------------------------------------------

    @property
    def need(self) -> int:
        """Pages still to give back; below 0 to ask for."""
        return self._goal - self._memory.ballooned_pages

    def touches_heap(self) -> bool:
        """Whether the next act may: a batch that is not all paid out of the debt [BA-2]."""
        if self._phase != WORK:
            return False
        pages = min(self.need, self._batch_pages, self._memory.available)
        return pages < 0 or self._memory.debt < pages

    def enters_xen(self) -> bool:
        """While it gives or takes pages; its timers are nothing to Xen."""
        return self._phase == WORK and self._lock.timed

    def run(self, last_ns: int, *, single: bool) -> None:
        """Act at each instant up to `last_ns`, until the host's heap comes in or another stream's plans are changed."""
        while self.next_ns <= last_ns:
            if self._phase == WORK:
                if not single and self.touches_heap():
                    return
                self._work(last_ns, single=single)
            else:
                self._other(self.next_ns)
                return
            if single or self._memory.crashed:
                return

    def _other(self, at_ns: int) -> None:
        if self._phase == FINISH:
            self.next_ns = NEVER
            self._owner.balloon_done(at_ns)
        elif self._phase == CANCELLED and self._owner.waits_for_balloon:
            self.next_ns = NEVER
            self._owner.boot_barrier_failed(at_ns)
        else:
            self._begin(at_ns)

    def _begin(self, at_ns: int) -> None:
        self._goal = self._read_goal()
        self._phase = WORK if self.need else FINISH
        self._anchor_ns = self.next_ns = at_ns
        self._batches = 0

    def target_changed(self, at_ns: int) -> None:
        """The xenstore watch fired: look at the new target at once, if the driver runs yet."""
        if self._phase != START:
            self._forgive()
            self._begin(at_ns)

    def memory_freed(self, at_ns: int) -> None:
        """The guest freed memory: nothing to a driver that polls."""

    # -- batches -----------------------------------------------------------------------------------------------------

    def _instant(self, pages: int) -> int:
        """When `pages` pages after the anchor are done [BA-1]."""
        return self._anchor_ns + pages * NS_PER_S // self._pages_per_s

    def _work(self, last_ns: int, *, single: bool) -> None:
        need = self.need
        at_ns = self._lock.enter(self.next_ns)
        if need < 0:
            got = self._memory.deflate(min(-need, self._batch_pages))
            self._anchor_ns += self._lock.leave()
            if got:
                self._owner.balloon_gave_room(at_ns)
                self._succeeded(at_ns, 1, got)
            else:
                self._failed(at_ns, progress=False)
            return
        batches = 1 if single or self._lock.timed else self._batches_by(last_ns)
        asked = min(need, batches * self._batch_pages)
        pages = min(asked, self._memory.available)
        if pages:
            _, complete = self._memory.inflate(
                pages, batch_pages=self._batch_pages, scrub=self._scrub, ascending=self.ascending
            )
            late_ns = self._lock.leave()
            if self._memory.crashed:
                self._owner.die(max(at_ns, self._crash_instant(need - self.need)))
                return
            self._anchor_ns += late_ns
            if not complete:
                self._owner.balloon_bug(at_ns)
                return
        if pages < asked:
            self._failed(at_ns, progress=pages > 0)
        else:
            self._succeeded(at_ns, batches, pages - (batches - 1) * self._batch_pages)

    def _batches_by(self, last_ns: int) -> int:
        """Batches that are due by `last_ns`, certain to be whole, and paid out of the debt; at least one."""
        whole = min(self._memory.debt, self.need, self._memory.available) // self._batch_pages
        done = self._batches * self._batch_pages
        # Batch k is due by last_ns  <=>  k batch NS <= (last - anchor + 1) rate - 1
        due = ((last_ns - self._anchor_ns + 1) * self._pages_per_s - 1) // NS_PER_S
        return max(1, min(whole, (due - done) // self._batch_pages + 1))

    def _crash_instant(self, pages: int) -> int:
        """The instant of the batch in which the guest died, `pages` pages having been given back before it."""
        return self._instant((self._batches + pages // self._batch_pages) * self._batch_pages)

    def _succeeded(self, at_ns: int, batches: int, last_batch_pages: int) -> None:
        self._forgive()
        self._batches += batches
        if self.need:
            self.next_ns = max(at_ns, self._instant(self._batches * self._batch_pages))
        else:
            self._phase = FINISH
            self.next_ns = max(at_ns, self._instant((self._batches - 1) * self._batch_pages + last_batch_pages))

    def _again(self, at_ns: int) -> None:
        """Go on with a batch at `at_ns`, whatever the rate said before."""
        self._anchor_ns = self.next_ns = at_ns
        self._batches = 0

    def _stop_short(self, at_ns: int) -> None:
        self.gave_up += 1
        self._owner.balloon_gave_up(at_ns, self.need)

    def _forgive(self) -> None:
        """Forget failures."""

    def _failed(self, at_ns: int, *, progress: bool) -> None:
        raise NotImplementedError


class LinuxBalloon(Balloon):
    """`drivers/xen/balloon.c`: single pages from the top, 512 a hypercall, scrubbed or not, with back-off (C1)."""

    def _succeeded(self, at_ns: int, batches: int, last_batch_pages: int) -> None:
        super()._succeeded(at_ns, batches, last_batch_pages)
        self._progress_ns = self._instant((self._batches - 1) * self._batch_pages)

    def _forgive(self) -> None:
        self._tries = 0
        self._delay_s = 1

    def _failed(self, at_ns: int, *, progress: bool) -> None:
        """Wait 2, 4, 8 s; then cancelled (C1.7), and under the boot barrier a panic 180 s after the last progress
        (C1.8).
        """
        if progress:
            self._progress_ns = at_ns
        self._tries += 1
        if self._tries < LINUX_TRIES:
            self._delay_s = min(2 * self._delay_s, LINUX_DELAY_S_MAX)
            self._again(at_ns + self._delay_s * NS_PER_S)
            return
        self._forgive()
        self._phase = CANCELLED
        self._stop_short(at_ns)
        if self._owner.waits_for_balloon:
            self.next_ns = max(at_ns, self._progress_ns + BARRIER_TIMEOUT_NS)
        else:
            self.next_ns = at_ns + LINUX_CANCELLED_NS


class WindowsBalloon(Balloon):
    """win-xenbus: lists of 8185 pages in ascending order, a retry each second for ever (C2)."""

    ascending = True

    def _failed(self, at_ns: int, *, progress: bool) -> None:
        """An aborted round is retried after 1 s. With nothing at all to take, the retries before some is freed would
        change nothing.
        """
        self._again(at_ns + WINDOWS_RETRY_NS)
        if not progress and not self._memory.available:
            self._phase = STALLED
            self.next_ns = NEVER
            self._stop_short(at_ns)

    def memory_freed(self, at_ns: int) -> None:
        """Wake up at the first retry from now on that finds something."""
        if self._phase == STALLED and self._memory.available:
            missed = max(0, -(-(at_ns - self._anchor_ns) // WINDOWS_RETRY_NS))
            self._phase = WORK
            self._again(self._anchor_ns + missed * WINDOWS_RETRY_NS)
