"""The Kubernetes API: a client from the kubeconfig, and calls whose errors are sentences."""

from __future__ import annotations

import json
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.extras import require_packages


def make_client(context: str | None) -> Any:
    """The API client from the kubeconfig.

    Raises:
      UserError: the package, the kubeconfig or the context is missing.
    """
    require_packages("The gke back end", "kubernetes")
    import kubernetes
    import yaml

    try:
        return kubernetes.config.new_client_from_config(context=context)
    except kubernetes.config.ConfigException as error:
        raise UserError(
            f"The gke back end found no cluster ({error}): "
            "run gcloud container clusters get-credentials."
        ) from None
    except (yaml.YAMLError, TypeError, AttributeError, KeyError, ValueError, OSError) as error:
        # The client takes the file's shape for granted.
        words = " ".join(str(error).split())
        raise UserError(
            f"The gke back end cannot read the kubeconfig ({words}): repair the file that "
            "$KUBECONFIG names, or ~/.kube/config."
        ) from None


def call(method: Any, *arguments: Any, **named: Any) -> Any:
    """Calls the API; None where it says 404. Raises `UserError` for every other refusal."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return method(*arguments, _request_timeout=60, **named)
    except ApiException as error:
        if error.status == 404:
            return None
        raise UserError(f"The cluster refused: {error.status} {message_of(error)}.") from None
    except HTTPError as error:
        raise UserError(
            f"The cluster cannot be reached ({type(error).__name__}): look at its address with "
            "kubectl cluster-info, and at your network."
        ) from None


def message_of(error: Any) -> str:
    try:
        return json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
