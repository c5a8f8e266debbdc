"""How well a run's hosts were packed over time, from its rows.

What        Between the starts and ends of domains everything is constant, so the means are exact sums. The bound on
            hosts is that of the domains that were there at the instant with most committed: hosts in use were no fewer.
Units       Pages of 4 KiB; ns; shares of 1.
Departs     A domain counts from its build to its end, not while it waits for memory or to be built again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from podcluster.cluster.plan import Plan
from podcluster.placement.bounds import bounds
from podcluster.placement.policy import rules_of
from podcluster.records.rows import DomainRow


class Packing(NamedTuple):
    """Of one run; `density_mean` None: no host was ever used."""

    hosts_used_max: int
    hosts_bound: int
    density_mean: float | None
    empty_mean: float
    stranded_mean: float


class _Change(NamedTuple):
    """A domain comes or goes (`sign`); what falls at an instant falls before what rises then."""

    at_ns: int
    sign: int
    row: int


class _Hosts:
    """All hosts at an instant: sums that each change keeps up to date."""

    def __init__(self, plan: Plan, smallest_vcpus: int) -> None:
        self.committed: Counter[int] = Counter()
        self.vcpus: Counter[int] = Counter()
        self.domains: Counter[int] = Counter()
        self.used = 0
        self.used_room = 0  # memory for domains of the hosts in use
        self.committed_sum = 0
        self.stranded = 0
        self._room = {spec.host_id: spec.usable_pages - plan.reserve_pages for spec in plan.specs}
        rules = rules_of(plan.placement)
        self._most_vcpus = {spec.host_id: rules.cpu_capacity(spec.cpus) - smallest_vcpus for spec in plan.specs}
        self.stranded = sum(self._stranded(spec.host_id) for spec in plan.specs)

    def change(self, host_id: int, sign: int, need_pages: int, vcpus: int) -> None:
        """A domain comes (1) or goes (-1)."""
        self.stranded -= self._stranded(host_id)
        before = self.domains[host_id]
        self.domains[host_id] += sign
        self.committed[host_id] += sign * need_pages
        self.vcpus[host_id] += sign * vcpus
        self.committed_sum += sign * need_pages
        turned = (self.domains[host_id] > 0) - (before > 0)
        self.used += turned
        self.used_room += turned * self._room[host_id]
        self.stranded += self._stranded(host_id)

    def _stranded(self, host_id: int) -> int:
        """Memory left where the smallest machine finds no vCPUs."""
        if self.vcpus[host_id] <= self._most_vcpus[host_id]:
            return 0
        return self._room[host_id] - self.committed[host_id]


def packing(rows: Sequence[DomainRow], plan: Plan) -> Packing:
    """Of the domains that were built, in the order of their rows, after the warm-up."""
    since_ns = plan.warmup_ns
    built = [row for row in rows if row.boot_start_ns is not None and row.end_ns >= since_ns]
    sizes = [(plan.need_pages[row.domain_id], row.vcpus) for row in built]
    changes = [_Change(max(row.boot_start_ns or 0, since_ns), 1, i) for i, row in enumerate(built)]
    # The end of the run ends nobody: what starts at that instant stands beside it.
    changes += [_Change(row.end_ns + (row.fate == "running"), -1, i) for i, row in enumerate(built)]
    hosts = _Hosts(plan, min(sizes)[1] if sizes else 0)
    now_ns, span_ns = since_ns, plan.duration_ns - since_ns
    committed = used_room = used = stranded = 0
    used_max = fullest = done = 0
    ordered = sorted(changes)
    for number, change in enumerate([*ordered, _Change(plan.duration_ns, 0, 0)], start=1):
        at_ns = min(change.at_ns, plan.duration_ns)
        step_ns = at_ns - now_ns
        committed += hosts.committed_sum * step_ns
        used_room += hosts.used_room * step_ns
        used += hosts.used * step_ns
        stranded += hosts.stranded * step_ns
        now_ns = at_ns
        if change.sign == 0:
            break
        hosts.change(built[change.row].host_id, change.sign, *sizes[change.row])
        used_max = max(used_max, hosts.used)
        if hosts.committed_sum > fullest:
            fullest, done = hosts.committed_sum, number
    there = {change.row for change in ordered[:done]} - {change.row for change in ordered[:done] if change.sign < 0}
    room = sum(spec.usable_pages - plan.reserve_pages for spec in plan.specs)
    return Packing(
        hosts_used_max=used_max,
        hosts_bound=_bound([sizes[i] for i in sorted(there)], plan),
        density_mean=committed / used_room if used_room else None,
        empty_mean=1 - used / (len(plan.specs) * span_ns),
        stranded_mean=stranded / (room * span_ns),
    )


def _bound(sizes: Sequence[tuple[int, int]], plan: Plan) -> int:
    """Hosts that these domains need, vCPUs counted where a ratio limits them."""
    rules = rules_of(plan.placement)
    room = max(spec.usable_pages for spec in plan.specs) - plan.reserve_pages
    cpu_capacity = max(rules.cpu_capacity(spec.cpus) for spec in plan.specs)
    limited = rules.vcpu_ratio is not None
    vectors = [(need, vcpus) if limited else (need,) for need, vcpus in sizes]
    capacities = [room, cpu_capacity] if limited else [room]
    return bounds(vectors, capacities, lp=plan.placement.bound == "lp").hosts
