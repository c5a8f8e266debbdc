"""Arrow schemas of the tables, generated from the row classes of records.tables.

What        One schema per table: `cell` and (but for `cells`) `replication` in front, then the row's columns, then a
            sweep's axes, typed. Units and descriptions are field metadata, provenance is schema metadata.
Units       In each field's metadata, under `unit`.
Invariants  [IO-1] a stored column has a unit and a doc   [IO-2] columns named `wall_` or `engine_` describe the
            program's run; every other column and every row's place is a function of configuration and seed.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from podcluster.config import AxisValue
from podcluster.errors import ConfigError, InvariantError
from podcluster.records.samples import RowBlock
from podcluster.records.tables import TABLES

if TYPE_CHECKING:
    import pyarrow as pa

PROVENANCE_KEY: Final = b"podcluster"
PROGRAM_PREFIXES: Final = ("wall_", "engine_")
PLAIN_VALUES: Final[Mapping[str, object]] = {"int": 0, "float": 0.0, "str": "", "label": "", "bool": False}
AXIS_DOC: Final = "Axis of the sweep: the value of this key in the row's cell."


class ColumnSpec(NamedTuple):
    """One stored column; `kind` is int, float, str, label (str of few values) or bool."""

    name: str
    kind: str
    nullable: bool
    unit: str
    doc: str


CELL: Final = ColumnSpec("cell", "label", False, "-", "Name of the cell: the hash of its configuration.")
REPLICATION: Final = ColumnSpec("replication", "int", False, "1", "Which replication of the cell, from 0.")


@cache
def row_columns(table: str) -> tuple[ColumnSpec, ...]:
    """The columns that the table's row class declares, in order."""
    row = table_spec_row(table)
    hints = typing.get_type_hints(row)
    columns = []
    for item in fields(row):
        hint = hints[item.name]
        nullable = isinstance(hint, types.UnionType)
        base = next(arg for arg in typing.get_args(hint) if arg is not type(None)) if nullable else hint
        kind = item.metadata["arrow"] or ("label" if item.metadata["label"] else base.__name__)
        unit, doc = item.metadata["unit"], item.metadata["doc"]
        if not unit.strip() or not doc.strip():
            raise InvariantError(f"[IO-1] a column has a unit and a doc violated: {table}.{item.name}")
        columns.append(ColumnSpec(item.name, kind, nullable, unit, doc))
    return tuple(columns)


def table_spec_row(table: str) -> type[Any]:
    """The row class of a table."""
    if table not in TABLES:
        raise InvariantError(f"[IO-0] a table is one of {', '.join(TABLES)}, got {table}")
    return TABLES[table].row


def key_columns(table: str) -> tuple[ColumnSpec, ...]:
    """The columns in front of a row's own: where it belongs."""
    return (CELL, REPLICATION) if TABLES[table].per_replication else (CELL,)


def sort_key(table: str) -> tuple[str, ...]:
    """The columns that stored rows are sorted by within one cell."""
    return (*(("replication",) if TABLES[table].per_replication else ()), *TABLES[table].key)


def axis_columns(table: str, axes: Mapping[str, AxisValue]) -> tuple[ColumnSpec, ...]:
    """A sweep's axes as columns, typed by their values."""
    taken = {column.name for column in (*key_columns(table), *row_columns(table))}
    clash = [name for name in axes if name in taken]
    if clash:
        raise ConfigError(f"{clash[0]}: must not name a column of table {table}, got it as an axis: sweep another key")
    return tuple(ColumnSpec(name, _axis_kind(name, value), False, "-", AXIS_DOC) for name, value in axes.items())


def _axis_kind(name: str, value: AxisValue) -> str:
    # bool before int: True is an int to Python.
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind.__name__
    if isinstance(value, str):
        return "label"
    raise InvariantError(f"[IO-3] an axis value is a bool, int, float or str, got {name}={value!r}")


