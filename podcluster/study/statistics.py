"""Rates, intervals and bounds of one cell, over its replications.

What        From the `runs` rows of one cell to its `cells` row. The independent unit is the replication, never the
            guest: guests of one run share hosts, controller and seed, so an interval that pools them is too narrow (and
            is therefore named `_pooled`).
Units       As the columns say; rates are plain numbers, `crash_per_domain_day` is per day.
Symbols     k_r, n_r numerator and denominator of a rate in replication r   R replications   p = sum k_r / sum n_r
            c confidence, alpha = 1 - c
Methods     [ST-1] interval over replications: p +- t(1 - alpha/2, R - 1) * se, se^2 = sum (k_r - p n_r)^2 / (R (R - 1)
                   nbar^2), the ratio estimator; with equal n_r it is the usual t-interval of the R rates. Cut to where
                   a rate can lie. Null with R < 2, and where all replications have the same rate (so also where no or
                   every trial was an event): R equal numbers do not bound what was never seen.
            [ST-2] exact one-sided upper bound of sum k of sum n: Clopper-Pearson for a share, Garwood for a rate over
                   time. It holds for independent trials; read it beside the design effect.
            [ST-3] pooled interval: Wilson for a share, Garwood's exact Poisson interval for a rate over time.
            [ST-4] design effect: se^2 of [ST-1] over the variance that independent trials would have.
Departs     scipy.special instead of scipy.stats (0.3 s to import, not 1 s), and closed forms where nothing was seen, so
            that one boot needs neither; the tests compare with scipy.stats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from podcluster.errors import InvariantError
from podcluster.records.summaries import CellRow, RunRow
from podcluster.units import NS_PER_S

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Rate:
    """One rate of one cell; every end of an interval is None where the method cannot give one."""

    numerator: int
    denominator: float
    value: float | None
    low: float | None
    high: float | None
    upper: float | None
    low_pooled: float | None
    high_pooled: float | None
    design_effect: float | None


def t_quantile(probability: float, degrees: int) -> float:
    """Student's t with `degrees` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def clopper_pearson_upper(events: float, trials: float, confidence: float) -> float:
    """Largest p under which at most `events` of `trials` has probability 1 - confidence [ST-2]."""
    if events >= trials:
        return 1.0
    if events == 0:
        return 1 - math.pow(1 - confidence, 1 / trials)
    from scipy.special import betaincinv

    return float(betaincinv(events + 1, trials - events, confidence))


