"""Results to report on, computed once on fake hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from podcluster.cli import compose
from podcluster.config import Cell
from podcluster.host import kernel, model
from podcluster.study.runner import run_study
from tests.cluster.fake import fake_model

SMALL = (
    "engine=inline",
    "workload.machines=30",
    "study.duration_s=1200",
    "workload.boot_spread_s=300",
    "cluster.host_mem_gib=64",
    "cluster.hosts=4",
)


@contextmanager
def faking() -> Iterator[None]:
    """Put fake hosts where the real ones would be built, and compile nothing; only as long as this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "HostModel", fake_model)
        patch.setattr(kernel, "is_compiled", lambda: True)
        yield


@pytest.fixture
def fake_hosts() -> Iterator[None]:
    """Fake hosts for one test."""
    with faking():
        yield


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one replication."""
    folder = tmp_path_factory.mktemp("run")
    with faking():
        run_study([Cell(config=compose(SMALL))], out_dir=folder)
    return folder


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two overcommits and two guests, two replications each."""
    folder = tmp_path_factory.mktemp("sweep")
    cells = [
        Cell(
            config=compose([*SMALL, "study.replications=2", f"overcommit={overcommit}", f"guest={guest}"]),
            axes={"guest": guest, "overcommit": overcommit},
        )
        for guest in ("linux", "windows")
        for overcommit in (1.0, 2.0)
    ]
    with faking():
        run_study(cells, out_dir=folder)
    return folder
