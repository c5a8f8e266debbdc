"""`podcluster bench trace` with all its parts, of which one is on Ray; how fast anything is, no test says."""

from __future__ import annotations

import pytest

from podcluster.bench import trace


@pytest.mark.slow
@pytest.mark.ray
def test_trace_gives_the_figures_that_it_promises(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four machines on two hosts for a day; what is compared elsewhere is left out."""
    for name, value in (("MACHINES", 40), ("HOSTS", 20), ("DAYS", 10)):
        monkeypatch.setattr(trace, name, value)
    monkeypatch.setattr(trace, "equals_page_loop", lambda config, plan, workload: True)
    figures = trace.measure(1, quick=True)
    assert (figures["machines"], figures["hosts"], figures["days"]) == (4, 2, 1)
    measured = ("static_samples_per_s", "squeezed_samples_per_s", "peak_rss_mib", "telemetry_ratio",
                "telemetry_rows_per_s", "two_actor_share")  # fmt: skip
    assert all(figures[name] > 0 for name in measured)
    assert figures["pages_moved"] == figures["squeezed_pages_moved"] >= figures["static_pages_moved"] == 0
    assert figures["domains_with_debt_s"] == figures["squeezed_domains_with_debt_s"] >= 0
    assert set(trace.BOUNDS) <= set(figures)
