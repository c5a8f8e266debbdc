"""How many equal hosts a list of domains needs: `cluster.hosts=auto`.

What        ceil(most that need_memory sums to at one instant / U), or that of vCPUs where a ratio limits them, then one
            more at a time until the policy places all, 10 % more at most. One more at a time, because heuristic packers
            are not monotone: more hosts may fit less. Who fits no empty host is rejected by any number of them, and not
            counted.
Units       Pages, ns.
Departs     Domains come and go as they are to: none ends by itself, and nobody is restarted elsewhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

from podcluster.placement.batch import Batch, place_batch
from podcluster.placement.groups import Groups, is_one_of_many, place_indexed
from podcluster.placement.index import HostIndex
from podcluster.placement.policy import Policy
from podcluster.records.hosts import Ask, HostView, Rejected

MOST_EXTRA_PERCENT = 10
NEVER = 1 << 62


class Stay(NamedTuple):
    """A domain that is asked for: what it needs, and from when to when (None: to the end)."""

    ask: Ask
    arrival_ns: int
    departure_ns: int | None


class HostCount(NamedTuple):
    """`hosts` to take; `unplaced` domains the policy still leaves over on them (0 unless the 10 % were not enough)."""

    hosts: int
    unplaced: int


def empty_hosts(hosts: int, usable_pages: int, reserve_pages: int = 0, cpus: int = 0) -> list[HostView]:
    """Views of `hosts` equal hosts with nothing on them; the toolstack keeps `reserve_pages` of each free (D3.2)."""
    return [
        HostView(i, usable_pages, reserve_pages, 0, usable_pages, 0, 0, overhead_pages=reserve_pages, cpus=cpus)
        for i in range(hosts)
    ]


def unplaced(
    stays: Sequence[Stay],
    hosts: int,
    usable_pages: int,
    policy: Policy,
    reserve_pages: int = 0,
    *,
    cpus: int = 0,
    strict: bool = False,
) -> int:
    """How many of the domains, taken in this order (of arrival), the policy leaves over on `hosts` empty hosts."""
    policy = copy(policy)  # a cursor is not kept for the next count
    index = HostIndex(empty_hosts(hosts, usable_pages, reserve_pages, cpus), policy.rules, policy.search_kind)
    groups = Groups(strict=strict) if not all(is_one_of_many(stay.ask) for stay in stays) else None
    batch = Batch.of([stay.ask for stay in stays])
    leaving: list[tuple[int, int, int]] = []  # (departure, position in `stays`, host)
    first = left_over = 0
    while first < len(stays):
        while leaving and leaving[0][0] <= stays[first].arrival_ns:
            _, gone, host_id = heapq.heappop(leaving)
            index.leave(host_id, stays[gone].ask)
            if groups is not None:
                groups.leave(host_id, stays[gone].ask)
        last = _before_a_departure(stays, first, leaving[0][0] if leaving else NEVER)
        if groups is None:
            answers = place_batch(policy, batch[first:last], index)
        else:
            answers = [_place(stay.ask, policy, index, groups) for stay in stays[first:last]]
        for position, answer in enumerate(answers, first):
            departure_ns = stays[position].departure_ns
            if isinstance(answer, Rejected):
                left_over += 1
            elif departure_ns is not None:
                heapq.heappush(leaving, (departure_ns, position, answer))
        first = last
    return left_over


def _before_a_departure(stays: Sequence[Stay], first: int, leaves_ns: int) -> int:
    """The end of the stretch from `first` on that arrives before anybody leaves, who is there or of the stretch."""
    last = first
    while last < len(stays) and (last == first or stays[last].arrival_ns < leaves_ns):
        departure_ns = stays[last].departure_ns
        leaves_ns = leaves_ns if departure_ns is None else min(leaves_ns, departure_ns)
        last += 1
    return last


def _place(ask: Ask, policy: Policy, index: HostIndex, groups: Groups) -> int | Rejected:
    """Place one request by its groups, and commit it."""
    answer = place_indexed(policy, ask, index, groups)
    if not isinstance(answer, Rejected):
        index.place(answer, ask)
        groups.enter(answer, ask)
    return answer


def most_needed(stays: Sequence[Stay], name: str = "need_pages") -> int:
    """Most of this, pages or vCPUs, that they need at one instant; who leaves when another comes is gone by then."""
    steps = [(stay.arrival_ns, 1, getattr(stay.ask, name)) for stay in stays]
    steps += [(stay.departure_ns, 0, -getattr(stay.ask, name)) for stay in stays if stay.departure_ns is not None]
    level = most = 0
    for _, _, change in sorted(steps):
        level += change
        most = max(most, level)
    return most


def auto_host_count(
    stays: Sequence[Stay],
    usable_pages: int,
    policy: Policy,
    reserve_pages: int = 0,
    *,
    cpus: int = 0,
    strict: bool = False,
) -> HostCount:
    """Count the hosts of U = `usable_pages` that these domains need (at least one).

    Where the extra 10 % (rounded up) do not place all that a host can hold, the count with the fewest left over is
    taken.
    """
    (empty,) = empty_hosts(1, usable_pages, reserve_pages, cpus)
    held = [stay for stay in stays if policy.rules.fits(stay.ask, empty)]
    too_large = len(stays) - len(held)
    room_pages = max(1, usable_pages - reserve_pages)
    least = max(1, -(-most_needed(held) // room_pages))
    if policy.rules.vcpu_ratio is not None:
        capacity = max(1, policy.rules.cpu_capacity(cpus))
        least = max(least, -(-most_needed(held, "vcpus") // capacity))
    most = least + -(-least * MOST_EXTRA_PERCENT // 100)
    best = HostCount(least, len(stays) + 1)
    for hosts in range(least, most + 1):
        left_over = unplaced(held, hosts, usable_pages, policy, reserve_pages, cpus=cpus, strict=strict)
        if too_large + left_over < best.unplaced:
            best = HostCount(hosts, too_large + left_over)
        if left_over == 0:
            break
    return best
