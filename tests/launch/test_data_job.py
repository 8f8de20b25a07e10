"""`data curate` and `data build` as jobs: what is submitted, and what its script does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rendered import sbatch_words

from llm_jax.cli import main
from llm_jax.launch import data_job
from llm_jax.launch.tasks.places import RayTasks, SlurmTasks

WORDS = ["data", "curate", "--input", "a b", "--recipe", "none"]


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_the_batch_job_is_exact() -> None:
    place = SlurmTasks(partition="cpu", time_limit="12:00:00", memory="2G")
    action = data_job.on_slurm(place, WORDS, Path("/shared/clean"))
    assert action.argv == ("sbatch", "--parsable")
    assert sbatch_words(action.script) == [
        "--job-name=data-curate",
        "--comment=llm-jax:/shared/clean",
        "--output=/shared/clean.launch.log",
        "--open-mode=append",
        "--requeue",
        "--signal=B:USR1@60",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--partition=cpu",
        "--time=12:00:00",
        "--mem=2G",
    ]
    assert '"$python" -m llm_jax data curate --input "a b" --recipe none &' in action.script


@pytest.mark.parametrize(("restarts", "requeued"), [("0", True), ("2", True), ("3", False)])
def test_a_job_that_is_out_of_time_requeues_itself(
    restarts: str, requeued: bool, tmp_path: Path
) -> None:
    """With stand-ins for Python, which waits for SIGTERM, and for scontrol."""
    said = tmp_path / "said"
    python = f"#!/bin/bash\ntrap 'echo stopped >> {said}; exit 130' TERM\necho started >> {said}\n"
    python += "while true; do sleep 0.05; done\n"
    for name, text in (("python3", python), ("scontrol", f'#!/bin/bash\necho "$@" >> {said}\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    script = data_job.on_slurm(SlurmTasks(setup=":"), WORDS, Path("/shared/clean")).script
    (tmp_path / "job.sh").write_text(script)
    path = f"{tmp_path}:{os.environ['PATH']}"
    slurm = {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": restarts}
    job = subprocess.Popen(["bash", str(tmp_path / "job.sh")], env=os.environ | slurm)
    until = time.monotonic() + 30
    while not said.exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)  # until the trap is set
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=30) == 130
    assert said.read_text().split("\n")[1:-1] == ["stopped", *["requeue 7"] * requeued]


class Head(BaseHTTPRequestHandler):
    """The part of a Ray cluster's dashboard that takes jobs."""

    seen: Any = None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Head.seen = (self.path, body)
        refused = "refused" in body["entrypoint"]
        answer = b"no such thing" if refused else b'{"submission_id": "raysubmit_1"}'
        self.send_response(500 if refused else 200)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words: object) -> None:
        """Says nothing."""


def test_a_job_goes_to_the_head_of_a_ray_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Head)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    words = ("launch", "run", *WORDS, "--out", "/shared/clean", "--backend", "ray", "--json")
    code, out, err = call(capsys, *words, "--ray-address", url)
    assert code == 0, err
    result = json.loads(out)
    assert (result["job"], result["stop"][-3:]) == (
        "raysubmit_1",
        ["raysubmit_1", "--address", url],
    )
    path, body = Head.seen
    entry = 'python3 -m llm_jax data curate --input "a b" --recipe none --out /shared/clean'
    assert path == "/api/jobs/" and body["entrypoint"].startswith(entry)
    assert body["entrypoint"].endswith("--ray-address auto")
    action = data_job.on_ray(RayTasks(address=url), ["data", "curate", "refused"], Path("/x"))
    with pytest.raises(data_job.UserError, match="refused the job: no such thing"):
        data_job.submit(action)
    server.shutdown()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data", "inspect"], "has no 'data inspect': known"),
        (["data", "curat"], "did you mean 'data curate'"),
        ([*WORDS, "--out", "x"], "needs --backend slurm or ray"),
        ([*WORDS, "--backend", "slurm"], "needs --out DIR"),
        ([*WORDS, "--backend", "ray", "--out", "/x"], "a job is submitted to http://HOST:8265"),
        ([*WORDS, "--oout", "x"], "has no flag '--oout': did you mean '--out'"),
    ],
)
def test_what_cannot_be_launched(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "launch", "run", *words)
    assert (code, out) == (2, "") and sentence in err
