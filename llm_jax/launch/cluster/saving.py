"""What the job keeps when its hosts go: the time that pods get, and the node's own disk."""

from __future__ import annotations

from collections.abc import Iterator

from llm_jax.config import RunConfig, require
from llm_jax.launch.cluster.finding import Finding, World
from llm_jax.launch.cluster.versions import EXTENDED_GRACE
from llm_jax.launch.mount import NODE_DISK
from llm_jax.launch.spec import Gke, JobSpec

SPOT_SECONDS = 15
"""Of the 30 s that Compute Engine gives a spot machine, GKE leaves pods the first 15."""
SPOT_MOST = 120
"""The longest that a node pool can be set to."""


def check_local(spec: JobSpec, run: RunConfig) -> None:
    """Raises `ConfigError` if `checkpoint.local` is a folder that pods lose, or cannot make."""
    local = run.checkpoint.local
    if local is not None and isinstance(spec.backend, Gke):
        inside = local == NODE_DISK or local.startswith(f"{NODE_DISK}/")
        require(
            inside,
            f"checkpoint.local is {local!r}, and pods have their node's disk at {NODE_DISK}: name "
            f"a folder in it, such as --checkpoint.local {NODE_DISK}/checkpoints.",
        )


def grace(world: World) -> Iterator[Finding]:
    spec, saves = world.spec, world.run.checkpoint
    if spec.capacity != "spot":
        return
    local = (
        f"checkpoint.local keeps every {saves.local_every} steps for a crash, but a host that is "
        "taken away takes its disk along"
        if saves.local
        else "checkpoint.local would save the steps between for crashes of a trainer"
    )
    yield Finding(
        "grace", "warning",
        f"GKE gives pods on spot nodes {SPOT_SECONDS} s to save (up to {SPOT_MOST} where the node "
        f"pool's shutdown grace is extended, from {EXTENDED_GRACE}), and not the job's "
        f"{spec.grace_seconds:.0f}: a preemption can cost the {saves.every} steps of "
        f"checkpoint.every; {local}.",
    )  # fmt: skip
