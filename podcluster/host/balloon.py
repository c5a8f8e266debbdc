"""What all balloon drivers share: batches at a rate towards a goal, what they see of their guest, and what may be wrong
with one.

What        `Balloon`, a stream of its guest; `linux_balloon.py` (docs/model.md C1) and `windows_balloon.py` (C2) say
            how much a step takes, when it counts as failed and what follows. A driver decides; pages are found and
            hypercalls made by the memory it is given.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     goal   pages that the balloon is to hold: Linux static-max - target (C1.2), and what it has added since the
                   boot (C1.9); Windows the same without the video RAM (C2.1)
            need   goal less what it holds; below 0 it deflates
            D      debt, E - C
Invariants  [BA-1] batch k after an anchor happens at anchor + k batch / rate, in integers; doing many at once changes
                   nothing.
            [BA-2] a batch of n <= D pages neither takes from the host's heap nor gives to it (P12): only then may it be
                   done out of turn as far as the host minds.
            [BA-3] it takes only pages that the guest has free or in page cache, and leaves its OS's reserve: what is
                   held in memory it never takes. (Windows may page some of it out while its driver waits, C2.5.)
            [BA-4] a batch that deflates gets pages of the host's heap or none: never of the domain's cache, however
                   full that is (A2.7).
            [BA-5] a batch of a guest without debt that inflates gives to the heap and takes nothing, whatever the
                   order: it, too, may be done out of turn, where nobody takes from the heap or looks at it before
                   (`calm_ns`).
Departs     The rate is the driver's own and does not suffer from the guest's other work, but time in Xen makes it later
            (LK-2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from podcluster.host import merged, turns
from podcluster.host.batches import CUT_SHORT, DIED
from podcluster.host.fault import SOUND, Fault
from podcluster.host.lock import Lock
from podcluster.host.shares import Share, share
from podcluster.host.streams import BALLOON, NEVER
from podcluster.host.takers import Taker, taker
from podcluster.units import NS_PER_S

START, WORK, FINISH, CANCELLED, STALLED, STUCK = range(6)


class BalloonMemory(Protocol):
    """The pages a driver works on."""

    lock: Lock  # what its hypercalls wait for

    @property
    def debt(self) -> int:
        """D."""

    @property
    def free(self) -> int:
        """Pages not in use."""

    @property
    def available(self) -> int:
        """Pages free or in page cache."""

    @property
    def ballooned_pages(self) -> int:
        """Pages the balloon holds."""

    @property
    def hotplugged_pages(self) -> int:
        """Pages that were added to the guest since it booted (C1.9)."""

    @property
    def crashed(self) -> bool:
        """The guest died of its last access."""

    @property
    def refusal(self) -> str:
        """What Xen logged when the host last had fewer pages than asked."""

    def inflate(
        self,
        pages: int,
        at_ns: int,
        *,
        batch_pages: int,
        scrub: bool,
        ascending: bool,
        contiguous: bool = False,
    ) -> tuple[int, bool]:
        """Give pages back at `at_ns`, a hypercall a batch; pages given, and whether each did all it was asked."""

    def deflate(self, pages: int) -> int:
        """Ask for ballooned pages again; pages got."""

    def hotplug(self, pages: int, section_pages: int) -> bool:
        """Add so many pages, whole sections, to the guest, in the balloon; whether their descriptors had room."""

    def next_ballooned(self, pages: int) -> list[int]:
        """First gfns and pages of the runs that it would ask for next, so many pages of them at least."""


class BalloonOwner(Protocol):
    """The guest a driver belongs to, and who looks on."""

    @property
    def waits_for_balloon(self) -> bool:
        """Its boot barrier is shut."""

    @property
    def swaps(self) -> bool:
        """Something of it is on swap, so that each batch matters to it singly."""

    @property
    def calm_ns(self) -> int:
        """Up to then nobody takes from the host's heap or looks at it [BA-5]."""

    def barrier_panic_ns(self, cancelled_ns: int, progress_ns: int) -> int:
        """When the barrier gives up on a driver that was cancelled and made no progress since (C1.8)."""

    def page_out(self, pages: int, at_ns: int, within_ns: int) -> int:
        """Push held pages out to swap, as many as its device takes in that time; pages gone."""

    @property
    def may_page_out(self) -> bool:
        """Something is held in memory, and swap has room for it."""

    def balloon_low_enough(self, at_ns: int) -> None:
        """Nothing is left to give back: the boot barrier opens."""

    def balloon_done(self, at_ns: int) -> None:
        """The goal is reached."""

    def balloon_gave_up(self, at_ns: int, need_pages: int) -> None:
        """The driver stopped short of its goal."""

    def balloon_refused(self, at_ns: int, line: str) -> None:
        """Xen gave fewer pages than asked; the line it logged if the host had no more (A2.7)."""

    def balloon_grew(self, at_ns: int, pages: int) -> None:
        """So many pages were added to the guest, all of them in the balloon (C1.9)."""

    def balloon_took_room(self, at_ns: int) -> None:
        """The guest has less memory than before."""

    def balloon_took_back(self, one: Taker, batch_pages: int) -> None:
        """Xen has given the next ballooned pages again, so many a batch."""

    def balloon_gave_room(self, at_ns: int) -> None:
        """The guest has more memory than before."""

    def balloon_bug(self, at_ns: int) -> None:
        """Xen did fewer extents than asked, which the driver does not survive (C1.6)."""

    def boot_barrier_failed(self, at_ns: int) -> None:
        """`Initial ballooning failed!` (C1.8)."""

    def die(self, at_ns: int) -> None:
        """The guest died of an access."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How one driver goes about it."""

    pages_per_s: int
    batch_pages: int  # of a hypercall
    scrub: bool  # each page is zeroed before it is given back, and so populated first (C1.5)
    reserve_pages: int  # that its OS keeps from it
    old: bool = False  # the older generation of the driver
    contiguous: bool = False  # whole free 2 MiB first (C2.4)
    section_pages: int = 0  # of which it adds whole ones to its guest (C1.9); 0: it adds nothing


