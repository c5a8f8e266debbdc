"""The Parquet forms of traces that say when machines come and go: each rule on a small folder, then the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podcluster.errors import ConfigError
from podcluster.io.traces import alibaba_pods, azure_v1
from podcluster.records.machines import LifeTable

AZURE: dict[str, Sequence[Any]] = {
    "vm_id": [4, 5, 6],
    "batch_id": [1, 0, 0],
    "vcpus": [1, 2, 2],
    "maxmem_kib": [786_432, 1_835_008, 1_835_008],
    "start_s": [9300, 9000, 9000],
    "dur_lo_s": [0, 600, 3900],
    "dur_hi_s": [0, 600, 7200],
    "censored": [False, False, True],
}
PODS: dict[str, Sequence[Any]] = {
    "vm_id": [7, 8, 9],
    "vcpus": [1, 2, 3],
    "maxmem_kib": [1000, 2000, 3000],
    "start_s": [50, 20, 30],
    "end_s": [100, 25, 60],
}


def write(folder: Path, name: str, columns: Mapping[str, Sequence[Any]]) -> Path:
    """A trace of one file."""
    pq.write_table(pa.table(dict(columns)), folder / name)
    return folder


def test_azure_comes_out_in_order_of_arrival(tmp_path: Path) -> None:
    """[AZ-1] [AZ-2] [AZ-3]: sorted, times from the first arrival, half a reading to either side of a life."""
    table = azure_v1.read(write(tmp_path, "vms_dev.parquet", AZURE))
    assert table.machine_id.tolist() == [5, 6, 4]
    assert table.batch.tolist() == [0, 0, 1]
    assert table.arrival_s.tolist() == [0, 0, 300]
    assert table.least_life_s.tolist() == [450, 3750, 0]
    assert table.most_life_s.tolist() == [750, 7350, 150]
    assert table.leaves.tolist() == [True, False, True]
    assert (table.epoch_s, table.end_s) == (9000, 9600)


def test_pods_come_out_in_order_of_arrival(tmp_path: Path) -> None:
    """[PD-1]: a pod that ends with the trace stays; the others' lives are known to the second."""
    table = alibaba_pods.read(write(tmp_path, "vms.parquet", PODS))
    assert table.machine_id.tolist() == [8, 9, 7]
    assert table.arrival_s.tolist() == [0, 10, 30]
    assert table.least_life_s.tolist() == table.most_life_s.tolist() == [5, 30, 50]
    assert table.leaves.tolist() == [True, True, False]


Spoil = tuple[Callable[[Path], LifeTable], str, dict[str, Sequence[Any]], str]
MISTAKES: dict[str, Spoil] = {
    "azure without a file": (azure_v1.read, "other.parquet", AZURE, r"with one vms\*.parquet .* with 0: "),
    "azure without a column": (
        azure_v1.read,
        "vms.parquet",
        {name: values for name, values in AZURE.items() if name != "censored"},
        "must have columns .*, lacks censored ",
    ),
    "azure with a text": (
        azure_v1.read,
        "vms.parquet",
        {**AZURE, "start_s": ["a", "b", "c"]},
        "start_s must be an int",
    ),
    "azure with a negative": (
        azure_v1.read,
        "vms.parquet",
        {**AZURE, "maxmem_kib": [1, -1, 1]},
        "maxmem_kib must be >",
    ),
    "azure without machines": (azure_v1.read, "vms.parquet", {k: v[:0] for k, v in AZURE.items()}, "column|must hold"),
    "azure with bounds crossed": (
        azure_v1.read,
        "vms.parquet",
        {**AZURE, "dur_lo_s": [9, 9, 9]},
        "dur_lo_s must be <=",
    ),
    "azure with a torn batch": (
        azure_v1.read,
        "vms.parquet",
        {**AZURE, "batch_id": [0, 0, 0]},
        "machines of one batch_id must have one start_s, got batch 0 with two",
    ),
    "azure with a machine twice": (
        azure_v1.read,
        "vms.parquet",
        {**AZURE, "vm_id": [4, 5, 4]},
        "vms.parquet: column vm_id must have each value once, got 4 again in row 2: ",
    ),
    "pods of one id": (alibaba_pods.read, "vms.parquet", {**PODS, "vm_id": [7, 7, 7]}, "vm_id .* got 7 again in row 1"),
    "pods without a file": (alibaba_pods.read, "pods.parquet", PODS, "must be a folder with vms.parquet"),
    "pods that end too soon": (alibaba_pods.read, "vms.parquet", {**PODS, "end_s": [1, 2, 3]}, "start_s must be <="),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_one_line(mistake: str, tmp_path: Path) -> None:
    """Each mistake names the file or the key, the rule, the value and a remedy."""
    read, name, columns, answer = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=answer) as caught:
        read(write(tmp_path, name, columns))
    assert "\n" not in str(caught.value) and ": " in str(caught.value)


def test_the_real_traces(shared_dir: Path) -> None:
    """Azure V1: 259,159 machines in 53,109 requests, 14,317 of which do not leave; openb: 4,076 pods."""
    azure = azure_v1.read(shared_dir / "traces" / "azure_v1_arrivals")
    assert len(azure.machine_id) == 259_159
    assert len(set(azure.batch.tolist())) == 53_109
    assert int((~azure.leaves).sum()) == 14_317
    assert int(azure.maxmem_kib.min()) == 768 * 1024
    pods = alibaba_pods.read(shared_dir / "traces" / "alibaba_openb_pods")
    assert len(pods.machine_id) == 4_076
