"""The time in which a guest loses to misses, cut where anything changes.

What        `cut_spans`, for swap.py: spans of time cut at the instants of a curve and at the ends of other stretches.
Units       ns of simulated time; pages of 4 KiB.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.kernel import kernel

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@kernel
def cut_spans(spans: Ints, t: Ints, edges: Ints, instants: Ints, at: Ints, low: Floats, high: Floats) -> int:
    """Cut spans (low, high, from, to), apart and in order, at each of `t` and at the `edges` of stretches, which begin
    and end by turns; how many pieces are in no stretch, and where `high` is above `low`. Piece k goes from instant
    number at[k] to the next, in a span with low[k] and high[k]. There is room for all that is given.
    """
    pieces = 0
    n = 0
    i = 0
    j = 0
    for s in range(0, spans.shape[0], 4):
        now, end = spans[s + 2], spans[s + 3]
        if end <= now or spans[s + 1] <= spans[s]:
            continue
        instants[n] = now
        n += 1
        while now < end:
            while i < t.shape[0] and t[i] <= now:
                i += 1
            while j < edges.shape[0] and edges[j] <= now:
                j += 1
            if j % 2 == 0:
                at[pieces] = n - 1
                low[pieces] = spans[s]
                high[pieces] = spans[s + 1]
                pieces += 1
            now = end
            if i < t.shape[0]:
                now = min(now, t[i])
            if j < edges.shape[0]:
                now = min(now, edges[j])
            instants[n] = now
            n += 1
    return pieces
