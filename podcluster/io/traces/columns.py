"""Columns of one Parquet file of a trace, checked: what is wrong with one is a line that names file and column.

What        `read_columns` gives whole columns as int64; truth values count 0 and 1. `check_ids` sees that no two rows
            are of one machine.
Rules       [BB-4] a negative or missing value is an error that names file and column
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from podcluster.errors import ConfigError
from podcluster.records.values import Int64Array

if TYPE_CHECKING:
    import pyarrow as pa


def read_columns(file: Path, columns: Sequence[str], remedy: str) -> list[Int64Array]:
    """These integer columns of one file [BB-4]; `remedy` is what to do about one that is not as it must be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            missing = [name for name in columns if name not in schema.names]
            if missing:
                raise ConfigError(
                    f"{file}: must have columns {', '.join(columns)}, lacks {', '.join(missing)} "
                    f"(it has {', '.join(schema.names)}): {remedy}"
                )
            for name in columns:
                kind = schema.field(name).type
                if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
                    raise ConfigError(f"{file}: column {name} must be an integer, got {kind}: {remedy}")
            table = parquet.read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{file}: must be a whole Parquet file, got {_size(file)} that cannot be read ({reason}): copy it again"
        ) from error
    return [_column(file, table, name, remedy) for name in columns]


def check_ids(file: Path, name: str, values: Int64Array) -> None:
    """The column `name` has each value once."""
    again = np.ones(len(values), dtype=bool)
    again[np.unique(values, return_index=True)[1]] = False
    if again.any():
        row = int(np.argmax(again))
        raise ConfigError(
            f"{file}: column {name} must have each value once, got {values[row]} again in row {row}: correct or drop it"
        )


def _column(file: Path, table: pa.Table, name: str, remedy: str) -> Int64Array:
    column = table.column(name)
    if column.null_count:
        raise ConfigError(f"{file}: column {name} must be complete, got {column.null_count} missing values: {remedy}")
    values: Int64Array = column.to_numpy().astype(np.int64)
    if len(values) and values.min() < 0:
        row = int(np.argmax(values < 0))
        raise ConfigError(f"{file}: column {name} must be >= 0, got {values[row]} in row {row}: correct or drop it")
    return values


def _size(file: Path) -> str:
    try:
        return f"{file.stat().st_size} bytes"
    except OSError:
        return "a file"
