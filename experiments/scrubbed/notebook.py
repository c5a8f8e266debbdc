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
# Would a guest that fills its memory with a pattern live, if Xen knew the pattern?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.figure import experiment_figure, sweep_note
from podcluster.report.paired import pooled, pooled_in_words
from podcluster.report.style import png

folder = dataset.of_experiment("scrubbed")
origin = dataset.provenance(folder)
study = origin["config"]["study"]
lines = pooled(folder, study["baseline"], ["guest", "overcommit"], study["confidence"])
Markdown(pooled_in_words(lines, ("died", "sweeps", "splintered_2m"), study["baseline"], study["confidence"]))

# %% [markdown]
# "So this won't work for any domain that does start-of-day scrubbing with a non-zero value?" was asked of the first
# patches, and answered: not if the scrubber wins the race against the balloon driver; a type of entry for scrubbed
# memory would be straightforward to add. This is that type, with guests that scrub and guests that do not.

# %%
Image(png(experiment_figure(folder, origin, sweep_note(folder, origin))))

# %% [markdown]
# All cells.

# %%
cells = dataset.rows(folder, "cells")
names = ("guest", "overcommit", "host.scrubbed_pod", "crash_per_boot_numerator", "boots_started")
[{name: cell[name] for name in names} for cell in cells]
