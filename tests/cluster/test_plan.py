"""Is what a run needs settled before it starts: hosts and engine, each with an answer in words?"""

from collections.abc import Callable

import pytest

from podcluster.cluster.asks import Forecasts
from podcluster.cluster.plan import (
    S_PER_GIB_BOOTED,
    S_PER_INSTANT,
    S_PER_MACHINE_HOUR,
    choose_engine,
    count_steps,
    estimate,
    make_plan,
)
from podcluster.cluster.pool import InlinePool
from podcluster.cluster.progress import Silent
from podcluster.cluster.run import run
from podcluster.config import CONTROLLERS, Config
from podcluster.errors import ConfigError
from podcluster.host.domain import need_memory_pages
from podcluster.placement.hosts import Stay, unplaced
from podcluster.placement.policy import make_policy
from podcluster.records.machines import Workload
from podcluster.units import NS_PER_S, PAGES_PER_GIB
from podcluster.workloads import requests
from tests.cluster.story import ListSink, machine

MakeConfig = Callable[..., Config]


def machines_of(config: Config) -> Workload:
    """What the configuration's workload asks for."""
    workload, study = config.workload, config.study
    return requests(
        workload, config.guest, config.overcommit, None, config.seed, study.duration_s, usable_pages=config.usable_pages
    )


