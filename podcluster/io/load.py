"""Results back into memory: the one way notebooks and reports read them.

What        `load_results(DIR)` gives pandas frames, with the units and descriptions that pandas itself would drop.
Units       Of a column: `results.units[table][column]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podcluster.errors import ConfigError
from podcluster.io import tables
from podcluster.io.results import RESULTS
from podcluster.records.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Results:
    """The tables of a run or sweep; `results["runs"]` is a frame whose axis columns are typed.

    Counts that may be missing are pandas' nullable Int64, labels are categories. `axes` names the columns a sweep
    varied; `provenance` holds seed, config, versions, commit, command, and `cells` (the axes of each cell).
    """

    folder: Path
    tables: Mapping[str, pd.DataFrame]
    units: Mapping[str, Mapping[str, str]]
    docs: Mapping[str, Mapping[str, str]]
    axes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, table: str) -> pd.DataFrame:
        if table not in self.tables:
            raise ConfigError(
                f"{self.folder}: must hold table {table}, got {', '.join(self.tables)}: load all tables, or rerun"
            )
        return self.tables[table]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    @property
    def conditional_on(self) -> str:
        """The data that all numbers are conditional on, for figures to say; empty where machines were drawn."""
        runs = self.tables.get("runs")
        if runs is None:
            return ""
        return "; ".join(sorted({str(name) for name in runs["conditional_on"] if name}))


def load_results(folder: Path | str, table: str | None = None) -> Results:
    """Read the results in `folder` (of a run, a sweep, or the `results` folder itself), or only one table of them."""
    root = results_folder(Path(folder))
    if table is not None and table not in TABLES:
        raise ConfigError(f"table must be one of {', '.join(TABLES)}, got {table}: try table='runs'")
    names = [name for name in TABLES if (root / name).is_dir()] if table is None else [table]
    frames: dict[str, pd.DataFrame] = {}
    units: dict[str, dict[str, str]] = {}
    docs: dict[str, dict[str, str]] = {}
    axes: tuple[str, ...] = ()
    provenance: dict[str, Any] = {}
    for name in names:
        stored = read_table(root, name)
        provenance = tables.load_provenance(stored.schema) or {}
        frames[name] = to_frame(stored)
        units[name] = {item.name: _metadata(item, "unit") for item in stored.schema}
        docs[name] = {item.name: _metadata(item, "doc") for item in stored.schema}
        own = {column.name for column in (*tables.key_columns(name), *tables.row_columns(name))}
        axes = tuple(column for column in stored.column_names if column not in own)
    for key in ("table", "table_doc"):
        provenance.pop(key, None)
    return Results(root, frames, units, docs, axes, provenance)


def results_folder(folder: Path) -> Path:
    """Where the tables lie in what a user named, or a ConfigError that says what is wrong with it."""
    if not folder.exists():
        raise ConfigError(f"{folder}: must be a folder of results, got no such folder: give the folder a run printed")
    for candidate in (folder / RESULTS, folder):
        if any((candidate / name).is_dir() and any((candidate / name).glob("*.parquet")) for name in TABLES):
            return candidate
    raise ConfigError(
        f"{folder}: must be a folder of results ({RESULTS}/<table>/*.parquet), got none in it: "
        "give the folder a run printed, or wait until it is done"
    )


def table_files(root: Path, table: str) -> list[Path]:
    """The files of a table in stored order."""
    files = sorted((root / table).glob("*.parquet"))
    if not files:
        raise ConfigError(f"{root}: must hold table {table} ({table}/*.parquet), got none: rerun the run or sweep")
    return files


def read_table(root: Path, table: str) -> pa.Table:
    """One table as stored, or a ConfigError for a file that is truncated or not ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    for file in table_files(root, table):
        try:
            # Not pq.read_table: it would import pandas, a third of a second that `podcluster workload=one` hasn't got.
            with pq.ParquetFile(file) as parquet:
                stored = parquet.read()
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(
                f"{file}: must be a whole Parquet file, got {file.stat().st_size} bytes that cannot be read "
                f"({str(error).splitlines()[0]}): remove its folder and rerun"
            ) from error
        provenance = tables.load_provenance(stored.schema)
        if provenance is None or provenance.get("table") != table:
            raise ConfigError(
                f"{file}: must be a {table} table that podcluster wrote, got another: give a results folder"
            )
        parts.append(stored)
    return pa.concat_tables(parts, promote_options="permissive") if len(parts) > 1 else parts[0]


def read_columns(root: Path, table: str) -> dict[str, NDArray[Any]]:
    """One table by column without pandas: numbers as they are, text and what may be missing as objects."""
    import numpy as np

    stored = read_table(root, table)
    found = {}
    for name in stored.column_names:
        column = stored.column(name)
        plain = column.null_count == 0 and str(column.type) in ("int64", "double", "bool")
        found[name] = column.to_numpy() if plain else np.array(column.to_pylist(), dtype=object)
    return found


def to_frame(stored: pa.Table) -> pd.DataFrame:
    """A frame that keeps integers integers: nullable counts become Int64 rather than floats."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for item in stored.schema:
        column = stored.column(item.name)
        if item.nullable and pa.types.is_integer(item.type):
            missing = column.is_null().to_numpy()
            values = column.fill_null(0).to_numpy().astype(np.int64)
            columns[item.name] = pd.arrays.IntegerArray(values, np.array(missing, dtype=bool))
        else:
            columns[item.name] = column.to_pandas()
    return pd.DataFrame(columns)


def _metadata(item: pa.Field, key: str) -> str:
    metadata: dict[bytes, bytes] = item.metadata or {}
    return metadata.get(key.encode(), b"").decode()
