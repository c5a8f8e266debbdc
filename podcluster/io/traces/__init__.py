"""Real data in: one module per form, each giving a MachineTable (records.py)."""

from __future__ import annotations

from pathlib import Path

from podcluster.config import WorkloadConfig
from podcluster.errors import ConfigError
from podcluster.records import MachineTable


def read_machines(cfg: WorkloadConfig) -> MachineTable | None:
    """The machines that `workload` names, or None for a family that needs no data."""
    if cfg.family != "bitbrains":
        return None
    if not cfg.path:
        raise ConfigError(
            f"workload.path must be the trace's folder for workload=bitbrains, got {cfg.path}: add workload.path=DIR"
        )
    from podcluster.io.traces import bitbrains

    return bitbrains.read(Path(cfg.path))
