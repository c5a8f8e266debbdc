"""A boot: what is drawn for it, and its streams from the firmware to the last service (G5).

What        `Boot`, one draw from each range of the guest's class; `BootSequence`, the streams and what follows what.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     t0 boot start (end of the build)   tk the kernel's start, when the firmware is done
Streams     In order of rank, which decides between two at one instant:
            firmware     t0 .. tk = t0 + firmware_s: low memory, data
            kernel       tk .. tk + kernel_s: the image at 16 MiB, then page descriptors (maxmem/64), data
            descriptors  after the kernel's stage: those it left for later, data, by all vCPUs at once (C1.11)
            scrubber     from tk + scrub_start_s: zeroes or a pattern over all that is free then; one stream, or one a
                         vCPU, each with every so manieth 2 MiB (C2.7). A kernel that zeroes on free scrubs when its
                         stage is over, and before anything else.
            services     from the end of all that is the kernel's, and of the balloon's where there is a boot barrier
                         (C1.8)
Balloon     It begins at tk + balloon.start_s, later by as much as Xen held up the kernel, and by what the kernel does
            after its stage.
Interrupts  Off in firmware, kernel and the scrubber of a kernel that zeroes on free; on in all else (G7).
Invariants  Each draw has a stream of its own, named by seed, domain, attempt and what is drawn, so that a new one moves
            no other, and nothing of one attempt outlives it (G14).
Departs     A scrubber's batch is one act: what two of them do within 2 MiB does not interleave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

from podcluster.config import GuestConfig, Range
from podcluster.host import merged
from podcluster.host.barrier import poll_ns
from podcluster.host.domain import Run
from podcluster.host.draws import first_numbers
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.held import HeldBooks
from podcluster.host.page_runs import aligned_blocks, run_array
from podcluster.host.streams import (
    DESCRIPTORS,
    FIRMWARE,
    KERNEL,
    NEVER,
    SCRUBBER,
    SERVICES,
    Pace,
    Runs,
    Stage,
    Stream,
)
from podcluster.host.written import DATA, PATTERN, ZERO
from podcluster.records.values import Int64Array
from podcluster.units import SUPERPAGE_PAGES, mib_to_pages, s_to_ns

CONTENTS: Final = {"zero": ZERO, "pattern": PATTERN}  # what a scrubber writes


@dataclass(frozen=True, slots=True)
class Boot:
    """What was drawn for one boot."""

    firmware_ns: int
    kernel_pages: int
    kernel_ns: int
    services_pages: int
    services_ns: int
    write_pages_per_s: int
    scrub_start_ns: int
    balloon_start_ns: int
    balloon_pages_per_s: int
    unpack_pages: int
    install_ns: int

    @classmethod
    def draw(cls, cfg: GuestConfig, seed: int, domain_id: int, attempt: int) -> Boot:
        """Draw from the ranges of `cfg`."""
        ranges: dict[str, Range] = {
            "firmware": cfg.firmware_s,
            "kernel_size": cfg.kernel_mib,
            "kernel": cfg.kernel_s,
            "services_size": cfg.services_mib,
            "services": cfg.services_s,
            "scrub_rate": cfg.scrub_rate_mib_per_s,
            "scrub_start": cfg.scrub_start_s,
            "balloon_start": cfg.balloon.start_s,
            "balloon_rate": cfg.balloon.rate_pages_per_s,
            "unpack_size": cfg.install.unpack_mib,
            "install": cfg.install.install_s,
        }
        at = {name: low for name, (low, _) in ranges.items()}
        drawn = [name for name, (low, high) in ranges.items() if low != high]
        for name, share in zip(drawn, first_numbers(seed, ("domain", domain_id, attempt), drawn), strict=True):
            low, high = ranges[name]
            at[name] = low + (high - low) * share
        return cls(
            firmware_ns=s_to_ns(at["firmware"]),
            kernel_pages=mib_to_pages(at["kernel_size"]),
            kernel_ns=s_to_ns(at["kernel"]),
            services_pages=mib_to_pages(at["services_size"]),
            services_ns=s_to_ns(at["services"]),
            write_pages_per_s=max(1, mib_to_pages(at["scrub_rate"])),
            scrub_start_ns=s_to_ns(at["scrub_start"]),
            balloon_start_ns=s_to_ns(at["balloon_start"]),
            balloon_pages_per_s=max(1, int(at["balloon_rate"])),
            unpack_pages=mib_to_pages(at["unpack_size"]),
            install_ns=s_to_ns(at["install"]),
        )


class Driver(Stream, Protocol):
    """A balloon driver, as a boot knows it."""

    def start(self, at_ns: int) -> None:
        """Plan its first page for `at_ns`."""

    def postpone(self, ns: int) -> None:
        """Begin later than planned, if it is planned and has not begun."""

    def memory_freed(self, at_ns: int) -> None:
        """The guest freed memory."""

    def barrier_began(self) -> None:
        """The kernel has come to its boot barrier."""

    @property
    def waits_for_memory(self) -> bool:
        """It sleeps until some is freed."""


class BootSequence:
    """The streams of one boot, and what follows what."""

    def __init__(
        self,
        memory: GuestMemory,
        held: HeldBooks,
        boot: Boot,
        cfg: GuestConfig,
        *,
        vcpus: int,
        on_death: Callable[[int], None],
        on_panic: Callable[[int], None],
        on_done: Callable[[int], None],
    ) -> None:
        """`on_panic`: the kernel has no memory for itself; `on_done`: the services are up."""
        self.balloon: Driver | None = None
        self.kernel_up_ns = NEVER  # all that is the kernel's is done
        self.barrier_open_ns = NEVER if cfg.balloon.boot_barrier and cfg.balloon.driver != "none" else 0
        self.unhindered_ns = 0  # what the stages that follow each other would have taken by themselves
        self._memory = memory
        self._held = held
        self._boot = boot
        self._on_death = on_death
        self._on_panic = on_panic
        self._kernel_ns = self._kernel_done_ns = 0
        self._image = Runs(memory.image)
        self._low = Runs(memory.firmware)
        self._content = CONTENTS.get(cfg.scrubber, ZERO)
        self._scrubs_first = cfg.zero_on_free  # before anything else
        late_pages = int(cfg.late_descriptors_share * memory.descriptor_pages)
        self._late_pages = _shares(late_pages, vcpus) if late_pages else []  # of the descriptors, by vCPU
        parts = 0 if cfg.scrubber == "none" else cfg.scrub_streams or vcpus
        dealt = _interleaved(memory.ram, parts, descending=cfg.scrub_order == "descending")
        self._scrubbed = [runs.twin() for runs in dealt]
        self._strips: Int64Array | None = self._lay_strips()
        self._firmware = self._stage(
            FIRMWARE, merged.WRITES, self._write_firmware, self._firmware_done, strips=self._low, interrupts=False
        )
        self._kernel = self._stage(
            KERNEL,
            merged.KERNEL,
            self._write_kernel,
            self._kernel_done,
            self._has_room,
            strips=self._image,
            on_late=self._kernel_late,
            interrupts=False,
        )
        self._descriptors = [
            self._stage(
                DESCRIPTORS,
                merged.KERNEL,
                self._write_descriptors,
                self._descriptors_done,
                self._has_room,
                followed=merged.BY_ALL,
                vcpu=vcpu,
            )
            for vcpu in range(len(self._late_pages))
        ]
        self._scrubbers = [
            self._stage(
                SCRUBBER,
                merged.SCRUBBING,
                self._scrub(runs),
                self._scrubber_done,
                strips=runs,
                followed=merged.BY_ALL if self._scrubs_first else merged.BY_NOTHING,
                vcpu=vcpu % vcpus,
                interrupts=not self._scrubs_first,
            )
            for vcpu, runs in enumerate(self._scrubbed)
        ]
        self._services = self._stage(
            SERVICES, merged.HOLDS, self._write_services, on_done, held.fits, from_heap=held.takes_for
        )
        self.going = 0  # stages that have to end before the next begins

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_strips": None}

    @property
    def strips(self) -> Int64Array:
        """What its stages write, as merged.py wants it."""
        if self._strips is None:  # not packed with it, since it is all there
            self._strips = self._lay_strips()
        return self._strips

    def _lay_strips(self) -> Int64Array:
        return Runs.lay((self._low, self._image, *self._scrubbed))

    @property
    def streams(self) -> list[Stage]:
        """All of them, in order of rank."""
        return [self._firmware, self._kernel, *self._descriptors, *self._scrubbers, self._services]

    def skip(self, at_ns: int) -> None:
        """All of it happened elsewhere."""
        for one in self.streams:
            one.next_ns = NEVER
        self.kernel_up_ns = self.barrier_open_ns = at_ns

    def _stage(
        self,
        rank: int,
        kind: int,
        write: Callable[[int, int, int], int],
        on_done: Callable[[int], None],
        at_once: Callable[[int], bool] = lambda _: True,
        *,
        strips: Runs | None = None,
        from_heap: Callable[[int], bool] = lambda _: False,
        on_late: Callable[[int], None] = lambda _: None,
        followed: int = merged.AT_ONCE,
        vcpu: int = 0,
        interrupts: bool = True,
    ) -> Stage:
        return Stage(
            rank,
            self._memory.lock,
            kind,
            write=write,
            died=lambda: self._memory.crashed,
            on_death=self._on_death,
            on_done=on_done,
            on_late=on_late,
            at_once=at_once,
            from_heap=from_heap,
            strips=strips,
            content=self._content if rank == SCRUBBER else DATA,
            followed=followed,
            vcpu=vcpu,
            interrupts=interrupts,
        )

    # -- what follows what -------------------------------------------------------------------------------------------

    def start(self, at_ns: int) -> None:
        """Power on (t0)."""
        self._follow(Pace(at_ns, self._boot.firmware_ns, self._low.pages), self._firmware)

    def _follow(self, pace: Pace, stage: Stage) -> None:
        """Start what the boot as a whole waits for."""
        self.unhindered_ns += pace.span_ns
        stage.start(pace)

    def _firmware_done(self, at_ns: int) -> None:
        """The kernel takes over (tk)."""
        boot = self._boot
        self._kernel_ns = at_ns
        pages = self._memory.kernel_pages - self._low.pages - sum(self._late_pages)
        self._follow(Pace(at_ns, boot.kernel_ns, pages), self._kernel)
        if not self._scrubs_first:
            self._start_scrubbers(at_ns + boot.scrub_start_ns)
        if not self._kernel_goes_on and self.balloon is not None:
            self.balloon.start(at_ns + boot.balloon_start_ns)

    @property
    def _kernel_goes_on(self) -> bool:
        """There is more to do for it after its stage, and before its drivers begin."""
        return bool(self._descriptors) or self._scrubs_first

    def _kernel_late(self, ns: int) -> None:
        """Xen held the kernel up: what it has not come to yet waits as well."""
        self._kernel_ns += ns
        for scrubber in self._scrubbers:
            scrubber.postpone(ns)
        if self.balloon is not None:
            self.balloon.postpone(ns)

    def _kernel_done(self, at_ns: int) -> None:
        self._kernel_done_ns = at_ns
        if self._descriptors:
            self.going = len(self._descriptors)
            self.unhindered_ns += self._start_together(self._descriptors, self._late_pages, at_ns)
        else:
            self._scrub_first(at_ns)

    def _descriptors_done(self, at_ns: int) -> None:
        self.going -= 1
        if not self.going:
            self._scrub_first(at_ns)

    def _scrub_first(self, at_ns: int) -> None:
        if self._scrubs_first:
            self.going = len(self._scrubbers)
            start_ns = self._boot.scrub_start_ns
            self.unhindered_ns += start_ns + self._start_scrubbers(at_ns + start_ns)
        else:
            self._kernel_up(at_ns)

    def _start_scrubbers(self, at_ns: int) -> int:
        return self._start_together(self._scrubbers, [runs.pages for runs in self._scrubbed], at_ns)

    def _start_together(self, stages: Iterable[Stage], pages: Iterable[int], at_ns: int) -> int:
        """Start stages of so many pages each, as fast as a vCPU writes; how long the longest takes by itself."""
        longest_ns = 0
        for stage, count in zip(stages, pages, strict=True):
            pace = Pace.at_rate(at_ns, count, self._boot.write_pages_per_s)
            longest_ns = max(longest_ns, pace.span_ns)
            stage.start(pace)
        return longest_ns

    def _scrubber_done(self, at_ns: int) -> None:
        if self._scrubs_first:
            self.going -= 1
            if not self.going:
                self._kernel_up(at_ns)

    def _kernel_up(self, at_ns: int) -> None:
        self.kernel_up_ns = at_ns
        if self._kernel_goes_on and self.balloon is not None:
            planned_ns = self._kernel_ns + self._boot.balloon_start_ns
            self.balloon.start(max(at_ns, planned_ns + at_ns - self._kernel_done_ns))
        if self.barrier_open_ns == NEVER and self.balloon is not None:
            self.balloon.barrier_began()
        self._start_services()

    def open_barrier(self, at_ns: int) -> None:
        """Nothing is left for the balloon to give back, for the first time (C1.8)."""
        self.barrier_open_ns = at_ns
        self._start_services()

    def _start_services(self) -> None:
        at_ns = max(self.kernel_up_ns, self.barrier_open_ns)
        if at_ns < NEVER:
            at_ns = poll_ns(self.kernel_up_ns, at_ns)
            self._follow(Pace(at_ns, self._boot.services_ns, self._boot.services_pages), self._services)

    # -- what is written ---------------------------------------------------------------------------------------------

    def _write_firmware(self, first: int, pages: int, at_ns: int) -> int:
        return self._memory.write(self._low.slice(first, pages), content=DATA, descending=False)

    def _write_kernel(self, first: int, pages: int, at_ns: int) -> int:
        memory = self._memory
        image = self._image.slice(first, pages)
        done = memory.write(image, content=DATA, descending=False)
        left = pages - sum(count for _, count in image)
        if memory.crashed or not left:
            return done
        return done + self._write_descriptors(0, left, at_ns)

    def _has_room(self, _: int) -> bool:
        return self._memory.has_room_for_kernel

    def _write_descriptors(self, first: int, pages: int, at_ns: int) -> int:
        if not self._memory.has_room_for_kernel:
            self._on_panic(at_ns)
            return pages
        return self._memory.take_kernel(pages)

    def _scrub(self, runs: Runs) -> Callable[[int, int, int], int]:
        def write(first: int, pages: int, at_ns: int) -> int:
            done = 0
            for start, count in runs.slice(first, pages):
                n = self._memory.scrub(start, count, content=self._content, descending=runs.descending)
                done += n
                if n < count:
                    break
            return done

        return write

    def _write_services(self, first: int, pages: int, at_ns: int) -> int:
        return self._held.grow(pages, at_ns)


def _shares(pages: int, parts: int) -> list[int]:
    """Pages in as equal parts as there are."""
    return [pages * (i + 1) // parts - pages * i // parts for i in range(parts)]


@lru_cache(maxsize=8)  # machines are often alike
def _interleaved(ram: tuple[Run, ...], parts: int, *, descending: bool) -> tuple[Runs, ...]:
    """RAM dealt out to so many parts: all of it to one, else 2 MiB by 2 MiB; in the order it is gone through."""
    runs = aligned_blocks(ram, SUPERPAGE_PAGES) if parts > 1 else run_array(ram)
    step = -1 if descending else 1
    return tuple(Runs(runs[i::parts][::step], descending=descending) for i in range(parts))
