"""Does a run of any kind come to its end, with the rows that it has when hosts are walked in any order and packed after
each step?

Runs are drawn from a number: policies and what they go by, controllers, toolstacks, guests, epochs, old views, groups,
failures, evacuations and rebalancing, in clusters too small for what comes.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from podcluster.bench.month import Rows, run_on
from podcluster.cli import compose
from podcluster.cluster import pool as pool_module
from podcluster.cluster.plan import make_plan
from podcluster.cluster.pool import PACKING, InlinePool
from podcluster.units import NS_PER_S
from podcluster.workloads import requests
from tests.cluster.any_order import SortedShard

CONTROLLERS = [
    "static",
    "squeezed",
    "squeezed",
    "squeezed",
    "qmemman",
    "mom",
    "proxmox",
    "esx",
    "selfballoon",
    "hyperv",
]
POLICIES = ["first_fit", "next_fit", "best_fit", "worst_fit", "random_fit", "dot_product", "xapi", "chance_constrained"]
BY = ("best_fit", "worst_fit", "dot_product")


def overrides(number: int) -> list[str]:
    """The run of this number."""
    chance = Random(number)
    duration_s = chance.choice([600, 1200])
    controller, policy = chance.choice(CONTROLLERS), chance.choice(POLICIES)
    found = [
        f"seed={number}",
        f"overcommit={chance.choice([1, 1.5, 2, 2.5])}",
        f"study.duration_s={duration_s}",
        f"study.telemetry_s={chance.choice([0, 60])}",
        "study.figure=false",
        f"guest={chance.choice(['linux', 'mix', 'windows'])}",
        f"controller={controller}",
        f"placement={policy}",
        f"cluster.epoch_s={chance.choice([7, 10, 30, 60])}",
        f"host.on_crash={chance.choice(['destroy', 'restart'])}",
        f"migration.wait_s={chance.choice([0, 5, 60])}",
        f"migration.mib_per_s={chance.choice([100, 1000])}",
        "engine=inline",
    ]
    if chance.random() < 0.5:
        found += ["workload=churn", f"workload.arrivals_per_day={chance.choice([120, 400])}"]
    else:
        found += ["workload=synthetic", f"workload.machines={chance.choice([20, 50])}"]
    found.append(f"workload.boot_spread_s={chance.choice([0, 200])}")
    if controller == "squeezed" or chance.random() < 0.3:
        found.append("host.toolstack=xapi")
    if policy in BY:
        found.append(f"placement.by={chance.choice(['maxmem', 'target', 'blend', 'demand'])}")
    if chance.random() < 0.3:
        found.append(f"placement.view_age_s={chance.choice([10, 25, 100])}")
    if chance.random() < 0.3:
        found += [chance.choice(["placement.anti_affinity=['*1*']", "placement.affinity=['*3*']"])]
        found.append(f"placement.strict_groups={chance.choice(['true', 'false'])}")
    hosts = chance.randint(2, 4)
    found.append(f"cluster.host_mem_gib=[{hosts}x{chance.choice([16, 32])},1x48]")
    if chance.random() < 0.7:
        found += [f"migration.rebalance_s={chance.choice([30, 60])}", "migration.rebalance_gap=0.01"]
    if chance.random() < 0.4:
        found += ["failure.rate_per_host_year=20000", "failure.repair_s=100", "failure.restart_delay_s=5"]
    orders = [
        f"{chance.randint(1, duration_s - 1)} {chance.choice(['host-fail', 'host-evacuate', 'host-enable'])} "
        f"{chance.randint(0, hosts)}"
        for _ in range(chance.randint(0, 4))
    ]
    return [*found, f"workload.orders=[{','.join(orders)}]"]


ASKING = ("controller=", "migration.rebalance_", "failure.", "workload.orders")
"""What asks something of domains that run."""


def digest(number: int, *, packed: bool = False, unasked: bool = False, stride_ns: int | None = None) -> str:
    """All rows of the run of this number; `packed`: no host is whole out of its turn; `unasked`: domains are left
    alone; `stride_ns`: how far guests may go then, instead of what the plan says.
    """
    given = overrides(number)
    if unasked:
        given = ["study.duration_s=7200", *(one for one in given if not one.startswith((*ASKING, "study.duration")))]
    config = compose(given)
    workload = requests(
        config.workload, config.guest, config.overcommit, None, config.seed, config.study.duration_s,
        classes=config.classes, usable_pages=config.usable_pages, replication=0, replications=1,
    )  # fmt: skip
    plan = make_plan(config, workload, config.seed)
    if stride_ns is not None:
        plan = replace(plan, hosts=replace(plan.hosts, stride_ns=stride_ns))
    packing = PACKING._replace(room_bytes=0) if packed else PACKING
    rows = Rows(digest=True)
    run_on(InlinePool(plan.specs, plan.hosts, packing=packing), config, plan, workload, rows)
    return rows.digest


@pytest.mark.parametrize("number", range(12))
def test_a_run_comes_to_one_end(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """[CL-1], [CK-1]; and no rule is broken on the way."""
    whole = digest(number, packed=False)
    monkeypatch.setattr(pool_module, "HostShard", SortedShard)
    assert digest(number, packed=True) == whole


@pytest.mark.parametrize("number", range(6))
def test_how_far_guests_go_past_the_end_of_a_step_changes_nothing(number: int) -> None:
    """HM-1, on hosts of a run that come and go."""
    singly = digest(number, unasked=True, stride_ns=0)
    assert [digest(number, unasked=True, stride_ns=one * NS_PER_S) for one in (100, 7200)] == [singly, singly]
