"""Do the epochs bring every request to one row, keep every host within its memory, and not care how they are cut?"""

from collections import Counter
from dataclasses import replace

import pytest

from podcluster.cluster import run as run_module
from podcluster.cluster.pool import InlinePool, deal, fold
from podcluster.cluster.ratios import peak_of
from podcluster.errors import InvariantError
from podcluster.records.machines import Workload
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow, EventRow
from podcluster.records.samples import SampleRow
from podcluster.units import NS_PER_S
from tests.cluster.fake import make_fake
from tests.cluster.story import HOUR_S, USABLE, inline, machine, machines, physics, play, small_plan


def test_every_request_has_one_row_and_one_fate() -> None:
    """[EP-3] on the story: 41 requests, keys unique, fates add up in `runs`."""
    workload = machines()
    outcome, sink = play(small_plan(workload), workload)
    rows: list[DomainRow] = sink.tables["domains"]
    assert sorted(row.domain_id for row in rows) == [request.domain_id for request in workload.requests]
    fates = Counter(row.fate for row in rows)
    assert set(fates) == {"running", "shut_down", "pod_oom", "rejected"}
    row = outcome.row
    assert (row.requests, row.boots_started) == (41, 41 - fates["rejected"])
    assert row.fate_running + row.fate_shut_down + row.fate_pod_oom + row.fate_rejected == row.requests
    assert row.fate_pod_oom == fates["pod_oom"]
    assert row.machines_left_out == 2
    assert row.domain_s == pytest.approx(
        sum((r.end_ns - (r.boot_start_ns or 0)) / NS_PER_S for r in rows if r.host_id >= 0)
    )


def test_a_machine_above_any_host_is_rejected_as_too_large_and_one_that_finds_no_room_as_no_host() -> None:
    """One host of 10,000 pages: nine machines of 1,000 / 2,000 fit ten times; the eleventh does not."""
    requests = [machine(domain_id, 1.0) for domain_id in range(11)] + [machine(11, 2.0, pages=6000)]
    workload = Workload(tuple(requests))
    _, sink = play(small_plan(workload, hosts=1), workload)
    rejected = {row.domain_id: row for row in sink.tables["domains"] if row.fate == "rejected"}
    assert {domain_id: row.cause for domain_id, row in rejected.items()} == {10: "no_host", 11: "too_large"}
    assert rejected[10].host_id == -1 and rejected[10].boot_start_ns is None and rejected[10].end_ns == NS_PER_S
    events: list[EventRow] = [event for event in sink.tables["events"] if event.kind == "reject"]
    assert [event.domain_id for event in events] == [10, 11]
    assert "MiB" in events[0].text


def test_no_host_is_ever_promised_more_than_it_has() -> None:
    """[EP-2] at every sample and in every view: committed within U, and more than one host used."""
    workload = machines(120)
    _, sink = play(small_plan(workload), workload)
    samples: list[SampleRow] = sink.tables["samples"]
    assert max(sample.target_pages for sample in samples if sample.host_id >= 0) <= USABLE
    assert len({row.host_id for row in sink.tables["domains"] if row.host_id >= 0}) == 3


def test_merging_empty_epochs_changes_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """[EP-1] the story with each epoch on its own, with merging, and with very long merges."""
    workload = machines()
    tables, steps = [], []
    for most_ns in (0, run_module.MOST_MERGED_NS, 10**18):
        monkeypatch.setattr(run_module, "MOST_MERGED_NS", most_ns)
        monkeypatch.setattr(run_module, "count_steps", lambda *_: 10**18)  # the limit above alone decides
        outcome, sink = play(small_plan(workload), workload)
        tables.append(physics(sink))
        steps.append(outcome.steps)
    assert tables[0] == tables[1] == tables[2]
    assert steps[0] == 360 and steps[1] < 120


