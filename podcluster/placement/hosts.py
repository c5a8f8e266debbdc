"""How many equal hosts a list of domains needs: `cluster.hosts=auto`.

What        ceil(sum of need_memory / U), then one more at a time until the policy places all, 10 % more at most. One
            more at a time, because heuristic packers are not monotone: more hosts may fit less.
Units       Pages.
Departs     Everything is placed as if nothing ever left, in the order given (of arrival): enough for the worst case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from podcluster.placement.index import HostIndex
from podcluster.placement.policy import Policy
from podcluster.records import Ask, HostView, Rejected

MOST_EXTRA_PERCENT = 10


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


def unplaced(asks: Sequence[Ask], hosts: int, usable_pages: int, policy: Policy, reserve_pages: int = 0) -> int:
    """How many of the domains, taken in this order, the policy leaves over on `hosts` empty hosts."""
    index = HostIndex(empty_hosts(hosts, usable_pages, reserve_pages))
    left_over = 0
    for ask in asks:
        host_id = policy.place_indexed(ask, index)
        if isinstance(host_id, Rejected):
            left_over += 1
        else:
            index.place(host_id, ask)
    return left_over


def auto_host_count(asks: Sequence[Ask], usable_pages: int, policy: Policy, reserve_pages: int = 0) -> HostCount:
    """Count the hosts of U = `usable_pages` that these domains need (at least one).

    Where the extra 10 % (rounded up) do not place all, the count with the fewest left over is taken.
    """
    room_pages = max(1, usable_pages - reserve_pages)
    least = max(1, -(-sum(ask.need_pages for ask in asks) // room_pages))
    most = least + -(-least * MOST_EXTRA_PERCENT // 100)
    best = HostCount(least, len(asks) + 1)
    for hosts in range(least, most + 1):
        left_over = unplaced(asks, hosts, usable_pages, policy, reserve_pages)
        if left_over < best.unplaced:
            best = HostCount(hosts, left_over)
        if left_over == 0:
            break
    return best
