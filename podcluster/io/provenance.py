"""What produced a result: seed, configuration, versions, commit, command. Written into every file's schema metadata.

Invariants  [IO-2] nothing here is part of a digest; values that differ from run to run begin with `wall_` or `engine_`.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from podcluster.config import Config

FORMAT: Final = 1
PACKAGES: Final = ("podcluster", "numpy", "numba", "scipy", "pyarrow", "pandas", "ray", "hydra-core")


def collect(config: Config, command: Sequence[str] | None = None, **wall: Any) -> dict[str, Any]:
    """Provenance of one cell; `wall` takes what describes the run of the program, named `wall_*` or `engine_*`."""
    return {
        "format": FORMAT,
        "seed": config.seed,
        "config": config.to_dict(),
        "command": list(sys.argv if command is None else command),
        "versions": versions(),
        "commit": commit(),
        **wall,
    }


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            # Run from a source tree, podcluster itself is not installed; the commit says which it is.
            found[package] = "not installed"
    return found


@cache
def commit() -> str | None:
    """The commit of the source tree that runs, with `+changes` if it is not clean; None outside a checkout of it."""
    package = Path(__file__).resolve().parent.parent
    # Only the repository that holds the package itself: an environment may lie inside somebody else's.
    if not (package.parent / ".git").exists():
        return None
    git = ["git", "-C", str(package.parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "podcluster", "conf"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or a checkout it refuses: the commit is "not known", as the docstring says
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
