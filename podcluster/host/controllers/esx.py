"""ESX: memory by shares, with a tax on idle pages, and four states of free memory.

What        Every 15 s: while enough is free, guests that pay most per page grow; below that, memory is taken from those
            that pay least, by ballooning and then beyond.
Units       Pages of 4 KiB.
Symbols     P   what a guest has    A   its active pages, f = A / P    S   its shares: its dynamic_max
            k   1 / (1 - tax), what an idle page costs    rho   S / (P (f + k (1 - f))) = S / (A + k (P - A))
            minFree   6 % of the first 4 GiB, 4 % of the next 8, 2 % of the next 16, 1 % of the rest
Law         All guests are to pay one rho for what there is: P = A + (S/rho - A) / k where they have idle pages, else
            S/rho, within their range (min-funding revocation, carried to its end in one step).
            high   guests that have less grow, out of what is free above minFree; nobody shrinks
            soft   those that have more shrink until minFree is free, none beyond the balloon's cap; nobody grows
            hard   the same without the cap, down to dynamic_min
            low    the same, and no guest is started
            A state is left downwards at its threshold and upwards only at the next higher one.
Reads       A: ESX samples a few pages of each guest and counts those that were used; Xen samples nothing. A is taken
            from W(t), what the guest wants to use, at the end of each sampling period, without sampling error: the
            largest of the last value, a fast and a slow moving average, as in Waldspurger's paper.
Guests      Sampling needs no word of the guest, so nobody can lie about it; podcluster's lying guests lie all the same.
            A stuck guest keeps what it has; in hard and low ESX would swap it from the host, which Xen cannot, so here
            it is asked in vain, and the others are asked next time, free memory being what decides. Growth is never
            more than what is free, so a slow guest delays the others' growth and does no more.
Departs     No swapping or compressing by the host. U stands for RAM in minFree. The averages' weights are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from podcluster.controller_parameters import EsxParameters
from podcluster.host.controllers.starts import admit, wanted_pages
from podcluster.host.controllers.view import KIB_A_PAGE, Action, Decision, DomainView, MemSet, Reads, View, Wakes, after
from podcluster.units import PAGES_PER_GIB, s_to_ns

HIGH, SOFT, HARD, LOW = range(4)
MIN_FREE: Final = ((4, 0.06), (8, 0.04), (16, 0.02), (None, 0.01))  # GiB of RAM: share of them
FAST: Final = 0.5  # weight of the last sample in the averages; no source
SLOW: Final = 0.1
HALVINGS: Final = 60


class Activity(NamedTuple):
    """Samples of one guest [pages]."""

    last: float
    fast: float
    slow: float

    @property
    def pages(self) -> float:
        """A."""
        return max(self)


class State(NamedTuple):
    """The state of free memory, and what was sampled."""

    level: int = HIGH
    active: Mapping[int, Activity] = {}  # by domid


def min_free_pages(ram_pages: int) -> int:
    """Free memory that a host of this size is to keep: minFree."""
    left, total = ram_pages, 0.0
    for gib, share in MIN_FREE:
        part = left if gib is None else min(left, gib * PAGES_PER_GIB)
        total += share * part
        left -= part
    return int(total)


class Esx:
    """The allocator with its constants."""

    wakes: Wakes = "guests"
    reads: Reads = "reports"
    first_state = State()

    def __init__(self, parameters: EsxParameters) -> None:
        self._p = parameters
        self._k = 1 / (1 - parameters.tax)
        self._sample_ns = s_to_ns(parameters.sample_s)
        self.period_ns = s_to_ns(parameters.period_s)

    def decide(self, view: View, state: State) -> Decision:
        """Let starts in; at the end of a sampling period sample; on a beat of the period reallocate."""
        min_free = int(self._p.clear_share * min_free_pages(view.usable_pages))
        grants, waiting = admit(view.free_pages, view.starts if state.level < LOW else (), min_free)
        if state.level == LOW:
            waiting = list(view.starts)
        if view.now_ns % self.period_ns:
            return Decision(tuple(grants), state, after(view.now_ns, self.period_ns))
        guests = [one for one in view.domains if one.stats is not None and one.can_balloon]
        free = view.free_pages - wanted_pages(waiting)
        state = State(self.level(state.level, free, min_free_pages(view.usable_pages)), self._sample(view, state))
        sizes = [one.target_kib // KIB_A_PAGE for one in guests]
        fair = self.fair(guests, sizes, state, sum(sizes) + free - min_free)
        moves: list[Action] = []
        spare = free - min_free
        for one, cur, pages in zip(guests, sizes, fair, strict=True):
            if state.level == HIGH and pages > cur and spare > 0:
                step = min(pages - cur, spare)
                spare -= step
                moves.append(MemSet(one.domid, cur + step))
            elif state.level != HIGH and pages < cur:
                moves.append(MemSet(one.domid, pages))
        return Decision((*grants, *moves), state, after(view.now_ns, self.period_ns))

    def level(self, before: int, free: int, min_free: int) -> int:
        """The state of free memory, with its hysteresis."""
        p = self._p
        down = (p.soft_share, p.hard_share, p.low_share)  # below: at least soft, hard, low
        up = (p.clear_share, p.soft_share, p.hard_share)  # reached: at most high, soft, hard
        level = before
        while level < LOW and free < down[level] * min_free:
            level += 1
        while level > HIGH and free >= up[level - 1] * min_free:
            level -= 1
        return level

    def _sample(self, view: View, state: State) -> Mapping[int, Activity]:
        """New samples at the end of a sampling period; a guest is sampled first when it is first seen."""
        active: dict[int, Activity] = {}
        due = view.now_ns % self._sample_ns < self.period_ns
        for one in view.domains:
            if one.stats is None:
                continue
            before = state.active.get(one.domid)
            if before is not None and not due:
                active[one.domid] = before
                continue
            pages = float(min(one.stats.wanted_pages, one.stats.total_pages))
            if before is None:
                active[one.domid] = Activity(pages, pages, pages)
            else:
                fast = before.fast + FAST * (pages - before.fast)
                active[one.domid] = Activity(pages, fast, before.slow + SLOW * (pages - before.slow))
        return active

    def fair(self, guests: Sequence[DomainView], sizes: Sequence[int], state: State, budget: int) -> list[int]:
        """What each guest is to have where all pay one price for `budget` pages together."""
        capped = state.level <= SOFT
        wanted = []  # of each: what is active, the least and the most that it is to have
        for one, cur in zip(guests, sizes, strict=True):
            balloon_floor = int((1 - self._p.balloon_share) * one.static_max_pages) if capped else 0
            floor = min(max(one.dynamic_min_pages, balloon_floor), max(cur, one.dynamic_min_pages))
            wanted.append((state.active[one.domid].pages, floor, one.dynamic_max_pages))
        k = self._k

        def bought(funds: float) -> list[int]:
            """For S/rho = funds x S."""
            found = []
            for active, floor, most in wanted:
                pays = funds * most
                pages = pays if pays < active else active + (pays - active) / k
                found.append(int(min(max(pages, floor), most)))
            return found

        # A page costs k at most, so with funds k everybody can have all of it.
        low, high = 0.0, self._k
        if sum(bought(high)) <= budget:
            return bought(high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(bought(middle)) <= budget else (low, middle)
        return bought(low)
