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
# Do the crashes that operators' Xen logged come out of their configurations, to the page?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.field_crashes import crash_figure, in_markdown, verdicts
from podcluster.report.style import png

folder = dataset.of_experiment("field_crashes")
domains = dataset.rows(folder, "domains")
found = verdicts(domains)
agree = sum(one.entries_agree and one.tot_agrees is not False for one in found)
Markdown(f"**{agree} of {len(found)}** logged crashes come out.\n\n{in_markdown(found)}")

# %% [markdown]
# Xen logs two numbers when it kills a guest for want of populate-on-demand memory: what the guest owned (`tot`) and the
# entries it was still promised (`ents`). Without a driver the entries are maxmem - memory to the page, whatever the
# guest did before (Z1); what the device model adds to `tot` differs by a few pages from one to another.

# %%
Image(png(crash_figure(found)))

# %% [markdown]
# The lines that Xen would have logged here, and why each guest died.

# %%
[(row["crash"], row["cause"], row["oom_line"]) for row in domains]
