"""Golden traces: the kernels (and the slow model) must leave every state that the hypervisor's own logic left.

Two sets of them, today's and those of the first version, of 2009: a selection of each is part of the project, the whole
of each lies in a folder beside it where it is at hand.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from podcluster.host.replay import kernel_machine, replay_file
from tests import golden_report
from tests.reference.model import ReferenceMachine

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("PODCLUSTER_SHARED", REPOSITORY.parent / "shared"))


@dataclass(frozen=True)
class Traces:
    """One set of traces: what the project holds of it, and all of it."""

    selection: tuple[Path, ...]
    shared: tuple[Path, ...]
    shared_folder: Path
    required: int
    selected_min: int
    bytes_max: int
    project_report: str
    shared_report: str

    @classmethod
    def of(cls, project: str, shared: str, numbers: tuple[int, int, int], reports: tuple[str, str]) -> "Traces":
        """The set in tests/golden/`project` and the folder `shared`."""
        folder = SHARED / shared
        own = sorted((REPOSITORY / "tests" / "golden" / project).glob("*.jsonl.gz"))
        return cls(tuple(own), tuple(sorted(folder.glob("*.jsonl.gz"))), folder, *numbers, *reports)


TODAY = Traces.of("xen", "xen-golden", (197, 100, 1_000_000), (golden_report.PROJECT, golden_report.SHARED))
FIRST = Traces.of(
    "xen-2009", "xen-golden-2009", (60, 40, 400_000), (golden_report.PROJECT_2009, golden_report.SHARED_2009)
)
SETS = (TODAY, FIRST)
SELECTED = [(traces, path) for traces in SETS for path in traces.selection]
ALL = [(traces, path) for traces in SETS for path in traces.shared]
each_set = pytest.mark.parametrize("traces", SETS, ids=["today", "rfc2009"])


def name(value: object) -> str:
    """`boot_2m` or, of 2009, `xen-2009/boot_2m`."""
    if not isinstance(value, Path):
        return ""
    era = "2009/" if value.parent.name.endswith("2009") else ""
    return era + value.name.removesuffix(".jsonl.gz")


@pytest.mark.parametrize(("traces", "path"), SELECTED, ids=name)
def test_the_kernels_replay_the_selection(traces: Traces, path: Path, pytestconfig: pytest.Config) -> None:
    """Every return value, must-match and diagnostic field of one trace of the project."""
    result = replay_file(path, kernel_machine)
    assert result.mismatch is None, result.line
    golden_report.count(pytestconfig, traces.project_report, path.name, len(traces.selection))


@pytest.mark.parametrize("path", [path for _, path in SELECTED], ids=name)
def test_the_reference_replays_the_selection(path: Path) -> None:
    """The same traces through the slow model: whoever it is compared with is compared with the truth."""
    result = replay_file(path, ReferenceMachine.from_header)
    assert result.mismatch is None, result.line


@pytest.mark.parametrize(("traces", "path"), ALL, ids=name)
def test_the_kernels_replay_the_shared_set(traces: Traces, path: Path, pytestconfig: pytest.Config) -> None:
    """Every trace of a shared folder, where that folder is."""
    result = replay_file(path, kernel_machine)
    assert result.mismatch is None, result.line
    golden_report.count(pytestconfig, traces.shared_report, path.name, len(traces.shared))


@each_set
def test_the_shared_set_is_here_where_it_must_be(traces: Traces) -> None:
    """A missing or short shared set is a skip with its reason, or a failure under PODCLUSTER_REQUIRE_SHARED=1."""
    if len(traces.shared) >= traces.required:
        return
    found = f"{len(traces.shared)} of {traces.required} golden traces in {traces.shared_folder}"
    reason = f"{found} (set PODCLUSTER_SHARED)"
    if os.environ.get("PODCLUSTER_REQUIRE_SHARED") == "1":
        pytest.fail(f"{reason}, and PODCLUSTER_REQUIRE_SHARED=1 says they must be there")
    pytest.skip(reason)


@each_set
def test_the_selection_is_here_and_small(traces: Traces) -> None:
    """The project carries its own traces, at most 1 MB and 0.4 MB of them."""
    assert len(traces.selection) >= traces.selected_min
    assert sum(path.stat().st_size for path in traces.selection) <= traces.bytes_max


@each_set
def test_the_selection_is_a_copy_of_the_shared_traces(traces: Traces) -> None:
    """No trace of the selection was edited on the way."""
    if not traces.shared:
        pytest.skip("no shared golden traces to compare the selection with")
    for path in traces.selection:
        assert path.read_bytes() == (traces.shared_folder / path.name).read_bytes(), path.name
