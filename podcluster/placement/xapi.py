"""XAPI's choice of a host: four categories of hosts, and in each a draw that favours the best.

What        `categories` sorts hosts by how sure they are to bear a VM, `draw` picks from one, `choose` goes through
            them. `Xapi` is the policy made of these. Ranks of anti-affinity come before it (`groups.py`).
Units       Any one unit; the policy's are pages.
Symbols     avail   what a host has for VMs beside their overheads, the new VM's included
Rules       docs/model.md D6, E13.
Departs     A VM prefers the host that `placement.affinity` names for it, and none otherwise: not where it last was.
            The full boot check is [PLACE-1] and [PLACE-2] (D3.4): networks, storage and CPU features are alike on all
            hosts. dynamic_max is static_max, so that definite and probable hosts are the same. Where nothing fits XAPI
            tries once more without looking at memory, and the start fails later for want of it: here it is rejected at
            once, with both errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from podcluster.placement import weigh
from podcluster.placement.index import TERMS, HostIndex
from podcluster.placement.rules import Rules
from podcluster.records.hosts import NOWHERE, Ask, HostView, Rejected
from podcluster.records.values import Int64Array
from podcluster.rng import stream
from podcluster.units import pages_to_mib

COORDINATOR: Final = 0  # the pool's master is its first host


class Sums(NamedTuple):
    """A host with the new VM on it: what is there for VMs, and what they may take, each summed over all of them."""

    avail: int
    static_max: int
    dynamic_max: int
    dynamic_min: int


class Candidate(NamedTuple):
    """A host of a category, with its value there."""

    value: int
    host_id: int


def possible(sums: Sums) -> int:
    """How much of the dynamic ranges a host can give, in thousandths; -1 if not even the minima (D6.1)."""
    if sums.avail >= sums.dynamic_max:
        return weigh.POSSIBLE_WHOLLY
    if sums.avail < sums.dynamic_min:
        return -1
    return weigh.POSSIBLE_WHOLLY * (sums.avail - sums.dynamic_min) // (sums.dynamic_max - sums.dynamic_min)


def categories(
    hosts: Mapping[int, Sums], *, preferred: int = NOWHERE, coordinator: int | None = None
) -> list[list[Candidate]]:
    """Hosts by category, affinity, definite, probable, possible, each host in its first, best value first (D6.1-D6.3).

    `preferred`: the host_id of the VM's affinity, if it has one. `coordinator`: the master's where the bias against it
    is on.
    """

    def biased(host_id: int, value: int) -> int:
        return (value - 1) // 2 if host_id == coordinator else value

    named: tuple[Callable[[int, Sums], int], ...] = (
        lambda host_id, sums: possible(sums) if host_id == preferred else -1,
        lambda host_id, sums: sums.avail - sums.static_max,
        lambda host_id, sums: sums.avail - sums.dynamic_max,
        lambda host_id, sums: possible(sums),
    )
    rest = dict(hosts)
    found = []
    for number, value_of in enumerate(named):
        members = {host_id: value_of(host_id, sums) for host_id, sums in rest.items()}
        members = {host_id: value for host_id, value in members.items() if value >= 0}
        rest = {host_id: sums for host_id, sums in rest.items() if host_id not in members}
        if number in (1, 2):
            members = {host_id: biased(host_id, value) for host_id, value in members.items()}
        found.append(sorted((Candidate(v, h) for h, v in members.items()), key=lambda one: (-one.value, one.host_id)))
    return found


def draw(count: int, u: float) -> int:
    """Which of `count` hosts, best first, `u` in [0, 1) picks: biased to the best, not strictly best (D6.3)."""
    return int(count * u * u)


def choose(
    by_category: Sequence[Sequence[Candidate]], uniform: Callable[[], float], passes: Callable[[int], bool]
) -> int | None:
    """The first pick that passes the boot check; picks that do not are left out of the next draw (D6.3)."""
    for members in by_category:
        left = list(members)
        while left:
            pick = left.pop(draw(len(left), uniform()))
            if passes(pick.host_id):
                return pick.host_id
    return None


class Xapi:
    """The policy: draws are named by the domain, so what else is placed does not change them."""

    search_kind = None

    def __init__(self, rules: Rules | None = None, seed: int = 0, *, coordinator_bias: bool = True) -> None:
        self.rules = rules or Rules()
        self.terms = TERMS
        self.cursor = 0
        self._seed = seed
        self._coordinator = COORDINATOR if coordinator_bias else None

    def place(self, ask: Ask, views: Sequence[HostView]) -> int | Rejected:
        """Draw among `views` [pages]."""
        by_id = {view.host_id: view for view in views}
        hosts = {view.host_id: _with(ask, view) for view in views}
        uniform = stream(self._seed, "placement", ask.domain_id).random
        host_id = choose(
            categories(hosts, preferred=ask.preferred_host, coordinator=self._coordinator),
            uniform,
            lambda host_id: self.rules.fits(ask, by_id[host_id]),
        )
        if host_id is not None:
            return host_id
        most = max((view.usable_pages - view.committed_pages for view in views), default=0)
        return self._no_hosts(ask, self.rules.rejected_by(ask, views), most)

    def place_indexed(self, ask: Ask, index: HostIndex) -> int | Rejected:
        """The same from an index [pages]: XAPI looks at every host, but only at few of them more than once."""
        uniform = stream(self._seed, "placement", ask.domain_id).random
        positions = index.open_positions()
        for values in self._values(ask, index, positions):
            left = _Ranked(values)
            while left.count:
                position = int(positions[left.take(draw(left.count, uniform()))])
                if index.fits(ask, position):
                    return index.host_ids[position]
        return self._no_hosts(ask, index.rejection(ask, positions=positions), index.most_free(positions))

    def _values(self, ask: Ask, index: HostIndex, positions: Int64Array) -> list[Int64Array]:
        """Of each category the value of each host that is of it: affinity where a host is preferred (D6.1), then those
        of the index, which gives every host to its first.
        """
        found = list(index.xapi_values(ask, self._coordinator))
        if ask.preferred_host == NOWHERE or not index.knows(ask.preferred_host):
            return found
        preferred = positions == index.position(ask.preferred_host)
        members = [preferred & (values != weigh.NO_MEMBER) for values in found]
        affinity = np.full(len(positions), weigh.NO_MEMBER, dtype=np.int64)
        for values, member in zip(found, members, strict=True):
            affinity[member] = weigh.POSSIBLE_WHOLLY  # nobody else is of it, so that the value decides nothing
            values[member] = weigh.NO_MEMBER
        return [affinity, *found]

    def _no_hosts(self, ask: Ask, why: Rejected, most_free_pages: int) -> Rejected:
        """What the operator reads (E13)."""
        return Rejected(
            f"NO_HOSTS_AVAILABLE: {why.reason}; on any host HOST_NOT_ENOUGH_FREE_MEMORY: "
            f"{pages_to_mib(ask.need_pages)} MiB needed, {pages_to_mib(max(0, most_free_pages))} available",
            why.cause,
        )


class _Ranked:
    """The members of a category, best value first, equals as they were given: any may be asked for and taken out.

    One is found without sorting; whoever asks again has them sorted.
    """

    def __init__(self, values: Int64Array) -> None:
        self.count = int(np.count_nonzero(values != weigh.NO_MEMBER))
        self._values = values
        self._first: int | None = None
        self._sorted: list[int] = []

    def take(self, rank: int) -> int:
        """The index of whoever is at this rank of those that are left; it is left no more."""
        self.count -= 1
        if self._first is None:
            self._first = int(weigh.nth_largest(self._values, np.empty_like(self._values), rank))
            return self._first
        if not self._sorted:
            members = np.flatnonzero(self._values != weigh.NO_MEMBER)
            self._sorted = members[np.argsort(-self._values[members], kind="stable")].tolist()
            self._sorted.remove(self._first)
        return self._sorted.pop(rank)


def _with(ask: Ask, view: HostView) -> Sums:
    """The host as it would be with the new VM on it."""
    maxima = view.promised_pages + ask.maxmem_pages
    return Sums(
        avail=view.usable_pages - view.overhead_pages - ask.overhead_pages,
        static_max=maxima,
        dynamic_max=maxima,
        dynamic_min=view.committed_pages - view.overhead_pages + ask.need_pages - ask.overhead_pages,
    )
