"""What is known of a step before the one before it is over, so that some hosts can take it while others still compute.

What        `of_next` says what the driver knows; `Ahead` is what shards are told of it, and `Ahead.frees` whom that
            concerns.
Units       Pages of 4 KiB; simulated time in ns.
Invariants  [EP-7] a host that takes a step early is sent nothing in it, whatever the others report meanwhile: it has
                   less room than any machine needs that arrives in this step, placement looks at needs before all
                   else [EP-2], nothing else is due of any domain it has, and the step ends when it was said to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from podcluster.cluster.agenda import NEVER, Arrival, Departure, Item, Operation
from podcluster.records.hosts import HostView


class Ahead(NamedTuple):
    """The next step, as far as it is known: when it ends, the least that any machine needs that arrives in it, and the
    hosts that may be told something else.
    """

    until_ns: int
    least_pages: int
    busy: frozenset[int]

    def frees(self, view: HostView) -> bool:
        """Whether a host that says this at the end of the step before may take this one at once [EP-7]."""
        full = view.committed_pages + self.least_pages > view.usable_pages
        return full and view.host_id not in self.busy


def of_next(
    items: Iterable[Item], until_ns: int, host_of: Mapping[int, int], need_pages: Mapping[int, int]
) -> Ahead | None:
    """What these items, all that are due in the next step, leave free of it; None: nobody, as far as is known.

    A domain that is on no host yet will be on one that had room for it, which is not free anyway.
    """
    least_pages = NEVER
    busy: set[int] = set()
    for item in items:
        if isinstance(item, Arrival):
            least_pages = min(least_pages, need_pages[item.request.domain_id])
        elif isinstance(item, Departure | Operation):
            domain_id = item.domain_id if isinstance(item, Departure) else item.order.domain_id
            if domain_id in host_of:
                busy.add(host_of[domain_id])
        else:
            return None
    return Ahead(until_ns, least_pages, frozenset(busy))
