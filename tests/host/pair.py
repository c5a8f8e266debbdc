"""The kernels and the slow model side by side: every call goes to both, and both must say and be the same."""

from typing import Any

from podcluster.host.traced import TracedMachine
from tests.reference.model import ReferenceMachine
from tests.reference.table import RAM

WORDS = (0, 15, 16, 511)  # ends of what the quick zero check reads and of what only the full one does


class Pair:
    """One host twice. `call` compares what an operation returns and notes, `compare` all the state there is."""

    def __init__(self, host_pages: int, *, scrub_on_free: bool = True, words: bool = True, **host: Any) -> None:
        self.fast = TracedMachine(host_pages, scrub_on_free=scrub_on_free, words=words, **host)
        self.slow = ReferenceMachine(host_pages, scrub_on_free=scrub_on_free, **host)
        self.words = words
        self.era = host.get("era", "today")
        self.doms: list[int] = []
        self.running: set[int] = set()

    def create(self, dom: int, **guest: Any) -> None:
        self.call("create", dom, **guest)
        self.doms.append(dom)
        self.running.add(dom)

    def call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """One operation on both; returns what both returned."""
        expected = getattr(self.slow, method)(*arguments, **keywords)
        found = getattr(self.fast, method)(*arguments, **keywords)
        said = f"{method}{arguments}{keywords}"
        assert found == expected, f"{said}: kernels {found}, reference {expected}"
        noted, to_note = self.fast.take_notes(), self.slow.take_notes()
        assert noted == to_note, f"{said}: kernels note {noted}, reference {to_note}"
        if "conflict" in noted:
            self._end_after_conflict(arguments[0])
        return expected

    def _end_after_conflict(self, dom: int) -> None:
        """R1: frames may be in two places now. Both left them in the same, and the end sets it right."""
        self.compare()
        self.call("destroy", dom)

    def furnish(self, dom: int, target: int, first: int, count: int, order: int, low_ram: int) -> None:
        """As a builder does it: target, some RAM, the rest promised; in 2009 the target comes last (R4, R11)."""
        if self.era != "rfc2009":
            self.call("set_pod_target", dom, target)
        self.call("populate_seq", dom, 0, low_ram, 0, 1)
        self.call("mark_pod_seq", dom, first << order, count, order)
        if self.era == "rfc2009":
            self.call("set_pod_target", dom, target)

    def may_be_promised(self, dom: int, gfn: int, order: int) -> bool:
        """Whether promising an extent leaves the table lock alone (R5)."""
        extent = range(gfn, gfn + (1 << order))
        return self.era != "rfc2009" or not any(gfn in extent for gfn in self.ram_gfns(dom))

    @property
    def usable(self) -> list[int]:
        """Domains to go on with: not those whose table is locked for ever (R5)."""
        return [dom for dom in self.doms if not self.slow.is_locked(dom)]

    def compare(self) -> None:
        """Every field of every domain's state record, counters, entries and contents, and the host."""
        for dom in self.doms:
            found, expected = self.fast.state_record(dom), self.slow.state_record(dom)
            differ = {key: (found.get(key), value) for key, value in expected.items() if found.get(key) != value}
            assert not differ, f"domain {dom}: kernels and reference differ in {differ}"
            assert tuple(self.fast.counters(dom)) == tuple(self.slow.counters(dom)), f"counters of domain {dom}"
            assert self.fast.entry_map(dom) == self.slow.entry_map(dom), f"entry map of domain {dom}"
            assert self.fast.clock(dom) == self.slow.clock(dom), f"clock of domain {dom}"
            assert self.fast.hazard(dom) == self.slow.hazard(dom), f"hazards of domain {dom}"
            assert self.fast.q_dump(dom) == self.slow.q_dump(dom)
            if self.words:
                self._compare_contents(dom)
        for fact in ("host_pages", "free_pages", "free_2m", "outstanding_claims"):
            assert getattr(self.fast, fact) == getattr(self.slow, fact), fact

    def _compare_contents(self, dom: int) -> None:
        """Words of all RAM of a running guest: reading RAM changes nothing."""
        if self.slow.counters(dom).crashed or self.slow.is_locked(dom):
            return
        ram = self.ram_gfns(dom)
        for word in WORDS:
            found, expected = self.fast.read_list(dom, word, ram), self.slow.read_list(dom, word, ram)
            assert found == expected, f"contents of domain {dom}, word {word}: kernels {found}, reference {expected}"

    def ram_gfns(self, dom: int) -> list[int]:
        """Every gfn of a domain that is RAM now."""
        entries = self.slow.entries(dom)
        return [gfn + i for gfn, kind, _, order in entries if kind == RAM for i in range(1 << order)]

    def audit(self) -> None:
        """Both recount themselves."""
        self.fast.audit()
        self.slow.audit()
