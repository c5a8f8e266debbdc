"""Calls of kernels from Python, each of whose arguments is looked at: machine code takes them as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba import types

from podcluster.kernels import signature

NUMBERS: dict[Any, Any] = {types.int64: (int, np.int64), types.boolean: (bool, np.bool_), types.float64: float}


@contextmanager
def checked(kernels: Iterable[Any]) -> Iterator[Counter[str]]:
    """Have every call of these kernels fail that passes anything but what their annotations say; how many calls each
    has had.
    """
    calls: Counter[str] = Counter()
    direct = {dispatcher: type(dispatcher) for dispatcher in kernels}
    for dispatcher, kind in direct.items():
        dispatcher.__class__ = type(kind.__name__, (kind,), {"__call__": _looking(dispatcher, calls)})
    try:
        yield calls
    finally:
        for dispatcher, kind in direct.items():
            dispatcher.__class__ = kind


def _looking(dispatcher: Any, calls: Counter[str]) -> Any:
    name = dispatcher.py_func.__name__
    wanted = signature(dispatcher.py_func)
    (compiled,) = dispatcher.overloads.values()

    def call(_: Any, *args: Any) -> Any:
        calls[name] += 1
        assert len(args) == len(wanted), f"{name} of {len(args)} arguments"
        for k, (arg, kind) in enumerate(zip(args, wanted, strict=True)):
            fine = isinstance(arg, NUMBERS[kind]) if kind in NUMBERS else numba.typeof(arg) == kind
            assert fine, f"argument {k} of {name}: {type(arg)}, not {kind}"
        return compiled.entry_point(*args)

    return call
