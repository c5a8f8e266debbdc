"""Parquet in and out, with units in the schema and provenance beside it; traces of real machines in `io.traces`."""