def wilson(events: int, trials: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share, two-sided [ST-3]."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = events / trials
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At 0 and 1 the ends are exactly 0 and 1; floating point leaves 1e-19 there.
    low = 0.0 if events == 0 else (middle - half) / scale
    high = 1.0 if events == trials else (middle + half) / scale
    return low, high


def poisson_upper(events: int, exposure: float, confidence: float) -> float:
    """Largest rate under which at most `events` in `exposure` has probability 1 - confidence [ST-2]."""
    if events == 0:
        return -math.log(1 - confidence) / exposure
    from scipy.special import gammaincinv

    return float(gammaincinv(events + 1, confidence)) / exposure


def poisson_interval(events: int, exposure: float, confidence: float) -> tuple[float, float]:
    """Garwood's exact interval of a rate, two-sided [ST-3]."""
    tail = (1 - confidence) / 2
    if events == 0:
        return 0.0, -math.log(tail) / exposure
    from scipy.special import gammaincinv

    return float(gammaincinv(events, tail)) / exposure, float(gammaincinv(events + 1, 1 - tail)) / exposure


def mean_interval(values: Sequence[float], confidence: float) -> tuple[float, float | None, float | None]:
    """Mean of one number per replication with its t-interval; the ends are None with fewer than two."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = t_quantile(0.5 + confidence / 2, count - 1) * math.sqrt(variance / count)
    return mean, mean - half, mean + half


def spread(
    values: Sequence[float], confidence: float, *, most: float = math.inf
) -> tuple[float, float | None, float | None]:
    """The same of numbers that lie in [0, most], cut to it; no interval where all are equal, as in [ST-1]."""
    mean, low, high = mean_interval(values, confidence)
    if low is None or high is None or min(values) == max(values):
        return mean, None, None
    return mean, max(0.0, low), min(most, high)


def ratio_se(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float | None]:
    """The ratio of sums and its standard error over replications [ST-1]; None with fewer than two."""
    count = len(numerators)
    total = math.fsum(denominators)
    ratio = math.fsum(numerators) / total
    if count < 2:
        return ratio, None
    square = math.fsum((k - ratio * n) ** 2 for k, n in zip(numerators, denominators, strict=True))
    return ratio, math.sqrt(square / (count * (count - 1))) / (total / count)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float, *, most: float = math.inf
) -> tuple[float, float | None, float | None]:
    """The ratio of sums with its interval over replications [ST-1], cut to [0, most]."""
    ratio, se = ratio_se(numerators, denominators)
    if se is None:
        return ratio, None, None
    half = t_quantile(0.5 + confidence / 2, len(numerators) - 1) * se
    return ratio, max(0.0, ratio - half), min(most, ratio + half)


def proportion(events: Sequence[int], trials: Sequence[int], confidence: float) -> Rate:
    """A share of trials: crash_per_boot, start_refused."""
    k, n = sum(events), sum(trials)
    if any(not 0 <= event <= trial for event, trial in zip(events, trials, strict=True)):
        raise InvariantError(f"[ST-1] 0 <= k_r <= n_r violated: k={list(events)}, n={list(trials)}")
    if n == 0:
        return _no_trials(k, 0)
    value, se = ratio_se(events, trials)
    low = high = effect = None
    if se and 0 < k < n:
        _, low, high = ratio_interval(events, trials, confidence, most=1.0)
        effect = se * se / (value * (1 - value) / n)
    low_pooled, high_pooled = wilson(k, n, confidence)
    return Rate(k, n, value, low, high, clopper_pearson_upper(k, n, confidence), low_pooled, high_pooled, effect)


def rate_over_time(events: Sequence[int], exposures: Sequence[float], confidence: float) -> Rate:
    """Events per unit of exposure: crash_per_domain_day."""
    k, exposure = sum(events), math.fsum(exposures)
    if exposure == 0:
        return _no_trials(k, 0.0)
    value, se = ratio_se(events, exposures)
    low = high = effect = None
    if se and k > 0:
        _, low, high = ratio_interval(events, exposures, confidence)
        effect = se * se / (value / exposure)
    low_pooled, high_pooled = poisson_interval(k, exposure, confidence)
    upper = poisson_upper(k, exposure, confidence)
    return Rate(k, exposure, value, low, high, upper, low_pooled, high_pooled, effect)


def _no_trials(events: int, denominator: float) -> Rate:
    """A rate of nothing: no value and no bound, which is what a study with no boots knows."""
    return Rate(events, denominator, None, None, None, None, None, None, None)


def _gap(runs: Sequence[RunRow], confidence: float) -> tuple[float | None, float | None, float | None]:
    """Hosts used beyond the bound, over the bound [ST-1]; None where no domain was ever there."""
    bounds = [run.hosts_bound for run in runs]
    beyond = [run.hosts_used_max - run.hosts_bound for run in runs]
    if not any(bounds):
        return None, None, None
    gap, low, high = ratio_interval(beyond, bounds, confidence)
    return (gap, None, None) if low == high else (gap, low, high)


def cell_row(runs: Sequence[RunRow], confidence: float) -> CellRow:
    """The `cells` row of one cell from its replications, in their order."""
    if not runs:
        raise InvariantError("[ST-1] a cell needs at least one replication, got none")
    count = len(runs)

    def mean(pick: Callable[[RunRow], float]) -> float:
        return math.fsum(map(pick, runs)) / count

    boots = [run.boots_started for run in runs]
    requests = [run.requests for run in runs]
    asked = [run.requests + run.restarts + run.ha_restarts for run in runs]
    crashes = [run.fate_pod_oom for run in runs]
    refused = [run.fate_rejected + run.fate_build_failed for run in runs]
    days = [run.after_warmup_s / DAY_S for run in runs]
    crash = proportion(crashes, boots, confidence)
    daily = rate_over_time([run.crashes for run in runs], days, confidence)
    refusal = proportion(refused, asked, confidence)
    static, static_low, static_high = mean_interval([run.placed_ratio for run in runs], confidence)
    used, used_low, used_high = spread([run.hosts_used_max for run in runs], confidence)
    gap, gap_low, gap_high = _gap(runs, confidence)
    density, density_low, density_high = None, None, None
    dense = [run.packing_density_mean for run in runs if run.packing_density_mean is not None]
    if dense:
        density, density_low, density_high = spread(dense, confidence, most=1.0)
    empty, empty_low, empty_high = spread([run.empty_hosts_mean for run in runs], confidence, most=1.0)
    stranded, stranded_low, stranded_high = spread([run.stranded_mean for run in runs], confidence, most=1.0)
    tolerated = [run.failures_tolerated_min for run in runs if run.failures_tolerated_min is not None]
    over, over_low, over_high = None, None, None
    over_ns = [(run.overcommitted_ns, run.duration_ns - run.warmup_ns) for run in runs]
    shares = [part_ns / whole_ns for part_ns, whole_ns in over_ns if part_ns is not None]
    if shares:
        over, over_low, over_high = spread(shares, confidence, most=1.0)
    swap, swap_low, swap_high = 0.0, None, None
    swap_s = [run.swap_ns / NS_PER_S for run in runs]
    if any(swap_s):
        domain_s = [run.domain_s for run in runs]
        swap, swap_low, swap_high = ratio_interval(swap_s, domain_s, confidence, most=1.0)
    return CellRow(
        replications=count,
        confidence=confidence,
        resample=runs[0].resample,
        conditional_on=runs[0].conditional_on,
        hosts_mean=mean(lambda run: run.hosts),
        usable_pages_mean=mean(lambda run: run.usable_pages),
        hosts_used=used,
        hosts_used_low=used_low,
        hosts_used_high=used_high,
        hosts_bound=mean(lambda run: run.hosts_bound),
        hosts_gap=gap,
        hosts_gap_low=gap_low,
        hosts_gap_high=gap_high,
        packing_density=density,
        packing_density_low=density_low,
        packing_density_high=density_high,
        empty_hosts=empty,
        empty_hosts_low=empty_low,
        empty_hosts_high=empty_high,
        stranded=stranded,
        stranded_low=stranded_low,
        stranded_high=stranded_high,
        failures_tolerated_min=min(tolerated, default=None),
        overcommitted_share=over,
        overcommitted_share_low=over_low,
        overcommitted_share_high=over_high,
        requests=sum(requests),
        boots_started=sum(boots),
        domain_days=math.fsum(days),
        static_ratio=static,
        static_ratio_low=static_low,
        static_ratio_high=static_high,
        target_ratio=mean(lambda run: run.target_ratio_mean),
        commit_ratio=mean(lambda run: run.commit_ratio_mean),
        demand_ratio=mean(lambda run: run.demand_ratio_mean),
        demand_ratio_max=max(run.demand_ratio_max for run in runs),
        crash_per_boot=crash.value,
        crash_per_boot_numerator=crash.numerator,
        crash_per_boot_denominator=sum(boots),
        crash_per_boot_low=crash.low,
        crash_per_boot_high=crash.high,
        crash_per_boot_upper=crash.upper,
        crash_per_boot_low_pooled=crash.low_pooled,
        crash_per_boot_high_pooled=crash.high_pooled,
        crash_per_boot_design_effect=crash.design_effect,
        crash_per_domain_day=daily.value,
        crash_per_domain_day_numerator=daily.numerator,
        crash_per_domain_day_denominator=daily.denominator,
        crash_per_domain_day_low=daily.low,
        crash_per_domain_day_high=daily.high,
        crash_per_domain_day_upper=daily.upper,
        crash_per_domain_day_low_pooled=daily.low_pooled,
        crash_per_domain_day_high_pooled=daily.high_pooled,
        crash_per_domain_day_design_effect=daily.design_effect,
        start_refused=refusal.value,
        start_refused_numerator=refusal.numerator,
        start_refused_denominator=sum(asked),
        start_refused_low=refusal.low,
        start_refused_high=refusal.high,
        start_refused_upper=refusal.upper,
        start_refused_low_pooled=refusal.low_pooled,
        start_refused_high_pooled=refusal.high_pooled,
        start_refused_design_effect=refusal.design_effect,
        swap_share=swap,
        swap_share_low=swap_low,
        swap_share_high=swap_high,
        swapped_domains=sum(run.swapped_domains for run in runs),
        oom_kills=sum(run.oom_kills for run in runs),
    )
