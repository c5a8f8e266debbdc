"""What becomes of a guest that Xen kills: gone, built again and killed again, or kept with all that it owns."""

from itertools import pairwise
from typing import Any

import pytest

from podcluster.cluster.plan import make_plan
from podcluster.cluster.pool import InlinePool
from podcluster.cluster.progress import Silent
from podcluster.cluster.run import run
from podcluster.placement.policy import make_policy
from podcluster.records.commands import Close, StopDomain
from podcluster.records.machines import Workload
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.cluster.story import ListSink
from tests.host.lives import curve, guest_config, host_config, host_model, live, request, rows, start

MIB = PAGES_PER_MIB
NO_CACHE = {"rate_mib_per_s": 0}


def loop(until_s: float = 200, *, demand: Any = 0, ram_mib: int = 512, **host: Any) -> HostReport:
    """A guest without a driver that dirties all it was promised, under a restart policy."""
    guest = guest_config("linux_no_driver", dirty_all=not demand, page_cache=NO_CACHE)
    model = host_model(guest, ram_mib=ram_mib, host=host_config(**{"check": "step", **host}))
    return live(model, until_s, start(request(0, "linux_no_driver", 48, 96, demand), 1))


def attempts(report: HostReport) -> list[DomainRow]:
    return sorted(report.domains, key=lambda row: row.attempt)


def test_a_crash_loop() -> None:
    """G14, B4.7: each attempt is built with the full debt, and dies of it; 2 s later comes the next."""
    told = attempts(loop(on_crash="restart"))
    assert len(told) > 5
    assert [row.attempt for row in told] == list(range(1, len(told) + 1))
    for row in told[:-1]:
        assert (row.fate, row.cause, row.cache_count) == ("pod_oom", "debt", 0)
        assert row.entry_count == (96 - 48) * MIB
    for row, after in pairwise(told):
        assert after.boot_start_ns == after.arrival_ns == row.end_ns + 2 * NS_PER_S
    assert len({row.end_ns - (row.boot_start_ns or 0) for row in told[:-1]}) > 3, "each boot has draws of its own"


def test_without_the_policy_there_is_one_attempt() -> None:
    """The same story with on_crash=destroy: one death, and the host has its memory back."""
    report = loop(on_crash="destroy")
    assert [(row.attempt, row.fate) for row in report.domains] == [(1, "pod_oom")]
    assert report.view.free_pages == (512 - 16) * MIB


def test_a_limit_ends_the_loop() -> None:
    """`host.max_restarts=3`: four attempts in all, 7 s apart."""
    told = attempts(loop(on_crash="restart", max_restarts=3, restart_delay_s=7))
    assert [row.attempt for row in told] == [1, 2, 3, 4]
    assert {row.fate for row in told} == {"pod_oom"}
    assert told[1].boot_start_ns == told[0].end_ns + 7 * NS_PER_S


def test_a_demand_that_was_a_passing_peak_ends_the_loop() -> None:
    """A demand that kills for 30 s and is gone then: the loop ends by itself, and the last attempt lives."""
    told = attempts(loop(demand=curve((0, 80), (30, 80), (31, 20)), on_crash="restart"))
    assert told[-1].fate == "running"
    assert 2 <= len(told) < 8
    assert {row.fate for row in told[:-1]} == {"pod_oom"}


def test_a_restart_needs_its_whole_target_again() -> None:
    """B4.7: what was free while it was down has been taken by another guest, and its build is refused."""
    loops = guest_config("linux_no_driver", dirty_all=True, page_cache=NO_CACHE)
    quiet = guest_config("linux", page_cache=NO_CACHE)
    model = host_model(loops, quiet, ram_mib=100, host=host_config(on_crash="restart", restart_delay_s=20))
    died_ns = model.advance(s_to_ns(9), [start(request(0, "linux_no_driver", 48, 96), 1)]).domains[0].end_ns
    report = model.advance(s_to_ns(90), [start(request(1, "linux", 48, 48), 10), Close(s_to_ns(90))])
    again = next(row for row in report.domains if row.domain_id == 0)
    assert (again.attempt, again.fate, again.cause) == (2, "build_failed", "claim_failed")
    assert again.end_ns == died_ns + 20 * NS_PER_S
    assert [row.fate for row in report.domains if row.domain_id == 1] == ["running"]


