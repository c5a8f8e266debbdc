"""What an operating system does with its memory, from firmware to shutdown: the streams of one guest, merged in time
order.

What        `Guest` owns the streams of a guest and runs them. `Boot` is what was drawn for one boot. The balloon driver
            (`balloon.py`) joins as one more stream; `guest_memory` keeps the pages, `guest_demand` what is held and
            swapped.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     t0 boot start (end of the build)   tk = t0 + firmware_s: the kernel's start
Streams     In order of rank, which decides between two at one instant:
            firmware   t0 .. tk: low memory, data (G5)
            kernel     tk .. tk + kernel_s: the image at 16 MiB, then page descriptors (maxmem/64), data
            scrubber   from tk + scrub_start_s: zeroes over all that is free then, ascending
            services   from the end of the kernel's stage, and of the balloon's where there is a boot barrier (C1.8)
            balloon    from tk + balloon.start_s
            demand     from the end of the services (boot done): what is held follows W (G3), data
            dirty      from then on, where `dirty_all`: all there is, data
            cache      from then on: page cache grows into free memory (G4), data
Invariants  [GS-1] streams.py: batches at instants, no result depends on where the clock stops in between.
            [GS-2] growth of what is held writes pages only beyond what was ever in use (`guest_memory`).
            [GS-3] a stream says beforehand whether its next act may touch the host's heap; of those here only the
                   balloon ever does.
Departs     W counts the guest as a whole, so what services and applications want is W less the kernel's pages. A guest
            writes memory it is given for the first time at `scrub_rate_mib_per_s`, for demand too. What the hypervisor
            does takes no time (G6), and sweeps are never interrupted unless `host.preempt` says always (G7). One
            zeroing stream, whatever the number of vCPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from podcluster.config import GuestConfig, PageCacheConfig, Range
from podcluster.host.guest_demand import DemandStream, HeldBooks
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.guest_stats import GuestStats
from podcluster.host.streams import (
    BATCH_PAGES,
    CACHE,
    DEMAND,
    DIRTY,
    FIRMWARE,
    KERNEL,
    NEVER,
    SCRUBBER,
    SERVICES,
    Pace,
    Stage,
    Stream,
    count_instants,
    slice_runs,
)
from podcluster.records import Cause, Demand, EventKind, Fate
from podcluster.rng import stream
from podcluster.units import NS_PER_S, PAGES_PER_MIB, mib_to_pages, s_to_ns


@dataclass(frozen=True, slots=True)
class Boot:
    """What was drawn for one boot; each draw has a stream of its own, so that a new one moves no other."""

    firmware_ns: int
    kernel_pages: int
    kernel_ns: int
    services_pages: int
    services_ns: int
    write_pages_per_s: int
    scrub_start_ns: int
    balloon_start_ns: int
    balloon_pages_per_s: int

    @classmethod
    def draw(cls, cfg: GuestConfig, seed: int, domain_id: int, attempt: int) -> Boot:
        """Draw from the ranges of `cfg`."""

        def between(name: str, ends: Range) -> float:
            return float(stream(seed, "domain", domain_id, attempt, name).uniform(ends[0], ends[1]))

        return cls(
            firmware_ns=s_to_ns(between("firmware", cfg.firmware_s)),
            kernel_pages=mib_to_pages(between("kernel_size", cfg.kernel_mib)),
            kernel_ns=s_to_ns(between("kernel", cfg.kernel_s)),
            services_pages=mib_to_pages(between("services_size", cfg.services_mib)),
            services_ns=s_to_ns(between("services", cfg.services_s)),
            write_pages_per_s=max(1, mib_to_pages(between("scrub_rate", cfg.scrub_rate_mib_per_s))),
            scrub_start_ns=s_to_ns(between("scrub_start", cfg.scrub_start_s)),
            balloon_start_ns=s_to_ns(between("balloon_start", cfg.balloon.start_s)),
            balloon_pages_per_s=max(1, int(between("balloon_rate", cfg.balloon.rate_pages_per_s))),
        )


@dataclass(frozen=True, slots=True)
class End:
    """How a guest ended by itself."""

    at_ns: int
    fate: Fate
    cause: Cause


class DirtyStream:
    """Once booted, an application writes data to all the memory there is, as fast as the guest can."""

    rank = DIRTY

    def __init__(self, memory: GuestMemory, held: HeldBooks, pages_per_s: int, on_death: Callable[[int], None]) -> None:
        self.next_ns = NEVER
        self._memory = memory
        self._held = held
        self._pages_per_s = pages_per_s
        self._on_death = on_death
        self._anchor_ns = 0
        self._batches = 0

    def touches_heap(self) -> bool:
        """Never: populating takes from the domain's own cache."""
        return False

    def start(self, at_ns: int) -> None:
        """Begin."""
        self._anchor_ns = self.next_ns = at_ns

    def _instant(self, batch: int) -> int:
        return self._anchor_ns + batch * BATCH_PAGES * NS_PER_S // self._pages_per_s

    def run(self, last_ns: int, *, single: bool) -> None:
        """Take all that is free or page cache, batch by batch; done when nothing is left."""
        batches = 1 if single else count_instants(self._instant, self._batches, last_ns)
        done = self._held.grow(min(batches * BATCH_PAGES, self._memory.available), self.next_ns)
        if self._memory.crashed:
            self._on_death(self._instant(self._batches + done // BATCH_PAGES))
            return
        self._held.floor = self._held.held
        self._batches += batches
        self.next_ns = self._instant(self._batches) if self._memory.available else NEVER


class CacheStream:
    """Page cache grows into free memory, until too little is free or it has its share (G4)."""

    rank = CACHE

    def __init__(self, memory: GuestMemory, cfg: PageCacheConfig, on_death: Callable[[int], None]) -> None:
        self.next_ns = NEVER
        self._memory = memory
        self._pages_per_s = mib_to_pages(cfg.rate_mib_per_s)
        self._floor_share = cfg.floor_share
        self._max_share = cfg.max_share_of_free
        self._on_death = on_death
        self._started = False
        self._anchor_ns = 0
        self._batches = 0

    @property
    def limit(self) -> int:
        """Most page cache beside what is held now: a share of what is not held, and enough of the guest left free."""
        memory = self._memory
        most = int(self._max_share * memory.available)
        return min(most, memory.available - int(self._floor_share * memory.visible_pages))

    def touches_heap(self) -> bool:
        """Never: populating takes from the domain's own cache."""
        return False

    def start(self, at_ns: int) -> None:
        """Begin."""
        self._started = self._pages_per_s > 0
        self.wake(at_ns)

    def wake(self, at_ns: int) -> None:
        """More may be free than before: go on if it is enough."""
        if self._started and self.next_ns == NEVER and self._memory.cache < self.limit:
            self._anchor_ns = self.next_ns = at_ns
            self._batches = 0

    def _instant(self, batch: int) -> int:
        return self._anchor_ns + batch * BATCH_PAGES * NS_PER_S // self._pages_per_s

    def run(self, last_ns: int, *, single: bool) -> None:
        """Grow batch by batch; sleep at the limit."""
        memory, limit = self._memory, self.limit
        batches = 1 if single else count_instants(self._instant, self._batches, last_ns)
        done = memory.fill_cache(min(batches * BATCH_PAGES, max(0, limit - memory.cache)))
        if memory.crashed:
            self._on_death(self._instant(self._batches + done // BATCH_PAGES))
            return
        self._batches += batches
        self.next_ns = self._instant(self._batches) if memory.cache < limit else NEVER


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
        on_event: Callable[[int, EventKind, str], None],
    ) -> None:
        """A guest that starts at `start_ns`; `hold_ns` -1: what was wanted once stays held."""
        self.memory = memory
        self.boot = boot
        self.boot_start_ns = start_ns
        self.boot_done_ns: int | None = None
        self.boot_delay_ns: int | None = None
        self.end: End | None = None
        self.wake_balloon: Callable[[int], None] = lambda _: None
        self._demand = demand
        self._on_event = on_event
        self._scrubs = cfg.scrubber == "zero"
        self._dirties = cfg.dirty_all
        self._barrier_open_ns = NEVER if cfg.balloon.boot_barrier and cfg.balloon.driver != "none" else 0
        self._kernel_done_ns = NEVER
        self.held = HeldBooks(
            memory,
            demand,
            swap_pages=cfg.swap.mib * PAGES_PER_MIB,
            swap_pages_per_s=max(1, mib_to_pages(cfg.swap.mib_per_s)),
            on_kill=self._killed,
        )
        self._firmware = self._stage(FIRMWARE, self._write_firmware, self._firmware_done)
        self._kernel = self._stage(KERNEL, self._write_kernel, self._kernel_done, lambda _: memory.has_room_for_kernel)
        self._scrubber = self._stage(SCRUBBER, self._write_zeroes, lambda _: None)
        self._services = self._stage(SERVICES, self._write_services, self._services_done, self.held.fits)
        self._wants = DemandStream(
            DEMAND,
            memory,
            self.held,
            demand,
            hold_ns=hold_ns,
            pages_per_s=boot.write_pages_per_s,
            on_death=self.die,
            on_release=self._released,
        )
        self._dirty = DirtyStream(memory, self.held, boot.write_pages_per_s, self.die)
        self._cache = CacheStream(memory, cfg.page_cache, self.die)
        self._streams: list[Stream] = [
            self._firmware, self._kernel, self._scrubber, self._services, self._wants, self._dirty, self._cache,
        ]  # fmt: skip
        self._firmware.start(Pace(start_ns, boot.firmware_ns, sum(count for _, count in memory.firmware)))

    def _stage(
        self,
        rank: int,
        write: Callable[[int, int, int], int],
        on_done: Callable[[int], None],
        at_once: Callable[[int], bool] = lambda _: True,
    ) -> Stage:
        return Stage(
            rank,
            write=write,
            died=lambda: self.memory.crashed,
            on_death=self.die,
            on_done=on_done,
            at_once=at_once,
        )

    # -- running -----------------------------------------------------------------------------------------------------

    def add_stream(self, one: Stream) -> None:
        """Let the balloon driver join."""
        self._streams.append(one)
        self._streams.sort(key=lambda other: other.rank)

    @property
    def kernel_start_ns(self) -> int:
        """When the kernel takes over from the firmware (tk)."""
        return self.boot_start_ns + self.boot.firmware_ns

    @property
    def next_ns(self) -> int:
        """When anything happens next; its end, if it has one."""
        return min(one.next_ns for one in self._streams) if self.end is None else self.end.at_ns

    @property
    def next_touches_heap(self) -> bool:
        """Whether what happens next may touch the host's heap, so that its place among all that happens on the host
        matters.
        """
        return self.end is not None or self._first().touches_heap()

    def _first(self) -> Stream:
        return min(self._streams, key=lambda one: one.next_ns)  # the first of equals has the lowest rank

    def step(self) -> None:
        """Do the next thing only."""
        first = self._first()
        first.run(first.next_ns, single=True)

    def run(self, last_ns: int) -> None:
        """Do everything up to and including `last_ns`; stop before what may touch the host's heap, and at the guest's
        end.
        """
        while self.end is None:
            first = self._first()
            if first.next_ns > last_ns or first.touches_heap():
                return
            bound = last_ns
            for other in self._streams:
                if other is not first:
                    bound = min(bound, other.next_ns if other.rank > first.rank else other.next_ns - 1)
            first.run(bound, single=False)

    def die(self, at_ns: int) -> None:
        """An access found no page (P6)."""
        memory = self.memory
        self.end = End(at_ns, "pod_oom", "debt" if memory.nonzero_pages + 1 > memory.owned else "reclaim_short")

    # -- the boot ----------------------------------------------------------------------------------------------------

    def _write_firmware(self, first: int, pages: int, at_ns: int) -> int:
        return self.memory.write(slice_runs(self.memory.firmware, first, pages), data=True, descending=False)

    def _firmware_done(self, at_ns: int) -> None:
        boot = self.boot
        pages = self.memory.kernel_pages - sum(count for _, count in self.memory.firmware)
        self._kernel.start(Pace(at_ns, boot.kernel_ns, pages))
        if self._scrubs:
            start_ns = at_ns + boot.scrub_start_ns
            self._scrubber.start(Pace.at_rate(start_ns, self.memory.ram_pages, boot.write_pages_per_s))

    def _write_kernel(self, first: int, pages: int, at_ns: int) -> int:
        memory = self.memory
        image = slice_runs(memory.image, first, pages)
        done = memory.write(image, data=True, descending=False)
        left = pages - sum(count for _, count in image)
        if memory.crashed or not left:
            return done
        if not memory.has_room_for_kernel:
            self.end = End(at_ns, "guest_panic", "no_memory_to_boot")
            return pages
        return done + memory.take_kernel(left)

    def _write_zeroes(self, first: int, pages: int, at_ns: int) -> int:
        done = 0
        for start, count in slice_runs(self.memory.ram, first, pages):
            died_at = self.memory.zero(start, count)
            if died_at is not None:
                return done + died_at - start
            done += count
        return done

    def _kernel_done(self, at_ns: int) -> None:
        self._kernel_done_ns = at_ns
        self._start_services()

    def _start_services(self) -> None:
        at_ns = max(self._kernel_done_ns, self._barrier_open_ns)
        if at_ns < NEVER:
            self.boot_delay_ns = at_ns - self._kernel_done_ns
            self._services.start(Pace(at_ns, self.boot.services_ns, self.boot.services_pages))

    def _write_services(self, first: int, pages: int, at_ns: int) -> int:
        return self.held.grow(pages, at_ns)

    def _services_done(self, at_ns: int) -> None:
        self.boot_done_ns = at_ns
        self.held.floor = self.boot.services_pages
        self._on_event(at_ns, "boot_done", f"up {(at_ns - self.boot_start_ns) / NS_PER_S:.3f} s after its build")
        self._wants.start(at_ns)
        if self._dirties:
            self._dirty.start(at_ns)
        self._cache.start(at_ns)

    # -- what its streams tell ---------------------------------------------------------------------------------------

    def _killed(self, at_ns: int) -> None:
        self._on_event(at_ns, "oom_kill", "an application, for want of memory and swap")

    def _released(self, at_ns: int) -> None:
        self._cache.wake(at_ns)
        self.wake_balloon(at_ns)

    @property
    def waits_for_balloon(self) -> bool:
        """The boot barrier is shut."""
        return self._barrier_open_ns == NEVER

    def balloon_done(self, at_ns: int) -> None:
        """The balloon has reached its goal; the first time, the boot barrier opens (C1.8)."""
        self._on_event(at_ns, "balloon_done", f"{self.memory.ballooned_pages} pages in the balloon")
        if self.waits_for_balloon:
            self._barrier_open_ns = at_ns
            self._start_services()

    def balloon_gave_up(self, at_ns: int, need_pages: int) -> None:
        """The driver stopped short of its goal (E11)."""
        self._on_event(at_ns, "balloon_gave_up", f"Initial ballooning failed, {need_pages} pages need to be freed.")

    def balloon_gave_room(self, at_ns: int) -> None:
        """The balloon got smaller."""
        self.held.room_changed(at_ns)
        if self.memory.crashed:
            self.die(at_ns)
            return
        self._cache.wake(at_ns)

    def balloon_bug(self, at_ns: int) -> None:
        """Xen did fewer extents than asked: BUG() in the driver (C1.6)."""
        self.end = End(at_ns, "guest_panic", "balloon_bug")

    def boot_barrier_failed(self, at_ns: int) -> None:
        """`Initial ballooning failed!` (C1.8)."""
        self.end = End(at_ns, "guest_panic", "boot_barrier")

    # -- what others ask ---------------------------------------------------------------------------------------------

    def stats(self, at_ns: int) -> GuestStats | None:
        """What the guest says of its memory at `at_ns`, once all it does before is done; None until its services are
        up, for nobody in it speaks before [GT-1].
        """
        if self.boot_done_ns is None:
            return None
        memory, held = self.memory, self.held
        return GuestStats(
            total_pages=memory.visible_pages,
            free_pages=memory.free,
            cache_pages=memory.cache,
            used_pages=memory.kernel_pages + memory.resident,
            swapped_pages=held.swapped,
            swap_pages=held.swap_pages,
            wanted_pages=self._demand.at(at_ns),
        )

    def wanted_pages(self, t_ns: int) -> int:
        """W(t) of a guest that is up; of one that boots, what it has taken so far."""
        if self.boot_done_ns is None:
            return self.memory.written_pages
        return self._demand.at(t_ns)

    def wanted_peak(self, end_ns: int) -> int:
        """Peak of W(t) from boot done to `end_ns`; 0 if it never came up."""
        if self.boot_done_ns is None:
            return 0
        t = self._demand.t_ns
        inside = self._demand.pages[(t > self.boot_done_ns) & (t < end_ns)]
        ends = max(self._demand.at(self.boot_done_ns), self._demand.at(end_ns))
        return max(ends, int(inside.max())) if len(inside) else ends
