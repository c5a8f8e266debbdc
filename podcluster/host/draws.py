"""The first numbers of many named streams in one call.

What        `first_numbers`: of each stream what its `random()` gives first, without making any of them.
Why         A boot draws one number from each of ten streams, and to make a stream takes ten times as long as to hash
            its name.
Units       Words of 32 bits, as SeedSequence has them, in the lower halves of uint64.
Invariants  [RN-1] equal to the bit to `rng.stream(...).random()`.
Source      numpy's SeedSequence, and PCG64DXSM as numpy seeds it.
Departs     nowhere.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from podcluster.host.kernel import kernel, routine
from podcluster.rng import entropies

POOL: Final = 4  # words that SeedSequence mixes all its entropy into

LOW32 = np.uint64(0xFFFFFFFF)
U1, U11, U16, U32, U48, U63 = (np.uint64(k) for k in (1, 11, 16, 32, 48, 63))
INIT_A, MULT_A = np.uint64(0x43B0D7E5), np.uint64(0x931E8875)  # of words on their way into the pool
INIT_B, MULT_B = np.uint64(0x8B51F9DD), np.uint64(0x58F38DED)  # and out of it
MIX_L, MIX_R = np.uint64(0xCA01F9DD), np.uint64(0x4973F715)
STEP_HIGH, STEP_LOW = np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645)  # of PCG64 while it is seeded
CHEAP = np.uint64(0xDA942042E4DD58B5)  # of DXSM


def first_numbers(root_seed: int, path: Iterable[str | int], names: Iterable[str]) -> list[float]:
    """`stream(root_seed, *path, name).random()` for each name."""
    of = "/".join(map(str, path))
    seeds = entropies(root_seed, [f"{of}/{name}" for name in names])
    if not seeds:
        return []
    words = np.frombuffer(b"".join(seeds), dtype="<u4").astype(np.uint64)
    found = np.empty(len(seeds))
    draw_first(words, found)
    numbers: list[float] = found.tolist()
    return numbers


@routine
def _hashed(word: np.uint64, constant: np.uint64, factor: np.uint64) -> np.uint64:
    """A word of SeedSequence hashed with a constant, which `factor` makes the next one."""
    word = ((word ^ constant) * (constant * factor & LOW32)) & LOW32
    return word ^ (word >> U16)


@routine
def _mixed(x: np.uint64, y: np.uint64) -> np.uint64:
    """Two words of SeedSequence as one."""
    word = (MIX_L * x - MIX_R * y) & LOW32
    return word ^ (word >> U16)


@routine
def _high(x: np.uint64, y: np.uint64) -> np.uint64:
    """The upper 64 of the 128 bits of a product."""
    x_low, x_high = x & LOW32, x >> U32
    y_low, y_high = y & LOW32, y >> U32
    middle = x_high * y_low + (x_low * y_low >> U32)
    return x_high * y_high + (middle >> U32) + ((middle & LOW32) + x_low * y_high >> U32)


@routine
def _drawn(words: npt.NDArray[np.uint64], pool: int, i: int) -> np.uint64:
    """Number `i` of the words of 64 bits that the pool at `pool` gives."""
    constant = INIT_B
    for _ in range(2 * i):
        constant = constant * MULT_B & LOW32
    low = _hashed(words[pool + (2 * i & 3)], constant, MULT_B)
    return low | _hashed(words[pool + (2 * i + 1 & 3)], constant * MULT_B & LOW32, MULT_B) << U32


@routine
def _first_number(words: npt.NDArray[np.uint64], pool: int) -> float:
    """The first number of a PCG64DXSM that the pool at `pool` seeds: its state is (increment + seed) x step +
    increment, in 128 bits, and its output a hash of that.
    """
    last = _drawn(words, pool, 3)
    add_low = last << U1 | U1
    add_high = _drawn(words, pool, 2) << U1 | last >> U63
    low = add_low + _drawn(words, pool, 1)
    high = add_high + _drawn(words, pool, 0) + np.uint64(low < add_low)
    high = high * STEP_LOW + low * STEP_HIGH + _high(low, STEP_LOW) + add_high
    low = low * STEP_LOW + add_low
    high += np.uint64(low < add_low)
    high ^= high >> U32
    high *= CHEAP
    high ^= high >> U48
    return float(high * (low | U1) >> U11) * 2.0**-53


@kernel
def draw_first(words: npt.NDArray[np.uint64], found: npt.NDArray[np.float64]) -> None:
    """The first number in [0, 1) of each of as many seeds as `found` has room for, all as long; the first four words
    of each become its pool.
    """
    size = words.shape[0] // found.shape[0]
    for k in range(found.shape[0]):
        pool = k * size
        constant = INIT_A
        for i in range(pool, pool + POOL):
            words[i] = _hashed(words[i], constant, MULT_A)
            constant = constant * MULT_A & LOW32
        for i in range(pool, pool + size):
            for j in range(pool, pool + POOL):
                if i != j:
                    words[j] = _mixed(words[j], _hashed(words[i], constant, MULT_A))
                    constant = constant * MULT_A & LOW32
        found[k] = _first_number(words, pool)
