"""What a VM installs: only what was launched, by pinned keys; an end at any time is told."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from fake_vm import LAUNCH, vm
from launch_samples import wait_for

from llm_jax.launch.lock import PYTHON

WORKER = "attributes/agent-worker-number"


@pytest.fixture
def machine(tmp_path):
    with vm(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def keys():
    """Fingerprints of two keys, and the file that holds both, as Google's does."""
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    home = Path(tempfile.mkdtemp(prefix="gpg"))  # sockets need a short path
    env = os.environ | {"GNUPGHOME": str(home)}

    def gpg(*words):
        argv = ["gpg", "--batch", "--quiet", "--passphrase", "", *words]
        return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout

    for name in ("wanted", "other"):
        gpg("--quick-generate-key", name, "ed25519", "sign", "never")
    gpg("--armor", "--output", str(home / "both.asc"), "--export")
    prints = re.findall(r"^fpr:+([0-9A-F]{40}):$", gpg("--with-colons", "--list-keys"), re.M)
    yield prints, home / "both.asc"
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=env, check=True)
    shutil.rmtree(home)


def without_gcsfuse(machine, keys, pinned):
    machine.env |= {"APT_KEY": str(keys[1]), "LLM_JAX_APT_KEY": pinned}
    (machine.path / "bin/gcsfuse").rename(machine.path / "bin/off")


def test_only_the_pinned_key_signs_packages(machine, keys):
    wanted, other = keys[0]
    without_gcsfuse(machine, keys, wanted)
    assert machine("tpu_startup.sh", "0").wait(30) == 0
    log = machine.log()
    source = re.search(r"^deb \[signed-by=(\S+)\] (\S+) (\S+) main$", log, re.M)
    assert source[2] == "https://packages.cloud.google.com/apt" and source[3] == "gcsfuse-jammy"
    shown = subprocess.run(
        ["gpg", "--show-keys", "--with-colons", source[1]], capture_output=True, text=True
    ).stdout
    assert wanted in shown and other not in shown
    order = ["apt-get -qq update", "apt-get -qq install --yes gcsfuse", "gcsfuse --implicit-dirs"]
    assert [log.index(words) for words in order] == sorted(log.index(words) for words in order)


def test_another_key_is_refused(machine, keys):
    without_gcsfuse(machine, keys, "0" * 40)
    assert machine("tpu_startup.sh", "0").wait(30) == 1
    record = machine.record("bucket")
    assert record["stage"] == "mount" and "is not 0000" in record["sentence"]
    assert "apt-get" not in machine.log() and "agent slice" not in machine.log()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exit", "hang"])
@pytest.mark.parametrize("pattern", ["apt-get -qq update", "apt-get -qq install", "curl https"])
def test_apt_that_fails_once_is_run_again(machine, keys, pattern, how):
    without_gcsfuse(machine, keys, keys[0][0])
    machine.fail(pattern, 1, how)
    assert machine("tpu_startup.sh", "0").wait(30) == 0
    assert machine.log().count("agent slice=0 worker=0 incarnation=4\n") == 1


@pytest.mark.slow
def test_apt_that_never_succeeds_leaves_a_record(machine, keys):
    without_gcsfuse(machine, keys, keys[0][0])
    machine.fail("apt-get -qq update", 1000)
    assert machine("tpu_startup.sh", "0").wait(60) == 1
    assert machine.record("bucket")["stage"] == "mount"


