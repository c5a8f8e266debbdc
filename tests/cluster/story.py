"""A small scenario that tests of the cluster share: 3 hosts, 40 machines, some of which no host can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from podcluster import rng
from podcluster.cluster.plan import Plan
from podcluster.cluster.pool import HostPlan, InlinePool, Pool
from podcluster.cluster.progress import Silent
from podcluster.cluster.run import RunOutcome, run
from podcluster.placement.policy import make_policy
from podcluster.records.demand import Demand
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import MachineRequest, Workload
from podcluster.records.tables import Row
from podcluster.units import NS_PER_S
from tests.cluster.fake import make_fake

USABLE = 10_000
HOUR_S = 3600


class ListSink:
    """Keeps rows by table, in the order they came."""

    def __init__(self) -> None:
        self.tables: dict[str, list[Any]] = {}

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Take rows."""
        self.tables.setdefault(table, []).extend(rows)


def machine(domain_id: int, arrival_s: float, departure_s: float | None = None, pages: int = 1000) -> MachineRequest:
    """A machine of `pages` memory and twice that promised."""
    departure_ns = None if departure_s is None else int(departure_s * NS_PER_S)
    return MachineRequest(
        domain_id, 1, f"m{domain_id}", "linux", 2, 2 * pages, pages, int(arrival_s * NS_PER_S), departure_ns,
        Demand.flat(pages),
    )  # fmt: skip


def machines(count: int = 40, seed: int = 5) -> Workload:
    """Arrivals over half an hour, some leaving again, one too large for any host."""
    draw = rng.stream(seed, "test", "machines")
    requests = [machine(0, 0.0)]
    for domain_id in range(1, count):
        arrival_s = float(draw.uniform(0, 1800))
        departure_s = arrival_s + float(draw.exponential(600)) if draw.random() < 0.5 else None
        requests.append(machine(domain_id, arrival_s, departure_s, int(draw.integers(100, 3000))))
    requests.append(machine(count, 100.0, pages=USABLE))
    return Workload(tuple(requests), left_out={"too small": 2}, conditional_on="a story")


def small_plan(workload: Workload, *, hosts: int = 3, duration_s: int = HOUR_S, write_samples: bool = True) -> Plan:
    """Hosts of 10,000 usable pages; need_memory is memory."""
    return Plan(
        specs=tuple(HostSpec(host_id, USABLE + 500, USABLE) for host_id in range(hosts)),
        hosts=HostPlan(cast(Any, None), {}, 7, 60 * NS_PER_S),
        need_pages={request.domain_id: request.memory_pages for request in workload.requests},
        duration_ns=duration_s * NS_PER_S,
        epoch_ns=10 * NS_PER_S,
        write_samples=write_samples,
        notes=(),
    )


def inline(plan: Plan) -> InlinePool:
    """Fake hosts in this process."""
    return InlinePool(plan.specs, plan.hosts, make_fake)


def play(plan: Plan, workload: Workload, pool: Pool | None = None) -> tuple[RunOutcome, ListSink]:
    """Run it, and keep the rows."""
    sink = ListSink()
    outcome = run(plan, workload, make_policy(plan.placement, plan.hosts.seed), pool or inline(plan), sink, Silent())
    return outcome, sink


def physics(sink: ListSink) -> dict[str, list[Any]]:
    """Everything that must not depend on where and how fast the run was computed."""
    tables = {table: [_plain(row) for row in rows] for table, rows in sink.tables.items()}
    order = {"samples": ("t_ns", "host_id"), "events": ("t_ns", "host_id"), "domains": ("domain_id", "attempt")}
    for table, key in order.items():
        tables[table] = sorted(tables.get(table, []), key=lambda row: tuple(row[name] for name in key))
    return tables


def _plain(row: Any) -> dict[str, Any]:
    names = [name for name in type(row).__slots__ if not name.startswith(("wall_", "engine_"))]
    return {name: getattr(row, name) for name in names}
