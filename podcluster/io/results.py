"""Results onto disk: the sink of one cell, and the compaction of a sweep into one dataset.

What        `<dir>/results/<table>/part-0.parquet` for each table of records.tables.TABLES, written into a folder aside
            that is renamed when all of it is there: a folder named `results` is whole. Tables that relate cells to each
            other are there only in a sweep's dataset.
Threads     Rows are turned into columns by one thread beside the run, MOST_TURNING parts of each table at most behind
            that take memory, and columns encoded and written by another, MOST_WRITING row groups at most behind that;
            what goes wrong there is raised at a later write, or at the end.
Invariants  [IO-2] stored rows are sorted by replication and the table's key, rows of equal key in the order they were
            written; [IO-5] nothing that a reader would take for a table (a name ending in .parquet in a folder
            `results`) is ever partly written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from podcluster.config import AxisValue
from podcluster.errors import ConfigError, InvariantError
from podcluster.io import tables
from podcluster.records.samples import RowBlock
from podcluster.records.summaries import PairRow
from podcluster.records.tables import BLOCKS, TABLES, Row, Sink
from podcluster.records.values import Int64Array

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS: Final = "results"
PART: Final = "part-0.parquet"
TABLES_OF_A_CELL: Final = tuple(table for table, spec in TABLES.items() if not spec.of_sweep)
BUFFER_ROWS: Final = 10_000
PIECE_ROWS: Final = 1 << 18  # samples of a row group: few enough to stay near a core from their making to the file
MOST_TURNING: Final = 3  # parts of a table that wait to be columns
MOST_WRITING: Final = 3  # row groups of a table that wait to be written
BLOCK_ROWS: Final = 1_000  # samples that are worth columns of their own rather than a copy
READ_ROWS: Final = 100_000
ALL: Final = slice(None)
ENDS: Final = [0, -1]


class ParquetSink:
    """Where one cell's rows go; a context manager that leaves `<folder>/results` whole, or nothing.

    `replication(k)` gives the sink of one replication (a records.tables.Sink); `write` itself takes the `cells` table.
    Leaving the context by an exception discards everything written, and the folders made for it.
    """

    def __init__(
        self,
        folder: Path,
        cell: str,
        axes: Mapping[str, AxisValue] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = folder
        self._cell = cell
        self._axes = dict(axes or {})
        self._provenance = {**(provenance or {}), "cells": {cell: self._axes}}
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        self._aside = _aside(folder)
        self._threads = _Threads(ThreadPoolExecutor(1, "columns"), ThreadPoolExecutor(1, "parquet"))
        self._writers = {
            table: _TableWriter(self._aside / table, table, cell, self._axes, self._provenance, self._threads)
            for table in TABLES_OF_A_CELL
        }

    def replication(self, number: int) -> Sink:
        """The sink of one replication, numbered from 0."""
        return _ReplicationSink(self._writers, number)

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Take rows of a table that has no replications."""
        if table not in self._writers:
            raise InvariantError(f"[IO-0] rows of {table} are a sweep's: give them to compact")
        if TABLES[table].per_replication:
            raise InvariantError(f"[IO-0] rows of {table} belong to a replication: write through replication(k)")
        self._writers[table].write(rows, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for writer in self._writers.values():
                writer.close(discard=error is not None)
            if error is None:
                _put_in_place(self._aside, self._folder / RESULTS)
        finally:
            for thread in self._threads:
                thread.shutdown()
            shutil.rmtree(self._aside, ignore_errors=True)
            if error is not None:
                # A run that ends before its first row (no such trace, not enough memory) leaves no folder behind.
                with suppress(OSError):
                    for path in self._made:
                        path.rmdir()


class _Threads(NamedTuple):
    """Those of a sink, each of which does one thing after another."""

    turns: Executor  # rows into columns
    writes: Executor


class _ReplicationSink:
    def __init__(self, writers: Mapping[str, _TableWriter], number: int) -> None:
        self._writers = writers
        self._number = number

    def write(self, table: str, rows: Sequence[Row]) -> None:
        if not TABLES[table].per_replication:
            raise InvariantError(f"[IO-0] table {table} has no replications: write to the cell's sink itself")
        self._writers[table].write(rows, self._number)


class _TableWriter:
    """One table of one cell: writes row groups of BUFFER_ROWS or more, and sorts once at the end if need be."""

    def __init__(
        self,
        folder: Path,
        table: str,
        cell: str,
        axes: Mapping[str, AxisValue],
        provenance: Mapping[str, Any],
        threads: _Threads,
    ) -> None:
        self._folder = folder
        self._table = table
        self._cell = cell
        self._axes = axes
        self._schema = tables.schema(table, axes, provenance)
        self._row = tables.table_spec_row(table)
        self._buffer: list[Row] = []
        self._blocks: list[RowBlock] = []  # in its place, of samples
        self._buffered = 0
        self._replication: int | None = None
        self._parts: list[pa.Table] = []
        self._part_rows = 0
        self._last_key: Int64Array | None = None
        self._in_order = True  # so far
        self._file: Any = None
        self._threads = threads
        self._turning: list[Future[None]] = []  # in order
        self._writing: list[Future[None]] = []  # likewise

    @property
    def _partial(self) -> Path:
        return self._folder / ".unsorted.tmp"

    def write(self, rows: Sequence[Row], replication: int | None) -> None:
        if replication != self._replication:
            self._convert()
            self._replication = replication
        block = BLOCKS.get(self._table)
        if block is not None:
            if not isinstance(rows, block):
                raise InvariantError(f"[IO-4] {self._table} come as a {block.__name__}, got {type(rows).__name__}")
            self._blocks.append(rows)
        else:
            for row in rows:
                if type(row) is not self._row:
                    raise InvariantError(
                        f"[IO-4] rows of {self._table} are {self._row.__name__}, got {type(row).__name__}"
                    )
            self._buffer.extend(rows)
        self._buffered += len(rows)
        if self._buffered >= (BLOCK_ROWS if self._blocks else BUFFER_ROWS):
            self._convert()

    def close(self, discard: bool) -> None:
        """Finish the file under its real name, in stored order; the folder that holds it is still aside."""
        if discard:
            wait(self._turning)
            wait(self._writing)
            if self._file is not None:
                self._file.close()
            return
        self._convert()
        _finish(self._turning, 0)
        if self._file is None:
            # All of it is in memory still: the common case, written once.
            parts = self._parts or [tables.to_arrow(self._table, [], self._cell, 0, self._axes, self._schema)]
            write_table(self._ordered(_chain(parts)), self._folder / PART)
            return
        self._flush()
        _finish(self._writing, 0)
        self._file.close()
        if self._in_order:
            os.replace(self._partial, self._folder / PART)
            return
        write_table(self._ordered(read_file(self._partial, self._schema)), self._folder / PART)
        self._partial.unlink()

    def _ordered(self, whole: pa.Table) -> pa.Table:
        """All rows in stored order."""
        if self._in_order:
            return whole
        whole = whole.combine_chunks()
        return _take(whole, _stored_order(_keys(self._table, whole)))

    def _convert(self) -> None:
        """Have the buffered rows of one replication turned into columns, which take a tenth of the memory."""
        if not self._buffered:
            return
        if self._buffer or any(block.is_made for block in self._blocks):
            _finish(self._turning, MOST_TURNING - 1)
        self._turning.append(self._threads.turns.submit(self._turn, self._blocks or self._buffer, self._replication))
        self._buffer, self._blocks, self._buffered = [], [], 0

    # What follows is the threads' until they are done: nobody else looks at the parts and the file meanwhile.

    def _turn(self, rows: Sequence[Any], replication: int | None) -> None:
        for piece in self._in_pieces(rows):
            part = tables.to_arrow(self._table, piece, self._cell, replication, self._axes, self._schema)
            known = isinstance(piece, RowBlock) and piece.in_order
            keys = _keys(self._table, part, ENDS if known else ALL)
            follows = keys if self._last_key is None else np.concatenate((self._last_key, keys), axis=1)
            self._in_order = self._in_order and _ascends(follows)
            self._last_key = keys[:, -1:]
            self._parts.append(part)
            self._part_rows += part.num_rows
            # Small results stay in memory and are written once; large ones go to disk as they come.
            if self._part_rows >= 10 * BUFFER_ROWS:
                self._flush()

    @staticmethod
    def _in_pieces(rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
        """These rows; samples so many at a time as a core has at hand while it turns them."""
        if not isinstance(rows[0], RowBlock):
            return (rows,)
        return (rows[0] if len(rows) == 1 else type(rows[0]).join(rows)).pieces(PIECE_ROWS)

    def _flush(self) -> None:
        import pyarrow.parquet as pq

        if not self._parts:
            return
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = pq.ParquetWriter(self._partial, self._schema, **_write_options(self._schema))
        _finish(self._writing, MOST_WRITING - 1)
        self._writing.append(self._threads.writes.submit(_write_part, self._file, self._parts))
        self._parts, self._part_rows = [], 0


def _write_part(file: Any, parts: Sequence[pa.Table]) -> None:
    file.write_table(_chain(parts))


def _finish(doing: list[Future[None]], left: int) -> None:
    """Wait until no more than so many are left, the first first."""
    while len(doing) > left:
        doing.pop(0).result()


def write_table(table: pa.Table, file: Path) -> None:
    """Write one Parquet file under a temporary name, then rename it [IO-5]."""
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.tmp")
    pq.write_table(table, partial, **_write_options(table.schema))
    os.replace(partial, file)


def read_file(file: Path, schema: pa.Schema) -> pa.Table:
    """One of our own files, in the types of the schema (ParquetFile: the dataset reader would import pandas)."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, read_dictionary=_labels(schema)) as parquet:
        return parquet.read().cast(schema)


def compact(folder: Path, cells: Sequence[Path], pairs: Mapping[Path, Sequence[PairRow]] | None = None) -> Path:
    """Make one dataset `<folder>/results` of the finished cells' folders, in the order given; returns it.

    The cells' own results stay: a later, larger sweep into the same folder compacts them again. Axis columns that have
    other types in other cells (1 here, 1.5 there) get the wider one. `pairs`, by the folders of cells, becomes the
    table of that name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not cells:
        raise InvariantError(f"[IO-6] a sweep has at least one cell, got none for {folder}")
    aside = _aside(folder)
    try:
        for table in TABLES_OF_A_CELL:
            files = [cell / RESULTS / table / PART for cell in cells]
            missing = [file for file in files if not file.is_file()]
            if missing:
                raise ConfigError(f"{missing[0]}: must be there to make one dataset of the sweep: rerun the sweep")
            target = _common_schema(table, [pq.read_schema(file) for file in files])
            partial = aside / table / f".{PART}.tmp"
            partial.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(partial, target, **_write_options(target)) as writer:
                for part in _whole_groups(files, target):
                    writer.write_table(part)
            os.replace(partial, aside / table / PART)
        if pairs:
            write_table(_paired(pairs), aside / "pairs" / PART)
        _put_in_place(aside, folder / RESULTS)
    except pa.ArrowException as error:
        raise ConfigError(
            f"{folder}: results of its cells must be whole, got a file that cannot be read "
            f"({str(error).splitlines()[0]}): remove that cell's folder and rerun the sweep"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder / RESULTS


def _paired(pairs: Mapping[Path, Sequence[PairRow]]) -> pa.Table:
    """The `pairs` table; name, axes and provenance of each cell are those that its own results carry."""
    import pyarrow.parquet as pq

    parts = []
    for folder, rows in pairs.items():
        provenance = tables.load_provenance(pq.read_schema(folder / RESULTS / "cells" / PART)) or {}
        ((cell, axes),) = provenance["cells"].items()
        schema = tables.schema("pairs", axes, provenance)
        parts.append(tables.to_arrow("pairs", rows, cell, None, axes, schema))
    target = _common_schema("pairs", [part.schema for part in parts])
    return _chain([_cast(part, target) for part in parts])


def _whole_groups(files: Sequence[Path], schema: pa.Schema) -> Any:
    """The files' rows in order, in pieces of at least BUFFER_ROWS but for the last."""
    import pyarrow.parquet as pq

    held: list[pa.Table] = []
    rows = 0
    for file in files:
        with pq.ParquetFile(file, read_dictionary=_labels(schema)) as parquet:
            for batch in parquet.iter_batches(batch_size=READ_ROWS):
                part = _cast(_table_of(batch), schema)
                held.append(part)
                rows += part.num_rows
                if rows >= BUFFER_ROWS:
                    yield _chain(held)
                    held, rows = [], 0
    if held:
        yield _chain(held)


def _table_of(batch: pa.RecordBatch) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _common_schema(table: str, schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One schema for all cells: axes in the widest type any cell has, the union of the cells in the provenance."""
    import pyarrow as pa

    first = schemas[0]
    names = first.names
    for other in schemas[1:]:
        if other.names != names:
            raise ConfigError(
                f"{table}: cells of one sweep must have the same columns, got {sorted(set(other.names) ^ set(names))} "
                "in only some: rerun the sweep into a new folder"
            )
    fields = [first.field(name).with_type(_widest([s.field(name).type for s in schemas])) for name in names]
    provenance = [tables.load_provenance(schema) or {} for schema in schemas]
    merged = {**provenance[0], "cells": {}}
    for one in provenance:
        merged["cells"].update(one.get("cells", {}))
    merged.pop("table", None)
    merged.pop("table_doc", None)
    return pa.schema(fields, metadata={tables.PROVENANCE_KEY: tables.dump_provenance(table, merged)})


def _widest(types: Sequence[pa.DataType]) -> pa.DataType:
    import pyarrow as pa

    if all(kind == types[0] for kind in types):
        return types[0]
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types):
        return pa.float64()
    return tables.arrow_type("label")  # auto here, 16 there: text


def _cast(part: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = []
    for field in schema:
        column = part.column(field.name)
        if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _chain(parts: Sequence[pa.Table]) -> pa.Table:
    """The parts one after another, in the memory where they are."""
    import pyarrow as pa

    return pa.concat_tables(parts).unify_dictionaries()


def _keys(table: str, part: pa.Table, rows: slice | list[int] = ALL) -> Int64Array:
    """What these rows of a table in one piece are stored by, int64[key column, row]."""
    names = tables.sort_key(table)
    # From the buffers: to_numpy would import pandas.
    columns = [
        np.frombuffer(part.column(name).chunk(0).buffers()[1], dtype=np.int64, count=part.num_rows)[rows]
        for name in names
    ]
    return np.array(columns, dtype=np.int64).reshape(len(names), len(columns[0]) if columns else part.num_rows)


def _ascends(keys: Int64Array) -> bool:
    """Whether no row has a smaller key than the one before it."""
    falls = np.zeros(keys.shape[1] - 1, dtype=bool)
    for column in keys[::-1]:
        falls = (column[1:] < column[:-1]) | ((column[1:] == column[:-1]) & falls)
    return not falls.any()


def _stored_order(keys: Int64Array) -> Int64Array:
    """The written rows in stored order: by key, then as written."""
    # lexsort is stable and takes the last key as the first.
    order: Int64Array = np.lexsort(keys[::-1]).astype(np.int64)
    return order


def _take(whole: pa.Table, order: Int64Array) -> pa.Table:
    import pyarrow as pa

    return whole.take(pa.Array.from_buffers(pa.int64(), len(order), [None, pa.py_buffer(order)]))


def _labels(schema: pa.Schema) -> list[str]:
    import pyarrow as pa

    return [field.name for field in schema if pa.types.is_dictionary(field.type)]


def _write_options(schema: pa.Schema) -> dict[str, Any]:
    """zstd-3; dictionaries for labels only, since counters rarely repeat.

    The bytes of samples are stored by their place in the number: of counters that move little most bytes stay as they
    are, which is written twice as fast and takes less room. Of what is left zstd takes a fifth more off than lz4, in
    half as long again; and nobody skips row groups by any columns but replication and time, which most of them have
    one or a few of.
    """
    import pyarrow as pa

    table: str = (tables.load_provenance(schema) or {}).get("table", "")
    samples = table in BLOCKS
    numbers = [field.name for field in schema if pa.types.is_int64(field.type) or pa.types.is_float64(field.type)]
    return {
        "compression": "lz4" if samples else "zstd",
        "compression_level": None if samples else 3,
        "write_batch_size": 1 << 17,
        "use_dictionary": _labels(schema),
        "column_encoding": dict.fromkeys(numbers, "BYTE_STREAM_SPLIT") if samples else None,
        "write_statistics": ["replication", "t_ns"] if samples else True,
        "store_schema": True,
    }


def _aside(folder: Path) -> Path:
    """A new folder beside `<folder>/results` to write into; its name says that it is not a result."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{RESULTS}.{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    return aside


def _put_in_place(aside: Path, final: Path) -> None:
    """Rename a whole folder to its name, replacing an older one; a reader finds either, or for a moment none."""
    old = aside.with_name(f".{RESULTS}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)
    os.rename(aside, final)
    shutil.rmtree(old, ignore_errors=True)
