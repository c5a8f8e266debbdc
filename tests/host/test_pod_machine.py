"""The kernels against the slow model: any sequence of operations, several domains on one host, audited after each step.

Hypothesis draws the operations; every return value, every note, the full state record of every domain and the contents
of all RAM are compared after each step, and P15 is recounted on both sides. Guests are a few 2 MiB blocks with targets
far below their size, so that eager reclaim, sweeps, splintering, stealing and death are everyday events.
"""

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from podcluster.config import ERAS
from podcluster.host.written import DATA, PATTERN, ZERO
from tests.host.pair import WORDS, Pair
from tests.reference.pod import COSTS

BLOCK = 512
BLOCKS_MAX = 5
DOMAINS_MAX = 5
SHAPES: tuple[dict[str, Any], ...] = (
    {"paging": "hap", "p2m": "ept", "sp_1g": True, "sp_2m": True},
    {"paging": "hap", "p2m": "pt", "sp_1g": True, "sp_2m": True},
    {"paging": "shadow", "p2m": "pt", "sp_1g": False, "sp_2m": True},
    {"paging": "hap", "p2m": "ept", "sp_1g": False, "sp_2m": True},
    {"paging": "hap", "p2m": "ept", "sp_1g": False, "sp_2m": False},
    {"paging": "hap", "p2m": "pt", "sp_1g": True, "sp_2m": False},
)

shapes = st.sampled_from(SHAPES)
picks = st.sampled_from(range(6))  # which domain: modulo how many there are
edges = st.sampled_from((0, 1, 2, 7, 8, 15, 16, 17, 255, 256, 496, 504, 510, 511))
offsets = st.one_of(edges, st.integers(0, BLOCK - 1))
gfns = st.builds(lambda block, offset: block * BLOCK + offset, st.integers(0, BLOCKS_MAX), offsets)
counts = st.one_of(st.sampled_from((1, 2, 16, 17, 512, 513, 1024)), st.integers(0, 40), st.integers(0, 3 * BLOCK))
orders = st.sampled_from((0, 0, 0, 1, 3, 4, 8, 9, 9, 10))
words = st.sampled_from(WORDS)
values = st.sampled_from((0, 0, 1, 7, 1 << 40, (1 << 63) + 5, (1 << 64) - 1))
steps = st.sampled_from((1, 1, -1, 2, 3, 16, -16, BLOCK, -BLOCK))
lists = st.lists(gfns, max_size=40)
amounts = st.sampled_from((0, 1, 7, 100, 512, 900, 1500, 2048, 10**6))
contents = st.sampled_from((ZERO, ZERO, DATA, PATTERN))
sizes = st.sampled_from((5, 4, 3, 2, 1))
targets = st.one_of(st.sampled_from((1024, 1030, 1536, 513, 700, 2048, 40)), st.integers(1, 1600))
slacks = st.sampled_from((0, 0, 1, 40, 2000))
mark_orders = st.sampled_from((9, 9, 9, 9, 0, 3))
low_rams = st.sampled_from((0, 0, 0, 1, 32))


