"""Are samples of the whole cluster the sums of those of its hosts, instant by instant, in stored order?"""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from podcluster.cluster.ratios import SamplePeaks, add_hosts
from podcluster.records.rows import NO_HOST
from podcluster.records.samples import NO_SAMPLES, SampleBlock, SampleRow, Stretch

GRID_NS = 300
SUMMED = [name for name in SampleBlock.NAMES if name not in ("t_ns", "host_id")]


@st.composite
def hosts(draw: st.DrawFn) -> list[list[SampleRow]]:
    """Hosts that looked at themselves at instants of their own, some of them common."""
    found = []
    for host_id in range(draw(st.integers(1, 4))):
        instants = sorted(draw(st.sets(st.integers(1, 8), min_size=1)))
        values = st.lists(st.integers(0, 1 << 40), min_size=len(SUMMED), max_size=len(SUMMED))
        found.append([SampleRow(t_ns, host_id, *draw(values)) for t_ns in instants])
    return found


@given(hosts())
def test_the_cluster_is_the_sum_of_its_hosts(rows: list[list[SampleRow]]) -> None:
    """Columns against rows added one by one; a sum stands before what it sums, hosts in order behind it."""
    flat = [row for host in rows for row in host]
    expected: list[SampleRow] = []
    for t_ns in sorted({row.t_ns for row in flat}):
        there = [row for row in flat if row.t_ns == t_ns]
        total = {name: sum(getattr(row, name) for row in there) for name in SUMMED}
        expected += [replace(there[0], host_id=NO_HOST, **total), *there]
    blocks = [SampleBlock.of(host) for host in rows]
    cluster = add_hosts(blocks)
    assert list(SampleBlock.by_instant([cluster, *blocks])) == expected
    peaks = SamplePeaks()
    for k in range(len(cluster)):
        peaks.take(cluster[k : k + 1])
    sums = [row for row in expected if row.host_id == NO_HOST]
    for name in ("owned_pages", "target_pages", "demanded_pages"):
        assert getattr(peaks, name) == max(getattr(row, name) for row in sums)


@st.composite
def seen(draw: st.DrawFn) -> list[tuple[SampleBlock, list[SampleRow]]]:
    """Hosts that looked at themselves on one grid, in stretches of their own: as blocks, and what the rows are."""
    looks, found = draw(st.integers(1, 8)), []
    pages = st.integers(0, 1 << 40)
    for host_id in range(draw(st.integers(1, 4))):
        stretches, rows = [], []
        ends = sorted({*draw(st.sets(st.integers(1, looks))), looks - draw(st.integers(0, looks - 1))})
        for first, end in zip([0, *ends], ends, strict=False):
            values = {name: draw(pages) for name in SUMMED} | {"demanded_pages": 0}
            one = SampleRow(t_ns=GRID_NS * (first + 1), host_id=host_id, **values)
            demanded = draw(st.lists(pages, min_size=end - first, max_size=end - first))
            fewer = draw(st.none() | st.lists(st.integers(0, 99), min_size=end - first, max_size=end - first))
            row = tuple(getattr(one, name) for name in SampleBlock.NAMES)
            gone = None if fewer is None else np.array(fewer, np.int64)
            stretches.append(Stretch(row, np.array(demanded, np.int64), gone))
            for k, (wanted, left) in enumerate(zip(demanded, fewer or [0] * len(demanded), strict=True)):
                at_ns, there = one.t_ns + k * GRID_NS, one.populated_pages + left
                now = replace(one, t_ns=at_ns, populated_pages=there, demanded_pages=wanted)
                rows.append(replace(now, cache_pages=one.cache_pages - left, entry_pages=one.entry_pages - left))
        found.append((SampleBlock.seen(GRID_NS, stretches), rows))
    return found


@given(seen())
def test_what_was_seen_in_stretches_is_rows(hosts: list[tuple[SampleBlock, list[SampleRow]]]) -> None:
    """Their times and sums before anybody has looked at the rows; then the rows, here and where they are sent."""
    blocks = [block for block, _ in hosts]
    whole = [SampleBlock.of(rows) for _, rows in hosts]
    assert [block.t_ns.tolist() for block in blocks] == [[row.t_ns for row in rows] for _, rows in hosts]
    assert add_hosts(blocks) == add_hosts(whole)
    sent = pickle.loads(pickle.dumps(blocks))
    assert sent == whole and blocks == whole and pickle.loads(pickle.dumps(blocks)) == whole


def test_no_samples_are_no_sums() -> None:
    """A step in which nobody looked."""
    assert len(SampleBlock.by_instant([NO_SAMPLES])) == len(add_hosts([NO_SAMPLES])) == len(SampleBlock.join([])) == 0


@given(hosts())
def test_a_block_is_its_rows(rows: list[list[SampleRow]]) -> None:
    """Rows into columns and back: one by one, from the end, a part of them, several blocks joined."""
    flat = [row for host in rows for row in host]
    block = SampleBlock.join([SampleBlock.of(host) for host in rows])
    assert list(block) == flat and block[-1] == flat[-1] and list(block[1:3]) == flat[1:3]
    assert block.column("deaths").tolist() == [row.deaths for row in flat]
