"""docs/columns.md is what the row classes say."""

from __future__ import annotations

from pathlib import Path

from podcluster.io import columns, tables
from podcluster.records.tables import TABLES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "columns.md"


def test_the_page_is_up_to_date() -> None:
    """Stale after a change of a row class: run `python -m podcluster.io.columns`."""
    assert PAGE.read_text(encoding="utf-8") == columns.render()


def test_every_column_is_on_the_page_with_unit_and_meaning() -> None:
    """No blank cell in any row of the page's tables."""
    page = columns.render()
    for table in TABLES:
        for column in (*tables.key_columns(table), *tables.row_columns(table)):
            assert f"| `{column.name}` |" in page
    for line in page.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.replace("\\|", "").strip("|").split("|")]
            assert len(cells) == 4, line
            assert all(cells), line


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    """To the file named."""
    target = tmp_path / "docs" / "columns.md"
    assert columns.main([str(target)]) == 0
    assert target.read_text(encoding="utf-8") == columns.render()
