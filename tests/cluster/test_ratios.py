"""Are samples of the whole cluster the sums of those of its hosts, instant by instant, in stored order?"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from podcluster.cluster.ratios import SamplePeaks, add_hosts
from podcluster.records.rows import NO_HOST
from podcluster.records.samples import NO_SAMPLES, SampleBlock, SampleRow

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
