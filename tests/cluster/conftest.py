"""One Ray for all tests that need it."""

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from podcluster.cluster.ray_pool import start_ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray of our own, in a private folder with a short name (its sockets have little room), shut down at the
    end.
    """
    before = os.environ.get("RAY_TMPDIR")
    folder = tempfile.mkdtemp(prefix="pcr", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder
    assert start_ray("local")
    import ray  # only now: its import reads what start_ray sets

    yield
    ray.shutdown()
    if before is None:
        del os.environ["RAY_TMPDIR"]
    else:
        os.environ["RAY_TMPDIR"] = before
    shutil.rmtree(folder, ignore_errors=True)
