"""Machines that reboot into what they have installed: the cluster goes on knowing them, as what they are by then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from podcluster.cli import compose
from podcluster.cluster import run as run_module
from podcluster.cluster.agenda import Enabling, Evacuation, Failure, Migration, Operation
from podcluster.cluster.plan import Plan
from podcluster.cluster.pool import HostPlan, InlinePool
from podcluster.cluster.run import RunOutcome
from podcluster.config import Cell, Config, FailureConfig, MigrationConfig, PlacementConfig
from podcluster.io.digest import digest
from podcluster.io.load import load_results
from podcluster.records.commands import Command, StopDomain
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import MachineRequest, Workload
from podcluster.records.reports import HostReport, Installed
from podcluster.study.runner import run_study
from podcluster.units import NS_PER_S
from tests.cluster.fake import FakeHost
from tests.cluster.story import ListSink, play
from tests.cluster.test_failover import ONE, OVER, told
from tests.cluster.test_failures import FAIL_S, apart, at, immortal, kinds, named, plan_with, rows_of

MakeConfig = Callable[..., Config]

REBOOTED_S = 10


class Installing(FakeHost):
    """A host whose installers reboot at the end of the step in which they were started, with this target from then; it
    may be long before they are built again.
    """

    memory_pages = 1000
    pauses = False

    def advance(self, until_ns: int, commands: Sequence[Command]) -> HostReport:
        """The same, with what is installed in the place of what was there."""
        report = super().advance(until_ns, commands)
        done = [domain_id for domain_id, (one, _) in sorted(self.living.items()) if one.os_class == "installer"]
        rows = list(report.domains)
        for domain_id in done:
            request, _ = self.living[domain_id]
            rows.append(self.end(domain_id, "shut_down", "rebooted"))
            into = replace(request, os_class="linux", memory_pages=self.memory_pages, attempt=request.attempt + 1)
            if not self.pauses:
                self.start(replace(into, origin="restart", arrival_ns=until_ns))
        installed = tuple(Installed(domain_id, "linux", self.memory_pages, self.memory_pages) for domain_id in done)
        return replace(report, domains=tuple(rows), installed=installed, view=self.view())


def installing(spec: HostSpec, plan: HostPlan, memory_pages: int, pauses: bool) -> FakeHost:
    """For a pool."""
    host = Installing(spec, plan.seed, plan.telemetry_ns)
    host.memory_pages, host.pauses = memory_pages, pauses
    return host


def installers(count: int, late: int = 0, departure_s: float | None = None) -> Workload:
    """Machines that install themselves at once; the last `late` of them come at 500 s, when the others have."""
    ones = immortal(count, departure_s=departure_s).requests
    first = count - late
    return Workload(
        tuple(replace(one, os_class="installer", arrival_ns=(k >= first) * 500 * NS_PER_S)
              for k, one in enumerate(ones))
    )  # fmt: skip


def install(
    plan: Plan, workload: Workload, memory_pages: int = 1000, *, pauses: bool = False
) -> tuple[RunOutcome, ListSink]:
    """Run it on such hosts."""
    make_host = partial(installing, memory_pages=memory_pages, pauses=pauses)
    pool = InlinePool(plan.specs, plan.hosts, make_host)
    return play(replace(plan, reboots=True), workload, pool)


def classes(sink: ListSink, requests: Iterable[MachineRequest], attempt: int) -> set[tuple[str, str, int]]:
    """What these attempts are: class, origin, host."""
    rows = rows_of(sink)
    found = (rows[one.domain_id, attempt] for one in requests)
    return {(row.os_class, row.origin, row.host_id) for row in found}


def test_a_host_is_emptied_of_what_was_installed_there() -> None:
    """Three on host 0 have rebooted when it is emptied: all three go on as Linux elsewhere."""
    workload = installers(3)
    outcome, sink = install(plan_with(workload, at(1000, Evacuation(0)), hosts=2), workload)
    assert classes(sink, workload.requests, 2) == {("linux", "restart", 0)}
    assert classes(sink, workload.requests, 3) == {("linux", "migration", 1)}
    assert (outcome.row.migrations, outcome.row.fate_running) == (3, 3)


def test_hosts_are_filled_alike_with_what_was_installed() -> None:
    """Six on host 0 of three, looked at every 600 s: two go to each of the others."""
    workload = installers(6)
    rebalancing = MigrationConfig(rebalance_s=600, rebalance_gap=0.15)
    _, sink = install(replace(plan_with(workload), migration=rebalancing), workload)
    assert Counter(row.host_id for row in sink.tables["domains"] if row.fate == "running") == {0: 2, 1: 2, 2: 2}


def test_it_moves_with_the_target_that_it_rebooted_with() -> None:
    """B1.10: two of 1,000 pages on host 0 have been set to 3,000 when they reboot; host 1 has 5,000 left, so that one
    goes and one stays.
    """
    workload = installers(2)
    filler = replace(immortal(3, pages=5000).requests[2], maxmem_pages=5000, arrival_ns=20 * NS_PER_S)
    workload = Workload((*(replace(one, maxmem_pages=4000) for one in workload.requests), filler))
    _, sink = install(plan_with(workload, at(1000, Evacuation(0)), hosts=2), workload, memory_pages=3000)
    moved = [row for row in sink.tables["domains"] if row.origin == "migration"]
    assert [(row.memory_pages, row.host_id) for row in moved] == [(3000, 1)]
    assert kinds(sink)["migrate_refused"] == 1


def test_who_reboots_while_it_is_to_move_stays_and_may_move_later() -> None:
    """Sent to host 1 in the very step in which it reboots: no room is kept for it, until it is sent again."""
    workload = installers(1)
    domain_id = workload.requests[0].domain_id
    orders = at(1, Migration(domain_id, 1)), at(100, Migration(domain_id, 1))
    for count, host_id in ((1, 0), (2, 1)):
        _, sink = install(plan_with(workload, *orders[:count], hosts=2), workload)
        assert {row.host_id for row in sink.tables["domains"] if row.fate == "running"} == {host_id}


def test_the_plan_counts_what_was_installed() -> None:
    """D7.5, D7.7: ten on host 0 of three are as many as the others have room for, installed or not, so that two more
    are refused at 500 s; one failure is borne all the time.
    """
    workload = installers(12, late=2)
    outcome, sink = install(plan_with(workload, failure=ONE), workload)
    causes = Counter((row.fate, row.cause) for row in sink.tables["domains"])
    assert causes == {("shut_down", "rebooted"): 10, ("running", ""): 10, ("rejected", "ha_plan"): 2}
    assert (outcome.row.failures_tolerated_min, outcome.row.overcommitted_ns) == (1, 0)


def test_the_plan_sees_what_was_installed(make_config: MakeConfig) -> None:
    """D7.6: a system with a device passed through is not agile, whatever has installed it: at 500 s, when something is
    due and it is looked, there is no plan any more.
    """
    workload = installers(2, late=1)
    guests = {"installer": make_config().guest, "linux": make_config("guest.passthrough=true").guest}
    plan = plan_with(workload, failure=OVER)
    _, sink = install(replace(plan, hosts=replace(plan.hosts, guests=guests)), workload)
    assert told(sink) == [("ha_overcommitted", 500, 0)]


@pytest.mark.parametrize("pauses", [False, True])
@pytest.mark.parametrize("ends", ["", "left", "destroyed"])
def test_strict_groups_know_what_was_installed(ends: str, pauses: bool) -> None:
    """[PLACE-8] of three that are to be apart two have rebooted on two hosts, or are to be built again: the third has
    none, unless the first was to end at 300 s. Then nobody is left to move off its host before the third comes.
    """
    first, second, third = named("db", installers(3, late=1).requests)
    if ends == "left":
        first = replace(first, departure_ns=300 * NS_PER_S)
    workload = Workload((first, second, third))
    orders = [at(400, Evacuation(0)), at(450, Enabling(0))]
    if ends == "destroyed":
        orders.append(at(300, Operation(StopDomain(300 * NS_PER_S, first.domain_id))))
    _, sink = install(apart(plan_with(workload, *orders, hosts=2)), workload, pauses=pauses)
    rows = rows_of(sink)
    assert [rows[one.domain_id, 1].host_id for one in workload.requests] == [0, 1, 0 if ends else -1]
    assert kinds(sink)["migrate_refused"] == (0 if ends else 1)


@pytest.mark.parametrize("departure_s", [None, 300.0])
def test_what_was_installed_keeps_its_vcpus(departure_s: float | None) -> None:
    """A host of four CPUs at a ratio of 1 has two of two vCPUs each: a third, at 500 s, takes the next, unless they
    left.
    """
    ones = installers(3, late=1, departure_s=departure_s).requests
    workload = Workload((*ones[:2], replace(ones[2], departure_ns=None)))
    plan = plan_with(workload, hosts=2)
    specs = tuple(replace(spec, cpus=4) for spec in plan.specs)
    placement = PlacementConfig(policy="first_fit", vcpu_ratio=1)
    _, sink = install(replace(plan, specs=specs, placement=placement), workload)
    assert rows_of(sink)[ones[2].domain_id, 1].host_id == (1 if departure_s is None else 0)


@pytest.mark.parametrize(("fails_s", "os_class"), [(5, "installer"), (FAIL_S, "linux")])
def test_a_failed_host_gives_back_what_was_installed(fails_s: float, os_class: str) -> None:
    """Host 0 dies before or after its machines have rebooted, at 10 s: what starts elsewhere is the installer, or the
    installed system, which is no installer any more and does not reboot.
    """
    workload = installers(3)
    failure = FailureConfig(repair_s=None)
    outcome, sink = install(plan_with(workload, at(fails_s, Failure(0)), hosts=2, failure=failure), workload)
    assert (REBOOTED_S > fails_s) == (os_class == "installer")
    again = 2 if os_class == "installer" else 3
    assert classes(sink, workload.requests, again) == {(os_class, "ha", 1)}
    assert {row.os_class for row in sink.tables["domains"] if row.fate == "running"} == {"linux"}
    assert (outcome.row.ha_restarts, outcome.row.restarts, outcome.row.fate_running) == (3, 3, 3)


# Six guests of 1 GiB that install themselves within a minute, one after the other, on the first host. When all have, it
# is emptied, and later one of those dies that have them then.
REAL = (
    "workload=alike",
    "workload.machines=6",
    "workload.maxmem_mib=1024",
    "workload.boot_spread_s=1000",
    "workload.orders=[1500 host-evacuate 0, 2000 host-fail 1]",
    "overcommit=1",
    "guest=installer",
    "guest.install.end=reboots",
    "guest.install.unpack_mib=[10,10]",
    "guest.install.install_s=[20,20]",
    "guest.page_cache.rate_mib_per_s=0",
    "cluster.hosts=3",
    "cluster.host_mem_gib=9",
    "placement=first_fit",
    "failure.tolerate=1",
    "failure.allow_overcommit=true",
    "study.duration_s=2400",
    "study.telemetry_s=0",
    "study.figure=false",
    "engine=inline",
)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of real hosts."""
    folder = tmp_path_factory.mktemp("installed")
    run_study([Cell(config=compose(REAL))], out_dir=folder)
    return folder


def test_real_hosts_say_what_was_installed(real: Path) -> None:
    """Whatever moves, or starts again elsewhere, is Linux."""
    domains = load_results(real)["domains"]
    found = Counter(zip(domains["os_class"], domains["origin"], domains["fate"], strict=True))
    assert found.pop(("installer", "boot", "shut_down")) == 6
    assert found == {
        ("linux", "restart", "migrated"): 6,
        ("linux", "migration", "running"): 3,
        ("linux", "migration", "host_failed"): 3,
        ("linux", "ha", "running"): 3,
    }


def test_merging_epochs_changes_no_byte_of_what_was_installed(
    make_config: MakeConfig, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[EP-1] the same with every epoch of 10 s on its own."""
    monkeypatch.setattr(run_module, "MOST_MERGED_NS", 0)
    monkeypatch.setattr(run_module, "count_steps", lambda *_: 10**18)
    run_study([Cell(config=make_config(*REAL))], out_dir=tmp_path)
    assert digest(tmp_path) == digest(real)
