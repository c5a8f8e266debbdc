"""When hosts fail by themselves, and which of their domains are worth starting again.

What        `draw_failures`, a Poisson process for each host, which does not fail while it is down; `priority_of`, a
            domain's restart priority.
Units       Rates per host and year of 365 days; ns.
Invariants  [HF-1] draws are named by host, or by domain: more hosts, another policy or workload leave a host's failures
            as they were.
Departs     Hosts fail one by one, at any age alike: no racks, no burn-in, no wear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from podcluster.cluster.agenda import Failure
from podcluster.cluster.orders import Order
from podcluster.config import FailureConfig
from podcluster.records.hosts import HostSpec
from podcluster.rng import stream
from podcluster.units import NS_PER_S, s_to_ns

YEAR_NS: Final = 365 * 86_400 * NS_PER_S

Priority = Literal["restart", "best_effort", "unprotected"]


def draw_failures(failure: FailureConfig, specs: Sequence[HostSpec], seed: int, end_ns: int) -> list[Order]:
    """Every failure before `end_ns`, host by host [HF-1]."""
    if not failure.rate_per_host_year:
        return []
    mean_ns = YEAR_NS / failure.rate_per_host_year
    down_ns = None if failure.repair_s is None else s_to_ns(failure.repair_s)
    found = []
    for spec in specs:
        draws = stream(seed, "host", spec.host_id, "failures")
        at_ns = 1 + int(draws.exponential(mean_ns))
        while at_ns < end_ns:
            found.append(Order(at_ns, Failure(spec.host_id)))
            if down_ns is None:
                break
            at_ns += down_ns + 1 + int(draws.exponential(mean_ns))
    return found


def priority_of(failure: FailureConfig, seed: int, domain_id: int) -> Priority:
    """A domain's restart priority, by the shares there are of each [HF-1]."""
    place = stream(seed, "domain", domain_id, "restart_priority").random()
    if place < failure.unprotected_share:
        return "unprotected"
    return "best_effort" if place < failure.unprotected_share + failure.best_effort_share else "restart"
