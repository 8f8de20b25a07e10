"""`launch run --init` and `--branch`: jobs whose run begins with another run."""

import json
import os
import subprocess
import sys

import pytest
from fake_bucket import Bucket, FilesAsObjects
from tiny import VOCAB, model_config, run_config

from llm_jax import config
from llm_jax.cli import main
from llm_jax.config import ConfigError, UserError
from llm_jax.launch import job, parent
from llm_jax.launch.backends import driver
from llm_jax.launch.folder import open_folder
from llm_jax.launch.spec import Gke, JobSpec, SkyPilot


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(["launch", "run", *map(str, words), "--dry-run"])
    return left.value.code, capsys.readouterr().err.strip()


@pytest.fixture
def other(run_json, tmp_path):
    """A run's folder with the names that launching looks at: its config, and checkpoint 4."""
    folder = tmp_path / "other"
    (folder / "checkpoints" / "4").mkdir(parents=True)
    (folder / "checkpoints" / "4" / "state").write_text("")
    run = json.loads((tmp_path / "run.json").read_text())
    run |= {"out": str(folder), "data": run["data"] | {"batch_size": 6, "path": "text"}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def planned(capsys, *words):
    """`launch/job.json` and `launch/run.json` that a launch would write, and what it said."""
    with pytest.raises(SystemExit) as left:
        main(["launch", "run", *map(str, words), "--dry-run", "--json"])
    printed = capsys.readouterr()
    assert left.value.code == 0, printed.err
    files = {one.get("name"): one for one in json.loads(printed.out)["actions"]}
    content = [json.loads(files[f"launch/{name}.json"]["text"]) for name in ("job", "run")]
    return content[0]["spec"], content[1], printed.err


def test_places_on_disks_and_in_buckets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parent.split("gs://b/runs/x") == ("gs://b/runs/x", None)
    assert parent.split("gs://b/runs/x/@40") == ("gs://b/runs/x", 40)
    assert parent.split("gs://b/runs/x/checkpoints/40") == ("gs://b/runs/x", 40)
    assert parent.split("gs://b/my@home/x") == ("gs://b/my@home/x", None)
    assert parent.split("runs/x@40") == (str(tmp_path / "runs/x"), 40)
    assert parent.whole("runs/x@40") == str(tmp_path / "runs/x@40")


def test_the_config_is_that_of_the_other_run(other, tmp_path, capsys):
    spec, run, _ = planned(capsys, "--init", other, "--out", tmp_path / "new", "--steps", "30")
    assert (spec["init"], spec["branch"], spec["name"]) == (str(other), None, "new")
    assert run["name"] == "new"  # and not that of the other run
    assert (run["out"], run["steps"], run["data"]["batch_size"]) == (str(tmp_path / "new"), 30, 6)


def test_a_job_is_named_after_any_folder(other, tmp_path, capsys):
    spec, run, _ = planned(capsys, "--init", other, "--out", tmp_path / "My_Run")
    assert (spec["name"], run["name"]) == ("my-run", "My_Run")


def test_a_recipe_keeps_the_other_runs_batch(other, tmp_path, capsys):
    out = ("--out", tmp_path / "new")
    spec, run, said = planned(capsys, "tiny", "--branch", f"{other}@4", *out)
    assert (spec["branch"], spec["init"]) == (f"{other}@4", None)
    assert run["data"]["batch_size"] == 6 and "data.batch_size 6" in said
    _, run, _ = planned(capsys, "tiny", "--init", other, *out, "--data.batch-size", "12")
    assert run["data"]["batch_size"] == 12


def test_what_cannot_be_begun_with_is_refused(other, tmp_path, capsys):
    new = tmp_path / "new"
    assert refusal(capsys, "--init", other) == (
        2,
        f"error: The config is that of {other}: name another folder for the new run with --out.",
    )
    code, said = refusal(capsys, "tiny", "--init", other, "--branch", other, "--out", new)
    assert code == 78 and "job.init and job.branch are both set" in said
    code, said = refusal(capsys, "tiny", "--init", f"{other}@7", "--out", new)
    assert (code, said) == (
        2,
        f"error: The run '{other}' has no checkpoint 7: name another run, or another step.",
    )
    code, said = refusal(capsys, "tiny", "--init", new, "--out", new)
    assert code == 2 and f"There is no run in '{new}'" in said
    code, said = refusal(capsys, "--init", "gs://b/runs/x@4", "--out", new)
    assert code == 2 and said.endswith("gcloud storage cp gs://b/runs/x/run.json run.json")
    with pytest.raises(ConfigError, match="only `llm-jax train` does so"):
        JobSpec(name="a", config="tiny", out="o", init="r", trainer=["x"])


def test_hosts_of_a_cloud_reach_buckets_alone():
    fields = {"name": "a", "config": "tiny", "accelerator": "v5p-8", "image": "i"}
    spec = JobSpec(out="gs://b/new", init="/runs/x", backend=Gke(), **fields)
    with pytest.raises(ConfigError, match=r"--init is '/runs/x', which hosts of the gke back end"):
        parent.check_place(spec)
    spec = JobSpec(out="gs://b/new", branch="gs://c/x", backend=SkyPilot(), **fields)
    parent.check_place(spec)
    assert "gs://c" in json.dumps([one.describe() for one in driver(spec).render(0)])


@pytest.mark.slow
def test_a_host_begins_with_a_run_in_a_bucket(bucket, tiny_dataset, tmp_path, monkeypatch):
    """One pod: its agent, and the real trainer, which reads the other run through the mount."""
    mounted = tmp_path / "gcs"
    (mounted / "b").mkdir(parents=True)
    monkeypatch.setattr(Bucket, "objects", FilesAsObjects(mounted / "b"))
    monkeypatch.setenv("LLM_JAX_GCS_MOUNT", str(mounted))
    (mounted / "texts").mkdir()
    (mounted / "texts" / "python").symlink_to(tiny_dataset)
    changes = {
        "steps": 4,
        "model": model_config(vocab_size=VOCAB, num_layers=1),
        "checkpoint": config.CheckpointConfig(every=2),
        "eval": config.EvalConfig(every=100, batches=1),
    }
    first = run_config(mounted / "b/runs/first", mounted / "texts/python", **changes)
    (tmp_path / "first.json").write_text(config.to_json(first))
    second = run_config("unused", "gs://texts/python", **changes)
    (tmp_path / "second.json").write_text(config.to_json(second))
    env = os.environ | {"LLM_JAX_SLICE": "0", "LLM_JAX_WORKER": "0"}
    env |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu"}
    env |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    train = [sys.executable, "-m", "llm_jax", "train", str(tmp_path / "first.json")]
    subprocess.run(train, env=env, check=True, capture_output=True, timeout=300)

    with pytest.raises(UserError, match="'gs://b/runs/first' has no checkpoint 3"):
        parent.parent_config("gs://b/runs/first@3")
    assert parent.parent_config("gs://b/runs/first@2").steps == 4

    spec = JobSpec(
        name="second",
        config=str(tmp_path / "second.json"),
        out="gs://b/runs/second",
        init="gs://b/runs/first@2",
        accelerator="cpu-2",
        backend=Gke(),
        image="registry/llm-jax:1",
    )
    job.store(spec, config.load(spec.config), 0)
    agent = [sys.executable, "-m", "llm_jax.launch.agent", spec.out]
    done = subprocess.run(agent, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    began = f"with the weights of {mounted}/b/runs/first, step 2, and a fresh optimizer."
    assert began in done.stdout
    assert {n.split("/")[1] for n in open_folder(spec.out).names("checkpoints")} >= {"4"}
