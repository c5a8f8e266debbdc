"""High availability: could all protected VMs be started again after some hosts have failed?

What        `pack` puts VMs onto hosts; `plan_exists` asks it of every sequence of failures, or, where there are too
            many, of a bound; `tolerable` is how many failures a pool bears; `evacuation` empties one host.
Units       Any one unit of memory.
Symbols     n live hosts   r failures to bear
Rules       docs/model.md D7, as XAPI has them.
Departs     Where strict groups bar a VM from hosts, it goes onto that of the others with most free memory [PLACE-8].
            Sizes are conservative: static_max and overhead of each VM, and what hosts have left under static_max of all
            theirs (D7.1), so dynamic memory gains nothing here; whoever calls brings them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import heapify, heapreplace
from math import comb, factorial
from typing import Final, NamedTuple

from podcluster.placement.groups import FREE, Bar

MOST_HOSTS: Final = 32  # for the exhaustive method (D7.3)
MOST_SEQUENCES: Final = 3500


class Protected(NamedTuple):
    """A VM to be started again: where it runs, what it needs elsewhere, and whether it can run elsewhere at all."""

    host_id: int
    size: int
    agile: bool = True


def pack(sizes: Sequence[int], free: Mapping[int, int], bars: Sequence[Bar] = ()) -> list[int | None]:
    """A host for each VM, or None (D7.2): the largest first, always onto the host with most free memory, of those that
    its bar, if there are any, leaves it.

    One that does not fit there is skipped, the rest go on. Equals: first VM, lowest host_id.
    """
    roomiest = [(-room, host_id) for host_id, room in free.items()]
    heapify(roomiest)
    places: list[int | None] = [None] * len(sizes)
    taken: set[tuple[str, int]] = set()  # by whom of which name a host is taken
    for vm in sorted(range(len(sizes)), key=lambda vm: (-sizes[vm], vm)):
        bar = bars[vm] if bars else FREE
        at = 0
        if bar != FREE:
            open_to = [
                (place, k)
                for k, place in enumerate(roomiest)
                if place[1] not in bar.host_ids and (bar.apart, place[1]) not in taken
            ]
            if not open_to:
                continue
            at = min(open_to)[1]
        if not roomiest:
            break
        less, host_id = roomiest[at]
        if sizes[vm] > -less:
            continue
        places[vm] = host_id
        if bar.apart:
            taken.add((bar.apart, host_id))
        if at == 0:
            heapreplace(roomiest, (less + sizes[vm], host_id))
        else:
            roomiest[at] = (less + sizes[vm], host_id)
            heapify(roomiest)
    return places


def is_exhaustive(hosts: int, failures: int) -> bool:
    """Whether every ordered sequence of failures is tried (D7.3)."""
    return hosts <= MOST_HOSTS and comb(hosts, failures) * factorial(failures) < MOST_SEQUENCES


def plan_exists(free: Mapping[int, int], vms: Sequence[Protected], failures: int) -> bool:
    """Whether all protected VMs find a place after any `failures` of the hosts in `free` have died (D7.3-D7.6)."""
    if len(free) < failures or (len(free) == failures and vms):
        return False
    if failures and any(not vm.agile for vm in vms):
        return False
    if not failures:
        return True
    if is_exhaustive(len(free), failures):
        return survives_all(free, vms, failures)
    return survives_bound(free, vms, failures)


def survives_all(free: Mapping[int, int], vms: Sequence[Protected], failures: int) -> bool:
    """The exhaustive method: each sequence of deaths, VMs packed anew after each death (D7.3)."""
    sizes: dict[int, tuple[int, ...]] = dict.fromkeys(free, ())
    for vm in vms:
        sizes[vm.host_id] = (*sizes.get(vm.host_id, ()), vm.size)
    return _survives(free, sizes, failures)


def _survives(free: Mapping[int, int], sizes: Mapping[int, tuple[int, ...]], failures: int) -> bool:
    """The same, with the sizes of the VMs on each host: who is who does not matter."""
    if failures == 0:
        return True
    for dead in free:
        left = {host_id: room for host_id, room in free.items() if host_id != dead}
        places = pack(sizes[dead], left)
        if None in places:
            return False
        if failures == 1:
            continue
        after = dict(sizes)
        for size, host_id in zip(sizes[dead], places, strict=True):
            assert host_id is not None
            left[host_id] -= size
            after[host_id] = (*after[host_id], size)
        if not _survives(left, after, failures - 1):
            return False
    return True


def survives_bound(free: Mapping[int, int], vms: Sequence[Protected], failures: int) -> bool:
    """The approximate method: every VM as large as the largest, the roomiest and the fullest hosts die (D7.3)."""
    largest = max((vm.size for vm in vms), default=0)
    if largest == 0:
        return True
    slots = sorted((max(0, room) // largest for room in free.values()), reverse=True)
    there = Counter(vm.host_id for vm in vms)
    counts = sorted((there[host_id] for host_id in free), reverse=True)
    return sum(counts[:failures]) <= sum(slots[failures:])


def tolerable(free: Mapping[int, int], vms: Sequence[Protected], *, cluster_stack: bool = False) -> int:
    """The most failures for which there is a plan, by bisection as XAPI does it (D7.5); below half of the hosts under a
    cluster stack.
    """
    low, high = 0, (len(free) - 1) // 2 if cluster_stack else len(free)
    while low < high:
        middle = (low + high + 1) // 2
        if plan_exists(free, vms, middle):
            low = middle
        else:
            high = middle - 1
    return low


def breaks_plan(before: bool, after: bool, *, allow_overcommit: bool) -> bool:
    """Whether an operation is refused: HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN (D7.7); a pool without a plan is
    overcommitted already.
    """
    return before and not after and not allow_overcommit


def evacuation(
    host_id: int, free: Mapping[int, int], sizes: Sequence[int], bars: Sequence[Bar] = ()
) -> list[int | None]:
    """Where the VMs of a host go when it is emptied: the same packing, with dynamic_min + overhead as sizes (D7.8)."""
    return pack(sizes, {other: room for other, room in free.items() if other != host_id}, bars)
