"""The fits run on their traces: kinds of machine of the synthetic family, every field of the churn family."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from podcluster.workloads import churn

ROOT = Path(__file__).resolve().parents[2]


def test_the_fit_runs_and_finds_the_three_kinds(shared_dir: Path) -> None:
    """One seed: sizes of the kinds as the family's weights have them, and a line for every statistic."""
    script = ROOT / "experiments" / "fit_synthetic" / "fit.py"
    done = subprocess.run(
        [sys.executable, str(script), str(shared_dir / "traces" / "bitbrains_rnd"), "--seeds", "1"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for kind, machines in (("small", 47), ("general", 182), ("pool", 20)):
        assert f"{kind}: {machines} machines" in done.stdout
    assert done.stdout.count("peak of sum / sum of peaks") == 4


def test_the_fit_of_churn_prints_the_fields_that_the_family_has(shared_dir: Path) -> None:
    """The estimates alone: every number of `churn.FITTED` is what the script finds in the trace."""
    script = ROOT / "experiments" / "fit_churn" / "fit.py"
    done = subprocess.run(
        [sys.executable, str(script), str(shared_dir / "traces" / "azure_v1_arrivals"), "--seeds", "0"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found = eval(f"churn.Fit({done.stdout})", {"churn": churn, **vars(churn)})
    assert found == churn.FITTED
