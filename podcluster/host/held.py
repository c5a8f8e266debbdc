"""What services and applications of a guest hold, in memory and on swap, and what that costs.

What        `HeldBooks`.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     held   what they hold: `resident` of it in memory, the rest on swap
            room   pages that are neither the kernel's nor ballooned
            spare  pages that the OS keeps available rather than take something back from swap (Windows)
Invariants  [GD-1] held = resident + swapped, 0 <= resident <= room, floor <= held <= room + swap
            [GD-3] what goes out is moved by the device when it goes, what comes back when it comes [SW-1]; nobody comes
                   back unwanted: pages that are held and idle stay on swap.
Departs     What is held beyond room is on swap at once, whatever the device has yet to do; the wait for it is counted
            [SW-2]. What does not fit on swap either is never had: an application is killed, once per excursion of W
            beyond room and swap, and the domain lives; what it held is not given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from podcluster.config import SwapConfig
from podcluster.host import follow
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.stretches import time_in
from podcluster.host.swap import Rows, SwapDevice, Thrashing
from podcluster.records.demand import Demand
from podcluster.records.migration import GuestState
from podcluster.units import PAGES_PER_MIB, s_to_ns


@dataclass(frozen=True, slots=True)
class SwapTotals:
    """What swap has cost a guest until some instant."""

    ns: int  # time it waited for the device, or lost to misses
    in_pages: int
    out_pages: int


NO_SWAP: Final = SwapTotals(0, 0, 0)


class HeldBooks:
    """The books of one guest."""

    def __init__(
        self,
        memory: GuestMemory,
        demand: Demand,
        swap: SwapConfig,
        *,
        on_kill: Callable[[int], None],
        spare_pages: int = 0,
    ) -> None:
        self._memory = memory
        self._demand = demand
        self.on_kill = on_kill
        self.on_oom: Callable[[int, int], int] | None = None
        """Takes pages back from the balloon rather than see an application killed (C1.10): `(pages, at_ns)` to got."""
        self._spare = spare_pages
        self.swap_pages = swap.mib * PAGES_PER_MIB
        self._device = SwapDevice(
            latency_us=swap.latency_us, mib_per_s=swap.mib_per_s, cluster_pages=swap.cluster_pages
        )
        self._thrashing = Thrashing(self._device.miss_ns, s_to_ns(swap.reuse_s))
        self.held = 0
        self.floor = 0  # pages held whatever W says
        self.killed = False  # an application was, and W has not come down since
        self.kills = 0
        self.swapped_peak = 0
        self._in_pages = self._out_pages = 0
        self._wanted_since_ns = -1  # W counts from then on; -1: not yet
        # While something was on swap: what was in memory of W, the most that could be had of it, and from when to when.
        self._short = Rows(4)
        # And now: since when, what is in memory, the most.
        self._open: tuple[int, int, int] | None = None

    @property
    def most(self) -> int:
        """Most that can be held: in memory and on swap."""
        return self._memory.room + self.swap_pages

    @property
    def swapped(self) -> int:
        """Pages on swap."""
        return self.held - self._memory.resident

    @property
    def swaps(self) -> bool:
        """Something is on swap."""
        return self.held > self._memory.resident

    @property
    def mark(self) -> int:
        """What W beyond it moves pages: what is in memory, while what is on swap could come back; else what is held."""
        memory = self._memory
        return memory.resident if self.swaps and memory.available > self._spare else self.held

    def fits(self, pages: int) -> bool:
        """Whether so many more are all in memory, and none of them on the device."""
        return not self.swaps and pages <= self._memory.room - self.held

    def kills_for(self, pages: int) -> bool:
        """Whether so many more are not to be had."""
        return pages > self.most - self.held

    def takes_for(self, pages: int) -> bool:
        """Whether so many more would take pages back from the balloon first, and so from the host's heap (C1.10)."""
        return self.on_oom is not None and self.kills_for(pages)

    # -- for a kernel ------------------------------------------------------------------------------------------------

    @property
    def books(self) -> tuple[int, ...]:
        """What following a demand changes, in the order of follow.py."""
        busy_from, busy_to = self._device.latest or (-1, -1)
        open_at, open_in, open_most = self._open or (-1, 0, 0)
        return (
            self.held, self.killed, 0, self.swapped_peak, self._in_pages, self._out_pages,
            self._device.free_ns, busy_from, busy_to, 0, open_at, open_in, open_most, 0,
        )  # fmt: skip

    @property
    def limits(self) -> tuple[int, ...]:
        """What it does not change."""
        device = self._device
        return (
            self.floor, self.swap_pages, self._spare, self._wanted_since_ns >= 0, self.on_oom is not None,
            device.latency_ns, device.cluster_pages,
        )  # fmt: skip

    @property
    def pages_per_s(self) -> float:
        """What the device moves in a row."""
        return self._device.pages_per_s

    def take(self, s: Sequence[int], told: follow.Told) -> None:
        """The books as a kernel left them, and what it has told."""
        (
            self.held, killed, kills, self.swapped_peak, self._in_pages, self._out_pages, self._device.free_ns,
            busy_from, busy_to, busy, open_at, open_in, open_most, short,
        ) = s[follow.HELD : follow.SHORT + 1]  # fmt: skip
        self.killed = bool(killed)
        self._open = (open_at, open_in, open_most) if open_at >= 0 else None
        self._short.extend(told.short, short)
        self._device.earlier.extend(told.busy, busy)
        self._device.latest = (busy_from, busy_to) if busy_from >= 0 else None
        self.kills += kills
        for at_ns in told.kills[:kills].tolist():
            self.on_kill(at_ns)

    # -- more and less -----------------------------------------------------------------------------------------------

    def want_from(self, at_ns: int) -> None:
        """The guest is up: from here it wants what the curve says."""
        self._wanted_since_ns = at_ns
        self._settle(at_ns)

    def grow(self, pages: int, at_ns: int) -> int:
        """Have `pages` more than `mark` at `at_ns`: from swap what is there, then new ones; pages done, fewer only
        where the guest died of it (an application killed is not fewer).
        """
        memory = self._memory
        back = min(pages, self.swapped, memory.available - self._spare)
        if back > 0:
            done = memory.hold(back)
            if memory.crashed:
                return done
            self._in_pages += back
            self._device.request(back, at_ns)
            self._settle(at_ns)
        else:
            back = 0
        if not back or not self.swaps:
            done = self._grow_new(pages - back, at_ns)
            if memory.crashed:
                return back + done
        return pages

    def _grow_new(self, pages: int, at_ns: int) -> int:
        memory = self._memory
        if self.on_oom is not None and self.kills_for(pages):
            self.on_oom(pages - (self.most - self.held), at_ns)
        grown = max(0, min(pages, self.most - self.held))
        resident = min(grown, memory.available)
        done = memory.hold(resident)
        if memory.crashed:
            return done
        self.held += grown
        self._send_out(grown - resident, at_ns)
        if grown < pages and not self.killed:
            self.killed = True
            self.kills += 1
            self.on_kill(at_ns)
        return done

    def keep(self, pages: int) -> None:
        """So many more of what is held stay so whatever W says; all of it, if not as many were to be had."""
        self.floor = min(self.floor + pages, self.held)

    def shrink_to(self, pages: int, at_ns: int) -> bool:
        """Hold no more than `pages` and the floor; what is on swap goes first. Whether anything went."""
        pages = max(pages, self.floor)
        if pages >= self.held:
            return False
        self.held = pages
        self._memory.release(max(0, self._memory.resident - pages))
        self._settle(at_ns)
        return True

    def room_changed(self, at_ns: int) -> None:
        """There is more room or less."""
        self._settle(at_ns)

    @property
    def may_page_out(self) -> bool:
        """Something is in memory, and swap has room for it."""
        return self._memory.resident > 0 and self.swapped < self.swap_pages

    def page_out(self, pages: int, at_ns: int, within_ns: int) -> int:
        """Push pages out, as many as the device takes in that time; pages gone."""
        pages = min(
            pages,
            self._memory.resident,
            self.swap_pages - self.swapped,
            self._device.pages_within(at_ns, within_ns),
        )
        if pages > 0:
            self._memory.release(pages)
            self._send_out(pages, at_ns)
        return max(0, pages)

    def _send_out(self, pages: int, at_ns: int) -> None:
        if pages:
            self._out_pages += pages
            self.swapped_peak = max(self.swapped_peak, self.swapped)
            self._device.request(pages, at_ns)
        self._settle(at_ns)

    # -- on its way to another host ----------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """These books as fields of a GuestState."""
        return {
            "held": self.held,
            "floor": self.floor,
            "killed": self.killed,
            "swap_free_ns": self._device.free_ns,
        }

    def unpack(self, state: GuestState, at_ns: int) -> None:
        """Go on with what is held, the swap device where it was; what swap has cost is counted anew."""
        self.held, self.floor, self.killed = state.held, state.floor, state.killed
        self.swapped_peak = self.swapped
        self._device.free_ns = state.swap_free_ns
        self.want_from(at_ns)

    # -- what it costs -----------------------------------------------------------------------------------------------

    def totals(self, end_ns: int) -> SwapTotals:
        """What swap has cost until `end_ns`."""
        self._settle(end_ns)
        if self._device.latest is None and self._open is None and not len(self._short.all):
            return NO_SWAP
        busy = self._device.busy
        spans = self._short.and_then((*self._open[1:], self._open[0], end_ns) if self._open is not None else None)
        waited_ns = time_in(busy.reshape(-1), end_ns)
        lost_ns = self._thrashing.lost_ns(self._demand, spans, busy)
        misses = round(lost_ns / self._device.miss_ns) if lost_ns else 0
        return SwapTotals(waited_ns + round(lost_ns), self._in_pages + misses, self._out_pages + misses)

    def _settle(self, at_ns: int) -> None:
        """What is in memory, or how much can be had, may be other than before."""
        memory = self._memory
        now = None
        if self.swaps and self._wanted_since_ns >= 0:
            kernel_pages = memory.kernel_pages
            now = (at_ns, memory.resident + kernel_pages, self.most + kernel_pages)
        before = self._open
        if now is not None and before is not None and now[1:] == before[1:]:
            return
        if before is not None and before[0] < at_ns:
            self._short.append((before[1], before[2], before[0], at_ns))
        self._open = now
