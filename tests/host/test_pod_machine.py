"""The kernels against the slow model: any sequence of operations, several domains on one host, audited after each step.

Hypothesis draws the operations; every return value, every note, the full state record of every domain and the contents
of all RAM are compared after each step, and P15 is recounted on both sides. Guests are a few 2 MiB blocks with targets
far below their size, so that eager reclaim, sweeps, splintering, stealing and death are everyday events.
"""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.host.pair import WORDS, Pair

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
sizes = st.sampled_from((5, 4, 3, 2, 1))
targets = st.one_of(st.sampled_from((1024, 1030, 1536, 513, 700, 2048, 40)), st.integers(1, 1600))
slacks = st.sampled_from((0, 0, 1, 40, 2000))
mark_orders = st.sampled_from((9, 9, 9, 9, 0, 3))
low_rams = st.sampled_from((0, 0, 0, 1, 32))
flags = st.sampled_from(("special", "shadowed_pt"))


class PodMachine(RuleBasedStateMachine):
    """Rules are operations; the comparison and the audit are the invariant."""

    pair: Pair

    @initialize(
        scrub=st.booleans(),
        host_blocks=st.integers(6, 12),
        odd=st.integers(0, 80),
        guests=st.lists(st.tuples(shapes, sizes, targets, slacks, mark_orders, low_rams), min_size=1, max_size=3),
    )
    def host(self, scrub: bool, host_blocks: int, odd: int, guests: list[tuple[Any, ...]]) -> None:
        self.pair = Pair(host_blocks * BLOCK + odd, scrub_on_free=scrub)
        self.next_reference = 1
        self.handles: list[int] = []
        for guest in guests:
            self._build(*guest)

    def dom(self, pick: int) -> int:
        return self.pair.doms[pick % len(self.pair.doms)]

    def call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        return self.pair.call(method, *arguments, **keywords)

    # -- a domain's life ---------------------------------------------------------------------------------------------

    def _build(self, shape: dict[str, Any], blocks: int, target: int, slack: int, order: int, low_ram: int) -> None:
        """As a builder does it: target, some RAM, the rest promised."""
        dom = len(self.pair.doms) + 1
        pages = blocks * BLOCK
        target = min(target, pages)
        self.pair.create(dom, maxmem_pages=pages, max_pages=target + slack, **shape)
        self.call("set_pod_target", dom, target)
        self.call("populate_seq", dom, 0, low_ram, 0, 1)
        first = -(-low_ram >> order)  # beyond the RAM, which an extent must not meet
        self.call("mark_pod_seq", dom, first << order, (pages >> order) - first, order)

    @precondition(lambda self: len(self.pair.doms) < DOMAINS_MAX)
    @rule(guest=st.tuples(shapes, sizes, targets, slacks, mark_orders, low_rams), unlikely=st.integers(0, 2))
    def build(self, guest: tuple[Any, ...], unlikely: int) -> None:
        if unlikely == 0:
            self._build(*guest)

    @rule(pick=picks, unlikely=st.integers(0, 5))
    def destroy(self, pick: int, unlikely: int) -> None:
        if unlikely == 0:
            self.call("destroy", self.dom(pick))

    @rule(pick=picks, what=st.sampled_from(("quota", "preempt", "claim", "set_aside", "release")), pages=amounts)
    def administer(self, pick: int, what: str, pages: int) -> None:
        """What changes around a domain, in one rule so that it stays a small part of what happens."""
        if what == "quota":
            self.call("set_max_pages", self.dom(pick), pages)
        elif what == "preempt":
            self.call("set_preempt", ("always", "never")[pick % 2])
        elif what == "claim":
            self.call("claim", self.dom(pick), pages)
        elif what == "set_aside" and pages > 0:
            handle = self.call("set_aside", pages)
            if handle > 0:
                self.handles.append(handle)
        elif what == "release" and self.handles:
            self.call("release", self.handles.pop(pick % len(self.handles)))

    @rule(pick=picks, pages=st.integers(0, BLOCKS_MAX * BLOCK))
    def set_target(self, pick: int, pages: int) -> None:
        self.call("set_pod_target", self.dom(pick), pages)

    @rule(pick=picks, more=st.sampled_from((-600, -1, 0, 1, 30, 600)))
    def set_target_near_what_it_has(self, pick: int, more: int) -> None:
        dom = self.dom(pick)
        self.call("set_pod_target", dom, max(self.pair.slow.counters(dom).tot_pages + more, 0))

    # -- the hypercalls ----------------------------------------------------------------------------------------------

    @rule(pick=picks, gfn=gfns, order=orders)
    def mark(self, pick: int, gfn: int, order: int) -> None:
        self.call("mark_pod", self.dom(pick), gfn, order)

    @rule(pick=picks, gfn=gfns, order=st.sampled_from((0, 0, 3, 9)), special=st.booleans())
    def populate(self, pick: int, gfn: int, order: int, special: bool) -> None:
        if special:
            self.call("populate_special", self.dom(pick), gfn)
        else:
            self.call("populate", self.dom(pick), gfn >> order << order, order)

    @rule(pick=picks, gfn=gfns, count=counts, descending=st.booleans())
    def populate_range(self, pick: int, gfn: int, count: int, descending: bool) -> None:
        self.call("populate_range", self.dom(pick), gfn, count, descending=descending)

    @rule(pick=picks, gfn=gfns, order=orders)
    def decrease(self, pick: int, gfn: int, order: int) -> None:
        self.call("decrease", self.dom(pick), gfn, order)

    @rule(pick=picks, gfns=lists, order=st.sampled_from((0, 0, 0, 2)))
    def decrease_list(self, pick: int, gfns: list[int], order: int) -> None:
        self.call("decrease_list", self.dom(pick), order, gfns)

    @rule(pick=picks, gfn=gfns, count=counts, descending=st.booleans())
    def balloon_range(self, pick: int, gfn: int, count: int, descending: bool) -> None:
        self.call("balloon_range", self.dom(pick), gfn, count, descending=descending)

    @rule(pick=picks, gfns=lists)
    def balloon_list(self, pick: int, gfns: list[int]) -> None:
        self.call("balloon_list", self.dom(pick), gfns)

    # -- the guest ---------------------------------------------------------------------------------------------------

    @rule(pick=picks, gfn=gfns, word=words, value=values)
    def write(self, pick: int, gfn: int, word: int, value: int) -> None:
        self.call("write", self.dom(pick), gfn, word, value)

    @rule(pick=picks, gfn=gfns, word=words)
    def read(self, pick: int, gfn: int, word: int) -> None:
        self.call("read", self.dom(pick), gfn, word)

    @rule(pick=picks, gfn=gfns, count=st.integers(0, 600), step=steps, word=words, value=values)
    def write_seq(self, pick: int, gfn: int, count: int, step: int, word: int, value: int) -> None:
        if gfn + step * (count - 1) < 0:
            count = gfn // -step + 1
        self.call("write_seq", self.dom(pick), gfn, count, step, word, value)

    @rule(pick=picks, gfns=lists, word=words)
    def read_list(self, pick: int, gfns: list[int], word: int) -> None:
        self.call("read_list", self.dom(pick), word, gfns)

    @rule(pick=picks, gfn=gfns, count=counts, data=st.booleans(), descending=st.booleans())
    def touch_range(self, pick: int, gfn: int, count: int, data: bool, descending: bool) -> None:
        self.call("touch_range", self.dom(pick), gfn, count, data=data, descending=descending)

    @rule(pick=picks, first=st.sampled_from((0, 0, 1, 2)), blocks=sizes, data=st.booleans(), descending=st.booleans())
    def touch_whole_blocks(self, pick: int, first: int, blocks: int, data: bool, descending: bool) -> None:
        self.call("touch_range", self.dom(pick), first * BLOCK, blocks * BLOCK, data=data, descending=descending)

    @rule(pick=picks, block=st.integers(0, BLOCKS_MAX), word=words, value=values, gap=st.integers(0, 3))
    def leave_traces_in_zeroed_blocks(self, pick: int, block: int, word: int, value: int, gap: int) -> None:
        """Blocks zeroed but for a word here and there: what the quick check passes and the full one may not."""
        self.call("touch_range", self.dom(pick), block * BLOCK, BLOCK, data=False)
        self.call("write_seq", self.dom(pick), block * BLOCK + gap, gap, 97, word, value)

    @rule(pick=picks, gfns=lists, data=st.booleans())
    def touch_list(self, pick: int, gfns: list[int], data: bool) -> None:
        self.call("touch_list", self.dom(pick), gfns, data=data)

    @rule(pick=picks, gfn=gfns)
    def query(self, pick: int, gfn: int) -> None:
        self.call("query", self.dom(pick), gfn)

    # -- what gets in the way of reclaim -----------------------------------------------------------------------------

    @rule(pick=picks, gfn=gfns)
    def add_reference(self, pick: int, gfn: int) -> None:
        if self.call("add_ref", self.dom(pick), gfn, self.next_reference) == 0:
            self.next_reference += 1

    @rule(pick=picks, which=st.integers(1, 6))
    def drop_reference(self, pick: int, which: int) -> None:
        self.call("drop_ref", which, self.dom(pick))

    @rule(pick=picks, gfn=gfns)
    def shadow_reference(self, pick: int, gfn: int) -> None:
        self.call("shadow_ref", self.dom(pick), gfn)

    @rule(pick=picks, gfn=gfns, flag=flags, on=st.booleans())
    def set_flag(self, pick: int, gfn: int, flag: str, on: bool) -> None:
        self.call("set_flag", self.dom(pick), gfn, flag, on)

    @rule(pick=picks, which=st.sampled_from(("super", "single")), index=st.integers(0, 3), sub=offsets)
    def offline(self, pick: int, which: str, index: int, sub: int) -> None:
        self.call("offline", self.dom(pick), which, index, sub if which == "super" else 0)

    # -- after each step ---------------------------------------------------------------------------------------------

    @invariant()
    def same_and_sound(self) -> None:
        if hasattr(self, "pair"):
            self.pair.compare()
            self.pair.audit()


TestPodMachine = PodMachine.TestCase
TestPodMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
