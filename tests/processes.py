"""Whom a test started, and whom it may therefore kill."""

from __future__ import annotations

from pathlib import Path

from podcluster.cluster.processes import descendants


def actors(pid: int) -> list[int]:
    """The process ids of the actors that hold hosts, of a Ray that `pid` started."""
    return [child for child, process in descendants(pid).items() if process.command.startswith("ray::ShardServer")]


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
