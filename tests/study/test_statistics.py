"""Do rates, intervals and bounds equal what scipy and theory say, and do the intervals cover as often as they claim?"""

import math
from dataclasses import fields

import numpy as np
import pytest
import scipy.stats as st
from hypothesis import given
from hypothesis import strategies as some

from podcluster import rng
from podcluster.errors import InvariantError
from podcluster.records.summaries import CellRow
from podcluster.study.statistics import (
    cell_row,
    clopper_pearson_upper,
    mean_interval,
    poisson_interval,
    poisson_upper,
    proportion,
    rate_over_time,
    ratio_interval,
    wilson,
)
from podcluster.units import NS_PER_S
from tests.study.rows import DAY_S, run_row

CONFIDENCE = 0.95

counts = some.integers(1, 400).flatmap(lambda n: some.tuples(some.integers(0, n), some.just(n)))


@given(counts, some.sampled_from([0.8, 0.95, 0.99]))
def test_bounds_of_a_share_equal_scipy(count: tuple[int, int], confidence: float) -> None:
    """Compare with scipy.stats.binomtest, an implementation that is not ours."""
    events, trials = count
    upper = st.binomtest(events, trials, alternative="less").proportion_ci(confidence, method="exact").high
    assert clopper_pearson_upper(events, trials, confidence) == pytest.approx(upper, rel=1e-9)
    expected = st.binomtest(events, trials).proportion_ci(confidence, method="wilson")
    assert wilson(events, trials, confidence) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("trials", "bound"), [(299, 1e-2), (2995, 1e-3), (29956, 1e-4), (299572, 1e-5)])
def test_no_crash_seen_bounds_the_rate_by_the_known_numbers_of_trials(trials: int, bound: float) -> None:
    """The table of n that zero crashes need: n gives the bound, n - 1 does not."""
    assert clopper_pearson_upper(0, trials, CONFIDENCE) <= bound
    assert clopper_pearson_upper(0, trials - 1, CONFIDENCE) > bound


@given(some.integers(0, 200), some.floats(0.1, 1e4), some.sampled_from([0.8, 0.95, 0.99]))
def test_bounds_of_a_rate_over_time_equal_chi_square_quantiles(events: int, exposure: float, confidence: float) -> None:
    """Garwood's bounds are chi-square quantiles; the code takes them from the incomplete gamma function."""
    assert poisson_upper(events, exposure, confidence) == pytest.approx(
        st.chi2.ppf(confidence, 2 * events + 2) / 2 / exposure, rel=1e-9
    )
    tail = (1 - confidence) / 2
    low = st.chi2.ppf(tail, 2 * events) / 2 / exposure if events else 0.0
    high = st.chi2.ppf(1 - tail, 2 * events + 2) / 2 / exposure
    assert poisson_interval(events, exposure, confidence) == pytest.approx((low, high), rel=1e-9)


@given(some.lists(some.floats(-100, 100), min_size=2, max_size=30), some.sampled_from([0.8, 0.95]))
def test_interval_of_a_mean_is_students(values: list[float], confidence: float) -> None:
    """Compare with scipy.stats.t on the same numbers."""
    mean, low, high = mean_interval(values, confidence)
    scale = st.sem(values)
    if scale == 0:
        assert low == pytest.approx(mean) and high == pytest.approx(mean)
    else:
        expected = st.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=scale)
        assert (low, high) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_ratio_with_equal_denominators_is_the_t_interval_of_the_rates() -> None:
    """The ratio estimator must fall back on the textbook interval where both apply."""
    events = [3, 0, 5, 2, 8, 1]
    expected = mean_interval([event / 40 for event in events], CONFIDENCE)
    assert ratio_interval(events, [40] * 6, CONFIDENCE, most=1.0) == pytest.approx(
        (expected[0], max(0.0, expected[1] or 0.0), expected[2]), rel=1e-12
    )


def test_one_replication_has_no_interval_but_keeps_its_bounds() -> None:
    """R = 1: what lies between replications is unknown, so nothing is said of it."""
    rate = proportion([3], [100], CONFIDENCE)
    assert (rate.value, rate.low, rate.high, rate.design_effect) == (0.03, None, None, None)
    assert rate.upper is not None and rate.upper > 0.03
    assert rate.low_pooled is not None and rate.low_pooled < 0.03


@pytest.mark.parametrize("events", [[0, 0, 0, 0], [50, 50, 50, 50]])
def test_no_event_or_every_one_has_no_interval_over_replications(events: list[int]) -> None:
    """Equal replications would give an interval of width 0, as if the rate were known: only the bound speaks."""
    rate = proportion(events, [50] * 4, CONFIDENCE)
    assert (rate.low, rate.high, rate.design_effect) == (None, None, None)
    assert rate.upper == clopper_pearson_upper(sum(events), 200, CONFIDENCE)


