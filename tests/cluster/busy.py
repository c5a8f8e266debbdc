"""A short life of four real hosts in which everything happens, for tests that take the engine apart meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from podcluster.io.load import load_results

# Machines come and go, crash and are built again, and are moved; hosts fail, are repaired and emptied; a controller
# moves memory between them all.
BUSY: Final = (
    "workload=churn",
    "workload.arrivals_per_day=120",
    "workload.boot_spread_s=1200",
    "workload.orders=[500 host-fail 2, 700 host-evacuate 0, 900 host-enable 0, 950 host-evacuate 1, 970 destroy 2351]",
    "guest=mix",
    "study.duration_s=1500",
    "study.warmup_s=300",
    "study.telemetry_s=60",
    "study.figure=false",
    "cluster.host_mem_gib=[3x20,32]",
    "overcommit=1.8",
    "host.toolstack=xapi",
    "host.on_crash=restart",
    "controller=squeezed",
    "failure.rate_per_host_year=9000",
    "failure.repair_s=150",
    "failure.restart_delay_s=20",
)


def check_that_it_is_busy(folder: Path) -> None:
    """Everything does happen: else the tests that use it show less than they say."""
    domains = load_results(folder)["domains"]
    assert {"running", "shut_down", "pod_oom", "rejected", "host_failed", "migrated"} <= set(domains["fate"])
    assert {"boot", "restart", "ha", "migration"} <= set(domains["origin"])
    assert {"host_failed", "host_recovered", "evacuate", "set_target"} <= set(load_results(folder)["events"]["kind"])
