"""Estimate the numbers of the churn family from the arrivals of Azure V1, and compare the two. See README.md."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from podcluster.cli import compose
from podcluster.io.traces import azure_v1
from podcluster.records import LifeTable
from podcluster.workloads import churn

KIB_PER_MIB = 1024
KNOTS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 400)
CLASSES = ((1, 1), (2, 20), (21, 100), (101, churn.MOST_MACHINES))
LEAST_SHARE = 0.005  # of a class's requests: rarer sizes of machine are left out


def survival(table: LifeTable, machines: NDArray[np.bool_]) -> list[float]:
    """S at each of AGES_S: Kaplan and Meier's estimate, on bins whose ends are taken for the middle of what is known.

    The last knot is that nothing lives longer (assumed).
    """
    age_s = (table.least_life_s + table.most_life_s)[machines] // 2
    leaves = table.leaves[machines]
    ages, at = np.unique(age_s, return_inverse=True)
    ends = np.bincount(at, weights=leaves, minlength=len(ages))
    cut = np.bincount(at, weights=~leaves, minlength=len(ages))
    there = len(age_s) - np.concatenate(([0], np.cumsum(ends + cut)[:-1]))
    alive = np.cumprod(1 - ends / there)
    # From the middle of a bin on, half of what ended in it has.
    middle = (alive + np.concatenate(([1.0], alive[:-1]))) / 2
    shares = np.interp(np.log(churn.AGES_S), np.log(np.maximum(ages, 1)), middle)
    shares[0], shares[-1] = 1.0, 0.0
    return [round(float(share), 4) for share in np.minimum.accumulate(shares)]


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
    hours = ((table.epoch_s + table.arrival_s[first]) % churn.DAY_S) / 3600
    wave = np.exp(2j * math.pi * hours / 24).mean()
    lines = [
        f"swell={2 * abs(wave):.2f}, swell_peak_h={np.angle(wave) * 24 / (2 * math.pi) % 24:.1f},",
        "sizes=("
        + ", ".join(f"({n}, {(sizes >= n).mean():.5f})" for n in KNOTS)
        + f", ({churn.MOST_MACHINES}, 0.00002)),",
    ]
    tenants = []
    for least, most in CLASSES:
        machines = (sizes[inverse] >= least) & (sizes[inverse] <= most)
        of_class = first[(sizes >= least) & (sizes <= most)]
        mib, vcpus = -(-table.maxmem_kib[of_class] // KIB_PER_MIB), table.vcpus[of_class]
        kinds, counts = np.unique(np.stack([mib, vcpus]), axis=1, return_counts=True)
        flavours = [
            f"Flavour({m}, {v}, {c / len(of_class):.3f})"
            for m, v, c in zip(*kinds.tolist(), counts.tolist(), strict=True)
            if c / len(of_class) >= LEAST_SHARE
        ]
        same = alike(table, machines) if most > 1 else 0.0
        tenants.append(f"    Tenant({most}, ({', '.join(flavours)}), {tuple(survival(table, machines))}, {same:.2f}),")
    return [*lines, "tenants=(", *tenants, "),"]


def statistics(
    size: NDArray[np.int64], mib: NDArray[np.int64], arrival_s: NDArray[np.float64], life_s: NDArray[np.float64],
    days: float,
) -> dict[str, float]:  # fmt: skip
    """What somebody who has to place these machines would ask; `size` is that of each machine's request."""
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
        "life, median [s]": float(np.median(life_s)),
        "life, p75 [s]": float(np.percentile(life_s, 75)),
        "life, p90 [s]": float(np.percentile(life_s, 90)),
    }
    for hours in (6, 24, 72):
        at_s = hours * 3600
        here = (arrival_s <= at_s) & (arrival_s + life_s > at_s)
        found[f"there after {hours} h of those that came since 0"] = float(here.sum())
        found[f"their memory after {hours} h [GiB]"] = float(mib[here].sum() / 1024)
    return found


def of_trace(table: LifeTable, days: float) -> dict[str, float]:
    """The trace's first days; who does not leave lives for ever."""
    _, inverse, sizes = np.unique(table.batch, return_inverse=True, return_counts=True)
    life_s = np.where(table.leaves, (table.least_life_s + table.most_life_s) / 2, np.inf)
    mib = -(-table.maxmem_kib // KIB_PER_MIB)
    return statistics(sizes[inverse], mib, table.arrival_s.astype(np.float64), life_s, days)


def of_family(seed: int, per_day: float, days: float) -> dict[str, float]:
    """As many machines from the family."""
    cfg = compose(["workload=churn", f"workload.arrivals_per_day={per_day}"]).workload
    lives = [one for one in churn.arrivals_of(cfg, seed, 0, int(days * churn.DAY_S)) if one.arrival_ns >= 0]
    arrival_s = np.array([one.arrival_ns / 1e9 for one in lives])
    life_s = np.array([(one.departure_ns or 0) / 1e9 for one in lives]) - arrival_s
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
    drawn = [of_family(seed, len(table.machine_id) / days, days) for seed in range(args.seeds)]
    out.writelines(f"{line}\n" for line in ["", *compare(of_trace(table, days), drawn)])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
