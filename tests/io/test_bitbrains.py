"""The Parquet form of GWA-T-12: each rule on a small folder, then the real one; every mistake is one line."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podcluster.config import Config
from podcluster.errors import ConfigError
from podcluster.io.traces import read_machines
from podcluster.io.traces.bitbrains import read


def write(folder: Path, vms: Mapping[str, Sequence[Any]], usage: Mapping[str, Sequence[Any]], month: str = "m") -> Path:
    """A trace of one month."""
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(dict(vms)), folder / f"vms_{month}.parquet")
    pq.write_table(pa.table(dict(usage)), folder / f"usage_{month}.parquet")
    return folder


VMS: dict[str, Sequence[Any]] = {"vm_id": [3, 7], "maxmem_kib": [1000, 2000], "vcpus": [1, 4], "more": ["x", "y"]}
USAGE: dict[str, Sequence[Any]] = {
    "vm_id": [3, 3, 7],
    "t_s": [5000, 5300, 5010],
    "mem_used_kib": [10, 20, 30],
    "cpu_pct": [0.5, 0.5, 0.5],
}


def test_a_plain_trace(tmp_path: Path) -> None:
    """Ids, sizes and samples as they are, time from the first sample, nothing to note."""
    table = read(write(tmp_path, VMS, USAGE))
    assert table.machine_id.tolist() == [3, 7]
    assert table.maxmem_kib.tolist() == [1000, 2000]
    assert table.vcpus.tolist() == [1, 4]
    assert (table.epoch_s, table.end_s) == (5000, 5300)
    assert table.offsets.tolist() == [0, 2, 3]
    assert table.t_s.tolist() == [0, 300, 10]
    assert table.used_kib.tolist() == [10, 20, 30]
    assert table.notes == ()


def test_use_above_provisioned_is_clamped_and_counted(tmp_path: Path) -> None:
    """[BB-1]: 1001 of 1000 KiB."""
    table = read(write(tmp_path, VMS, {**USAGE, "mem_used_kib": [1001, 1000, 30]}))
    assert table.used_kib.tolist() == [1000, 1000, 30]
    assert table.notes == ("1 sample above the machine's provisioned memory clamped to it",)


def test_samples_in_any_order_and_repeated(tmp_path: Path) -> None:
    """[BB-2] [BB-3]: shuffled rows with a repeated second come out sorted, the largest kept, the rest counted."""
    usage = {"vm_id": [7, 3, 3, 7, 3], "t_s": [20, 300, 0, 10, 300], "mem_used_kib": [5, 9, 1, 4, 2]}
    table = read(write(tmp_path, VMS, usage))
    assert table.t_s.tolist() == [0, 300, 10, 20]
    assert table.used_kib.tolist() == [1, 9, 4, 5]
    assert table.offsets.tolist() == [0, 2, 4]
    assert table.notes == ("1 repeated samples (same machine and second) dropped, the largest kept",)


def test_machines_without_samples_stay_and_samples_without_machines_go(tmp_path: Path) -> None:
    """The first has an empty range, the second are counted."""
    table = read(write(tmp_path, VMS, {"vm_id": [7, 9, 1], "t_s": [1, 2, 3], "mem_used_kib": [1, 1, 1]}))
    assert table.offsets.tolist() == [0, 0, 1]
    assert table.notes == ("2 samples of machines that vms_*.parquet does not list dropped",)


def test_months_become_one_table(tmp_path: Path) -> None:
    """The largest size of any month; samples of a machine follow each other whichever month is read first."""
    write(tmp_path, VMS, USAGE, "2013-9")
    earlier = {"vm_id": [3, 5], "maxmem_kib": [1500, 10], "vcpus": [2, 1]}
    write(tmp_path, earlier, {"vm_id": [3, 5], "t_s": [100, 200], "mem_used_kib": [7, 8]}, "2013-10")
    table = read(tmp_path)
    assert table.machine_id.tolist() == [3, 5, 7]
    assert table.maxmem_kib.tolist() == [1500, 10, 2000]
    assert table.vcpus.tolist() == [2, 1, 4]
    assert table.t_s[:3].tolist() == [0, 4900, 5200]
    assert (np.diff(table.offsets) == [3, 1, 1]).all()


def no_columns(folder: Path) -> None:
    """Another table under our name."""
    pq.write_table(pa.table({"vm_id": [1], "memory_mib": [3]}), folder / "vms_m.parquet")


def empty(folder: Path) -> None:
    """A folder and nothing in it."""
    for file in folder.iterdir():
        file.unlink()


def truncate(folder: Path) -> None:
    """As an interrupted copy leaves it."""
    file = folder / "usage_m.parquet"
    file.write_bytes(file.read_bytes()[:-50])


MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, r"workload\.path must be a folder with vms_.* \(no such folder\)"),
    "empty": (empty, r"got .* with nothing"),
    "half": (lambda d: (d / "usage_m.parquet").unlink(), r"with vms_m\.parquet: point"),
    "unpaired": (lambda d: shutil.copy(d / "vms_m.parquet", d / "vms_n.parquet"), r"\(n lacks one of the two\)"),
    "columns": (
        no_columns,
        r"vms_m\.parquet: must have columns .* lacks maxmem_kib, vcpus \(it has vm_id, memory_mib\)",
    ),
    "truncated": (truncate, r"usage_m\.parquet: must be a whole Parquet file, got \d+ bytes .*: copy it again"),
    "text": (lambda d: write(d, {**VMS, "vm_id": ["a", "b"]}, USAGE), r"column vm_id must be an integer, got string"),
    "null": (lambda d: write(d, VMS, {**USAGE, "t_s": [1, None, 2]}), r"column t_s must be complete, got 1 missing"),
    "negative": (
        lambda d: write(d, VMS, {**USAGE, "mem_used_kib": [1, 2, -5]}),
        r"column mem_used_kib must be >= 0, got -5 in row 2",
    ),
    "strangers": (lambda d: write(d, VMS, {**USAGE, "vm_id": [1, 1, 1]}), r"samples of the machines .* got none"),
}


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_mistakes_are_one_line_with_a_remedy(name: str, tmp_path: Path) -> None:
    """Each names the folder or file, the rule, the value, and what to do."""
    folder = write(tmp_path / "trace", VMS, USAGE)
    spoil, message = MISTAKES[name]
    spoil(folder)
    with pytest.raises(ConfigError, match=message) as caught:
        read(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    assert text.count(": ") >= 1


def test_only_trace_families_read(make_config: Callable[..., Config]) -> None:
    """The others need no data."""
    assert read_machines(make_config("workload=synthetic").workload) is None


def test_the_real_trace(shared_dir: Path) -> None:
    """250 machines, 2.16 million samples, seven above provisioned (as a plain count of the file says), read quickly."""
    folder = shared_dir / "traces" / "bitbrains_rnd"
    read(folder)
    begin = time.perf_counter()
    table = read(folder)
    taken_s = time.perf_counter() - begin
    assert len(table.machine_id) == 250
    assert len(table.t_s) == 2_158_086
    assert table.notes == ("7 samples above the machine's provisioned memory clamped to it",)
    steps = np.diff(table.t_s)
    inside = np.ones(len(steps), dtype=bool)
    inside[table.offsets[1:-1] - 1] = False
    assert steps[inside].min() > 0
    assert table.end_s - table.epoch_s == 2_591_725
    # Against a plain loop over the same rows, so that a slow machine does not fail what is not slow.
    begin = time.perf_counter()
    for _ in range(2_000_000):
        pass
    assert taken_s < max(2.0, 40 * (time.perf_counter() - begin))


@pytest.mark.parametrize(
    "other", ["alibaba_openb_pods", "alibaba_genai_pods", "google2011_jobs_pct", "azure_v1_arrivals", "dc_aggregates"]
)
def test_folders_of_other_formats_are_refused(other: str, shared_dir: Path) -> None:
    """Some have vms, some have usage, none has both in this form."""
    with pytest.raises(ConfigError, match=r"workload\.path must be a folder with vms_<month>") as caught:
        read(shared_dir / "traces" / other)
    assert "\n" not in str(caught.value)
