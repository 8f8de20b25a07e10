"""Look at a GKE cluster, before a job is launched on it: what is missing, what may cost.

Versions, controllers, queue, accounts, node pools, quota, reservation and buckets are compared with
the job. Nothing is created. `launch run` does the same before it creates anything.

Examples:
  llm-jax launch preflight tiny --name demo --out gs://bucket/demo --accelerator v5p-128 \\
      --backend gke --namespace research --queue team --image REGISTRY/llm-jax@sha256:DIGEST \\
      --data.path gs://bucket/data

CONFIG and the flags of its fields are those of `llm-jax launch run`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from typing import Any

from llm_jax.commands.launch_run import add_job_arguments, job_spec, trained_run
from llm_jax.config import require
from llm_jax.launch.spec import Gke

OVERRIDES = True
add_arguments = add_job_arguments
SHOWN = {"ok": "ok", "warning": "warning", "error": "ERROR"}


def run(args: argparse.Namespace) -> dict[str, Any]:
    from llm_jax.launch import job
    from llm_jax.launch.cluster.preflight import findings

    spec = job_spec(args)
    require(
        isinstance(spec.backend, Gke),
        f"launch preflight looks at a GKE cluster, and the back end is {spec.backend.kind!r}: "
        "give --backend gke.",
    )
    trained = trained_run(spec, args, verb="launch preflight")
    job.check_packages(spec)
    job.check_given(spec, trained)
    found = findings(spec, trained)
    count = Counter(one.level for one in found)
    return {
        "job": spec.name,
        "fits": not count["error"],
        "errors": count["error"],
        "warnings": count["warning"],
        "findings": [asdict(one) for one in found],
        "exit_code": 1 if count["error"] else 0,
    }


def text(result: dict[str, Any]) -> str:
    lines = [f"{SHOWN[one['level']]:<8} {one['sentence']}" for one in result["findings"]]
    verdict = "can be launched" if result["fits"] else "cannot be launched as it is"
    return "\n".join([*lines, f"{result['job']} {verdict}"])
