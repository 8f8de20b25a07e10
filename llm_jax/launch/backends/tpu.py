"""Cloud TPU VMs through queued resources (google-cloud-tpu client, API v2).

The start-up script (`launch/tpu_startup.sh` in the repository) installs the code on each VM and
runs the agent. A preempted queued resource stays SUSPENDED and holds its name until it is deleted;
the supervisor then calls `remove` and creates it again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.launch.accelerators import TPU_RUNTIME, gce_type
from llm_jax.launch.actions import Action
from llm_jax.launch.backends import Resource, State
from llm_jax.launch.code import sums
from llm_jax.launch.outside import outside_file
from llm_jax.launch.spec import JobSpec, Tpu

LABEL = "llm-jax-job"
DELETE_SECONDS = 1800.0

STATES: dict[str, State] = {
    "CREATING": "waiting",
    "ACCEPTED": "waiting",
    "PROVISIONING": "waiting",
    "WAITING_FOR_RESOURCES": "waiting",
    "ACTIVE": "running",
    "SUSPENDING": "preempted",
    "SUSPENDED": "preempted",
    "FAILED": "failed",
    "DELETING": "waiting",
}


@dataclass(frozen=True)
class CreateQueuedResource(Action):
    """CreateQueuedResource of google.cloud.tpu.v2."""

    parent: str
    queued_resource_id: str
    queued_resource: dict[str, Any]


def render(spec: JobSpec, incarnation: int) -> list[Action]:
    backend = spec.backend
    assert isinstance(backend, Tpu)
    parent = f"projects/{backend.project}/locations/{backend.zone}"
    node_spec: dict[str, Any] = {"parent": parent, "node": _node(spec, backend, incarnation)}
    if spec.slices > 1:
        node_spec["multislice_params"] = {
            "node_count": spec.slices,
            "node_id_prefix": spec.name,
        }
    else:
        node_spec["node_id"] = spec.name
    body: dict[str, Any] = {"tpu": {"node_spec": [node_spec]}}
    if spec.capacity == "spot":
        body["spot"] = {}
    if spec.reservation is not None:
        body["guaranteed"] = {}
        body["reservation_name"] = f"{parent}/reservations/{spec.reservation}"
    return [CreateQueuedResource(parent, spec.name, body)]


def _node(spec: JobSpec, backend: Tpu, incarnation: int) -> dict[str, Any]:
    of = spec.slice_type
    metadata = {
        "startup-script": outside_file("tpu_startup.sh"),
        "shutdown-script": outside_file("tpu_shutdown.sh"),
        "llm-jax-out": spec.out,
        "llm-jax-incarnation": str(incarnation),
        "llm-jax-slices": str(spec.slices),
        "llm-jax-workers": str(spec.hosts // spec.slices),
        "llm-jax-queued-resource": spec.name,
        "llm-jax-grace": str(int(spec.grace_seconds)),
    }
    if spec.image is not None:
        metadata["llm-jax-image"] = spec.image
    else:
        metadata["llm-jax-install"] = outside_file("install.sh")
        metadata["llm-jax-sha256"] = sums(spec.sha256)
    network = {"enable_external_ips": backend.external_ips}
    optional = {"network": backend.network, "subnetwork": backend.subnetwork}
    node: dict[str, Any] = {
        "accelerator_type": gce_type(of),
        "runtime_version": backend.runtime_version or TPU_RUNTIME[of.chip],
        "network_config": network | {k: v for k, v in optional.items() if v is not None},
        "labels": {LABEL: spec.name},
        "metadata": metadata,
    }
    # Writing to the bucket and deleting the finished resource need more than the default scope.
    scope = ["https://www.googleapis.com/auth/cloud-platform"]
    account = {"email": backend.service_account} if backend.service_account else {}
    node["service_account"] = account | {"scope": scope}
    return node


class Driver:
    restarts_itself = False

    def __init__(self, spec: JobSpec, client: Any = None) -> None:
        assert isinstance(spec.backend, Tpu)
        self.spec = spec
        self.parent = f"projects/{spec.backend.project}/locations/{spec.backend.zone}"
        self.name = f"{self.parent}/queuedResources/{spec.name}"
        self._given = client

    @property
    def client(self) -> Any:
        if self._given is None:
            self._given = make_client()
        return self._given

    def render(self, incarnation: int) -> list[Action]:
        return render(self.spec, incarnation)

    def check(self) -> None:
        found = self._get()
        if found is not None and _out(found) != self.spec.out:
            raise UserError(
                f"The queued resource {self.spec.name} exists already in {self.parent} and belongs "
                f"to {_out(found) or 'something else'}: choose another job.name."
            )
        types = _call(self.client.list_accelerator_types, parent=self.parent)
        if types is None:
            raise UserError(
                f"The TPU API knows no {self.parent}: check --project, and --zone against `gcloud "
                "compute tpus locations list`."
            )
        offered = sorted({t.type_ for t in types})
        wanted = gce_type(self.spec.slice_type)
        if offered and wanted not in offered:
            raise UserError(
                f"job.accelerator is {self.spec.accelerator!r}, which {self.parent} does not "
                f"offer: it has {', '.join(offered[:12])}{', …' if len(offered) > 12 else ''}."
            )

    def apply(self, action: Action) -> None:
        from google.cloud import tpu_v2

        assert isinstance(action, CreateQueuedResource)
        request = tpu_v2.CreateQueuedResourceRequest(
            parent=action.parent,
            queued_resource_id=action.queued_resource_id,
            queued_resource=action.queued_resource,
        )
        try:
            _call(self.client.create_queued_resource, request=request)
        except AlreadyThere:
            # A call that was repeated after a lost answer meets its own first try.
            found = self._get()
            wanted = action.queued_resource["tpu"]["node_spec"][0]["node"]["metadata"]
            if found is None or _metadata(found) != wanted:
                raise UserError(
                    f"The queued resource {self.spec.name} exists already in {self.parent}: "
                    "choose another job.name, or delete it."
                ) from None

    def _get(self) -> Any:
        return _call(self.client.get_queued_resource, name=self.name)

    def resource(self) -> Resource:
        found = self._get()
        if found is None:
            return Resource("absent")
        state = _name(found.state.state)
        detail = f"queued resource {self.spec.name} is {state}"
        why = found.state.failed_data.error.message if state == "FAILED" else ""
        return Resource(_known(state), f"{detail} ({why})" if why else detail)

    def remove(self) -> None:
        from google.cloud import tpu_v2

        until = time.monotonic() + DELETE_SECONDS
        asked = False
        while self._get() is not None:
            if not asked:
                # Without force the call is refused while nodes exist.
                request = tpu_v2.DeleteQueuedResourceRequest(name=self.name, force=True)
                _call(self.client.delete_queued_resource, request=request)
                asked = True
            elif time.monotonic() > until:
                raise UserError(
                    f"{self.name} still exists half an hour after its deletion was asked for: "
                    "look at it in the Cloud console, it may cost money."
                )
            else:
                time.sleep(self.poll)

    poll = 5.0

    def billable(self) -> list[str]:
        lines = []
        found = self._get()
        if found is not None:
            lines.append(f"queued resource {self.name} ({_name(found.state.state)})")
        for node in _call(self.client.list_nodes, parent=self.parent) or []:
            if node.labels.get(LABEL) == self.spec.name:
                lines.append(f"TPU VM {node.name} ({_name(node.state)})")
        return lines


def listing(project: str, zone: str, client: Any = None) -> list[dict[str, str]]:
    """Our jobs in a zone: name, state and output folder."""
    client = client or make_client()
    parent = f"projects/{project}/locations/{zone}"
    found = _call(client.list_queued_resources, parent=parent)
    return [
        {
            "job": r.name.rpartition("/")[2],
            "state": _known(_name(r.state.state)),
            "out": _out(r),
        }
        for r in found or []
        if _out(r)
    ]


def _name(state: Any) -> str:
    """A state's name; one that is newer than the client comes as a bare number."""
    return getattr(state, "name", f"in state {state}")


