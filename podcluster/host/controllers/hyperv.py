"""Dynamic memory of Hyper-V: every guest gets its demand and a buffer; what is short is shared.

What        Every period each guest is given demand (1 + buffer) within its range, as far as the host's memory goes. The
            buffer is best effort: it is what shrinks first.
Units       Pages of 4 KiB.
Symbols     want(b)   clamp(demand (1 + b), dynamic_min, dynamic_max)    budget   what the guests may have together
Law         sum want(buffer) <= budget: everybody gets want(buffer). Else, if sum want(0) <= budget: the largest b for
            which sum want(b) fits. Else everybody gets dynamic_min and the same share of demand above it (all weights
            are equal).
Reads       demand: what the guest's kernel and programs hold, in memory and on swap. Windows reports its commit, of
            which that is a lower bound. budget: what guests own and what is free, less the reserve and less what
            waiting starts need: starting a guest takes from the buffers of the others.
Guests      What a stuck or slow guest holds beyond its target is not there for the others: growth is given only as far
            as free memory goes, so a stuck guest costs those who want more, in the order of domids. A guest that says
            nothing keeps what it has. One that overstates its demand gets it.
Departs     The period is not published. Memory beyond demand and buffer is taken back at once, even where nobody needs
            it. No Smart Paging: it is for restarts, and Xen has no such thing.
"""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.controller_parameters import HypervParameters
from podcluster.host.controllers.starts import admit, wanted_pages
from podcluster.host.controllers.view import (
    KIB_A_PAGE,
    Action,
    Decision,
    DomainView,
    MemSet,
    Reads,
    View,
    Wakes,
    after,
    clamp,
)
from podcluster.units import PAGES_PER_MIB, s_to_ns

HALVINGS = 30  # of the buffer, to find the largest that fits: to a millionth of a percent


def demand_pages(one: DomainView) -> int:
    """What a guest that speaks says it needs."""
    assert one.stats is not None
    return one.stats.used_pages + one.stats.swapped_pages


class Hyperv:
    """The balancer with its constants."""

    wakes: Wakes = "guests"
    reads: Reads = "reports"
    first_state = None

    def __init__(self, parameters: HypervParameters) -> None:
        self._buffer = parameters.buffer_share
        self._reserve = parameters.reserve_mib * PAGES_PER_MIB
        self.period_ns = s_to_ns(parameters.period_s)

    def decide(self, view: View, state: None) -> Decision:
        """Let starts in; on a beat of the period give everybody what it is due, shrinking before growing."""
        grants, waiting = admit(view.free_pages, view.starts, self._reserve)
        if view.now_ns % self.period_ns:
            return Decision(tuple(grants), None, after(view.now_ns, self.period_ns))
        guests = [one for one in view.domains if one.stats is not None and one.can_balloon]
        free = view.free_pages - self._reserve - wanted_pages(waiting)
        due = self.due(guests, free + sum(one.tot_pages for one in guests))
        shrinking: list[Action] = []
        growing: list[Action] = []
        for one, pages in zip(guests, due, strict=True):
            target = one.target_kib // KIB_A_PAGE
            if pages < min(target, one.tot_pages):
                shrinking.append(MemSet(one.domid, pages))
            elif pages > target and free > 0:
                step = min(pages - target, free)
                free -= step
                growing.append(MemSet(one.domid, target + step))
        moves = (*shrinking, *growing)
        busy = bool(moves or view.starts)
        return Decision((*grants, *moves), None, after(view.now_ns, self.period_ns) if busy else None)

    def due(self, guests: Sequence[DomainView], budget: int) -> list[int]:
        """What each guest is to have [pages]."""

        def want(buffer: float) -> list[int]:
            return [
                clamp(int(demand_pages(one) * (1 + buffer)), one.dynamic_min_pages, one.dynamic_max_pages)
                for one in guests
            ]

        wanted = want(self._buffer)
        if sum(wanted) <= budget:
            return wanted
        bare = want(0)
        if sum(bare) <= budget:
            fits, over = 0.0, self._buffer
            for _ in range(HALVINGS):
                middle = (fits + over) / 2
                fits, over = (middle, over) if sum(want(middle)) <= budget else (fits, middle)
            return want(fits)
        least = [one.dynamic_min_pages for one in guests]
        above = sum(bare) - sum(least)
        left = max(0, budget - sum(least))
        if not above:
            return least
        return [low + (high - low) * left // above for low, high in zip(least, bare, strict=True)]
