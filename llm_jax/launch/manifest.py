"""A job on GKE as a file for `kubectl apply`, for those who do not let a laptop create things.

`launch run` writes the job and its run into the output folder and then creates the JobSet. Here the
two files travel in a ConfigMap, and the first agent to start puts them into the folder.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_jax.config import RunConfig, UserError, require, to_json
from llm_jax.config.extras import require_packages
from llm_jax.launch.backends import gke_jobset
from llm_jax.launch.folder import Folder
from llm_jax.launch.records import job_json, read_json
from llm_jax.launch.spec import Gke, JobSpec
from llm_jax.runs.plan_file import PLAN, plan_named

FILES = "/etc/llm-jax"
VARIABLE = "LLM_JAX_FILES"
"""Environment variable of the agent: the folder that holds `run.json` and `job.json`."""


def text(spec: JobSpec, run: RunConfig) -> str:
    """The YAML documents of the job.

    Raises:
      ConfigError: the job's back end is not GKE.
      UserError: PyYAML is not installed.
    """
    require_packages("--manifest", "yaml")
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as they are, so that people can read them."""

    def represent(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, represent)
    return yaml.dump_all(documents(spec, run), Dumper=Dumper, sort_keys=False)


def documents(spec: JobSpec, run: RunConfig) -> list[dict[str, Any]]:
    """A ConfigMap with the job's files, and the JobSet whose pods mount it."""
    backend = spec.backend
    require(
        isinstance(backend, Gke),
        f"--manifest is for kubectl, and the back end is {backend.kind!r}: give --backend gke.",
    )
    assert isinstance(backend, Gke)
    name = f"{spec.name}-launch"
    files = {"run.json": to_json(replace(run, out=spec.out)), "job.json": job_json(spec, 0)}
    if plan := plan_named(spec.config):
        files[PLAN] = to_json(plan)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": backend.namespace,
            "labels": {gke_jobset.LABEL: spec.name},
        },
        "data": files,
    }
    job_set = gke_jobset.manifest(spec, backend, 0)
    (slices,) = job_set["spec"]["replicatedJobs"]
    pod = slices["template"]["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "launch", "configMap": {"name": name}})
    for agent in pod["containers"]:
        agent["volumeMounts"].append({"name": "launch", "mountPath": FILES, "readOnly": True})
        agent["env"].append({"name": VARIABLE, "value": FILES})
    return [config_map, job_set]


def put_files(folder: Folder, source: Path) -> None:
    """Puts the files of `source` into the output folder `folder`, unless they are there.

    Raises:
      UserError: the folder holds another job or run.
    """
    for name, part in (("run.json", None), (PLAN, None), ("job.json", "spec")):
        if not (source / name).is_file() and name == PLAN:
            continue  # nobody planned the run
        data = (source / name).read_bytes()
        # An object takes one write per second, and thousands of hosts come: most only read.
        if folder.read(f"launch/{name}") is None and folder.create(f"launch/{name}", data):
            continue
        held, brought = read_json(folder, f"launch/{name}"), json.loads(data)
        if part:  # beside the specification is the number of the first start
            held = held.get(part) if isinstance(held, dict) else None
            brought = brought[part]
        if held != brought:
            raise UserError(
                f"{folder.address} holds another launch/{name} than the manifest: choose another "
                "output folder."
            )
