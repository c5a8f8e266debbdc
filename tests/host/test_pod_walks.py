"""The kernels against the slow model on long random walks: deeper than Hypothesis goes, and weighted towards trouble.

Each walk builds a few guests on a small host, targets far below their size, and then mostly lets them zero, dirty and
balloon by range, with references, special pages, broken frames and moving targets in the way. A failure names its seed.
"""

import math
from random import Random
from typing import Any

import pytest

from podcluster.config import ERAS
from podcluster.host.written import DATA, PATTERN, ZERO
from tests.host.pair import WORDS, Pair
from tests.host.test_pod_machine import BLOCK, BLOCKS_MAX, SHAPES
from tests.host.test_ranges import COSTS

GIB = 512 * BLOCK
STEPS = 100
SEEDS = range(12)
SEEDS_OF_OTHER_ERAS = range(4)
WALKS = [(era, seed) for era in ERAS for seed in (SEEDS if era == "today" else SEEDS_OF_OTHER_ERAS)]
EDGES = (0, 1, 2, 7, 8, 15, 16, 17, 255, 256, 496, 504, 510, 511)
OPERATIONS = {  # how often each happens
    "zero_blocks": 10,
    "dirty_blocks": 5,
    "touch_range": 12,
    "touch_list": 6,
    "balloon_range": 10,
    "balloon_list": 5,
    "balloon_runs": 6,
    "populate_range": 3,
    "decrease": 7,
    "write": 12,
    "write_seq": 6,
    "read": 3,
    "foreign": 2,
    "mark": 3,
    "populate": 3,
    "reference": 6,
    "drop_reference": 5,
    "shadow_reference": 5,
    "flag": 5,
    "offline": 3,
    "target": 5,
    "quota": 1,
    "preempt": 1,
    "clock": 2,
    "claim": 2,
    "aside": 1,
    "destroy": 0.3,
    "build": 0.7,
    "query": 1,
}
WORD_OPERATIONS = ("write", "write_seq", "read")  # a host that keeps bits knows only whole-page writes


