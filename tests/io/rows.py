"""Rows for the tests of io: any table's row class filled with plain values, or with drawn ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from podcluster.io import tables
from podcluster.io.results import ParquetSink
from podcluster.records.rows import DomainRow, EventRow
from podcluster.records.samples import MachineSampleBlock, MachineSampleRow, SampleBlock, SampleRow
from podcluster.records.summaries import RunRow

PLAIN: dict[str, Any] = {"int": 0, "float": 0.0, "str": "", "label": "", "bool": False}


def plain(table: str, **values: Any) -> Any:
    """A row of this table with every value plain (nullable ones null), but for `values`."""
    row = tables.table_spec_row(table)
    blank = {c.name: None if c.nullable else PLAIN[c.kind] for c in tables.row_columns(table)}
    return replace(row(**blank), **values)


def domain(domain_id: int, attempt: int = 1, **values: Any) -> DomainRow:
    """A domain's row."""
    row: DomainRow = plain("domains", domain_id=domain_id, attempt=attempt, os_class="linux", fate="running", **values)
    return row


def sample(t_ns: int, host_id: int, **values: Any) -> SampleRow:
    """A sample's row."""
    row: SampleRow = plain("samples", t_ns=t_ns, host_id=host_id, **values)
    return row


def machine_sample(t_ns: int, domain_id: int, **values: Any) -> MachineSampleRow:
    """A machine's sample."""
    row: MachineSampleRow = plain("machine_samples", t_ns=t_ns, domain_id=domain_id, **values)
    return row


def event(t_ns: int, host_id: int, text: str) -> EventRow:
    """An event's row."""
    row: EventRow = plain("events", t_ns=t_ns, host_id=host_id, kind="place", text=text)
    return row


def run(**values: Any) -> RunRow:
    """A run's row."""
    row: RunRow = plain("runs", **{"engine_kind": "inline", **values})
    return row


def write_cell(folder: Path, cell: str = "c0", axes: dict[str, Any] | None = None, deaths: int = 0) -> Path:
    """A small cell of two replications in `folder`."""
    with ParquetSink(folder, cell, axes, {"seed": 7, "config": {"seed": 7}}) as sink:
        for k in range(2):
            writer = sink.replication(k)
            writer.write("domains", [domain(2), domain(0, name="vm0", boot_done_ns=5), domain(1)])
            writer.write("samples", SampleBlock.of([sample(0, 0), sample(300, 0, deaths=deaths)]))
            writer.write("machine_samples", MachineSampleBlock.of([machine_sample(300, 2), machine_sample(300, 1)]))
            writer.write("runs", [run(wall_s=0.5 + k, static_ratio_mean=1.25)])
        sink.write("cells", [plain("cells", replications=2)])
    return folder
