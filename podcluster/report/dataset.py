"""Results as reports need them: rows as dicts and columns as arrays, without pandas (0.4 s to import).

Units       As stored: pages and ns.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from podcluster.io import load, tables

Row = dict[str, Any]


def of_experiment(name: str, root: Path = Path("../..")) -> Path:
    """The folder that PODCLUSTER_RESULTS names, or the newest sweep of this experiment; for notebooks, which run in
    `experiments/<name>`.
    """
    named = os.environ.get("PODCLUSTER_RESULTS")
    if named:
        return Path(named)
    sweeps = sorted((root / "sweeps").glob(f"{name}-*"), key=lambda folder: folder.stat().st_mtime)
    return sweeps[-1] if sweeps else root / "sweeps" / name


def rows(folder: Path, table: str) -> list[Row]:
    """All rows of one table of the results in `folder`."""
    found: list[Row] = load.read_table(load.results_folder(folder), table).to_pylist()
    return found


def columns(folder: Path, table: str) -> dict[str, NDArray[Any]]:
    """One table by column: numbers as they are, text and what may be missing as objects."""
    return load.read_columns(load.results_folder(folder), table)


def provenance(folder: Path) -> Row:
    """Seed, configuration (of the first cell), versions, commit, and the axes of each cell."""
    return tables.load_provenance(load.read_table(load.results_folder(folder), "runs").schema) or {}
