"""Small guests and hosts for tests of a host's life: times in seconds, sizes in MiB, quick to boot."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from podcluster.config import (
    BalloonConfig,
    ControllerConfig,
    CostConfig,
    FaultConfig,
    GuestConfig,
    HostConfig,
    InstallConfig,
    PageCacheConfig,
    SwapConfig,
)
from podcluster.host.model import HostModel
from podcluster.records.commands import Close, Command, StartDomain, StopDomain
from podcluster.records.demand import Demand
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import MachineRequest
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow, EventRow
from podcluster.records.samples import MachineSampleBlock, SampleRow
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.reference.model import ReferenceMachine

DRIVERS = {
    "linux": {"driver": "linux", "batch_pages": 512, "scrub": True, "boot_barrier": True},
    "linux_no_driver": {"driver": "none", "batch_pages": 512, "scrub": True, "boot_barrier": False},
    "windows": {"driver": "windows", "batch_pages": 8185, "scrub": False, "boot_barrier": False},
}
KINDS = tuple(DRIVERS)


def guest_config(
    kind: str = "linux",
    *,
    balloon: Any = None,
    page_cache: Any = None,
    swap: Any = None,
    fault: Any = None,
    install: Any = None,
    **changed: Any,
) -> GuestConfig:
    """A guest class like the one of that name in conf/guest, but small: 4-6 MiB of kernel, 3-5 of services."""
    windows = kind == "windows"
    fields: dict[str, Any] = {
        "os_class": kind,
        "firmware_s": [0.5, 1],
        "video_mib": 8,
        "kernel_mib": [4, 6],
        "kernel_s": [1, 2],
        "services_mib": [3, 5],
        "services_s": [2, 4],
        "scrubber": "zero" if windows else "none",
        "scrub_streams": 0 if windows else 1,
        "scrub_rate_mib_per_s": [200, 400],
        "scrub_start_s": [0.1, 0.2],
        "alloc_order": "random" if windows else "descending",
        "swap": SwapConfig(**{"mib": 16, "latency_us": 0, "mib_per_s": 4, **(swap or {})}),
        "balloon": BalloonConfig(
            **{"start_s": [0.5, 1], "rate_pages_per_s": [10_000, 20_000], **DRIVERS[kind], **(balloon or {})}
        ),
        "page_cache": PageCacheConfig(**{"rate_mib_per_s": 20, **(page_cache or {})}),
        "fault": FaultConfig(**(fault or {})),
        "install": InstallConfig(**(install or {})),
    }
    return GuestConfig(**{**fields, **changed})


def request(
    domain_id: int,
    kind: str,
    memory_mib: int,
    maxmem_mib: int,
    demand: Demand | int = 0,
    **changed: Any,
) -> MachineRequest:
    """A machine; `demand` as a curve, or flat in MiB."""
    curve = Demand.flat(demand * PAGES_PER_MIB) if isinstance(demand, int) else demand
    fields: dict[str, Any] = {
        "domain_id": domain_id,
        "attempt": 1,
        "name": f"vm{domain_id}",
        "os_class": kind,
        "vcpus": 2,
        "maxmem_pages": maxmem_mib * PAGES_PER_MIB,
        "memory_pages": memory_mib * PAGES_PER_MIB,
        "arrival_ns": 0,
        "departure_ns": None,
        "demand": curve,
    }
    return MachineRequest(**{**fields, **changed})


def curve(*points: tuple[float, float]) -> Demand:
    """A demand through (seconds, MiB) points, the first at 0 s."""
    return Demand(
        np.array([s_to_ns(t) for t, _ in points], dtype=np.int64),
        np.array([round(mib * PAGES_PER_MIB) for _, mib in points], dtype=np.int64),
    )


FREE = {name: 0 for name in vars(CostConfig())}
"""Nothing that Xen does takes time, so that instants can be worked out beforehand."""


def host_config(**changed: Any) -> HostConfig:
    """A host on which nothing that Xen does takes time, unless `costs` says otherwise."""
    return HostConfig(**{**changed, "costs": CostConfig(**changed.get("costs", FREE))})


def host_model(
    *guests: GuestConfig,
    ram_mib: int = 512,
    taken_mib: int = 16,
    seed: int = 1,
    telemetry_s: float = 0,
    host: HostConfig | None = None,
    **keywords: Any,
) -> HostModel:
    """A small host that knows these guest classes."""
    spec = HostSpec(0, ram_mib * PAGES_PER_MIB, (ram_mib - taken_mib) * PAGES_PER_MIB)
    classes = {one.os_class: one for one in guests}
    return HostModel(spec, host or host_config(), classes, seed, s_to_ns(telemetry_s), **keywords)


def start(machine: MachineRequest, at_s: float = 0.001) -> StartDomain:
    return StartDomain(s_to_ns(at_s), machine)


def live(model: HostModel, until_s: float, *commands: Command) -> HostReport:
    """Run a host to its end in one call."""
    end_ns = s_to_ns(until_s)
    return model.advance(end_ns, [*commands, Close(end_ns)])


def one_life(kind: str, memory_mib: int, maxmem_mib: int, until_s: float = 60, **changed: Any) -> DomainRow:
    """The row of one guest, alone on a host that is large enough."""
    demand = changed.pop("demand", 0)
    host = changed.pop("host", None)
    seed = changed.pop("seed", 1)
    model = host_model(guest_config(kind, **changed), ram_mib=maxmem_mib + 64, host=host, seed=seed)
    report = live(model, until_s, start(request(0, kind, memory_mib, maxmem_mib, demand)))
    assert len(report.domains) == 1
    return report.domains[0]


def rows(reports: Sequence[HostReport]) -> tuple[list[DomainRow], list[EventRow], list[SampleRow]]:
    """All rows of several reports, one after another."""
    return (
        [row for report in reports for row in report.domains],
        [row for report in reports for row in report.events],
        [row for report in reports for row in report.samples],
    )


class Make(Protocol):
    """Make a host anew, whose guests run ahead or not, and of which nothing is asked before `unasked_ns`."""

    def __call__(self, *, coalesce: bool, unasked_ns: int, stride_ns: int) -> HostModel:
        """Empty yet."""


def drawn_host(
    classes: Sequence[GuestConfig],
    settings: dict[str, Any],
    controller: ControllerConfig | None,
    *,
    ram_mib: int,
    taken_mib: int,
    grid_s: float,
) -> Make:
    """Hosts with these settings, looked at every `grid_s` seconds, machines and all, if that is not 0."""
    host = host_config(check="epoch", **settings)
    return partial(
        host_model, *classes, ram_mib=ram_mib, taken_mib=taken_mib, telemetry_s=grid_s, machine_samples=grid_s > 0,
        host=host, controller=controller,
    )  # fmt: skip


def comes_out_otherwise(make: Make, commands: Sequence[Command], cuts_s: Sequence[float], end_s: float) -> bool:
    """Whether a life is not the same singly, run ahead in one go, and run ahead with the clock stopped at `cuts_s`,
    whether or not guests go on past that.
    """
    close = Close(s_to_ns(end_s))
    unasked_ns = min(one.at_ns for one in asking([*commands, close]))

    def life(stops_s: Sequence[float], *, coalesce: bool, unasked_ns: int = 0) -> Any:
        model = make(coalesce=coalesce, unasked_ns=unasked_ns, stride_ns=unasked_ns)
        reports, before_ns = [], 0
        for until_ns in sorted({s_to_ns(stop_s) for stop_s in (*stops_s, end_s)}):
            due = [one for one in (*commands, close) if before_ns < one.at_ns <= until_ns]
            reports.append(model.advance(until_ns, due))
            before_ns = until_ns
        return (*rows(reports), reports[-1].host, MachineSampleBlock.join([one.machine_samples for one in reports]))

    singly = life([], coalesce=False)
    if life([], coalesce=True) != singly or life(cuts_s, coalesce=True) != singly:
        return True
    return bool(life(cuts_s, coalesce=True, unasked_ns=unasked_ns) != singly)


def asking(commands: Sequence[Command]) -> list[Command]:
    """Those of which domains could not know: all but their starts, and the stops of those that depart."""
    departs_ns = {one.request.domain_id: one.request.departure_ns for one in commands if isinstance(one, StartDomain)}
    return [
        one
        for one in commands
        if not isinstance(one, StartDomain)
        and not (isinstance(one, StopDomain) and one.at_ns == departs_ns.get(one.domain_id))
    ]


def seconds(t_ns: int | None) -> float:
    """For messages."""
    assert t_ns is not None
    return t_ns / NS_PER_S


class SlowMachine(ReferenceMachine):
    """The slow reference as the page mechanism of a host."""

    def end_build(self, dom: int) -> None:
        """Nothing follows from it here."""

    def forget(self, dom: int) -> None:
        """A destroyed domain costs nothing here."""

    def tot_pages(self, dom: int) -> int:
        return self.counters(dom).tot_pages

    def entry_count(self, dom: int) -> int:
        return self.counters(dom).entry_count

    def debt_pages(self, dom: int) -> int:
        counters = self.counters(dom)
        return counters.entry_count - counters.cache_count


def slow_machine(host: HostConfig, ram_pages: int) -> SlowMachine:
    return SlowMachine(
        ram_pages,
        scrub_on_free=host.scrub_on_free,
        era=host.era,
        ring_slots=host.ring_slots,
        sweep_wraps=host.sweep_wraps,
        costs=vars(host.costs),
    )
