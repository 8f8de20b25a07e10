"""Reads the Kubernetes API as JSON objects."""

from __future__ import annotations

from typing import Any

from llm_jax.launch.backends.gke_api import call


class Kube:
    """Objects of a cluster; None where the API says 404.

    Every method raises `UserError` if the API refuses or cannot be reached.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def version(self) -> str:
        """Such as `v1.34.1-gke.3971001`."""
        from kubernetes.client import VersionApi

        return call(VersionApi(self.client).get_code).git_version

    def groups(self) -> dict[str, str]:
        """API group → its preferred version."""
        from kubernetes.client import ApisApi

        found = self._plain(call(ApisApi(self.client).get_api_versions))
        return {g["name"]: g["preferredVersion"]["version"] for g in found["groups"]}

    def core(self, method: str, *arguments: Any, **named: Any) -> Any:
        """The answer of a method of `CoreV1Api`."""
        from kubernetes.client import CoreV1Api

        return self._plain(call(getattr(CoreV1Api(self.client), method), *arguments, **named))

    def get(
        self, group: str, version: str, plural: str, name: str, namespace: str | None = None
    ) -> Any:
        """An object of an API group."""
        from kubernetes.client import CustomObjectsApi

        api = CustomObjectsApi(self.client)
        if namespace is None:
            return call(api.get_cluster_custom_object, group, version, plural, name)
        return call(api.get_namespaced_custom_object, group, version, namespace, plural, name)

    def names(
        self, group: str, version: str, plural: str, namespace: str | None = None
    ) -> list[str] | None:
        """Names of an API group's objects; None if the cluster has no such kind."""
        from kubernetes.client import CustomObjectsApi

        api = CustomObjectsApi(self.client)
        if namespace is None:
            found = call(api.list_cluster_custom_object, group, version, plural)
        else:
            found = call(api.list_namespaced_custom_object, group, version, namespace, plural)
        return sorted(o["metadata"]["name"] for o in found["items"]) if found else None

    def nodes(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        """The nodes that carry all of `labels`."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return self.core("list_node", label_selector=selector)["items"]

    def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Whether the user of the kubeconfig may do that."""
        from kubernetes.client import CustomObjectsApi

        wanted = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        }
        create = CustomObjectsApi(self.client).create_cluster_custom_object
        answer = call(create, "authorization.k8s.io", "v1", "selfsubjectaccessreviews", body)
        return bool(answer and answer["status"]["allowed"])

    def _plain(self, answer: Any) -> Any:
        return self.client.sanitize_for_serialization(answer)