class PodMachine(RuleBasedStateMachine):
    """Rules are operations; the comparison and the audit are the invariant."""

    pair: Pair

    @initialize(
        era=st.sampled_from(("today", *ERAS)),
        scrub=st.booleans(),
        host_blocks=st.integers(6, 12),
        odd=st.integers(0, 80),
        ring_slots=st.sampled_from((32, 32, 32, 4, 128)),
        sweep_wraps=st.booleans(),
        costs=st.sampled_from((None, 1, 7)),
        words=st.sampled_from((True, True, False)),
        guests=st.lists(st.tuples(shapes, sizes, targets, slacks, mark_orders, low_rams), min_size=1, max_size=3),
    )
    def host(
        self,
        era: str,
        scrub: bool,
        host_blocks: int,
        odd: int,
        ring_slots: int,
        sweep_wraps: bool,
        costs: int | None,
        words: bool,
        guests: list[tuple[Any, ...]],
    ) -> None:
        self.pair = Pair(
            host_blocks * BLOCK + odd,
            scrub_on_free=scrub,
            words=words,
            era=era,
            ring_slots=ring_slots,
            sweep_wraps=sweep_wraps,
            costs=costs and {name: 100 + costs * k for k, name in enumerate(COSTS)},
        )
        self.next_reference = 1
        self.handles: list[int] = []
        for guest in guests:
            self._build(*guest)

    def dom(self, pick: int) -> int:
        if not self.pair.usable:
            self._build(SHAPES[0], 3, BLOCK, 0, 9, 0)
        return self.pair.usable[pick % len(self.pair.usable)]

    def call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return self.pair.call(method, *arguments, **keywords)

    # -- a domain's life ---------------------------------------------------------------------------------------------

    def _build(self, shape: dict[str, Any], blocks: int, target: int, slack: int, order: int, low_ram: int) -> None:
        """As a builder does it: target, some RAM, the rest promised."""
        dom = len(self.pair.doms) + 1
        pages = blocks * BLOCK
        target = min(target, pages)
        self.pair.create(dom, maxmem_pages=pages, max_pages=target + slack, **shape)
        if not self.pair.words and self.pair.era != "rfc2009":
            self.call("set_scrub_pattern", dom, blocks != 4)
        first = -(-low_ram >> order)  # beyond the RAM, which an extent must not meet
        self.pair.furnish(dom, target, first, (pages >> order) - first, order, low_ram)

    # Few rules, and several for what a guest does with its memory: Hypothesis gives each rule about the same share of
    # the steps, and trouble needs many whole blocks zeroed, dirtied and ballooned.

    @rule(
        pick=picks,
        what=st.sampled_from(("quota", "pending", "claim", "set_aside", "release", "build", "build", "destroy")),
        pages=amounts,
        guest=st.tuples(shapes, sizes, targets, slacks, mark_orders, low_rams),
    )
    def administer(self, pick: int, what: str, pages: int, guest: tuple[Any, ...]) -> None:
        """What changes around a domain."""
        dom = self.dom(pick)
        if what == "quota":
            self.call("set_max_pages", dom, pages)
        elif what == "pending":
            self.call("set_preempt", ("always", "never", "never", "never", "never", "never")[pick])
            self.call("set_interrupts", dom, pick % 2 == 1, pick)
            self.call("set_pending_work", dom, pages, (0, 3000, 0, 40_000, 0, math.inf)[pick], 10 * pages)
        elif what == "claim":
            self.call("claim", dom, pages)
        elif what == "set_aside" and pages > 0:
            handle = self.call("set_aside", pages)
            if handle > 0:
                self.handles.append(handle)
        elif what == "release" and self.handles:
            self.call("release", self.handles.pop(pick % len(self.handles)))
        elif what == "build" and len(self.pair.doms) < DOMAINS_MAX:
            self._build(*guest)
        elif what == "destroy":
            self.call("destroy", dom)

    @rule(pick=picks, pages=st.integers(0, BLOCKS_MAX * BLOCK), more=st.sampled_from((None, -600, -1, 0, 1, 30, 600)))
    def set_target(self, pick: int, pages: int, more: int | None) -> None:
        """A target out of the blue, or one near what the domain has."""
        dom = self.dom(pick)
        if more is not None:
            pages = max(self.pair.slow.counters(dom).tot_pages + more, 0)
        self.call("set_pod_target", dom, pages)

    @rule(
        pick=picks,
        what=st.sampled_from(("decrease", "decrease", "decrease_list", "mark", "populate", "special", "deflate")),
        gfn=gfns,
        order=orders,
        gfns=lists,
        count=counts,
        descending=st.booleans(),
    )
    def hypercall(
        self, pick: int, what: str, gfn: int, order: int, gfns: list[int], count: int, descending: bool
    ) -> None:
        dom = self.dom(pick)
        if what == "decrease":
            self.call("decrease", dom, gfn, order)
        elif what == "decrease_list":
            self.call("decrease_list", dom, min(order, 2), gfns)
        elif what == "mark":
            if self.pair.may_be_promised(dom, gfn, order) or count == 1:
                self.call("mark_pod", dom, gfn, order)
        elif what == "populate":
            order = min(order, 9)
            self.call("populate", dom, gfn >> order << order, order)
        elif what == "special":
            self.call("populate_special", dom, gfn)
        else:
            self.call("populate_range", dom, gfn, count, descending=descending)

    @rule(pick=picks, gfn=gfns, count=counts, descending=st.booleans(), gfns=st.one_of(st.none(), st.none(), lists))
    def balloon(self, pick: int, gfn: int, count: int, descending: bool, gfns: list[int] | None) -> None:
        if gfns is None:
            self.call("balloon_range", self.dom(pick), gfn, count, descending=descending)
        else:
            self.call("balloon_list", self.dom(pick), gfns)

    @rule(
        pick=picks,
        what=st.sampled_from(("write", "write", "write_seq", "read", "read_list", "query", "map_page")),
        gfn=gfns,
        word=words,
        value=values,
        count=st.integers(0, 600),
        step=steps,
        gfns=lists,
    )
    def access(
        self, pick: int, what: str, gfn: int, word: int, value: int, count: int, step: int, gfns: list[int]
    ) -> None:
        """The guest reads and writes words, on hosts that keep them."""
        dom = self.dom(pick)
        if not self.pair.words:
            what = "query"
        if what == "write":
            self.call("write", dom, gfn, word, value)
        elif what == "write_seq":
            if gfn + step * (count - 1) < 0:
                count = gfn // -step + 1
            self.call("write_seq", dom, gfn, count, step, word, value)
        elif what == "read":
            self.call("read", dom, gfn, word)
        elif what == "read_list":
            self.call("read_list", dom, word, gfns)
        elif what == "map_page":
            for each in gfns:
                self.call("map_page", dom, each, by=0)
        else:
            self.call("query", dom, gfn)

    @rule(
        pick=picks,
        gfn=gfns,
        count=counts,
        content=contents,
        descending=st.booleans(),
        gfns=st.one_of(st.none(), st.none(), lists),
    )
    def touch(self, pick: int, gfn: int, count: int, content: int, descending: bool, gfns: list[int] | None) -> None:
        if gfns is None:
            self.call("touch_range", self.dom(pick), gfn, count, content=content, descending=descending)
        else:
            self.call("touch_list", self.dom(pick), gfns, content=content)

    @rule(pick=picks, first=st.sampled_from((0, 0, 1, 2)), blocks=sizes, content=contents, descending=st.booleans())
    def touch_whole_blocks(self, pick: int, first: int, blocks: int, content: int, descending: bool) -> None:
        self.call("touch_range", self.dom(pick), first * BLOCK, blocks * BLOCK, content=content, descending=descending)

    @rule(pick=picks, block=st.integers(0, BLOCKS_MAX), word=words, value=values, gap=st.integers(0, 3))
    def leave_traces_in_zeroed_blocks(self, pick: int, block: int, word: int, value: int, gap: int) -> None:
        """A block zeroed but for a word here and there: what the quick check passes and the full one may not."""
        self.call("touch_range", self.dom(pick), block * BLOCK, BLOCK, content=ZERO)
        if not self.pair.words:
            return
        self.call("write_seq", self.dom(pick), block * BLOCK + gap, gap, 97, word, value)

    @rule(
        pick=picks,
        what=st.sampled_from(
            ("add_ref", "type_ref", "grant", "drop_ref", "shadow_ref", "special", "shadowed_pt", "super", "single")
        ),
        gfn=gfns,
        on=st.booleans(),
        index=st.integers(0, 6),
    )
    def get_in_the_way(self, pick: int, what: str, gfn: int, on: bool, index: int) -> None:
        """References, special pages, page tables, broken frames."""
        dom = self.dom(pick)
        how = {"add_ref": "plain", "type_ref": "type", "grant": "grant"}.get(what)
        if how is not None:
            self.next_reference += self.call("add_ref", dom, gfn, self.next_reference, how) == 0
        elif what == "drop_ref":
            self.call("drop_ref", index, dom)
        elif what == "shadow_ref":
            self.call("shadow_ref", dom, gfn)
        elif what in ("special", "shadowed_pt"):
            self.call("set_flag", dom, gfn, what, on)
        else:
            self.call("offline", dom, what, index, gfn % BLOCK if what == "super" else 0)

    # -- after each step ---------------------------------------------------------------------------------------------

    @invariant()
    def same_and_sound(self) -> None:
        if hasattr(self, "pair"):
            self.pair.compare()
            self.pair.audit()


TestPodMachine = pytest.mark.timeout(900)(PodMachine.TestCase)  # one test, however long the machine makes it
TestPodMachine.settings = settings(
    max_examples=70,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
