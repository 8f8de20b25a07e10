"""`launch run / status / logs / stop / list` through the command line, and its refusals."""

import dataclasses
import json
import signal
import subprocess
import sys

import pytest
from launch_samples import IMAGE, final_state, undisturbed, wait_for

from llm_jax import config
from llm_jax.cli import main
from llm_jax.config import UserError
from llm_jax.launch import checks, job
from llm_jax.launch.backends import driver
from llm_jax.launch.folder import open_folder
from llm_jax.launch.records import log_name
from llm_jax.launch.spec import JobSpec, SkyPilot


def call(capsys, *words):
    """Exit code, standard output as JSON if it is there, standard error."""
    with pytest.raises(SystemExit) as left:
        main(["launch", *words, "--json"])
    printed = capsys.readouterr()
    return left.value.code, json.loads(printed.out or "null"), printed.err


@pytest.fixture
def spec_file(make_spec, tmp_path):
    def write(*arguments, **changes):
        path = tmp_path / "spec.json"
        path.write_text(config.to_json(make_spec(*arguments, **changes)))
        return str(path)

    return write


@pytest.mark.slow
def test_a_job_from_run_to_list(spec_file, tmp_path, capsys):
    out = str(tmp_path / "out")
    code, ran, _ = call(capsys, "run", "--spec", spec_file("oom:1:12"))
    assert code == 0
    assert (ran["job"], ran["backend"], ran["state"], ran["step"]) == (
        "fake",
        "local",
        "finished",
        40,
    )
    assert ran["attempts"][0]["cause"] == "host 1: out of memory at step 12"
    assert final_state(out) == undisturbed()

    code, status, _ = call(capsys, "status", out)
    assert (code, status) == (0, ran)
    code, logs, _ = call(capsys, "logs", out, "--host", "1")
    assert {line["host"] for line in logs["lines"]} == {1}
    assert "fault oom at step 12" in [line["text"] for line in logs["lines"]]
    code, stopped, _ = call(capsys, "stop", out)
    assert (code, stopped["state"], stopped["billable"]) == (0, "finished", [])
    code, listed, _ = call(capsys, "list", str(tmp_path))
    assert listed["jobs"] == [{"job": "fake", "state": "finished", "out": out}]


@pytest.mark.slow
def test_a_failed_job_exits_1_and_a_wrong_configuration_78(spec_file, capsys):
    code, _, err = call(capsys, "run", "--spec", spec_file("oom:1:12!", retries=0))
    assert code == 1
    assert err.splitlines()[-1] == (
        "error: The job fake failed: host 1: out of memory at step 12 (no restarts are allowed)."
    )
    code, _, err = call(capsys, "run", "--spec", spec_file("config:0:10!", retries=0))
    assert code == 78 and "there is no such folder" in err