def test_nothing_started_gives_no_rate() -> None:
    """0 of 0 is not 0."""
    rate = proportion([0, 0], [0, 0], CONFIDENCE)
    assert (rate.value, rate.upper, rate.high_pooled) == (None, None, None)
    assert rate_over_time([0], [0.0], CONFIDENCE).value is None


def test_more_events_than_trials_is_our_mistake() -> None:
    """A count that cannot be is refused with its numbers."""
    with pytest.raises(InvariantError, match=r"\[ST-1\].*\[3\]"):
        proportion([3], [2], CONFIDENCE)


def test_interval_over_replications_covers_and_the_pooled_one_does_not() -> None:
    """Guests of one run share its luck (beta-binomial); 4,000 studies of R = 20: cover within 4 standard errors of 95
    %.

    The t-interval of a skewed rate covers a little less than it says; with these parameters the shortfall is below 1.5
    points.
    """
    draw = rng.stream(11, "test", "coverage")
    studies, replications, boots, mean, rho = 4000, 20, 100, 0.2, 0.1
    strength = (1 - rho) / rho
    luck = draw.beta(mean * strength, (1 - mean) * strength, size=(studies, replications))
    crashes = draw.binomial(boots, luck)
    covered = covered_pooled = 0
    effects = []
    for row in crashes:
        rate = proportion([int(count) for count in row], [boots] * replications, CONFIDENCE)
        assert rate.low is not None and rate.high is not None and rate.design_effect is not None
        covered += rate.low <= mean <= rate.high
        covered_pooled += (rate.low_pooled or 0) <= mean <= (rate.high_pooled or 1)
        effects.append(rate.design_effect)
    error = math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / studies)
    assert CONFIDENCE - 0.015 - 4 * error <= covered / studies <= CONFIDENCE + 4 * error
    assert covered_pooled / studies < 0.6
    # Kish: 1 + (n - 1) rho.
    theory = 1 + (boots - 1) * rho
    assert abs(np.mean(effects) - theory) <= 4 * np.std(effects) / math.sqrt(studies) + 0.05 * theory


def test_exact_bound_holds_at_least_as_often_as_it_says() -> None:
    """Clopper-Pearson and Garwood never cover less than their level, at any rate: 20,000 draws each, 4 standard
    errors.
    """
    draw = rng.stream(12, "test", "bound")
    for share in (0.001, 0.02, 0.3):
        events = draw.binomial(200, share, size=20_000)
        held = np.mean([clopper_pearson_upper(int(count), 200, CONFIDENCE) >= share for count in events])
        assert held >= CONFIDENCE - 4 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / 20_000)
    for per_day in (0.01, 0.2):
        events = draw.poisson(per_day * 30, size=20_000)
        held = np.mean([poisson_upper(int(count), 30.0, CONFIDENCE) >= per_day for count in events])
        assert held >= CONFIDENCE - 4 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / 20_000)


def test_cell_adds_replications_up() -> None:
    """A cell of three runs: sums, rates, and each rate's numerator over its denominator."""
    runs = [
        run_row(
            requests=10,
            boots_started=8,
            fate_rejected=1,
            fate_build_failed=1,
            fate_pod_oom=crashes,
            placed_ratio=ratio,
            domain_s=8.0 * DAY_S,
            swap_ns=80 * 10**9,
            swapped_domains=2,
            demand_ratio_max=ratio / 2,
        )
        for crashes, ratio in ((1, 1.4), (3, 1.5), (2, 1.6))
    ]
    cell = cell_row(runs, CONFIDENCE)
    assert (cell.replications, cell.requests, cell.boots_started) == (3, 30, 24)
    assert cell.domain_days == pytest.approx(24)
    assert (cell.crash_per_boot_numerator, cell.crash_per_boot_denominator) == (6, 24)
    assert cell.crash_per_boot == pytest.approx(0.25)
    assert cell.crash_per_domain_day == pytest.approx(0.25)
    assert cell.start_refused == pytest.approx(0.2)
    assert cell.static_ratio == pytest.approx(1.5)
    assert cell.static_ratio_low is not None and cell.static_ratio_low < 1.5
    assert cell.demand_ratio_max == pytest.approx(0.8)
    assert cell.swap_share == pytest.approx(240 / (24 * DAY_S))
    assert cell.swapped_domains == 6


