"""Azure V1 arrivals in their Parquet form: one row a machine, in files `vms*.parquet` of one folder.

What        Reads when machines arrive, with whom, how large they are and how long they live.
Form        vm_id (each once), batch_id (one tenant's request), vcpus, maxmem_kib, start_s, dur_lo_s, dur_hi_s (bounds
            of the lifetime's bin), censored (still running when the trace ends); other columns are not read. Times in
            seconds.
Rules       [AZ-1] arrivals are known to their reading of 300 s, lifetimes to a bin of such readings: a life of k
            readings lasted between k - 1/2 and k + 1/2 of them
            [AZ-2] a machine still running at the end does not leave
            [AZ-3] machines need not be in order of arrival; those of one batch must arrive together
            [BB-4] a negative or missing value is an error that names file and column
Departs     The trace begins with nothing running and knows no machine that was there before: what has run for longer
            than the trace is not in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from podcluster.errors import ConfigError
from podcluster.io.traces.columns import check_ids, read_columns
from podcluster.records.machines import LifeTable

READING_S: Final = 300
COLUMNS: Final = ("vm_id", "batch_id", "vcpus", "maxmem_kib", "start_s", "dur_lo_s", "dur_hi_s", "censored")
REMEDY: Final = "point workload.path at a folder in the Azure V1 Parquet form"


def read(folder: Path) -> LifeTable:
    """Read the folder's one file of machines."""
    found = sorted(folder.glob("vms*.parquet"))
    if len(found) != 1:
        raise ConfigError(
            f"workload.path must be a folder with one vms*.parquet for workload=azure_v1, got {folder} with "
            f"{len(found)}: {REMEDY}"
        )
    columns = read_columns(found[0], COLUMNS, REMEDY)
    check_ids(found[0], "vm_id", columns[0])
    order = np.argsort(columns[4], kind="stable")
    machine_id, batch, vcpus, maxmem_kib, start_s, least_s, most_s, censored = (values[order] for values in columns)
    if not len(machine_id):
        raise ConfigError(f"{found[0]}: must hold machines, got none: {REMEDY}")
    if (least_s > most_s).any():
        row = int(np.argmax(columns[5] > columns[6]))
        raise ConfigError(f"{found[0]}: dur_lo_s must be <= dur_hi_s, got row {row}: correct or drop it")
    _, first, inverse = np.unique(batch, return_index=True, return_inverse=True)
    if (start_s != start_s[first][inverse]).any():
        row = int(np.argmax(start_s != start_s[first][inverse]))
        raise ConfigError(
            f"{found[0]}: machines of one batch_id must have one start_s, got batch {batch[row]} with two: {REMEDY}"
        )
    epoch_s = int(start_s[0])
    return LifeTable(
        source="Azure V1",
        epoch_s=epoch_s,
        end_s=int(start_s[-1]) + READING_S,
        machine_id=machine_id,
        batch=batch,
        vcpus=vcpus,
        maxmem_kib=maxmem_kib,
        arrival_s=start_s - epoch_s,
        least_life_s=np.maximum(least_s - READING_S // 2, 0),
        most_life_s=most_s + READING_S // 2,
        leaves=censored == 0,
    )