def test_auto_takes_as_many_hosts_as_the_policy_needs(make_config: MakeConfig) -> None:
    """At least ceil(sum of need / U), at most 10 % more, all placed, and one fewer would not be enough."""
    config = make_config("workload.machines=80", "cluster.host_mem_gib=64")
    workload = machines_of(config)
    plan = make_plan(config, workload, 1)
    needs = [need_memory_pages(request, config.host, config.guest) for request in workload.requests]
    least = -(-sum(needs) // config.usable_pages)
    hosts = len(plan.specs)
    assert least <= hosts <= least + -(-least // 10)
    forecasts = Forecasts(config.placement, plan.need_pages, plan.duration_ns, 1)
    stays = [Stay(forecasts.ask(request), 0, None) for request in workload.requests]
    assert [stay.ask.need_pages for stay in stays] == needs
    policy = make_policy("first_fit")
    assert unplaced(stays, hosts, config.usable_pages, policy) == 0
    assert hosts == least or unplaced(stays, hosts - 1, config.usable_pages, policy) > 0
    assert plan.notes == (f"cluster.hosts=auto took {hosts} host{'s' if hosts != 1 else ''} of 64 GiB",)
    assert {spec.usable_pages for spec in plan.specs} == {config.usable_pages}


def test_auto_wants_room_beside_the_reserve(make_config: MakeConfig) -> None:
    """XAPI's reserve where domains could have no more is refused in one line; where they have a MiB more it is not, nor
    where hosts are given, which then reject every machine. (squeezed's is a matter of the configuration alone.)
    """
    machines = machines_of(make_config())
    host = ("host.toolstack=xapi", "cluster.host_mem_gib=4", "host.xen_mib=96")
    with pytest.raises(ConfigError) as refused:
        make_plan(make_config(*host, "host.dom0_mib=3928"), machines, 1)
    assert str(refused.value) == (
        "cluster.host_mem_gib must leave room beside the reserve of 72 MiB with cluster.hosts=auto, got 4 "
        "(72 MiB for domains): raise it, or lower host.dom0_mib"
    )
    a_mib = make_plan(make_config(*host, "host.dom0_mib=3927"), machines, 1)
    assert a_mib.notes == ("cluster.hosts=auto took 1 host of 4 GiB, which leaves 60 over",)
    assert len(make_plan(make_config(*host, "host.dom0_mib=3928", "cluster.hosts=3"), machines, 1).specs) == 3


def test_hosts_may_be_of_different_sizes(make_config: MakeConfig) -> None:
    """Two groups: as many hosts as they have, each with its own RAM and U; the largest says which take part."""
    config = make_config("workload.machines=30", "cluster.host_mem_gib=[2x64,3x128,256]")
    plan = make_plan(config, machines_of(config), 1)
    assert [spec.ram_pages // PAGES_PER_GIB for spec in plan.specs] == [64, 64, 128, 128, 128, 256]
    assert [spec.usable_pages for spec in plan.specs] == [
        config.usable_pages_of(g) for g in (64, 64, 128, 128, 128, 256)
    ]
    assert config.usable_pages == config.usable_pages_of(256)
    assert plan.notes == ()


def test_hosts_may_have_different_cpus(make_config: MakeConfig) -> None:
    """With one size of RAM or a list of them; three of 2 vCPUs on hosts of 2 and 8 CPUs at a ratio of 1 [PLACE-3]: the
    first fills the first, the others go past it.
    """
    config = make_config("cluster.host_cpus=[2x16,64]", "cluster.host_mem_gib=[64,2x128]")
    assert [spec.cpus for spec in make_plan(config, machines_of(config), 1).specs] == [16, 16, 64]
    config = make_config(
        "workload=alike", "workload.memory_mib=512", "workload.maxmem_mib=512", "workload.machines=3", "guest.vcpus=2",
        "cluster.host_cpus=[2,8]", "cluster.host_mem_gib=16", "placement.vcpu_ratio=1", "study.duration_s=60",
    )  # fmt: skip
    workload = machines_of(config)
    plan = make_plan(config, workload, 1)
    sink = ListSink()
    run(plan, workload, make_policy(config.placement), InlinePool(plan.specs, plan.hosts), sink, Silent())
    assert [row.host_id for row in sorted(sink.tables["domains"], key=lambda row: row.domain_id)] == [0, 1, 1]


def test_machines_too_large_for_a_small_host_go_to_a_large_one(make_config: MakeConfig) -> None:
    """A machine of 12 GiB beside hosts of 8 and 16: [PLACE-2] sends it past the first, run on real hosts."""
    config = make_config(
        "workload=alike", "workload.memory_mib=2048", "workload.maxmem_mib=12288", "workload.machines=3",
        "cluster.host_mem_gib=[8,16]", "study.duration_s=60",
    )  # fmt: skip
    workload = machines_of(config)
    plan = make_plan(config, workload, 1)
    sink = ListSink()
    run(plan, workload, make_policy("first_fit"), InlinePool(plan.specs, plan.hosts), sink, Silent())
    assert {row.host_id for row in sink.tables["domains"]} == {1}
    assert [row.ram_pages for row in sink.tables["hosts"]] == [8 * PAGES_PER_GIB, 16 * PAGES_PER_GIB]


def test_a_given_number_of_hosts_is_taken(make_config: MakeConfig) -> None:
    """Three hosts are three hosts, and nothing needs saying."""
    config = make_config("cluster.hosts=3")
    plan = make_plan(config, machines_of(config), 1)
    assert (len(plan.specs), plan.notes) == (3, ())


@pytest.mark.parametrize(("telemetry_s", "duration_s", "grid_s"), [(60, 900, 60), (0, 900, 300), (300, 120, 120)])
def test_hosts_are_looked_at_on_a_grid_that_fits_the_run(
    make_config: MakeConfig, telemetry_s: int, duration_s: int, grid_s: int
) -> None:
    """As asked; 300 s where no samples are written; at its end where a run is shorter than that."""
    config = make_config("cluster.hosts=1", f"study.telemetry_s={telemetry_s}", f"study.duration_s={duration_s}")
    plan = make_plan(config, machines_of(config), 1)
    assert plan.hosts.telemetry_ns == grid_s * NS_PER_S
    assert plan.write_samples == (telemetry_s > 0)


@pytest.mark.parametrize(
    ("overrides", "cpus", "kind", "actors", "why"),
    [
        (("engine=inline",), 8, "inline", 0, "as asked"),
        (("engine=ray",), 2, "ray", 2, "as asked"),
        (("engine=ray", "engine.hosts_per_actor=1"), 2, "ray", 40, "as asked"),
        (("engine.actors=3",), 2, "ray", 3, "engine.actors"),
        (("cluster.hosts=1",), 2, "inline", 0, "one host"),
        ((), 1, "inline", 0, "one CPU"),
        (("study.duration_s=600",), 2, "inline", 0, "small work"),
        (("study.duration_s=8640000", "controller=esx"), 2, "ray", 2, "2 actors on 2 CPUs"),
    ],
)
def test_engine_auto_says_where_and_why(
    make_config: MakeConfig, overrides: tuple[str, ...], cpus: int, kind: str, actors: int, why: str
) -> None:
    """Forty hosts, from a laptop's two CPUs to eight, from ten minutes to a hundred days."""
    config = make_config("cluster.hosts=40", *overrides)
    workload = machines_of(config)
    choice = choose_engine(config, make_plan(config, workload, 1), workload, cpus)
    assert (choice.kind, choice.actors) == (kind, actors)
    assert why in choice.why


def test_work_is_boots_and_what_happens_to_machines_that_are_there(make_config: MakeConfig) -> None:
    """1 GiB from 600 s to 4200 s is a boot, an hour of its controller and its demand; one without departure stays to
    the end.
    """
    config = make_config("study.duration_s=7800", "cluster.hosts=1", "controller=squeezed")
    gib = PAGES_PER_GIB // 2  # `machine` promises twice its memory
    leaves = Workload((machine(0, 600.0, 4200.0, pages=gib),))
    stays = Workload((machine(0, 600.0, pages=gib),))
    hour, demand = S_PER_MACHINE_HOUR["squeezed"], S_PER_INSTANT * len(leaves.requests[0].demand.t_ns)
    assert estimate(make_plan(config, leaves, 1), leaves) == pytest.approx((S_PER_GIB_BOOTED, demand + hour))
    assert estimate(make_plan(config, stays, 1), stays) == pytest.approx((S_PER_GIB_BOOTED, demand + 2 * hour))
    assert make_plan(config, stays, 1).duration_ns == 7800 * NS_PER_S


@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_controller_has_an_estimate(name: str) -> None:
    """A new one comes with how long its looks take."""
    assert name in S_PER_MACHINE_HOUR


def test_steps_are_of_about_equal_work_and_of_no_more_samples_than_fit(make_config: MakeConfig) -> None:
    """A day of few machines is one step, of machines whose controller looks at guests many; of samples no more than a
    million are in one.
    """

    def steps(*overrides: str) -> int:
        config = make_config("study.duration_s=86400", "cluster.hosts=1", *overrides)
        workload = Workload(tuple(machine(i, 0.0, pages=PAGES_PER_GIB) for i in range(50)))
        return count_steps(make_plan(config, workload, 1), workload)

    assert steps() == 1
    assert steps("controller=mom") == 1
    assert steps("controller=esx") == 6
    assert steps("study.telemetry_s=1", "study.machine_samples=true") == 5  # 86,400 of 52 each
