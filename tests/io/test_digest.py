"""The digest: equal for equal numbers however they are stored, different for any other number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podcluster.io.digest import digest, first_difference, main
from podcluster.io.results import PART, RESULTS, ParquetSink
from tests.io import rows


def write(folder: Path, provenance: dict[str, Any] | None = None, **changes: Any) -> Path:
    """One run of three domains; `changes` are laid over the second."""
    run = {name: changes.pop(name) for name in list(changes) if name.startswith(("wall_", "engine_"))}
    with ParquetSink(folder, "c", {"overcommit": 1.5}, provenance) as sink:
        writer = sink.replication(0)
        writer.write("domains", [rows.domain(0), rows.domain(1, **changes), rows.domain(2)])
        writer.write("runs", [rows.run(**run)])
    return folder


def test_program_columns_and_metadata_do_not_count(tmp_path: Path) -> None:
    """Another wall time, engine, commit: the same result."""
    a = digest(write(tmp_path / "a", {"commit": "x"}))
    b = digest(write(tmp_path / "b", {"commit": "y", "wall_start": 3}, wall_s=9.0, engine_kind="ray", engine_actors=2))
    assert a == b
    assert set(a) == {"cells", "runs", "hosts", "domains", "samples", "machine_samples", "events", "all"}
    assert first_difference(tmp_path / "a", tmp_path / "b") is None


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"maxmem_pages": 1}, "column maxmem_pages: 0 | 1"),
        ({"boot_done_ns": 0}, "column boot_done_ns: null | 0"),
        ({"slowdown": -0.0}, "column slowdown: 0.0 | -0.0"),
        ({"cause": "debt"}, "column cause: '' | 'debt'"),
        ({"name": "x"}, "column name: '' | 'x'"),
    ],
)
def test_any_other_value_counts_and_is_named(changes: dict[str, Any], shown: str, tmp_path: Path) -> None:
    """A number, a null that becomes 0, a sign of zero, a label, a text."""
    a, b = write(tmp_path / "a"), write(tmp_path / "b", **changes)
    before, after = digest(a), digest(b)
    assert before["domains"] != after["domains"]
    assert before["all"] != after["all"]
    assert before["runs"] == after["runs"]
    found = first_difference(a, b)
    assert found == f"table domains, row 1 (cell='c', replication=0, domain_id=1, attempt=1), {shown}"


def test_how_it_is_stored_does_not_count(tmp_path: Path) -> None:
    """Two files instead of one, text instead of dictionaries, other row groups."""
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    file = b / RESULTS / "domains" / PART
    table = pq.read_table(file)
    plain = pa.schema(
        [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema],
        metadata=table.schema.metadata,
    )
    pq.write_table(table.cast(plain).slice(0, 2), file, row_group_size=1)
    pq.write_table(table.cast(plain).slice(2), file.with_name("part-1.parquet"), compression="none")
    assert digest(a) == digest(b)
    assert first_difference(a, b) is None


def test_row_order_and_row_count_count(tmp_path: Path) -> None:
    """The stored order is part of a result."""
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    file = b / RESULTS / "domains" / PART
    table = pq.read_table(file)
    pq.write_table(table.take([1, 0, 2]), file)
    assert digest(a)["domains"] != digest(b)["domains"]
    assert first_difference(a, b) == (
        "table domains, row 0 (cell='c', replication=0, attempt=1), column domain_id: 0 | 1"
    )
    pq.write_table(table.slice(0, 2), file)
    assert first_difference(a, b) == "table domains: 3 rows | 2 rows, the first 2 equal"


def test_a_missing_table_and_other_columns_are_named(tmp_path: Path) -> None:
    """Differences of shape come before differences of value."""
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    file = b / RESULTS / "domains" / PART
    pq.write_table(pq.read_table(file).drop_columns(["sweeps"]), file)
    found = first_difference(a, b)
    assert found is not None
    assert found.startswith("table domains: columns ")
    file.unlink()
    file.parent.rmdir()
    assert first_difference(a, b) == f"table domains: only in {a}"


def test_the_command_prints_and_exits_as_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 with digests or no difference, 1 with a difference, 2 with one line for what is not a result."""
    a, b = write(tmp_path / "a"), write(tmp_path / "b", sweeps=3)
    assert main([str(a)]) == 0
    lines = capsys.readouterr().out.splitlines()
    tables = ["cells", "runs", "hosts", "domains", "samples", "machine_samples", "events", "all"]
    assert [line.split("  ")[1] for line in lines] == tables
    assert lines[-1].startswith(digest(a)["all"])
    assert main(["--diff", str(a), str(a)]) == 0
    assert main(["--diff", str(a), str(b)]) == 1
    assert "column sweeps: 0 | 3" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("podcluster: ")
    assert error.count("\n") == 1
    for mistake in ([], [str(a), "--diff", str(a), str(b)], ["--diff", str(a)], ["--dif"]):
        assert main(mistake) == 2
        error = capsys.readouterr().err
        assert error.startswith("podcluster: ") and error.endswith(": podcluster digest --help lists what there is\n")
        assert error.count("\n") == 1
