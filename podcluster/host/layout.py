"""Tuples of arrays as kernels see them: one pointer each.

What        `Arrays` is a fixed set of named arrays whose addresses stand in a small table. A kernel is handed the
            table's address and reads from it the arrays that it uses; to Python it is an object with attributes.
Why         Numba hands a tuple of arrays over as all the fields of all the arrays, at every call and at every level:
            over a hundred values, most of the compile time and several times the cost of a call from Python.
Invariants  The table does not change as long as the object lives: a kernel may read it once. Arrays that grow make a
            new object.
"""

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core.datamodel import models, register_default
from numba.core.pythonapi import NativeValue, unbox
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, lower_getattr_generic
from numba.np.arrayobj import make_array, populate_array
from numba.np.numpy_support import from_dtype

_where, _bytes_of = ctypes.addressof, cast(Callable[[npt.NDArray[Any]], ctypes.c_char], ctypes.c_char.from_buffer)


class Field(NamedTuple):
    """One array: its name, what it holds, and the shape of an entry."""

    name: str
    dtype: np.dtype[Any]
    entry: tuple[int, ...] = ()


class ArraysType(types.Type):  # type: ignore[misc]  # Numba is untyped
    """The compiler's type of an `Arrays` class."""

    def __init__(self, name: str, fields: tuple[Field, ...]) -> None:
        self.fields = fields
        super().__init__(name=f"Arrays({name})")

    def index(self, name: str) -> int:
        """Place of an array in the table."""
        return next(k for k, field in enumerate(self.fields) if field.name == name)

    def array(self, name: str) -> types.Array:
        """The compiler's type of an array."""
        field = self.fields[self.index(name)]
        return types.Array(from_dtype(field.dtype), 1 + len(field.entry), "C")


def _address(array: npt.NDArray[Any]) -> int:
    """Where an array begins, which must be C-ordered; `array.ctypes` is several times slower, and so is a buffer that
    describes records.
    """
    if not array.size:
        return 0  # nobody reads there
    plain = array if array.dtype.names is None else array.view(np.uint8)
    return _where(_bytes_of(plain))


def for_kernels(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The same in an array of the one kind that kernels are compiled for: one that may be written, which those that Ray
    hands over may not. (`np.require` takes many times as long to see that it is one.)
    """
    fits = values.dtype == np.int64 and values.flags.c_contiguous and values.flags.writeable
    return values if fits else np.array(values, np.int64)


class Arrays:
    """Named arrays, C-ordered, behind one address. Subclasses say which by `FIELDS` and annotate them."""

    FIELDS: ClassVar[tuple[Field, ...]] = ()
    _numba_type_: ClassVar[Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._numba_type_ = ArraysType(cls.__name__, cls.FIELDS)

    def __init__(self, **arrays: npt.NDArray[Any]) -> None:
        assert len(arrays) == len(self.FIELDS), "an array too many or too few"
        words: list[int] = []
        for name, dtype, entry in self.FIELDS:
            array = arrays[name]
            assert array.dtype == dtype and (array.shape[1:] == entry if entry else array.ndim == 1), name
            words += _address(array), len(array)
        vars(self).update(arrays)
        self._table = np.array(words, np.int64)
        self.address = _address(self._table)

    def replace(self, **arrays: npt.NDArray[Any]) -> Self:
        """The same with some arrays exchanged."""
        kept = {field.name: getattr(self, field.name) for field in self.FIELDS}
        return type(self)(**{**kept, **arrays})


@register_default(ArraysType)
class _ArraysModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, ir.IntType(64).as_pointer())


@infer_getattr
class _ArraysAttribute(AttributeTemplate):  # type: ignore[misc]
    key = ArraysType

    def generic_resolve(self, arrays: ArraysType, name: str) -> types.Array:
        return arrays.array(name)


def _load_constant(builder: Any, table: Any, at: int) -> Any:
    """A word of the table, which LLVM may take for granted."""
    word = ir.IntType(64)
    load = builder.load(builder.gep(table, [ir.Constant(word, at)], inbounds=True))
    load.set_metadata("invariant.load", builder.module.add_metadata([]))
    return load


@lower_getattr_generic(ArraysType)  # type: ignore[untyped-decorator]
def _get_array(context: Any, builder: Any, arrays: ArraysType, table: Any, name: str) -> Any:
    """Build the array's structure from the table; it belongs to nobody's reference count."""
    k = arrays.index(name)
    kind = arrays.array(name)
    field = arrays.fields[k]
    array = make_array(kind)(context, builder)
    size = field.dtype.itemsize
    strides: list[int] = []
    for extent in reversed(field.entry):
        strides.insert(0, size)
        size *= extent
    strides.insert(0, size)
    word = ir.IntType(64)
    populate_array(
        array,
        data=builder.inttoptr(_load_constant(builder, table, 2 * k), array.data.type),
        shape=[_load_constant(builder, table, 2 * k + 1), *(ir.Constant(word, extent) for extent in field.entry)],
        strides=[ir.Constant(word, stride) for stride in strides],
        itemsize=ir.Constant(word, field.dtype.itemsize),
        meminfo=None,
    )
    return array._getvalue()


@unbox(ArraysType)  # type: ignore[untyped-decorator]
def _unbox_arrays(kind: ArraysType, value: Any, c: Any) -> NativeValue:
    number = c.pyapi.object_getattr_string(value, "address")
    address = c.pyapi.long_as_longlong(number)
    c.pyapi.decref(number)
    return NativeValue(c.builder.inttoptr(address, ir.IntType(64).as_pointer()))


def fields(*described: tuple[Any, ...]) -> tuple[Field, ...]:
    """Fields from (name, type[, shape of an entry])."""
    return tuple(Field(name, np.dtype(dtype), *rest) for name, dtype, *rest in described)
