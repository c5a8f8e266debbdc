"""Automatic memory allocation of Proxmox VE (`pvestatd`).

What        Every 10 s: use 80 % of the host. What is missing or too much is spread over the guests in proportion to
            their shares above their minimum, none by more than 100 MiB a cycle.
Units       Pages of 4 KiB.
Symbols     goal   target_share U - used of the host: above 0 guests grow, below 0 they shrink
Law         Nothing within 10 MiB of the goal. Otherwise every guest of a group is to have
            dynamic_min + (sum of (balloon - dynamic_min) + goal) / guests, within its range and within 100 MiB of what
            it has; what a guest cannot take is spread again. To grow, first guests under pressure (free at most 25 % of
            their minimum, or below their minimum); to shrink, first the others. Only where the first group moves
            nothing at all, everybody.
Reads       used of the host: U - free, and what waiting starts need on top. balloon: what a guest owns (its balloon
            statistics). free: MemFree of the guest.
Guests      A guest that says nothing has no driver to Proxmox and is left out. `balloon` is what it really has, so a
            stuck guest is asked for the same 100 MiB again and again, and the rest of the group makes up for it only as
            far as each cycle's shares go. A guest that claims little free memory is fed first and squeezed last.
Departs     All guests have the same shares (1000). Their `vmstatus` is read without delay.
"""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.controller_parameters import ProxmoxParameters
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


class Proxmox:
    """The balancer with its constants."""

    wakes: Wakes = "guests"
    reads: Reads = "reports"
    first_state = None

    def __init__(self, parameters: ProxmoxParameters) -> None:
        self._p = parameters
        self._most = parameters.most_change_mib * PAGES_PER_MIB
        self._dead_zone = parameters.dead_zone_mib * PAGES_PER_MIB
        self.period_ns = s_to_ns(parameters.period_s)

    def decide(self, view: View, state: None) -> Decision:
        """Let starts in; on a beat of the period spread the goal."""
        headroom = int((1 - self._p.target_share) * view.usable_pages)
        grants, waiting = admit(view.free_pages, view.starts, headroom)
        if view.now_ns % self.period_ns:
            return Decision(tuple(grants), None, after(view.now_ns, self.period_ns))
        used = view.usable_pages - view.free_pages + wanted_pages(waiting)
        goal = int(self._p.target_share * view.usable_pages) - used
        new = self.spread(goal, [one for one in view.domains if one.stats is not None and one.can_balloon])
        target = {one.domid: one.target_kib // KIB_A_PAGE for one in view.domains}
        moves: list[Action] = [MemSet(domid, pages) for domid, pages in new.items() if pages != target[domid]]
        return Decision((*grants, *moves), None, after(view.now_ns, self.period_ns) if moves or view.starts else None)

    def spread(self, goal: int, guests: Sequence[DomainView]) -> dict[int, int]:
        """New sizes by domid [pages], of those that move."""
        if abs(goal) <= self._dead_zone:
            return {}
        free_share = self._p.free_share
        pressed = [
            one
            for one in guests
            if one.stats is None
            or one.stats.free_pages <= free_share * one.dynamic_min_pages
            or one.tot_pages < one.dynamic_min_pages
        ]
        easy = [one for one in guests if one not in pressed]
        new: dict[int, int] = {}
        rest = self._change(new, pressed if goal > 0 else easy, goal, growing=goal > 0)
        if rest >= goal > 0 or rest <= goal < 0:  # no progress: everybody
            self._change(new, guests, rest, growing=goal > 0)
        return new

    def _change(self, new: dict[int, int], group: Sequence[DomainView], goal: int, *, growing: bool) -> int:
        """Spread `goal` over a group, in rounds until nothing moves; what is left of it."""
        rest, done = goal, set[int]()
        for _ in range(len(group) + 1):
            able = [one for one in group if one.domid not in done]
            if not rest or not able:
                break
            share = (sum(new.get(one.domid, one.tot_pages) - one.dynamic_min_pages for one in able) + rest) // len(able)
            changes = 0
            for one in able:
                desired = clamp(one.dynamic_min_pages + share, one.dynamic_min_pages, one.dynamic_max_pages)
                if growing and desired > one.tot_pages:
                    size = min(one.tot_pages + self._most, desired)
                elif desired < one.tot_pages:
                    size = max(one.tot_pages - self._most, desired)
                else:
                    done.add(one.domid)
                    continue
                changes += size - new.get(one.domid, one.tot_pages)
                new[one.domid] = size
            if not changes:
                break
            rest -= changes
        return rest
