"""Tables on disk: what is written is what is read, in stored order, whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.errors import ConfigError, InvariantError
from podcluster.io import results, tables
from podcluster.io.load import load_results
from podcluster.io.results import PART, RESULTS, TABLES_OF_A_CELL, ParquetSink, compact
from podcluster.records.samples import SampleBlock
from podcluster.records.tables import BLOCKS, TABLES
from tests.io import rows
from tests.io.rows import write_cell


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_column_has_a_unit_and_a_doc_in_the_file(table: str, tmp_path: Path) -> None:
    """Read the file's schema, not the classes: what a stranger with pyarrow sees."""
    write_cell(tmp_path / "c0", axes={"overcommit": 1.5})
    compact(tmp_path, [tmp_path / "c0"], {tmp_path / "c0": [rows.plain("pairs")]})
    schema = pq.read_schema(tmp_path / RESULTS / table / PART)
    for field in schema:
        metadata = field.metadata or {}
        assert metadata.get(b"unit", b"").strip(), f"{table}.{field.name} has no unit"
        assert metadata.get(b"doc", b"").strip(), f"{table}.{field.name} has no doc"
    provenance = json.loads(schema.metadata[tables.PROVENANCE_KEY])
    assert provenance["seed"] == 7
    assert provenance["table"] == table
    assert provenance["cells"] == {"c0": {"overcommit": 1.5}}


def test_a_blank_unit_is_our_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row class with a column that says nothing cannot become a schema."""
    from dataclasses import dataclass

    from podcluster.records.tables import TableSpec
    from podcluster.records.values import column

    @dataclass(frozen=True, slots=True)
    class Blank:
        """A row with a column nobody described."""

        pages: int = column("pages", " ")

    Blank.__annotations__["pages"] = int
    monkeypatch.setattr(tables, "TABLES", {**TABLES, "blank": TableSpec(Blank, (), True, "none")})
    with pytest.raises(InvariantError, match=r"blank\.pages"):
        tables.row_columns("blank")


def test_the_fixed_columns_of_domains_are_there_under_their_names() -> None:
    """Scripts rely on these; changing one is a decision, not an accident."""
    fixed = (
        "domain_id attempt host_id os_class vcpus maxmem_pages memory_pages boot_start_ns boot_done_ns end_ns fate "
        "cause tot_pages entry_count cache_count nonzero_pages_peak populated_4k populated_2m reclaimed_4k "
        "reclaimed_2m splintered_2m sweeps swap_ns oom_kills"
    ).split()
    assert set(fixed) <= {column.name for column in tables.row_columns("domains")}


def test_load_gives_typed_frames_with_units_docs_and_provenance(tmp_path: Path) -> None:
    """Counts stay integers though some are missing, labels are categories, axes have the type of their values."""
    write_cell(
        tmp_path, axes={"overcommit": 1.5, "controller": "static", "cluster.epoch_s": 10, "guest.dirty_all": True}
    )
    loaded = load_results(tmp_path)
    assert list(loaded) == list(TABLES_OF_A_CELL)
    domains = loaded["domains"]
    assert str(domains["boot_done_ns"].dtype) == "Int64"
    assert domains["boot_done_ns"].tolist() == [5, pd.NA, pd.NA] * 2
    assert str(domains["domain_id"].dtype) == "int64"
    assert isinstance(domains["fate"].dtype, pd.CategoricalDtype)
    for table in TABLES_OF_A_CELL:
        frame = loaded[table]
        assert str(frame["overcommit"].dtype) == "float64"
        assert isinstance(frame["controller"].dtype, pd.CategoricalDtype)
        assert str(frame["cluster.epoch_s"].dtype) == "int64"
        assert str(frame["guest.dirty_all"].dtype) == "bool"
    assert loaded.axes == ("overcommit", "controller", "cluster.epoch_s", "guest.dirty_all")
    assert loaded.units["domains"]["maxmem_pages"] == "pages"
    assert loaded.docs["runs"]["static_ratio_mean"].startswith("Mean over time")
    assert loaded.provenance["seed"] == 7
    assert list(load_results(tmp_path, "runs")) == ["runs"]
    with pytest.raises(ConfigError, match="must hold table domains"):
        load_results(tmp_path, "runs")["domains"]


def test_pairs_are_a_sweeps_table_alone(tmp_path: Path) -> None:
    """Each row carries the cell it is of and its axes, in the widest type; a cell's sink does not take them."""
    for name, ratio in (("c0", 1), ("c1", 1.5)):
        write_cell(tmp_path / name, name, axes={"overcommit": ratio})
    made = {tmp_path / name: [rows.plain("pairs", measure="died", difference=0.25)] for name in ("c0", "c1")}
    compact(tmp_path, list(made), made)
    pairs = load_results(tmp_path)["pairs"]
    assert pairs["cell"].tolist() == ["c0", "c1"] and pairs["overcommit"].tolist() == [1.0, 1.5]
    assert pairs["low"].isna().all() and pairs["difference"].tolist() == [0.25, 0.25]
    assert load_results(tmp_path).provenance["cells"] == {"c0": {"overcommit": 1}, "c1": {"overcommit": 1.5}}
    compact(tmp_path, list(made))
    assert "pairs" not in load_results(tmp_path).tables
    with pytest.raises(InvariantError, match="give them to compact"), ParquetSink(tmp_path, "c") as sink:
        sink.write("pairs", [rows.plain("pairs")])


