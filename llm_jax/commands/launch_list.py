"""The jobs of a back end, or of a folder of output folders.

Examples:
  llm-jax launch list runs
  llm-jax launch list --backend tpu --project my-project --zone us-east5-a
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_jax.config import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", nargs="?", help="folder that holds output folders, searched two levels deep")
    add("--backend", choices=("slurm", "tpu", "gke"), help="ask this back end instead")
    add("--project", help="of the tpu back end")
    add("--zone", help="of the tpu back end")
    add("--namespace", default="default", help="of the gke back end")
    add("--context", help="of the gke back end")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if (args.folder is None) == (args.backend is None):
        raise UserError("llm-jax launch list needs a folder or --backend, and not both.")
    if args.folder is not None:
        return {"backend": None, "jobs": _folder(args.folder)}
    if args.backend == "slurm":
        from llm_jax.launch.backends import slurm

        jobs = slurm.listing()
    elif args.backend == "tpu":
        if not (args.project and args.zone):
            raise UserError("llm-jax launch list --backend tpu needs --project and --zone.")
        from llm_jax.launch.backends import tpu

        jobs = tpu.listing(args.project, args.zone)
    else:
        from llm_jax.launch.backends import gke

        jobs = gke.listing(args.namespace, args.context)
    return {"backend": args.backend, "jobs": jobs}


def _folder(folder: str) -> list[dict[str, str]]:
    from llm_jax.launch.job import status

    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"There is no folder {folder!r}: for gs:// give the job's own to `status`.")
    found = sorted({*root.glob("*/launch/job.json"), *root.glob("*/*/launch/job.json")})
    rows = []
    for path in found:
        state = status(str(path.parent.parent))
        rows.append({"job": state["job"], "state": state["state"], "out": state["out"]})
    return rows


def text(result: dict[str, Any]) -> str:
    if not result["jobs"]:
        return "no jobs"
    return "\n".join(f"{j['job']:<24}{j['state']:<12}{j['out']}" for j in result["jobs"])
