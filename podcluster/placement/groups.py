"""Affinity and anti-affinity: domains of a group are kept together, or apart.

What        For a request that is of a group, hosts are taken in ranks, and a policy chooses within the first rank in
            which one fits. Affinity: hosts with members before hosts without, once there are members. Anti-affinity:
            the fewest members first (docs/model.md D6, as XAPI ranks hosts). `strict` groups: no host but the first
            rank's, and for anti-affinity none with a member.
Departs     XAPI puts a preferred host ahead of all; requests have none here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from podcluster.errors import InvariantError
from podcluster.placement.index import HostIndex
from podcluster.placement.policy import Policy
from podcluster.records.hosts import Ask, HostView, Rejected

Rank = tuple[int, int]


class Groups:
    """Which hosts have how many members of which group."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._affinity: dict[str, Counter[int]] = {}
        self._anti_affinity: dict[str, Counter[int]] = {}

    def enter(self, host_id: int, ask: Ask) -> None:
        """A host has taken this request."""
        for group, members in ((ask.affinity, self._affinity), (ask.anti_affinity, self._anti_affinity)):
            if group:
                members.setdefault(group, Counter())[host_id] += 1

    def leave(self, host_id: int, ask: Ask) -> None:
        """It has left that host."""
        for group, members in ((ask.affinity, self._affinity), (ask.anti_affinity, self._anti_affinity)):
            if group:
                members[group][host_id] -= 1
                if members[group][host_id] < 0:
                    raise InvariantError(f"[PLACE-7] members of {group} >= 0 violated (host {host_id})")
                members[group] += Counter()  # forget hosts without members

    def ranks(self, ask: Ask) -> tuple[Mapping[int, Rank], Rank]:
        """The rank of each host that has members, and the rank of all others."""
        together = self._affinity.get(ask.affinity, Counter())
        apart = self._anti_affinity.get(ask.anti_affinity, Counter())
        stranger = 1 if together else 0
        special = {
            host_id: (0 if host_id in together else stranger, apart[host_id])
            for host_id in sorted(together.keys() | apart.keys())
        }
        return special, (stranger, 0)

    def allowed(self, rank: Rank) -> bool:
        """Whether a host of this rank may be taken at all."""
        return not self._strict or rank == (0, 0)


def is_grouped(ask: Ask) -> bool:
    """Whether ranks matter to this request."""
    return bool(ask.affinity or ask.anti_affinity)


def place(policy: Policy, ask: Ask, views: Sequence[HostView], groups: Groups) -> int | Rejected:
    """The definition: the policy's choice within the first rank in which a host fits."""
    if not is_grouped(ask):
        return policy.place(ask, views)  # also what it says where nothing fits
    special, others = groups.ranks(ask)
    for rank in sorted({others, *special.values()}):
        if groups.allowed(rank):
            answer = policy.place(ask, [view for view in views if special.get(view.host_id, others) == rank])
            if not isinstance(answer, Rejected):
                return answer
    return policy.rules.rejected_by(ask, views)


def place_indexed(policy: Policy, ask: Ask, index: HostIndex, groups: Groups) -> int | Rejected:
    """The same from an index: ranks of hosts with members, which are few, from their views; the others by search."""
    if not is_grouped(ask):
        return policy.place_indexed(ask, index)
    special, others = groups.ranks(ask)
    closed = [host_id for host_id, rank in special.items() if rank != others and index.is_open(host_id)]
    for rank in sorted({others, *special.values()}):
        if not groups.allowed(rank):
            continue
        if rank == others:
            for host_id in closed:
                index.close(host_id)
            answer = policy.place_indexed(ask, index)
            for host_id in closed:
                index.open(host_id)
        else:
            answer = policy.place(ask, [index.view(index.position(h)) for h in closed if special[h] == rank])
        if not isinstance(answer, Rejected):
            return answer
    return index.rejection(ask)
