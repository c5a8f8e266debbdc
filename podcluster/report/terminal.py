"""A study as the command line runs it: progress on stderr, its figure beside the results, its summary on stdout."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from podcluster.config import Cell
from podcluster.errors import ConfigError
from podcluster.report.progress import make_progress
from podcluster.study.runner import StudyOutcome, run_study

logger = logging.getLogger(__name__)


def present(cells: Sequence[Cell], *, out_dir: Path, force: bool = False, command: str = "podcluster") -> StudyOutcome:
    """Run a study with progress, draw its figure, print its summary."""
    outcome = run_study(cells, out_dir=out_dir, force=force, command=command, progress=make_progress())
    from podcluster.report.figure import NAME, draw
    from podcluster.report.summary import summary

    figure = out_dir / f"{NAME}.png"
    if cells[0].config.study.figure and (outcome.computed or not figure.is_file()):
        try:
            draw(out_dir)
        except ConfigError as error:
            logger.warning("no figure: %s", error)
    summary(out_dir)
    return outcome
