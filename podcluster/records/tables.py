"""The tables of a result, and where their rows go.

What        `TABLES`, what each table has for rows and how it is sorted; `BLOCKS`, those whose rows come in blocks;
            `Sink`, who takes rows.
Invariants  A row of a table is of its row class alone: what goes in front of it (cell, replication) and behind it (a
            sweep's axes) is the sink's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from podcluster.records.rows import DomainRow, EventRow, HostRow
from podcluster.records.samples import MachineSampleBlock, MachineSampleRow, RowBlock, SampleBlock, SampleRow
from podcluster.records.summaries import CellRow, PairRow, RunRow

Row: TypeAlias = DomainRow | HostRow | SampleRow | MachineSampleRow | EventRow | RunRow | CellRow | PairRow


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table of a result: its row class, the columns its stored order sorts by, and whether it has replications.

    `of_sweep`: it relates cells to each other, so that only a sweep has it, and only where it asks for it.
    """

    row: type[Any]
    key: tuple[str, ...]
    per_replication: bool
    doc: str
    of_sweep: bool = False


TABLES: Final[Mapping[str, TableSpec]] = {
    "cells": TableSpec(CellRow, (), False, "One cell of a sweep, over its replications."),
    "runs": TableSpec(RunRow, (), True, "One replication of one cell."),
    "hosts": TableSpec(HostRow, ("host_id",), True, "One host in one run."),
    "domains": TableSpec(DomainRow, ("domain_id", "attempt"), True, "One boot attempt."),
    "samples": TableSpec(SampleRow, ("t_ns", "host_id"), True, "A time series, at the cadence asked for."),
    "machine_samples": TableSpec(
        MachineSampleRow,
        ("t_ns", "host_id", "domain_id"),
        True,
        "A time series of every machine that lives, at the cadence of samples, where it is asked for.",
    ),
    "events": TableSpec(EventRow, ("t_ns", "host_id"), True, "What happened when."),
    "pairs": TableSpec(PairRow, (), False, "One measure of a cell against its baseline (`study.baseline`).", True),
}
"""The sink adds `cell` and (but for cells) `replication` in front of each row, and a sweep's axes behind it; stored
rows are sorted by cell, replication and `key`, rows of equal key staying in the order they were written."""

BLOCKS: Final[Mapping[str, type[RowBlock]]] = {"samples": SampleBlock, "machine_samples": MachineSampleBlock}
"""Tables whose rows come in blocks."""


class Sink(Protocol):
    """Where rows go: `table` is a key of TABLES, the rows are of its row class; samples are a RowBlock."""

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Take these rows, in this order."""
