"""Golden traces: the kernels (and the slow model) must leave every state that the hypervisor's own logic left."""

import os
from pathlib import Path

import pytest

from podcluster.host.replay import kernel_machine, replay_file
from tests import golden_report
from tests.reference.model import ReferenceMachine

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("PODCLUSTER_SHARED", REPOSITORY.parent / "shared")) / "xen-golden"
SELECTION = sorted((REPOSITORY / "tests" / "golden" / "xen").glob("*.jsonl.gz"))
SHARED_TRACES = sorted(SHARED.glob("*.jsonl.gz"))
REQUIRED_TRACES = 197
SELECTION_BYTES_MAX = 1_000_000


def name(path: Path) -> str:
    return path.name.removesuffix(".jsonl.gz")


@pytest.mark.parametrize("path", SELECTION, ids=name)
def test_the_kernels_replay_the_selection(path: Path, pytestconfig: pytest.Config) -> None:
    """Every return value, must-match and diagnostic field of one trace of tests/golden/xen."""
    result = replay_file(path, kernel_machine)
    assert result.mismatch is None, result.line
    golden_report.count(pytestconfig, golden_report.PROJECT, path.name, len(SELECTION))


@pytest.mark.parametrize("path", SELECTION, ids=name)
def test_the_reference_replays_the_selection(path: Path) -> None:
    """The same traces through the slow model: whoever it is compared with is compared with the truth."""
    result = replay_file(path, ReferenceMachine.from_header)
    assert result.mismatch is None, result.line


@pytest.mark.parametrize("path", SHARED_TRACES, ids=name)
def test_the_kernels_replay_the_shared_set(path: Path, pytestconfig: pytest.Config) -> None:
    """Every trace of ../shared/xen-golden, where that folder is."""
    result = replay_file(path, kernel_machine)
    assert result.mismatch is None, result.line
    golden_report.count(pytestconfig, golden_report.SHARED, path.name, len(SHARED_TRACES))


def test_the_shared_set_is_here_where_it_must_be() -> None:
    """A missing or short shared set is a skip with its reason, or a failure under PODCLUSTER_REQUIRE_SHARED=1."""
    if len(SHARED_TRACES) >= REQUIRED_TRACES:
        return
    reason = f"{len(SHARED_TRACES)} of {REQUIRED_TRACES} golden traces in {SHARED} (set PODCLUSTER_SHARED)"
    if os.environ.get("PODCLUSTER_REQUIRE_SHARED") == "1":
        pytest.fail(f"{reason}, and PODCLUSTER_REQUIRE_SHARED=1 says they must be there")
    pytest.skip(reason)


def test_the_selection_is_here_and_small() -> None:
    """The project carries its own traces, at most 1 MB of them."""
    assert len(SELECTION) >= 100
    assert sum(path.stat().st_size for path in SELECTION) <= SELECTION_BYTES_MAX


@pytest.mark.skipif(not SHARED_TRACES, reason="no shared golden traces to compare the selection with")
def test_the_selection_is_a_copy_of_the_shared_traces() -> None:
    """No trace of the selection was edited on the way."""
    for path in SELECTION:
        assert path.read_bytes() == (SHARED / path.name).read_bytes(), path.name
