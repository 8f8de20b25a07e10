"""How the node pools, and the cluster, are configured for the job."""

from __future__ import annotations

from collections.abc import Iterator

from llm_jax.launch.cluster.capacity import fitting_pools
from llm_jax.launch.cluster.finding import Finding, World


def pools(world: World) -> Iterator[Finding]:
    google = world.google
    if google is None:
        yield Finding(
            "project", "warning",
            "The kubeconfig does not tell the cluster's project, so node pools, quota, reservation "
            "and region were not looked at: run gcloud container clusters get-credentials.",
        )  # fmt: skip
        return
    if not google.description.get("workloadIdentityConfig", {}).get("workloadPool"):
        yield Finding(
            "workload identity", "error",
            "The cluster has no Workload Identity, by which pods reach the bucket: add it with "
            f"gcloud container clusters update {google.cluster} "
            f"--workload-pool={google.project}.svc.id.goog.",
        )  # fmt: skip
    of = world.spec.slice_type
    found = fitting_pools(world)
    blind = [p["name"] for p in found if _metadata_mode(p) not in (None, "GKE_METADATA")]
    if blind:
        yield Finding(
            "workload identity", "error",
            f"The nodes of {', '.join(blind)} do not give pods their own identity: run gcloud "
            "container node-pools update POOL --workload-metadata=GKE_METADATA.",
        )  # fmt: skip
    if of.chip == "tpu7x" and of.machines > 1:
        loose = [p["name"] for p in found if not p.get("placementPolicy", {}).get("policyName")]
        if loose:
            yield Finding(
                "workload policy", "error",
                f"The node pools {', '.join(loose)} have no workload policy, without which tpu7x "
                "machines are no slice: make one with gcloud compute resource-policies create "
                f"workload-policy --type=HIGH_THROUGHPUT --accelerator-topology={of.topology}, and "
                "the pools with --placement-policy.",
            )  # fmt: skip
        elif found:
            yield Finding("workload policy", "ok", "The node pools have a workload policy.")


def _metadata_mode(pool: dict) -> str | None:
    return pool.get("config", {}).get("workloadMetadataConfig", {}).get("mode")
