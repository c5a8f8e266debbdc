"""Numba's pipeline with another end, for kernels and for the parts of kernels.

What        `KernelCompiler`, for what Python or other machine code calls; `PartCompiler`, for functions that only
            kernels call, which ends with their LLVM code, unoptimised, for the kernels into which it goes.
Why         Parts: Numba makes each function that it compiles executable: it links in all that the function calls,
            optimises the whole and translates it to machine code. Of a function that is only called by others none of
            that is ever used, and what is deep down is optimised again at every level above. Without it all kernels
            compile in three quarters of the time, and what is optimised once, as a whole, is no slower.
            Indices: Numba looks at each whether it is below 0, and counts from the end of the array if so, which takes
            the array's length. Kernels never mean that, so theirs are unsigned.
            Aliases: what is written to one array might be read from another, for all that LLVM knows, and so it reads
            again. It is told that no two arrays that a function is handed overlap.
Invariants  A part cannot be called from Python: behind its name is no machine code. An index below 0 is no index. Two
            arguments are the same array only where nobody writes to it.
Departs     Libraries and lowering are Numba's own affair (as `_nrt` is, `kernels.py`); its version is pinned.
"""

from typing import Any

from numba import _dynfunc, types
from numba.core import codegen, compiler, lowering, typed_passes
from numba.core.compiler_machinery import register_pass


class _PartLibrary(codegen.JITCodeLibrary):  # type: ignore[misc]  # Numba is untyped
    """The LLVM code of a part and of all that it calls."""

    def _optimize_final_module(self) -> None:
        """Not here: as a part of each kernel."""

    def _finalize_final_module(self) -> None:
        """Complete as it is, and not given to the engine."""
        self._finalize_dynamic_globals()
        self._finalized = True


def _unsigned(index: Any) -> Any:
    """The type of an index, or of several, that is not below 0."""
    if isinstance(index, types.BaseTuple):
        return types.BaseTuple.from_types([_unsigned(one) for one in index])
    return types.uintp if isinstance(index, types.Integer) else index


def _with_unsigned(signature: Any) -> Any:
    """The types of an access, its index unsigned if it is one to an array."""
    holder, index, *rest = signature.args
    return signature.replace(args=(holder, _unsigned(index), *rest)) if isinstance(holder, types.Array) else signature


class _Lower(lowering.Lower):  # type: ignore[misc]
    """Down to LLVM code."""

    def lower_getitem(self, resty: Any, expr: Any, value: Any, index: Any, signature: Any) -> Any:
        """An entry that is read."""
        return super().lower_getitem(resty, expr, value, index, _with_unsigned(signature))

    def lower_setitem(self, target_var: Any, index_var: Any, value_var: Any, signature: Any) -> Any:
        """An entry that is written."""
        return super().lower_setitem(target_var, index_var, value_var, _with_unsigned(signature))


@register_pass(mutates_CFG=True, analysis_only=False)
class _KernelLowering(typed_passes.NativeLowering):  # type: ignore[misc]
    """Down to machine code."""

    _name = "kernel_lowering"

    def run_pass(self, state: Any) -> bool:
        """Lower the function."""
        state.flags.noalias = True
        return bool(super().run_pass(state))

    @property
    def lowering_class(self) -> type[_Lower]:
        """By whom."""
        return _Lower


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(_KernelLowering):
    """Down to LLVM code, and known to callers."""

    _name = "part_lowering"

    def run_pass(self, state: Any) -> bool:
        """Lower the function into a library of its own."""
        state.library = _PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        result, library = state.cr, state.library
        # What callers know it by; the library must live as long.
        name = result.fndesc.qualname.rpartition(".")[2]
        known = _dynfunc.make_function(result.fndesc.lookup_module(), name, "", 0, result.env, (library,))
        state.targetctx.insert_user_function(known, result.fndesc, [library])
        state["cr"] = result._replace(cfunc=known)
        return True


class KernelCompiler(compiler.Compiler):  # type: ignore[misc]
    """Numba's pipeline, with another end."""

    lowers = _KernelLowering

    def define_pipelines(self) -> list[Any]:
        """The passes."""
        (passes,) = super().define_pipelines()
        manager = compiler.PassManager(passes.pipeline_name)
        for each, description in passes.passes:
            manager.add_pass(self.lowers if each is typed_passes.NativeLowering else each, description)
        manager.finalize()
        return [manager]


class PartCompiler(KernelCompiler):
    """The same for a part."""

    lowers = _PartLowering