def test_a_scheduler_sees_a_death_only_after_the_epoch_in_which_it_happened() -> None:
    """A host is full until its guest leaves at 105 s: what arrives at 106 s, in the same epoch, is rejected; at 111 s
    it fits.
    """
    requests = [machine(0, 1.0, 105.0, pages=5000), machine(1, 1.0, pages=5000)]
    for arrival_s, fate in ((106.0, "rejected"), (111.0, None)):
        workload = Workload((*requests, machine(2, arrival_s, pages=5000)))
        _, sink = play(small_plan(workload, hosts=1), workload)
        last = next(row for row in sink.tables["domains"] if row.domain_id == 2)
        assert (last.fate == "rejected") == (fate == "rejected")


def test_placements_of_one_epoch_count_at_once() -> None:
    """A storm of 30 in one instant on 3 hosts of room for 10: each gets ten, though no host has reported yet."""
    workload = Workload(tuple(machine(domain_id, 0.0) for domain_id in range(30)))
    _, sink = play(small_plan(workload), workload)
    assert Counter(row.host_id for row in sink.tables["domains"]) == {0: 10, 1: 10, 2: 10}
    assert {row.boot_start_ns for row in sink.tables["domains"]} == {1}


def test_a_departure_stops_the_domain_at_its_time() -> None:
    """A guest that is to leave at 77.5 s does, in the middle of an epoch; one that is due after the end stays."""
    stays = [domain_id for domain_id in range(50) if play_one(domain_id, 77.5).fate != "pod_oom"]
    assert len(stays) > 20
    row = play_one(stays[0], 77.5)
    assert (row.fate, row.end_ns) == ("shut_down", int(77.5 * NS_PER_S))
    row = play_one(stays[0], HOUR_S + 1.0)
    assert row.fate in ("running", "pod_oom") and (row.fate == "pod_oom" or row.end_ns == HOUR_S * NS_PER_S)


def play_one(domain_id: int, departure_s: float) -> DomainRow:
    """One machine alone."""
    workload = Workload((machine(domain_id, 3.0, departure_s),))
    row: DomainRow = play(small_plan(workload, hosts=1), workload)[1].tables["domains"][0]
    return row


def test_samples_of_the_cluster_are_sums_over_hosts() -> None:
    """host_id -1 at every instant at which hosts have samples, and only there."""
    workload = machines()
    _, sink = play(small_plan(workload), workload)
    samples: list[SampleRow] = sink.tables["samples"]
    instants = {sample.t_ns for sample in samples}
    assert instants == {k * 60 * NS_PER_S for k in range(1, 61)}
    for t_ns in instants:
        parts = [sample for sample in samples if sample.t_ns == t_ns and sample.host_id >= 0]
        total = [sample for sample in samples if sample.t_ns == t_ns and sample.host_id == -1]
        assert len(parts) == 3 and len(total) == 1
        for name in ("promised_pages", "owned_pages", "demanded_pages", "free_pages", "deaths", "domains_running"):
            assert getattr(total[0], name) == sum(getattr(part, name) for part in parts)


def test_ratios_do_not_depend_on_whether_samples_are_written() -> None:
    """study.telemetry_s=0 leaves the table out and every ratio in."""
    workload = machines()
    plan = small_plan(workload)
    with_samples, sink = play(plan, workload)
    without, bare = play(replace(plan, write_samples=False), workload)
    assert "samples" in sink.tables and "samples" not in bare.tables
    assert replace(without.row, wall_s=0.0) == replace(with_samples.row, wall_s=0.0)


def test_static_ratio_is_the_sum_of_maxmem_over_usable_memory() -> None:
    """Two machines for the whole hour and one for a quarter: the mean by hand, the peak to the page."""
    workload = Workload((machine(0, 0.0), machine(1, 0.0), machine(2, 0.0, 900.0)))
    plan = small_plan(workload, hosts=1)
    plans = (replace(plan, hosts=replace(plan.hosts, seed=seed)) for seed in range(1000))
    outcome = next(outcome for outcome, _ in (play(each, workload) for each in plans) if not outcome.row.fate_pod_oom)
    assert outcome.row.static_ratio_max == 6000 / USABLE
    assert outcome.row.static_ratio_mean == pytest.approx((4000 + 2000 * 0.25) / USABLE)
    assert outcome.row.target_ratio_max == 3000 / USABLE
    assert outcome.row.commit_ratio_max == 3000 / USABLE


