"""How good a packing is: density, empty hosts, stranded memory, compaction.

What        The first three of hosts' views at an instant (a run has their means over time: `runs.packing_density_mean`,
            `runs.empty_hosts_mean`, `runs.stranded_mean`). `compaction` asks how few hosts a policy could do with.
Units       Pages; shares of 1.
Source      Verma et al., "Evaluating job packing in warehouse-scale computing" (CLUSTER 2014), for compaction: fewest
            machines by bisection, over many orders of the same requests. Density and stranding as operators use them.
Departs     What the toolstack keeps free is no part of a host's capacity.
"""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.placement.hosts import Stay, unplaced
from podcluster.placement.policy import Policy
from podcluster.placement.rules import Rules
from podcluster.records.hosts import Ask, HostView
from podcluster.rng import stream


def density(views: Sequence[HostView], reserve_pages: int = 0) -> float | None:
    """Committed memory over capacity of the hosts that are not empty; None if all are."""
    used = [view for view in views if view.committed_pages > reserve_pages]
    if not used:
        return None
    committed = sum(view.committed_pages - reserve_pages for view in used)
    return committed / sum(view.usable_pages - reserve_pages for view in used)


def empty_share(views: Sequence[HostView], reserve_pages: int = 0) -> float:
    """Share of hosts with nothing on them."""
    return sum(view.committed_pages <= reserve_pages for view in views) / len(views)


def stranded_pages(views: Sequence[HostView], smallest: Ask, rules: Rules) -> int:
    """Uncommitted memory of hosts whose vCPUs left are too few for the smallest machine."""
    return sum(view.usable_pages - view.committed_pages for view in views if rules.vcpus_left(view) < smallest.vcpus)


def smallest_of(asks: Sequence[Ask]) -> Ask:
    """The machine with least need, and least vCPUs among those."""
    return min(asks, key=lambda ask: (ask.need_pages, ask.vcpus))


def fewest_hosts(
    asks: Sequence[Ask],
    usable_pages: int,
    policy: Policy,
    reserve_pages: int = 0,
    cpus: int = 0,
    *,
    strict: bool = False,
) -> int | None:
    """Fewest equal hosts on which the policy places all, by bisection; None if not even one host each is enough.

    A heuristic packer may fail on more hosts than it needs: this is the count that bisection comes to.
    """
    stays = [Stay(ask, 0, None) for ask in asks]

    def places_all(hosts: int) -> bool:
        return not unplaced(stays, hosts, usable_pages, policy, reserve_pages, cpus=cpus, strict=strict)

    low, high = 0, len(asks)
    if not places_all(high):
        return None
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if places_all(middle) else (middle, high)
    return high


def compaction(
    asks: Sequence[Ask],
    usable_pages: int,
    policy: Policy,
    orders: int,
    seed: int,
    reserve_pages: int = 0,
    cpus: int = 0,
    *,
    strict: bool = False,
) -> list[int | None]:
    """`fewest_hosts` of the same machines in so many random orders; report the distribution, not one of them."""
    found = []
    for order in range(orders):
        shuffled = [asks[i] for i in stream(seed, "placement", "order", order).permutation(len(asks))]
        found.append(fewest_hosts(shuffled, usable_pages, policy, reserve_pages, cpus, strict=strict))
    return found
