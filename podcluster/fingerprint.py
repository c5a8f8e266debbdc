"""Which podcluster this is, to the byte: what is computed by one must not be gone on with by another.

What        A hash of every source file of the package and of the versions that results may depend on. Actors on other
            nodes and checkpoints of earlier processes are compared by it.
Departs     From the kernels' own hash (`kernels.py`), which is of their sources alone and names a cache.
"""

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

PACKAGES: Final = ("numba", "numpy")


@cache
def fingerprint() -> str:
    """Name of these sources with this Python, Numba and NumPy (16 hex digits)."""
    package = Path(__file__).resolve().parent
    digest = hashlib.blake2s(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(platform.python_version().encode())
    for name in PACKAGES:
        digest.update(f" {name} {version(name)}".encode())
    return digest.hexdigest()