def test_tables_nobody_wrote_to_are_there_and_empty(tmp_path: Path) -> None:
    """A reader need not ask whether a run had events."""
    write_cell(tmp_path)
    assert load_results(tmp_path)["events"].empty
    assert "text" in load_results(tmp_path)["events"].columns


def test_rows_are_stored_by_replication_and_key_and_equal_keys_as_written(tmp_path: Path) -> None:
    """Written out of order, replications interleaved."""
    with ParquetSink(tmp_path, "c") as sink:
        one, two = sink.replication(1), sink.replication(0)
        one.write("events", [rows.event(5, 1, "b"), rows.event(5, 0, "a")])
        two.write("events", [rows.event(9, 0, "late"), rows.event(5, 3, "z"), rows.event(5, 3, "y")])
        one.write("events", [rows.event(5, 1, "c"), rows.event(0, 9, "first")])
    events = load_results(tmp_path)["events"]
    assert list(zip(events["replication"], events["t_ns"], events["text"], strict=True)) == [
        (0, 5, "z"), (0, 5, "y"), (0, 9, "late"), (1, 0, "first"), (1, 5, "a"), (1, 5, "b"), (1, 5, "c"),
    ]  # fmt: skip


@pytest.mark.parametrize("in_order", [True, False])
def test_many_rows_go_to_disk_as_they_come_and_end_in_the_same_file(
    in_order: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small buffer the sink writes on the way, in large row groups, and ends in stored order."""
    monkeypatch.setattr(results, "BUFFER_ROWS", 10)
    numbers = list(range(257))
    if not in_order:
        numbers.reverse()
    with ParquetSink(tmp_path, "c") as sink:
        writer = sink.replication(0)
        for number in numbers:
            writer.write("samples", SampleBlock.of([rows.sample(number, 0)]))
        assert list(tmp_path.rglob("*.tmp")), "nothing went to disk on the way"
        assert not list(tmp_path.rglob("*.parquet"))
    file = tmp_path / RESULTS / "samples" / PART
    assert load_results(tmp_path)["samples"]["t_ns"].tolist() == list(range(257))
    groups = pq.ParquetFile(file).metadata
    assert min(groups.row_group(i).num_rows for i in range(groups.num_row_groups - 1 or 1)) >= 10
    assert groups.row_group(0).column(0).compression == "LZ4"
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("sizes", [[1, 5, 3, 11, 40, 2], [60, 2]])
@pytest.mark.parametrize("in_order", [True, False])
def test_samples_end_in_stored_order_in_whatever_blocks_they_come(
    sizes: list[int], in_order: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that are joined and blocks that stand for themselves, two replications, in order and not."""
    monkeypatch.setattr(results, "BLOCK_ROWS", 10)
    monkeypatch.setattr(results, "BUFFER_ROWS", 4)
    block = SampleBlock.of(
        [rows.sample(t_ns, host_id, deaths=t_ns + host_id) for t_ns in range(31) for host_id in (0, 1)]
    )
    with ParquetSink(tmp_path, "c", {"overcommit": 1.5, "x.flag": True, "x.kind": "a"}) as sink:
        for replication in (0, 1):
            cuts = np.cumsum(sizes).tolist()
            parts = [block[end - size : end] for size, end in zip(sizes, cuts, strict=True)]
            for part in parts if in_order else reversed(parts):
                sink.replication(replication).write("samples", part)
    stored = pq.read_table(tmp_path / RESULTS / "samples" / PART)
    assert stored.column("t_ns").to_pylist() == 2 * block.column("t_ns").tolist()
    assert stored.column("deaths").to_pylist() == 2 * block.column("deaths").tolist()
    assert stored.column("replication").to_pylist() == 62 * [0] + 62 * [1]
    constants = {(row["cell"], row["overcommit"], row["x.flag"], row["x.kind"]) for row in stored.to_pylist()}
    assert constants == {("c", 1.5, True, "a")}


def test_an_error_on_the_way_leaves_nothing_and_the_old_result_stays(tmp_path: Path) -> None:
    """A run that dies is a folder without results; a rerun that dies keeps the ones there."""
    with pytest.raises(RuntimeError), ParquetSink(tmp_path, "c") as sink:
        sink.replication(0).write("domains", [rows.domain(0)])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    write_cell(tmp_path, deaths=1)
    with pytest.raises(RuntimeError), ParquetSink(tmp_path, "c") as sink:
        raise RuntimeError
    assert load_results(tmp_path)["samples"]["deaths"].tolist() == [0, 1, 0, 1]
    write_cell(tmp_path, deaths=2)
    assert load_results(tmp_path)["samples"]["deaths"].tolist() == [0, 2, 0, 2]
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS]


