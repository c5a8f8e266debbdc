# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
# How does the rate of crashes, and the time in swap, rise with the realised overcommit?
from IPython.display import Image, Markdown

from podcluster.io.load import load_results
from podcluster.report.answer import in_words, reach_of
from podcluster.report.dataset import of_experiment
from podcluster.report.figure import condition, held
from podcluster.report.over_ratio import overcommit_figure
from podcluster.report.style import png

MOST_CRASH, MOST_SWAP = 0.01, 0.01

results = load_results(of_experiment("overcommit"))
cells = results["cells"]
by = [axis for axis in results.axes if axis != "overcommit" and cells[axis].nunique() > 1]
confidence = cells["confidence"].iloc[0]
reaches = reach_of(cells, by, most_crash=MOST_CRASH, most_swap=MOST_SWAP)
Markdown(in_words(reaches, most_crash=MOST_CRASH, most_swap=MOST_SWAP, confidence=confidence))

# %% [markdown]
# Each guest is promised `maxmem` and started with `memory` = maxmem / R. The knob is R; what counts is what was really
# promised over what there is, the **realised static ratio** on the axes below, since the last host is rarely full. It
# counts every machine that a host took, whatever became of it.
#
# Two prices are paid. A guest whose balloon driver comes late may have dirtied more than it owns by then: Xen kills it
# (left). A guest whose demand outgrows its target swaps (right). How fast page cache grows into free memory has no
# trustworthy source, so it is an axis: off (0), default (20 MiB/s), fast (200 MiB/s).

# %%
first = results["runs"].iloc[0]
note = "; ".join(filter(None, [condition(first), held(results.provenance["config"])]))
Image(png(overcommit_figure(cells, by=by, note=note)))

# %% [markdown]
# The numbers behind it, with intervals over replications. `design_effect` is how much wider they are than if every
# boot were independent of the others of its run: guests of one run share its machines, so far above 1 the pooled
# interval is not to be believed.

# %%
shown = [*by, "overcommit"] if "overcommit" in results.axes else by
rates = ["crash_per_boot", "start_refused", "swap_share"]
names = [*shown, "static_ratio", *(f"{rate}{end}" for rate in rates for end in ("", "_low", "_high"))]
names += ["crash_per_boot_upper", "crash_per_boot_design_effect", "boots_started", "replications"]
cells[names].round(4)

# %% [markdown]
# Who died? Causes of death by cell: `debt` is a death no reclaim could have prevented, `reclaim_short` one where zero
# pages existed that Xen did not find in time.

# %%
domains = results["domains"]
dead = domains[domains["fate"].isin(["pod_oom", "guest_panic"])]
dead.groupby([*shown, "fate", "cause"], observed=True).size().rename("guests").to_frame()
