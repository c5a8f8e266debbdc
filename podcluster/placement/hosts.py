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
from podcluster.records import HostView, Rejected

MOST_EXTRA_PERCENT = 10


class HostCount(NamedTuple):
    """`hosts` to take; `unplaced` domains the policy still leaves over on them (0 unless the 10 % were not enough)."""

    hosts: int
    unplaced: int


def empty_hosts(hosts: int, usable_pages: int) -> list[HostView]:
    """Views of `hosts` equal hosts with nothing on them."""
    return [HostView(i, usable_pages, 0, 0, usable_pages, 0, 0) for i in range(hosts)]


def unplaced(
    need_pages: Sequence[int], maxmem_pages: Sequence[int], hosts: int, usable_pages: int, policy: Policy
) -> int:
    """How many of the domains, taken in this order, the policy leaves over on `hosts` empty hosts."""
    index = HostIndex(empty_hosts(hosts, usable_pages))
    left_over = 0
    for need, maxmem in zip(need_pages, maxmem_pages, strict=True):
        host_id = policy.place_indexed(need, maxmem, index)
        if isinstance(host_id, Rejected):
            left_over += 1
        else:
            index.commit(host_id, need)
    return left_over


def auto_host_count(
    need_pages: Sequence[int], maxmem_pages: Sequence[int], usable_pages: int, policy: Policy
) -> HostCount:
    """Count the hosts of U = `usable_pages` that these domains need (at least one).

    Where the extra 10 % (rounded up) do not place all, the count with the fewest left over is taken.
    """
    least = max(1, -(-sum(need_pages) // usable_pages))
    most = least + -(-least * MOST_EXTRA_PERCENT // 100)
    best = HostCount(least, len(need_pages) + 1)
    for hosts in range(least, most + 1):
        left_over = unplaced(need_pages, maxmem_pages, hosts, usable_pages, policy)
        if left_over < best.unplaced:
            best = HostCount(hosts, left_over)
        if left_over == 0:
            break
    return best
