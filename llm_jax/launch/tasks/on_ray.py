"""Tasks on a Ray cluster, each in a worker process of its own.

Ray itself retries nothing: a task whose worker or node died runs again by the rule of
`runs/tasks.py`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from pathlib import Path
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.launch.tasks.places import RayTasks
from llm_jax.launch.tasks.ray_task import run_task
from llm_jax.runs.tasks import Ended, TaskFailed

SECONDS = 10.0
"""For the head of a cluster to answer."""


class OnRay:
    """Runs single tasks for `data/tasks/workers.py`, until it is closed.

    Attributes:
      slots: tasks that fit on the cluster at a time, as it is now; at least one.

    Raises:
      UserError: Ray is not installed, there is no cluster, or no node that a task fits on.
    """

    def __init__(self, place: RayTasks) -> None:
        self._ray = connect(place.address)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self.slots = slots(place, nodes)
        options: dict[str, Any] = {"num_cpus": place.cpus, "memory": place.memory_bytes}
        self._task = self._ray.remote(max_retries=0, max_calls=1, **options)(run_task)
        self._running: set[Any] = set()

    def run(self, module: str, words: tuple[str, ...]) -> Ended:
        """Runs a task to its end; called from several threads at a time."""
        errors = self._ray.exceptions
        reference = self._task.remote(module, words, str(Path.cwd()))
        self._running.add(reference)
        try:
            return Ended(*self._ray.get(reference))
        except errors.TaskCancelledError:
            return Ended(died="being cancelled")
        except errors.OutOfMemoryError:
            way_out = "say with --memory what a task needs, or give fewer --workers"
            return Ended(died="its node's memory being full", way_out=way_out)
        except errors.NodeDiedError:
            return Ended(died="the death of its node")
        except (errors.WorkerCrashedError, errors.LocalRayletDiedError, errors.ObjectLostError):
            return Ended(died="the death of its worker")
        except errors.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise TaskFailed(f"A task could not be run on Ray: {last}") from error
        finally:
            self._running.discard(reference)

    def stop(self) -> None:
        """Ends all tasks that are running."""
        for reference in list(self._running):
            self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leaves the cluster."""
        self._ray.shutdown()


def connect(address: str) -> Any:
    """The module `ray`, connected to the cluster at `address`; raises `UserError` if it cannot."""
    if address.startswith("http"):
        raise UserError(
            f"--ray-address is {address!r}, where a cluster takes jobs: give HOST:PORT of its head "
            "on a machine of the cluster, or launch the whole as a job by `llm-jax launch run`."
        )
    require_packages("Running tasks on Ray", "ray")
    if address != "auto":
        _check_answers(address)
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise UserError(
            f"--ray-address is {address!r}, and no Ray cluster runs there: run this on a machine "
            "of the cluster, or give HOST:PORT of its head."
        ) from None
    except (RuntimeError, ValueError) as error:  # such as another version of Ray or Python
        lines = [line.strip() for line in str(error).splitlines()]
        raise UserError(
            f"The Ray cluster at --ray-address {address!r} cannot be joined: {' '.join(lines)}"
        ) from None
    return ray


def _check_answers(address: str) -> None:
    """Raises `UserError` if nothing listens there: Ray would try for a minute."""
    host, _, port = address.rpartition(":")
    try:
        with contextlib.closing(
            socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS)
        ):
            pass
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--ray-address is {address!r}, where nothing answers ({error}): give HOST:PORT of the "
            "cluster's head, 6379 by default, or auto."
        ) from None


def slots(place: RayTasks, nodes: list[dict[str, float]]) -> int:
    """How many tasks fit on `nodes` (their resources) at a time.

    Raises:
      UserError: no node has room for one.
    """
    wanted = {"CPU": float(place.cpus), "memory": float(place.memory_bytes or 0)}
    wanted = {name: amount for name, amount in wanted.items() if amount}
    found = sum(
        min(int(node.get(name, 0) // amount) for name, amount in wanted.items()) for node in nodes
    )
    if found:
        return found
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
    memory = f" and {most['memory'] / 1024**3:.1f} GiB of memory" if "memory" in wanted else ""
    raise UserError(
        f"No node of the Ray cluster has room for a task of --cpus {place.cpus}"
        f"{f' --memory {place.memory}' if place.memory else ''}: the largest has "
        f"{most['CPU']:.0f} CPUs{memory}."
    )
