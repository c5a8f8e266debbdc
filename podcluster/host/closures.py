"""Functions that are made inside functions, as plain data.

What        `reduced` and `reduced_cell` say to pickle how to make a lambda, or a function within a function, again: by
            the place of its code in its module, what it closes over, and its defaults. Functions of a module itself are
            pickled by name as ever.
Place       The code of a module holds the code of all its functions, each among the constants of the one around it;
            places are counted over them in order. They hold for one version of the source, and so does what is pickled.
Cells       A variable that two functions close over is one cell, and stays one.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import CellType, CodeType, FunctionType
from typing import Any

from podcluster.errors import InvariantError


def is_inner(function: FunctionType) -> bool:
    """Whether nobody can find it by its name."""
    return "<" in function.__qualname__  # `<locals>` or `<lambda>`


def reduced(function: FunctionType) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """How to make an inner function again."""
    code = function.__code__
    place = _codes(function.__module__).get(code)
    if place is None:
        raise InvariantError(f"[SN-1] {function.__module__} holds the code of {function.__qualname__} violated")
    made_of = (function.__module__, place, function.__closure__, function.__defaults__, function.__kwdefaults__)
    return _function, made_of


def reduced_cell(cell: CellType) -> tuple[Any, ...]:
    """How to make a cell again: empty first, for what is in it may lead back to it."""
    try:
        return _cell, (), cell.cell_contents, None, None, _fill
    except ValueError:  # nothing was put in
        return _cell, ()


def _cell() -> CellType:
    return CellType()


def _fill(cell: CellType, contents: Any) -> None:
    cell.cell_contents = contents


def _function(
    module: str,
    place: int,
    closure: tuple[CellType, ...] | None,
    defaults: tuple[Any, ...] | None,
    keyword_defaults: dict[str, Any] | None,
) -> FunctionType:
    code = list(_codes(module))[place]
    function = FunctionType(code, vars(sys.modules[module]), code.co_name, defaults, closure)
    function.__kwdefaults__ = keyword_defaults
    return function


@cache
def _codes(module: str) -> dict[CodeType, int]:
    """All code of a module, in order."""
    importlib.import_module(module)
    spec = importlib.util.find_spec(module)
    loader: Any = spec.loader if spec is not None else None
    found: dict[CodeType, int] = {}
    for code in _within(loader.get_code(module)):
        found.setdefault(code, len(found))
    return found


def _within(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _within(constant)
