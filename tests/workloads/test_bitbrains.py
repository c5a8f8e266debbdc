"""Requests from a table of machines: hand-made tables for each rule, the real trace for the counts that must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.config import Config
from podcluster.errors import ConfigError, InvariantError
from podcluster.io.traces import read_machines
from podcluster.records.machines import MachineTable, Workload
from podcluster.units import NS_PER_S, PAGES_PER_GIB
from podcluster.workloads import requests
from podcluster.workloads.bitbrains import resolve_resample, whole_days, window

DAY_S = 86_400
MIB = 1024  # KiB
USABLE_128_GIB = 128 * PAGES_PER_GIB - (128 * 1024 // 128 + 64 + 2048) * 256


def table(
    sizes_kib: Sequence[int], samples: Sequence[Sequence[tuple[int, int]]], end_s: int | None = None
) -> MachineTable:
    """Machines of these sizes with these (t_s, used_kib)."""
    lengths = [len(one) for one in samples]
    flat = [pair for one in samples for pair in one]
    times = np.array([t for t, _ in flat], dtype=np.int64)
    return MachineTable(
        source="made by hand",
        epoch_s=0,
        end_s=int(times.max()) if end_s is None else end_s,
        machine_id=np.arange(len(sizes_kib), dtype=np.int64) + 10,
        vcpus=np.ones(len(sizes_kib), dtype=np.int64),
        maxmem_kib=np.array(sizes_kib, dtype=np.int64),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        t_s=times,
        used_kib=np.array([u for _, u in flat], dtype=np.int64),
    )


def make(config: Config, machines: MachineTable, duration_s: int, seed: int = 1, **rest: Any) -> Workload:
    """Requests at the configuration's overcommit."""
    return requests(config.workload, config.guest, config.overcommit, machines, seed, duration_s, **rest)


@pytest.fixture
def config(make_config: Callable[..., Config]) -> Config:
    """The trace family with boots at once."""
    return make_config("workload=bitbrains", "workload.path=unused", "overcommit=2", "workload.boot_spread_s=0")


def test_sizes_are_judged_as_recorded_and_rounded_up_to_mib(config: Config) -> None:
    """One KiB short of 512 MiB is out, 512 MiB and one KiB becomes 513 MiB, half of it the target."""
    one = [(0, 100)]
    made = make(config, table([512 * MIB - 1, 512 * MIB, 512 * MIB + 1], [one, one, one]), 60)
    assert [request.maxmem_pages for request in made.requests] == [512 * 256, 513 * 256]
    assert [request.memory_pages for request in made.requests] == [256 * 256, 256 * 256]
    assert made.left_out == {"smaller than workload.min_maxmem_mib=512": 1}
    # The domain's number is its place in the trace, whoever is left out.
    assert [request.domain_id for request in made.requests] == [1, 2]
    assert [request.name for request in made.requests] == ["vm11", "vm12"]


def test_machines_above_a_host_are_left_out_to_the_page(config: Config) -> None:
    """U of 1024 MiB takes a machine of 1024 MiB and not one of a KiB more."""
    machines = table([1024 * MIB, 1024 * MIB + 1], [[(0, 1)], [(0, 1)]])
    made = make(config, machines, 60, usable_pages=1024 * 256)
    assert [request.domain_id for request in made.requests] == [0]
    assert made.left_out == {"larger than the 1024 MiB a host can give": 1}
    made = make(config, machines, 60, usable_pages=1024 * 256 + 255)
    assert len(made.requests) == 1, "half a MiB of U does not hold a whole one"
    with pytest.raises(ConfigError, match=r"must leave some machines of made by hand, got none of 2"):
        make(config, machines, 60, usable_pages=1000 * 256)


def test_demand_is_cut_on_the_line_between_samples(config: Config) -> None:
    """A window from 150 s to 450 s of samples at 0, 300, 600 s: both ends lie on the line, time begins at 0."""
    config.workload.start_s = 150
    machines = table([1024 * MIB], [[(0, 0), (300, 4000), (600, 1000)]])
    demand = make(config, machines, 300).requests[0].demand
    assert demand.t_ns.tolist() == [0, 150 * NS_PER_S, 300 * NS_PER_S]
    assert demand.pages.tolist() == [500, 1000, 625]
    assert demand.at(75 * NS_PER_S) == 750


def test_a_trace_that_ends_early_keeps_its_last_demand_and_says_so(config: Config) -> None:
    """300 s of trace in an hour's run: flat after the last sample, and a note with the number of seconds."""
    made = make(config, table([1024 * MIB], [[(0, 400), (300, 800)]]), 3600)
    assert made.requests[0].demand.at(3600 * NS_PER_S) == 200
    assert made.requests[0].departure_ns is None
    assert any("ends 3300 s before" in note for note in made.notes)


