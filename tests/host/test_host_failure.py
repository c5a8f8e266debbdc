"""A host that dies: what a real one says of all that it took with it, and that it comes back empty and whole."""

from __future__ import annotations

from collections import Counter

import pytest

from podcluster.config import ControllerConfig
from podcluster.host.model import HostModel
from podcluster.records.commands import Close, Command, EndWarmup, FailHost
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_config, host_model, live, request, rows, start

MIB = PAGES_PER_MIB
FAIL_S = 20
NO_CACHE = {"rate_mib_per_s": 0}


def fates(report: HostReport) -> Counter[tuple[str, int]]:
    """How many rows of each fate and attempt."""
    return Counter((row.fate, row.attempt) for row in report.domains)


def failing(model: HostModel, *commands: Command, until_s: float = 60) -> HostReport:
    """A host's life in which it dies at 20 s."""
    return live(model, until_s, *commands, FailHost(s_to_ns(FAIL_S)))


def test_all_that_runs_is_lost_and_all_memory_is_free() -> None:
    """Guests that boot and guests that are up: host_failed at that instant, a row each, free memory as at the start."""
    empty = live(host_model(*map(guest_config, ("linux", "windows"))), 1).view.free_pages
    model = host_model(*map(guest_config, ("linux", "windows")), host=host_config(check="step"))
    report = failing(
        model, start(request(0, "linux", 48, 96, 0), 1), start(request(1, "windows", 64, 128, 0), 2),
        start(request(2, "linux", 48, 96, 0), 19.5),
    )  # fmt: skip
    assert fates(report) == {("host_failed", 1): 3}
    assert {row.end_ns for row in report.domains} == {FAIL_S * NS_PER_S}
    booted = {row.domain_id: row.boot_done_ns is not None for row in report.domains}
    assert booted == {0: True, 1: True, 2: False}
    assert all(row.tot_pages > 0 for row in report.domains)
    assert (report.view.free_pages, report.view.domains, report.view.promised_pages) == (empty, 0, 0)
    assert report.view.committed_pages == live(host_model(guest_config()), 1).view.committed_pages


def test_a_guest_lives_on_the_host_afterwards_as_on_a_new_one() -> None:
    """Started after the failure, to the same row as on a host that had been empty all along."""
    later = start(request(7, "linux", 48, 96, curve((0, 5), (40, 30))), 30)
    fresh = live(host_model(guest_config()), 60, later)
    used = failing(host_model(guest_config()), start(request(0, "linux", 48, 96, 0), 1), later)
    assert [row for row in used.domains if row.domain_id == 7] == list(fresh.domains)


def test_what_was_about_to_be_built_again_is_lost_too() -> None:
    """Killed at its boot, waiting 100 s for the next: its second attempt ends with the host, never built."""
    guest = guest_config("linux_no_driver", dirty_all=True, page_cache=NO_CACHE)
    model = host_model(guest, host=host_config(check="step", on_crash="restart", restart_delay_s=100))
    report = failing(model, start(request(0, "linux_no_driver", 48, 96, 0), 1), until_s=300)
    assert fates(report) == {("pod_oom", 1): 1, ("host_failed", 2): 1}
    (row,) = [row for row in report.domains if row.attempt == 2]
    assert (row.boot_start_ns, row.tot_pages, row.origin, row.end_ns) == (None, 0, "restart", FAIL_S * NS_PER_S)


def test_a_preserved_crash_is_gone_with_the_host() -> None:
    """on_crash=preserve: its row is written at its death, its memory is free after the host's."""
    guest = guest_config("linux_no_driver", dirty_all=True, page_cache=NO_CACHE)
    empty = live(host_model(guest), 1).view.free_pages
    model = host_model(guest, host=host_config(check="step", on_crash="preserve"))
    report = failing(model, start(request(0, "linux_no_driver", 48, 96, 0), 1))
    assert fates(report) == {("pod_oom", 1): 1}
    assert report.view.free_pages == empty


def test_starts_that_wait_for_memory_are_lost_too() -> None:
    """Under squeezed, a guest too many waits for others to give memory: host_failed without a build."""
    stuck = guest_config("windows", fault={"kind": "stuck"})
    model = host_model(stuck, controller=ControllerConfig(name="squeezed"))
    report = live(
        model, 60, start(request(0, "windows", 64, 400, 0), 1), start(request(1, "windows", 64, 400, 0), 15),
        FailHost(s_to_ns(FAIL_S)),
    )  # fmt: skip
    found = {row.domain_id: (row.fate, row.boot_start_ns is None) for row in report.domains}
    assert found == {0: ("host_failed", False), 1: ("host_failed", True)}


def story() -> list[Command]:
    """A guest, the end of the warm-up, the host's death, another guest, the end."""
    first = start(request(0, "linux", 48, 96, curve((0, 5), (40, 30))), 1)
    second = start(request(1, "linux", 48, 96, 9), 25)
    return [first, EndWarmup(s_to_ns(10)), FailHost(s_to_ns(FAIL_S)), second, Close(s_to_ns(60))]


@pytest.mark.parametrize("cuts", [(), (5,), (19, 20, 21), tuple(range(1, 60))])
def test_where_time_is_cut_changes_nothing(cuts: tuple[int, ...]) -> None:
    """[HM-1] with a failure and an end of warm-up in it: the same rows whatever calls of `advance` the time is cut
    into.
    """
    model = host_model(guest_config(), telemetry_s=3)
    reports, begun_ns = [], 0
    for until_ns in map(s_to_ns, (*cuts, 60)):
        reports.append(model.advance(until_ns, [one for one in story() if begun_ns < one.at_ns <= until_ns]))
        begun_ns = until_ns
    whole = host_model(guest_config(), telemetry_s=3).advance(s_to_ns(60), story())
    assert rows(reports) == rows([whole])
    assert reports[-1].host == whole.host


def test_a_host_row_is_of_the_time_after_the_warmup() -> None:
    """A guest from 1 to 20 s and nothing after it: with the warm-up over at 30 s, means and peaks are of an empty host,
    and counts are 0.
    """
    report = failing(host_model(guest_config()), start(request(0, "linux", 48, 96, 0), 1), EndWarmup(s_to_ns(30)))
    row = report.host
    assert row is not None
    assert (row.domains_started, row.domains_died, row.domains_peak, row.target_changes) == (0, 0, 0, 0)
    assert row.promised_pages_peak == row.promised_pages_mean == row.owned_pages_peak == row.owned_pages_mean == 0
    assert row.free_pages_min == row.free_pages_mean == report.view.free_pages
    before: DomainRow = report.domains[0]
    assert before.boot_start_ns == NS_PER_S
