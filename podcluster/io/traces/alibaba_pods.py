"""Alibaba openb pods in their Parquet form: one row a pod, in a file `vms.parquet` of one folder.

What        Reads when pods arrive, how large they are and when they end. A pod stands for a machine of its size.
Form        vm_id (each once), vcpus, maxmem_kib, start_s, end_s (seconds); other columns are not read.
Rules       [PD-1] a pod that ends at the trace's last second does not leave: the trace was cut there
            [PD-2] a pod must not end before it starts
            [BB-4] a negative or missing value is an error that names file and column
Departs     Pods that waited for a machine, or failed, are machines like others. Each arrives alone: the trace names no
            jobs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from podcluster.errors import ConfigError
from podcluster.io.traces.columns import check_ids, read_columns
from podcluster.records.machines import LifeTable

COLUMNS: Final = ("vm_id", "vcpus", "maxmem_kib", "start_s", "end_s")
REMEDY: Final = "point workload.path at a folder in the openb Parquet form"


def read(folder: Path) -> LifeTable:
    """Read the folder's vms.parquet."""
    file = folder / "vms.parquet"
    if not file.is_file():
        raise ConfigError(
            f"workload.path must be a folder with vms.parquet for workload=alibaba_pods, got {folder}: {REMEDY}"
        )
    columns = read_columns(file, COLUMNS, REMEDY)
    check_ids(file, "vm_id", columns[0])
    if not len(columns[0]):
        raise ConfigError(f"{file}: must hold pods, got none: {REMEDY}")
    if (columns[4] < columns[3]).any():
        row = int(np.argmax(columns[4] < columns[3]))
        raise ConfigError(f"{file}: start_s must be <= end_s, got row {row}: correct or drop it")
    order = np.argsort(columns[3], kind="stable")
    machine_id, vcpus, maxmem_kib, start_s, end_s = (values[order] for values in columns)
    epoch_s, last_s = int(start_s[0]), int(end_s.max())
    return LifeTable(
        source="Alibaba openb pods",
        epoch_s=epoch_s,
        end_s=last_s,
        machine_id=machine_id,
        batch=np.arange(len(machine_id), dtype=np.int64),
        vcpus=vcpus,
        maxmem_kib=maxmem_kib,
        arrival_s=start_s - epoch_s,
        least_life_s=end_s - start_s,
        most_life_s=end_s - start_s,
        leaves=end_s < last_s,
    )
