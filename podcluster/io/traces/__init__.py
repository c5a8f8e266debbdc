"""Real data in: one module per form, each giving a MachineTable (sizes and use) or a LifeTable (comings and goings), of
records.machines.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from podcluster.config import WorkloadConfig
from podcluster.errors import ConfigError
from podcluster.io.traces import alibaba_pods, azure_v1, bitbrains
from podcluster.records.machines import LifeTable, MachineTable

READERS: Final[dict[str, Callable[[Path], MachineTable | LifeTable]]] = {
    "bitbrains": bitbrains.read,
    "azure_v1": azure_v1.read,
    "alibaba_pods": alibaba_pods.read,
}


def read_machines(cfg: WorkloadConfig) -> MachineTable | LifeTable | None:
    """The machines that `workload` names, or None for a family that needs no data."""
    if cfg.family not in READERS:
        return None
    if not cfg.path:
        raise ConfigError(
            f"workload.path must be the trace's folder for workload={cfg.family}, got {cfg.path}: add workload.path=DIR"
        )
    return READERS[cfg.family](Path(cfg.path))