def test_the_ratio_that_was_placed_does_not_depend_on_who_died() -> None:
    """Three machines at once, one until it leaves; of runs with different deaths the promise is the same."""
    workload = Workload((machine(0, 0.0), machine(1, 0.0), machine(2, 0.0, 900.0)))
    plan = small_plan(workload, hosts=1)
    plans = (replace(plan, hosts=replace(plan.hosts, seed=seed)) for seed in range(1000))
    outcomes = [play(each, workload)[0] for each in plans]
    assert {outcome.row.fate_pod_oom for outcome in outcomes} > {0, 1}
    assert {outcome.row.placed_ratio for outcome in outcomes} == {6000 / USABLE}


def test_no_maximum_is_below_its_mean() -> None:
    """A run without a single sample, on one host and on three: peaks come from the hosts, means bound them."""
    workload = Workload(tuple(machine(domain_id, 0.0) for domain_id in range(9)))
    for hosts in (1, 3):
        row = play(small_plan(workload, hosts=hosts, duration_s=50), workload)[0].row
        for name in ("static", "target", "commit", "demand"):
            assert getattr(row, f"{name}_ratio_max") >= getattr(row, f"{name}_ratio_mean") > 0


def test_peak_counts_a_domain_that_ends_where_another_starts_once() -> None:
    """Successors never stand beside their predecessors; what still runs at the end does."""
    workload = Workload((machine(0, 0.0),))
    row: DomainRow = play(small_plan(workload, hosts=1), workload)[1].tables["domains"][0]
    first = replace(row, boot_start_ns=0, end_ns=10, fate="shut_down")
    second = replace(row, boot_start_ns=10, end_ns=20, fate="running")
    third = replace(row, boot_start_ns=20, end_ns=20, fate="running")
    assert peak_of([first, second], "maxmem_pages") == 2000
    assert peak_of([second, third], "maxmem_pages") == 4000


def test_arrivals_after_the_end_are_our_mistake() -> None:
    """A workload never asks for a machine that the run cannot start."""
    workload = Workload((machine(0, HOUR_S + 1.0),))
    with pytest.raises(InvariantError, match="EP-3"):
        play(small_plan(workload), workload)


def test_shards_are_dealt_evenly_and_folded_in_host_order() -> None:
    """[CL-1] five hosts on two shards, reports coming in the wrong order; a missing, a double and a late one are
    refused.
    """
    plan = small_plan(machines(), hosts=5)
    hands = deal(plan.specs, 2)
    assert [[spec.host_id for spec in hand] for hand in hands] == [[0, 2, 4], [1, 3]]
    reports = [report for hand in reversed(hands) for report in InlinePool(hand, plan.hosts, make_fake).advance(10, {})]
    assert [report.host_id for report in fold(reports, 5, 10)] == [0, 1, 2, 3, 4]
    for wrong in (reports[:4], [*reports[:4], reports[0]]):
        with pytest.raises(InvariantError, match="CL-1"):
            fold(wrong, 5, 10)
    with pytest.raises(InvariantError, match="CL-1"):
        fold(reports, 5, 11)


def test_hosts_given_in_any_order_give_the_same_rows() -> None:
    """The pool sorts: specs reversed, same bytes."""
    workload = machines()
    plan = small_plan(workload)
    pool = InlinePool(tuple(reversed(plan.specs)), plan.hosts, make_fake)
    assert physics(play(plan, workload, pool)[1]) == physics(play(plan, workload, inline(plan))[1])


def test_a_pool_reports_what_it_was_asked() -> None:
    """A report is of the host asked, at the time asked."""
    plan = small_plan(machines())
    reports: list[HostReport] = inline(plan).advance(5 * NS_PER_S, {})
    assert [(report.host_id, report.now_ns) for report in reports] == [(i, 5 * NS_PER_S) for i in range(3)]
