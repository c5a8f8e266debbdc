"""Machines made from numbers alone, so that the product runs with no data at hand.

What        A family fitted to the 250 machines of GWA-T-12 (Bitbrains, "Rnd"), August 2013. Three kinds: *small*
            machines with a steady use that hardly depends on their size; *general* ones with a low level, sampling
            noise, a drift from day to day and bursts of their own; *pool* machines, idle until a job that many of them
            share. The last are 8 % of the machines and nine tenths of the variance of the sum.
Units       Shares of maxmem; a sample is 300 s, as in the trace; demand is linear between samples.
Symbols     x(k) use at sample k as a share of maxmem   m its typical level   s its noise
            x(k) = clip(m + s * (white(k) + drift * day(k)), 0, 1) + bursts, or a job's level where that is higher
Invariants  [WL-1] [WL-2] [WL-3]; a longer run has the same first days.
Source      The numbers are printed by experiments/fit_synthetic/fit.py, beside a table of what they reproduce and what
            they miss. Use is very probably *active* memory, a lower bound of demand, as in the trace.
Departs     No hour of the day or day of the week: the trace's daily swell is a tenth of its mean. General machines
            share nothing, where a few groups in the trace do. Burst heights and lengths are lognormal by assumption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from podcluster.config import WorkloadConfig
from podcluster.errors import ConfigError
from podcluster.records.demand import Demand, grid
from podcluster.records.machines import MachineRequest, Workload
from podcluster.rng import stream
from podcluster.units import NS_PER_S, PAGES_PER_MIB, mib_to_pages, pages_to_mib
from podcluster.workloads.classes import ClassOf
from podcluster.workloads.starting import TOO_LATE, boot_ns, hold_ns, memory_mib, require_some

FloatArray: TypeAlias = NDArray[np.float64]

SAMPLE_S: Final = 300
DAY_SAMPLES: Final = 288
POOL_MACHINES: Final = 250  # machines per pool: as many as the trace has, of which a twelfth belong to its one pool
JOB_DAYS: Final = 2  # longest job
HIGHEST_LEVEL: Final = 0.5  # of maxmem: the highest typical level of a machine of the trace
MOST_SHARE: Final = 0.97  # of maxmem: the highest use that machines of the trace reach short of all of it


class Size(NamedTuple):
    """One size: maxmem, vCPUs, and how many of the trace's machines it stands for."""

    maxmem_mib: int
    vcpus: int
    machines: int


class Kind(NamedTuple):
    """One kind of machine. `ln` values are of shares of maxmem; `_sd` is between machines of the kind."""

    name: str
    sizes: tuple[Size, ...]
    level_ln: float  # of m, for a machine of 1 GiB
    level_slope: float  # change of that per doubling of maxmem
    level_sd: float
    noise_ln: float  # ln s = noise_ln + noise_slope * ln m
    noise_slope: float
    noise_sd: float
    drift_ln: float  # of the day-to-day standard deviation over s
    drift_sd: float
    unseen: float  # use below this share is not seen: taken off, down to 0
    repeat: float  # probability that a sample repeats the one before
    bursty: float  # share of machines that burst at all
    rate_ln: float  # of bursts per day
    rate_sd: float
    length_ln: float  # of a burst's mean length in samples
    length_sd: float
    height_ln: float  # of a burst's typical height
    height_sd: float
    height_own_sd: float  # of the ln of heights of one machine's bursts


class Job(NamedTuple):
    """One kind of job of a pool: how often, how long, how high, and how many of the pool take part."""

    rate_per_day: float
    length_ln: float  # in samples
    length_sd: float
    level_ln: float
    level_sd: float
    part: float  # mean share of the pool's machines that take part
    part_spread: float  # of the beta distribution of that share: 0 all jobs alike, 1 all or none
    member_sd: float  # of the ln of a member's level from the job's
    noise_sd: float  # of the ln of a member's use from sample to sample


class Fit(NamedTuple):
    """The whole family."""

    kinds: tuple[Kind, ...]
    jobs: tuple[Job, ...]


