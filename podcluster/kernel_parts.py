"""Parts of kernels: how Numba is kept from finishing code that nobody calls by itself.

What        `PartCompiler`, a Numba pipeline for functions that only kernels call. It ends with a function's LLVM code,
            unoptimised, for the kernels into which it goes.
Why         Numba makes each function that it compiles executable: it links in all that the function calls, optimises
            the whole and translates it to machine code. Of a function that is only called by others none of that is
            ever used, and what is deep down is optimised again at every level above. Without it all kernels compile in
            three quarters of the time, and what is optimised once, as a whole, is no slower.
Invariants  A part cannot be called from Python: behind its name is no machine code.
Departs     Libraries and lowering are Numba's own affair (as `_nrt` is, `kernels.py`); its version is pinned.
"""

from typing import Any

from numba import _dynfunc
from numba.core import codegen, compiler, typed_passes
from numba.core.compiler_machinery import register_pass


class _PartLibrary(codegen.JITCodeLibrary):  # type: ignore[misc]  # Numba is untyped
    """The LLVM code of a part and of all that it calls."""

    def _optimize_final_module(self) -> None:
        """Not here: as a part of each kernel."""

    def _finalize_final_module(self) -> None:
        """Complete as it is, and not given to the engine."""
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(typed_passes.NativeLowering):  # type: ignore[misc]
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


class PartCompiler(compiler.Compiler):  # type: ignore[misc]
    """Numba's pipeline, with another end."""

    def define_pipelines(self) -> list[Any]:
        """The passes."""
        (passes,) = super().define_pipelines()
        manager = compiler.PassManager(passes.pipeline_name)
        for each, description in passes.passes:
            manager.add_pass(_PartLowering if each is typed_passes.NativeLowering else each, description)
        manager.finalize()
        return [manager]
