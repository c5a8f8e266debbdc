"""The compiler's options do what they are there for, and no stale code can be met."""

import importlib
import re
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from podcluster.host import kernel
from podcluster.host.machine import exercise
from podcluster.host.state import new_host_state

MODULES = [
    importlib.import_module(f"podcluster.host.{name[:-3]}")
    for name in kernel.KERNEL_SOURCES
    if name not in ("kernel.py", "layout.py", "state.py")
]


def _call_sum(options: dict[str, Any]) -> str:
    @numba.njit(**options)  # type: ignore[untyped-decorator, unused-ignore]
    def inner(rows: Any, k: int) -> Any:
        view = rows[k]
        return view[0] + view[1]

    @numba.njit(**options)  # type: ignore[untyped-decorator, unused-ignore]
    def outer(rows: Any) -> Any:
        total = 0
        for k in range(rows.shape[0]):
            total += inner(rows, k)
        return total

    rows = np.arange(8, dtype=np.int64).reshape(4, 2)
    assert outer(rows) == 28
    return "".join(outer.inspect_llvm().values())


def test_kernels_do_not_count_references() -> None:
    options = {name: value for name, value in kernel.OPTIONS.items() if name != "_nrt"}
    # Without the option the runtime is there, so its absence below is the option's doing.
    assert "NRT_" in _call_sum({**options, "_nrt": True})
    assert not re.search(r"call[^\n]*@NRT_", _call_sum(kernel.OPTIONS))


def test_every_kernel_is_compiled_once_and_as_annotated() -> None:
    for dispatcher in kernel.KERNELS.values():
        dispatcher.compile(kernel.signature(dispatcher.py_func))
    # Calls from Python ask for the same types: nothing is compiled again in the middle of a run.
    exercise()
    for module in MODULES:
        for name, value in vars(module).items():
            overloads = getattr(value, "overloads", None)
            if overloads is not None:
                assert len(overloads) <= 1, f"{module.__name__}.{name}: {list(overloads)}"


def test_every_file_with_kernels_is_in_the_name_of_the_cache() -> None:
    folder = Path(kernel.__file__).parent
    with_kernels = {
        path.name
        for path in folder.glob("*.py")
        if re.search(r"^@(kernel|routine)\b|numba\.njit|infer_getattr", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert with_kernels <= set(kernel.KERNEL_SOURCES)
    assert "state.py" in kernel.KERNEL_SOURCES  # its constants are compiled in


@pytest.mark.parametrize("changed", kernel.KERNEL_SOURCES)
def test_the_cache_is_another_after_any_change_of_a_kernel_source(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(kernel.__file__).parent
    for name in kernel.KERNEL_SOURCES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.setattr(kernel, "__file__", str(tmp_path / "kernel.py"))
    before = kernel.source_hash()
    with (tmp_path / changed).open("a", encoding="utf-8") as source:
        source.write("# a change\n")
    assert kernel.source_hash() != before


def test_growing_the_arrays_keeps_what_is_in_use() -> None:
    state = new_host_state(1 << 16, scrub_on_free=True, words=False, gfn_blocks=4)
    assert state.row[1, 7] == np.uint64(0xFFFFFFFFFFFFFFFF) and state.row[0].sum() == 0
    larger = state.replace(row=np.concatenate([state.row, state.row]))
    assert larger.address != state.address and larger.row.shape[0] == 2 * state.row.shape[0]
    assert larger.attr is state.attr
