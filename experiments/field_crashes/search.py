"""Settings under which a guest dies with exactly the numbers of a log, where a balloon driver had partly worked.

    python experiments/field_crashes/search.py

Two logs have entries that are no whole number of MiB: a driver had handed something back, how much nobody wrote down.
What can be claimed is that such a boot exists. First in arithmetic: with memory and maxmem in whole MiB, at most 256
pages of the device model's, and k whole hypercalls of a driver that hands back b pages with each,

    tot     = memory - 32 + x                       the VGA hole off the target, x from 0 to 256 (B2.10)
    entries = maxmem - memory - k b                 at the death the cache is empty (Z1)

or, with the older builder, both 32 more and 32 less. Then by booting it: page cache fills the guest slowly while the
driver works slowly, and the speed at which it fills is bisected until the guest dies between hypercalls k and k + 1.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from podcluster.cli import plan
from podcluster.report import dataset
from podcluster.study.runner import run_study

PAGES_PER_MIB = 256
HOLE = 32
MOST_EXTRA = 256
MOST_MAXMEM_MIB = 124 * 1024  # what a host of 128 GiB can promise
BATCHES = {"linux": 512, "windows": 8185}
LOGS = {"qubes_7023": (182_246, 66_825), "memory_2048": (524_304, 28_773_031)}


class Settings(NamedTuple):
    """One solution: whose driver, the sizes, the builder, and how many hypercalls it had done."""

    driver: str
    memory_mib: int
    maxmem_mib: int
    extra_pages: int
    less_hole: bool
    batches: int


def candidates(tot: int, entries: int) -> Iterator[Settings]:
    """Every solution with a driver that had begun, smaller maxmem first for each memory."""
    for driver, batch in BATCHES.items():
        for less_hole in (True, False):
            hole = HOLE if less_hole else 0
            for memory_mib in range(1, tot // PAGES_PER_MIB + 2):
                extra = tot - memory_mib * PAGES_PER_MIB + hole
                if not 0 <= extra <= MOST_EXTRA:
                    continue
                for maxmem_mib in range(memory_mib + 1, MOST_MAXMEM_MIB + 1):
                    given = (maxmem_mib - memory_mib) * PAGES_PER_MIB - (HOLE - hole) - entries
                    if given > 0 and given % batch == 0:
                        yield Settings(driver, memory_mib, maxmem_mib, extra, less_hole, given // batch)


def boot(name: str, rate_mib_per_s: float) -> dict[str, Any]:
    """What becomes of the crash `name` of conf/crash with page cache that grows at this rate."""
    asked = [f"crash={name}", f"guest.page_cache.rate_mib_per_s={rate_mib_per_s}", "study.telemetry_s=0"]
    with tempfile.TemporaryDirectory() as folder:
        run_study(plan(asked)[0], out_dir=Path(folder))
        (row,) = dataset.rows(Path(folder), "domains")
    return row


def tune(name: str, wanted_pages: int, low: float = 0.1, high: float = 20.0) -> tuple[float, float] | None:
    """The rates between which the guest dies with exactly `wanted_pages` handed back; None where there are none.

    The faster page cache grows the sooner the guest dies, and the less has been handed back by then.
    """

    def least(more_than: int) -> float:
        """The slowest rate at which no more than `more_than` pages were handed back, to a part in 10,000."""
        a, b = low, high
        while b / a > 1.0001:
            middle = (a * b) ** 0.5
            row = boot(name, middle)
            if row["fate"] != "pod_oom" or row["ballooned_pages"] > more_than:
                a = middle
            else:
                b = middle
        return b

    slowest, fastest = least(wanted_pages), least(wanted_pages - 1)
    return (slowest, fastest) if slowest < fastest else None


def main() -> int:
    """Print the solutions with the smallest maxmem, and the rates that reach the one that conf/crash holds."""
    for name, (tot, entries) in LOGS.items():
        found = sorted(candidates(tot, entries), key=lambda one: one.maxmem_mib)
        sys.stdout.write(f"{name}: tot {tot:,}, entries {entries:,}: {len(found)} solutions\n")
        for one in found[:4]:
            sys.stdout.write(f"  {one}\n")
        config = plan([f"crash={name}"])[0][0].config
        sizes = config.workload.memory_mib, config.workload.maxmem_mib
        (chosen,) = [one for one in found if (one.memory_mib, one.maxmem_mib) == sizes]
        rates = tune(name, chosen.batches * BATCHES[chosen.driver])
        sys.stdout.write(f"  chosen {chosen}\n  page cache at {rates} MiB/s\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
