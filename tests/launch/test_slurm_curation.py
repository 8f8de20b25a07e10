"""A curation whose tasks run on the two nodes of a real Slurm cluster."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from test_slurm import HERE, require_slurm

PROGRAM = """
import sys
sys.path[:0] = sys.argv[3:]
from llm_jax.data.curate import shards
shards.SHARD_BYTES = 20_000
from llm_jax.cli import main
main(["data", "curate", "--input", sys.argv[1], "--recipe", sys.argv[1] + ".json", "--out",
      sys.argv[2], "--workers", "4", "--json", *(["--run-tasks-with", WITH] if WITH else [])])
"""
RECIPE = {"steps": [{"kind": "gopher_repetition"}, {"kind": "near_duplicates"}]}


def word(draw: random.Random) -> str:
    return "".join(chr(97 + int(26 * draw.random())) for _ in range(6))


@pytest.mark.slow
def test_tasks_run_on_two_nodes_and_give_the_bytes_of_one_machine(tmp_path: Path) -> None:
    path = os.environ["PATH"] + ":/usr/sbin"
    require_slurm(path)
    text = tmp_path / "texts.jsonl"
    draw = random.Random(0)
    rows = [{"text": " ".join(word(draw) for _ in range(90))} for _ in range(99)]
    text.write_text("\n".join(map(json.dumps, rows + rows[:20])), encoding="utf-8")
    Path(f"{text}.json").write_text(json.dumps(RECIPE), encoding="utf-8")
    here = [sys.executable, "-c", f"WITH = ''\n{PROGRAM}", text, tmp_path / "here", *sys.path]
    subprocess.run(list(map(str, here)), check=True, capture_output=True)
    (tmp_path / "cluster").mkdir()
    log = tmp_path / "nodes.txt"
    task = tmp_path / "task.sh"
    task.write_text(f'#!/bin/sh\necho "$SLURMD_NODENAME" >> {log}\nexec "$@"\n', encoding="utf-8")
    task.chmod(0o755)
    with_srun = f"srun --ntasks=1 --cpus-per-task=1 --mem=100 {task}"
    cluster = [
        "unshare", "--net", "--pid", "--uts", "--mount", "--fork", "--mount-proc", "--kill-child",
        "bash", HERE / "slurm_cluster.sh", tmp_path / "cluster",
        sys.executable, "-c", f"WITH = {with_srun!r}\n{PROGRAM}", text, tmp_path / "slurm",
        *sys.path,
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, cluster)), capture_output=True, text=True, timeout=600,
        env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(log.read_text("utf-8").split()) == {"n1", "n2"}
    made = [_content(tmp_path / name) for name in ("here", "slurm")]
    assert made[0] == made[1] and len(made[0]) > 4
    assert json.loads(made[0]["curation.json"])["documents"] == {"in": 119, "out": 99}


def _content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}
