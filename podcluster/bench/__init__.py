"""`podcluster bench NAME`: how fast and how small the simulator is.

A benchmark fixes its sizes and seeds, warms up, builds what it does not measure outside the clock, and reports medians.
Its figures go to standard error beside the bound that each is to keep, and as one JSON object to the last line of
standard output. Nothing here is a test: a busy machine misses bounds that a quiet one keeps.
"""
