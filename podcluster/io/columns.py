"""`docs/columns.md`: what every column of every table means, written from the row classes.

Run         `python -m podcluster.io.columns [FILE]` writes FILE (default docs/columns.md).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from podcluster.io import tables
from podcluster.records.fates import CAUSES, EVENT_KINDS, FATES
from podcluster.records.tables import TABLES

HEAD = """# Columns

Generated from `podcluster/records/` by `python -m podcluster.io.columns`; do not edit.

A result is a folder `results/<table>/*.parquet`. Read it with `podcluster.io.load.load_results(DIR)`, which keeps the
units and descriptions below. Pages are 4 KiB; times are nanoseconds of simulated time. Columns named `wall_*` or
`engine_*` describe the run of the program; every other value is a function of configuration and seed. A sweep adds its
axes to every table as typed columns named as their keys. Rows are stored by cell, replication and the table's key.

Seed, resolved configuration, command, versions and commit are in each file's schema metadata
(`load_results(DIR).provenance`).
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for table, spec in TABLES.items():
        key = ", ".join(f"`{name}`" for name in tables.sort_key(table)) or "none beyond its cell"
        parts.append(
            f"\n## {table}\n\n{spec.doc} Key: {key}.\n\n| column | type | unit | meaning |\n| --- | --- | --- | --- |\n"
        )
        for column in (*tables.key_columns(table), *tables.row_columns(table)):
            kind = {"label": "text", "str": "text"}.get(column.kind, column.kind)
            kind += " or null" if column.nullable else ""
            doc = column.doc.replace("|", "\\|")
            parts.append(f"| `{column.name}` | {kind} | {column.unit} | {doc} |\n")
    for title, values in (("Fates", FATES), ("Causes", CAUSES), ("Kinds of events", EVENT_KINDS)):
        parts.append(
            f"\n## {title}\n\n" + ", ".join(f"`{value}`" if value else "none (empty)" for value in values) + ".\n"
        )
    return "".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    target = Path(arguments[0]) if arguments else Path("docs/columns.md")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