class Walk:
    """One host, its guests and a source of chance."""

    def __init__(self, seed: int, *, words: bool = True, host_pages: int | None = None, **host: Any) -> None:
        self.random = Random(seed)
        pages = host_pages or self.random.randrange(5 * BLOCK, 11 * BLOCK)
        self.pair = Pair(
            pages,
            scrub_on_free=self.random.random() < 0.5,
            words=words,
            ring_slots=self.random.choice((None, None, 1, 128)),
            sweep_wraps=self.random.random() < 0.25,
            costs={**COSTS, "hypercall_ns": 997} if self.random.random() < 0.5 else None,
            **host,
        )
        self.references = 0
        self.handles: list[int] = []
        self.operations = {name: weight for name, weight in OPERATIONS.items() if words or name not in WORD_OPERATIONS}

    def gfn(self) -> int:
        offset = self.random.choice(EDGES) if self.random.random() < 0.5 else self.random.randrange(BLOCK)
        return self.random.randrange(BLOCKS_MAX) * BLOCK + offset

    def count(self) -> int:
        return self.random.choice((1, 2, 16, 17, 100, BLOCK, BLOCK + 1, 2 * BLOCK, self.random.randrange(3 * BLOCK)))

    def listed(self) -> list[int]:
        if self.random.random() < 0.5:
            return [self.gfn() for _ in range(self.random.randrange(60))]
        block = self.random.randrange(BLOCKS_MAX) * BLOCK
        return self.random.sample(range(block, block + BLOCK), self.random.randrange(BLOCK))

    def build(self) -> None:
        random = self.random
        dom = len(self.pair.doms) + 1
        pages = random.choice((2, 3, 4, 5, 5)) * BLOCK
        target = min(random.choice((40, 513, 700, 1024, 1030, 1536, 2048, random.randrange(1, 1600))), pages)
        quota = target + random.choice((0, 0, 1, 40, 2000))
        self.pair.create(dom, maxmem_pages=pages, max_pages=quota, **random.choice(SHAPES))
        rates = [random.choice((0, 0, 5000, 50_000, math.inf)) for _ in range(2)]
        self.pair.call("set_pending_work", dom, random.getrandbits(64), *rates)
        if not self.pair.words and self.pair.era != "rfc2009":
            self.pair.call("set_scrub_pattern", dom, random.random() < 0.7)
        low_ram, order = random.choice((0, 0, 0, 1, 32)), random.choice((9, 9, 9, 9, 0, 3))
        first = -(-low_ram >> order)
        self.pair.furnish(dom, target, first, (pages >> order) - first, order, low_ram)

    def step(self) -> None:
        random, call = self.random, self.pair.call
        if not self.pair.usable:
            self.build()
        dom = random.choice(self.pair.usable)
        blocks = (random.randrange(BLOCKS_MAX) * BLOCK, random.randint(1, BLOCKS_MAX) * BLOCK)
        upwards, value = random.random() < 0.5, random.choice((0, 0, 1, 7, (1 << 64) - 1))
        match random.choices(list(self.operations), list(self.operations.values()))[0]:
            case "zero_blocks":
                content = ZERO if self.pair.words else random.choice((ZERO, PATTERN))
                call("touch_range", dom, *blocks, content=content, descending=upwards)
            case "dirty_blocks":
                call("touch_range", dom, *blocks, content=DATA, descending=upwards)
            case "touch_range":
                call(
                    "touch_range",
                    dom,
                    self.gfn(),
                    self.count(),
                    content=random.choice((ZERO, DATA, PATTERN)),
                    descending=upwards,
                )
            case "touch_list":
                call("touch_list", dom, self.listed(), content=random.choice((ZERO, DATA, PATTERN)))
            case "balloon_range":
                call("balloon_range", dom, self.gfn(), self.count(), descending=upwards)
            case "balloon_list":
                call("balloon_list", dom, self.listed())
            case "balloon_runs":
                blocks_of_runs = random.sample(range(BLOCKS_MAX), random.randrange(BLOCKS_MAX))
                runs = [(b * BLOCK + random.randrange(100), random.choice((1, 60, 400))) for b in blocks_of_runs]
                batch = random.choice((1, 100, 512, 1000))
                flags = {name: random.random() < 0.5 for name in ("ascending", "scrub", "until_heap")}
                call("balloon_runs", dom, runs, batch_pages=batch, **flags)
            case "populate_range":
                call("populate_range", dom, self.gfn(), self.count(), descending=upwards)
            case "decrease":
                order = random.choice((0, 0, 1, 4, 8, 9, 9, 10))
                call("decrease", dom, self.gfn() >> order << order if upwards else self.gfn(), order)
            case "write":
                call("write", dom, self.gfn(), random.choice(WORDS), value)
            case "write_seq":
                call("write_seq", dom, self.gfn(), random.randrange(40), random.choice((1, 3, 97)), 15 + upwards, value)
            case "read":
                call("read", dom, self.gfn(), random.choice(WORDS))
            case "mark":
                gfn, order = self.gfn(), random.choice((0, 0, 3, 9))
                if self.pair.may_be_promised(dom, gfn, order) or random.random() < 0.1:
                    call("mark_pod", dom, gfn, order)
            case "populate":
                order = random.choice((0, 0, 3, 9))
                call("populate", dom, self.gfn() >> order << order, order)
                call("populate_special", dom, self.gfn())
            case "reference":
                how = random.choice(("plain", "type", "grant"))
                self.references += call("add_ref", dom, self.gfn(), self.references + 1, how) == 0
            case "foreign":
                for gfn in self.listed()[:50]:
                    call("map_page", dom, gfn, by=0)
            case "drop_reference":
                call("drop_ref", random.randint(1, max(self.references, 1)), dom)
            case "shadow_reference":
                call("shadow_ref", dom, self.gfn())
            case "flag":
                call("set_flag", dom, self.gfn(), random.choice(("special", "shadowed_pt")), random.random() < 0.6)
            case "offline":
                call("offline", dom, random.choice(("super", "single")), random.randrange(3), 0)
            case "target":
                call("set_pod_target", dom, max(self.pair.slow.counters(dom).tot_pages + random.randint(-50, 700), 0))
            case "quota":
                call("set_max_pages", dom, random.choice((0, 700, 1100, 4000)))
            case "preempt":
                call("set_preempt", random.choice(("always", "never", "never")))
            case "clock":
                call("set_interrupts", dom, upwards, random.randrange(4))
                call("set_clock", dom, random.randrange(10**12))
            case "claim":
                call("claim", dom, random.choice((0, 0, 1, 1200, 2100)))
            case "aside":
                if self.handles and upwards:
                    call("release", self.handles.pop())
                elif (handle := call("set_aside", random.choice((1, 7, 300, 512)))) > 0:
                    self.handles.append(handle)
            case "destroy":
                call("destroy", dom)
            case "build":
                if len(self.pair.doms) < 5:
                    self.build()
            case "query":
                call("query", dom, self.gfn())

    def go(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
            self.pair.compare()
            self.pair.audit()


@pytest.mark.parametrize("words", [True, False], ids=["words", "bits"])
@pytest.mark.parametrize(("era", "seed"), WALKS)
def test_a_long_random_walk_leaves_the_same_state_on_both(era: str, seed: int, words: bool) -> None:
    """Returns, notes, all state and contents equal, and P15 recounted, after every step."""
    walk = Walk(seed, words=words, era=era)
    for _ in range(walk.random.randint(1, 3)):
        walk.build()
    walk.go(STEPS)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_a_walk_through_extents_of_1_gib(shape: dict[str, Any]) -> None:
    """T1, T2, T4, P6 step 2: promises and RAM of 1 GiB, shattered in the ways of both tables, or never whole."""
    walk = Walk(7, words=False, host_pages=GIB + 3 * BLOCK)
    for dom, quota in ((1, GIB), (2, BLOCK + 30)):
        walk.pair.create(dom, maxmem_pages=2 * GIB, max_pages=quota, **shape)
    call = walk.pair.call
    beyond = (0, 1, BLOCK, 2 * GIB, (1 << 27) - 1, 1 << 27, (1 << 28) + 3)
    for gfn in beyond:  # before any entry was set
        call("query", 1, gfn)
    assert call("populate", 1, GIB, 18) == 1
    call("set_pod_target", 2, BLOCK + 20)
    assert call("mark_pod_seq", 2, 0, 2, 18) == 2
    for gfn in beyond:
        call("query", 1, gfn)
    walk.pair.compare()
    call("touch_range", 2, GIB + 5 * BLOCK + 5, 3, content=DATA)
    call("decrease", 1, GIB + 3 * BLOCK, 9)
    walk.pair.compare()
    call("decrease", 2, BLOCK + 1, 0)
    call("touch_range", 1, GIB + BLOCK, 40, content=ZERO)
    walk.pair.compare()
    call("add_ref", 1, GIB + 17, 1)
    call("decrease", 1, GIB + 17, 0)
    call("mark_pod", 2, GIB + 2 * BLOCK, 10)
    walk.pair.compare()
    walk.pair.audit()
    call("touch_range", 2, 4 * BLOCK - 3, BLOCK, content=ZERO, descending=True)
    call("balloon_range", 2, 7 * BLOCK, 3 * BLOCK)
    call("query", 2, GIB + 7 * BLOCK)
    walk.pair.compare()
    call("decrease", 1, GIB, 18)
    call("touch_range", 2, 20 * BLOCK, 2 * BLOCK, content=DATA)
    call("destroy", 2)
    walk.pair.compare()
    walk.pair.audit()


def test_a_whole_gib_is_stolen_for_the_cache() -> None:
    """P12 step 6 at order 18: an entry of 1 GiB that is given back in debt goes to the cache as 512 superpages."""
    pair = Pair(2 * GIB)
    pair.create(1, maxmem_pages=3 * GIB, max_pages=2 * GIB)
    assert pair.call("mark_pod", 1, 0, 18) == 0
    assert pair.call("populate", 1, GIB, 18) == 1
    assert pair.call("decrease", 1, GIB, 18) == [1, GIB]
    pair.compare()
    pair.audit()
    counters = pair.slow.counters(1)
    assert (counters.cache_count, counters.entry_count, counters.tot_pages) == (GIB, GIB, GIB)
    assert pair.call("touch_range", 1, 0, BLOCK + 1, content=DATA) == BLOCK + 1
    pair.compare()
