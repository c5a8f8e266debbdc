"""The words every part of podcluster exchanges: requests, views, commands, reports and the rows of the tables.

What        Plain frozen dataclasses, a subject a file; no behaviour beyond reading a demand curve at an instant and
            samples by row. `values.py` has what they are made of. What a workload asks for: `demand.py`, `machines.py`.
            What goes between scheduler and hosts: `hosts.py`, `commands.py`, `migration.py`, `reports.py`. What is
            stored: `fates.py` (its words), `rows.py`, `samples.py`, `summaries.py` (its rows), `tables.py`.
Units       The last word of a name: `_pages` are 4 KiB pages and `_ns` nanoseconds, both ints; `_mib`, `_s` likewise.
Symbols     M maxmem_pages   T memory_pages (the target)   U usable_pages (RAM less Xen and dom0)
            E entry_count    C cache_count                 W(t) Demand
Invariants  A name is imported from the module that defines it. A record does not change once it is made; whoever
            has one leaves the arrays in it as they are, for others may share them.
Departs     A domain or sample that belongs to no host has host_id -1 rather than a null, so that the column stays an
            integer in every reader.
"""
