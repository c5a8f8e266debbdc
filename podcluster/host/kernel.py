"""How kernels are compiled: one set of options, one cache, and the bit instructions they share.

What        `kernel` compiles a plain function on arrays with Numba. All kernels are compiled with the same options,
            and their machine code is kept in one folder per state of the sources.
Cache       Numba looks only at the file of the kernel it is about to load: after an edit of a *callee* in another
            file the callers would silently keep the old code. The folder is therefore named by a hash of every kernel
            source and of the versions of Numba and Python, so no stale code can be met.
Options     `_nrt=False` takes Numba's runtime out of a kernel: no allocation and no reference counting. Counting is
            an atomic operation per array and call and made the same code 20 to 30 times slower. The option is private
            to Numba, which is why its version is pinned; `tests/host/test_kernel.py` notices when it stops working.
"""

import hashlib
import importlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import numba
import numpy as np
from numba import types
from numba.core import config as numba_config
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])

KERNEL_SOURCES = (
    "kernel.py",
    "layout.py",
    "written.py",
    "state.py",
    "heap.py",
    "rows.py",
    "pending.py",
    "contents.py",
    "p2m.py",
    "lists.py",
    "frames.py",
    "cache.py",
    "reclaim.py",
    "pod.py",
    "reservation.py",
    "teardown.py",
    "ranges.py",
    "batches.py",
    "merged.py",
    "follow.py",
    "access.py",
    "audit.py",
    "hashes.py",
)
"""Every file of this folder that holds compiled code, or constants that compiled code has taken in."""

KERNELS: dict[str, Any] = {}
"""Every kernel that has been imported, by module and name."""

KEPT_CACHES = 3

SCALARS: dict[Any, Any] = {int: types.int64, bool: types.boolean, float: types.float64, np.uint64: types.uint64}
"""What the scalar annotations of kernels mean to the compiler."""

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}


def source_hash() -> str:
    """Name of the present state of all kernel sources and of what compiles them (16 hex digits)."""
    digest = hashlib.blake2s(digest_size=8)
    folder = Path(__file__).resolve().parent
    for name in KERNEL_SOURCES:
        digest.update(name.encode() + b"\0" + (folder / name).read_bytes() + b"\0")
    digest.update(f"{numba.__version__} {np.__version__} {platform.python_version()} {platform.machine()}".encode())
    return digest.hexdigest()


def cache_root() -> Path:
    """Folder of all compiled kernels: `PODCLUSTER_KERNEL_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("PODCLUSTER_KERNEL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podcluster" / "kernels"


def cache_folder() -> Path:
    """Folder of the kernels compiled from the sources as they are now."""
    return cache_root() / source_hash()


numba_config.CACHE_DIR = str(cache_folder())


def kernel(function: Function) -> Function:
    """Compile `function`, which Python and other kernels call, with the options that all share; its machine code is
    kept.
    """
    dispatcher = _compiled(function, {**OPTIONS, "cache": True})
    KERNELS[f"{function.__module__}:{function.__name__}"] = dispatcher
    return dispatcher


def routine(function: Function) -> Function:
    """Compile `function`, which only kernels call, with the options that all share; it becomes part of their machine
    code.
    """
    return _compiled(function, {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True})


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
    return cast(Function, dispatcher)


def is_compiled() -> bool:
    """Whether the kernels of the present sources have been compiled on this machine."""
    return (cache_folder() / "DONE").is_file()


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


def compile_all() -> float:
    """Compile every kernel and return the seconds it took.

    The caches of the latest few states of the sources are kept, so that two versions can live side by side.
    """
    started = time.perf_counter()
    import podcluster.host.machine  # noqa: F401  # it uses every kernel, and so makes them register

    assert KERNELS, "no kernel has registered"
    for dispatcher in KERNELS.values():
        dispatcher.compile(signature(dispatcher.py_func))
    seconds = time.perf_counter() - started
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "DONE").write_text(f"{seconds:.1f} s\n", encoding="utf-8")
    others = sorted(cache_root().iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[KEPT_CACHES:]:
        shutil.rmtree(old, ignore_errors=True)
    return seconds


def main() -> int:
    """`python -m podcluster.host.kernel`: compile the kernels, once per installation, and say so."""
    if is_compiled():
        sys.stdout.write(f"kernels: compiled already ({cache_folder()})\n")
        return 0
    sys.stdout.write("kernels: compiling the page kernels, once per installation (about half a minute) ...\n")
    sys.stdout.flush()
    sys.stdout.write(f"kernels: compiled in {compile_all():.1f} s ({cache_folder()})\n")
    return 0


def _bit_instruction(name: str) -> Any:
    """The LLVM instruction `name`, from uint64 to int64, as something that kernels can call."""

    def typing(typingctx: Any, word: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if name == "ctpop":
                return builder.ctpop(args[0])
            # The second operand says that zero is a defined input.
            return getattr(builder, name)(args[0], context.get_constant(types.boolean, False))

        return types.int64(types.uint64), codegen

    return intrinsic(typing)


popcount: Callable[[np.uint64], int] = _bit_instruction("ctpop")
"""Number of one bits of a uint64."""
ctz: Callable[[np.uint64], int] = _bit_instruction("cttz")
"""Index of the lowest one bit of a uint64; 64 for zero."""
clz: Callable[[np.uint64], int] = _bit_instruction("ctlz")
"""Number of zero bits above the highest one bit of a uint64; 64 for zero."""


if __name__ == "__main__":
    # The module by its name, where the kernels have registered; run as a script this is another copy of it.
    raise SystemExit(importlib.import_module("podcluster.host.kernel").main())
