"""Estimate the numbers of the synthetic family from GWA-T-12, and compare the two. See README.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from podcluster.io.traces import bitbrains
from podcluster.records.machines import MachineTable
from podcluster.workloads import synthetic

FloatArray = NDArray[np.float64]
STEP_S = synthetic.SAMPLE_S
DAY = synthetic.DAY_SAMPLES
PAGES_PER_GIB = 262_144
GIANT_GIB = 256  # the one machine that no host of the trace's time would take


def to_grid(table: MachineTable) -> FloatArray:
    """Use as a share of maxmem on a grid of 300 s: each sample at its nearest slot, slots without one on the line."""
    slots = (table.end_s - table.epoch_s) // STEP_S + 1
    grid = np.empty((len(table.machine_id), slots))
    for i, (first, last) in enumerate(zip(table.offsets[:-1], table.offsets[1:], strict=True)):
        row = np.full(slots, np.nan)
        row[np.rint(table.t_s[first:last] / STEP_S).astype(int)] = table.used_kib[first:last] / table.maxmem_kib[i]
        empty = np.isnan(row)
        row[empty] = np.interp(np.flatnonzero(empty), np.flatnonzero(~empty), row[~empty])
        grid[i] = row
    return grid


def kinds_of(share: FloatArray, gib: FloatArray, vcpus: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Which machines of the trace are small (< 512 MiB), pool (8 vCPUs and in step with another such), general."""
    wide = np.flatnonzero((vcpus == 8) & (gib < GIANT_GIB))
    together = np.asarray(np.corrcoef(share[wide]))
    np.fill_diagonal(together, 0)
    pool = wide[together.max(axis=1) > 0.5]
    small = np.flatnonzero(gib < 0.5)
    rest = np.setdiff1d(np.flatnonzero(gib < GIANT_GIB), np.union1d(pool, small))
    return {"small": small, "general": rest, "pool": pool}


