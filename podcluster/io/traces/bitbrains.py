"""GWA-T-12 (Bitbrains) in its Parquet form: a folder of `vms_<month>.parquet` and `usage_<month>.parquet`.

What        Reads all months of a folder into one MachineTable. A machine's size is the largest recorded in any month.
Form        vms: vm_id, maxmem_kib, vcpus (integers), one row a machine. usage: vm_id, t_s (Unix seconds), mem_used_kib
            (integers), one row a sample; other columns are not read.
Units       KiB, seconds from the first sample of the trace.
Rules       [BB-1] used above provisioned is clamped, and counted
            [BB-2] of several samples of one machine and second the largest is kept, the rest counted
            [BB-3] samples may come in any order and at any distance; gaps stay gaps here (demand is a straight line
            over them)
            [BB-4] a negative or missing value is an error that names file and column
Departs     The source's memory column is very probably VMware's *active* memory: a lower bound of what was held.
            Nothing is corrected for that here; `workload.hold_s` is the knob.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from podcluster.errors import ConfigError
from podcluster.io.traces.columns import read_columns
from podcluster.records.machines import MachineTable
from podcluster.records.values import Int64Array

VMS_COLUMNS: Final = ("vm_id", "maxmem_kib", "vcpus")
USAGE_COLUMNS: Final = ("vm_id", "t_s", "mem_used_kib")
FORM: Final = "vms_<month>.parquet and usage_<month>.parquet"
REMEDY: Final = "point workload.path at a folder in the Bitbrains Parquet form"


def read(folder: Path) -> MachineTable:
    """Read every month of the folder."""
    months = _months(folder)
    vms = [read_columns(folder / f"vms_{month}.parquet", VMS_COLUMNS, REMEDY) for month in months]
    usage = [read_columns(folder / f"usage_{month}.parquet", USAGE_COLUMNS, REMEDY) for month in months]
    machine_id, maxmem_kib, vcpus = _machines(vms)
    row_machine, t_s, used_kib = (np.concatenate([part[i] for part in usage]) for i in range(3))
    notes: list[str] = []

    machine = np.searchsorted(machine_id, row_machine)
    known = np.take(machine_id, np.minimum(machine, len(machine_id) - 1)) == row_machine
    if not known.all():
        notes.append(f"{_count(~known, 'sample')} of machines that vms_*.parquet does not list dropped")
        machine, t_s, used_kib = machine[known], t_s[known], used_kib[known]
    if not len(machine):
        raise ConfigError(
            f"{folder}: usage_*.parquet must hold samples of the machines in vms_*.parquet, got none: {REMEDY}"
        )

    above = used_kib > maxmem_kib[machine]
    if above.any():
        notes.append(f"{_count(above, 'sample')} above the machine's provisioned memory clamped to it")
        used_kib = np.minimum(used_kib, maxmem_kib[machine])
    machine, t_s, used_kib, repeats = _in_order(machine, t_s, used_kib)
    if repeats:
        notes.append(f"{repeats} repeated samples (same machine and second) dropped, the largest kept")
    epoch_s = int(t_s.min())
    offsets = np.searchsorted(machine, np.arange(len(machine_id) + 1)).astype(np.int64)
    return MachineTable(
        source=f"GWA-T-12 (Bitbrains) {', '.join(months)}",
        epoch_s=epoch_s,
        end_s=int(t_s.max()),
        machine_id=machine_id,
        vcpus=vcpus,
        maxmem_kib=maxmem_kib,
        offsets=offsets,
        t_s=t_s - epoch_s,
        used_kib=used_kib,
        notes=tuple(notes),
    )


def _months(folder: Path) -> list[str]:
    """The months of which the folder has both files, or a ConfigError that says what is there instead."""
    if not folder.is_dir():
        state = "a file" if folder.exists() else "no such folder"
        raise ConfigError(f"workload.path must be a folder with {FORM}, got {folder} ({state}): {REMEDY}")
    vms = {file.stem.removeprefix("vms_") for file in folder.glob("vms_*.parquet")}
    usage = {file.stem.removeprefix("usage_") for file in folder.glob("usage_*.parquet")}
    months = sorted(vms & usage)
    unpaired = sorted(vms ^ usage)
    if not months or unpaired:
        there = sorted(p.name for p in folder.iterdir())
        listed = ", ".join(there[:6]) + (", ..." if len(there) > 6 else "") if there else "nothing"
        lack = f" ({unpaired[0]} lacks one of the two)" if months else ""
        raise ConfigError(f"workload.path must be a folder with {FORM}, got {folder} with {listed}{lack}: {REMEDY}")
    return months


def _machines(vms: Sequence[Sequence[Int64Array]]) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Machines of all months by id, each with its largest size and vCPU count."""
    ids, sizes_kib, vcpus = (np.concatenate([part[i] for part in vms]) for i in range(3))
    machine_id, inverse = np.unique(ids, return_inverse=True)
    most_kib = np.zeros(len(machine_id), dtype=np.int64)
    most_vcpus = np.zeros(len(machine_id), dtype=np.int64)
    np.maximum.at(most_kib, inverse, sizes_kib)
    np.maximum.at(most_vcpus, inverse, vcpus)
    return machine_id, most_kib, most_vcpus


def _in_order(
    machine: Int64Array, t_s: Int64Array, used_kib: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array, int]:
    """Samples by machine, then time, one per second [BB-2] [BB-3]; and how many were dropped."""
    step = np.diff(machine)
    if not ((step > 0) | ((step == 0) & (np.diff(t_s) > 0))).all():
        # Largest use last among equals, so that keeping the last of a run of equals keeps it.
        order = np.lexsort((used_kib, t_s, machine))
        machine, t_s, used_kib = machine[order], t_s[order], used_kib[order]
    last = np.ones(len(machine), dtype=bool)
    last[:-1] = (np.diff(machine) != 0) | (np.diff(t_s) != 0)
    return machine[last], t_s[last], used_kib[last], int(np.count_nonzero(~last))


def _count(which: NDArray[np.bool_], noun: str) -> str:
    count = int(np.count_nonzero(which))
    return f"{count} {noun}" + ("" if count == 1 else "s")
