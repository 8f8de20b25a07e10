"""What `test_ray_curation.py` has done on a Ray cluster of two nodes; prints what it saw as JSON.

python ray_scenario.py TEXT FOLDER
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from curation_samples import curate, started
from ray.cluster_utils import Cluster

TEXT, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


def words(out: str, *more: object) -> list[str]:
    return list(map(str, curate(TEXT, FOLDER / out, "--backend", "ray", *more)))


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=200)
    return {"code": process.returncode, "stdout": stdout, "stderr": stderr}


def runs_a_task(raylet: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(
            "run_task" in child.cmdline()[0] for child in raylet.children() if child.cmdline()
        )
    return False


def killed(cluster: Cluster) -> dict[str, Any]:
    """The second node is killed while a task runs there."""
    node = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    process = started(words("killed", "--ray-address", cluster.address))
    until = time.monotonic() + 60
    while not (seen := runs_a_task(raylet)) and time.monotonic() < until:
        time.sleep(0.02)
    cluster.remove_node(node, allow_graceful=False)
    return ended(process) | {"task_on_it": seen}


def job(url: str) -> dict[str, Any]:
    """The verb itself as a job that is submitted over HTTP."""
    submitted = ended(started(["launch", "run", *words("job", "--ray-address", url)]))
    name = json.loads(submitted["stdout"])["job"]
    until = time.monotonic() + 120
    state = "PENDING"
    while state in ("PENDING", "RUNNING") and time.monotonic() < until:
        time.sleep(1)
        with urllib.request.urlopen(f"{url}/api/jobs/{name}") as answer:
            state = json.load(answer)["status"]
    return {"submitted": json.loads(submitted["stdout"]), "state": state}


def main() -> None:
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    dashboard = {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=NODE | dashboard)
    try:
        seen = {
            "killed": killed(cluster),
            "too many cpus": ended(
                started(words("x", "--cpus", 64, "--ray-address", cluster.address))
            )["stderr"],
            "job": job(f"http://{cluster.head_node.webui_url}"),
        }
    finally:
        cluster.shutdown()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
