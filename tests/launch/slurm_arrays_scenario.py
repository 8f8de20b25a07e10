"""What `test_slurm_curation.py` has done inside the cluster; prints what it saw as JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from curation_samples import PROGRAM, build, curate, started

TEXT, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
FAULTS = f"""
export PATH={Path(sys.executable).parent}:$PATH
echo "$SLURMD_NODENAME" >> {FOLDER}/nodes.txt
if [ "$SLURMD_NODENAME" = n2 ]; then
  if mkdir {FOLDER}/node-lost 2> /dev/null; then
    scontrol update NodeName=n2 State=DOWN Reason=test
    sleep 100
  fi
elif mkdir {FOLDER}/killed 2> /dev/null; then
  kill -KILL $$
fi
"""


def words(out: str, *more: object) -> list[str]:
    return list(map(str, curate(TEXT, FOLDER / out, "--backend", "slurm", *more)))


def call(argv: list[str], size: int = 10_000) -> dict[str, Any]:
    process = started(argv, size)
    stdout, stderr = process.communicate()
    return {"code": process.returncode, "stdout": stdout, "stderr": stderr}


def listed(form: str = "%i") -> list[str]:
    lines = ["squeue", "--noheader", "--array", "--states=R,PD", f"--format={form}"]
    return subprocess.run(lines, capture_output=True, text=True, check=True).stdout.split()


def arrays() -> dict[str, Any]:
    """With a task that is killed, and a node that is lost."""
    (FOLDER / "faults.sh").write_text(FAULTS, encoding="utf-8")
    setup = f". {FOLDER}/faults.sh"
    seen = call(words("arrays", "--workers", 4, "--setup", setup, "--memory", "100M"))
    return seen | {"nodes": (FOLDER / "nodes.txt").read_text("utf-8").split()}


def built() -> dict[str, Any]:
    more = ("--backend", "slurm", "--workers", 4, "--setup", f". {FOLDER}/faults.sh")
    before = len((FOLDER / "nodes.txt").read_text("utf-8").split())
    seen = call(list(map(str, build(TEXT, FOLDER / "built", *more))), size=20_000)
    return seen | {"tasks": len((FOLDER / "nodes.txt").read_text("utf-8").split()) - before}


def stopped() -> dict[str, Any]:
    """Ctrl-C while two tasks run."""
    process = started(words("stopped", "--workers", 2, "--setup", "sleep 100"))
    until = time.monotonic() + 60
    while (before := len(listed("%T"))) < 2 and time.monotonic() < until:
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    return {"code": process.returncode, "before": before, "left": listed()}


def job() -> dict[str, Any]:
    """The verb itself as a batch job, which submits its arrays from a node."""
    submitted = call(["launch", "run", *words("job", "--workers", 2)])
    number = json.loads(submitted["stdout"])["job"]
    found = json.loads(call(["launch", "list", "--backend", "slurm", "--json"])["stdout"])
    until = time.monotonic() + 120
    while number in listed("%F") and time.monotonic() < until:
        time.sleep(0.5)
    log = (FOLDER / "job.launch.log").read_text("utf-8")
    result = json.loads(log.splitlines()[-1])
    return {
        "submitted": json.loads(submitted["stdout"]),
        "listed": [one["out"] for one in found["jobs"]],
        "result": result,
    }


def unseen() -> str:
    """With a folder that the daemons of the nodes cannot see: it is mounted for this call alone."""
    hidden = FOLDER / "hidden"
    hidden.mkdir()
    program = "from llm_jax.launch.tasks import one_array; one_array.LAG = 1.0\n" + PROGRAM
    mounted = f'mount -t tmpfs tmpfs {hidden} && exec "$@"'
    argv = [sys.executable, "-c", program, "10_000", *words("hidden/out", "--workers", 2)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, "sh", *argv],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    return done.stderr


def main() -> None:
    seen = {
        "arrays": arrays(),
        "built": built(),
        "stopped": stopped(),
        "job": job(),
        "no partition": call(words("x", "--partition", "gpu"))["stderr"],
        "too many cpus": call(words("y", "--cpus", 64))["stderr"],
        "unseen": unseen(),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
