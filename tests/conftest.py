"""What all tests share: the shared folder of real data, Hypothesis profiles, small helpers for configurations."""

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from podcluster.cli import compose
from podcluster.config import Config
from tests.processes import assert_nobody_of

pytest_plugins = [
    "tests.distribution",  # which tests stay together in one of several processes
    "tests.golden_report",  # counts the golden traces that ran
]

REPOSITORY = Path(__file__).resolve().parent.parent

# The same examples on every run of CI, so that a failure is about the change under test; HYPOTHESIS_PROFILE=fresh looks
# for new ones.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile(
    "fresh", deadline=None, print_blob=True, max_examples=1000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: a run that collects garbage when it closes its hosts need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data beside the project (traces/, xen-golden/); without it a test is skipped, or fails."""
    folder = Path(os.environ.get("PODCLUSTER_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "traces").is_dir():
        reason = f"no shared data in {folder} (set PODCLUSTER_SHARED)"
        if os.environ.get("PODCLUSTER_REQUIRE_SHARED") == "1":
            pytest.fail(f"{reason}, and PODCLUSTER_REQUIRE_SHARED=1 says it must be there")
        pytest.skip(reason)
    return folder


@pytest.fixture
def private_ray() -> Iterator[dict[str, str]]:
    """An environment in which a Ray can be started that nobody else finds, and of which nobody is to be left; its
    folder has a short name.
    """
    folder = tempfile.mkdtemp(prefix="pcr", dir="/tmp")
    yield {
        **os.environ,
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "for this test alone",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
    }
    assert_nobody_of(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """Compose a configuration as the command line does: `make_config("guest=windows", "seed=3")`."""
    return lambda *overrides: compose(overrides)
