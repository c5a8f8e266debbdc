"""`podcluster digest`: whether two results are the same numbers, whoever computed them.

What        One SHA-256 per table and one over all of them: column names, types and values in stored row order. Not part
            of it: columns named `wall_*` or `engine_*`, file metadata, how rows are cut into files and row groups,
            whether a text column is stored as a dictionary.
Bytes       Per column: the name, the type, then for each row a byte for "there", then the values (int64 and float64 as
            little-endian bytes, bool as a byte, text as its length in 8 bytes and its UTF-8; a null as 0 or ""). Per
            table: the columns' digests in stored order and the row count. Over all: `<table> <digest>` lines.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podcluster.arguments import OneLineParser
from podcluster.errors import ConfigError
from podcluster.io import tables
from podcluster.io.load import read_table, results_folder
from podcluster.records.tables import TABLES

if TYPE_CHECKING:
    import pyarrow as pa


def digest(folder: Path | str) -> dict[str, str]:
    """SHA-256 of each table, and of all under the key `all`."""
    root = results_folder(Path(folder))
    found = {table: table_digest(_compared(root, table)) for table in TABLES if (root / table).is_dir()}
    lines = "".join(f"{table} {value}\n" for table, value in found.items())
    return {**found, "all": hashlib.sha256(lines.encode()).hexdigest()}


def table_digest(stored: pa.Table) -> str:
    """SHA-256 of one table's columns and rows."""
    whole = hashlib.sha256()
    for name in stored.column_names:
        whole.update(_column_digest(name, stored.column(name)))
    whole.update(stored.num_rows.to_bytes(8, "little"))
    return whole.hexdigest()


def first_difference(a: Path | str, b: Path | str) -> str | None:
    """In one line what first differs between two results: table, row, column, both values; None if nothing does."""
    root_a, root_b = results_folder(Path(a)), results_folder(Path(b))
    for table in TABLES:
        there_a, there_b = (root_a / table).is_dir(), (root_b / table).is_dir()
        if there_a != there_b:
            return f"table {table}: only in {a if there_a else b}"
        if there_a:
            found = _table_difference(table, _compared(root_a, table), _compared(root_b, table))
            if found is not None:
                return found
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Print the digests of a results folder, or the first difference of two; 0 same, 1 different, 2 cannot tell."""
    parser = OneLineParser(
        prog="podcluster digest",
        description="One SHA-256 per table and one over all: column names, types and values in stored row order, "
        "without wall_*/engine_* columns and file metadata.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, nargs="?", help="a run's or sweep's folder")
    parser.add_argument("--diff", metavar=("A", "B"), type=Path, nargs=2, help="name the first difference of two")
    try:
        args = parser.parse_args(argv)
        if (args.folder is None) == (args.diff is None):
            parser.error("give either DIR or --diff A B")
        if args.diff is not None:
            found = first_difference(*args.diff)
            sys.stdout.write((found or "no difference") + "\n")
            return 0 if found is None else 1
        for table, value in digest(args.folder).items():
            sys.stdout.write(f"{value}  {table}\n")
    except ConfigError as error:
        sys.stderr.write(f"podcluster: {error}\n")
        return 2
    return 0


def _compared(root: Path, table: str) -> pa.Table:
    """A table without the columns that describe the program's run, dictionaries read as text."""
    import pyarrow as pa

    stored = read_table(root, table)
    stored = stored.select([name for name in stored.column_names if not tables.is_program_column(name)])
    plain = [
        item.with_type(item.type.value_type) if pa.types.is_dictionary(item.type) else item for item in stored.schema
    ]
    return stored.cast(pa.schema(plain))


def _column_digest(name: str, column: pa.ChunkedArray) -> bytes:
    import numpy as np
    import pyarrow as pa

    there = column.is_valid().to_numpy().astype(np.uint8).tobytes()
    kind = column.type
    if pa.types.is_string(kind):
        encoded = [value.encode() for value in column.fill_null("").to_pylist()]
        values = np.array([len(value) for value in encoded], dtype="<i8").tobytes() + b"".join(encoded)
    elif pa.types.is_boolean(kind):
        values = column.fill_null(False).to_numpy().astype(np.uint8).tobytes()
    else:
        stored = "<f8" if pa.types.is_floating(kind) else "<i8"
        values = column.fill_null(0).to_numpy().astype(stored).tobytes()
    whole = hashlib.sha256()
    for part in (f"{name}\0{kind}\0".encode(), there, values):
        whole.update(part)
    return whole.digest()


def _table_difference(table: str, a: pa.Table, b: pa.Table) -> str | None:
    if a.column_names != b.column_names:
        return f"table {table}: columns {', '.join(a.column_names)} | {', '.join(b.column_names)}"
    for name in a.column_names:
        if a.schema.field(name).type != b.schema.field(name).type:
            return f"table {table}, column {name}: type {a.schema.field(name).type} | {b.schema.field(name).type}"
    rows = min(a.num_rows, b.num_rows)
    first_row, first_name = rows, ""
    for name in a.column_names:
        row = _first_unequal(a.column(name).slice(0, rows), b.column(name).slice(0, rows))
        if row is not None and row < first_row:
            first_row, first_name = row, name
    if first_name:
        values = [_shown(side.column(first_name)[first_row].as_py()) for side in (a, b)]
        place = ", ".join(
            f"{key}={_shown(a.column(key)[first_row].as_py())}"
            for key in ("cell", *tables.sort_key(table))
            if key != first_name
        )
        return f"table {table}, row {first_row} ({place}), column {first_name}: {values[0]} | {values[1]}"
    if a.num_rows != b.num_rows:
        return f"table {table}: {a.num_rows} rows | {b.num_rows} rows, the first {rows} equal"
    return None


def _first_unequal(a: pa.ChunkedArray, b: pa.ChunkedArray) -> int | None:
    """The first row where two columns differ, by the same bytes that the digest takes."""
    import numpy as np
    import pyarrow as pa

    differ: Any = a.is_valid().to_numpy() != b.is_valid().to_numpy()
    if pa.types.is_floating(a.type):
        # By their bits: a digest tells 0.0 from -0.0, and a nan equals itself.
        differ |= a.fill_null(0).to_numpy().view(np.int64) != b.fill_null(0).to_numpy().view(np.int64)
    else:
        blank: Any = "" if pa.types.is_string(a.type) else False if pa.types.is_boolean(a.type) else 0
        left, right = (np.asarray(side.fill_null(blank).to_pylist(), dtype=object) for side in (a, b))
        differ |= left != right
    rows = np.flatnonzero(differ)
    return int(rows[0]) if len(rows) else None


def _shown(value: object) -> str:
    return "null" if value is None else repr(value)


if __name__ == "__main__":
    raise SystemExit(main())