def test_what_goes_wrong_while_rows_are_written_beside_the_run_is_raised_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the run hears of it at a later write or at its end, and nothing is left."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "BUFFER_ROWS", 10)
    monkeypatch.setattr(results, "_write_part", full)
    for count in (100, 300):  # at the end, and before it
        with pytest.raises(OSError, match="No space left"), ParquetSink(tmp_path / "run", "c") as sink:
            for number in range(count):
                sink.replication(0).write("samples", SampleBlock.of([rows.sample(number, 0)]))
        assert not list(tmp_path.rglob("*.parquet"))
        assert not list(tmp_path.rglob("*.tmp"))


def test_rows_of_another_table_are_our_mistake(tmp_path: Path) -> None:
    """The wrong class, the wrong sink, the wrong type of value."""
    with pytest.raises(InvariantError, match="HostRow, got DomainRow"), ParquetSink(tmp_path, "c") as sink:
        sink.replication(0).write("hosts", [rows.domain(0)])
    with pytest.raises(InvariantError, match="SampleBlock, got list"), ParquetSink(tmp_path, "c") as sink:
        sink.replication(0).write("samples", [rows.sample(0, 0)])
    with pytest.raises(InvariantError, match="belong to a replication"), ParquetSink(tmp_path, "c") as sink:
        sink.write("domains", [rows.domain(0)])
    with pytest.raises(InvariantError, match="no replications"), ParquetSink(tmp_path, "c") as sink:
        sink.replication(0).write("cells", [rows.plain("cells")])
    with pytest.raises(InvariantError, match="types of their class"), ParquetSink(tmp_path, "c") as sink:
        sink.replication(0).write("domains", [rows.domain(0, vcpus="four")])


def test_an_axis_may_not_hide_a_column(tmp_path: Path) -> None:
    """A column is the table's or the sweep's, never both."""
    with pytest.raises(ConfigError, match="must not name a column"):
        ParquetSink(tmp_path, "c", {"host_id": 3})