def _known(state: str) -> State:
    """What a state means to the supervisor, which waits for the end of one that is not known."""
    return STATES.get(state, "waiting")


def _metadata(resource: Any) -> dict[str, str]:
    specs = resource.tpu.node_spec
    return dict(specs[0].node.metadata) if specs else {}


def _out(resource: Any) -> str:
    return _metadata(resource).get("llm-jax-out", "")


def make_client() -> Any:
    """The API client.

    Raises:
      UserError: the package or the credentials are missing.
    """
    require_packages("The tpu back end", "google.cloud.tpu_v2")
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import tpu_v2

    try:
        return tpu_v2.TpuClient()
    except DefaultCredentialsError:
        raise UserError(
            "The tpu back end found no Google Cloud credentials: "
            "run gcloud auth application-default login."
        ) from None


class AlreadyThere(Exception):
    """The API's ALREADY_EXISTS."""


def _call(method: Any, **arguments: Any) -> Any:
    """Calls the API, waiting out 429 and 503.

    Returns:
      The answer, a list where the API pages, or None where it says NotFound.

    Raises:
      AlreadyThere: the name is taken.
      UserError: the API refused in another way.
    """
    from google.api_core import exceptions, retry

    patient = retry.Retry(
        predicate=retry.if_exception_type(
            exceptions.ResourceExhausted, exceptions.ServiceUnavailable, exceptions.TooManyRequests
        ),
        initial=1.0,
        maximum=30.0,
        timeout=600.0,
    )
    try:
        answer = method(retry=patient, timeout=60.0, **arguments)
        return list(answer) if hasattr(answer, "pages") else answer
    except exceptions.NotFound:
        return None
    except exceptions.AlreadyExists:
        raise AlreadyThere from None
    except exceptions.RetryError as error:
        raise UserError(f"The TPU API refused for ten minutes: {error.cause}.") from None
    except exceptions.GoogleAPICallError as error:
        raise UserError(f"The TPU API refused: {error.message}.") from None
