"""Demand: what services and applications of a guest hold over time, in memory and on swap.

What        `DemandStream` lets held memory follow the demand; `HeldBooks` keeps what is held, what of it is on swap,
            and the time swap costs.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     W(t)   what the guest as a whole wants to use, its kernel included
            H(t)   max of W over the last hold_ns, no further back than the guest was up: what it holds (G3)
            room   pages that are neither the kernel's nor ballooned
Invariants  [GD-1] held = resident + swapped, resident = min(held, room) once page cache is dropped, held <= room + swap
            [GD-2] within a piece of the curve, page i beyond what was held is written when W comes to it, and not
                   before the guest, writing at its own speed from the start of the piece, gets there; both in integers,
                   so that a piece may be cut anywhere (GS-1).
Departs     H falls at samples of the curve and hold_ns after them (where it is exact), not in between. What is held
            beyond room is on swap at once; the guest counts as swapping while moving those pages takes the device, and
            while W is more than room. What does not fit on swap either is never had: an application is killed, once per
            excursion of W beyond room and swap, and the domain lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from podcluster.host.guest_memory import GuestMemory
from podcluster.host.streams import BATCH_PAGES, NEVER
from podcluster.records import Demand
from podcluster.units import NS_PER_S

Interval = tuple[int, int]
"""[from, to) in ns."""


class HeldBooks:
    """What services and applications hold, in memory and on swap, and the time it costs."""

    def __init__(
        self,
        memory: GuestMemory,
        demand: Demand,
        *,
        swap_pages: int,
        swap_pages_per_s: int,
        on_kill: Callable[[int], None],
    ) -> None:
        self._memory = memory
        self._demand = demand
        self._on_kill = on_kill
        self._swap_pages_per_s = swap_pages_per_s
        self.swap_pages = swap_pages
        self.held = 0
        self.floor = 0  # pages held whatever W says
        self.killed = False  # an application was, and W has not come down since
        self.kills = 0
        self.swapped_peak = 0
        self._moving: list[Interval] = []  # when the device moves pages
        self._thrashing: list[Interval] = []  # when W was more than room, as far as settled
        self._since_ns = -1  # something is on swap since then and not settled; -1: nothing is
        self._threshold = 0  # W that room allowed since then

    @property
    def most(self) -> int:
        """Most that can be held: in memory and on swap."""
        return self._memory.room + self.swap_pages

    @property
    def swapped(self) -> int:
        """Pages on swap."""
        return self.held - self._memory.resident

    def fits(self, pages: int) -> bool:
        """Whether so many more are all in memory."""
        return pages <= self._memory.room - self.held

    def grow(self, pages: int, at_ns: int) -> int:
        """Hold `pages` more at `at_ns`; pages done, fewer only where the guest died of it (an application killed is not
        fewer).
        """
        wanted, pages = pages, max(0, min(pages, self.most - self.held))
        resident = min(pages, self._memory.available)
        done = self._memory.hold(resident)
        if self._memory.crashed:
            return done
        self.held += pages
        if pages > resident:
            self.swapped_peak = max(self.swapped_peak, self.swapped)
            self._move(pages - resident, at_ns)
            if self._since_ns < 0:
                self._mark(at_ns)
        if pages < wanted and not self.killed:
            self.killed = True
            self.kills += 1
            self._on_kill(at_ns)
        return wanted

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
        """There is more room: what fits comes back from swap."""
        back = min(self.swapped, self._memory.available)
        if back > 0:
            self._memory.hold(back)
        self._settle(at_ns)

    def swap_ns(self, end_ns: int) -> int:
        """Time until `end_ns` that the guest spent swapping."""
        self._settle(end_ns)
        return union_length([*self._moving, *self._thrashing], end_ns)

    def _move(self, pages: int, at_ns: int) -> None:
        """The device works off `pages` more, after what it is at."""
        start_ns = end_ns = at_ns
        if self._moving and self._moving[-1][1] >= at_ns:
            start_ns, end_ns = self._moving.pop()
        self._moving.append((start_ns, end_ns + pages * NS_PER_S // self._swap_pages_per_s))

    def _mark(self, at_ns: int) -> None:
        self._since_ns = at_ns
        self._threshold = self._memory.room + self._memory.kernel_pages

    def _settle(self, at_ns: int) -> None:
        if self._since_ns < 0:
            return
        self._thrashing += above(self._demand, self._threshold, self._since_ns, at_ns)
        self._since_ns = -1
        if self.swapped > 0:
            self._mark(at_ns)


class DemandStream:
    """Held memory follows the demand [GD-2]."""

    def __init__(
        self,
        rank: int,
        memory: GuestMemory,
        held: HeldBooks,
        demand: Demand,
        *,
        hold_ns: int,
        pages_per_s: int,
        on_death: Callable[[int], None],
        on_release: Callable[[int], None],
    ) -> None:
        """`hold_ns` -1: since boot. `pages_per_s`: how fast the guest writes."""
        self.rank = rank
        self.next_ns = NEVER
        self._memory = memory
        self._lock = memory.lock
        self._held = held
        self._demand = demand
        self._t = demand.t_ns
        self._w = demand.pages
        self._hold_ns = hold_ns
        self._pages_per_s = pages_per_s
        self._on_death = on_death
        self._on_release = on_release
        self._start_ns = NEVER
        self._window: deque[int] = deque()  # samples in the window, W falling: the first is the largest
        self._entered = 0  # samples that ever were in the window
        self._left = 0  # samples older than the window
        # The piece being followed, on the line between samples k and k + 1.
        self._k = 0
        self._from_ns = 0
        self._until_ns = 0
        self._base = 0  # W that what was held at its start amounts to
        self._growth = 0  # pages to grow by in it
        self._grown = 0
        self._late_ns = 0  # how long Xen has held it up in this piece

    def touches_heap(self) -> bool:
        """Never: populating takes from the domain's own cache."""
        return False

    def enters_xen(self) -> bool:
        """While it grows; the end of a piece is nothing to Xen."""
        return self._lock.faults and self._grown < self._growth

    def start(self, at_ns: int) -> None:
        """The guest is up: from here it wants what the curve says."""
        self._start_ns = at_ns
        self._plan(at_ns)

    def run(self, last_ns: int, *, single: bool) -> None:
        """Grow batch by batch; at the end of a piece go on to the next."""
        while self.next_ns <= last_ns:
            if self._grown >= self._growth:
                shrank = self._plan(self.next_ns)
                if shrank or single or self._lock.faults:
                    return
                continue
            first = self._grown
            upto = min(first + BATCH_PAGES, self._growth)
            if not (single or self._lock.faults) and self._held.fits(self._growth - first):
                upto = self._batched_by(last_ns)
            began_ns = self._lock.enter(self.next_ns)
            done = self._held.grow(upto - first, began_ns)
            late_ns = self._lock.leave()
            if self._memory.crashed:
                self._on_death(max(began_ns, self._due((first + done) // BATCH_PAGES * BATCH_PAGES)))
                return
            self._late_ns += late_ns
            self._grown = upto
            self._next_batch(began_ns)
            if single:
                return

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _plan(self, now_ns: int) -> bool:
        """Begin the piece that `now_ns` is in; whether held memory shrank."""
        held, kernel_pages = self._held, self._memory.kernel_pages
        shrank = self._hold_ns >= 0 and held.shrink_to(self._window_max(now_ns) - kernel_pages, now_ns)
        if held.killed and self._demand.at(now_ns) - kernel_pages <= held.most:
            held.killed = False
        self._from_ns = now_ns
        self._k = int(np.searchsorted(self._t, now_ns, side="right")) - 1
        self._base, self._grown, self._late_ns = held.held + kernel_pages, 0, 0
        self._until_ns = self._piece_end(now_ns)
        self._growth = 0 if held.killed else self._count_growth()
        self._next_batch(now_ns)
        if shrank:
            self._on_release(now_ns)
        return shrank

    def _window_max(self, now_ns: int) -> int:
        """Max of W over the last hold_ns, no further back than the guest was up."""
        low_ns = max(now_ns - self._hold_ns, self._start_ns)
        while self._entered < len(self._t) and self._t[self._entered] <= now_ns:
            while self._window and self._w[self._window[-1]] <= self._w[self._entered]:
                self._window.pop()
            self._window.append(self._entered)
            self._entered += 1
        while self._window and self._t[self._window[0]] < low_ns:
            self._window.popleft()
        most = max(self._demand.at(low_ns), self._demand.at(now_ns))
        return max(most, int(self._w[self._window[0]])) if self._window else most

    def _piece_end(self, now_ns: int) -> int:
        """When the line changes next, or a sample leaves the window; held since boot: when W may first pass what is
        held.
        """
        k = self._k
        if self._hold_ns < 0 and not self._held.killed and (k + 1 == len(self._t) or self._w[k + 1] <= self._base):
            if self._w[k] > self._base and k + 1 < len(self._t):
                return int(self._t[k + 1])
            later = np.flatnonzero(self._w[k + 1 :] > self._base)
            return int(self._t[k + int(later[0])]) if len(later) else NEVER
        end_ns = int(self._t[k + 1]) if k + 1 < len(self._t) else NEVER
        if self._hold_ns >= 0:
            while self._left < len(self._t) and self._t[self._left] + self._hold_ns <= now_ns:
                self._left += 1
            if self._left < len(self._t):
                end_ns = min(end_ns, int(self._t[self._left]) + self._hold_ns)
        return end_ns

    def _line(self) -> tuple[int, int, int, int]:
        """(ta, wa, tb, wb): W between samples k and k + 1, flat beyond the last."""
        k = self._k
        ta, wa = int(self._t[k]), int(self._w[k])
        if k + 1 == len(self._t):
            return ta, wa, ta + 1, wa
        return ta, wa, int(self._t[k + 1]), int(self._w[k + 1])

    def _count_growth(self) -> int:
        """Pages that the piece adds to what is held."""
        ta, wa, tb, wb = self._line()
        if wb >= wa:
            return max(0, wa + (wb - wa) * (min(self._until_ns, tb) - ta) // (tb - ta) - self._base)
        # W falls: page i is had only if W is still above it when the guest gets there.
        low, high = 0, max(0, self._demand.at(self._from_ns) - self._base)
        while low < high:
            middle = (low + high) // 2
            if self._demand.at(self._reached(middle)) > self._base + middle:
                low = middle + 1
            else:
                high = middle
        return low

    def _reached(self, page: int) -> int:
        """When the guest, writing as fast as it can, is at page number `page` of the growth."""
        return self._from_ns + self._late_ns + page * NS_PER_S // self._pages_per_s

    def _due(self, page: int) -> int:
        """When page number `page` of the growth is written [GD-2]."""
        ta, wa, tb, wb = self._line()
        rise = self._base + 1 + page - wa
        wanted_ns = ta - (-rise * (tb - ta) // (wb - wa)) if wb > wa and rise > 0 else ta
        return max(self._reached(page), wanted_ns)

    def _next_batch(self, now_ns: int) -> None:
        due_ns = self._due(self._grown) if self._grown < self._growth else NEVER
        if due_ns >= self._until_ns:  # this piece is over first: the next one sees what is missing
            self._growth = self._grown
            due_ns = self._until_ns
        self.next_ns = max(now_ns, due_ns)

    def _batched_by(self, last_ns: int) -> int:
        """Pages of the growth in batches due by `last_ns` and before the piece ends; the next batch is."""
        last_ns = min(last_ns, self._until_ns - 1)
        low, high = self._grown // BATCH_PAGES + 1, -(-self._growth // BATCH_PAGES)
        while low < high:
            middle = (low + high) // 2
            if self._due(middle * BATCH_PAGES) <= last_ns:
                low = middle + 1
            else:
                high = middle
        return min(low * BATCH_PAGES, self._growth)


def above(demand: Demand, threshold_pages: int, from_ns: int, to_ns: int) -> list[Interval]:
    """Where W(t) > threshold in [from, to), in ascending order."""
    found: list[Interval] = []
    if to_ns <= from_ns:
        return found
    t, w = demand.t_ns, demand.pages
    first = max(0, int(np.searchsorted(t, from_ns, side="right")) - 1)
    last = int(np.searchsorted(t, to_ns, side="left"))
    if int(w[first : last + 1].max()) <= threshold_pages:
        return found
    for k in range(first, last):
        ta, wa = int(t[k]), int(w[k])
        tb, wb = (int(t[k + 1]), int(w[k + 1])) if k + 1 < len(t) else (max(to_ns, ta + 1), wa)
        low, high = ta, tb
        if wb > wa:
            low = ta - (-max(0, threshold_pages + 1 - wa) * (tb - ta) // (wb - wa))
        elif wb < wa:
            high = ta + (wa - threshold_pages - 1) * (tb - ta) // (wa - wb) + 1 if wa > threshold_pages else ta
        elif wa <= threshold_pages:
            continue
        low, high = max(low, from_ns), min(high, tb, to_ns)
        if low < high:
            if found and found[-1][1] == low:
                low = found.pop()[0]
            found.append((low, high))
    return found


def union_length(intervals: Iterable[Interval], end_ns: int) -> int:
    """Length of the union of intervals, cut off at `end_ns`."""
    total, covered_to = 0, -1
    for low, high in sorted(intervals):
        low, high = max(low, covered_to), min(high, end_ns)
        if low < high:
            total += high - low
            covered_to = high
    return total
