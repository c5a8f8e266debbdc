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
# Without a swap disk applications fail, with one they are very slow for a while: how often, and for how long?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.figure import sweep_note
from podcluster.report.paired import pooled, pooled_in_words
from podcluster.report.style import png
from podcluster.report.swapping import in_words, prices_of, swap_figure

folder = dataset.of_experiment("swap_disk")
origin = dataset.provenance(folder)
study = origin["config"]["study"]
prices = prices_of(dataset.columns(folder, "domains"), study["confidence"])
Markdown(in_words(prices, study["confidence"]))

# %% [markdown]
# "The consequence for a no-swap-disk is application failures and the consequence even if a swap disk IS configured is
# temporarily very poor performance", said the first answer to the first patches. Both are counted here for the same
# machines: left how often an application is killed, in the middle how many guests lose time to swapping at all, right
# how slow those are that do.

# %%
Image(png(swap_figure(prices, note=sweep_note(folder, origin))))

# %% [markdown]
# Machine by machine, against no swap at all.

# %%
lines = pooled(folder, study["baseline"], ["overcommit"], study["confidence"])
measures = ("died", "oom_kills", "swap_s", "slowdown")
Markdown(pooled_in_words(lines, measures, study["baseline"], study["confidence"]))
