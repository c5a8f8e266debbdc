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
# What did twelve years of changes to populate-on-demand do to the same boots?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.figure import experiment_figure, sweep_note
from podcluster.report.paired import pooled, pooled_in_words
from podcluster.report.style import png

folder = dataset.of_experiment("eras")
origin = dataset.provenance(folder)
study = origin["config"]["study"]
measures = ("died", "early", "sweeps", "splintered_2m", "boot_s")
lines = pooled(folder, study["baseline"], ["guest"], study["confidence"])
Markdown(pooled_in_words(lines, measures, study["baseline"], study["confidence"]))

# %% [markdown]
# The same machines boot with the same draws under each era's rules, so what differs is the hypervisor. Each line pools
# the ratios of maxmem to memory; boot time is compared over the guests that came up under both.

# %%
Image(png(experiment_figure(folder, origin, sweep_note(folder, origin))))

# %% [markdown]
# Ratio by ratio.

# %%
lines = pooled(folder, study["baseline"], ["guest", "overcommit"], study["confidence"])
Markdown(pooled_in_words(lines, measures, study["baseline"], study["confidence"]))
