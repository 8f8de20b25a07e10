"""The job's buckets: where they are, and whether the pods may use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_jax.config import UserError
from llm_jax.launch.bucket import BucketFolder, check_bucket
from llm_jax.launch.cluster.finding import Finding, World
from llm_jax.launch.folder import open_folder
from llm_jax.launch.mount import ROOT

CONTINENTS = {"US": "us-", "EU": "europe-", "ASIA": "asia-"}
DUAL = {
    "NAM4": ("us-central1", "us-east1"),
    "EUR4": ("europe-north1", "europe-west4"),
    "ASIA1": ("asia-northeast1", "asia-northeast2"),
}
"""Regions of the predefined dual-regions (Cloud Storage, "Bucket locations")."""


def buckets(world: World) -> Iterator[Finding]:
    """The buckets of the output folder and of the datasets."""
    places = {world.spec.out: "output"}
    for data in world.run.data.folders.values():
        inside = data.removeprefix(ROOT + "/")
        data = data if inside == data else f"gs://{inside}"
        if data.startswith("gs://") and _name(data) not in map(_name, places):
            places[data] = "dataset"
    for address, what in places.items():
        folder = open_folder(address)
        if isinstance(folder, BucketFolder):
            yield from _look(world, folder, what)


def _name(address: str) -> str:
    return address.removeprefix("gs://").partition("/")[0]


def _look(world: World, folder: BucketFolder, what: str) -> Iterator[Finding]:
    try:
        unseen = check_bucket(folder)
    except UserError as error:
        unseen = None
        if what == "output":  # a dataset is only read
            yield Finding("bucket", "error", str(error))
    if unseen:
        yield Finding("bucket", "warning", f"{unseen[0].upper()}{unseen[1:].rstrip('.')}.")
    elif world.google is not None:
        yield from _region(world.google.region, folder.bucket, what)
        yield from _access(world, folder.bucket)


def _region(region: str, bucket: Any, what: str) -> Iterator[Finding]:
    location, name = (bucket.location or "").upper(), f"gs://{bucket.name}"
    regions = [r.lower() for r in bucket.data_locations or DUAL.get(location, ())]
    here = location.lower() == region or region in regions
    if here:
        yield Finding("bucket region", "ok", f"The bucket {name} is in {region}, as the cluster.")
    elif region.startswith(CONTINENTS.get(location, "-")):
        yield Finding(
            "bucket region", "warning",
            f"The bucket {name} is spread over {location}, and the cluster is in {region}: saving "
            "is slower than to a bucket of that region, and each gigabyte is charged.",
        )  # fmt: skip
    else:
        yield Finding(
            "bucket region", "error",
            f"The {what} bucket {name} is in {location}, and the cluster is in {region}: each save "
            "and read would cross regions and be charged, so use a bucket of "
            f"{region} (gcloud storage buckets create --location={region}).",
        )  # fmt: skip


def _access(world: World, bucket: Any) -> Iterator[Finding]:
    """Whether the bucket's policy names the pods' service account."""
    assert world.google is not None
    backend, project = world.backend, world.google.project
    account = backend.service_account or "default"
    found = world.kube.core("read_namespaced_service_account", account, backend.namespace) or {}
    noted = found.get("metadata", {}).get("annotations") or {}
    google_account = noted.get("iam.gke.io/gcp-service-account")
    pool = f"workloadIdentityPools/{project}.svc.id.goog"
    direct = f"{pool}/subject/ns/{backend.namespace}/sa/{account}"
    wanted = f"serviceAccount:{google_account}" if google_account else direct
    groups = (f"{pool}/*", f"{pool}/namespace/{backend.namespace}")
    members = _members(bucket)
    if any(member.endswith((wanted, *groups)) for member in members):
        yield Finding("bucket access", "ok", f"gs://{bucket.name} lets {account} in.")
        return
    member = wanted
    if not google_account:
        member = f"principal://iam.googleapis.com/projects/NUMBER/locations/global/{direct}"
    yield Finding(
        "bucket access", "warning",
        f"The policy of gs://{bucket.name} does not name the service account {account}: unless the "
        "project's does, run gcloud storage buckets add-iam-policy-binding "
        f"gs://{bucket.name} --role=roles/storage.objectUser --member={member}.",
    )  # fmt: skip


def _members(bucket: Any) -> set[str]:
    """All whom the bucket's policy names. Raises `UserError` if it cannot be read."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        policy = bucket.get_iam_policy(requested_policy_version=3, timeout=30)
    except (GoogleAPIError, GoogleAuthError) as error:
        raise UserError(f"who may use gs://{bucket.name}: {str(error).splitlines()[0]}") from None
    return {member for binding in policy.bindings for member in binding["members"]}
