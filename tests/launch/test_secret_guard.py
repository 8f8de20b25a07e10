"""Secrets: none enters a job, none is repeated, and none stays in what its hosts leave behind."""

import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llm_jax.cli import main
from llm_jax.config import ConfigError
from llm_jax.launch.spec import Gke, JobSpec, Local, SkyPilot, Slurm, Tpu
from llm_jax.launch.supervisor import supervise

TOKEN = "hf_" + "aB3dE5gH7j" * 3
LOGIN = "me:" + "pw1234"
REMOTE = {"out": "gs://b/run", "accelerator": "v5p-8", "image": "registry/i"}


def spec(**changes):
    return JobSpec(**{"name": "demo", "config": "tiny", "out": "runs/demo"} | changes)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: spec(env={"WANDB_API_KEY": "0" * 40}), "job.env.WANDB_API_KEY"),
        (lambda: spec(env={"INDEX": f"https://{LOGIN}@index/simple"}), "job.env.INDEX"),
        (lambda: spec(env={"X": TOKEN}), "job.env.X"),
        (lambda: spec(trainer=["train", "--api-key", "abc-123-def"]), "job.trainer"),
        (lambda: spec(trainer=["train", f"--x={TOKEN}"]), "job.trainer"),
        (lambda: spec(backend=Slurm(setup=f"export HF_TOKEN={TOKEN}")), "job.backend.setup"),
        (lambda: spec(backend=Slurm(setup="DB_PASSWORD=short . env")), "job.backend.setup"),
        (lambda: spec(backend=Slurm(account=TOKEN)), "job.backend.account"),
        (lambda: spec(out=f"/runs/{TOKEN}"), "job.out"),
    ],
)
def test_a_secret_is_refused_and_not_repeated(make, field):
    with pytest.raises(ConfigError, match=f"^{field} looks like a secret") as error:
        make()
    assert TOKEN not in str(error.value) and "0000" not in str(error.value)


@pytest.mark.parametrize(
    ("backend", "way"),
    [
        (Local(), "set it in the shell that launches"),
        (Slurm(), "file that only you can read"),
        (Tpu(project="p", zone="us-east5-a"), "Secret Manager"),
        (Gke(), "Kubernetes secret"),
        (SkyPilot(), "--secret NAME"),
    ],
)
def test_each_back_end_names_its_way_out(backend, way):
    more = {} if isinstance(backend, Local | Slurm) else REMOTE
    with pytest.raises(ConfigError, match=way):
        spec(backend=backend, env={"HF_TOKEN": "x"}, **more)


def test_the_ways_out_are_taken():
    for setup in (
        "export HF_TOKEN=$(cat ~/.hf)",
        ". /shared/.venv/bin/activate",
        "module load cuda",
    ):
        assert spec(backend=Slurm(setup=setup))
    assert spec(env={"GOOGLE_APPLICATION_CREDENTIALS": "/run/secrets/key.json"})
    assert spec(env={"XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=true"})
    digest = "registry/i@sha256:" + "0123456789abcdef" * 4
    assert spec(backend=Gke(), **REMOTE | {"image": digest}).image == digest


def test_a_run_with_a_secret_is_not_shown(capsys):
    argv = ["launch", "run", "tiny", "--dry-run", "--data.path", f"https://me:{TOKEN}@host/data"]
    with pytest.raises(SystemExit) as end:
        main(argv)
    shown = capsys.readouterr()
    assert end.value.code == 78
    assert shown.err.startswith("error: data.path looks like a secret")
    assert TOKEN not in shown.out + shown.err


def test_an_error_that_quotes_a_secret_hides_it(capsys):
    with pytest.raises(SystemExit):
        main(["launch", "status", f"https://me:{TOKEN}@host/run"])
    assert TOKEN not in capsys.readouterr().err


def test_logs_and_causes_of_a_job_hide_secrets(make_spec, store, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2)
    program = (
        "import os, sys; print('login', os.environ['WANDB_API_KEY'], flush=True);"
        f"print('pull with {TOKEN[:9]}', end='', flush=True);"
        f"print('{TOKEN[9:]}', flush=True);"
        "sys.exit('ValueError: no access with ' + os.environ['WANDB_API_KEY'])"
    )
    made = replace(make_spec(slices=1, retries=0), trainer=[sys.executable, "-c", program])
    store(made)
    outcome = supervise(made.out, lambda text: None)
    assert outcome.state == "failed" and "no access with [hidden]" in outcome.cause
    left = [path.read_text() for path in Path(made.out).rglob("*") if path.suffix != ".py"
            and path.is_file()]  # fmt: skip
    assert any("login [hidden]\npull with [hidden]\n" in text for text in left)
    assert not any("0123456789abcdef" in text for text in left)
    assert stat.S_IMODE((Path(made.out) / "launch").stat().st_mode) == 0o700
