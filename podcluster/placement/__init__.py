"""Where a domain goes: one policy a file, and the index of hosts they share.

What        A policy is a pure function of a request and what is known of the hosts. It never sees a host itself.
            `rules.py` says when a host fits and what is measured, `groups.py` keeps domains together or apart,
            `batch.py` places many at once, `bounds.py` and `metrics.py` say how good a packing is, `ha.py` whether the
            hosts left by a failure could bear what ran on it.
Units       Pages. The request is need_memory (B3.1) and maxmem of the domain, and what of the need is not memory.
Invariants  [PLACE-1] committed + need <= U of the host a policy names   [PLACE-2] maxmem <= U of it
"""
