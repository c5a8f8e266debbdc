"""Two Ray nodes on this machine, in a process of their own: `python -m tests.cluster.two_nodes`.

Prints a line of JSON with the cluster's address and the process id of the second node's raylet, and ends with its
standard input.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Start them, say where, wait."""
    from ray.cluster_utils import Cluster

    # A node counts as dead after a second or two of silence; as Ray comes, it takes fifteen.
    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 300,
        "health_check_timeout_ms": 1000,
        "health_check_failure_threshold": 4,
    }
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": quick})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    (raylet,) = second.all_processes["raylet"]
    sys.stdout.write(json.dumps({"address": cluster.address, "raylet": raylet.process.pid}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
