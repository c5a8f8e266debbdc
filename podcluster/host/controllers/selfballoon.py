"""Self-ballooning: the guest's own kernel moves its target; nobody balances anything (H6).

What        Each guest by itself, every 5 s: towards what it has committed and a reserve, an eighth of the way down, all
            of the way up.
Units       Pages of 4 KiB.
Symbols     cur   RAM that the guest has    goal   committed + reserve
Law         cur > goal: new = cur - (cur - goal) / 8;  cur < goal: new = goal;  never below the floor, which is a curve
            over the guest's RAM: 8 MiB + 1/2 below 128 MiB, 40 + 1/4 below 512, 104 + 1/8 below 2048, else 296 + 1/32.
Reads       committed (Committed_AS): what kernel, services and applications hold, in memory and on swap. Memory that is
            promised to a process and never touched has no trace in any demand that podcluster knows, so committed is a
            lower bound here. reserve: 10 % of the RAM it booted with.
Guests      It runs in the guest. Where the driver is stuck or slow, the target moves and the memory does not; a guest
            that lies about its memory does not lie to its own kernel, and one of another system than Linux has no
            self-ballooning at all. Growth that the host has no memory for is the driver's to retry.
Starts      At what is free, between dynamic_min and dynamic_max, with the limit at dynamic_max: later growth asks
            nobody but Xen's heap.
Departs     Frontswap and cleancache (H6.2) are not modelled, so nothing of what is swapped lies in the host.
"""

from __future__ import annotations

from podcluster.controller_parameters import SelfballoonParameters
from podcluster.host.controllers.starts import admit
from podcluster.host.controllers.view import Action, Decision, Limit, OwnTarget, Reads, View, Wakes, after
from podcluster.host.guest_stats import GuestStats
from podcluster.units import PAGES_PER_MIB, s_to_ns

SLACK_PAGES = 256
CURVE = ((128, 8, 2), (512, 40, 4), (2048, 104, 8), (None, 296, 32))  # up to MiB: MiB + RAM / divisor


def floor_pages(ram_pages: int) -> int:
    """The kernel's own least usable memory of a guest with so much RAM [pages]."""
    for below_mib, base_mib, divisor in CURVE:
        if below_mib is None or ram_pages < below_mib * PAGES_PER_MIB:
            return base_mib * PAGES_PER_MIB + ram_pages // divisor
    raise AssertionError("the last line of the curve has no end")


class Selfballoon:
    """All guests' kernels, looked at together."""

    wakes: Wakes = "guests"
    reads: Reads = "guests"
    first_state = None

    def __init__(self, parameters: SelfballoonParameters) -> None:
        self._p = parameters
        self.period_ns = s_to_ns(parameters.period_s)

    def decide(self, view: View, state: None) -> Decision:
        """Let starts in with their limit raised; on a beat of the period every guest looks at itself."""
        grants, _ = admit(view.free_pages, view.starts, 0)
        # The toolstack of a self-ballooning guest leaves it its whole range.
        limits = [
            Limit(one.domid, one.dynamic_max_pages + SLACK_PAGES)
            for one in view.domains
            if one.limit_pages < one.dynamic_max_pages + SLACK_PAGES
        ]
        if view.now_ns % self.period_ns:
            return Decision((*grants, *limits), None, after(view.now_ns, self.period_ns))
        moves: list[Action] = []
        for one in view.domains:
            if one.stats is not None and one.can_balloon and one.linux:
                new = self.target(one.stats, one.static_max_pages)
                if new != one.stats.total_pages:
                    moves.append(OwnTarget(one.domid, new))
        busy = bool(moves or view.starts)
        return Decision((*grants, *limits, *moves), None, after(view.now_ns, self.period_ns) if busy else None)

    def target(self, stats: GuestStats, ram_pages: int) -> int:
        """The law [pages of RAM]; `ram_pages` is what the guest booted with."""
        p = self._p
        cur = stats.total_pages
        goal = stats.used_pages + stats.swapped_pages + int(p.reserve_share * ram_pages)
        new = cur - (cur - goal) // p.down_hysteresis if cur > goal else cur + (goal - cur) // p.up_hysteresis
        least = p.least_usable_mib * PAGES_PER_MIB or floor_pages(ram_pages)
        return min(max(new, least), ram_pages)
