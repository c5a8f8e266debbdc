"""`drivers/xen/balloon.c`: single pages from the top, 512 a hypercall, scrubbed or not, with back-off (C1).

What        `LinuxBalloon`; `reserve_pages`, what the kernel keeps for itself. The boot barrier that waits for it is in
            `barrier.py`.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     estimate   what the kernel calls available: free and page cache, less its reserve (`si_mem_available`)
Rules       A step takes min(need, estimate), 512 pages at most. Pages are allocated without retry, without reserves and
            without the OOM killer, so they are free ones, or page cache that is dropped for them: below the working set
            a Linux guest's balloon does not go. It fails if the estimate and not the need limited it, and it is below
            the reserve, though it takes what the estimate allows (C1.7). A deflation fails if it got nothing.
            The first target: what the driver is to give back is static-max - target, whatever the firmware hid (C1.2).
            A target above all that the guest booted with (C1.9): a kernel without memory hotplug takes what it has for
            its target. One with it, its balloon being empty, adds whole sections at the lowest gfns that are free for
            them: their pages are in the balloon, and it deflates as far as its target. To find no room for their
            descriptors is a failed try.
Departs     What is added is online at once, as where the kernel does that by itself, and not a thing of udev's. The
            kernel's reserve stays what it was at the boot. Sections are of one size, where a guest of 64 GiB or more
            may have larger blocks. Nothing is taken off the guest again: what is given back stays in the balloon.
            The estimate counts page cache whole; the kernel leaves out a part of it, at most the low watermark. The
            watch on the target first fires at the driver's start, and a kernel that comes to its barrier earlier waits:
            the real one sees no credit then and goes on. A cancelled driver tries again after an hour, as its thread
            does.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Final

from podcluster.host.balloon import CANCELLED, Balloon, BalloonMemory, BalloonOwner, Manner
from podcluster.host.failures import NOT_ADDED, NOT_BUILT_IN
from podcluster.host.fault import SOUND, Fault
from podcluster.host.streams import NEVER
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB

TRIES: Final = 4  # failed ones, then it is cancelled (C1.7)
DELAY_S_MAX: Final = 32
CANCELLED_NS: Final = 3600 * NS_PER_S
OOM_PAGES: Final = 512  # of one call of the notifier (C1.10)

DMA_PAGES: Final = 16 * PAGES_PER_MIB  # the zones below 16 MiB and 4 GiB
DMA32_PAGES: Final = 4 * PAGES_PER_GIB
LOWMEM_RATIO: Final = 256  # sysctl_lowmem_reserve_ratio of both
MIN_FREE_KIB_MAX: Final = 262_144


def reserve_pages(ram_pages: int) -> int:
    """`totalreserve_pages` of a kernel that booted with so much RAM (mm/page_alloc.c): the high watermarks of all
    zones, and what each keeps from allocations that higher zones could serve.
    """
    min_pages = min(isqrt(16 * 4 * ram_pages), MIN_FREE_KIB_MAX) // 4
    high = min_pages + 2 * max(min_pages // 4, ram_pages // 1000)
    dma = min(DMA_PAGES, ram_pages)
    dma32 = min(DMA32_PAGES, ram_pages) - dma
    above = ram_pages - dma - dma32
    kept = min(dma, (dma32 + above) // LOWMEM_RATIO) + min(dma32, above // LOWMEM_RATIO)
    return min(high + kept, ram_pages)


class LinuxBalloon(Balloon):
    """C1."""

    retry_ns = DELAY_S_MAX * NS_PER_S

    def __init__(
        self,
        memory: BalloonMemory,
        owner: BalloonOwner,
        goal: Callable[[], int],
        manner: Manner,
        fault: Fault = SOUND,
    ) -> None:
        super().__init__(memory, owner, goal, manner, fault)
        self._reserve = manner.reserve_pages
        self._cancelled_ns = 0
        self._forgive()

    def _forgive(self) -> None:
        self._tries = 0
        self._delay_s = 1

    @property
    def _estimate(self) -> int:
        return max(0, self._memory.available - self._reserve)

    @property
    def _reach(self) -> int:
        return self._estimate

    @property
    def _finds_something(self) -> bool:
        return self._estimate > 0

    @property
    def _certainty(self) -> tuple[int, int, bool]:
        return self._reserve, self._reserve, True

    def _next_batch(self, at_ns: int) -> tuple[int, bool]:
        need = self.need
        pages = min(need, self._estimate)
        return min(pages, self._batch_pages), pages == need or pages >= max(1, self._reserve)

    def _look(self, at_ns: int) -> int:
        """What it has added is in the balloon beside what the target says, or in use."""
        goal = self._read_goal() + self._memory.hotplugged_pages
        if goal < 0 and not self._manner.section_pages:
            self._owner.balloon_refused(at_ns, NOT_BUILT_IN.format(-goal))
            return 0
        return goal

    def _take(self, at_ns: int) -> None:
        if self._memory.ballooned_pages or not self._manner.section_pages:
            super()._take(at_ns)
        else:
            self._add_memory(at_ns)

    def _add_memory(self, at_ns: int) -> None:
        """Sections enough for its target (C1.9)."""
        section = self._manner.section_pages
        pages = -(self.need // section) * section
        added = self._memory.hotplug(pages, section)
        over_ns = max(at_ns, self.next_ns + self._lock.leave())
        if self._memory.crashed:
            self._owner.die(at_ns)
        elif added:
            self._was_refused = False
            self._goal += pages
            self._owner.balloon_grew(at_ns, pages)
            self._again(over_ns)
        else:
            if not self._was_refused:
                self._owner.balloon_refused(at_ns, NOT_ADDED.format(pages))
            self._was_refused = True
            self._failed(at_ns, progress=False)

    def _is_enough(self, got: int, asked: int) -> bool:
        return got > 0

    def _survives_a_short_count(self) -> bool:
        """`BUG_ON(ret != nr_pages)` (C1.6)."""
        return False

    def _succeeded(self, at_ns: int, batches: int, last_batch_pages: int) -> None:
        self._forgive()
        super()._succeeded(at_ns, batches, last_batch_pages)

    def _failed(self, at_ns: int, *, progress: bool) -> None:
        """Wait 2, 4, 8 s; then cancelled, or (old) for ever on, 32 s at most (C1.7)."""
        self._tries += 1
        if self._tries == TRIES:
            self._stop_short(at_ns)  # the older one goes on, but is as short of its goal
        if self._manner.old or self._tries < TRIES:
            self._delay_s = min(2 * self._delay_s, DELAY_S_MAX)
            next_try_ns = at_ns + self._delay_s * NS_PER_S
            if self.need > 0 and self._delay_s == DELAY_S_MAX and not self._finds_something:
                self._stall(next_try_ns)
            else:
                self._again(next_try_ns)
            return
        self._forgive()
        self._phase = CANCELLED
        self._cancelled_ns = at_ns
        self.next_ns = at_ns + CANCELLED_NS
        if self._owner.waits_for_balloon:
            self.next_ns = max(at_ns, self._owner.barrier_panic_ns(at_ns, self.progress_ns))

    def _other(self, at_ns: int) -> None:
        if self._phase == CANCELLED and self._owner.waits_for_balloon:
            self.next_ns = NEVER
            self._owner.boot_barrier_failed(at_ns)
        else:
            super()._other(at_ns)

    def barrier_began(self) -> None:
        """It may have been cancelled before the kernel came to wait for it."""
        if self._phase == CANCELLED:
            self.next_ns = self._owner.barrier_panic_ns(self._cancelled_ns, self.progress_ns)

    def on_oom(self, pages: int, at_ns: int) -> int:
        """The notifier of some kernels (C1.10): take pages back, 512 a call, and raise its own target; pages got."""
        got = 0
        while got < pages:
            more = self._memory.deflate(OOM_PAGES)
            got += more
            if not more:
                break
        self._goal -= got
        return got
