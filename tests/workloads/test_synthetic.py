"""The synthetic family: the rules every workload keeps, and that it is the family it says it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from podcluster.config import Config
from podcluster.errors import ConfigError
from podcluster.records.machines import Workload
from podcluster.units import NS_PER_S, PAGES_PER_GIB
from podcluster.workloads import requests, synthetic

DAYS = 30
SEEDS = range(8)


def make(
    config: Config, duration_s: int = 3600, seed: int = 1, replication: int = 0, usable_gib: int = 120
) -> Workload:
    """Synthetic requests."""
    return requests(
        config.workload,
        config.guest,
        config.overcommit,
        None,
        seed,
        duration_s,
        usable_pages=usable_gib * PAGES_PER_GIB,
        replication=replication,
    )


@pytest.fixture
def config(make_config: Callable[..., Config]) -> Config:
    """60 machines at R = 2."""
    return make_config("workload=synthetic", "workload.machines=60", "overcommit=2")


def test_every_machine_keeps_the_rules(config: Config) -> None:
    """[WL-1] [WL-2], as many as asked for, in order of arrival."""
    made = make(config, usable_gib=16)
    assert sorted(request.domain_id for request in made.requests) == list(range(60))
    assert [r.arrival_ns for r in made.requests] == sorted(r.arrival_ns for r in made.requests)
    for request in made.requests:
        assert 512 * 256 <= request.maxmem_pages <= 16 * PAGES_PER_GIB
        assert 256 * 256 <= request.memory_pages <= request.maxmem_pages
        assert request.demand.t_ns[0] == 0
        assert request.demand.t_ns[-1] >= 3600 * NS_PER_S
        assert 0 <= request.demand.pages.min()
        assert request.demand.pages.max() <= request.maxmem_pages


def test_machines_are_named_streams(config: Config) -> None:
    """[WL-3]: another R, more machines and a longer run leave a domain's first day alone; replications differ."""
    before = {r.domain_id: r for r in make(config, 86_400).requests}
    config.overcommit = 3
    config.workload.machines = 90
    after = {r.domain_id: r for r in make(config, 3 * 86_400).requests}
    other = {r.domain_id: r for r in make(config, 3600, replication=1).requests}
    for k, request in before.items():
        assert (after[k].maxmem_pages, after[k].arrival_ns) == (request.maxmem_pages, request.arrival_ns)
        assert after[k].demand.pages[: len(request.demand.pages)].tolist() == request.demand.pages.tolist()
    assert any(other[k].maxmem_pages != before[k].maxmem_pages for k in before)


def test_no_size_left_is_one_line(config: Config) -> None:
    """A least size above what a host can give."""
    config.workload.min_maxmem_mib = 3000
    with pytest.raises(ConfigError, match=r"workload\.min_maxmem_mib must leave some size .* got 3000: lower it"):
        make(config, usable_gib=2)


def test_members_of_a_pool_work_together_and_pools_apart() -> None:
    """Correlation of use within a pool is far above that between pools, which is none."""
    path = ("workload", "replication", 0)
    size = synthetic.POOL.sizes[0].maxmem_mib  # no other kind has machines of this size
    members = [synthetic.draw_machine(3, (*path, "domain", i), size, size, 1)._replace(pool=i % 2) for i in range(20)]
    assert {member.kind.name for member in members} == {"pool"}
    use = np.array([synthetic.use_share(m, DAYS * 288, 3, path, i) for i, m in enumerate(members)])
    sums = np.array([use[0::2].sum(axis=0), use[1::2].sum(axis=0)])
    together = np.corrcoef(use[0::2])[np.triu_indices(10, 1)].mean()
    assert together > 0.25
    assert abs(np.corrcoef(sums)[0, 1]) < 0.3


@cache
def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Use and size [GiB] of 250 machines over 30 days, none left out for their size."""
    path = ("workload", "replication", 0)
    machines = [synthetic.draw_machine(seed, (*path, "domain", i), 0, 1 << 30, 1) for i in range(250)]
    share = np.array([synthetic.use_share(m, DAYS * 288, seed, path, i) for i, m in enumerate(machines)])
    return share, np.array([m.maxmem_mib / 1024 for m in machines])


def peak_ratio(share: np.ndarray, gib: np.ndarray) -> float:
    """Peak of the sum over the sum of peaks."""
    used = share * gib[:, None]
    return float(used.sum(axis=0).max() / used.max(axis=1).sum())


def step_pages(share: np.ndarray, gib: np.ndarray) -> np.ndarray:
    """Absolute change from sample to sample [pages]."""
    steps: np.ndarray = np.abs(np.diff(share, axis=1)) * gib[:, None] * PAGES_PER_GIB
    return steps


STATISTICS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], float, float]] = {
    # name: (statistic, what the trace has, tolerance as a share of it)
    "used / provisioned, mean": (lambda share, gib: float(share.mean()), 0.089, 0.10),
    "used / provisioned, median": (lambda share, gib: float(np.median(share)), 0.045, 0.15),
    "used / provisioned, p95": (lambda share, gib: float(np.percentile(share, 95)), 0.35, 0.15),
    "used / provisioned, p99": (lambda share, gib: float(np.percentile(share, 99)), 0.51, 0.10),
    "|step|, mean": (lambda share, gib: float(step_pages(share, gib).mean()), 34_333, 0.10),
    "|step|, median": (lambda share, gib: float(np.median(step_pages(share, gib))), 6_990, 0.10),
    "steps of 0": (lambda share, gib: float((step_pages(share, gib) == 0).mean()), 0.07, 0.15),
    "peak of sum / sum of peaks": (peak_ratio, 0.34, 0.20),
}


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_it_has_the_statistics_of_the_trace(name: str) -> None:
    """Mean over eight seeds of 250 machines over 30 days, within the stated tolerance of the trace's value.

    The tolerance is of the fit, not of the sample: see experiments/fit_synthetic for the rest, and for what it misses.
    """
    statistic, trace, tolerance = STATISTICS[name]
    values = np.array([statistic(*drawn(seed)) for seed in SEEDS])
    error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(values.mean() - trace) <= tolerance * trace, f"{values.mean():.4g} +- {error:.2g}, the trace has {trace}"


def test_a_seed_of_its_own_has_them_too() -> None:
    """Four times the spread between seeds covers a seed that no number was looked at with."""
    for name, (statistic, _, _) in STATISTICS.items():
        values = np.array([statistic(*drawn(seed)) for seed in SEEDS])
        fresh = statistic(*drawn(4_000_000_007))
        assert abs(fresh - values.mean()) <= 4 * values.std(ddof=1), name