def test_a_sweep_becomes_one_dataset_with_widened_axes(tmp_path: Path) -> None:
    """Three cells, in the order given; 1 beside 1.5 is a float column, auto beside 16 is text."""
    cells = [
        write_cell(tmp_path / "a", "a", {"overcommit": 2, "cluster.hosts": "auto"}),
        write_cell(tmp_path / "b", "b", {"overcommit": 1.5, "cluster.hosts": 16}),
        write_cell(tmp_path / "c", "c", {"overcommit": 1, "cluster.hosts": "auto"}),
    ]
    assert compact(tmp_path, cells) == tmp_path / RESULTS
    loaded = load_results(tmp_path)
    assert loaded["cells"]["cell"].tolist() == ["a", "b", "c"]
    assert loaded["runs"]["overcommit"].tolist() == [2.0, 2.0, 1.5, 1.5, 1.0, 1.0]
    assert str(loaded["runs"]["overcommit"].dtype) == "float64"
    assert loaded["cells"]["cluster.hosts"].tolist() == ["auto", "16", "auto"]
    assert loaded["domains"]["domain_id"].tolist() == [0, 1, 2] * 6
    assert set(loaded.provenance["cells"]) == {"a", "b", "c"}
    assert loaded.units["domains"]["maxmem_pages"] == "pages"
    assert [path.name for path in (tmp_path / RESULTS / "domains").iterdir()] == [PART]
    # The parts stay, so that a larger sweep into the same folder can be made whole again.
    assert len(load_results(tmp_path / "b")["runs"]) == 2
    compact(tmp_path, cells[:1])
    assert load_results(tmp_path)["cells"]["cell"].tolist() == ["a"]


def test_compaction_refuses_a_cell_that_is_not_whole(tmp_path: Path) -> None:
    """A truncated part or a missing one: a line that names it, and the dataset there before stays."""
    cells = [write_cell(tmp_path / name, name) for name in ("a", "b")]
    compact(tmp_path, cells)
    file = tmp_path / "b" / RESULTS / "domains" / PART
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="rerun the sweep"):
        compact(tmp_path, cells)
    file.unlink()
    with pytest.raises(ConfigError, match=r"domains/part-0\.parquet: must be there"):
        compact(tmp_path, cells)
    assert load_results(tmp_path)["cells"]["cell"].tolist() == ["a", "b"]
    assert not list(tmp_path.glob(".results*"))


def test_writing_does_not_import_pandas(tmp_path: Path) -> None:
    """A run of one guest must start fast: a process of its own writes a result and names what it imported."""
    code = (
        "import sys; from pathlib import Path; from tests.io.rows import write_cell; "
        "loaded = 'pandas' in sys.modules; write_cell(Path(sys.argv[1]), axes={'overcommit': 1.5}); "
        "print(loaded, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout.split() == ["False", "False"]
    assert len(load_results(tmp_path)["runs"]) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: root.rename(root.parent / "elsewhere"), "no such folder"),
        (lambda root: (root / RESULTS).rename(root / "other"), "got none in it"),
        (lambda root: _truncate(root / RESULTS / "runs" / PART), "must be a whole Parquet file"),
        (lambda root: _foreign(root / RESULTS / "runs" / PART), "that podcluster wrote"),
        (lambda root: _empty(root / RESULTS / "runs"), "must hold table runs"),
    ],
)
def test_what_is_not_a_result_is_one_line(spoil: Any, message: str, tmp_path: Path) -> None:
    """Each names the place, the rule, what was found and a remedy."""
    folder = write_cell(tmp_path / "run")
    spoil(folder)
    with pytest.raises(ConfigError, match=message) as caught:
        load_results(folder)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def _foreign(file: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), file)


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "int": INT64,
    "float": st.floats(allow_nan=False),
    "str": TEXT,
    "label": st.sampled_from(["linux", "windows", ""]),
    "bool": st.booleans(),
}


@settings(max_examples=30)
@given(data=st.data(), table=st.sampled_from(sorted(set(TABLES_OF_A_CELL) - {"cells"})))
def test_any_row_comes_back_as_it_was(
    data: st.DataObject, table: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Drawn rows of every table, nulls and extremes included, through the file and back, column by column."""
    drawn = {
        column.name: st.none() | VALUES[column.kind] if column.nullable else VALUES[column.kind]
        for column in tables.row_columns(table)
    }
    made = [rows.plain(table, **data.draw(st.fixed_dictionaries(drawn))) for _ in range(data.draw(st.integers(0, 5)))]
    folder = tmp_path_factory.mktemp("any")
    with ParquetSink(folder, "c") as sink:
        sink.replication(0).write(table, BLOCKS[table].of(made) if table in BLOCKS else made)
    stored = pq.read_table(folder / RESULTS / table / PART).to_pylist()
    made.sort(key=lambda row: tuple(getattr(row, name) for name in TABLES[table].key))
    assert [{c.name: row[c.name] for c in tables.row_columns(table)} for row in stored] == [
        {c.name: getattr(row, c.name) for c in tables.row_columns(table)} for row in made
    ]
