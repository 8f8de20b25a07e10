"""SkyPilot: writes the task file; `sky jobs launch` starts it, and restarts what is preempted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.launch.accelerators import TPU_RUNTIME, gce_type
from llm_jax.launch.actions import Action, WriteLocalFile
from llm_jax.launch.backends import Resource
from llm_jax.launch.code import sums
from llm_jax.launch.forms import shell_word
from llm_jax.launch.mount import ROOT
from llm_jax.launch.outside import outside_file
from llm_jax.launch.spec import JobSpec, SkyPilot

HOME = "~/llm-jax"
"""Folder on a host in which llm_jax is installed."""
GPU_NAMES = {"a100": "A100-80GB", "h100": "H100", "h200": "H200", "b200": "B200"}


def task(spec: JobSpec, incarnation: int) -> dict[str, Any]:
    """The task as SkyPilot's YAML has it."""
    backend, of = spec.backend, spec.slice_type
    assert isinstance(backend, SkyPilot)
    python = f"{HOME}/venv/bin/python" if spec.code is not None else "python3"
    resources: dict[str, Any] = {"use_spot": spec.capacity == "spot"}
    places = [spec.out, spec.init, spec.branch]
    buckets = {one.removeprefix("gs://").partition("/")[0] for one in places if one}
    if of.kind == "tpu":
        resources["accelerators"] = f"tpu-{gce_type(of)}"
        resources["accelerator_args"] = {"runtime_version": TPU_RUNTIME[of.chip]}
    elif of.kind == "gpu":
        resources["accelerators"] = f"{GPU_NAMES[of.chip]}:{of.chips_per_host}"
    else:
        resources["cpus"] = f"{of.chips_per_host}+"
    if backend.infra is not None:
        resources["infra"] = backend.infra
    if spec.image is not None:
        resources["image_id"] = f"docker:{spec.image}"
    made: dict[str, Any] = {
        "name": spec.name,
        "resources": resources,
        # SkyPilot counts a TPU slice as one node, and runs the command on each of its hosts.
        "num_nodes": 1 if of.kind == "tpu" else spec.slices,
        "envs": {"LLM_JAX_INCARNATION": str(incarnation)},
        "file_mounts": {
            f"{ROOT}/{bucket}": {"source": f"gs://{bucket}", "mode": "MOUNT"}
            for bucket in sorted(buckets)
        },
        "run": "export LLM_JAX_PROCESS=$SKYPILOT_NODE_RANK\n"
        f"{python} -m llm_jax.launch.agent {shell_word(spec.out)}\n",
    }
    if spec.code is not None:
        made["setup"] = setup(spec)
    return made


def setup(spec: JobSpec) -> str:
    """Installs, on a host, what the job was launched with, from the mounted bucket."""
    sent = shell_word(f"{ROOT}/{spec.out.removeprefix('gs://').rstrip('/')}/launch")
    names = sorted(spec.sha256)
    return (
        f"set -eu\nmkdir -p {HOME}\n(cd {sent} && cp {' '.join(names)} {HOME}/)\n"
        f"(cd {HOME} && sha256sum --check --quiet --strict) <<'END'\n{sums(spec.sha256)}END\n"
        f"set -- {HOME}\n{outside_file('install.sh')}"
    )


def render(spec: JobSpec, incarnation: int) -> list[Action]:
    if spec.slice_type.kind == "tpu" and spec.slices > 1:
        raise UserError(
            f"job.slices is {spec.slices}: SkyPilot has no multislice TPUs, use the tpu or gke "
            "back end."
        )
    require_packages("The skypilot back end", "yaml")
    import yaml

    text = yaml.safe_dump(task(spec, incarnation), sort_keys=False)
    return [WriteLocalFile(f"{spec.name}.sky.yaml", text)]


class Driver:
    restarts_itself = True

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec

    def render(self, incarnation: int) -> list[Action]:
        return render(self.spec, incarnation)

    def check(self) -> None:
        path = Path(f"{self.spec.name}.sky.yaml")
        if path.exists():
            raise UserError(f"{path} exists already: remove it, or choose another job.name.")

    def apply(self, action: Action) -> None:
        assert isinstance(action, WriteLocalFile)
        action.apply()

    def resource(self) -> Resource:
        return Resource("absent", "SkyPilot knows: sky jobs queue")

    def remove(self) -> None:
        """Nothing of it was started here; the agents leave when they see the stop file."""

    def billable(self) -> list[str]:
        return [f"whatever `sky jobs queue` shows for {self.spec.name}: this back end cannot look"]
