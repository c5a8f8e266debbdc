"""Is a study that was killed, with no chance to clean up, completed by the same command to the same bytes?"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from podcluster.io.digest import digest

SWEEP = (
    "-m",
    "engine=inline",
    "overcommit=1,1.5,2",
    "study.replications=2",
    "study.duration_s=300",
    "study.figure=false",
    "workload.machines=6",
    "workload.boot_spread_s=60",
    "cluster.host_mem_gib=32",
)


def command(folder: Path) -> list[str]:
    """The sweep as a user starts it."""
    return [sys.executable, "-m", "podcluster", *SWEEP, f"hydra.sweep.dir={folder}"]


@pytest.mark.slow
def test_a_killed_sweep_is_completed_by_the_same_command(tmp_path: Path) -> None:
    """SIGKILL, on real hosts, as soon as the first replication is stored; run again: the digest is the uncut one's."""
    whole = subprocess.run(command(tmp_path / "whole"), capture_output=True, text=True, timeout=240)
    assert whole.returncode == 0, whole.stderr
    cut = tmp_path / "cut"
    running = subprocess.Popen(command(cut), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 200
    while not list(cut.glob("cells/*/.replications/*/results")) and not list(cut.glob("cells/*/DONE")):
        assert running.poll() is None and time.monotonic() < deadline_s, "it never stored a replication"
        time.sleep(0.005)
    running.kill()
    running.wait()
    assert not (cut / "results").exists()
    again = subprocess.run(command(cut), capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert digest(cut) == digest(tmp_path / "whole")
    left = [path.name for path in cut.rglob("*") if path.name.startswith(".")]
    assert left == []
