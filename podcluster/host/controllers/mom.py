"""MoM, the Memory Overcommit Manager of oVirt, with VDSM's balloon policy.

What        While less than `pressure_share` of the host is free (averaged over ten samples), every guest shrinks by 5 %
            a step, but not into what it uses and a share of free memory; otherwise every guest grows by 5 % a step.
Units       Pages of 4 KiB.
Symbols     f   share of the host that is free, averaged    cur   target of a guest    goal   free share a guest keeps
Law         f < 0.20: goal = 0.20 f/0.20, or f - 0.05 once f <= 0.05 (below 0: into the guest's swap);
                      new = max(0.95 cur, dynamic_min, used + goal cur)
            else:     new = min(1.05 cur, dynamic_max)
            Changes of 0.25 % and less are not made.
Reads       f: the host's free memory less what waiting starts need, over U. used: total - free of the guest, page cache
            included, as `mem_unused` (MemFree) has it. Both as averages of the last samples.
Guests      A stuck or slow guest is not noticed: its target moves 5 % a step on from what it was told last, down to
            where its own report stops it. A guest that says nothing is left alone. One that claims to use more than it
            does keeps it; one that claims less is pushed below its working set and swaps.
Departs     `cur` is the target and not what the guest has reached. On the host it is from, growing takes nothing before
            the guest touches it; here a grown target is memory, and a driver that finds none tries again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from podcluster.controller_parameters import MomParameters
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
)
from podcluster.units import s_to_ns


class State(NamedTuple):
    """The last samples, oldest first."""

    free: tuple[int, ...] = ()
    used: Mapping[int, tuple[int, ...]] = {}  # by domid


def mean(samples: tuple[int, ...]) -> float:
    """Their mean."""
    return sum(samples) / len(samples)


class Mom:
    """The manager with its constants."""

    wakes: Wakes = "guests"
    reads: Reads = "reports"
    first_state = State()

    def __init__(self, parameters: MomParameters) -> None:
        self._p = parameters
        self.period_ns = s_to_ns(parameters.period_s)

    def decide(self, view: View, state: State) -> Decision:
        """Let starts in; on a beat of the period take samples and move every guest."""
        grants, waiting = admit(view.free_pages, view.starts, int(self._p.pressure_share * view.usable_pages))
        if view.now_ns % self.period_ns:
            return Decision(tuple(grants), state, after(view.now_ns, self.period_ns))
        free = (*state.free, view.free_pages - wanted_pages(waiting))[-self._p.samples :]
        used = {
            one.domid: (*state.used.get(one.domid, ()), one.stats.total_pages - one.stats.free_pages)[
                -self._p.samples :
            ]
            for one in view.domains
            if one.stats is not None and one.can_balloon
        }
        state = State(free, used)
        free_share = mean(free) / view.usable_pages
        moves: list[Action] = []
        for one in view.domains:
            if one.domid in used:
                cur = one.target_kib // KIB_A_PAGE
                new = self.target(one, cur, mean(used[one.domid]), free_share)
                if new != cur:
                    moves.append(MemSet(one.domid, new))
        steady = not moves and not view.starts and len(free) == self._p.samples
        steady = steady and all(len(set(samples)) == 1 for samples in (free, *used.values()))
        steady = steady and all(len(samples) == self._p.samples for samples in used.values())
        return Decision((*grants, *moves), state, None if steady else after(view.now_ns, self.period_ns))

    def target(self, one: DomainView, cur: int, used: float, free_share: float) -> int:
        """The law for one guest [pages]; `cur` where the change is not worth it."""
        p = self._p
        if free_share < p.pressure_share:
            if free_share <= p.critical_share:
                goal = free_share - p.critical_share
            else:
                goal = p.guest_free_share * free_share / p.pressure_share
            new = max(cur * (1 - p.change_share), one.dynamic_min_pages, used + goal * cur)
            new = min(new, cur)
        else:
            new = max(cur, min(cur * (1 + p.change_share), one.dynamic_max_pages))
        return int(new) if abs(new - cur) > p.least_change_share * cur else cur
