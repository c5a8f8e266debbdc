"""What records are made of, and how they go from process to process.

What        `Int64Array`, the arrays in them; `Sent`, what they are if they go elsewhere by the thousand; `column`, a
            field that is a column of a table.
Invariants  A record that is `Sent` is made of the values of its fields, in order, and of nothing else: what arrives is
            what went.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Int64Array: TypeAlias = NDArray[np.int64]


class Sent:
    """What goes from process to process by the thousand: written and made again by its values, in order. What
    dataclasses with slots have for that looks their fields up each time, and takes two to three times as long.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        kind: Any = type(self)
        return kind, _values_of(kind)(self)


@cache
def _values_of(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of all fields."""
    return attrgetter(*(one.name for one in fields(kind)))


def column(unit: str, doc: str, *, label: bool = False, arrow: str = "") -> Any:
    """A dataclass field that is a table's column: `unit` ("1" for pure numbers, "-" for text) and a one-line `doc`.

    `label` marks text of few distinct values (stored as a dictionary); `arrow` overrides the stored type, which
    otherwise follows the annotation (int -> int64, float -> float64, str -> string, `| None` -> nullable).
    """
    return field(metadata={"unit": unit, "doc": doc, "label": label, "arrow": arrow})
