"""Curations whose tasks run on the two nodes of a real Slurm cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from curation_samples import (
    PROGRAM,
    build,
    content,
    curate,
    curated_here,
    made_here,
    write_corpus,
)
from test_slurm import HERE, require_slurm

NAMESPACES = ("--net", "--pid", "--uts", "--mount", "--fork", "--mount-proc", "--kill-child")


def cluster(folder: Path, program: list[object]) -> str:
    """What `program` prints, run inside of a cluster whose daemons live in `folder`."""
    path = os.environ["PATH"] + ":/usr/sbin"
    require_slurm(path)
    (folder / "cluster").mkdir()
    words = ["unshare", *NAMESPACES, "bash", HERE / "slurm_cluster.sh", folder / "cluster"]
    done = subprocess.run(
        list(map(str, [*words, sys.executable, *program])),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(map(str, (HERE, *sys.path)))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_tasks_run_on_two_nodes_and_give_the_bytes_of_one_machine(tmp_path: Path) -> None:
    text = write_corpus(tmp_path)
    log, task = tmp_path / "nodes.txt", tmp_path / "task.sh"
    task.write_text(f'#!/bin/sh\necho "$SLURMD_NODENAME" >> {log}\nexec "$@"\n', encoding="utf-8")
    task.chmod(0o755)
    with_srun = f"srun --ntasks=1 --cpus-per-task=1 --mem=100 {task}"
    more = ("--workers", 4, "--run-tasks-with", with_srun)
    cluster(tmp_path, ["-c", PROGRAM, 20_000, *curate(text, tmp_path / "slurm", *more)])
    assert set(log.read_text("utf-8").split()) == {"n1", "n2"}
    made = [curated_here(text, tmp_path / "here", 20_000), content(tmp_path / "slurm")]
    assert made[0] == made[1] and len(made[0]) > 4
    assert json.loads(made[0]["curation.json"])["documents"] == {"in": 119, "out": 99}


@pytest.mark.slow
def test_arrays_survive_kills_and_a_lost_node(tmp_path: Path) -> None:
    text = write_corpus(tmp_path)
    printed = cluster(tmp_path, [HERE / "slurm_arrays_scenario.py", text, tmp_path])
    seen = json.loads(printed.splitlines()[-1])

    arrays = seen["arrays"]
    assert arrays["code"] == 0, arrays
    assert content(tmp_path / "arrays") == curated_here(text, tmp_path / "here", 10_000)
    assert set(arrays["nodes"]) == {"n1", "n2"}
    said = arrays["stderr"]
    assert said.count("died by SIGKILL; it is run again") == 1
    assert 1 <= said.count("died by NODE_FAIL on n2; it is run again") <= 2
    assert not list(tmp_path.glob(".arrays.curate-*"))

    assert seen["built"]["code"] == 0, seen["built"]["stderr"]
    assert seen["built"]["tasks"] >= 4
    words = build(text, tmp_path / "built-here")
    assert content(tmp_path / "built") == made_here(words, tmp_path / "built-here", 20_000)

    stopped = seen["stopped"]
    assert (stopped["code"], stopped["before"], stopped["left"]) == (130, 2, [])
    assert list(tmp_path.glob(".stopped.curate-*"))

    job = seen["job"]
    assert job["submitted"]["backend"] == "slurm"
    assert job["listed"] == [str(tmp_path / "job")]
    assert job["result"]["documents"] == {"in": 119, "out": 99}

    assert (
        "--partition is 'gpu', which this cluster does not have: choose one of main"
        in (seen["no partition"])
    )
    assert (
        "sbatch refused: allocation failure: Requested node configuration is not available"
        in (seen["too many cpus"])
    )
    assert "give --out on a file system that all nodes share" in seen["unseen"]
