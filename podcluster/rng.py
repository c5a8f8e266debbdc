"""A name for every stream of random numbers.

`stream(seed, "host", 3, "domain", 7, "touch")` gives the same numbers wherever it is asked for and whoever else exists:
adding a domain, an actor or a policy leaves every other draw alone, so that two policies meet the same guests (common
random numbers). A stream costs about 7 us to make: one per domain and purpose, never one per event.
"""

from collections.abc import Iterable
from hashlib import blake2s

import numpy as np


def key(root_seed: int, *path: str | int) -> int:
    """64 bits that belong to `path` under `root_seed`, for hashes by a counter inside kernels."""
    text = "/".join(map(str, (root_seed, *path)))
    return int.from_bytes(blake2s(text.encode(), digest_size=8).digest(), "little")


def stream(root_seed: int, *path: str | int) -> np.random.Generator:
    """Make the generator that belongs to `path` under `root_seed` (>= 0)."""
    # Words as numpy wants them: from a list of numbers it makes the same in three times as long.
    words = np.frombuffer(entropy(root_seed, *path), dtype="<u4")
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(words)))


def entropy(root_seed: int, *path: str | int) -> bytes:
    """What `stream` is seeded with: words of 32 bits, four for the path and then as many as the seed has."""
    return entropies(root_seed, ["/".join(map(str, path))])[0]


def entropies(root_seed: int, paths: Iterable[str]) -> list[bytes]:
    """The same for each of these paths, written with slashes."""
    seed = root_seed.to_bytes(4 * max(1, -(-root_seed.bit_length() // 32)), "little")
    return [blake2s(path.encode(), digest_size=16).digest() + seed for path in paths]
