"""How many equal hosts a list of domains needs: `cluster.hosts=auto`.

What        ceil(most that need_memory sums to at one instant / U), then one more at a time until the policy places all,
            10 % more at most. One more at a time, because heuristic packers are not monotone: more hosts may fit less.
Units       Pages, ns.
Departs     Domains come and go as they are to: none ends by itself, and nobody is restarted elsewhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from podcluster.placement.index import HostIndex
from podcluster.placement.policy import Policy
from podcluster.records import Ask, HostView, Rejected

MOST_EXTRA_PERCENT = 10


class Stay(NamedTuple):
    """A domain that is asked for: what it needs, and from when to when (None: to the end)."""

    ask: Ask
    arrival_ns: int
    departure_ns: int | None


class HostCount(NamedTuple):
    """`hosts` to take; `unplaced` domains the policy still leaves over on them (0 unless the 10 % were not enough)."""

    hosts: int
    unplaced: int


def empty_hosts(hosts: int, usable_pages: int, reserve_pages: int = 0) -> list[HostView]:
    """Views of `hosts` equal hosts with nothing on them; the toolstack keeps `reserve_pages` of each free (D3.2)."""
    return [
        HostView(i, usable_pages, reserve_pages, 0, usable_pages, 0, 0, overhead_pages=reserve_pages)
        for i in range(hosts)
    ]


def unplaced(stays: Sequence[Stay], hosts: int, usable_pages: int, policy: Policy, reserve_pages: int = 0) -> int:
    """How many of the domains, taken in this order (of arrival), the policy leaves over on `hosts` empty hosts."""
    index = HostIndex(empty_hosts(hosts, usable_pages, reserve_pages))
    leaving: list[tuple[int, int, int]] = []  # (departure, position in `stays`, host)
    left_over = 0
    for position, stay in enumerate(stays):
        while leaving and leaving[0][0] <= stay.arrival_ns:
            _, gone, host_id = heapq.heappop(leaving)
            index.leave(host_id, stays[gone].ask)
        answer = policy.place_indexed(stay.ask, index)
        if isinstance(answer, Rejected):
            left_over += 1
            continue
        index.place(answer, stay.ask)
        if stay.departure_ns is not None:
            heapq.heappush(leaving, (stay.departure_ns, position, answer))
    return left_over


def most_needed(stays: Sequence[Stay]) -> int:
    """Most pages that they need at one instant; who leaves when another comes is gone by then."""
    steps = [(stay.arrival_ns, 1, stay.ask.need_pages) for stay in stays]
    steps += [(stay.departure_ns, 0, -stay.ask.need_pages) for stay in stays if stay.departure_ns is not None]
    level = most = 0
    for _, _, pages in sorted(steps):
        level += pages
        most = max(most, level)
    return most


def auto_host_count(stays: Sequence[Stay], usable_pages: int, policy: Policy, reserve_pages: int = 0) -> HostCount:
    """Count the hosts of U = `usable_pages` that these domains need (at least one).

    Where the extra 10 % (rounded up) do not place all, the count with the fewest left over is taken.
    """
    room_pages = max(1, usable_pages - reserve_pages)
    least = max(1, -(-most_needed(stays) // room_pages))
    most = least + -(-least * MOST_EXTRA_PERCENT // 100)
    best = HostCount(least, len(stays) + 1)
    for hosts in range(least, most + 1):
        left_over = unplaced(stays, hosts, usable_pages, policy, reserve_pages)
        if left_over < best.unplaced:
            best = HostCount(hosts, left_over)
        if left_over == 0:
            break
    return best