def test_dry_run_prints_what_is_applied(spec_file, tmp_path, capsys):
    code, planned, _ = call(capsys, "run", "--spec", spec_file(), "--dry-run")
    assert code == 0 and not (tmp_path / "out").exists()
    spec = config.from_json((tmp_path / "spec.json").read_text(), JobSpec)
    run, first = job.prepare(spec, driver(spec))
    applied = [action.describe() for action in job.actions(spec, run, first)]
    assert planned["actions"] == json.loads(json.dumps(applied))
    job.store(spec, run, first)
    files = [a for a in planned["actions"] if a["action"] == "PutFile"]
    folder = open_folder(spec.out)
    assert [f["name"] for f in files] == ["launch/run.json", "launch/job.json"]
    for file in files:
        assert folder.read(file["name"]).decode() == file["text"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_run_saves_and_leaves_with_75(spec_file, tmp_path, number):
    path = spec_file(env={"FAKE_STEP_SECONDS": "0.1"})
    words = [sys.executable, "-m", "llm_jax", "launch", "run", "--spec", path]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    status = tmp_path / "out" / "status.1.json"
    wait_for(lambda: status.exists() and json.loads(status.read_text())["step"] >= 4, 30)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 75
    assert "was stopped: run `llm-jax launch run`" in err
    assert json.loads((tmp_path / "out" / "checkpoint.json").read_text())[0] >= 4
    assert job.status(str(tmp_path / "out"))["state"] == "stopped"


@pytest.mark.slow
def test_a_detached_job_goes_on_by_itself(spec_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = spec_file(env={"FAKE_STEP_SECONDS": "0.1"})
    code, ran, _ = call(capsys, "run", "--spec", path, "--detach")
    assert code == 0 and ran["state"] in ("waiting", "running")
    code, watched, shown = call(capsys, "status", str(tmp_path / "out"), "--watch")
    assert (code, watched["state"], watched["step"]) == (0, "finished", 40)
    assert "fake on local: running, step" in shown
    lines = shown.splitlines()
    assert len(set(lines)) == len(lines) > 1  # said once, and said again as it gets on
    assert final_state(tmp_path / "out") == undisturbed()


def test_what_is_trained_can_be_set(capsys, run_json):
    words = ["--steps", "30", run_json, "--data.path=texts", "--name", "mine", "--dry-run"]
    code, planned, _ = call(capsys, "run", *words)
    run = json.loads(planned["actions"][0]["text"])
    assert (code, run["steps"], run["data"]["path"], run["name"]) == (0, 30, "texts", "mine")


def test_a_supervisor_that_cannot_start_is_said(spec_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llm_jax.py").write_text("raise SystemExit('error: a broken installation.')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, _, err = call(capsys, "run", "--spec", spec_file(), "--detach")
    assert (code, err) == (2, "error: The supervisor ended at once: a broken installation.\n")


@pytest.mark.slow
def test_logs_follow_to_the_end(spec_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = spec_file("kill:0:9", env={"FAKE_STEP_SECONDS": "0.05"})
    call(capsys, "run", "--spec", path, "--detach")
    with pytest.raises(SystemExit):
        main(["launch", "logs", str(tmp_path / "out"), "-f"])
    lines = capsys.readouterr().out.splitlines()
    assert "0000.0000 host 0 | fault kill at step 9" in lines
    assert lines.count("0000.0001 host 1 | done") == 1


def test_flags_make_the_specification(capsys, run_json):
    words = [run_json, "--name", "demo", "--out", "gs://b/demo", "--accelerator"]
    words += ["v6e-16", "--slices", "2", "--backend", "tpu", "--project", "p"]
    words += ["--zone", "us-east5-a", "--data.path", "gs://b/text", "--image", IMAGE]
    words += ["--capacity", "spot", "--env", "A=b=c", "--external-ips", "false"]
    code, planned, _ = call(capsys, "run", *words, "--dry-run")
    assert code == 0
    (create,) = [a for a in planned["actions"] if a["action"] == "CreateQueuedResource"]
    assert create["parent"] == "projects/p/locations/us-east5-a"
    (node,) = create["queued_resource"]["tpu"]["node_spec"]
    assert node["multislice_params"] == {"node_count": 2, "node_id_prefix": "demo"}
    assert node["node"]["network_config"] == {"enable_external_ips": False}
    stored = next(a for a in planned["actions"] if a.get("name") == "launch/job.json")
    assert json.loads(stored["text"])["spec"]["env"] == {"A": "b=c"}


def test_the_run_gives_name_and_folder(capsys, run_json):
    code, planned, _ = call(capsys, "run", run_json, "--dry-run")
    assert (code, planned["job"]) == (0, "fake")
    assert planned["actions"][0]["folder"] == "unused"


TPU = (
    *("--backend", "tpu", "--project", "p", "--zone", "us-east5-a", "--accelerator", "v5p-8"),
    *("--out", "gs://b/run", "--image", IMAGE, "--dry-run"),
)
DATA = ("--data.path", "DATA")
TWO = ("--slices", "2", "--dry-run")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["run", "nowhere.json", "--name", "a", "--out", "o"], 78, "no config file"),
        (["run", "--spec", "nowhere.json"], 2, "nowhere.json cannot be read"),
        (["run", "RUN", "--zone", "z"], 78, "--zone does not go with the local"),
        (["run", "RUN", "--env", "A"], 78, "write NAME=VALUE"),
        (["run", "RUN", "--backend", "tpu"], 78, "job.backend.project is missing"),
        (
            ["run", "RUN", "--parallel.fsdp", "3", *TWO],
            78,
            "mesh has 3 devices or a",
        ),
        (
            ["run", "RUN", "--parallel.data", "4", *TWO],
            78,
            "2 x cpu-1 has 2: change",
        ),
        (["run", "RUN", *TPU], 78, "which hosts of the tpu back end cannot reach: copy"),
        (["run", "RUN", *TPU, "--zone", "us-east5"], 78, "job.backend.zone is 'us-east5': name a"),
        (["run", "RUN", *TPU, "--accelerator", "v5p-9"], 78, "near it are v5p-8"),
        (["run", "RUN", *DATA, "--dry-run", "--manifest"], 78, "give --backend gke"),
        (["run", "RUN", *DATA, "--manifest"], 78, "--manifest goes with --dry-run"),
        (
            ["run", "RUN", *DATA, "--model.vocab-size", "100"],
            78,
            "model.vocab_size is 100, but the tokenizer of DATA has 64 tokens",
        ),
        (["run", "RUN"], 78, "data.path is 'data/stdlib', where there is no dataset"),
        (["run", "RUN", "--steps"], 2, "Missing value for argument '--steps'"),
        (["run", "RUN", "--stepz", "1"], 2, "did you mean '--steps'?"),
        (["run", "RUN", "--slice", "2"], 2, "did you mean '--slices'?"),
        (["run", "RUN", "--backend", "tup"], 2, "--backend is 'tup': did you mean 'tpu'?"),
        (["run", "--steps", "3"], 2, "launch run needs a CONFIG"),
        (
            ["run", "RUN", *DATA, "--accelerator", "h100-1"],
            2,
            "this machine has no GPU: use",
        ),
        (["run", "RUN", *DATA, "--out", "/proc/x"], 2, "/proc/x cannot be written"),
        (["run", "RUN", "--out", "gs://b/x"], 2, "needs a local folder"),
        (["status", "nowhere"], 2, "holds no job: give the output folder"),
        (["logs", "nowhere"], 2, "holds no job"),
        (["stop", "nowhere"], 2, "holds no job"),
        (["list"], 2, "needs a folder or --backend"),
        (["list", "--backend", "tpu"], 2, "needs --project and --zone"),
    ],
)
def test_one_sentence(words, code, sentence, run_json, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DATA").mkdir()
    (tmp_path / "DATA" / "dataset.json").write_text('{"vocab_size": 64}')
    words = [run_json if word == "RUN" else word for word in words]
    left, result, err = call(capsys, *words)
    assert (left, result) == (code, None)
    assert sentence in err and len(err.strip().splitlines()) == 1


def test_a_folder_of_another_job_or_run_is_refused(spec_file, make_spec, store, tmp_path, capsys):
    store(make_spec(name="first"))
    code, _, err = call(capsys, "run", "--spec", spec_file())
    assert code == 2 and "belongs to the job 'first': choose another" in err
    (tmp_path / "out" / "launch" / "job.json").unlink()
    (tmp_path / "out" / "run.json").write_text('{"name": "older"}')
    code, _, err = call(capsys, "run", "--spec", spec_file())
    assert code == 2 and "holds the run 'older', and the job would train 'fake'" in err


def test_launching_needs_no_jax():
    code = "import sys, llm_jax.launch.job, llm_jax.launch.agent, llm_jax.launch.supervisor\n"
    code += "from llm_jax.launch.backends import local, slurm, tpu, gke, skypilot\n"
    code += "print({'jax', 'numpy', 'google.cloud', 'kubernetes', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_the_skypilot_file(make_spec, tmp_path, monkeypatch):
    yaml = pytest.importorskip("yaml")
    monkeypatch.chdir(tmp_path)
    spec = make_spec(
        out="gs://b/run",
        accelerator="h100-8",
        capacity="spot",
        image=IMAGE,
        backend=SkyPilot(infra="gcp/us-central1"),
    )
    (action,) = driver(spec).render(2)
    assert action.path == "fake.sky.yaml"
    task = yaml.safe_load(action.text)
    assert task["resources"] == {
        "use_spot": True,
        "accelerators": "H100:8",
        "infra": "gcp/us-central1",
        "image_id": f"docker:{IMAGE}",
    }
    assert task["num_nodes"] == 2 and "setup" not in task
    assert task["file_mounts"] == {"/gcs/b": {"source": "gs://b", "mode": "MOUNT"}}
    assert "export LLM_JAX_PROCESS=$SKYPILOT_NODE_RANK" in task["run"]
    assert "python3 -m llm_jax.launch.agent gs://b/run" in task["run"]
    (action,) = driver(dataclasses.replace(spec, accelerator="v5e-8", slices=1)).render(0)
    resources = yaml.safe_load(action.text)["resources"]
    assert resources["accelerators"] == "tpu-v5litepod-8"
    assert resources["accelerator_args"] == {"runtime_version": "v2-alpha-tpuv5-lite"}


def test_a_task_that_skypilot_has_not_is_refused_before_anything_is_written(make_spec, bucket):
    from fake_bucket import Bucket

    pytest.importorskip("yaml")
    spec = make_spec(out=bucket + "/run", accelerator="v5e-8", image=IMAGE, backend=SkyPilot())
    run = config.load(spec.config)
    with pytest.raises(UserError, match="SkyPilot has no multislice TPUs"):
        job.prepare(spec, driver(spec), run=run)
    assert Bucket.objects == {}


@pytest.mark.parametrize(("tail", "lines"), [("0", 0), ("2", 2), ("1000", 5)])
def test_the_tail_of_a_log(make_spec, store, capsys, tail, lines):
    spec = make_spec(slices=1)
    store(spec)
    folder = open_folder(spec.out)
    checks.announce(folder, "0000.0000", 0, {})
    folder.append(log_name("0000.0000", 0), b"line\n" * 5)
    with pytest.raises(SystemExit):
        main(["launch", "logs", spec.out, "--tail", tail])
    assert capsys.readouterr().out.count("line") == lines
