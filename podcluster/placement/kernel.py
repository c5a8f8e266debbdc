"""The kernels of placement: their sources and their cache, compiled as `podcluster.kernels` says."""

import importlib
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from podcluster import kernels
from podcluster.kernels import Function, compile_routine

Int64s = npt.NDArray[np.int64]

KERNEL_SOURCES: Final = ("kernel.py", "fields.py", "weigh.py", "search.py")
"""Every file of this folder that holds compiled code."""

KERNELS: dict[str, Any] = {}
"""Every kernel that has been imported, by module and name."""

routine = compile_routine


def cache_folder() -> Path:
    """Folder of the kernels compiled from the sources as they are now."""
    return kernels.cache_root() / f"placement-{kernels.source_hash(Path(__file__).resolve().parent, KERNEL_SOURCES)}"


_FOLDER = cache_folder()


def kernel(function: Function) -> Function:
    """Compile `function`, which Python calls; its machine code is kept."""
    dispatcher = kernels.compile_kernel(function, _FOLDER)
    KERNELS[f"{function.__module__}:{function.__name__}"] = dispatcher
    return dispatcher


def is_compiled() -> bool:
    """Whether the kernels of the present sources have been compiled on this machine."""
    return kernels.is_compiled(cache_folder())


def compile_all() -> float:
    """Compile every kernel and return the seconds it took."""
    importlib.import_module("podcluster.placement.search")  # it has them all
    return kernels.compile_all(KERNELS, cache_folder())


def main() -> int:
    """`python -m podcluster.placement.kernel`: compile the kernels, once per installation, and say so."""
    took = "compiled already" if is_compiled() else f"compiled in {compile_all():.1f} s"
    sys.stdout.write(f"kernels of placement: {took} ({cache_folder()})\n")
    return 0


if __name__ == "__main__":
    # The module by its name, where the kernels have registered; run as a script this is another copy of it.
    raise SystemExit(importlib.import_module("podcluster.placement.kernel").main())
