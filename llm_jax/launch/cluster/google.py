"""Reads Google's APIs about a cluster's project: GKE, Compute Engine, Cloud Quotas.

Endpoints can be replaced by gcloud's own variables, such as
`CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER`; credentials are sent to googleapis.com alone,
and by https.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from llm_jax.config import UserError

SECONDS = 30
"""Wait for an answer."""


class Google:
    """One cluster's project. Every method raises `UserError` where the API does not answer."""

    def __init__(self, project: str, location: str, cluster: str) -> None:
        self.project, self.location, self.cluster = project, location, cluster

    @property
    def region(self) -> str:
        """`us-east5` of the region us-east5, or of its zone us-east5-a."""
        return re.sub(r"-[a-z]$", "", self.location)

    @cached_property
    def description(self) -> dict[str, Any]:
        """The cluster, as the GKE API describes it, with its node pools."""
        place = f"projects/{self.project}/locations/{self.location}/clusters/{self.cluster}"
        found = self.get("container", f"v1/{place}")
        if found is None:
            raise UserError(f"the project {self.project} has no cluster {self.cluster}")
        return found

    def reservation(self, name: str) -> dict[str, Any] | None:
        """The reservation of that name in the cluster's region."""
        path = f"compute/v1/projects/{self.project}/aggregated/reservations"
        found = self.get("compute", f"{path}?filter=name%3D{name}") or {}
        for place in found.get("items", {}).values():
            for one in place.get("reservations", []):
                zone = one.get("zone", "").rpartition("/")[2]
                if one["name"] == name and zone.startswith(f"{self.region}-"):
                    return one
        return None

    def quota(self, quota: str, family: str, value: str) -> int | None:
        """The limit of a quota in the cluster's region, or None if Google has none of that kind.

        Args:
          quota: its id, such as `TPUS-PER-TPU-FAMILY-per-project-region`.
          family: the dimension, such as `tpu_family`.
          value: of that dimension, such as `CT5P`.
        """
        place = f"projects/{self.project}/locations/global/services/compute.googleapis.com"
        found = self.get("cloudquotas", f"v1/{place}/quotaInfos/{quota}")
        if found is None:
            return None
        wanted, best = {"region": self.region, family: value}, (-1, 0)
        for one in found.get("dimensionsInfos", []):
            dimensions = one.get("dimensions", {})
            fits = all(wanted.get(name) == held for name, held in dimensions.items())
            # What names the family and the region counts before what names fewer.
            if fits and len(dimensions) > best[0]:
                best = len(dimensions), int(one.get("details", {}).get("value", 0))
        return best[1]

    def get(self, service: str, path: str) -> dict[str, Any] | None:
        """An object of `SERVICE.googleapis.com`; None where it says 404."""
        import requests
        from google.auth.exceptions import GoogleAuthError

        try:
            answer = self._session(service).get(base(service) + path, timeout=SECONDS)
        except (requests.RequestException, GoogleAuthError) as error:
            raise UserError(f"{service}.googleapis.com: {str(error).splitlines()[0]}") from None
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise UserError(f"{service}.googleapis.com said {answer.status_code} {said(answer)}")
        return answer.json()

    def _session(self, service: str) -> Any:
        address = urlsplit(base(service))
        known = address.scheme == "https" and (address.hostname or "").endswith(".googleapis.com")
        return self._authorized if known else self._plain

    @cached_property
    def _authorized(self) -> Any:
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        scope = "https://www.googleapis.com/auth/cloud-platform.read-only"
        return AuthorizedSession(google.auth.default(scopes=[scope])[0])

    @cached_property
    def _plain(self) -> Any:
        import requests

        return requests.Session()


def base(service: str) -> str:
    """Address of a service, with a slash at its end."""
    variable = f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}"
    return os.environ.get(variable, f"https://{service}.googleapis.com/").rstrip("/") + "/"


def said(answer: Any) -> str:
    """What an API gave as the reason."""
    try:
        return answer.json()["error"]["message"].splitlines()[0]
    except (ValueError, KeyError, TypeError, IndexError):
        return answer.reason


def google_of(context: str | None) -> Google | None:
    """The cluster of a context that `gcloud container clusters get-credentials` has written."""
    from kubernetes import config

    try:
        contexts, current = config.list_kube_config_contexts()
    except config.ConfigException:
        return None
    found = (
        current if context is None else next((c for c in contexts if c["name"] == context), None)
    )
    name = found["context"]["cluster"] if found else ""
    match = re.fullmatch(r"gke_([^_]+)_([a-z0-9-]+)_([a-z0-9-]+)", name)
    return Google(*match.groups()) if match else None
