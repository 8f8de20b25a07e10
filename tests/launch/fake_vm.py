"""A TPU VM to run the start-up script in: a metadata server and commands that fail as asked."""

import hashlib
import json
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from llm_jax.launch.code import CODE, sums

LAUNCH = Path(__file__).parents[2] / "launch"
METADATA = {
    "attributes/llm-jax-out": "gs://b/run",
    "attributes/llm-jax-incarnation": "4",
    "attributes/llm-jax-slices": "1",
    "attributes/llm-jax-workers": "2",
    "attributes/llm-jax-queued-resource": "demo",
    "attributes/llm-jax-grace": "5",
    "attributes/agent-worker-number": "0",
    "zone": "projects/1/zones/us-east5-a",
}
# Stands for `python3`: `-m pip install --target DIR` gives DIR/bin/uv.
PYTHON = r"""#!/bin/bash
echo "python $*" >> "$LOG"
FAULT
if [ "$2" = pip ]; then mkdir -p "$7/bin"; cp "${0%/*}/uv" "$7/bin/uv"; fi
if [ "$2" = llm_jax.launch.agent ]; then
  echo "agent slice=$LLM_JAX_SLICE worker=$LLM_JAX_WORKER" \
    "incarnation=$LLM_JAX_INCARNATION" >> "$LOG"
  trap 'echo "agent got TERM" >> "$LOG"; exit 75' TERM
  read -r code < "$CODES"; sed -i 1d "$CODES"
  [ "$code" = wait ] && for i in $(seq 200); do sleep 0.05; done
  exit "$code"
fi
"""
# `uv venv DIR` makes an environment whose python is the one above.
UV = r"""#!/bin/bash
echo "uv $*" >> "$LOG"
FAULT
for last; do :; done
if [ "$1" = venv ]; then mkdir -p "$last/bin"; cp "$BIN/python3" "$last/bin/python"; fi
"""
GCLOUD = """#!/bin/bash
echo "gcloud $*" >> "$LOG"
FAULT
[ "$1 $2" = "storage cp" ] || exit 0
case "$3" in
  gs://*) cp "$SENT/${3##*/}" "$4" ;;
  *) mkdir -p "$BUCKET" && cp "$3" "$BUCKET/" ;;
esac
"""
GCSFUSE = """#!/bin/bash
echo "gcsfuse $*" >> "$LOG"
FAULT
"""
MOUNTPOINT = "#!/bin/bash\nexit 1\n"
LSB_RELEASE = "#!/bin/bash\necho jammy\n"
# Google's packages come from $APT_KEY; all else is the metadata server's.
CURL = f"""#!/bin/bash
for last; do :; done
[[ $last == https://packages.cloud.google.com/* ]] || exec {shutil.which("curl")} "$@"
echo "curl $last" >> "$LOG"
FAULT
cp "$APT_KEY" "${{@: -2:1}}"
"""
# Installs gcsfuse, if the list of sources names the key that signs it.
APT_GET = """#!/bin/bash
echo "apt-get $*" >> "$LOG"
FAULT
[ "$2" = install ] || exit 0
cat "$LLM_JAX_APT_FOLDER/sources.list.d/gcsfuse.list" >> "$LOG" && mv "$BIN/off" "$BIN/gcsfuse"
"""
# Makes a stand-in command fail or hang as often as a file in $FAULTS says.
FAULT = r"""
for file in "$FAULTS"/*; do
  [ -e "$file" ] || continue
  { read -r left; read -r how; read -r pattern; } < "$file"
  if [ "$left" -gt 0 ] && [[ "${0##*/} $*" == *$pattern* ]]; then
    printf '%s\n' $((left - 1)) "$how" "$pattern" > "$file"
    [ "$how" = hang ] && exec sleep 60
    exit 9
  fi
done
"""


