"""What an operating system does with its memory, from firmware to shutdown: the streams of one guest, merged in time
order.

What        `Guest` owns the streams of a guest and runs them: those of its boot, its demand, page cache and whatever
            else fills it. The balloon driver (`balloon.py`) joins as one more; `guest_memory` keeps the pages,
            `guest_demand` what is held and swapped.
Units       Pages of 4 KiB; ns of simulated time.
Streams     Those of the boot (`guest_boot.py`), and then, in order of rank:
            balloon    its driver, where there is one
            demand     from the end of the services (boot done): what is held follows W (G3), data
            dirty      from then on, where `dirty_all`: all there is, data
            install    from then on, of an installer: what it unpacks, data; then it may leave
            cache      from then on: page cache grows into free memory (G4), data
Invariants  [GS-1] streams.py: batches at instants, no result depends on where the clock stops in between.
            [GS-2] growth of what is held writes pages only beyond what was ever in use (`guest_memory`).
            [GS-3] a stream says beforehand whether its next act may touch the host's heap; of those here the balloon
                   does, and who would take back what is in it rather than see an application killed (C1.10).
            [GS-4] of what a guest that is up does to its own memory, a look at its host (a sample) sees only how many
                   entries are left. Where none is, that stays so [G12], and who follows its demand tells from which
                   look on how many there are: it may be done before others have come to that look.
Departs     W counts the guest as a whole, so what services and applications want is W less the kernel's pages. A guest
            writes memory it is given for the first time at `scrub_rate_mib_per_s`, for demand too. Services, balloon
            and applications act on vCPU 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import Any, Final

from podcluster.config import GuestConfig
from podcluster.host import merged
from podcluster.host.balloon import Balloon
from podcluster.host.barrier import TIMEOUT_NS, poll_ns
from podcluster.host.batches import CUT_SHORT, DIED
from podcluster.host.fault import SOUND, Fault
from podcluster.host.guest_boot import Boot, BootSequence, Driver
from podcluster.host.guest_demand import DemandStream
from podcluster.host.guest_fill import CacheStream, DirtyStream, FillStream
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.guest_stats import GuestStats
from podcluster.host.held import HeldBooks
from podcluster.host.shares import Share
from podcluster.host.streams import (
    BALLOON,
    DEMAND,
    INSTALL,
    NEVER,
    Joins,
    Pace,
    Stage,
    Stream,
)
from podcluster.host.takers import Taker
from podcluster.records.demand import Demand
from podcluster.records.fates import Cause, EventKind, Fate
from podcluster.records.migration import GuestState
from podcluster.units import NS_PER_S

NOTHING_MORE: Final = -1  # an instant before all
MERGED: Final = (Stage, Balloon, DemandStream, FillStream)
"""Streams whose batches may be made together."""


@dataclass(frozen=True, slots=True)
class End:
    """How a guest ended by itself."""

    at_ns: int
    fate: Fate
    cause: Cause


class Guest:
    """The software in one domain."""

    def __init__(
        self,
        memory: GuestMemory,
        boot: Boot,
        cfg: GuestConfig,
        demand: Demand,
        *,
        hold_ns: int,
        start_ns: int,
        vcpus: int = 1,
        on_event: Callable[[int, EventKind, str], None],
        fault: Fault = SOUND,
        spare_pages: int = 0,
        ahead: bool = True,
    ) -> None:
        """A guest that starts at `start_ns`; `hold_ns` -1: what was wanted once stays held. `spare_pages` it keeps
        available rather than take something back from swap. `ahead`: quiet stretches may be left out [GD-4].
        """
        self.memory = memory
        self.boot = boot
        self.boot_start_ns = start_ns
        self.boot_done_ns: int | None = None
        self.boot_delay_ns: int | None = None
        self.end: End | None = None
        self._up_ns = NEVER  # since when its services are up, on whatever host
        self._lock = memory.lock
        # Whether kernels make acts of different streams at the instants at which Xen lets them.
        self._timed_in_kernels = memory.paces and memory.lock.timed
        self._demand = demand
        self._on_event = on_event
        self._fault = fault
        # An installer, when it is done.
        self.leaves_by_itself = cfg.install.installs and cfg.install.end != "stays"
        self._end_cause: Cause = "rebooted" if cfg.install.reboots else ""
        self.held = HeldBooks(
            memory,
            demand,
            cfg.swap,
            on_kill=self._killed,
            spare_pages=spare_pages,
        )
        self._sequence = BootSequence(
            memory,
            self.held,
            boot,
            cfg,
            vcpus=vcpus,
            on_death=self.die,
            on_panic=self._cannot_boot,
            on_done=self._booted,
        )
        self._wants = DemandStream(
            DEMAND,
            memory,
            self.held,
            demand,
            hold_ns=hold_ns,
            pages_per_s=boot.write_pages_per_s,
            on_death=self.die,
            on_release=self._released,
            matters_from=self._release_matters_from,
            ahead=ahead,
        )
        self._cache = CacheStream(memory, cfg.page_cache, self.die)
        # What most guests have not.
        self._dirty: DirtyStream | None = None
        self._install: Stage | None = None
        if cfg.dirty_all:
            self._dirty = DirtyStream(memory, self.held, boot.write_pages_per_s, self.die)
        if boot.unpack_pages or self.leaves_by_itself:
            self._install = Stage(
                INSTALL,
                memory.lock,
                merged.HOLDS,
                write=lambda _, pages, at_ns: self._unpack(pages, at_ns),
                died=lambda: memory.crashed,
                on_death=self.die,
                on_done=self._installed,
                at_once=self.held.fits,
                from_heap=self.held.takes_for,
                keeps=True,
            )
        self._faulted = self._lock.faults
        self._waited_ns = 0  # when the lock was free as the last entry went: whoever waited for it begins no sooner
        self.calm_ns = 0  # up to then nobody takes from the host's heap, or looks at it [BA-5]
        self._past_ns = 0  # up to then it may go on past looks at the host [GS-4]
        others = (self._wants, self._dirty, self._install, self._cache)
        self._streams: list[Stream] = [*self._sequence.streams, *(one for one in others if one is not None)]
        self._sequence.start(start_ns)

    # -- running -----------------------------------------------------------------------------------------------------

    def add_balloon(self, driver: Driver) -> None:
        """Let a balloon driver join; it begins when the kernel comes to it."""
        self._sequence.balloon = driver
        self._streams.append(driver)
        self._streams.sort(key=lambda other: other.rank)

    @property
    def next_ns(self) -> int:
        """When anything happens next; its end, if it has one."""
        return self._first()[1] if self.end is None else self.end.at_ns

    @property
    def next_use_ns(self) -> int:
        """When what its services and applications hold may change next: page cache may grow before."""
        if self.end is not None:
            return self.end.at_ns
        if self._first()[0] is self._wants:
            self._wants.relax()
        return min(self._ready_ns(one) for one in self._streams if one is not self._cache)

    @property
    def next_touches_heap(self) -> bool:
        """Whether what happens next may touch the host's heap, so that its place among all that happens on the host
        matters.
        """
        return self.end is not None or self._settled_first().touches_heap()

    def touches_heap_within(self, calm_ns: int) -> bool:
        """The same where its balloon may give to the heap up to `calm_ns` [BA-5]."""
        self.calm_ns = calm_ns
        touches = self.next_touches_heap
        self.calm_ns = 0
        return touches

    def boots_until_ns(self, progress_ns: int) -> int:
        """Before when its boot certainly does not fail, if its balloon came on at `progress_ns` last."""
        if self._sequence.kernel_up_ns < NEVER:
            return self.barrier_panic_ns(progress_ns, progress_ns) if self.waits_for_balloon else NEVER
        if not self.memory.has_room_for_kernel:  # if it has, no balloon takes that from it
            return self.next_ns
        return self.next_ns + TIMEOUT_NS if self.waits_for_balloon else NEVER

    @property
    def shows_ns(self) -> int:
        """Before when its boot certainly comes to nothing that others see: no stage of it ends. NEVER once it is up."""
        if self.boot_done_ns is not None:
            return NEVER
        ends_ns = [one.ends_ns for one in self._sequence.streams if one.next_ns < NEVER]
        return min(ends_ns) if ends_ns else self.next_ns

    @property
    def balloons_next(self) -> bool:
        """Whether what happens next is the balloon's."""
        return self.end is None and self._first()[0].rank == BALLOON

    def add_stream(self, one: Stream) -> None:
        """Let something else act in the guest's memory."""
        self._streams.append(one)
        self._streams.sort(key=lambda other: other.rank)

    def _ready_ns(self, one: Stream) -> int:
        """When a stream's next act can begin [LK-1], as `_first` has it."""
        due_ns, free_ns = one.next_ns, self._lock.free_ns
        return max(due_ns if due_ns >= free_ns or not one.enters_xen() else free_ns, self._waited_ns)

    def _first(self) -> tuple[Stream, int]:
        """Who acts next, and when: who can begin first, then whose instant is first, then who is first in the list."""
        free_ns = self._lock.free_ns
        if self._faulted is not self._lock.faults:
            self._faulted = self._lock.faults
            self._waited_ns = free_ns
        found, found_due_ns, found_ready_ns = self._streams[0], NEVER, NEVER
        for one in self._streams:
            due_ns = one.next_ns
            if due_ns > found_ready_ns or due_ns == NEVER:
                continue
            ready_ns = due_ns if due_ns >= free_ns or not one.enters_xen() else free_ns
            if ready_ns < found_ready_ns or (ready_ns == found_ready_ns and due_ns < found_due_ns):
                found, found_due_ns, found_ready_ns = one, due_ns, ready_ns
        return found, max(found_ready_ns, self._waited_ns)

    def _settled_first(self) -> Stream:
        """The same, what comes before it made good, so that it finds the guest as it is then [GD-4]."""
        first, at_ns = self._first()
        if first is not self._wants:
            self._settle_for(first, at_ns)
        return first

    def _settle_for(self, first: Stream, at_ns: int) -> None:
        self._wants.settle(at_ns if first.rank > self._wants.rank else at_ns - 1)

    def step(self, *, plainly: bool = True) -> None:
        """Do the next thing only, whatever it touches; if not `plainly`, as the first of many that a kernel makes."""
        first = self._settled_first()
        if not plainly and self._timed_in_kernels and isinstance(first, Balloon):
            share = first.join(first=True)
            if share is not None and self._merge(first, share, NOTHING_MORE, touches_heap=True) is None:
                return
        first.run(first.next_ns, single=True)

    def run(self, last_ns: int, *, past_ns: int = 0, grid_ns: int = NEVER, calm_ns: int = 0) -> None:
        """Do everything that begins up to and including `last_ns`; stop before what may touch the host's heap, and at
        the guest's end. The host is looked at at multiples of `grid_ns`; up to `past_ns` do what those looks see
        nothing of, or are told of [GS-4]. Up to `calm_ns` its balloon may give to the heap, for nobody takes from it or
        looks at it [BA-5].
        """
        self.calm_ns, self._past_ns, self._wants.grid_ns = calm_ns, past_ns, grid_ns
        self._run(last_ns)
        self.calm_ns = 0

    @property
    def goes_past(self) -> bool:
        """Whether what happens next may be done before looks at its host that come before it [GS-4]."""
        return self.end is None and self._is_told(self._first()[0]) and not self.next_touches_heap

    def _is_told(self, first: Stream) -> bool:
        """Whether looks see nothing of what `first` does, or are told of it."""
        memory = self.memory
        # Who zeroes what it frees writes more than its demand tells of.
        told = memory.inert or (first is self._wants and memory.paces and not memory.zero_on_free)
        return told and self.boot_done_ns is not None

    def _run(self, before_looks_ns: int) -> None:
        alone: Stream | None = None  # whose next act comes to more than pages
        while self.end is None:
            first, at_ns = self._first()
            last_ns = before_looks_ns
            if self._past_ns > last_ns and self._is_told(first):
                last_ns = self._past_ns
            if at_ns > last_ns:
                return
            # Only now: until it is demand's turn others may change what would be left out.
            if first is not self._wants:
                self._settle_for(first, at_ns)
            elif self._wants.relax():
                continue
            if first.touches_heap():
                return
            if first is not alone and isinstance(first, MERGED) and self._gains(first, last_ns):
                share = first.join(first=True)
                if share is not None:
                    alone = self._merge(first, share, last_ns)
                    continue
            alone = None
            first.run(max(self._before_others(first, last_ns), first.next_ns), single=False)

    def _gains(self, first: Joins, last_ns: int) -> bool:
        """Whether batches of `first` are better made in a call for streams together. Not those of demand that has no
        company, for it has a kernel of its own, nor those that are one act anyway, since Xen takes no time for them.
        """
        if not self._timed_in_kernels:
            return False
        alone_too = isinstance(first, Balloon) or (self._lock.faults and first is not self._wants)
        return alone_too or self._before_others(first, last_ns) < last_ns

    def _before_others(self, first: Stream, last_ns: int, beside: Stream | None = None) -> int:
        """The last instant up to which the stream whose turn it is may go on before another's, but for one beside it.

        Nobody that does not wait for the lock has an instant before it is free, or it would be first: so that instants
        alone say whose turn it is, whatever Xen takes meanwhile.
        """
        before = True
        for other in self._streams:
            if other is first:
                before = False
            elif other is not beside:
                last_ns = min(last_ns, other.next_ns - before)
        return last_ns

    def _merge(self, first: Joins, share: Share, last_ns: int, *, touches_heap: bool = False) -> Stream | None:
        """Run batches of all streams whose turn comes by `last_ns`, `first`'s first, before anybody else's turn; who of
        them is next with an act that has to be made by itself. `touches_heap`: the first may, for it is its turn at it.
        """
        members: list[Joins] = []
        shares: list[Share] = []
        turn = 0
        for one in self._streams:
            if one is first:
                turn = len(members)
                members.append(first)
                shares.append(share)
            elif one.next_ns <= last_ns:
                joined = None
                if isinstance(one, MERGED):
                    joined = one.join(first=False)
                    if joined is not None:
                        members.append(one)
                        shares.append(joined)
                if joined is None:
                    last_ns = min(last_ns, one.next_ns - 1)
        held, cache = self.held, self._cache
        found = self.memory.run_merged(
            shares, turn, last_ns, calm_ns=self.calm_ns, touches_heap=touches_heap, going=self._sequence.going,
            strips=self._sequence.strips, held=held.held, floor=held.floor,
            max_share=cache.max_share, floor_share=cache.floor_share,
        )  # fmt: skip
        held.held, held.floor = found.held, found.floor
        cut = found.how in (DIED, CUT_SHORT)
        for k, (member, fields) in enumerate(zip(members, found.shares, strict=True)):
            if not (cut and k == found.turn):
                member.leave(fields, merged.ON_TIME, 0)
        if cut:
            members[found.turn].leave(found.shares[found.turn], found.how, found.given)
        return members[found.turn] if found.how == merged.PLAIN_NEXT else None

    # -- taking from the host's heap by turns ------------------------------------------------------------------------

    @property
    def takes(self) -> bool:
        """What happens next is a batch that its balloon takes from the heap, and the more room there is matters to
        nobody but page cache: nothing is on swap, and no application was killed.
        """
        driver = self._sequence.balloon
        if not isinstance(driver, Balloon) or not driver.deflates or self.end is not None:
            return False
        if self.held.swaps or self.held.killed or not (self._caches_beside or self._cache.wakes_at == NEVER):
            return False
        return self._timed_in_kernels and self._first()[0] is driver

    @property
    def _caches_beside(self) -> bool:
        """Whether page cache may grow beside a balloon that takes without taking any of Xen's time: nothing that it
        does reaches Xen [G12]; or it has all that it may have, so that it gets no more than the balloon takes, which is
        there.
        """
        return self.memory.inert or (self._cache.next_ns == NEVER and not self._cache.room)

    def take_part(self, last_ns: int, most: int) -> Taker:
        """Its balloon's part, `most` pages at most: batches that begin by `last_ns`, before all else in the guest."""
        first = self._settled_first()
        assert isinstance(first, Balloon)
        beside = self._cache if self._caches_beside else None
        return first.take_part(self._before_others(first, last_ns, beside), most)

    def took(self, one: Taker) -> None:
        """What its balloon got."""
        first, _ = self._first()
        assert isinstance(first, Balloon)
        first.took(one)

    def die(self, at_ns: int) -> None:
        """An access found no page (P6)."""
        self.end = End(at_ns, "pod_oom", self.memory.death_cause())

    def die_by_other(self, at_ns: int) -> None:
        """Another domain's access found no page (E2)."""
        self.die(at_ns)
        assert self.end is not None
        self.end = replace(self.end, fate="pod_oom_by_other")

    def let_go(self) -> None:
        """It is of no use from here on. It and its streams point at each other, and a collector that counts objects
        does not see how large these are.
        """
        vars(self._sequence).clear()
        vars(self).clear()

    # -- on its way to another host ----------------------------------------------------------------------------------

    @property
    def may_move(self) -> bool:
        """It is up, and no installer that is going to leave."""
        return self.end is None and self.boot_done_ns is not None and not self.leaves_by_itself

    def settle(self, at_ns: int) -> None:
        """Somebody looks at its memory at `at_ns`: all that it does before is done."""
        self._wants.settle(at_ns - 1)

    def pack(self, at_ns: int) -> dict[str, Any]:
        """What it is, all that it does before `at_ns` done, as fields of a GuestState."""
        assert self.boot_done_ns is not None
        self.settle(at_ns)
        return {"up_ns": self._up_ns, "boot": astuple(self.boot), **self.memory.pack(), **self.held.pack()}

    def resume(self, state: GuestState, at_ns: int) -> None:
        """Go on where it was on another host; what it was doing to its memory there begins anew here."""
        self._sequence.skip(at_ns)
        self.boot_done_ns, self.boot_delay_ns, self._up_ns = at_ns, 0, state.up_ns
        self.memory.unpack(state)
        self.held.unpack(state, at_ns)
        self._wants.resume(state.up_ns, at_ns)
        if self._dirty is not None:
            self._dirty.start(at_ns)
        self._cache.start(at_ns)

    # -- its stages --------------------------------------------------------------------------------------------------

    def _cannot_boot(self, at_ns: int) -> None:
        """No memory is left for the kernel itself (C1.11)."""
        self.end = End(at_ns, "guest_panic", "no_memory_to_boot")

    def _booted(self, at_ns: int) -> None:
        """The services are up."""
        boot = self.boot
        self.boot_done_ns = self._up_ns = at_ns
        self.boot_delay_ns = at_ns - self.boot_start_ns - self._sequence.unhindered_ns
        self.held.keep(boot.services_pages)
        self._on_event(at_ns, "boot_done", f"up {(at_ns - self.boot_start_ns) / NS_PER_S:.3f} s after its build")
        self._wants.start(at_ns)
        if self._dirty is not None:
            self._dirty.start(at_ns)
        if self._install is not None:
            self._install.start(Pace(at_ns, boot.install_ns, boot.unpack_pages))
        self._cache.start(at_ns)
        over = [one for one in self._sequence.streams if one.next_ns == NEVER]
        self._streams = [one for one in self._streams if one not in over]

    def _unpack(self, pages: int, at_ns: int) -> int:
        """An installer unpacks into memory, and keeps it."""
        done = self.held.grow(pages, at_ns)
        self.held.keep(pages)
        return done

    def _installed(self, at_ns: int) -> None:
        if self.leaves_by_itself:
            self.end = End(at_ns, "shut_down", self._end_cause)

    # -- what its streams tell ---------------------------------------------------------------------------------------

    def _killed(self, at_ns: int) -> None:
        self._on_event(at_ns, "oom_kill", "an application, for want of memory and swap")

    def _released(self, at_ns: int) -> None:
        self._cache.wake(at_ns)
        if self._sequence.balloon is not None:
            self._sequence.balloon.memory_freed(at_ns)

    def _release_matters_from(self) -> int:
        """How many available pages somebody waits for; NEVER if nobody does."""
        driver = self._sequence.balloon
        if self.memory.zero_on_free or (driver is not None and driver.waits_for_memory):
            return 0
        return self._cache.wakes_at

    @property
    def waits_for_balloon(self) -> bool:
        """The boot barrier is shut."""
        return self._sequence.barrier_open_ns == NEVER

    @property
    def swaps(self) -> bool:
        """Something of it is on swap."""
        return self.held.swaps

    def barrier_panic_ns(self, cancelled_ns: int, progress_ns: int) -> int:
        """When the barrier, having seen the last progress, gives up on a cancelled driver (C1.8); NEVER: the kernel has
        not come to it.
        """
        first_ns = self._sequence.kernel_up_ns
        if first_ns == NEVER:
            return NEVER
        return poll_ns(first_ns, max(cancelled_ns, poll_ns(first_ns, progress_ns) + TIMEOUT_NS))

    @property
    def may_page_out(self) -> bool:
        """Something is held in memory, and swap has room for it."""
        return self.held.may_page_out

    def page_out(self, pages: int, at_ns: int, within_ns: int) -> int:
        """Push held pages out to swap, as many as its device takes in that time; pages gone."""
        gone = self.held.page_out(pages, at_ns, within_ns)
        self._wants.room_changed(at_ns)
        return gone

    def balloon_low_enough(self, at_ns: int) -> None:
        """Nothing is left to give back: the boot barrier opens, the first time (C1.8)."""
        if self.waits_for_balloon:
            self._sequence.open_barrier(at_ns)

    def balloon_done(self, at_ns: int) -> None:
        """The balloon has reached its goal."""
        self._on_event(at_ns, "balloon_done", f"{self.memory.ballooned_pages} pages in the balloon")
        self.balloon_low_enough(at_ns)

    def balloon_gave_up(self, at_ns: int, need_pages: int) -> None:
        """The driver stopped short of its goal (E11)."""
        if self.waits_for_balloon:
            text = f"Initial ballooning failed, {need_pages} pages need to be freed."
        elif need_pages < 0 and not self.memory.ballooned_pages:
            text = f"{-need_pages} pages short of its target, and none in the balloon"
        else:
            text = f"{abs(need_pages)} pages {'too few' if need_pages > 0 else 'too many'} in the balloon"
        self._on_event(at_ns, "balloon_gave_up", text)

    def balloon_refused(self, at_ns: int, line: str) -> None:
        """Xen gave fewer pages than asked, for the host had no more (A2.7)."""
        if line:
            self._on_event(at_ns, "balloon_refused", line)

    def balloon_grew(self, at_ns: int, pages: int) -> None:
        """Memory was added, all of it in the balloon; its descriptors are the kernel's (C1.9)."""
        first, _ = self.memory.hotplugged[-1]
        self._on_event(at_ns, "hotplug", f"{pages} pages from gfn {first:#x} on, in the balloon")
        self._wants.kernel_grew(at_ns)

    def balloon_took_room(self, at_ns: int) -> None:
        """The balloon got larger, the last of it at `at_ns`."""
        self.memory.see_debt(at_ns)
        if self.held.swaps:
            self._wants.room_changed(at_ns)

    def balloon_took_back(self, one: Taker, batch_pages: int) -> None:
        """The balloon got smaller, batch by batch, and page cache may have grown meanwhile."""
        cache, memory = self._cache, self.memory
        share = cache.beside() if self._caches_beside else None
        if share is None:
            memory.deflated(one.pages, batch_pages)
        else:
            cache.leave(memory.deflated_beside(one, share, cache.max_share, cache.floor_share), merged.ON_TIME, 0)

    def balloon_gave_room(self, at_ns: int) -> None:
        """The balloon got smaller."""
        self._wants.room_changed(at_ns)
        self._cache.wake(at_ns)

    def balloon_bug(self, at_ns: int) -> None:
        """Xen did fewer extents than asked: BUG() in the driver (C1.6)."""
        self.end = End(at_ns, "guest_panic", "balloon_bug")

    def boot_barrier_failed(self, at_ns: int) -> None:
        """`Initial ballooning failed!` (C1.8)."""
        self.end = End(at_ns, "guest_panic", "boot_barrier")

    @property
    def helps_itself(self) -> bool:
        """It may take memory from its host that nobody gave it, its balloon at rest (C1.10)."""
        return self.held.on_oom is not None

    # -- what others ask ---------------------------------------------------------------------------------------------

    def stats(self, at_ns: int, *, honest: bool = False) -> GuestStats | None:
        """What the guest says of its memory at `at_ns`, once all it does before is done; None until its services are
        up, for nobody in it speaks before [GT-1]. `honest`: its kernel to itself, which no lie of the guest reaches.
        """
        if self.boot_done_ns is None:
            return None
        self._wants.settle(at_ns - 1)
        memory, held = self.memory, self.held
        said = SOUND.said if honest else self._fault.said
        used = self._said_used(said)
        cache = min(memory.cache, memory.visible_pages - used)
        stats = GuestStats(
            total_pages=memory.visible_pages,
            free_pages=memory.visible_pages - used - cache,
            cache_pages=cache,
            used_pages=used,
            swapped_pages=held.swapped,
            swap_pages=held.swap_pages,
            wanted_pages=said(self._demand.at(at_ns)),
        )
        self._wants.relax()
        return stats

    @property
    def said_used_pages(self) -> int:
        """What it says that it uses, what is on swap included."""
        return self._said_used(self._fault.said) + self.held.swapped

    def _said_used(self, said: Callable[[int], int]) -> int:
        """Of the memory it has."""
        return min(said(self.memory.kernel_pages + self.memory.resident), self.memory.visible_pages)

    def wanted_pages(self, t_ns: int) -> int:
        """W(t) of a guest that is up; of one that boots, what it has taken so far."""
        if self.boot_done_ns is None:
            return self.memory.written_pages
        return self._demand.at(t_ns)

    def wanted_peak(self, end_ns: int) -> int:
        """Peak of W(t) from boot done to `end_ns`; 0 if it never came up."""
        if self.boot_done_ns is None:
            return 0
        first, last = self._demand.t_ns.searchsorted((self.boot_done_ns + 1, end_ns)).tolist()
        inside = self._demand.pages[first:last]
        ends = max(self._demand.at(self.boot_done_ns), self._demand.at(end_ns))
        return max(ends, int(inside.max())) if len(inside) else ends
