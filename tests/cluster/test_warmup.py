"""Is what comes before the end of the warm-up left out of every rate, mean and peak, and left in the tables?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from podcluster.cluster.ledger import counted_rows, rejection
from podcluster.records.machines import Workload
from podcluster.records.rows import DomainRow
from podcluster.units import NS_PER_S
from tests.cluster.story import HOUR_S, USABLE, machine, machines, physics, play, small_plan

WARMUP_S = 900


def test_nothing_that_happens_depends_on_the_warmup() -> None:
    """Domains, samples and events are the same; only `runs` and `hosts` differ."""
    workload = machines()
    plain, warmed = (
        physics(play(replace(small_plan(workload), warmup_ns=s * NS_PER_S), workload)[1]) for s in (0, WARMUP_S)
    )
    for table in ("domains", "samples", "events"):
        assert plain[table] == warmed[table]
    assert plain["runs"] != warmed["runs"]


def test_counts_are_of_boots_asked_for_after_it() -> None:
    """[EP-5] requests, boots and fates against the rows; deaths and time against who was alive after it."""
    workload, warmup_ns = machines(120), 150 * NS_PER_S
    outcome, sink = play(replace(small_plan(workload), warmup_ns=warmup_ns), workload)
    rows: list[DomainRow] = sink.tables["domains"]
    late = [row for row in rows if row.arrival_ns >= warmup_ns]
    run = outcome.row
    assert 0 < run.requests == sum(one.arrival_ns >= warmup_ns for one in workload.requests) < 121
    assert run.boots_started == sum(row.boot_start_ns is not None for row in late)
    assert run.fate_pod_oom == sum(row.fate == "pod_oom" for row in late)
    assert run.fate_rejected == sum(row.fate == "rejected" for row in late)
    alive = [row for row in rows if row.boot_start_ns is not None and row.end_ns >= warmup_ns]
    assert run.crashes == sum(row.fate == "pod_oom" for row in alive)
    assert run.crashes != run.fate_pod_oom, "the story no longer has a death of one that was there before"
    after_s = sum(row.end_ns - max(row.boot_start_ns or 0, warmup_ns) for row in alive) / NS_PER_S
    assert run.after_warmup_s == pytest.approx(after_s)
    assert run.warmup_ns == warmup_ns


def test_means_and_peaks_are_of_the_time_after_it() -> None:
    """Two machines for the whole hour and two more for the first quarter: only the first two are left in ratios."""
    workload = Workload((machine(0, 0.0), machine(1, 0.0), machine(2, 0.0, 800.0), machine(3, 0.0, 800.0)))
    plan = replace(small_plan(workload, hosts=1), warmup_ns=WARMUP_S * NS_PER_S)
    plans = (replace(plan, hosts=replace(plan.hosts, seed=seed)) for seed in range(1000))
    for each in plans:
        outcome, sink = play(each, workload)
        if all(row.fate != "pod_oom" for row in sink.tables["domains"]):
            break
    run = outcome.row
    assert run.static_ratio_max == run.placed_ratio == 4000 / USABLE
    assert run.static_ratio_mean == pytest.approx(4000 / USABLE)
    assert run.commit_ratio_max == run.commit_ratio_mean == pytest.approx(2000 / USABLE)
    assert run.after_warmup_s == pytest.approx(2 * (HOUR_S - WARMUP_S))


def test_a_domain_is_counted_by_its_boot_wherever_it_has_gone() -> None:
    """A boot of before that migrates after it is not counted; one of after it is, on both hosts."""
    blank = rejection(machine(0, 0.0), 0, "")

    def row(domain_id: int, attempt: int, origin: str, arrival_ns: int) -> DomainRow:
        return replace(blank, domain_id=domain_id, attempt=attempt, origin=origin, arrival_ns=arrival_ns)

    old = [row(0, 1, "boot", 5), row(0, 2, "migration", 20), row(0, 3, "ha", 30), row(0, 4, "migration", 40)]
    new = [row(1, 1, "boot", 10), row(1, 2, "migration", 20)]
    assert counted_rows([*old, *new], 10) == [*old[2:], *new]
    assert counted_rows(old, 0) == old
