"""Affinity and anti-affinity: domains of a group are kept together, or apart.

What        For a request that is of a group, hosts are taken in ranks, and a policy chooses within the first rank in
            which one fits. Affinity: hosts with members before hosts without, once there are members. Anti-affinity:
            the fewest members first, and before them the host that the request prefers (docs/model.md D6.4, as XAPI
            ranks hosts). `strict` groups: no host but the first rank's, and for anti-affinity none with a member, so
            that no host is ahead for being preferred. That holds for whoever moves, too: `Groups.bar`.
Invariants  [PLACE-7] members >= 0
            [PLACE-8] `strict`: no host has two members that are to be apart, no two hosts have members that are to be
                      together
Departs     A group whose only member is between two hosts takes nobody until that has landed: where, is not sure
            before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from podcluster.errors import InvariantError
from podcluster.placement.index import HostIndex
from podcluster.placement.policy import Policy
from podcluster.records.hosts import NOWHERE, Ask, HostView, Rejected

Rank = tuple[int, int]

AHEAD: Final = (-1, 0)
"""The rank of a preferred host."""


class Bar(NamedTuple):
    """Where a strict group lets a machine not go [PLACE-8]: to `host_ids`, nor to where others that are `apart` by the
    same name (empty: none) go.
    """

    host_ids: frozenset[int] = frozenset()
    apart: str = ""


FREE: Final = Bar()
"""Of a machine that no strict group keeps from anywhere."""


class Groups:
    """Which hosts have how many members of which group."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._affinity: dict[str, Counter[int]] = {}
        self._anti_affinity: dict[str, Counter[int]] = {}
        self._moving: Counter[str] = Counter()  # by affinity: members between two hosts, each of which has them entered

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

    def set_out(self, host_id: int, ask: Ask) -> None:
        """One of another host is to move to this one."""
        self.enter(host_id, ask)
        self._moving[ask.affinity] += 1

    def settle(self, ask: Ask) -> None:
        """It is there, or where it was, or nowhere."""
        self._moving[ask.affinity] -= 1

    def bar(self, ask: Ask, host_ids: Iterable[int], leaving: int | None = None) -> Bar:
        """Which of these hosts strict groups forbid to a machine, which is to leave the host `leaving`."""
        if not self._strict or not is_grouped(ask):
            return FREE
        barred = self._anti_affinity.get(ask.anti_affinity, Counter()).keys() - {leaving}
        if ask.affinity:
            barred |= {host_id for host_id in host_ids if self.forbids(ask, host_id, leaving)}
        return Bar(frozenset(barred), ask.anti_affinity)

    def forbids(self, ask: Ask, host_id: int, leaving: int | None = None) -> bool:
        """Whether strict groups keep a machine, which is to leave the host `leaving`, from this one [PLACE-8]."""
        if not self._strict:
            return False
        if ask.affinity:
            together = self._affinity.get(ask.affinity, Counter())
            others = together.total() - (leaving in together)
            if self._moving[ask.affinity] or (others and not together[host_id]):
                return True
        return self._anti_affinity.get(ask.anti_affinity, Counter())[host_id] > 0

    def ranks(self, ask: Ask) -> tuple[Mapping[int, Rank], Rank]:
        """The rank of each host that has members, and the rank of all others."""
        together = self._affinity.get(ask.affinity, Counter())
        apart = self._anti_affinity.get(ask.anti_affinity, Counter())
        stranger = 1 if together else 0
        special = {
            host_id: (0 if host_id in together else stranger, apart[host_id])
            for host_id in sorted(together.keys() | apart.keys())
        }
        if ask.preferred_host != NOWHERE and not self._strict:
            special[ask.preferred_host] = AHEAD
        return special, (stranger, 0)

    def allowed(self, ask: Ask, rank: Rank) -> bool:
        """Whether a request may take a host of this rank at all."""
        return not self._strict or (rank == (0, 0) and not (ask.affinity and self._moving[ask.affinity]))

    def rejection(self, why: Rejected) -> Rejected:
        """Why no host takes a member: what a strict group forbids is no matter of memory."""
        if not self._strict or why.cause != "no_host":
            return why
        return replace(why, reason=f"{why.reason}, or its strict group forbids it the hosts with room")


def is_grouped(ask: Ask) -> bool:
    """Whether ranks matter to this request."""
    return bool(ask.affinity or ask.anti_affinity)


def is_one_of_many(ask: Ask) -> bool:
    """Whether it may be placed in a batch, which knows neither groups nor preferred hosts."""
    return not is_grouped(ask) and ask.preferred_host == NOWHERE


def place(policy: Policy, ask: Ask, views: Sequence[HostView], groups: Groups) -> int | Rejected:
    """The definition: the policy's choice within the first rank in which a host fits."""
    if not is_grouped(ask):
        return policy.place(ask, views)  # also what it says where nothing fits
    special, others = groups.ranks(ask)
    for rank in sorted({others, *special.values()}):
        if groups.allowed(ask, rank):
            answer = policy.place(ask, [view for view in views if special.get(view.host_id, others) == rank])
            if not isinstance(answer, Rejected):
                return answer
    return groups.rejection(policy.rules.rejected_by(ask, views))


def place_indexed(policy: Policy, ask: Ask, index: HostIndex, groups: Groups) -> int | Rejected:
    """The same from an index: ranks of hosts with members, which are few, from their views; the others by search."""
    if not is_grouped(ask):
        return policy.place_indexed(ask, index)
    special, others = groups.ranks(ask)
    closed = [
        host_id
        for host_id, rank in special.items()
        if rank != others and index.knows(host_id) and index.is_open(host_id)
    ]
    for rank in sorted({others, *special.values()}):
        if not groups.allowed(ask, rank):
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
    return groups.rejection(index.rejection(ask))