def test_gaps_are_bridged_and_counted(config: Config) -> None:
    """A step of 901 s is a gap, one of 900 s is not; the line runs through it."""
    made = make(config, table([1024 * MIB] * 2, [[(0, 0), (901, 90100), (1801, 0)], [(0, 4), (900, 4)]]), 1801)
    assert made.requests[0].demand.at(450 * NS_PER_S) == 45000 // 4
    assert any(note.startswith("1 gaps of more than 900 s") for note in made.notes)


def test_machines_that_come_late_arrive_with_their_first_sample(config: Config) -> None:
    """At 300 s still with the others, at 301 s then; never if that is after the window, nor if it left before it."""
    machines = table([1024 * MIB] * 4, [[(300, 4), (900, 4)], [(301, 4), (900, 4)], [(1000, 8)], [(0, 4)]])
    made = make(config, machines, 900)
    assert [(r.domain_id, r.arrival_ns // NS_PER_S) for r in made.requests] == [(0, 0), (3, 0), (1, 301)]
    assert made.left_out == {"without a sample before or in the window": 1}
    config.workload.start_s = 950
    made = make(config, machines, 50)
    assert [r.domain_id for r in made.requests] == [0, 1], "the last sample of the fourth lies more than a gap back"
    config.workload.start_s = 2000
    with pytest.raises(ConfigError, match=r"workload\.start_s must lie where machines .* got 2000 with none"):
        make(config, table([1024 * MIB], [[(0, 4)]], end_s=5000), 100)


def test_boots_after_the_end_are_left_out(config: Config) -> None:
    """A spread of ten minutes in a run of one; none at all in a run of a second is the user's mistake."""
    config.workload.boot_spread_s = 600
    made = make(config, table([1024 * MIB] * 50, [[(0, 1)]] * 50), 60)
    (count,) = made.left_out.values()
    assert 0 < len(made.requests) == 50 - count < 50
    assert all(request.arrival_ns <= 60 * NS_PER_S for request in made.requests)
    assert [r.arrival_ns for r in made.requests] == sorted(r.arrival_ns for r in made.requests)
    with pytest.raises(ConfigError, match=r"workload\.boot_spread_s must let some machine boot .* got 600 .* of 1 s"):
        make(config, table([1024 * MIB], [[(0, 1)]]), 1)


def test_start_after_the_end_is_one_line(config: Config) -> None:
    """Key, rule, value, remedy."""
    config.workload.start_s = 600
    with pytest.raises(ConfigError, match=r"workload\.start_s must be below the 600 s .* got 600: try"):
        make(config, table([1024 * MIB], [[(0, 1), (600, 1)]]), 60)


def test_a_family_without_its_table_is_our_mistake(config: Config) -> None:
    """The reader was not called."""
    with pytest.raises(InvariantError, match="WL-0"):
        requests(config.workload, config.guest, 1.0, None, 1, 60)


def ten_days() -> MachineTable:
    """20 machines over ten days; a machine's use names machine and day, so that a draw can be read back."""
    steps = range(0, 10 * DAY_S, 3600)
    samples = [[(t, 4 * (1000 * machine + t // DAY_S)) for t in steps] for machine in range(20)]
    return table([1024 * MIB] * 20, samples, end_s=10 * DAY_S - 3600)


def test_auto_draws_nothing_for_one_replication_and_machines_and_days_for_more(config: Config) -> None:
    """And says what the numbers are then conditional on."""
    assert resolve_resample("auto", 1) == "none"
    assert resolve_resample("auto", 2) == "machines_days"
    assert resolve_resample("machines", 9) == "machines"
    one = make(config, ten_days(), DAY_S)
    assert (one.resample, one.conditional_on) == ("none", "made by hand")
    more = make(config, ten_days(), DAY_S, replication=1, replications=2)
    assert (more.resample, more.conditional_on) == ("machines_days", "")


def test_resampling_draws_with_replacement_and_one_day_for_all(config: Config) -> None:
    """Read machine and day back from the use: some machine twice, one day for all, another for others."""
    days = set()
    for replication in range(12):
        made = make(config, ten_days(), DAY_S // 2, replication=replication, replications=12)
        drawn = sorted((r.domain_id, r.demand.at(3600 * NS_PER_S)) for r in made.requests)
        assert [domain_id for domain_id, _ in drawn] == list(range(20))
        assert len({use // 1000 for _, use in drawn}) < 20
        (day,) = {use % 1000 for _, use in drawn}
        days.add(day)
    assert len(days) >= 4
    assert days <= set(range(10))


def test_machines_without_days_start_where_start_s_says(config: Config) -> None:
    """`machines` keeps the day and draws the machines anew in each replication."""
    config.workload.resample = "machines"
    config.workload.start_s = 3 * DAY_S
    drawn = []
    for replication in range(2):
        made = make(config, ten_days(), 3600, replication=replication)
        uses = [r.demand.at(0) for r in sorted(made.requests, key=lambda r: r.domain_id)]
        assert {use % 1000 for use in uses} == {3}
        drawn.append(uses)
    assert drawn[0] != drawn[1]


def test_another_least_size_changes_only_the_draws_it_must(config: Config) -> None:
    """[WL-3]: of domains that both runs have, those drawn differently had a machine that is now left out."""
    config.workload.resample = "machines"
    machines = ten_days()
    sizes = machines.maxmem_kib.copy()
    sizes[::4] = 600 * MIB
    machines = MachineTable(**{name: getattr(machines, name) for name in machines.__slots__} | {"maxmem_kib": sizes})
    before = {r.domain_id: r for r in make(config, machines, 3600).requests}
    config.workload.min_maxmem_mib = 700
    after = {r.domain_id: r for r in make(config, machines, 3600).requests}
    assert len(after) == 15
    kept = [k for k in after if after[k].name == before[k].name]
    assert set(after) - set(kept) == {k for k in after if before[k].maxmem_pages == 600 * 256}
    assert 0 < len(kept) < 15
    assert all(after[k].arrival_ns == before[k].arrival_ns for k in after)


def test_the_last_day_may_lack_one_sample() -> None:
    """30 days less 275 s have 30 days to start on; with 301 s less they have 29."""
    assert whole_days(30 * DAY_S - 275, DAY_S) == 30
    assert whole_days(30 * DAY_S - 301, DAY_S) == 29
    assert whole_days(100, DAY_S) == 1


@given(data=st.data())
def test_a_window_agrees_with_the_whole_line_everywhere(data: st.DataObject) -> None:
    """Any samples, any window: W inside it is the line through the samples, within the rounding to pages."""
    times = np.array(sorted(data.draw(st.sets(st.integers(0, 5000), min_size=1, max_size=20))), dtype=np.int64)
    used = np.array(
        data.draw(st.lists(st.integers(0, 10**8), min_size=len(times), max_size=len(times))), dtype=np.int64
    )
    start, length = data.draw(st.integers(0, 5000)), data.draw(st.integers(1, 5000))
    cut = window(times, used, start, length)
    if cut is None:
        assert times[0] >= start + length or times[-1] + 900 < start
        return
    demand, first_s, _ = cut
    assert demand.t_ns[0] == 0
    assert demand.t_ns[-1] == length * NS_PER_S
    assert (np.diff(demand.t_ns) > 0).all()
    assert first_s == max(0, times[0] - start)
    for at in data.draw(st.lists(st.integers(0, length), max_size=10)):
        on_line = np.interp(start + at, times, used) / 4
        # The window's own ends are rounded down to KiB and pages before lines are drawn from them: at most two pages.
        assert -2 <= demand.at(at * NS_PER_S) - on_line <= 0.01


def test_the_real_trace_leaves_out_47_and_1_of_250(make_config: Callable[..., Config], shared_dir: Path) -> None:
    """August 2013 on hosts of 128 GiB; every machine that takes part is there once."""
    path = shared_dir / "traces" / "bitbrains_rnd"
    config = make_config("workload=bitbrains", f"workload.path={path}", "overcommit=1.5")
    machines = read_machines(config.workload)
    assert isinstance(machines, MachineTable)
    made = make(config, machines, DAY_S, usable_pages=USABLE_128_GIB)
    assert made.left_out == {
        "smaller than workload.min_maxmem_mib=512": 47,
        "larger than the 127936 MiB a host can give": 1,
    }
    assert len({request.domain_id for request in made.requests}) == len(made.requests) == 202
    for request in made.requests:
        assert 256 * 256 <= request.memory_pages <= request.maxmem_pages <= USABLE_128_GIB
        assert request.maxmem_pages % 256 == request.memory_pages % 256 == 0
        assert request.demand.t_ns[0] == 0
        assert 0 <= request.demand.pages.min()
        assert request.demand.pages.max() <= request.maxmem_pages
        assert 0 <= request.arrival_ns < 600 * NS_PER_S
    assert made.conditional_on == "GWA-T-12 (Bitbrains) 2013-8"