def test_a_cell_says_how_far_it_is_from_the_best_packing() -> None:
    """Used and bound are means, the gap is of their sums; an interval where replications differ, cut to shares."""
    packed = ((4, 3, 0.9, 0.0), (5, 4, 0.8, 0.0), (6, 5, 1.0, 0.0))
    runs = [
        run_row(hosts_used_max=used, hosts_bound=bound, packing_density_mean=dense, empty_hosts_mean=empty)
        for used, bound, dense, empty in packed
    ]
    cell = cell_row(runs, CONFIDENCE)
    assert (cell.hosts_used, cell.hosts_bound, cell.hosts_gap) == (5.0, 4.0, 0.25)
    ends = st.t.interval(CONFIDENCE, 2, loc=5, scale=st.sem([4, 5, 6]))
    assert (cell.hosts_used_low, cell.hosts_used_high) == pytest.approx(ends)
    # se^2 = sum (beyond - gap * bound)^2 / (R (R - 1) mean(bound)^2), by hand.
    half = st.t.ppf(0.975, 2) * math.sqrt((0.25**2 + 0 + 0.25**2) / 6 / 16)
    assert (cell.hosts_gap_low, cell.hosts_gap_high) == pytest.approx((0.25 - half, 0.25 + half))
    assert cell.packing_density == pytest.approx(0.9) and cell.packing_density_high == 1.0
    assert (cell.empty_hosts, cell.empty_hosts_low, cell.empty_hosts_high) == (0.0, None, None)


def test_a_cell_in_which_no_host_was_used_has_no_gap_and_no_density() -> None:
    """Nothing over nothing; one replication with domains is enough to have both, and a bound met is a gap of 0."""
    empty = run_row(packing_density_mean=None, empty_hosts_mean=1.0)
    cell = cell_row([empty, empty], CONFIDENCE)
    assert (cell.hosts_used, cell.hosts_gap, cell.packing_density, cell.empty_hosts) == (0.0, None, None, 1.0)
    met = run_row(hosts_used_max=2, hosts_bound=2, packing_density_mean=0.5)
    cell = cell_row([empty, met], CONFIDENCE)
    assert (cell.hosts_gap, cell.hosts_gap_low, cell.packing_density) == (0.0, None, 0.5)


def test_a_cell_says_for_how_long_it_had_no_failover_plan() -> None:
    """D7: the least that any replication had a plan for, and the mean share of its time after the warm-up; nothing of
    it where nobody plans.
    """
    day_ns = DAY_S * NS_PER_S
    runs = [
        run_row(failures_tolerated_min=least, overcommitted_ns=over_ns, warmup_ns=day_ns // 2)
        for least, over_ns in ((2, 0), (0, day_ns // 4), (1, day_ns // 8))
    ]
    cell = cell_row(runs, CONFIDENCE)
    assert (cell.failures_tolerated_min, cell.overcommitted_share) == (0, 0.25)
    _, high = st.t.interval(CONFIDENCE, 2, loc=0.25, scale=st.sem([0, 0.5, 0.25]))
    assert (cell.overcommitted_share_low, cell.overcommitted_share_high) == pytest.approx((0.0, high))
    alike = cell_row(runs[:1] * 2, CONFIDENCE)
    assert (alike.failures_tolerated_min, alike.overcommitted_share, alike.overcommitted_share_low) == (2, 0.0, None)
    nobody = cell_row([run_row()], CONFIDENCE)
    assert (nobody.failures_tolerated_min, nobody.overcommitted_share) == (None, None)


def test_cell_of_an_empty_cluster_is_a_row_too() -> None:
    """All requests rejected: no boots, no crash rate, every start refused."""
    cell = cell_row([run_row(requests=4, fate_rejected=4, domain_s=0.0)] * 2, CONFIDENCE)
    assert (cell.crash_per_boot, cell.crash_per_domain_day, cell.start_refused, cell.swap_share) == (
        None,
        None,
        1.0,
        0.0,
    )
    assert cell.start_refused_upper == 1.0
    assert {field.name for field in fields(CellRow)} >= {"crash_per_boot_upper", "crash_per_boot_low_pooled"}


def test_a_cell_without_replications_is_our_mistake() -> None:
    """There is no mean of nothing."""
    with pytest.raises(InvariantError):
        cell_row([], CONFIDENCE)


def test_deaths_per_day_are_those_after_the_warmup() -> None:
    """Five of whoever was there died in two days after it, three of those asked for then: each rate has its own."""
    cell = cell_row([run_row(boots_started=10, fate_pod_oom=3, crashes=5, after_warmup_s=2.0 * DAY_S)], CONFIDENCE)
    assert (cell.crash_per_boot, cell.crash_per_domain_day, cell.domain_days) == (0.3, 2.5, 2.0)