UV = ["pip install --quiet --require-hashes --target", "uv venv", "uv pip install --quiet --req",
      "uv pip install --quiet --no-deps"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pattern", UV)
def test_uv_that_fails_once_is_run_again(machine, pattern):
    machine.fail(pattern, 1)
    assert machine("tpu_startup.sh", "0").wait(30) == 0
    log = machine.log()
    assert log.count(pattern) == 2 and log.count("agent slice=0 worker=0 incarnation=4\n") == 1


@pytest.mark.parametrize("name", ["code.tar.gz", "requirements.txt", "uv.txt"])
def test_what_was_not_launched_is_not_installed(machine, name):
    with (machine.path / "sent" / name).open("ab") as file:
        file.write(b"\n")
    assert machine("tpu_startup.sh", "0").wait(30) == 1
    assert "pip install" not in machine.log() and not (machine.path / "home/launch/code").exists()
    record = machine.record("bucket")
    assert (record["stage"], record["code"]) == ("install", 1)
    assert re.match(
        rf"launch/{name} is not what was launched: .* [0-9a-f]{{64}}", record["sentence"]
    )


@pytest.mark.parametrize("metadata", [{"llm_jax_sha256": None}, {"llm_jax_install": None}])
def test_a_vm_that_is_not_told_what_to_install_installs_nothing(machine, metadata):
    assert machine("tpu_startup.sh", "0", **metadata).wait(30) == 1
    assert "launch the job again" in machine.record("bucket")["sentence"]
    assert "storage cp gs://" not in machine.log()


@pytest.mark.slow
def test_a_late_number_is_waited_for(machine):
    machine.faults[WORKER] = ["404"] * 3
    machine.env["LLM_JAX_LATE_SECONDS"] = "60"
    assert machine("tpu_startup.sh", "0", agent_worker_number="1").wait(60) == 0
    assert machine.log().count("agent slice=0 worker=1 incarnation=4\n") == 1


@pytest.mark.slow
def test_a_number_that_never_comes_is_refused_in_time(machine):
    started = time.monotonic()
    assert machine("tpu_startup.sh", "0", agent_worker_number=None).wait(30) == 1
    assert time.monotonic() - started < 15  # of 2 s that it may be late
    assert "no attribute agent-worker-number" in machine.record("bucket")["sentence"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["signal", "shutdown script"])
@pytest.mark.parametrize("pattern", ["uv pip install --quiet --req", "storage cp gs://"])
def test_an_end_while_installing_leaves_a_record(machine, how, pattern):
    machine.env["LLM_JAX_STEP_SECONDS"] = "50"
    machine.fail(pattern, 1, "hang")
    child = machine("tpu_startup.sh", "0")
    wait_for(lambda: pattern in machine.log())
    if how == "signal":
        child.send_signal(signal.SIGTERM)
    else:
        assert machine("tpu_shutdown.sh").wait(30) == 0
    assert child.wait(10) == 143
    record = machine.record("bucket")
    assert (record["stage"], record["code"], record["worker"]) == ("install", 143, "0")
    assert record["sentence"] == "the script was stopped"
    assert "agent slice" not in machine.log()


def test_a_stopped_script_lets_its_agent_save(machine):
    child = machine("tpu_startup.sh", "wait")
    wait_for(lambda: "agent slice" in machine.log())
    time.sleep(0.2)  # the stand-in sets its trap
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 143
    assert "agent got TERM" in machine.log() and machine.record("bucket")["stage"] == "agent"


@pytest.mark.slow
def test_shutdown_asks_for_the_grace_until_it_is_told(machine):
    machine.faults["attributes/llm-jax-grace"] = ["503", "drop"]
    machine.path.joinpath("home").mkdir()
    agent = subprocess.Popen(["bash", "-c", "trap '' TERM; sleep 60 & wait; wait; sleep 60"])
    (machine.path / "home/agent.pid").write_text(str(agent.pid))
    started = time.monotonic()
    try:
        assert machine("tpu_shutdown.sh", llm_jax_grace="4").wait(40) == 0
        # 4 s in whole seconds of the clock, and 120 if nothing tells them.
        assert 3 <= time.monotonic() - started < 20
    finally:
        agent.kill()
    assert machine.faults["attributes/llm-jax-grace"] == []


def test_the_scripts_and_the_lock_name_one_python():
    assert f"--python {PYTHON} " in (LAUNCH / "install.sh").read_text()
    container = (LAUNCH / "Containerfile").read_text()
    assert re.search(rf"^FROM python:{PYTHON}-slim@sha256:[0-9a-f]{{64}}$", container, re.M)
