"""A short life of six real hosts in which everything happens, for tests that take the engine apart meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from podcluster.io.load import load_results
from podcluster.units import NS_PER_S

# With six, one actor, two, four and one for each host are different things.
HOSTS: Final = 6
BOOT_S: Final = 200

# Machines come and go, crash and are built again, and are moved; hosts fail, are repaired, emptied, and filled alike; a
# controller moves memory between them all, and there is too little of it.
BUSY: Final = (
    "seed=3",  # a tenant with forty machines comes in it, most of which leave together
    "workload=churn",
    "workload.arrivals_per_day=120",
    f"workload.boot_spread_s={BOOT_S}",
    "workload.orders=[250 host-fail 2, 450 host-evacuate 0, 600 host-enable 0, 750 host-evacuate 1]",
    "guest=mix",
    "study.duration_s=1000",
    "study.warmup_s=200",
    "study.telemetry_s=60",
    "study.figure=false",
    "cluster.host_mem_gib=[4x12,2x16]",
    "overcommit=1.8",
    "host.toolstack=xapi",
    "host.on_crash=restart",
    "controller=squeezed",
    "failure.rate_per_host_year=20000",
    "failure.repair_s=150",
    "failure.restart_delay_s=20",
    "migration.rebalance_s=100",
)


def check_that_it_is_busy(folder: Path) -> None:
    """Everything does happen: else the tests that use it show less than they say."""
    tables = load_results(folder)
    domains, events = tables["domains"], tables["events"]
    assert set(tables["hosts"]["host_id"]) == set(range(HOSTS)), "so many hosts"
    assert set(domains["host_id"]) >= set(range(HOSTS)), "all with work"
    fates = {"running", "shut_down", "pod_oom", "rejected", "build_failed", "host_failed", "migrated"}
    assert fates <= set(domains["fate"])
    assert {"boot", "restart", "ha", "migration"} <= set(domains["origin"])
    came = domains[domains["arrival_ns"] > BOOT_S * NS_PER_S]
    assert (came[came["origin"] == "boot"]["fate"] == "shut_down").any(), "some come and go"
    kinds = set(events["kind"])
    assert {"set_target", "balloon_done", "balloon_gave_up", "uncooperative"} <= kinds, "the controller has to squeeze"
    assert {"rebalance", "evacuate", "enabled", "migrate_done", "migrate_refused"} <= kinds, "domains move"
    assert {"host_recovered", "ha_restart", "ha_waits"} <= kinds, "what hosts took is started again"
    assert (events["kind"] == "host_failed").sum() > 1, "hosts fail by themselves as well as by order"
