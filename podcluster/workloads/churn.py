"""Machines that come and go, made from numbers alone: requests of tenants, for one machine each or for hundreds.

What        A family fitted to the arrivals of the Azure V1 trace: requests come at a rate that swells over the day,
            most for one machine, a few for hundreds; larger requests are for machines that live shorter. `arrivals_of`
            draws the lives, `lives.py` makes machines of them.
Units       Seconds and MiB in the fit; ns in a life.
Symbols     n machines of a request   S(x) share that is at least x (machines of a request, age at the end)
Invariants  [WL-3] requests are drawn day by day from streams of their own: a longer run has the same first days
            [WL-4]; a run begins with those of the last `LONGEST_DAYS` days who still live
Source      The numbers are printed by experiments/fit_churn/fit.py, beside a table of what they reproduce and what they
            miss.
Departs     Arrivals are Poisson around the swell, where the trace clusters more (variance 1.9 times the mean). All
            machines of a request are of one size. What lives longer than three days, as long as the trace can tell,
            lives up to thirty by assumption. Week-ends are like other days.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from podcluster.config import WorkloadConfig
from podcluster.records import Int64Array, Workload
from podcluster.rng import stream
from podcluster.units import NS_PER_S
from podcluster.workloads.classes import ClassOf
from podcluster.workloads.lives import Life, requests_of

FloatArray: TypeAlias = NDArray[np.float64]

DAY_S: Final = 86_400
LONGEST_DAYS: Final = 30
MOST_MACHINES: Final = 600  # of one request
MIDDLES: Final = (np.arange(20_000) + 0.5) / 20_000  # of u, for means


class Flavour(NamedTuple):
    """One size of machine, and its share of the requests."""

    maxmem_mib: int
    vcpus: int
    share: float


class Tenant(NamedTuple):
    """Requests of one size class: up to how many machines, of which sizes, and S of their ages (at `AGES_S`)."""

    most: int
    flavours: tuple[Flavour, ...]
    ages: tuple[float, ...]
    alike: float  # probability that a machine lives as long as the first of its request


class Fit(NamedTuple):
    """The whole family."""

    swell: float  # half the difference of the busiest and the quietest hour, over their mean
    swell_peak_h: float
    sizes: tuple[tuple[int, float], ...]  # (n, S(n)) of requests
    tenants: tuple[Tenant, ...]


AGES_S: Final = (60, 300, 600, 900, 1200, 1800, 3600, 7200, 14_400, 43_200, 86_400, 259_200, LONGEST_DAYS * DAY_S)
FITTED: Final = Fit(
    swell=0.24, swell_peak_h=15.0,
    sizes=(
        (1, 1.0), (2, 0.42081), (3, 0.23580), (5, 0.13531), (10, 0.07110), (20, 0.03604), (50, 0.01459),
        (100, 0.00793), (200, 0.00362), (400, 0.00008), (MOST_MACHINES, 0.00002),
    ),
    tenants=(
        Tenant(
            1,
            (Flavour(768, 1, 0.070), Flavour(1792, 1, 0.628), Flavour(3584, 2, 0.198), Flavour(7168, 4, 0.063),
             Flavour(14336, 8, 0.031), Flavour(57344, 8, 0.006)),
            (1.0, 0.9438, 0.8795, 0.82, 0.7712, 0.6893, 0.5885, 0.5061, 0.4107, 0.2173, 0.1004, 0.0563, 0.0),
            0.0,
        ),
        Tenant(
            20,
            (Flavour(768, 1, 0.032), Flavour(1792, 1, 0.517), Flavour(3584, 2, 0.264), Flavour(7168, 4, 0.102),
             Flavour(14336, 8, 0.073), Flavour(57344, 8, 0.011)),
            (1.0, 0.9154, 0.8262, 0.7478, 0.6748, 0.5528, 0.4431, 0.3736, 0.3054, 0.1618, 0.0767, 0.0425, 0.0),
            0.52,
        ),
        Tenant(
            100,
            (Flavour(1792, 1, 0.335), Flavour(3584, 2, 0.238), Flavour(7168, 4, 0.169), Flavour(14336, 8, 0.244),
             Flavour(57344, 8, 0.010)),
            (1.0, 0.8952, 0.7748, 0.6766, 0.591, 0.4576, 0.3132, 0.1916, 0.1058, 0.0678, 0.0413, 0.027, 0.0),
            0.43,
        ),
        Tenant(
            MOST_MACHINES,
            (Flavour(1792, 1, 0.888), Flavour(3584, 2, 0.019), Flavour(7168, 4, 0.069), Flavour(14336, 8, 0.024)),
            (1.0, 0.9608, 0.8467, 0.6701, 0.4895, 0.2464, 0.0867, 0.0494, 0.0269, 0.013, 0.0104, 0.0088, 0.0),
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
        instants_s = instants(draws, count, fit)
        for at_s, size in zip(instants_s, request_sizes(draws.random(count), fit).tolist(), strict=True):
            tenant = next(one for one in fit.tenants if size <= one.most)
            flavour = _flavour(draws.random(), tenant)
            ages_s = lives_of(draws, size, tenant)
            arrival_ns = int((day * DAY_S + at_s) * NS_PER_S)
            for age_s in ages_s.tolist():
                departure_ns = arrival_ns + max(1, int(age_s * NS_PER_S))
                if departure_ns > 0 and arrival_ns <= duration_s * NS_PER_S:
                    name = f"churn{domain_id}"
                    yield Life(domain_id, name, flavour.maxmem_mib, flavour.vcpus, arrival_ns, departure_ns)
                domain_id += 1


def instants(draws: np.random.Generator, count: int, fit: Fit = FITTED) -> list[float]:
    """`count` instants of a day [s], more of them where it swells: density 1 + swell cos(...)."""
    hours = np.linspace(0, 24, 24 * 12 + 1)
    turn = 2 * math.pi / 24
    rise = np.sin((hours - fit.swell_peak_h) * turn) - math.sin(-fit.swell_peak_h * turn)
    reached = hours + fit.swell * rise / turn
    found: list[float] = (np.interp(draws.random(count) * 24, reached, hours) * 3600).tolist()
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


def lives_of(draws: np.random.Generator, size: int, tenant: Tenant) -> FloatArray:
    """Ages at the end of a request's machines [s]: some as the first of them, the others of their own."""
    own = draws.random(size)
    own[draws.random(size) < tenant.alike] = own[0]
    ended = 1 - np.array(tenant.ages)
    ages: FloatArray = np.exp(np.interp(own, ended, np.log(AGES_S)))
    return ages


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
        total += machines * float(np.exp(np.interp(MIDDLES, 1 - np.array(tenant.ages), np.log(AGES_S))).mean())
        least = tenant.most
    return total / float(sizes.sum())