def test_a_domain_that_is_stopped_while_it_is_down_stays_down() -> None:
    """A departure between a crash and the restart takes the restart back; a second one finds nothing."""
    guest = guest_config("linux_no_driver", dirty_all=True, page_cache=NO_CACHE)
    model = host_model(guest, host=host_config(on_crash="restart", restart_delay_s=10))
    assert len(model.advance(s_to_ns(9), [start(request(0, "linux_no_driver", 48, 96), 1)]).domains) == 1
    late = model.advance(s_to_ns(90), [StopDomain(s_to_ns(10), 0), StopDomain(s_to_ns(60), 0), Close(s_to_ns(90))])
    assert late.domains == ()
    assert late.view.domains == 0
    assert late.view.free_pages == (512 - 16) * MIB


def test_a_preserved_domain_keeps_its_memory_until_it_is_destroyed() -> None:
    """`host.on_crash=preserve`: the row says how it died; its pages stay taken, and come back with the stop."""
    guest = guest_config("linux_no_driver", dirty_all=True, page_cache=NO_CACHE)
    model = host_model(guest, host=host_config(on_crash="preserve", check="step"))
    before = model.advance(1, []).view
    report = model.advance(s_to_ns(60), [start(request(0, "linux_no_driver", 48, 96), 1)])
    row = report.domains[0]
    assert row.fate == "pod_oom"
    pool = 2 * 256 + 96
    assert before.free_pages - report.view.free_pages == row.tot_pages + pool
    assert (report.view.domains, report.view.committed_pages > 0) == (0, True)
    after = model.advance(s_to_ns(70), [StopDomain(s_to_ns(65), 0), Close(s_to_ns(70))])
    assert (after.view.free_pages, after.view.committed_pages) == (before.free_pages, 0)
    assert after.domains == ()


@pytest.mark.parametrize("step_s", [1.5, 7])
def test_where_time_is_cut_changes_no_restart(step_s: float) -> None:
    """HM-1 with a host that acts by itself: the same rows and events in one call and in many, singly or run ahead."""
    loops = guest_config("linux_no_driver", dirty_all=True, page_cache=NO_CACHE)
    balloons = guest_config("linux")
    told = [start(request(i, ("linux_no_driver", "linux")[i % 2], 40, 80, 60), 0.5 + i) for i in range(4)]

    def life(step_s: float, coalesce: bool) -> Any:
        host = host_config(on_crash="restart", restart_delay_s=0.7)
        model = host_model(loops, balloons, ram_mib=256, telemetry_s=5, host=host, coalesce=coalesce)
        ends = [*(s_to_ns(step_s * k) for k in range(1, int(60 / step_s) + 1)), s_to_ns(60) + 1]
        reports, at_ns = [], 0
        for end_ns in ends:
            due = [command for command in told if at_ns < command.at_ns <= end_ns]
            reports.append(model.advance(end_ns, [*due, *([Close(end_ns)] if end_ns == ends[-1] else [])]))
            at_ns = end_ns
        return [sorted(map(repr, part)) for part in rows(reports)], reports[-1].host

    whole = life(60, True)
    assert any("attempt=3" in row for row in whole[0][0])
    assert life(step_s, True) == whole
    assert life(step_s, False) == whole


def test_a_run_has_a_row_for_every_attempt() -> None:
    """EP-3 with restarts: through plan and epochs, attempts without gaps, each start counted once."""
    from podcluster.cli import compose

    overrides = ["workload=one", "workload.memory_mib=256", "workload.maxmem_mib=512", "guest=linux_no_driver"]
    config = compose(
        [*overrides, "guest.dirty_all=true", "host.on_crash=restart", "host.max_restarts=2", "cluster.host_mem_gib=4"]
    )
    from podcluster.workloads import requests

    workload: Workload = requests(
        config.workload, config.guest, 1.5, None, 1, 600, usable_pages=config.usable_pages, replication=0
    )
    plan = make_plan(config, workload, 1)
    sink = ListSink()
    outcome = run(plan, workload, make_policy("first_fit"), InlinePool(plan.specs, plan.hosts), sink, Silent())
    assert [(row.attempt, row.fate) for row in sink.tables["domains"]] == [(k, "pod_oom") for k in (1, 2, 3)]
    assert (outcome.row.requests, outcome.row.restarts, outcome.row.boots_started) == (1, 2, 3)
    assert outcome.row.placed_ratio == 512 * MIB / config.usable_pages