def arrow_type(kind: str) -> pa.DataType:
    """The stored type of a kind of column."""
    import pyarrow as pa

    if kind == "label":
        return pa.dictionary(pa.int32(), pa.string())
    return {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bool": pa.bool_()}[kind]


def schema(table: str, axes: Mapping[str, AxisValue], provenance: Mapping[str, Any]) -> pa.Schema:
    """The whole schema of a table: key columns, the row's, the axes; with the provenance."""
    import pyarrow as pa

    columns = (*key_columns(table), *row_columns(table), *axis_columns(table, axes))
    return pa.schema(
        [
            pa.field(
                column.name,
                arrow_type(column.kind),
                nullable=column.nullable,
                metadata={"unit": column.unit, "doc": column.doc},
            )
            for column in columns
        ],
        metadata={PROVENANCE_KEY: dump_provenance(table, provenance)},
    )


def dump_provenance(table: str, provenance: Mapping[str, Any]) -> bytes:
    """The schema metadata of one table as JSON."""
    text = {"table": table, "table_doc": TABLES[table].doc, **provenance}
    return json.dumps(text, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def load_provenance(schema: pa.Schema) -> dict[str, Any] | None:
    """What `dump_provenance` wrote, or None in a file that is not ours."""
    metadata = schema.metadata or {}
    if PROVENANCE_KEY not in metadata:
        return None
    loaded: dict[str, Any] = json.loads(metadata[PROVENANCE_KEY])
    return loaded


def to_arrow(
    table: str,
    rows: Sequence[object],
    cell: str,
    replication: int | None,
    axes: Mapping[str, AxisValue],
    schema: pa.Schema,
) -> pa.Table:
    """Rows of one cell and replication as columns; those of a RowBlock are columns already."""
    import pyarrow as pa

    given: dict[str, object] = {CELL.name: cell, REPLICATION.name: replication, **axes}
    columns = (*key_columns(table), *row_columns(table), *axis_columns(table, axes))
    arrays = []
    for column in columns:
        if column.name in given:
            arrays.append(_constant(table, column, given[column.name], len(rows)))
        elif isinstance(rows, RowBlock):
            arrays.append(_numbers(column, rows.column(column.name), None))
        else:
            arrays.append(_array(table, column, [getattr(row, column.name) for row in rows]))
    return pa.Table.from_arrays(arrays, schema=schema)


# pyarrow imports pandas (half a second) to convert any Python value, so arrays are made from numpy's buffers here: a
# run of one guest would otherwise spend a third of its time on it. And nothing gets through that is not of its type.


@lru_cache(maxsize=8, typed=True)  # of samples many pieces are as long
def _constant(table: str, column: ColumnSpec, value: object, count: int) -> pa.Array:
    """One column that is the same in every row."""
    import pyarrow as pa

    one = _array(table, column, [value])
    if column.kind == "label":
        index = pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(np.zeros(count, dtype=np.int32))])
        return pa.DictionaryArray.from_arrays(index, one.dictionary)
    return _numbers(column, np.full(count, value), None)


def _array(table: str, column: ColumnSpec, values: list[Any]) -> pa.Array:
    """One column from its values, which must be of its kind."""
    missing = np.array([value is None for value in values], dtype=bool)
    there = None
    if missing.any():
        if not column.nullable:
            raise InvariantError(f"[IO-4] a column has a value in every row violated: {table}.{column.name}")
        values = [PLAIN_VALUES[column.kind] if value is None else value for value in values]
        there = _bits(~missing)
    if column.kind in ("str", "label"):
        wrong = [value for value in values if not isinstance(value, str)]
        if wrong:
            raise _wrong_type(table, column, wrong[0])
        return _labels(values, there) if column.kind == "label" else _text(values, there)
    array = np.array(values)
    if len(values) and array.dtype.kind not in {"int": "i", "float": "fiu", "bool": "b"}[column.kind]:
        raise _wrong_type(table, column, next((v for v in values if type(v).__name__ != column.kind), values[0]))
    return _numbers(column, array, there)


def _numbers(column: ColumnSpec, values: NDArray[Any], there: pa.Buffer | None) -> pa.Array:
    """One column of numbers or flags; what is of its stored type already is not copied."""
    import pyarrow as pa

    if column.kind == "bool":
        data = _bits(values.astype(bool))
    else:
        data = pa.py_buffer(np.ascontiguousarray(values, dtype=np.int64 if column.kind == "int" else np.float64))
    return pa.Array.from_buffers(arrow_type(column.kind), len(values), [there, data])


def _bits(flags: NDArray[np.bool_]) -> pa.Buffer:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def _text(values: Sequence[str], there: pa.Buffer | None) -> pa.Array:
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    buffers = [there, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def _labels(values: Sequence[str], there: pa.Buffer | None) -> pa.Array:
    import pyarrow as pa

    numbers: dict[str, int] = {}
    indices = np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int32)
    index = pa.Array.from_buffers(pa.int32(), len(values), [there, pa.py_buffer(indices)])
    return pa.DictionaryArray.from_arrays(index, _text(list(numbers), None))


def _wrong_type(table: str, column: ColumnSpec, value: object) -> InvariantError:
    return InvariantError(
        f"[IO-4] rows have the types of their class violated: {table}.{column.name} is {column.kind}, got {value!r}"
    )


def is_program_column(name: str) -> bool:
    """Whether a column describes the run of the program rather than the simulation [IO-2]."""
    return name.startswith(PROGRAM_PREFIXES)
