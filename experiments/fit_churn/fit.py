"""Estimate the numbers of the churn family from the arrivals of Azure V1, and compare the two. See README.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from podcluster.cli import compose
from podcluster.io.traces import azure_v1
from podcluster.records.machines import LifeTable
from podcluster.units import NS_PER_S
from podcluster.workloads import churn

FloatArray = NDArray[np.float64]

KIB_PER_MIB = 1024
KNOTS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 400)
CLASSES = ((1, 1), (2, 20), (21, 100), (101, churn.MOST_MACHINES))
NEWTON_STEPS = 12
LEAST_SHARE = 0.005  # of a class's requests: rarer sizes of machine are left out


def survival(table: LifeTable, machines: NDArray[np.bool_]) -> FloatArray:
    """S at each of AGES_S but the first and the last, which are ends of the trace's bins: the life table of actuaries.

    Who still ran when the trace ended counts half in the bin in which it was then.
    """
    ends_s = np.unique(table.most_life_s)
    ended = ends_s.searchsorted(table.most_life_s[machines & table.leaves])
    cut = ends_s.searchsorted(followed_s(table)[machines & ~table.leaves])
    ended, cut = (np.bincount(bins, minlength=len(ends_s)) for bins in (ended, cut))
    there = machines.sum() - np.concatenate(([0], np.cumsum(ended + cut)[:-1])) - cut / 2
    alive: FloatArray = np.cumprod(1 - ended / np.maximum(there, 1))
    return alive[ends_s.searchsorted(churn.AGES_S[1:-1])]


def followed_s(table: LifeTable) -> NDArray[np.int64]:
    """How long each machine could be seen before the trace ended."""
    return table.end_s - table.epoch_s - table.arrival_s


def hours_of(table: LifeTable, machines: NDArray[np.bool_] | slice = slice(None)) -> FloatArray:
    """The hours of the day at which these came."""
    hours: FloatArray = ((table.epoch_s + table.arrival_s[machines]) % churn.DAY_S) / 3600
    return hours


def harmonic(wave: complex) -> tuple[float, float]:
    """Amplitude and hour of the peak of a mean of exp(2 pi i hour / 24)."""
    return abs(wave), float(np.angle(wave) / churn.PER_HOUR % 24)


def over_the_day(table: LifeTable, class_of: NDArray[np.int64]) -> tuple[float, float]:
    """The amplitude and the hour of the one harmonic that the log odds of all classes of living to all of AGES_S have
    in common, most likely given the lives; an intercept for each class and age. Newton's method, on counts by bins of
    five minutes of the day. The ages at which hardly anybody is left to be seen are left out.
    """
    bins = (hours_of(table) * 12).astype(np.int64)
    groups, seen, lived = [], [], []
    for number in range(len(CLASSES)):
        for age_s in churn.AGES_S[1:-2]:
            there = (class_of == number) & (followed_s(table) >= age_s)
            seen.append(np.bincount(bins[there], minlength=24 * 12))
            lived.append(np.bincount(bins[there & (table.most_life_s > age_s)], minlength=24 * 12))
            groups.append(np.full(24 * 12, len(groups)))
    n, k, group = np.concatenate(seen), np.concatenate(lived), np.concatenate(groups)
    angle = np.tile((np.arange(24 * 12) + 0.5) / 12 * churn.PER_HOUR, len(groups))
    given = np.concatenate([np.eye(len(groups))[group], np.cos(angle)[:, None], np.sin(angle)[:, None]], axis=1)
    found = np.zeros(given.shape[1])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-given @ found))
        found += np.linalg.solve((given * (n * p * (1 - p))[:, None]).T @ given, given.T @ (k - n * p))
    return harmonic(complex(found[-2], found[-1]))


def at_neutral_hours(shares: FloatArray, odds: FloatArray) -> list[float]:
    """S of a class where hours do nothing, so that S over those that came is `shares`, their log odds being shifted by
    `odds`: by bisection. S is 1 at the first age, and at the last 0 (assumed).
    """
    low, high = np.full(len(shares), -30.0), np.full(len(shares), 30.0)
    for _ in range(60):
        middle = (low + high) / 2
        over = (1 / (1 + np.exp(-(middle[:, None] + odds)))).mean(axis=1) > shares
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    return [1.0, *(round(float(share), 4) for share in 1 / (1 + np.exp(-low))), 0.0]


def alike(table: LifeTable, machines: NDArray[np.bool_]) -> float:
    """How many machines that are not the first of their request live as long as it did, beyond what chance gives."""
    age_s = (table.least_life_s + table.most_life_s)[machines] // 2
    _, first, inverse = np.unique(table.batch[machines], return_index=True, return_inverse=True)
    later = np.ones(len(age_s), dtype=bool)
    later[first] = False
    same = float((age_s == age_s[first][inverse])[later].mean())
    _, counts = np.unique(age_s, return_counts=True)
    chance = float(((counts / len(age_s)) ** 2).sum())
    return (same - chance) / (1 - chance)


def estimate(table: LifeTable) -> list[str]:
    """What the family's fields are."""
    _, first, inverse, sizes = np.unique(table.batch, return_index=True, return_inverse=True, return_counts=True)
    class_of = np.searchsorted([most for _, most in CLASSES], sizes[inverse])
    amplitude, peak_h = over_the_day(table, class_of)
    longer, longest_h = round(amplitude, 2), round(peak_h, 1)
    lines = [
        "sizes=("
        + ", ".join(f"({n}, {(sizes >= n).mean():.5f})" for n in KNOTS)
        + f", ({churn.MOST_MACHINES}, 0.00002)),",
        f"longer={longer}, longest_h={longest_h},",
    ]
    tenants = []
    for number, (least, most) in enumerate(CLASSES):
        machines = class_of == number
        of_class = first[(sizes >= least) & (sizes <= most)]
        swell, peak_h = harmonic(2 * np.exp(1j * churn.PER_HOUR * hours_of(table)[of_class]).mean())
        mib, vcpus = -(-table.maxmem_kib[of_class] // KIB_PER_MIB), table.vcpus[of_class]
        kinds, counts = np.unique(np.stack([mib, vcpus]), axis=1, return_counts=True)
        flavours = [
            f"Flavour({m}, {v}, {c / len(of_class):.3f})"
            for m, v, c in zip(*kinds.tolist(), counts.tolist(), strict=True)
            if c / len(of_class) >= LEAST_SHARE
        ]
        odds = longer * np.cos((hours_of(table, machines) - longest_h) * churn.PER_HOUR)
        ages = at_neutral_hours(survival(table, machines), odds)
        same = alike(table, machines) if most > 1 else 0.0
        tenants.append(
            f"    Tenant({most}, {swell:.2f}, {peak_h:.1f}, ({', '.join(flavours)}), {tuple(ages)}, {same:.2f}),"
        )
    return [*lines, "tenants=(", *tenants, "),"]


def statistics(
    size: NDArray[np.int64], mib: NDArray[np.int64], arrival_s: FloatArray, life_s: FloatArray, days: float
) -> dict[str, float]:
    """What somebody who has to place these machines would ask; `size` is that of each machine's request. Lives count
    as the middle of the trace's bin that they are in, which is all that it knows of its own.
    """
    requests = float((1 / size).sum())
    per_bin = np.bincount((arrival_s // 300).astype(int), minlength=int(days * 288))
    found = {
        "requests per day": requests / days,
        "machines per request, mean": len(size) / requests,
        "machines in requests of over 20": float((size > 20).mean()),
        "machines in 5 min, mean": float(per_bin.mean()),
        "machines in 5 min, p99": float(np.percentile(per_bin, 99)),
        "machines in 5 min, max": float(per_bin.max()),
        "memory, mean [MiB]": float(mib.mean()),
        "memory, median [MiB]": float(np.median(mib)),
        "memory, p95 [MiB]": float(np.percentile(mib, 95)),
        **{f"live longer than {hours} h": float((life_s > hours * 3600 + 150).mean()) for hours in (1, 4, 12, 24)},
        "life, median [s]": float(np.median(life_s)),
        "life, p75 [s]": float(np.percentile(life_s, 75)),
        "life, p90 [s]": float(np.percentile(life_s, 90)),
    }
    there, memory = [], []
    for hours in range(1, int(days * 24)):
        at_s = hours * 3600
        here = (arrival_s <= at_s) & (arrival_s + life_s > at_s)
        there.append(float(here.sum()))
        memory.append(float(mib[here].sum() / 1024))
    for title, by_hour in (("there", there), ("their memory [GiB]", memory)):
        for least, most in ((12, 36), (36, 60), (60, 84)):
            found[f"{title}, mean from {least} to {most} h after 0"] = float(np.mean(by_hour[least:most]))
        found[f"{title}, least from 24 h on over the mean"] = min(by_hour[24:]) / float(np.mean(by_hour[24:]))
    return found


def of_trace(table: LifeTable, days: float) -> dict[str, float]:
    """The trace's first days; who does not leave lives for ever."""
    _, inverse, sizes = np.unique(table.batch, return_inverse=True, return_counts=True)
    life_s = np.where(table.leaves, (table.least_life_s + table.most_life_s) / 2, np.inf)
    mib = -(-table.maxmem_kib // KIB_PER_MIB)
    return statistics(sizes[inverse], mib, table.arrival_s.astype(np.float64), life_s, days)


def of_family(seed: int, table: LifeTable, days: float) -> dict[str, float]:
    """As many machines from the family, from the trace's hour of the day on; of their lives is known what it knows."""
    per_day = len(table.machine_id) / days
    cfg = compose(["workload=churn", f"workload.arrivals_per_day={per_day}"]).workload
    begin_s = table.epoch_s % churn.DAY_S
    drawn = churn.arrivals_of(cfg, seed, 0, int(begin_s + days * churn.DAY_S))
    lives = [one for one in drawn if one.arrival_ns >= begin_s * NS_PER_S]
    arrival_s = np.array([one.arrival_ns / NS_PER_S for one in lives]) - begin_s
    life_s = np.array([((one.departure_ns or 0) - one.arrival_ns) / NS_PER_S for one in lives])
    ends_s, which = np.unique(table.most_life_s, return_index=True)
    middles_s = (table.least_life_s[which] + ends_s) / 2
    cut = arrival_s + life_s >= days * churn.DAY_S
    life_s = np.where(cut, np.inf, np.append(middles_s, np.inf)[ends_s.searchsorted(life_s)])
    mib = np.array([one.maxmem_mib for one in lives])
    _, inverse, sizes = np.unique(arrival_s, return_inverse=True, return_counts=True)
    return statistics(sizes[inverse], mib, arrival_s, life_s, days)


def compare(trace: Mapping[str, float], drawn: Sequence[Mapping[str, float]]) -> list[str]:
    """One line per statistic: trace, mean and standard deviation over seeds, ratio."""
    lines = [f"{'':48s}{'trace':>12s}{'family':>12s}{'sd':>10s}{'ratio':>8s}"]
    for name, value in trace.items():
        values = np.array([one[name] for one in drawn])
        lines.append(f"{name:48s}{value:12.4g}{values.mean():12.4g}{values.std():10.3g}{values.mean() / value:8.2f}")
    return lines


def main() -> int:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the trace's folder (vms_dev.parquet)")
    parser.add_argument("--seeds", type=int, default=8, help="0: only the first part")
    args = parser.parse_args()
    table = azure_v1.read(args.folder)
    days = (table.end_s - table.epoch_s) / churn.DAY_S
    out = sys.stdout
    out.writelines(f"{line}\n" for line in estimate(table))
    if not args.seeds:
        return 0
    drawn = [of_family(seed, table, days) for seed in range(args.seeds)]
    out.writelines(f"{line}\n" for line in ["", *compare(of_trace(table, days), drawn)])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