def _handler(values, faults):
    class Metadata(BaseHTTPRequestHandler):
        def log_message(self, *args):
            """Silence."""

        def do_GET(self):
            name = self.path.removeprefix("/computeMetadata/v1/instance/")
            how = faults[name].pop(0) if faults.get(name) else None
            value = values.get(name)
            if how == "drop":
                return
            if how == "404":
                value = None
            right = self.headers["Metadata-Flavor"] == "Google" and value is not None
            self.send_response(int(how) if how and how.isdigit() else 200 if right else 404)
            body = (value or "").encode()
            if how == "short":
                self.send_header("Content-Length", str(len(body) + 9))
            self.end_headers()
            self.wfile.write(b"error" if how and how.isdigit() else body)

    return Metadata


@contextmanager
def vm(tmp_path):
    """Runs a script with the given metadata; the agent leaves with `codes` in turn."""
    values = dict(METADATA)
    faults: dict[str, list[str]] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(values, faults))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    programs = {
        "python3": PYTHON,
        "uv": UV,
        "gcloud": GCLOUD,
        "docker": GCLOUD.replace("gcloud", "docker"),
        "gcsfuse": GCSFUSE,
        "mountpoint": MOUNTPOINT,
        "lsb_release": LSB_RELEASE,
        "curl": CURL,
        "apt-get": APT_GET,
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text.replace("FAULT\n", FAULT, 1))
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "code").mkdir()
    (tmp_path / "faults").mkdir()
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    (tmp_path / "code" / "pyproject.toml").write_text("")
    sent = tmp_path / "sent"
    sent.mkdir()
    (sent / "requirements.txt").write_text("jax==1 --hash=sha256:0\n")
    (sent / "uv.txt").write_text("uv==1 --hash=sha256:0\n")
    subprocess.run(["tar", "-czf", sent / CODE, "-C", tmp_path / "code", "."], check=True)
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sent.iterdir()}
    values["attributes/llm-jax-sha256"] = sums(digests)
    values["attributes/llm-jax-install"] = (LAUNCH / "install.sh").read_text()
    env = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "GCE_METADATA_HOST": f"127.0.0.1:{server.server_port}",
        "LLM_JAX_HOME": str(tmp_path / "home"),
        "LLM_JAX_GCS_MOUNT": str(tmp_path / "gcs"),
        "LLM_JAX_RESTART_SECONDS": "0",
        "LLM_JAX_GIVE_BACK_SECONDS": "0",
        "LLM_JAX_PATIENCE_SECONDS": "4",
        "LLM_JAX_STEP_SECONDS": "1",
        "LLM_JAX_PAUSE_SECONDS": "0",
        "LLM_JAX_LATE_SECONDS": "2",
        "LLM_JAX_APT_FOLDER": str(tmp_path / "apt"),
        "LOG": str(tmp_path / "log"),
        "CODES": str(tmp_path / "codes"),
        "BIN": str(tmp_path / "bin"),
        "SENT": str(sent),
        "FAULTS": str(tmp_path / "faults"),
        "BUCKET": str(tmp_path / "bucket"),
    }

    def start(script, codes="", **metadata):
        values.update({f"attributes/{k.replace('_', '-')}": v for k, v in metadata.items()})
        if codes:
            (tmp_path / "codes").write_text("\n".join(codes.split()) + "\n")
        return subprocess.Popen(
            ["bash", LAUNCH / script], env=env, stdout=subprocess.PIPE, text=True
        )

    def fail(pattern, times, how="exit"):
        (tmp_path / "faults" / str(len(pattern))).write_text(f"{times}\n{how}\n{pattern}\n")

    def record(where="home"):
        files = list((tmp_path / where).glob("exit.json"))
        return json.loads(files[0].read_text()) if files else None

    start.log = lambda: (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    start.fail, start.faults, start.record = fail, faults, record
    start.env, start.values, start.path = env, values, tmp_path
    try:
        yield start
    finally:
        server.shutdown()
