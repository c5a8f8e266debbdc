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
# Which of the figures that nobody has measured decide who dies, and who swaps for how long?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.figure import experiment_figure, sweep_note
from podcluster.report.paired import pooled, pooled_in_words
from podcluster.report.style import png

folder = dataset.of_experiment("assumptions")
origin = dataset.provenance(folder)
study = origin["config"]["study"]
lines = pooled(folder, study["baseline"], ["guest", "overcommit"], study["confidence"])
Markdown(pooled_in_words(lines, ("died", "swap_s", "boot_s"), study["baseline"], study["confidence"]))

# %% [markdown]
# One assumption at a time is changed, and the same machines live again. A dot off the line that is not hollow is a
# figure that somebody should measure before believing an answer that rests on it.

# %%
Image(png(experiment_figure(folder, origin, sweep_note(folder, origin))))

# %% [markdown]
# All cells.

# %%
cells = dataset.rows(folder, "cells")
names = ("guest", "overcommit", "assumption", "crash_per_boot_numerator", "boots_started")
[{name: cell[name] for name in names} for cell in cells]
