"""One task of a job array: runs what the array's list has at its place, and records how it ended.

    python -m llm_jax.launch.tasks.array_task FOLDER NUMBER

What is recorded tells a program that failed from one that was killed, and outlives what Slurm
remembers. A task that was killed itself leaves no record.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from llm_jax.runs.files import write_text
from llm_jax.runs.tasks import ONE_CORE, SAID

LIST = "tasks.json"
"""In an array's folder: {"module": …, "tasks": [words, …]}."""


def record_file(folder: Path, number: int) -> Path:
    """Where task `number` of the array in `folder` records {"code": …, "said": …}."""
    return folder / f"{number}.json"


def main(argv: list[str]) -> int:
    folder, number = Path(argv[0]), int(argv[1])
    listed = json.loads((folder / LIST).read_text(encoding="utf-8"))
    command = [sys.executable, "-m", listed["module"], *listed["tasks"][number]]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | ONE_CORE
    ) as process:
        said = process.communicate()[1]
    print(said, end="", file=sys.stderr)
    record = {"code": process.returncode, "said": said[-SAID:]}
    write_text(record_file(folder, number), json.dumps(record))
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
