"""Are the files of a checkpoint whole or not there, and refused where they are another run's?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podcluster.cluster.resume import Told
from podcluster.errors import InvariantError, PodclusterError
from podcluster.io import checkpoints
from podcluster.io.checkpoints import FOLDER, CheckpointFolder
from podcluster.io.lock import Lock
from podcluster.records.hosts import HostView
from podcluster.records.reports import HostReport

Packed = dict[int, bytes]


def told(first: int, steps: int) -> list[Told]:
    """What one host says in some steps."""
    return [
        Told(step, (HostReport(0, step, HostView(0, 10, step, 0, 10 - step, 1, step)),))
        for step in range(first, first + steps)
    ]


def filled(folder: Path) -> Packed:
    """A run of which two saves are kept: 3 and 4 steps; the hosts of the second."""
    hosts = {7: b"seven" * 1000, 3: b"three", 5: b""}
    with CheckpointFolder(folder, "run") as store:
        store.save(told(0, 3), {3: b"older"}.items())
        store.save(told(3, 4), hosts.items())
    return hosts


def names(folder: Path) -> list[str]:
    """What lies in the checkpoint."""
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    """All steps of all saves in order, the hosts of the last alone; and a third save goes on from there."""
    hosts = filled(tmp_path)
    assert names(tmp_path) == ["hosts-000002", "told-000001", "told-000002"]
    with CheckpointFolder(tmp_path, "run") as store:
        assert store.steps == 7 and list(store.told()) == told(0, 7)
        assert dict(store.packed()) == hosts
        store.save(told(7, 1), {1: b"one"}.items())
    with CheckpointFolder(tmp_path, "run") as store:
        assert store.steps == 8 and list(store.told()) == told(0, 8) and dict(store.packed()) == {1: b"one"}


def test_nothing_kept_is_nothing_there(tmp_path: Path) -> None:
    """A run that ends before its first save leaves no folder, and begins with no steps."""
    with CheckpointFolder(tmp_path, "run") as store:
        assert store.steps == 0 and list(store.told()) == [] and not store.packed()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["told", "hosts", "unlinked"])
def test_a_save_that_is_cut_short_did_not_happen(tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """[CK-2] the process dies while it writes either file, or before it has taken the older hosts away."""

    class DeadError(BaseException):
        pass

    calls = 0

    def fsync(file: int) -> None:
        nonlocal calls
        calls += 1
        if calls == {"told": 1, "hosts": 3, "unlinked": 4}[when]:  # each file, and then its folder
            raise DeadError

    hosts = filled(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(DeadError), CheckpointFolder(tmp_path, "run") as store:
        patch.setattr(os, "fsync", fsync)
        store.save(told(7, 2), {9: b"nine"}.items())
    with CheckpointFolder(tmp_path, "run") as store:
        if when == "unlinked":
            assert store.steps == 9 and dict(store.packed()) == {9: b"nine"}
            assert names(tmp_path) == ["hosts-000003", "told-000001", "told-000002", "told-000003"]
        else:
            assert store.steps == 7 and dict(store.packed()) == hosts
            assert names(tmp_path) == ["hosts-000002", "told-000001", "told-000002"]


@pytest.mark.parametrize("name", ["told-000001", "told-000002", "hosts-000002"])
@pytest.mark.parametrize("harm", ["a byte", "cut", "empty", "head"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, name: str, harm: str) -> None:
    """[CK-3] any other byte, an end that is not there, nothing at all: the line names the file and what to do."""
    filled(tmp_path)
    path = tmp_path / FOLDER / name
    content = bytearray(path.read_bytes())
    if harm == "a byte":
        content[0] ^= 1
    keep = {"a byte": len(content), "cut": len(content) - 1, "empty": 0, "head": 3}[harm]
    path.write_bytes(content[:keep])
    with pytest.raises(PodclusterError, match=f"{name} must be as podcluster wrote it.*--force") as raised:
        CheckpointFolder(tmp_path, "run").__enter__()
    assert "\n" not in str(raised.value)


def test_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The first steps are gone."""
    filled(tmp_path)
    (tmp_path / FOLDER / "told-000001").unlink()
    with pytest.raises(PodclusterError, match=r"told-000001 must be as podcluster wrote it.*not there"):
        CheckpointFolder(tmp_path, "run").__enter__()


def test_a_checkpoint_of_another_run_or_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each, before anything of it is used; --force takes it away."""
    filled(tmp_path)
    with pytest.raises(PodclusterError, match=r"must be of this configuration \(other\).*\(run\).*--force"):
        CheckpointFolder(tmp_path, "other").__enter__()
    monkeypatch.setattr(checkpoints, "fingerprint", lambda: "another")
    with pytest.raises(PodclusterError, match=r"must be of podcluster .*sources another.*--force"):
        CheckpointFolder(tmp_path, "run").__enter__()
    checkpoints.remove(tmp_path)
    assert CheckpointFolder(tmp_path, "run").__enter__().steps == 0


def test_what_our_own_mistake_led_to_is_not_kept(tmp_path: Path) -> None:
    """An InvariantError takes the checkpoint with it; Ctrl-C does not."""
    filled(tmp_path)
    with pytest.raises(KeyboardInterrupt), CheckpointFolder(tmp_path, "run"):
        raise KeyboardInterrupt
    assert names(tmp_path)
    with pytest.raises(InvariantError), CheckpointFolder(tmp_path, "run"):
        raise InvariantError("[POD-2] E == B - P violated")
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second is refused in one line; a lock whose holder is gone locks nobody out, and leaves nothing behind."""
    folder = tmp_path / "runs" / "one"
    with Lock(folder):
        with pytest.raises(PodclusterError, match=r"one process at a time.*hydra.run.dir") as raised, Lock(folder):
            pass
        assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    with Lock(folder):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]
