"""The kernels of placement: kept by the state of their sources, compiled once and as annotated."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from podcluster import kernels
from podcluster.placement import fields, kernel, search, weigh
from podcluster.placement.batch import Batch, place_batch
from podcluster.placement.hosts import empty_hosts
from podcluster.placement.index import HostIndex
from podcluster.placement.policy import make_policy
from podcluster.records.hosts import Ask
from tests.kernel_calls import checked


def test_every_file_with_kernels_is_in_the_name_of_the_cache() -> None:
    """Files that decorate a function as a kernel are listed as sources."""
    folder = Path(kernel.__file__).parent
    decorated = re.compile(r"^@(kernel|routine)\b", re.MULTILINE)
    with_kernels = {path.name for path in folder.glob("*.py") if decorated.search(path.read_text(encoding="utf-8"))}
    assert with_kernels == {"fields.py", "search.py", "weigh.py"}
    assert with_kernels <= set(kernel.KERNEL_SOURCES)


@pytest.mark.parametrize("changed", kernel.KERNEL_SOURCES)
def test_the_cache_is_another_after_any_change_of_a_source(changed: str, tmp_path: Path) -> None:
    """A comment more in any of them is another name."""
    folder = Path(kernel.__file__).parent
    for name in kernel.KERNEL_SOURCES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    before = kernels.source_hash(tmp_path, kernel.KERNEL_SOURCES)
    assert kernel.cache_folder().name == f"placement-{before}"
    with (tmp_path / changed).open("a", encoding="utf-8") as source:
        source.write("# a change\n")
    assert kernels.source_hash(tmp_path, kernel.KERNEL_SOURCES) != before


def test_every_kernel_is_compiled_once_and_called_as_annotated() -> None:
    """Python passes what the annotations say."""
    for dispatcher in kernel.KERNELS.values():
        dispatcher.compile(kernels.signature(dispatcher.py_func))
    with checked(kernel.KERNELS.values()) as calls:
        for name in ("first_fit", "best_fit", "chance_constrained", "xapi"):
            policy = make_policy(name)
            index = HostIndex(empty_hosts(5, 100), policy.rules, policy.search_kind)
            place_batch(policy, Batch.of([Ask(10, 10), Ask(200, 200)]), index)
            host_id = policy.place_indexed(Ask(10, 10), index)
            assert isinstance(host_id, int)
            index.place(host_id, Ask(10, 10))
    assert calls.keys() == {name.split(":")[1] for name in kernel.KERNELS}
    assert {name.split(":")[1] for name in kernel.KERNELS} == {"change", "choose", "fill", "nth_largest", "xapi_values"}
    functions = {**vars(fields), **vars(search), **vars(weigh)}
    overloads = {name: getattr(value, "overloads", {}) for name, value in functions.items()}
    assert {name: list(found) for name, found in overloads.items() if len(found) > 1} == {}


def test_another_copy_finds_what_one_has_compiled(tmp_path: Path) -> None:
    """The same sources at another path, modified at another time, with the same cache: nothing is compiled there."""
    kernel.compile_all()
    package = Path(kernels.__file__).parent
    shutil.copytree(package, tmp_path / "copy" / "podcluster", ignore=shutil.ignore_patterns("__pycache__"))
    for source in (tmp_path / "copy").rglob("*.py"):
        os.utime(source, (1_000_000, 1_000_000))
    script = (
        "from podcluster.placement import kernel, search\n"
        "from podcluster.kernels import signature\n"
        "assert kernel.is_compiled()\n"
        "for one in kernel.KERNELS.values():\n"
        "    one.compile(signature(one.py_func))\n"
        "    print(sum(one.stats.cache_hits.values()), sum(one.stats.cache_misses.values()))\n"
        "print(search.__file__)\n"
    )
    environment = {
        **os.environ, "PYTHONPATH": str(tmp_path / "copy"), "PODCLUSTER_KERNEL_CACHE": str(kernels.cache_root())
    }  # fmt: skip
    run = [sys.executable, "-c", script]
    said = subprocess.run(run, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == ["1 0"] * len(kernel.KERNELS) + [
        str(tmp_path / "copy" / "podcluster" / "placement" / "search.py")
    ]


def test_only_caches_of_the_same_kind_are_pruned(tmp_path: Path) -> None:
    """Of four placements the oldest goes; what the host compiled, named without a kind, stays."""
    for age, name in enumerate(["0123", "placement-1", "placement-2", "placement-3"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "DONE").write_text("")
        made_s = 1_000_000 + age
        os.utime(tmp_path / name, (made_s, made_s))
    kernels.compile_all(kernel.KERNELS, tmp_path / "placement-4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0123", "placement-2", "placement-3", "placement-4"]
    assert kernels.is_compiled(tmp_path / "placement-4") and not kernels.is_compiled(tmp_path / "placement-5")