SMALL = Kind(
    name="small",
    sizes=(
        Size(104, 1, 6), Size(128, 1, 12), Size(144, 1, 6), Size(176, 1, 8), Size(256, 1, 5), Size(320, 1, 5),
        Size(510, 1, 5),
    ),
    level_ln=-4.40, level_slope=-0.978, level_sd=0.53,
    noise_ln=-1.685, noise_slope=0.846, noise_sd=0.6,
    drift_ln=-1.7, drift_sd=0.8, unseen=0.0, repeat=0.010,
    bursty=0.47, rate_ln=-0.75, rate_sd=1.39, length_ln=0.21, length_sd=0.28,
    height_ln=-2.3, height_sd=0.35, height_own_sd=0.15,
)  # fmt: skip
GENERAL = Kind(
    name="general",
    sizes=(
        Size(563, 1, 5), Size(1024, 1, 17), Size(2048, 1, 23), Size(2968, 4, 23), Size(4032, 1, 41), Size(6324, 4, 5),
        Size(8112, 2, 27), Size(11734, 4, 5), Size(16304, 4, 29), Size(20480, 4, 2), Size(24234, 4, 1),
        Size(32358, 8, 2), Size(40960, 8, 1), Size(65262, 8, 1),
    ),
    level_ln=-2.80, level_slope=-0.251, level_sd=0.95,
    noise_ln=-2.90, noise_slope=0.495, noise_sd=0.38,
    drift_ln=-1.0, drift_sd=1.2, unseen=0.0045, repeat=0.032,
    bursty=0.91, rate_ln=0.80, rate_sd=1.14, length_ln=0.73, length_sd=0.75,
    height_ln=-2.05, height_sd=0.55, height_own_sd=0.45,
)  # fmt: skip
POOL = Kind(
    name="pool",
    sizes=(Size(20472, 8, 6), Size(32600, 8, 9), Size(39808, 8, 5)),
    level_ln=-5.9, level_slope=0.0, level_sd=0.5,
    noise_ln=-5.3, noise_slope=0.0, noise_sd=0.3,
    drift_ln=-1.0, drift_sd=0.5, unseen=0.002, repeat=0.05,
    bursty=0.0, rate_ln=0.0, rate_sd=0.0, length_ln=0.0, length_sd=0.0,
    height_ln=0.0, height_sd=0.0, height_own_sd=0.0,
)  # fmt: skip
LONG_JOB = Job(
    rate_per_day=1.6, length_ln=4.2, length_sd=1.2, level_ln=-1.55, level_sd=0.15, part=0.45, part_spread=0.3,
    member_sd=0.1, noise_sd=0.17,
)  # fmt: skip
SHORT_JOB = Job(
    rate_per_day=2.2, length_ln=1.8, length_sd=1.0, level_ln=-1.0, level_sd=0.35, part=0.4, part_spread=0.15,
    member_sd=0.3, noise_sd=0.3,
)  # fmt: skip
FITTED: Final = Fit(kinds=(SMALL, GENERAL, POOL), jobs=(LONG_JOB, SHORT_JOB))


class Machine(NamedTuple):
    """What is drawn once for a machine."""

    kind: Kind
    maxmem_mib: int
    vcpus: int
    level: float  # m
    noise: float  # s
    drift: float
    bursts_per_day: float
    burst_samples: float
    burst_height: float
    pool: int  # -1: none


