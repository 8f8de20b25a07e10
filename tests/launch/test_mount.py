"""Runs whose output lies in a bucket: the launcher talks to it, the trainer to its mount."""

import json
import os
import subprocess
import sys

import pytest
from fake_bucket import Bucket, FilesAsObjects
from tiny import VOCAB, model_config, run_config

from llm_jax import config
from llm_jax.config import UserError
from llm_jax.launch import job
from llm_jax.launch.bucket import check_bucket
from llm_jax.launch.checks import Refused
from llm_jax.launch.folder import open_folder
from llm_jax.launch.mount import as_files, check_mounts, mount_root
from llm_jax.launch.records import attempts
from llm_jax.launch.spec import Gke, JobSpec


@pytest.fixture
def mounted(bucket, tmp_path, monkeypatch):
    """The bucket of the local server, its objects being the files below `tmp_path/gcs/b`."""
    root = tmp_path / "gcs"
    (root / "b").mkdir(parents=True)
    monkeypatch.setattr(Bucket, "objects", FilesAsObjects(root / "b"))
    monkeypatch.setenv("LLM_JAX_GCS_MOUNT", str(root))
    return root


def test_addresses_become_paths(mounted):
    run = {"out": "gs://b/runs/x", "data": {"path": "gs://c/text"}, "notes": ["gs://b", "a gs://"]}
    root = mount_root(os.environ)
    assert as_files(run, root) == {
        "out": f"{mounted}/b/runs/x",
        "data": {"path": f"{mounted}/c/text"},
        "notes": [f"{mounted}/b", "a gs://"],
    }
    assert str(mount_root({})) == "/gcs"


def test_a_bucket_that_is_not_mounted_is_named(mounted):
    folder = open_folder("gs://b/runs/x")
    with pytest.raises(Refused, match=rf"gs://c is not mounted at {mounted}/c, .* gs://c/text"):
        check_mounts({"out": "gs://b/runs/x", "data": {"path": "gs://c/text"}}, folder, mounted)
    # A folder of the bucket's name that is no mount would be lost with the host.
    with pytest.raises(Refused, match=r"is not gs://b/runs/x: it has no launch/job\.json"):
        check_mounts({"out": "gs://b/runs/x"}, folder, mounted)
    folder.write("launch/job.json", b"{}")
    check_mounts({"out": "gs://b/runs/x"}, folder, mounted)


def test_a_flat_bucket_is_refused(bucket, monkeypatch):
    folder = open_folder("gs://b/runs/x")
    assert check_bucket(folder) is None
    assert "could not see whether gs://other has" in check_bucket(open_folder("gs://other/x"))
    monkeypatch.setattr(Bucket, "hierarchical", False)
    with pytest.raises(UserError, match="gs://b has no hierarchical namespace"):
        check_bucket(folder)


@pytest.mark.slow
def test_the_trainer_saves_in_the_bucket_and_goes_on_from_there(mounted, tiny_dataset, tmp_path):
    """One pod of the gke back end: its agent and the real trainer; the data lie in a bucket too."""
    (mounted / "texts").mkdir()
    (mounted / "texts" / "python").symlink_to(tiny_dataset)
    run = run_config(
        "unused",
        "gs://texts/python",
        steps=6,
        model=model_config(vocab_size=VOCAB, num_layers=1),
        checkpoint=config.CheckpointConfig(every=3),
        eval=config.EvalConfig(every=100, batches=1),
    )
    (tmp_path / "run.json").write_text(config.to_json(run))
    spec = JobSpec(
        name="pod",
        config=str(tmp_path / "run.json"),
        out="gs://b/runs/pod",
        accelerator="cpu-2",
        backend=Gke(),
        image="registry/llm-jax:1",
    )
    folder = open_folder(spec.out)
    job.store(spec, config.load(spec.config), 0)
    agent = [sys.executable, "-m", "llm_jax.launch.agent", spec.out]
    env = os.environ | {"LLM_JAX_SLICE": "0", "LLM_JAX_WORKER": "0"}
    env |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(agent, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {n.split("/")[1] for n in folder.names("checkpoints")} == {"3", "6"}
    assert [a.finished for a in attempts(folder, 1)] == [True]
    assert json.loads(folder.read("run.json"))["out"] == str(mounted / "b/runs/pod")
    assert not (tmp_path / "gs:").exists()

    longer = config.to_json(config.RunConfig(**vars(run) | {"steps": 8}))
    (tmp_path / "run.json").write_text(longer)
    job.store(spec, config.load(spec.config), job.next_incarnation(folder))
    done = subprocess.run(agent, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "after step 6: " in done.stdout
    assert "8" in {n.split("/")[1] for n in folder.names("checkpoints")}