class Balloon:
    """Batches at a rate towards a goal."""

    rank = BALLOON
    ascending = False  # the order of pages in a hypercall
    retry_ns: int  # between tries that go on for ever

    def __init__(
        self,
        memory: BalloonMemory,
        owner: BalloonOwner,
        goal: Callable[[], int],
        manner: Manner,
        fault: Fault = SOUND,
    ) -> None:
        """`goal()` reads the target from xenstore [pages to balloon out]."""
        self.next_ns = NEVER  # until its guest's kernel starts it
        self.gave_up = 0
        self._memory = memory
        self._owner = owner
        self._read_goal = goal
        self._goal = 0
        self._manner = manner
        self._fault = fault
        self._pages_per_s = manner.pages_per_s
        self._batch_pages = manner.batch_pages
        self._faulty = not fault.once_ballooned  # the fault has set in
        if self._faulty:
            self._pages_per_s = fault.rate(self._pages_per_s)
        self._phase = START
        self._start_ns = NEVER
        self._anchor_ns = 0
        self._batches = 0  # since the anchor
        self.progress_ns = 0  # when it last gave something back, or began
        self._was_refused = False
        self._lock = memory.lock

    def start(self, at_ns: int) -> None:
        """Plan its first page for `at_ns`."""
        self.next_ns = self._start_ns = self.progress_ns = at_ns

    @property
    def up(self) -> bool:
        """It is loaded, and has said so, whatever it then does."""
        return self._phase != START

    @property
    def idle(self) -> bool:
        """It is where it was told to be, and does nothing until it is told something else."""
        return self._phase == STUCK or (self._phase == FINISH and self.next_ns == NEVER)

    @property
    def gives(self) -> bool:
        """It is up, and does nothing until it is told something else but give pages back."""
        return self._phase == FINISH or (self._phase not in (START, STUCK) and self.need >= 0)

    @property
    def inflates(self) -> bool:
        """Its next act gives pages back."""
        return self._phase == WORK and self.need > 0

    @property
    def deflates(self) -> bool:
        """Its next act asks for pages, and so do all up to its goal."""
        return self._phase == WORK and self._goal >= 0 and self.need < 0

    def postpone(self, ns: int) -> None:
        """Begin later than planned, if it is planned and has not begun."""
        if self._phase == START and self.next_ns < NEVER:
            self.start(self.next_ns + ns)

    # -- as a stream -------------------------------------------------------------------------------------------------

    @property
    def need(self) -> int:
        """Pages still to give back; below 0 to ask for."""
        return self._goal - self._memory.ballooned_pages

    @property
    def waits_for_memory(self) -> bool:
        """It sleeps until some is freed."""
        return self._phase == STALLED

    def touches_heap(self) -> bool:
        """Whether the next act may: a batch that is not all paid out of the debt [BA-2]."""
        if self._phase != WORK:
            return False
        need, debt = self.need, self._memory.debt
        if need > 0 and debt <= 0 and self._lock.ready_ns(self.next_ns) <= self._owner.calm_ns:
            return False
        return need < 0 or debt < min(need, self._batch_pages, self._reach)

    def enters_xen(self) -> bool:
        """While it gives or takes pages; its timers are nothing to Xen."""
        return self._phase == WORK and self._lock.timed

    def run(self, last_ns: int, *, single: bool) -> None:
        """Act at each instant up to `last_ns`, until the host's heap comes in or another stream's plans are changed."""
        while self.next_ns <= last_ns:
            if self._phase != WORK:
                self._other(self.next_ns)
                return
            if not single and self.touches_heap():
                return
            gave_up = self.gave_up
            self._work(last_ns, single=single)
            if single or self._memory.crashed or self._owner.swaps or self.gave_up > gave_up:
                return

    def _other(self, at_ns: int) -> None:
        if self._phase == FINISH:
            self.next_ns = NEVER
            self._owner.balloon_done(at_ns)
            if not self._faulty:
                self._faulty = True
                self._pages_per_s = self._fault.rate(self._pages_per_s)
        else:
            self._begin(at_ns)

    def _begin(self, at_ns: int) -> None:
        """Look at the target."""
        if self._faulty and self._fault.stuck:
            self._phase, self.next_ns = STUCK, NEVER
            return
        self._goal = self._look(at_ns)
        if self.need <= 0:
            self._owner.balloon_low_enough(at_ns)
        self._phase = WORK if self.need else FINISH
        self._again(at_ns)

    def _look(self, at_ns: int) -> int:
        """The goal as xenstore has it."""
        return self._read_goal()

    @property
    def faulty(self) -> bool:
        """Its fault, if it has one, has set in."""
        return self._faulty

    def resume(self, at_ns: int, *, faulty: bool) -> None:
        """It is up, on another host, and looks at the target it finds there."""
        if faulty and not self._faulty:
            self._pages_per_s = self._fault.rate(self._pages_per_s)
        self._faulty = faulty
        self._start_ns = self.progress_ns = at_ns
        self._begin(at_ns)

    def target_changed(self, at_ns: int) -> None:
        """The xenstore watch fired: look at the new target at once, if the driver runs yet."""
        if self._phase not in (START, STUCK):
            self._begin(at_ns)

    def memory_freed(self, at_ns: int) -> None:
        """The guest freed memory: the first retry from now on may find something."""
        if self._phase == STALLED and self._finds_something:
            missed = max(0, -(-(at_ns - self._anchor_ns) // self.retry_ns))
            self._phase = WORK
            self._again(self._anchor_ns + missed * self.retry_ns)

    def barrier_began(self) -> None:
        """The kernel has come to its boot barrier."""

    # -- batches -----------------------------------------------------------------------------------------------------

    def _instant(self, pages: int) -> int:
        """When `pages` pages after the anchor are done [BA-1]."""
        return self._anchor_ns + pages * NS_PER_S // self._pages_per_s

    def _again(self, at_ns: int) -> None:
        """Go on at `at_ns`, or when it is awake next, whatever the rate said before."""
        if self._faulty and self._phase == WORK:
            at_ns = self._fault.awake_ns(at_ns, self._start_ns)
        self._anchor_ns = self.next_ns = at_ns
        self._batches = 0

    def _work(self, last_ns: int, *, single: bool) -> None:
        at_ns = self._lock.enter(self.next_ns)
        if self.need < 0:
            self._take(at_ns)
        else:
            batches = 0
            if not (single or self._lock.timed or self._owner.swaps):
                batches = self._batches_by(last_ns)
            self._give(at_ns, batches)

    def _take(self, at_ns: int) -> None:
        """One batch of pages from Xen."""
        asked = min(-self.need, self._batch_pages, self._memory.ballooned_pages)
        got = self._memory.deflate(asked)
        self._anchor_ns += self._lock.leave()
        if got:
            self._owner.balloon_gave_room(at_ns)
        if got < asked and not self._was_refused:
            self._owner.balloon_refused(at_ns, self._memory.refusal)
        self._was_refused = got < asked
        if self._is_enough(got, asked):
            self._succeeded(at_ns, 1, got)
        else:
            self._failed(at_ns, progress=got > 0)

    def take_part(self, last_ns: int, most: int) -> Taker:
        """Its part in taking from the heap by turns: batches that begin by `last_ns`, the next in any case, of no more
        than `most` pages together.
        """
        began_ns = self._lock.ready_ns(self.next_ns)
        if self._faulty:
            last_ns = min(last_ns, self._fault.asleep_ns(self.next_ns, self._start_ns) - 1)
        last_ns = max(last_ns, began_ns)
        size, need, done = self._batch_pages, -self.need, self._batches * self._batch_pages
        due = (last_ns - self._anchor_ns + 1) * self._pages_per_s // NS_PER_S - done
        return taker(
            next_ns=self.next_ns, free_ns=self._lock.free_ns, anchor_ns=self._anchor_ns, done=done,
            pages_per_s=self._pages_per_s, batch=size, need=need, most=most, until_ns=last_ns,
            runs=self._memory.next_ballooned(min(need, max(0, due) + size)),
        )  # fmt: skip

    def took(self, one: Taker) -> None:
        """What it got of the heap."""
        fields, size = one.fields, self._batch_pages
        pages, batches = fields[turns.TOOK], fields[turns.BATCHES]
        self._owner.balloon_took_back(one, size)
        self._lock.held(fields[turns.FREE], fields[turns.HELD])
        self._anchor_ns += fields[turns.LATE]
        self._owner.balloon_gave_room(one.first_ns)
        self._was_refused = False
        self._succeeded(one.last_ns, batches, pages - (batches - 1) * size)

    def _give(self, at_ns: int, batches: int) -> None:
        """Batches to Xen: so many whole ones, or (0) the next."""
        before = self.need
        pages, fine = batches * self._batch_pages, True
        if not batches:
            pages, fine = self._next_batch(at_ns)
        complete = True
        if pages:
            manner = self._manner
            pages, complete = self._memory.inflate(
                pages,
                at_ns,
                batch_pages=self._batch_pages,
                scrub=manner.scrub,
                ascending=self.ascending,
                contiguous=manner.contiguous,
            )
        late_ns = self._lock.leave()
        if self._memory.crashed:
            self._owner.die(max(at_ns, self._crash_instant(before - self.need)))
            return
        self._anchor_ns += late_ns
        if pages:
            last_batch = self._batches + batches - 1
            self._owner.balloon_took_room(self._instant(last_batch * self._batch_pages) if batches > 1 else at_ns)
        if not complete and not self._survives_a_short_count():
            self._owner.balloon_bug(at_ns)
        elif fine and complete:
            batches = max(1, batches)
            self.progress_ns = self._instant((self._batches + batches - 1) * self._batch_pages)
            self._succeeded(at_ns, batches, pages - (batches - 1) * self._batch_pages)
        else:
            if pages:
                self.progress_ns = at_ns
            self._failed(at_ns + pages * NS_PER_S // self._pages_per_s, progress=pages > 0)

    def join(self, *, first: bool) -> Share | None:
        """Its fields, where it gives pages back and its next batch is as the next."""
        if self._phase != WORK or self.need <= 0 or self._manner.contiguous or self._owner.swaps:
            return None
        certain = self._certainty
        if certain is None:
            return None
        kept, least, exact = certain
        asleep_ns = self._fault.asleep_ns(self.next_ns, self._start_ns) if self._faulty else NEVER
        size = self._batch_pages
        return share(
            merged.GIVES, anchor_ns=self._anchor_ns, num=NS_PER_S, den=self._pages_per_s, batch=size,
            done=self._batches * size, next_ns=self.next_ns, goal=self._goal, scrubs=self._manner.scrub,
            upwards=self.ascending, kept=kept, least=max(least, size), exact=exact, until_ns=asleep_ns - 1,
        )  # fmt: skip

    def leave(self, fields: Sequence[int], how: int, given: int) -> None:
        """How far it came; `given` pages of a batch that was cut short."""
        size = self._batch_pages
        whole = fields[merged.DONE] // size - self._batches
        self._anchor_ns += fields[merged.LATE]
        began_ns = fields[merged.BEGAN]
        if how == DIED:
            self._owner.die(fields[merged.NEXT])
            return
        if whole or given:
            self._owner.balloon_took_room(began_ns)
        if whole:
            self.progress_ns = self._instant((self._batches + whole - 1) * size)
            self._succeeded(began_ns, whole, size if how == CUT_SHORT else fields[merged.PART])
        if how != CUT_SHORT:
            return
        if not self._survives_a_short_count():
            self._owner.balloon_bug(began_ns)
            return
        if given:
            self.progress_ns = began_ns
        self._failed(began_ns + given * NS_PER_S // self._pages_per_s, progress=given > 0)

    def _batches_by(self, last_ns: int) -> int:
        """Whole batches that are due by `last_ns`, certain to succeed, of free pages and paid out of the debt; 0 if
        there may be none.
        """
        if self._faulty:
            last_ns = min(last_ns, self._fault.asleep_ns(self.next_ns, self._start_ns) - 1)
        memory = self._memory
        whole = min(self.need, self._certain, memory.free, memory.debt) // self._batch_pages
        done = self._batches * self._batch_pages
        # Batch k is due by last_ns  <=>  k batch NS <= (last - anchor + 1) rate - 1
        due = ((last_ns - self._anchor_ns + 1) * self._pages_per_s - 1) // NS_PER_S
        return max(0, min(whole, (due - done) // self._batch_pages + 1))

    def _crash_instant(self, pages: int) -> int:
        """The instant of the batch in which the guest died, `pages` pages having been given back before it."""
        return self._instant((self._batches + pages // self._batch_pages) * self._batch_pages)

    def _succeeded(self, at_ns: int, batches: int, last_batch_pages: int) -> None:
        self._batches += batches
        if self.need:
            due_ns = max(at_ns, self._instant(self._batches * self._batch_pages))
            self.next_ns = due_ns
            if self._faulty and self._fault.awake_ns(due_ns, self._start_ns) > due_ns:
                self._again(due_ns)
        else:
            self._phase = FINISH
            self.next_ns = max(at_ns, self._instant((self._batches - 1) * self._batch_pages + last_batch_pages))

    def _stall(self, next_try_ns: int) -> None:
        """Tries from `next_try_ns` on would find nothing, until some memory is freed: leave them out."""
        self._again(next_try_ns)
        self._phase = STALLED
        self.next_ns = NEVER

    def _stop_short(self, at_ns: int) -> None:
        self.gave_up += 1
        self._owner.balloon_gave_up(at_ns, self.need)

    # -- what each driver says for itself ----------------------------------------------------------------------------

    @property
    def _reach(self) -> int:
        """Most that the next batch could take."""
        raise NotImplementedError

    @property
    def _certainty(self) -> tuple[int, int, bool] | None:
        """When a batch certainly succeeds: with so much available beyond what its system does not count, (not counted,
        so much, or as much as is needed); None: never.
        """
        raise NotImplementedError

    @property
    def _certain(self) -> int:
        """Pages that can be taken in whole batches before the first that may fail."""
        certain = self._certainty
        if certain is None:
            return 0
        kept, least, exact = certain
        counted = self._memory.available - kept
        if exact and counted >= self.need:
            return self.need
        return max(0, (counted - max(least, self._batch_pages)) // self._batch_pages + 1) * self._batch_pages

    @property
    def _finds_something(self) -> bool:
        """Whether a step would take anything."""
        raise NotImplementedError

    def _next_batch(self, at_ns: int) -> tuple[int, bool]:
        """Pages that the next batch takes, and whether it succeeds if Xen takes them all."""
        raise NotImplementedError

    def _is_enough(self, got: int, asked: int) -> bool:
        """Whether a batch that deflated counts as a success."""
        raise NotImplementedError

    def _survives_a_short_count(self) -> bool:
        """Whether the guest lives on when Xen took fewer pages than given."""
        raise NotImplementedError

    def _failed(self, at_ns: int, *, progress: bool) -> None:
        """A step failed, and was over at `at_ns`."""
        raise NotImplementedError
