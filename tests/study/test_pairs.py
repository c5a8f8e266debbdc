"""Are paired differences what they are called, do their intervals cover, and do studies write them where asked?"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats as st
from hypothesis import given
from hypothesis import strategies as some

from podcluster import rng
from podcluster.config import Cell, Config
from podcluster.errors import ConfigError
from podcluster.io.digest import digest
from podcluster.io.load import load_results
from podcluster.study.pairs import (
    ENDED_BADLY,
    MEASURES,
    as_text,
    bonett_price,
    compare,
    difference,
    machines_of,
    partners,
    sign_test,
    together,
)
from podcluster.study.runner import run_study
from podcluster.units import NS_PER_S, PAGES_PER_GIB

CONFIDENCE = 0.95
MakeConfig = Callable[..., Config]

counts = some.integers(0, 60)


@given(counts, counts)
def test_sign_test_equals_scipy(higher: int, lower: int) -> None:
    """McNemar's exact test is a binomial one on the discordant pairs; scipy's is not ours."""
    expected = st.binomtest(higher, higher + lower).pvalue if higher + lower else 1.0
    assert sign_test(higher, lower) == pytest.approx(expected, rel=1e-9)


@given(counts, counts, some.integers(0, 500), some.sampled_from([0.8, 0.95]))
def test_pooled_interval_is_never_empty_and_turns_with_the_sign(
    higher: int, lower: int, same: int, confidence: float
) -> None:
    """It holds the estimate shrunk towards 0, has width even where nothing differs, and mirrors when sides swap."""
    pairs = higher + lower + same
    low, high = bonett_price(higher, lower, pairs, confidence)
    assert -1 <= low < high <= 1
    assert low <= (higher - lower) / (pairs + 2) <= high
    assert bonett_price(lower, higher, pairs, confidence) == pytest.approx((-high, -low), abs=1e-12)


def test_no_pair_that_differs_still_allows_a_little() -> None:
    """0 of 0 against 0 of 100: by hand, half = z sqrt(2 / 102 / 102)."""
    half = st.norm.ppf(0.975) * math.sqrt(2) / 102
    assert bonett_price(0, 0, 100, CONFIDENCE) == pytest.approx((-half, half))


def test_difference_by_hand() -> None:
    """Two replications of two machines: sums 1 and 3 over 2 each, so D = 1 +- t(1) * 0.5; one machine has no value."""
    here, there = np.array([3.0, 2.0, 5.0, 4.0, np.nan]), np.array([2.0, 2.0, 3.0, 3.0, 9.0])
    found = difference(here, there, np.array([0, 0, 1, 1, 1]), CONFIDENCE, event=False)
    assert found is not None
    half = st.t.ppf(0.975, 1) * 0.5
    assert (found.replications, found.machines) == (2, 4)
    assert (found.baseline_value, found.value, found.difference) == (2.5, 3.5, 1.0)
    assert (found.low, found.high) == pytest.approx((1 - half, 1 + half))
    assert (found.machines_higher, found.machines_lower) == (3, 0)
    assert (found.sign_p, found.sign_p_pooled) == (0.5, 0.25)
    assert (found.low_pooled, found.high_pooled) == (None, None)


def test_replications_that_agree_leave_no_interval() -> None:
    """R equal numbers do not bound what was never seen; of an event the pooled interval does, and includes 0."""
    zeros = np.zeros(6)
    found = difference(zeros, zeros, np.repeat([0, 1, 2], 2), CONFIDENCE, event=True)
    assert found is not None and (found.difference, found.low, found.high, found.sign_p) == (0.0, None, None, 1.0)
    assert found.low_pooled is not None and found.high_pooled is not None
    assert found.low_pooled < 0 < found.high_pooled
    one = difference(np.array([1.0]), np.array([0.0]), np.array([0]), CONFIDENCE, event=True)
    assert one is not None and (one.low, one.high) == (None, None)
    assert difference(np.array([np.nan]), np.array([1.0]), np.array([0]), CONFIDENCE, event=False) is None


def test_an_interval_of_a_share_ends_at_one() -> None:
    """19 of 20 machines saved, 20 of 20 in the other replication: t(1) reaches far beyond what a share can be."""
    there, here = np.ones(40), np.zeros(40)
    here[0] = 1
    found = difference(here, there, np.repeat([0, 1], 20), CONFIDENCE, event=True)
    assert found is not None and found.low == -1.0 and found.high is not None and -1 < found.high < 0
    count = difference(here, there, np.repeat([0, 1], 20), CONFIDENCE, event=False)
    assert count is not None and count.low is not None and count.low < -1


def test_intervals_over_replications_cover_and_pooled_ones_do_not() -> None:
    """Machines of one run share how much a change does to them: 3,000 studies of 20 replications with 30 machines.

    The change moves each machine by 1 in the mean, by a part that its run shares and a part of its own.
    """
    draw = rng.stream(21, "test", "pairs")
    studies, replications, machines = 3000, 20, 30
    shared = draw.normal(0, 1, (studies, replications, 1))
    change = 1 + shared + draw.normal(0, 1, (studies, replications, machines))
    there = draw.normal(0, 5, change.shape)
    unit = np.repeat(np.arange(replications), machines)
    covered = naive = 0
    for one, base in zip(change, there, strict=True):
        found = difference((base + one).ravel(), base.ravel(), unit, CONFIDENCE, event=False)
        assert found is not None and found.low is not None and found.high is not None
        covered += found.low <= 1 <= found.high
        half = st.norm.ppf(0.975) * one.std() / math.sqrt(one.size)
        naive += abs(one.mean() - 1) <= half
    error = math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / studies)
    assert abs(covered / studies - CONFIDENCE) <= 4 * error
    assert naive / studies < 0.6


def test_pooled_interval_of_shares_covers_independent_pairs() -> None:
    """Pairs of crash and no crash with known shares, rare ones too: within 4 standard errors of its level, or above."""
    draw = rng.stream(22, "test", "bonett")
    studies, pairs = 4000, 150
    for up, down in ((0.0, 0.0), (0.02, 0.0), (0.05, 0.02), (0.3, 0.1)):
        table = draw.multinomial(pairs, [up, down, 1 - up - down], size=studies)
        held = [
            low <= up - down <= high
            for low, high in (bonett_price(int(h), int(k), pairs, CONFIDENCE) for h, k, _ in table)
        ]
        error = math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / studies)
        assert np.mean(held) >= CONFIDENCE - 0.01 - 4 * error, (up, down)


def test_common_random_numbers_narrow_the_interval() -> None:
    """The same machines on both sides: what they have in common, here most, falls out of the difference."""
    draw = rng.stream(23, "test", "common")
    unit = np.repeat(np.arange(10), 20)
    common = draw.normal(0, 5, unit.size)
    here, there = common + draw.normal(0.5, 1, unit.size), common + draw.normal(0, 1, unit.size)
    other = draw.permutation(there)
    paired, crossed = (difference(here, base, unit, CONFIDENCE, event=False) for base in (there, other))
    widths = [one.high - one.low for one in (paired, crossed) if one is not None and one.low is not None and one.high]
    assert widths[0] < widths[1] / 2


def domains(*rows: dict[str, Any]) -> dict[str, Any]:
    """Rows of `domains` with what is compared; machine 0 of replication 0 that came up at 10 s, but for `rows`."""
    plain = {
        "replication": 0, "domain_id": 0, "attempt": 1, "fate": "running", "cause": "", "boot_start_ns": 0,
        "boot_done_ns": 10 * NS_PER_S, "oom_kills": 0, "swap_ns": 0, "slowdown": 1.0, "moved_pages": 0, "sweeps": 0,
        "sweep_looks": 0, "splintered_2m": 0,
    }  # fmt: skip
    made = [plain | row for row in rows]
    whole = {name: np.array([row[name] for row in made]) for name in plain}
    return {name: values.astype(object) if values.dtype.kind == "U" else values for name, values in whole.items()}


def test_attempts_of_a_machine_are_one_machine() -> None:
    """Two deaths and a third life: died once as an event, counts summed, the first attempt's boot time (none)."""
    found = machines_of(
        domains(
            {"domain_id": 1, "attempt": 2, "fate": "pod_oom", "cause": "wrap", "sweeps": 5, "sweep_looks": 70},
            {
                "domain_id": 1,
                "attempt": 1,
                "fate": "pod_oom",
                "cause": "debt",
                "sweeps": 2,
                "sweep_looks": 30,
                "boot_done_ns": None,
                "moved_pages": PAGES_PER_GIB // 2,
            },
            {"domain_id": 1, "attempt": 3, "sweeps": 1, "swap_ns": 3 * NS_PER_S, "moved_pages": PAGES_PER_GIB},
            {"domain_id": 0, "slowdown": 2.0},
            {"replication": 1, "domain_id": 0, "fate": "rejected", "boot_start_ns": None, "boot_done_ns": None},
        )
    )
    assert list(zip(found.replication.tolist(), found.domain.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
    expected: dict[str, list[float]] = {
        "died": [0, 1, 0],
        "early": [0, 1, 0],
        "refused": [0, 0, 1],
        "sweeps": [0, 8, 0],
        "sweep_looks": [0, 100, 0],
        "swap_s": [0, 3, 0],
        "moved_gib": [0, 1.5, 0],
        "boot_s": [10, math.nan, math.nan],
        "slowdown": [2, math.nan, math.nan],
    }
    for measure, values in expected.items():
        np.testing.assert_array_equal(found.values[measure], values, err_msg=measure)
    assert set(found.values) == set(MEASURES)


@pytest.mark.parametrize("fate", ENDED_BADLY)
def test_every_bad_end_is_an_event_of_one_measure(fate: str) -> None:
    """However a machine ends badly, one measure of events says so, and another end is no such event."""
    found = machines_of(domains({"fate": fate}, {"domain_id": 1}))
    events = [name for name, measure in MEASURES.items() if measure.event and found.values[name].any()]
    assert events == [{"pod_oom": "died", "build_failed": "refused", "rejected": "refused"}.get(fate, fate)]
    assert found.values[events[0]].tolist() == [1, 0]


def test_rows_of_before_there_was_a_column_say_nothing_of_it() -> None:
    """Results without `moved_pages`: everything else is compared."""
    old = domains({}, {"domain_id": 1})
    del old["moved_pages"]
    found = machines_of(old)
    assert [name for name, _ in compare(found, found, CONFIDENCE)] == [name for name in MEASURES if name != "moved_gib"]


def test_machines_are_compared_with_themselves() -> None:
    """By replication and number, whatever the order; one that only one side has is left out; cells stay apart."""
    here = machines_of(domains({"domain_id": 2, "sweeps": 4}, {"domain_id": 1, "sweeps": 1}))
    there = machines_of(domains({"domain_id": 0, "sweeps": 9}, {"domain_id": 1}, {"domain_id": 2, "sweeps": 1}))
    found = dict(compare(here, there, CONFIDENCE))["sweeps"]
    assert (found.machines, found.value, found.baseline_value) == (2, 2.5, 0.5)
    both = dict(compare(together([here, there]), together([there, there]), CONFIDENCE))["sweeps"]
    assert (both.machines, both.machines_higher, both.machines_lower) == (5, 2, 0)
    nobody = machines_of({name: values[:0] for name, values in domains({}).items()})
    assert list(compare(nobody, nobody, CONFIDENCE)) == []


SMALL = (
    "engine=inline",
    "workload.machines=12",
    "study.duration_s=1200",
    "workload.boot_spread_s=300",
    "cluster.host_mem_gib=64",
    "study.replications=2",
)


def sweep(make_config: MakeConfig, baseline: str | None) -> list[Cell]:
    """Two overcommits for each of two guests, against a baseline."""
    asked = [] if baseline is None else [f"study.baseline='{baseline}'"]
    return [
        Cell(
            config=make_config(*SMALL, f"guest={guest}", f"overcommit={ratio}", *asked),
            axes={"guest": guest, "overcommit": ratio},
        )
        for guest in ("linux", "windows")
        for ratio in (1.0, 1.5)
    ]


@pytest.mark.usefixtures("fake_hosts")
def test_a_sweep_with_a_baseline_has_pairs(make_config: MakeConfig, tmp_path: Path) -> None:
    """A row for each measure of each other cell, with its axes; another baseline is another table, same cells."""
    run_study(sweep(make_config, "overcommit=1"), out_dir=tmp_path)
    first = load_results(tmp_path)
    pairs, cells = first["pairs"], first["cells"]
    assert set(zip(pairs["guest"], pairs["overcommit"], strict=True)) == {("linux", 1.5), ("windows", 1.5)}
    named = dict(zip(cells["cell"], zip(cells["guest"], cells["overcommit"], strict=True), strict=True))
    assert {named[cell] for cell in pairs["baseline_cell"]} == {("linux", 1.0), ("windows", 1.0)}
    died = pairs[pairs["measure"] == "died"]
    assert died["machines"].tolist() == [24, 24] and died["replications"].tolist() == [2, 2]
    for _, row in died.iterrows():
        rates = {(c["guest"], c["overcommit"]): c["crash_per_boot"] for _, c in cells.iterrows()}
        change = rates[row["guest"], 1.5] - rates[row["guest"], 1.0]
        assert row["difference"] == pytest.approx(change)
    again = run_study(sweep(make_config, "guest=linux"), out_dir=tmp_path)
    assert (again.computed, again.skipped) == (0, 4)
    assert set(load_results(tmp_path)["pairs"]["guest"]) == {"windows"}


@pytest.mark.usefixtures("fake_hosts")
def test_pairs_are_a_function_of_the_study(make_config: MakeConfig, tmp_path: Path) -> None:
    """Same digest from a second folder; without a baseline no such table."""
    for name in ("a", "b"):
        run_study(sweep(make_config, "overcommit=1"), out_dir=tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") and "pairs" in digest(tmp_path / "a")
    run_study(sweep(make_config, None), out_dir=tmp_path / "a")
    assert "pairs" not in digest(tmp_path / "a")


@pytest.mark.parametrize(
    ("baseline", "rule"),
    [
        ("seed=1", r"study.baseline must name an axis of the sweep \(guest, overcommit\), got seed=1"),
        ("overcommit=2", r"study.baseline must be one of the values of overcommit \(1, 1.5\), got 2"),
    ],
)
def test_a_baseline_that_is_not_there_is_the_users_mistake(
    make_config: MakeConfig, tmp_path: Path, baseline: str, rule: str
) -> None:
    """One line, before anything is computed."""
    with pytest.raises(ConfigError, match=rule):
        run_study(sweep(make_config, baseline), out_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_each_cell_has_the_partner_that_differs_in_one_axis(make_config: MakeConfig) -> None:
    """Places of four cells; a single run has none, whatever it names."""
    assert partners(sweep(make_config, "overcommit=1.5")) == {0: 1, 2: 3}
    assert partners(sweep(make_config, "guest=windows")) == {0: 2, 1: 3}
    assert partners([Cell(config=make_config(*SMALL, "study.baseline='guest=linux'"))]) == {}


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (1.0, "1"), (0.25, "0.25"), (3, "3"), ("none", "none"), ("[1, 5]", "[1, 5]")]
)
def test_values_are_named_as_on_the_command_line(value: Any, text: str) -> None:
    """A bool is not 1, a whole float has no point."""
    assert as_text(value) == text
