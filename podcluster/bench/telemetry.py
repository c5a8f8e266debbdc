"""What telemetry costs a run: the part of `bench trace` that writes.

What        `telemetry`: a run whose rows are written to Parquet, with a sample of every machine, every host and the
            whole cluster each 300 s and without, in turns; and the first samples on their own, as the run gave them to
            the sink.
Units       Seconds of wall time, from the first placement to the finished files; rows per second of them, and beside
            them per second of processor time, which what else a machine does has no part in. Drawing the demand is
            outside the clock, and so are the runs that only give the samples.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from podcluster.bench.month import simulate
from podcluster.bench.said import say
from podcluster.cluster.plan import Plan, make_plan
from podcluster.config import Config
from podcluster.io.results import ParquetSink
from podcluster.records.machines import Workload
from podcluster.records.samples import RowBlock
from podcluster.records.tables import Row

TELEMETRY_S: Final = 300
PAIRS: Final = 7  # at least: a ratio of two runs is less certain than the time of one
RATE_ROWS: Final = 4_000_000  # samples that are kept, to be written on their own: all would be half a GB


class Samples:
    """A sink that keeps the first samples alone, in the blocks in which they come, and counts all."""

    def __init__(self) -> None:
        self.blocks: list[tuple[str, RowBlock]] = []  # with their tables
        self.rows = 0

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Take rows."""
        if isinstance(rows, RowBlock):
            if self.rows < RATE_ROWS:
                self.blocks.append((table, rows))
            self.rows += len(rows)


def telemetry(config: Config, workload: Workload, repeat: int) -> dict[str, Any]:
    """`telemetry_ratio` and `telemetry_rows_per_s`, medians, and how many rows there are."""
    without = make_plan(config, workload, config.seed)
    sampled = replace(config, study=replace(config.study, telemetry_s=TELEMETRY_S, machine_samples=True))
    plan = make_plan(sampled, workload, config.seed)
    written_s(config, plan, workload)  # warm up
    ratios: list[float] = []
    pairs = max(repeat, PAIRS)
    while len(ratios) < pairs:
        say(f"trace: {len(ratios)} of {pairs} pairs with telemetry and without")
        ratios.append(written_s(config, plan, workload) / written_s(config, without, workload))
    kept = Samples()
    simulate(config, plan, workload, kept)
    rows = sum(len(block) for _, block in kept.blocks)  # that are written
    taken = [samples_s(kept.blocks) for _ in range(repeat)]
    rates = [rows / wall_s for wall_s, _ in taken]
    return {
        "telemetry_ratio": statistics.median(ratios),
        "telemetry_rows_per_s": statistics.median(rates),
        "telemetry_rows_per_cpu_s": statistics.median(rows / cpu_s for _, cpu_s in taken),
        "telemetry_rows": kept.rows,
        "telemetry_spread": {"ratio": [min(ratios), max(ratios)], "rows_per_s": [min(rates), max(rates)]},
    }


def written_s(config: Config, plan: Plan, workload: Workload) -> float:
    """Seconds of one run with all its rows on disk."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with ParquetSink(Path(folder), "bench") as sink:
            simulate(config, plan, workload, sink.replication(0))
        return time.perf_counter() - started


def samples_s(blocks: Sequence[tuple[str, RowBlock]]) -> tuple[float, float]:
    """Seconds to write these samples, of wall and of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        with ParquetSink(Path(folder), "bench") as sink:
            replication = sink.replication(0)
            for table, block in blocks:
                replication.write(table, block)
        return time.perf_counter() - wall_s, time.process_time() - cpu_s
