"""A bad minute of the metadata server, the network or an installer: the right host, or no start."""

import pytest
from fake_vm import vm

OUT, WORKER = "attributes/llm-jax-out", "attributes/agent-worker-number"
ENV = "attributes/tpu-env"
NAMES = [OUT, WORKER, ENV, "attributes/llm-jax-incarnation", "attributes/llm-jax-image"]
TWO = {
    "llm_jax_slices": "2",
    "agent_worker_number": "1",
    "tpu_env": "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n",
}


@pytest.fixture
def machine(tmp_path):
    with vm(tmp_path) as start:
        yield start


@pytest.mark.slow
@pytest.mark.parametrize("how", ["503", "500", "429", "403", "drop", "short"])
@pytest.mark.parametrize("name", NAMES)
def test_a_bad_answer_is_asked_for_again(machine, name, how):
    machine.faults[name] = [how]
    assert machine("tpu_startup.sh", "0", **TWO).wait(30) == 0
    assert machine.log().count("agent slice=1 worker=1 incarnation=4\n") == 1
    record = machine.record("bucket")
    assert (record["slice"], record["worker"], record["stage"]) == ("1", "1", "agent")
    assert record["code"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_identity_that_is_not_certain_never_starts(machine, name):
    machine.faults[name] = ["503"] * 1000
    assert machine("tpu_startup.sh", "0", **TWO).wait(30) == 1
    assert "agent slice" not in machine.log()
    record = machine.record("home")
    assert record["stage"] == "metadata" and record["code"] == 1
    assert record["sentence"]
    assert (machine.record("bucket") is None) == (name == OUT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "metadata",
    [
        {"agent_worker_number": None},
        {"agent_worker_number": ""},
        {"agent_worker_number": "<html>"},
        {"agent_worker_number": "1\n0"},
        {"agent_worker_number": "2"},
        {"agent_worker_number": "-1"},
        {"tpu_env": None},
        {"tpu_env": ""},
        {"tpu_env": "MEGASCALE_SLICE_ID: '2'"},
        {"tpu_env": "MEGASCALE_SLICE_ID: '1"},
        {"tpu_env": "MEGASCALE_SLICE_ID: '0'\nMEGASCALE_SLICE_ID: '1'"},
        {"llm_jax_incarnation": None},
        {"llm_jax_slices": "two"},
    ],
)
def test_a_wrong_identity_never_starts(machine, metadata):
    assert machine("tpu_startup.sh", "0", **TWO | metadata).wait(30) == 1
    assert "agent slice" not in machine.log()
    record = machine.record("bucket")
    assert record["stage"] == "metadata" and record["sentence"]


INSTALL = {
    "storage cp gs://": "install",
    "venv": "install",
    "pip install": "install",
    "gcsfuse": "mount",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exit", "hang"])
@pytest.mark.parametrize("pattern", ["storage cp gs://", "pip install", "gcsfuse"])
def test_an_installer_that_fails_once_is_run_again(machine, pattern, how):
    machine.fail(pattern, 1, how)
    assert machine("tpu_startup.sh", "0").wait(30) == 0
    assert machine.log().count("agent slice=0 worker=0 incarnation=4\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "stage"), INSTALL.items())
def test_an_installer_that_never_succeeds_leaves_a_record(machine, pattern, stage):
    machine.fail(pattern, 1000)
    assert machine("tpu_startup.sh", "0").wait(60) == 1
    assert "agent slice" not in machine.log()
    record = machine.record("bucket")
    assert (record["stage"], record["code"], record["worker"]) == (stage, 1, "0")
    assert "for 4 s" in record["sentence"]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["configure-docker", "docker pull"])
def test_an_image_that_cannot_be_had_leaves_a_record(machine, pattern):
    machine.fail(pattern, 1000)
    assert machine("tpu_startup.sh", llm_jax_image="europe-docker.pkg.dev/p/r/i:1").wait(30) == 1
    assert "docker run" not in machine.log()
    assert machine.record("bucket")["stage"] == "install"


def test_a_record_is_written_again_when_the_bucket_refuses(machine):
    machine.fail("storage cp /", 2)
    assert machine("tpu_startup.sh", "75").wait(30) == 75
    assert machine.record("bucket")["code"] == 75
