"""Studies: cells and replications, resumable; and the statistics over them."""
