"""Versions of GKE, and what needs which."""

from __future__ import annotations

import re

from llm_jax.launch.spec import JobSpec

Version = tuple[int, ...]

HOST_NETWORK = "1.33.3-gke.1226000"
"""Cloud Storage FUSE in pods on the host's network (gcs-fuse-csi-driver, docs/releases.md)."""
STREAMING = "1.32.1-gke.1753001"
"""Cloud Storage FUSE knows writing without a copy on the node's disk (same page)."""
STREAMING_BY_DEFAULT = "1.33.2-gke.4655000"
"""It does so (same page)."""
IRONWOOD = "1.34.0-gke.2201000"
"""TPU7x in Standard clusters (GKE, "About Ironwood (TPU7x)")."""
FLEX_TPU, FLEX_GPU = "1.33.0-gke.1712000", "1.32.2-gke.1652000"
"""Flex-start (GKE, "About flex-start", requirements)."""
EXTENDED_GRACE = "1.35.0-gke.1171000"
"""A node pool may give its spot pods more than 15 s (GKE, "Spot VMs")."""


def parsed(version: str) -> Version | None:
    """`v1.34.1-gke.3971001` as (1, 34, 1, 3971001); None if it is not a version of GKE."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)-gke\.(\d+)", version)
    return tuple(map(int, match.groups())) if match else None


def needed(spec: JobSpec) -> tuple[str, str]:
    """The version without which the job cannot run, and what needs it."""
    of = spec.slice_type
    wants = [(STREAMING, "writing through Cloud Storage FUSE")]
    if of.kind == "tpu":
        wants.append((HOST_NETWORK, "Cloud Storage FUSE on TPU slices"))
    if of.chip == "tpu7x":
        wants.append((IRONWOOD, "tpu7x"))
    if spec.capacity == "flex-start":
        wants.append((FLEX_TPU if of.kind == "tpu" else FLEX_GPU, "flex-start capacity"))
    return max(wants, key=lambda want: parsed(want[0]) or ())
