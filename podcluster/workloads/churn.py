"""Machines that come and go, made from numbers alone: requests of tenants, for one machine each or for hundreds.

What        A family fitted to the arrivals of the Azure V1 trace: most requests are for one machine, a few for
            hundreds. Larger requests are for machines that live shorter. Requests of each class of size come at a rate
            that swells over the day, the small ones in the afternoon, the large ones at night; machines that come at
            noon live longer. `arrivals_of` draws the lives, `lives.py` makes machines of them.
Units       Seconds and MiB in the fit; ns in a life.
Symbols     n machines of a request   S(x) share that is at least x (machines of a request, age at the end)
            S(x | h) the same of those that come at hour h: odds of S(x) times exp(longer cos(h - longest_h)), whatever
            the age and the class (proportional odds)
Invariants  [WL-3] requests are drawn day by day from streams of their own: a longer run has the same first days
            [WL-4]; a run begins with those of the last `LONGEST_DAYS` days who still live
Source      The numbers are printed by experiments/fit_churn/fit.py, beside a table of what they reproduce and what they
            miss.
Departs     Arrivals are Poisson around the swell, where the trace clusters more (variance 1.9 times the mean). One
            amplitude of lives over the day serves all classes and ages. All machines of a request are of one size.
            What lives longer than three days, as long as the trace can tell, lives up to thirty by assumption.
            Week-ends are like other days.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from podcluster.config import WorkloadConfig
from podcluster.records.machines import Workload
from podcluster.records.values import Int64Array
from podcluster.rng import stream
from podcluster.units import NS_PER_S
from podcluster.workloads.classes import ClassOf
from podcluster.workloads.lives import Life, requests_of

FloatArray: TypeAlias = NDArray[np.float64]

DAY_S: Final = 86_400
LONGEST_DAYS: Final = 30
MOST_MACHINES: Final = 600  # of one request
MIDDLES: Final = (np.arange(20_000) + 0.5) / 20_000  # of u, for means
HOURS: Final = (np.arange(24) + 0.5) / 24
PER_HOUR: Final = 2 * math.pi / 24


class Flavour(NamedTuple):
    """One size of machine, and its share of the requests."""

    maxmem_mib: int
    vcpus: int
    share: float


class Tenant(NamedTuple):
    """Requests of one size class: up to how many machines, when they come, of which sizes, and how long they live."""

    most: int
    swell: float  # half the difference of the busiest and the quietest hour, over their mean
    swell_peak_h: float
    flavours: tuple[Flavour, ...]
    ages: tuple[float, ...]  # S at `AGES_S`, at hours that neither lengthen nor shorten lives
    alike: float  # probability that a machine lives as long as the first of its request


class Fit(NamedTuple):
    """The whole family."""

    sizes: tuple[tuple[int, float], ...]  # (n, S(n)) of requests
    longer: float  # how much the log odds of living to any age rise at the hour at which they are highest
    longest_h: float
    tenants: tuple[Tenant, ...]


AGES_S: Final = (60, 150, 450, 750, 1050, 1650, 2850, 7350, 14_550, 25_350, 68_550, 259_350, LONGEST_DAYS * DAY_S)
"""Ends of bins of the trace, where it knows S; a straight line in log age between them is within 0.02 of all others."""
FITTED: Final = Fit(
    sizes=(
        (1, 1.0), (2, 0.42081), (3, 0.2358), (5, 0.13531), (10, 0.0711), (20, 0.03604), (50, 0.01459),
        (100, 0.00793), (200, 0.00362), (400, 8e-05), (MOST_MACHINES, 0.00002),
    ),
    longer=0.49, longest_h=12.3,
    tenants=(
        Tenant(
            1, 0.28, 15.0,
            (Flavour(768, 1, 0.070), Flavour(1792, 1, 0.628), Flavour(3584, 2, 0.198), Flavour(7168, 4, 0.063),
             Flavour(14336, 8, 0.031), Flavour(57344, 8, 0.006)),
            (1.0, 0.9756, 0.9119, 0.8454, 0.7903, 0.6991, 0.6075, 0.4836, 0.3905, 0.3101, 0.1083, 0.0395, 0.0),
            0.0,
        ),
        Tenant(
            20, 0.2, 14.7,
            (Flavour(768, 1, 0.032), Flavour(1792, 1, 0.517), Flavour(3584, 2, 0.264), Flavour(7168, 4, 0.102),
             Flavour(14336, 8, 0.073), Flavour(57344, 8, 0.011)),
            (1.0, 0.964, 0.8702, 0.7862, 0.7115, 0.5687, 0.4641, 0.3557, 0.294, 0.2335, 0.0857, 0.0302, 0.0),
            0.52,
        ),
        Tenant(
            100, 0.11, 3.0,
            (Flavour(1792, 1, 0.335), Flavour(3584, 2, 0.238), Flavour(7168, 4, 0.169), Flavour(14336, 8, 0.244),
             Flavour(57344, 8, 0.010)),
            (1.0, 0.9645, 0.8378, 0.7313, 0.6423, 0.4859, 0.3461, 0.1677, 0.1007, 0.0757, 0.0523, 0.0213, 0.0),
            0.43,
        ),
        Tenant(
            MOST_MACHINES, 0.22, 23.2,
            (Flavour(1792, 1, 0.888), Flavour(3584, 2, 0.019), Flavour(7168, 4, 0.069), Flavour(14336, 8, 0.024)),
            (1.0, 0.9907, 0.9382, 0.7759, 0.5932, 0.2798, 0.1089, 0.0434, 0.0256, 0.0154, 0.0108, 0.0082, 0.0),
            0.48,
        ),
    ),
)  # fmt: skip


def requests(
    cfg: WorkloadConfig,
    guests: ClassOf,
    overcommit: float,
    seed: int,
    duration_s: int,
    *,
    usable_pages: int | None = None,
    replication: int = 0,
) -> Workload:
    """The machines of one replication: about `workload.arrivals_per_day` of them come each day."""
    made = requests_of(
        arrivals_of(cfg, seed, replication, duration_s),
        cfg,
        guests,
        overcommit,
        seed,
        duration_s,
        usable_pages=usable_pages,
        replication=replication,
        machines=int(cfg.arrivals_per_day * mean_life_s() / DAY_S),
    )
    family = f"{cfg.arrivals_per_day:g} machines a day drawn from the family fitted to Azure V1"
    return replace(made, notes=(family, *made.notes), resample="machines_days")


def arrivals_of(cfg: WorkloadConfig, seed: int, replication: int, duration_s: int, fit: Fit = FITTED) -> Iterator[Life]:
    """The lives of a run, in order of request: those of before that last into it, and those that begin in it."""
    domain_id = 0
    per_day = cfg.arrivals_per_day / mean_size(fit)
    for day in range(-LONGEST_DAYS, -(-duration_s // DAY_S)):
        draws = stream(seed, "workload", "replication", replication, "arrivals", "day", day)
        count = int(draws.poisson(per_day))
        sizes, quantiles = request_sizes(draws.random(count), fit), draws.random(count)
        classes = np.searchsorted([tenant.most for tenant in fit.tenants], sizes)
        instants_s = np.choose(classes, [instants(quantiles, tenant) for tenant in fit.tenants])
        for at_s, size, number in zip(instants_s.tolist(), sizes.tolist(), classes.tolist(), strict=True):
            tenant = fit.tenants[number]
            flavour = _flavour(draws.random(), tenant)
            ages_s = lives_of(draws, size, tenant, log_odds(at_s, fit))
            arrival_ns = int((day * DAY_S + at_s) * NS_PER_S)
            for age_s in ages_s.tolist():
                departure_ns = arrival_ns + max(1, int(age_s * NS_PER_S))
                if departure_ns > 0 and arrival_ns <= duration_s * NS_PER_S:
                    name = f"churn{domain_id}"
                    yield Life(domain_id, name, flavour.maxmem_mib, flavour.vcpus, arrival_ns, departure_ns)
                domain_id += 1


def instants(u: FloatArray, tenant: Tenant) -> FloatArray:
    """Instants of a day [s] at quantiles `u`, more of them where it swells: density 1 + swell cos(...)."""
    hours = np.linspace(0, 24, 24 * 12 + 1)
    rise = np.sin((hours - tenant.swell_peak_h) * PER_HOUR) - math.sin(-tenant.swell_peak_h * PER_HOUR)
    found: FloatArray = np.interp(u * 24, hours + tenant.swell * rise / PER_HOUR, hours) * 3600
    return found


def request_sizes(u: FloatArray, fit: Fit = FITTED) -> Int64Array:
    """How many machines requests are for: the largest n with S(n) >= u, S straight between its knots in logs."""
    sizes = np.array([n for n, _ in fit.sizes], dtype=np.float64)
    above = np.array([share for _, share in fit.sizes])
    # -log S rises along the knots, as np.interp wants it.
    found: Int64Array = np.exp(np.interp(-np.log(np.maximum(u, above[-1])), -np.log(above), np.log(sizes))).astype(
        np.int64
    )
    return found


def log_odds(at_s: float, fit: Fit = FITTED) -> float:
    """By how much the log odds of living to any age are higher for who comes at this second of the day."""
    return fit.longer * math.cos((at_s / 3600 - fit.longest_h) * PER_HOUR)


def ages_at(u: FloatArray, tenant: Tenant, odds: float) -> FloatArray:
    """The ages [s] that a share `u` does not reach, where the log odds of reaching any are higher by `odds`."""
    without = u * math.exp(odds)
    ages: FloatArray = np.exp(np.interp(without / (1 - u + without), 1 - np.array(tenant.ages), np.log(AGES_S)))
    return ages


def lives_of(draws: np.random.Generator, size: int, tenant: Tenant, odds: float = 0.0) -> FloatArray:
    """Ages at the end of a request's machines [s]: some as the first of them, the others of their own."""
    own = draws.random(size)
    own[draws.random(size) < tenant.alike] = own[0]
    return ages_at(own, tenant, odds)


def _flavour(u: float, tenant: Tenant) -> Flavour:
    ends = np.cumsum([one.share for one in tenant.flavours])
    return tenant.flavours[min(int(np.searchsorted(ends, u * ends[-1], side="right")), len(ends) - 1)]


def mean_size(fit: Fit = FITTED) -> float:
    """Machines of a request, on average."""
    return float(request_sizes(MIDDLES, fit).mean())


def mean_life_s(fit: Fit = FITTED) -> float:
    """How long a machine lives, on average over machines [s]."""
    sizes = request_sizes(MIDDLES, fit)
    total, least = 0.0, 0
    for tenant in fit.tenants:
        machines = float(sizes[(sizes > least) & (sizes <= tenant.most)].sum())
        at_s = instants(HOURS, tenant).tolist()
        means = [float(ages_at(MIDDLES, tenant, log_odds(one_s, fit)).mean()) for one_s in at_s]
        total += machines * sum(means) / len(means)
        least = tenant.most
    return total / float(sizes.sum())