def estimate(share: FloatArray, gib: FloatArray) -> list[str]:
    """What the family's fields are, read off one kind's machines."""
    level = np.maximum(np.median(share, axis=1), 0.002)
    noise = np.maximum(np.median(np.abs(np.diff(share, axis=1)), axis=1) / 0.6745 / np.sqrt(2), 0.002)
    slope, at_one = np.polyfit(np.log2(gib), np.log(level), 1)
    left = np.log(level) - np.polyval([slope, at_one], np.log2(gib))
    noise_slope, noise_at = np.polyfit(np.log(level), np.log(noise), 1)
    noise_left = np.log(noise) - np.polyval([noise_slope, noise_at], np.log(level))
    daily = np.median(share[:, : share.shape[1] // DAY * DAY].reshape(len(share), -1, DAY), axis=2)
    drift = np.log(np.maximum(daily.std(axis=1) / noise, 0.01))
    steps = np.diff(share, axis=1)
    lines = [
        f"level_ln {at_one:.3f}  level_slope {slope:.3f}  level_sd {left.std():.2f}",
        f"noise_ln {noise_at:.3f}  noise_slope {noise_slope:.3f}  noise_sd {noise_left.std():.2f}",
        f"drift_ln {np.median(drift):.2f}  drift_sd {drift.std():.2f}",
        f"repeat {np.mean((steps == 0)[share[:, 1:] > 0]):.3f}",
    ]
    days = share.shape[1] / DAY
    bursts = []
    for row, m, s in zip(share, level, noise, strict=True):
        over = row - m > max(5 * s, 0.05)
        edge = np.diff(np.concatenate(([0], over.astype(int), [0])))
        begin, end = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
        if len(begin) >= 3:
            heights = np.array([(row[a:b] - m).max() for a, b in zip(begin, end, strict=True)])
            bursts.append((len(begin) / days, (end - begin).mean(), heights.mean(), np.log(heights).std()))
    rates, lengths, heights, own = np.array(bursts).T
    lines.append(
        f"bursty {len(bursts) / len(share):.2f}  rate_ln {np.log(rates).mean():.2f}  rate_sd {np.log(rates).std():.2f}"
        f"  length_ln {np.log(lengths).mean():.2f}  length_sd {np.log(lengths).std():.2f}"
    )
    lines.append(
        f"height_ln {np.log(heights).mean():.2f}  height_sd {np.log(heights).std():.2f}  "
        f"height_own_sd {np.median(own):.2f}"
    )
    return lines


def statistics(share: FloatArray, gib: FloatArray) -> dict[str, float]:
    """What a capacity planner would ask of a set of machines on a 300 s grid."""
    used = share * gib[:, None]
    total = used.sum(axis=0)
    step_pages = np.abs(np.diff(used, axis=1)) * PAGES_PER_GIB
    rises = np.diff(total)
    most = share.max(axis=1)

    def lag(samples: int) -> float:
        return float(np.corrcoef(total[samples:], total[:-samples])[0, 1])

    return {
        "provisioned [GiB]": float(gib.sum()),
        "used, mean [GiB]": float(total.mean()),
        "used / provisioned, mean": float(share.mean()),
        "used / provisioned, median": float(np.median(share)),
        "used / provisioned, p95": float(np.percentile(share, 95)),
        "used / provisioned, p99": float(np.percentile(share, 99)),
        "|step|, mean [pages]": float(step_pages.mean()),
        "|step|, median [pages]": float(np.median(step_pages)),
        "steps of 0": float((step_pages == 0).mean()),
        "peak of sum / sum of peaks": float(total.max() / used.max(axis=1).sum()),
        "variance of sum [GiB^2]": float(total.var()),
        "sum of variances [GiB^2]": float(used.var(axis=1).sum()),
        "autocorrelation of sum, 1 h": lag(12),
        "autocorrelation of sum, 6 h": lag(72),
        "rise of sum in 5 min, p99 [GiB]": float(np.percentile(rises, 99)),
        "rise of sum in 5 min, max [GiB]": float(rises.max()),
        "machines that reach 90 %": float((most >= 0.9).mean()),
        "machines that never pass 50 %": float((most <= 0.5).mean()),
    }


def draw(seed: int, machines: int, days: int) -> tuple[FloatArray, FloatArray, list[str]]:
    """As many synthetic machines: their use, sizes [GiB] and kinds."""
    path = ("workload", "replication", 0)
    pools = synthetic.pool_count(machines)
    drawn = [synthetic.draw_machine(seed, (*path, "domain", i), 0, 1 << 30, pools) for i in range(machines)]
    share = np.array([synthetic.use_share(m, days * DAY, seed, path, i) for i, m in enumerate(drawn)])
    return share, np.array([m.maxmem_mib / 1024 for m in drawn]), [m.kind.name for m in drawn]


def compare(trace: Mapping[str, float], drawn: Sequence[Mapping[str, float]]) -> list[str]:
    """One line per statistic: trace, mean and standard deviation over seeds, ratio."""
    lines = [f"{'':34s}{'trace':>12s}{'synthetic':>12s}{'sd':>10s}{'ratio':>8s}"]
    for name, value in trace.items():
        values = np.array([one[name] for one in drawn])
        ratio = f"{values.mean() / value:8.2f}" if value else f"{'-':>8s}"
        lines.append(f"{name:34s}{value:12.4g}{values.mean():12.4g}{values.std():10.3g}{ratio}")
    return lines


def main() -> int:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the trace's folder (vms_2013-8.parquet, usage_2013-8.parquet)")
    parser.add_argument("--seeds", type=int, default=16)
    args = parser.parse_args()
    table = bitbrains.read(args.folder)
    share, gib = to_grid(table), table.maxmem_kib / (1 << 20)
    kinds = kinds_of(share, gib, table.vcpus)
    out = sys.stdout
    for name in ("small", "general"):
        out.write(f"{name}: {len(kinds[name])} machines\n")
        out.writelines(f"  {line}\n" for line in estimate(share[kinds[name]], gib[kinds[name]]))
    out.write(f"pool: {len(kinds['pool'])} machines\n\n")
    taken = np.concatenate(list(kinds.values()))
    sets = [draw(seed, len(taken), share.shape[1] // DAY) for seed in range(args.seeds)]
    for name, which in {"all": taken, **kinds}.items():
        drawn = []
        for use, sizes, names in sets:
            here = np.array([name in ("all", kind) for kind in names])
            drawn.append(statistics(use[here], sizes[here]))
        out.write(f"{name}\n")
        out.writelines(f"  {line}\n" for line in compare(statistics(share[which], gib[which]), drawn))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
