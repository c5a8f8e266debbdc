"""The kernels of the host: their sources, their cache, and the bit instructions they share.

What        `kernel` and `routine` compile a plain function on arrays as `podcluster.kernels` says; `compile_all` does
            so for all of them. Their machine code is kept in one folder per state of `KERNEL_SOURCES`.
"""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from podcluster import kernels
from podcluster.kernels import OPTIONS, Function, compile_routine, signature

__all__ = [
    "KERNELS",
    "KERNEL_SOURCES",
    "OPTIONS",
    "clz",
    "ctz",
    "kernel",
    "move",
    "outline",
    "popcount",
    "routine",
    "signature",
]

KERNEL_SOURCES = (
    "kernel.py",
    "layout.py",
    "written.py",
    "draws.py",
    "stretches.py",
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
    "waves.py",
    "whole_blocks.py",
    "ranges.py",
    "page_sets.py",
    "page_stacks.py",
    "batches.py",
    "merged.py",
    "turns.py",
    "follow.py",
    "follow_held.py",
    "follow_pieces.py",
    "follow_quiet.py",
    "follow_demand.py",
    "access.py",
    "audit.py",
    "hashes.py",
)
"""Every file of this folder that holds compiled code, or constants that compiled code has taken in."""

KERNELS: dict[str, Any] = {}
"""Every kernel that has been imported, by module and name."""

routine = compile_routine


def source_hash() -> str:
    """Name of the present state of all kernel sources and of what compiles them (16 hex digits)."""
    return kernels.source_hash(Path(__file__).resolve().parent, KERNEL_SOURCES)


def cache_folder() -> Path:
    """Folder of the kernels compiled from the sources as they are now."""
    return kernels.cache_root() / source_hash()


_FOLDER = cache_folder()


def kernel(function: Function) -> Function:
    """Compile `function`, which Python and other kernels call, with the options that all share; its machine code is
    kept.
    """
    dispatcher = kernels.compile_kernel(function, _FOLDER)
    KERNELS[f"{function.__module__}:{function.__name__}"] = dispatcher
    return dispatcher


def outline(function: Function) -> Function:
    """Compile `function`, which only kernels call, once and by itself (`podcluster.kernels`)."""
    return kernels.compile_outline(function, _FOLDER, f"podcluster_{source_hash()}_{function.__name__}")


def is_compiled() -> bool:
    """Whether the kernels of the present sources have been compiled on this machine."""
    return kernels.is_compiled(cache_folder())


def compile_all() -> float:
    """Compile every kernel and return the seconds it took."""
    started = time.perf_counter()
    import podcluster.host.machine  # noqa: F401  # it uses every kernel, and so makes them register

    return kernels.compile_all(KERNELS, cache_folder(), started)


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


def _move(typingctx: Any, array: Any, to: Any, first: Any, count: Any) -> Any:
    """`array[to : to + count] = array[first : first + count]` of one dimension, as if by way of a copy."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = make_array(array)(context, builder, args[0]).data
        target, source = (builder.gep(data, [index]) for index in args[1:3])
        cgutils.raw_memmove(builder, target, source, args[3], array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64), codegen


move: Callable[[npt.NDArray[Any], int, int, int], None] = intrinsic(_move)
"""Copy entries of an array to another place in it, `(array, to, first, count)`; the two may overlap."""


if __name__ == "__main__":
    # The module by its name, where the kernels have registered; run as a script this is another copy of it.
    raise SystemExit(importlib.import_module("podcluster.host.kernel").main())
