"""Provenance: enough to run it again, and nothing a reader of results would choke on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from podcluster.config import Config
from podcluster.io import provenance


def test_it_names_seed_configuration_command_and_versions(make_config: Callable[..., Config]) -> None:
    """As JSON and back, with what the caller adds about the program's run."""
    config = make_config("seed=11", "overcommit=1.5")
    found = provenance.collect(config, ["podcluster", "seed=11"], wall_begin="now")
    assert json.loads(json.dumps(found)) == found
    assert found["seed"] == 11
    assert found["config"]["overcommit"] == 1.5
    assert found["command"] == ["podcluster", "seed=11"]
    assert found["wall_begin"] == "now"
    assert {"python", "numpy", "numba", "pyarrow"} <= set(found["versions"])


def test_the_commit_is_the_one_of_the_source_tree() -> None:
    """What git says here, or nothing where this is no checkout."""
    root = Path(__file__).resolve().parents[2]
    provenance.commit.cache_clear()
    found = provenance.commit()
    if not (root / ".git").exists():
        assert found is None
        return
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert found is not None
    assert found.removesuffix("+changes") == head.stdout.strip()


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty PATH, as in a small container."""
    monkeypatch.setenv("PATH", "")
    provenance.commit.cache_clear()
    try:
        assert provenance.commit() is None
    finally:
        provenance.commit.cache_clear()
