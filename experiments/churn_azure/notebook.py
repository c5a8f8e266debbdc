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
# How many hosts does a cloud's stream of machines need as overcommit rises, and what does it cost?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.churning import in_words
from podcluster.report.figure import axes_of, hosts_figure
from podcluster.report.style import png

folder = dataset.of_experiment("churn_azure")
origin = dataset.provenance(folder)
Markdown(in_words(dataset.rows(folder, "cells"), dataset.rows(folder, "runs"), axes_of(origin)))

# %% [markdown]
# Left hosts over the overcommit that was asked for, with the bound that no packing can beat (dashed) and each
# replication thin; then crashes and time in swap over the overcommit that was reached, at its highest.

# %%
Image(png(hosts_figure(folder, origin)))

# %% [markdown]
# Machines that came and went.

# %%
fates = dataset.columns(folder, "domains")["fate"]
Markdown("\n".join(f"- {fate}: {(fates == fate).sum():,}" for fate in sorted(set(fates))))