class SharedJob(NamedTuple):
    """One job of a pool, in samples from the start of the run (it may have begun before)."""

    number: int
    start: int
    length: int
    level: float
    part: float
    member_sd: float
    noise_sd: float


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
    """`workload.machines` machines that take part, drawn for this replication, in order of arrival."""
    least_mib = cfg.min_maxmem_mib
    most_mib = max(size.maxmem_mib for kind in FITTED.kinds for size in kind.sizes)
    if usable_pages is not None:
        most_mib = min(most_mib, pages_to_mib(usable_pages))
    if not any(least_mib <= size.maxmem_mib <= most_mib for kind in FITTED.kinds for size in kind.sizes):
        raise ConfigError(
            f"workload.min_maxmem_mib must leave some size of machine up to the {most_mib} MiB a host can give, got "
            f"{least_mib}: lower it or raise cluster.host_mem_gib"
        )
    path = ("workload", "replication", replication)
    samples = -(-duration_s // SAMPLE_S) + 1
    made = []
    too_late = 0
    for domain_id in range(cfg.machines):
        arrival_ns = boot_ns(seed, replication, domain_id, cfg.boot_spread_s)
        if arrival_ns > duration_s * NS_PER_S:
            too_late += 1
            continue
        machine = draw_machine(seed, (*path, "domain", domain_id), least_mib, most_mib, pool_count(cfg.machines))
        share = use_share(machine, samples, seed, path, domain_id)
        guest = guests(domain_id)
        made.append(
            MachineRequest(
                domain_id=domain_id,
                attempt=1,
                name=f"{machine.kind.name}{domain_id}",
                os_class=guest.os_class,
                vcpus=machine.vcpus,
                maxmem_pages=mib_to_pages(machine.maxmem_mib),
                memory_pages=mib_to_pages(memory_mib(machine.maxmem_mib, guest, overcommit)),
                arrival_ns=arrival_ns,
                departure_ns=None,
                demand=to_demand(share, machine.maxmem_mib),
                hold_ns=hold_ns(cfg),
            )
        )
    require_some(len(made), cfg, duration_s)
    return Workload(
        requests=tuple(sorted(made, key=lambda request: (request.arrival_ns, request.domain_id))),
        notes=(f"{cfg.machines} machines drawn from the family fitted to GWA-T-12 (Bitbrains) 2013-8",),
        left_out={TOO_LATE: too_late} if too_late else {},
        resample="machines_days",
        conditional_on="",
    )


def pool_count(machines: int) -> int:
    """How many pools share nothing with each other among this many machines."""
    return max(1, round(machines / POOL_MACHINES))


def draw_machine(
    seed: int, path: Sequence[str | int], least_mib: int, most_mib: int, pools: int, fit: Fit = FITTED
) -> Machine:
    """One machine from its own stream; sizes outside [least, most] are drawn again."""
    draws = stream(seed, *path, "machine")
    sizes = [(kind, size) for kind in fit.kinds for size in kind.sizes]
    bounds = np.cumsum([size.machines for _, size in sizes])
    while True:
        kind, size = sizes[int(np.searchsorted(bounds, draws.integers(bounds[-1]), side="right"))]
        if least_mib <= size.maxmem_mib <= most_mib:
            break
    return _drawn(draws, kind, size.maxmem_mib, size.vcpus, pools)


def machine_of(
    seed: int, path: Sequence[str | int], maxmem_mib: int, vcpus: int, pools: int, fit: Fit = FITTED
) -> Machine:
    """A machine of a given size, for whom only its use has to be drawn: it is of a kind that has sizes within a factor
    of two of its own, as often as the trace has such machines; of the nearest kind where none has.
    """
    distance = [(abs(math.log2(size.maxmem_mib / maxmem_mib)), kind, size) for kind in fit.kinds for size in kind.sizes]
    near = [(kind, size) for far, kind, size in distance if far <= 1]
    if not near:
        near = [min(((far, kind, size) for far, kind, size in distance), key=lambda one: one[0])[1:]]
    draws = stream(seed, *path, "machine")
    bounds = np.cumsum([size.machines for _, size in near])
    kind, _ = near[int(np.searchsorted(bounds, draws.integers(bounds[-1]), side="right"))]
    return _drawn(draws, kind, maxmem_mib, vcpus, pools)


def _drawn(draws: np.random.Generator, kind: Kind, maxmem_mib: int, vcpus: int, pools: int) -> Machine:
    """How a machine of this kind and size uses its memory."""
    z = draws.standard_normal(6)
    bursty, pool = draws.random(), int(draws.integers(pools))
    level = min(
        HIGHEST_LEVEL,
        math.exp(kind.level_ln + kind.level_slope * math.log2(maxmem_mib / 1024) + kind.level_sd * z[0]),
    )
    # Machines that burst higher burst longer, and those that burst longer burst more often (correlations .47, .39).
    longer = 0.39 * z[3] + 0.92 * z[4]
    higher = 0.47 * longer + 0.88 * z[5]
    return Machine(
        kind=kind,
        maxmem_mib=maxmem_mib,
        vcpus=vcpus,
        level=level,
        noise=math.exp(kind.noise_ln + kind.noise_slope * math.log(level) + kind.noise_sd * z[1]),
        drift=math.exp(kind.drift_ln + kind.drift_sd * z[2]),
        bursts_per_day=math.exp(kind.rate_ln + kind.rate_sd * z[3]) if bursty < kind.bursty else 0.0,
        burst_samples=math.exp(kind.length_ln + kind.length_sd * longer),
        burst_height=math.exp(kind.height_ln + kind.height_sd * higher),
        pool=pool if kind.name == "pool" else -1,
    )


def use_share(
    machine: Machine, samples: int, seed: int, path: tuple[str | int, ...], domain_id: int, fit: Fit = FITTED
) -> FloatArray:
    """x(k) for the first `samples` samples of a run: a share of maxmem in [0, MOST_SHARE]."""
    days = -(-samples // DAY_SAMPLES)
    own = (*path, "domain", domain_id)
    white, repeats = np.empty(days * DAY_SAMPLES), np.empty(days * DAY_SAMPLES, dtype=bool)
    bursts = np.zeros(days * DAY_SAMPLES)
    # A day before the run gives the bursts that are under way when it begins.
    for day in range(-1, days):
        draws = stream(seed, *own, "day", day)
        if day >= 0:
            here = slice(day * DAY_SAMPLES, (day + 1) * DAY_SAMPLES)
            white[here] = draws.standard_normal(DAY_SAMPLES)
            repeats[here] = draws.random(DAY_SAMPLES) < machine.kind.repeat
        _add_bursts(bursts, machine, day, draws if day >= 0 else stream(seed, *own, "day", day, "before"))
    levels = stream(seed, *own, "levels").standard_normal(days + 1)
    drift = machine.drift * np.interp(np.arange(days * DAY_SAMPLES) / DAY_SAMPLES, np.arange(days + 1), levels)
    share = np.clip(machine.level + machine.noise * (white + drift) - machine.kind.unseen, 0, MOST_SHARE) + bursts
    if machine.pool >= 0:
        for job in pool_jobs(seed, path, machine.pool, days, fit.jobs):
            _take_part(share, job, seed, own)
    share = np.clip(share, 0, MOST_SHARE)[:samples]
    # A repeated sample is the one before, which may itself repeat: the last that does not, up to here.
    source = np.where(repeats[:samples], 0, np.arange(samples))
    repeated: FloatArray = share[np.maximum.accumulate(source)]
    return repeated


def to_demand(share: FloatArray, maxmem_mib: int) -> Demand:
    """Shares at 300 s steps as demand in pages."""
    pages = (share * (maxmem_mib * PAGES_PER_MIB)).astype(np.int64)
    return Demand(grid(0, SAMPLE_S * NS_PER_S, len(share)), pages)


def _add_bursts(bursts: FloatArray, machine: Machine, day: int, draws: np.random.Generator) -> None:
    """Add the bursts that begin on this day, the higher of two at once."""
    count = int(draws.poisson(machine.bursts_per_day))
    starts = day * DAY_SAMPLES + draws.integers(DAY_SAMPLES, size=count)
    lengths = np.minimum(draws.geometric(1 / max(1.0, machine.burst_samples), size=count), DAY_SAMPLES)
    spread = machine.kind.height_own_sd
    heights = machine.burst_height * np.exp(spread * draws.standard_normal(count) - spread * spread / 2)
    for start, length, height in zip(starts.tolist(), lengths.tolist(), heights.tolist(), strict=True):
        here = slice(max(0, start), max(0, start + length))
        bursts[here] = np.maximum(bursts[here], height)


@lru_cache(maxsize=64)
def pool_jobs(
    seed: int, path: tuple[str | int, ...], pool: int, days: int, kinds: tuple[Job, ...]
) -> tuple[SharedJob, ...]:
    """The jobs of one pool that run in the first `days` days. Cached: every member asks for the same."""
    found = []
    for day in range(-JOB_DAYS, days):
        draws = stream(seed, *path, "pool", pool, "day", day)
        for which, kind in enumerate(kinds):
            for number in range(int(draws.poisson(kind.rate_per_day))):
                start = day * DAY_SAMPLES + int(draws.integers(DAY_SAMPLES))
                length = math.ceil(math.exp(kind.length_ln + kind.length_sd * draws.standard_normal()))
                level = math.exp(kind.level_ln + kind.level_sd * draws.standard_normal())
                concentration = 1 / kind.part_spread - 1
                part = float(draws.beta(kind.part * concentration, (1 - kind.part) * concentration))
                name = ((day + JOB_DAYS) * len(kinds) + which) * 1000 + number
                found.append(
                    SharedJob(
                        name, start, min(length, JOB_DAYS * DAY_SAMPLES), level, part, kind.member_sd, kind.noise_sd
                    )
                )
    return tuple(found)


def _take_part(share: FloatArray, job: SharedJob, seed: int, own: tuple[str | int, ...]) -> None:
    """Raise a member's use to the job's level while it runs, if the member takes part."""
    first, last = max(0, job.start), min(len(share), job.start + job.length)
    if last <= first:
        return
    draws = stream(seed, *own, "job", job.number)
    if draws.random() >= job.part:
        return
    level = job.level * math.exp(job.member_sd * draws.standard_normal())
    # From the job's own start, so that the draws are the same however long the run is.
    noise = np.exp(job.noise_sd * draws.standard_normal(job.length))[first - job.start : last - job.start]
    share[first:last] = np.maximum(share[first:last], level * noise)
