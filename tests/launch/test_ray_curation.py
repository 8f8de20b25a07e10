"""Tasks on Ray: a real cluster of two nodes, one of which is killed, and what is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from curation_samples import content, curated_here, write_corpus

from llm_jax.config import UserError
from llm_jax.launch import data_job
from llm_jax.launch.tasks import on_ray
from llm_jax.launch.tasks.places import RayTasks
from llm_jax.launch.tasks.ray_task import run_task

HERE = Path(__file__).parent


@pytest.mark.slow
def test_a_node_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    text = write_corpus(tmp_path)
    path = os.pathsep.join(map(str, (HERE, *sys.path)))
    done = subprocess.run(
        [sys.executable, str(HERE / "ray_scenario.py"), str(text), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    killed = seen["killed"]
    assert killed["code"] == 0 and killed["task_on_it"], killed["stderr"]
    assert killed["stderr"].count("died by the death of its") == 1, killed["stderr"]
    assert json.loads(killed["stdout"])["documents"] == {"in": 119, "out": 99}
    assert content(tmp_path / "killed") == curated_here(text, tmp_path / "here", 10_000)
    assert seen["job"]["state"] == "SUCCEEDED"
    info = json.loads((tmp_path / "job" / "curation.json").read_text("utf-8"))
    assert info["documents"] == {"in": 119, "out": 99}
    assert "has room for a task of --cpus 64: the largest has 1 CPUs" in seen["too many cpus"]


@pytest.mark.parametrize(
    ("place", "nodes", "wanted"),
    [
        (RayTasks(cpus=2), [{"CPU": 5.0, "memory": 1e9}, {"CPU": 3.0}], 3),
        (RayTasks(memory="1G"), [{"CPU": 8.0, "memory": 3.5 * 2**30}], 3),
        (RayTasks(memory="512"), [{"CPU": 1.0, "memory": 2.0**31}], 1),
    ],
)
def test_as_many_tasks_as_fit(place: RayTasks, nodes: list[dict[str, float]], wanted: int) -> None:
    assert on_ray.slots(place, nodes) == wanted


def test_a_task_that_fits_on_no_node_is_refused() -> None:
    nodes = [{"CPU": 4.0, "memory": 2.0**30}, {"CPU": 2.0, "memory": 2.0**31}]
    with pytest.raises(UserError, match=r"--cpus 1 --memory 4G: .* 4 CPUs and 2\.0 GiB of memory"):
        on_ray.slots(RayTasks(memory="4G"), nodes)


def test_wrong_addresses_are_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}', where nothing answers"):
        on_ray.connect(f"127.0.0.1:{port}")
    with pytest.raises(UserError, match="where a cluster takes jobs: give HOST:PORT"):
        on_ray.connect("http://head:8265")
    action = data_job.on_ray(
        RayTasks(address=f"http://127.0.0.1:{port}"), ["data", "curate"], Path("/x")
    )
    with pytest.raises(UserError, match=rf"No Ray cluster takes jobs at http://127.0.0.1:{port}/"):
        data_job.submit(action)
    with pytest.raises(UserError, match="a job is submitted to http://HOST:8265"):
        data_job.on_ray(RayTasks(), ["data", "curate"], Path("/x"))
    with pytest.raises(UserError, match="give the path from / on"):
        data_job.on_ray(RayTasks(address="http://head:1"), ["data", "curate"], Path("x"))


def test_a_folder_that_a_node_does_not_see() -> None:
    code, said = run_task("llm_jax.data.curate.task", ("/nowhere/at/all", "0", "0"), "/nowhere")
    assert code == 1 and f"is not on the node {socket.gethostname()}" in said
