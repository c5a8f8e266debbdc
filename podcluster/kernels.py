"""How kernels are compiled: one set of options, one cache, whoever's kernels they are.

What        A package with kernels keeps a list of its sources and a registry; this module compiles its functions on
            arrays with Numba and names the folder in which their machine code is kept.
Cache       Numba looks only at the file of the kernel it is about to load: after an edit of a *callee* in another
            file the callers would silently keep the old code. The folder is therefore named by a hash of every kernel
            source and of the versions of Numba and Python, so no stale code can be met. That says all there is to say,
            so Numba's own key, the path of the source, is left out: what one copy of podcluster has compiled, another
            with the same sources finds.
Options     `_nrt=False` takes Numba's runtime out of a kernel: no allocation and no reference counting. Counting is
            an atomic operation per array and call and made the same code 20 to 30 times slower. The option is private
            to Numba, which is why its version is pinned; `tests/host/test_kernel.py` notices when it stops working.
"""

import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from numba.core import caching
from numba.core import config as numba_config

from podcluster import kernel_code
from podcluster.kernel_code import KernelCompiler, PartCompiler

Function = TypeVar("Function", bound=Callable[..., Any])

KEPT_CACHES = 3

SCALARS: dict[Any, Any] = {int: types.int64, bool: types.boolean, float: types.float64, np.uint64: types.uint64}
"""What the scalar annotations of kernels mean to the compiler."""

OUTLINES: list[Any] = []
"""What has been compiled by itself."""

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}


def source_hash(folder: Path, names: Iterable[str]) -> str:
    """Name of the present state of these kernel sources and of what compiles them (16 hex digits)."""
    digest = hashlib.blake2s(digest_size=8)
    for source in (__file__, kernel_code.__file__):
        digest.update(Path(source).read_bytes())
    for name in names:
        digest.update(name.encode() + b"\0" + (folder / name).read_bytes() + b"\0")
    digest.update(f"{numba.__version__} {np.__version__} {platform.python_version()} {platform.machine()}".encode())
    return digest.hexdigest()


def cache_root() -> Path:
    """Folder of all compiled kernels: `PODCLUSTER_KERNEL_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("PODCLUSTER_KERNEL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podcluster" / "kernels"


class KernelLocator(caching.UserProvidedCacheLocator):  # type: ignore[misc]  # Numba is untyped
    """Where Numba keeps machine code in the folder that it is given."""

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """By the name of the package, not the path to it."""
        return Path(py_file).parent.name


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Have what is made meanwhile keep its machine code in `folder`: Numba reads both settings when it is made."""
    before = numba_config.CACHE_DIR, numba_config.CACHE_LOCATOR_CLASSES
    numba_config.CACHE_DIR = str(folder)
    numba_config.CACHE_LOCATOR_CLASSES = f"{KernelLocator.__module__}.{KernelLocator.__qualname__}"
    try:
        yield
    finally:
        numba_config.CACHE_DIR, numba_config.CACHE_LOCATOR_CLASSES = before


def compile_kernel(function: Function, folder: Path) -> Function:
    """Compile `function`, which Python and other kernels call; its machine code is kept in `folder`."""
    with _kept_in(folder):
        return _compiled(function, {**OPTIONS, "cache": True, "pipeline_class": KernelCompiler})


def compile_outline(function: Function, folder: Path, name: str) -> Function:
    """Compile `function`, which only kernels call, by itself: their machine code calls it under `name` instead of
    taking it in, so that what many kernels share is translated once. Its machine code is kept in `folder`.
    """
    with _kept_in(folder):
        returns = SCALARS[function.__annotations__["return"]]
        kind = returns(*signature(function))
        compiled = numba.cfunc(kind, cache=True, pipeline_class=KernelCompiler, **OPTIONS)(function)
    OUTLINES.append(compiled)  # as long as it is there, so is its machine code
    llvm.add_symbol(name, compiled.address)
    return cast(Function, types.ExternalFunction(name, kind))


def compile_routine(function: Function) -> Function:
    """Compile `function`, which only kernels call; it becomes part of their machine code."""
    part = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": PartCompiler}
    return _compiled(function, {**OPTIONS, **part})


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    """`function` as a dispatcher that compiles it once.

    Numba would compile a callee again for every mixture of literals and integer widths that its callers pass; what a
    kernel calls is therefore asked for by its annotations, and the arguments are converted to them.
    """
    dispatcher = numba.njit(**options)(function)
    ask = dispatcher.get_call_template
    annotations = [value for name, value in function.__annotations__.items() if name != "return"]
    wanted = [SCALARS.get(annotation) for annotation in annotations]

    def ask_as_annotated(args: Any, kws: Any) -> Any:
        assert not kws and len(args) == len(wanted), f"{function.__name__}: kernels are called by position"
        return ask([scalar or given for scalar, given in zip(wanted, args, strict=True)], kws)

    dispatcher.get_call_template = ask_as_annotated
    add, kind = dispatcher.add_overload, type(dispatcher)

    def call_directly(compiled: Any) -> None:
        """From now on Python goes straight to its machine code: to look whether there has to be another for what it is
        passed takes longer than many a kernel. It is passed what the annotations say; tests see to that.
        """
        add(compiled)
        entry = {"__call__": staticmethod(compiled.entry_point)}
        dispatcher.__class__ = type(kind.__name__, (kind,), entry)

    dispatcher.add_overload = call_directly
    return cast(Function, dispatcher)


def is_compiled(folder: Path) -> bool:
    """Whether the kernels that are kept in `folder` have all been compiled."""
    return (folder / "DONE").is_file()


def signature(function: Any) -> tuple[Any, ...]:
    """The compiler's types of a kernel's arguments, from its annotations; arrays have one dimension."""
    found = []
    for name, annotation in function.__annotations__.items():
        if name == "return":
            continue
        if annotation in SCALARS:
            found.append(SCALARS[annotation])
        elif hasattr(annotation, "_numba_type_"):
            found.append(annotation._numba_type_)
        else:
            element = get_args(get_args(annotation)[1])[0]  # of npt.NDArray[element]
            found.append(types.Array(numba.from_dtype(np.dtype(element)), 1, "C"))
    return tuple(found)


def compile_all(kernels: Mapping[str, Any], folder: Path, started: float | None = None) -> float:
    """Compile every one of these kernels into `folder` and return the seconds it took, since `started` if that is given
    (`time.perf_counter`).

    Of a name such as `placement-0123`, the caches of the latest few states are kept, so that two versions can live side
    by side; names of other kinds are others' caches.
    """
    started = time.perf_counter() if started is None else started
    assert kernels, "no kernel has registered"
    for dispatcher in kernels.values():
        dispatcher.compile(signature(dispatcher.py_func))
    seconds = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "DONE").write_text(f"{seconds:.1f} s\n", encoding="utf-8")
    kind = folder.name.rpartition("-")[0]
    alike = [path for path in folder.parent.iterdir() if path.name.rpartition("-")[0] == kind]
    for old in sorted(alike, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_CACHES:]:
        shutil.rmtree(old, ignore_errors=True)
    return seconds
