"""One Ray for all tests that need it."""

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from podcluster.cluster.ray_pool import start_ray
from tests.processes import assert_nobody_of


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray of our own, in a private folder with a short name (its sockets have little room), shut down at the
    end, when nobody of it is to be left.
    """
    folder = tempfile.mkdtemp(prefix="pcr", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)  # only while it starts: others that are started later are none of it
        assert start_ray("local")
    import ray  # only now: its import reads what start_ray sets

    yield
    ray.shutdown()
    assert_nobody_of(folder)
    shutil.rmtree(folder, ignore_errors=True)
