"""The compiler's options do what they are there for, and no stale code can be met."""

import importlib
import re
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.compiler_lock import global_compiler_lock

from podcluster import kernels
from podcluster.host import follow, kernel, merged
from podcluster.host.page_runs import Allocator, PageSet, PageStack
from podcluster.host.page_sets import PageBooks
from podcluster.host.shares import share
from podcluster.host.state import new_host_state
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA, ZERO
from podcluster.records.values import Int64Array
from tests.host.test_wide_lives import differs
from tests.kernel_calls import checked

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


def _copy(values: Int64Array, other: Int64Array, k: int) -> int:
    other[k] = values[k]
    return int(values[k + 1])


def _llvm(dispatcher: Any) -> str:
    dispatcher.compile(kernel.signature(dispatcher.py_func))
    return "".join(dispatcher.inspect_llvm().values())


def test_indices_have_no_sign_and_arrays_do_not_overlap(tmp_path: Path) -> None:
    """As Numba has it by itself, an index is compared with 0, and what was read is read again after a store."""
    plain, ours = _llvm(numba.njit(**kernel.OPTIONS)(_copy)), _llvm(kernels.compile_kernel(_copy, tmp_path))
    assert "icmp slt i64" in plain and "icmp slt i64" not in ours
    entries = re.compile(r"ptr [^,]*noalias[^,]*%arg\.values\.4")
    assert not entries.search(plain) and entries.search(ours)
    values, other = np.arange(4, dtype=np.int64), np.zeros(4, np.int64)
    assert kernels.compile_kernel(_copy, tmp_path)(values, other, 2) == 3 and other.tolist() == [0, 0, 2, 0]


def test_parts_of_kernels_are_not_finished() -> None:
    """Nobody can run them, and nothing of them is given to the engine."""
    part = kernels.compile_routine(_copy)
    part.compile(kernel.signature(_copy))  # type: ignore[attr-defined]
    (found,) = part.overloads.values()  # type: ignore[attr-defined]
    with global_compiler_lock:
        assert found.library.get_pointer_to_function(found.fndesc.llvm_func_name) == 0


def exercise() -> None:
    """Use every kernel once: a guest's whole life on a small host."""
    for words in (False, True):
        machine = TracedMachine(1 << 14, scrub_on_free=not words, words=words)
        handle = machine.set_aside(1000)
        machine.create(1, maxmem_pages=8192, max_pages=8192)
        machine.claim(1, 2048)
        machine.set_pod_target(1, 2048)
        machine.claim(1, 0)
        machine.mark_pod(1, 0, 12)
        machine.mark_pod_seq(1, 4096, 2, 9)
        machine.end_build(1)
        machine.populate_special(1, 8000)
        machine.populate(1, 6144, 9)
        machine.touch_range(1, 0, 1200, content=DATA)
        machine.touch_list(1, [4096, 7], content=ZERO)
        if words:
            machine.write(1, 1, 1, 1)
            machine.read(1, 1, 1)
            machine.write_seq(1, 1500, 10, 3, 0, 5)
            machine.read_list(1, 0, [1, 2])
        machine.add_ref(1, 3, 0)
        machine.drop_ref(0, 1)
        machine.shadow_ref(1, 3)
        machine.set_flag(1, 4, "special", True)
        machine.query(1, 5000)
        machine.decrease(1, 2048, 9)
        machine.offline(1, "single", 0)
        machine.balloon_range(1, 4600, 20)
        machine.balloon_list(1, [4620])
        machine.balloon_runs(1, [(4700, 30)], batch_pages=8, scrub=True)
        allocator = Allocator([(4800, 16)])
        stream = share(merged.DIRTIES, anchor_ns=0, num=1, den=1, batch=8, done=0, next_ns=0)
        common = [0, 0, 100, *[0] * (merged.COMMON - 3)]
        common[merged.RAM_PAGES] = 16
        none, pool, taken = PageSet().array, allocator.pool.array, allocator.taken.array
        pages = PageBooks(
            data=PageSet(8192).array, away=none, reserved=none, balloon=PageStack().array, pool=pool, taken=taken
        )
        machine.run_merged(1, pages, common, stream, np.empty(0, np.int64), 50, 1.0, 0.0)
        instant = np.zeros(1, np.int64)
        books, limits = [0] * follow.BOOKS, [0] * follow.GIVEN
        books[follow.NEXT] = limits[follow.CLUSTER] = limits[follow.PAGES_PER_S] = limits[follow.GRID] = 1
        curve = follow.Curve(t=instant, w=instant, high=instant, lags=instant, td=instant, wd=instant)
        machine.follow_demand(1, pages, books, limits, curve, 16, 1.0)
        merged.divided(7, 2, 3)
        machine.entry_map(1)
        machine.populate_seq(1, 6700, 2, 0, 1)
        machine.hazard(1)
        machine.populate_range(1, 4600, 3, descending=True)
        machine.state_record(1)
        machine.counters(1)
        machine.audit(1)
        machine.audit()
        machine.set_max_pages(1, 8192)
        machine.destroy(1)
        machine.take_notes()
        machine.release(handle)


def test_every_kernel_is_compiled_once_and_called_as_annotated() -> None:
    for dispatcher in kernel.KERNELS.values():
        dispatcher.compile(kernel.signature(dispatcher.py_func))
    with checked(kernel.KERNELS.values()) as calls:
        exercise()
        for number in range(12):
            assert not differs(number)
    assert len(calls) > 50 and calls["run_merged"] > 100
    for module in MODULES:
        for name, value in vars(module).items():
            overloads = getattr(value, "overloads", None)
            if overloads is not None:
                assert len(overloads) <= 1, f"{module.__name__}.{name}: {list(overloads)}"


def test_a_wrong_argument_is_found_where_kernels_are_called() -> None:
    """Machine code would cut it off: the check above has to notice."""
    merged.divided(7, 2, 3)
    with checked([merged.divided]), pytest.raises(AssertionError, match="argument 1 of divided"):
        merged.divided(7, 2.0, 3)  # type: ignore[arg-type]
    assert merged.divided(7, 2, 3) == 4


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
