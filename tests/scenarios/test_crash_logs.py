"""Real crash logs: guests without a balloon driver, whose settings are known, die with the numbers that Xen logged."""

import pytest

from podcluster.units import PAGES_PER_MIB
from tests.host.lives import guest_config, host_config, host_model, live, request, start


@pytest.mark.parametrize(
    ("memory_mib", "maxmem_mib", "host", "tot", "ents"),
    [
        pytest.param(2048, 3000, {"extra_ram_pages": 30}, 524_286, 243_712, id="QubesOS-3861"),
        pytest.param(400, 4000, {"extra_ram_pages": 17}, 102_385, 921_600, id="QubesOS-4135"),
        # The builder of these did not take the VGA hole off the target, so they are 32 entries short of the difference.
        pytest.param(256, 4096, {"pod_target_less_hole": False}, None, 983_008, id="hole-kept-4096"),
        pytest.param(
            500, 658, {"pod_target_less_hole": False, "extra_ram_pages": 16}, 128_016, 40_416, id="hole-kept-658"
        ),
    ],
)
def test_a_logged_crash(memory_mib: int, maxmem_mib: int, host: dict[str, object], tot: int | None, ents: int) -> None:
    """The line that Xen logged for this memory= and maxmem=, to the page."""
    guest = guest_config("linux_no_driver", dirty_all=True, kernel_mib=[40, 80], services_mib=[60, 120])
    model = host_model(guest, ram_mib=memory_mib + 128, host=host_config(**host))
    report = live(model, 600, start(request(0, "linux_no_driver", memory_mib, maxmem_mib)))
    row = report.domains[0]
    assert (row.fate, row.cause) == ("pod_oom", "debt")
    assert row.cache_count == 0
    assert row.entry_count == ents
    owned = row.tot_pages if tot is None else tot
    assert row.oom_line == f"p2m_pod_demand_populate: Dom1 out of PoD memory! (tot={owned} ents={ents} dom1)"
    assert [event.text for event in report.events if event.kind == "pod_oom"] == [row.oom_line]


def test_a_working_driver_would_have_saved_it() -> None:
    """The same guest with its driver lives: switch the safety rule on and the story ends well."""
    guest = guest_config("linux", dirty_all=True, kernel_mib=[40, 80], services_mib=[60, 120])
    report = live(host_model(guest, ram_mib=2200), 600, start(request(0, "linux", 2048, 3000)))
    row = report.domains[0]
    assert row.fate == "running"
    assert row.ballooned_pages >= 952 * PAGES_PER_MIB
