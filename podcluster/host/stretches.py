"""The time in which a guest loses to misses, cut where anything changes, and what it loses in each piece.

What        For swap.py: `cut_spans` cuts spans of time at the instants of a curve and at the ends of other stretches;
            `weigh` says what is lost in each piece; `time_in` how long stretches are.
Units       ns of simulated time; pages of 4 KiB.
Symbols     k       x of [SW-3] for each page that is out
            out     pages of W that are out: W between what is in memory (low) and the most to be had (high)
Why so      Between the two log(1 + k out) is taken of the whole array: NumPy does it many at a time.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.kernel import kernel, routine

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# A piece of time in which W is on one line.
LEFT = 0  # W where it begins,
RIGHT = 1  # and where it ends
LOW = 2
HIGH = 3
NS = 4  # how long it is
PIECE_FIELDS = 5


@routine
def _value(t: Ints, w: Ints, j: int, at: float) -> float:
    """W at an instant, where sample j is the last that is not after it: as `np.interp` has it."""
    if j < 0:
        return np.float64(w[0])
    before = np.float64(t[j])
    left = np.float64(w[j])
    if j + 1 == t.shape[0] or before == at:
        return left
    return (np.float64(w[j + 1]) - left) / (np.float64(t[j + 1]) - before) * (at - before) + left


@routine
def _out(wanted: float, low: float, high: float) -> float:
    return min(max(wanted, low), high) - low


@routine
def _share(k: float, out: float) -> float:
    """What of real time is lost, x / (1 + x)."""
    return k * out / (1.0 + k * out)


@kernel
def cut_spans(spans: Ints, t: Ints, w: Ints, edges: Ints, k: float, cut: Floats, outs: Floats) -> int:
    """Cut spans (low, high, from, to), apart and in order, at each of `t` and at the `edges` of stretches, which begin
    and end by turns; how many pieces are in no stretch, and where `high` is above `low`. They come into `cut`, and k
    out at both ends of each into `outs`; there is room for all that is given.
    """
    pieces = 0
    i = 0
    j = 0
    sample = -1
    for s in range(0, spans.shape[0], 4):
        now, end = spans[s + 2], spans[s + 3]
        if end <= now or spans[s + 1] <= spans[s]:
            continue
        low = np.float64(spans[s])
        high = np.float64(spans[s + 1])
        while now < end:
            while i < t.shape[0] and t[i] <= now:
                i += 1
            while j < edges.shape[0] and edges[j] <= now:
                j += 1
            begin = now
            now = end
            if i < t.shape[0]:
                now = min(now, t[i])
            if j < edges.shape[0]:
                now = min(now, edges[j])
            if j % 2:
                continue
            at = pieces * PIECE_FIELDS
            for side in range(2):
                instant = np.float64(now if side else begin)
                while sample + 1 < t.shape[0] and np.float64(t[sample + 1]) <= instant:
                    sample += 1
                wanted = _value(t, w, sample, instant)
                cut[at + LEFT + side] = wanted
                outs[2 * pieces + side] = k * _out(wanted, low, high)
            cut[at + LOW] = low
            cut[at + HIGH] = high
            cut[at + NS] = np.float64(now - begin)
            pieces += 1
    return pieces


@kernel
def weigh(cut: Floats, logs: Floats, k: float, lost: Floats) -> None:
    """What is lost in each of these pieces: the mean of x / (1 + x) along the line from W on the left to that on the
    right, by its integral over W, times how long it is. `logs` is log(1 + k out) at both ends of each.
    """
    for piece in range(lost.shape[0]):
        at = piece * PIECE_FIELDS
        left, right, low, high = cut[at + LEFT], cut[at + RIGHT], cut[at + LOW], cut[at + HIGH]
        out_left = _out(left, low, high)
        out_right = _out(right, low, high)
        rise = right - left
        if abs(rise) >= 1.0:  # or the difference below is all rounding
            top = _share(k, high - low)
            until_left = out_left - logs[2 * piece] / k + top * max(0.0, left - high)
            until_right = out_right - logs[2 * piece + 1] / k + top * max(0.0, right - high)
            mean = (until_right - until_left) / rise
        else:
            mean = (_share(k, out_right) + _share(k, out_left)) / 2.0
        lost[piece] = mean * cut[at + NS]


@kernel
def time_in(edges: Ints, end: int) -> int:
    """How much of these stretches, which begin and end by turns, is before `end`."""
    ns = np.int64(0)
    for k in range(0, edges.shape[0], 2):
        ns += max(0, min(edges[k + 1], end) - edges[k])
    return int(ns)
