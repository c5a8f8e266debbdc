"""The project's own files agree: what is required, what is locked, what is shipped."""

import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.distribution import together

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LOCK = [line for line in (REPOSITORY / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
REQUIRED = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *(text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra),
]


def test_lock_is_plain_versions() -> None:
    """Each line is name==version: no address of a registry or a file, no option."""
    assert [line for line in LOCK if not re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9][A-Za-z0-9_.+]*", line)] == []


@pytest.mark.parametrize("text", REQUIRED, ids=lambda text: Requirement(text).name)
def test_lock_satisfies_what_is_required(text: str) -> None:
    """Every dependency, extra and build tool is locked, at a version that its bound allows."""
    locked = {canonicalize_name(name): version for name, version in (line.split("==") for line in LOCK)}
    requirement = Requirement(text)
    assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])


def test_wheel_carries_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel holds conf/ inside the package, where `conf_dir` looks first, and the types marker."""
    hatchling = pytest.importorskip("hatchling.build")
    monkeypatch.chdir(REPOSITORY)
    wheel = zipfile.ZipFile(tmp_path / hatchling.build_wheel(str(tmp_path)))
    names = set(wheel.namelist())
    files = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "conf").rglob("*.yaml")}
    assert {f"podcluster/{name}" for name in files} <= names
    assert "podcluster/py.typed" in names
    assert not [name for name in names if name.startswith("tests")]


def test_whoever_starts_a_ray_is_of_one_group() -> None:
    """Where processes share the tests, no two start a Ray at once; a file that starts none is in no such group."""
    groups = {path: together(path.relative_to(REPOSITORY).as_posix()) for path in REPOSITORY.glob("tests/**/test_*.py")}
    marked = {path for path in groups if re.search(r"^ *@pytest\.mark\.ray$", path.read_text(), re.MULTILINE)}
    assert marked and {groups[path] for path in marked} == {"ray"}
    assert groups[REPOSITORY / "tests" / "host" / "test_golden.py"] is None
