"""Rows for the tests of io: any table's row class filled with plain values, or with drawn ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from podcluster.io import tables
from podcluster.records import DomainRow, EventRow, RunRow, SampleRow

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


def event(t_ns: int, host_id: int, text: str) -> EventRow:
    """An event's row."""
    row: EventRow = plain("events", t_ns=t_ns, host_id=host_id, kind="place", text=text)
    return row


def run(**values: Any) -> RunRow:
    """A run's row."""
    row: RunRow = plain("runs", **{"engine_kind": "inline", **values})
    return row
