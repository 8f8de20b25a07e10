"""Buckets as folders: what a run names with `gs://`, the trainer reads and writes as files.

Token files are read at random places, and checkpoints appear by one rename: both want a file
system. So each host mounts the buckets with Cloud Storage FUSE, bucket `b` at `/gcs/b`, and the
agent gives the trainer a run in which every `gs://b/x` reads `/gcs/b/x`. The start-up script of a
TPU VM, the GKE volume and the SkyPilot task make the mount; the agent makes sure of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_jax.launch.checks import Refused
from llm_jax.launch.folder import Folder

ROOT = "/gcs"
NODE_DISK = "/local"
"""Where pods have a folder on their node's own disk, for `checkpoint.local`."""
ROOT_VARIABLE = "LLM_JAX_GCS_MOUNT"
# Hosts must see at once what another has written: a checkpoint is made by all of them together.
FUSE_OPTIONS = ("implicit-dirs", "metadata-cache-ttl-secs=0", "metadata-cache-negative-ttl-secs=0")


def mount_root(env: Mapping[str, str]) -> Path:
    return Path(env.get(ROOT_VARIABLE, ROOT))


def as_files(value: Any, root: Path) -> Any:
    """A parsed run.json with each `gs://bucket/name` replaced by its path below `root`."""
    if isinstance(value, dict):
        return {name: as_files(item, root) for name, item in value.items()}
    if isinstance(value, list):
        return [as_files(item, root) for item in value]
    if isinstance(value, str) and value.startswith("gs://"):
        return str(root / value.removeprefix("gs://"))
    return value


def check_mounts(run: Any, folder: Folder, root: Path) -> None:
    """Makes sure that the output folder, and all else that the run names, lies below `root`.

    Raises:
      Refused: a bucket is not mounted; the sentence names it.
    """
    for address in sorted(_addresses(run)):
        bucket = address.removeprefix("gs://").partition("/")[0]
        if not (root / bucket).is_dir():
            raise Refused(
                f"gs://{bucket} is not mounted at {root / bucket}, where the trainer would look "
                f"for {address}: mount it with gcsfuse"
            )
    # An empty folder of that name would be one that is lost with the host.
    if folder.address.startswith("gs://"):
        known = Path(as_files(folder.address, root)) / "launch" / "job.json"
        if not known.is_file():
            raise Refused(
                f"{known.parent.parent} is not {folder.address}: it has no launch/job.json; "
                "mount the bucket with gcsfuse"
            )


def _addresses(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_addresses, value.values()))
    if isinstance(value, list):
        return set().union(*map(_addresses, value))
    return {value} if isinstance(value, str) and value.startswith("gs://") else set()
