"""One process that has imported llm_jax once, and forks itself for every call.

A call has its own working folder, environment, limits and standard streams, and cannot harm the
next one. What the program would print and how it would end is what `run` gives.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import pkgutil
import resource
import select
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from environments import Environment

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 60.0
"""Until a call is ended. The tests may have a small part of a processor."""
ADDRESS_SPACE = 6 << 30
"""Bytes of address space that a call may take beside what the zygote has."""
LIBRARIES = (
    "datasets", "fsspec", "google.cloud.storage", "google.cloud.tpu_v2", "kubernetes",
    "matplotlib.pyplot", "pyarrow.parquet", "reasoning_gym", "tensorflow_datasets",
    "tokenizers", "trafilatura", "tyro", "warcio.archiveiterator", "yaml",
)  # fmt: skip
"""What verbs import late."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    code: int
    """Exit code, minus the signal that ended it."""
    out: bytes
    err: bytes
    seconds: float
    """Of processors."""
    kilobytes: int
    """Largest resident size."""
    timed_out: bool = False


class Zygote:
    """The process, started; a context manager that ends it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        )

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()

    def run(
        self,
        argv: list[str],
        folder: Path,
        environment: dict[str, str],
        stdin: bytes = b"",
        seconds: float = SECONDS,
        around: Environment | None = None,
    ) -> Outcome:
        """`llm-jax argv` in `folder`; its streams are files beside that folder.

        Args:
          around: the program is started anew in these surroundings, not forked.
        """
        streams = {name: folder.with_name(f"{folder.name}.{name}") for name in ("in", "out", "err")}
        streams["in"].write_bytes(stdin)
        asked = {
            "argv": argv,
            "folder": str(folder),
            "environment": environment,
            "streams": {name: str(path) for name, path in streams.items()},
            "seconds": seconds,
            "around": around and asdict(around),
        }
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        answer = json.loads(self._process.stdout.readline())  # type: ignore[union-attr]
        return Outcome(out=streams["out"].read_bytes(), err=streams["err"].read_bytes(), **answer)


def serve() -> None:
    """Answers one line of JSON for each line of JSON, until its standard input is closed."""
    _import_everything()
    # What is here stays: a child that looked for garbage in it would copy its pages.
    gc.collect()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
        answers.flush()


def _import_everything() -> None:
    """Imports all of llm_jax, and what it imports only when it is used."""
    import llm_jax
    from llm_jax.evals.tasks.library import harness

    ours = pkgutil.walk_packages(llm_jax.__path__, "llm_jax.")
    for name in (*(one.name for one in ours if "__main__" not in one.name), *LIBRARIES):
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(name)
    if importlib.util.find_spec("lm_eval"):
        harness()


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    pid = os.fork()
    if pid == 0:
        _be_the_program(asked)
    watched = os.pidfd_open(pid)
    in_time = bool(select.select([watched], [], [], asked["seconds"])[0])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # and what it has started
    _, status, used = os.wait4(pid, 0)
    os.close(watched)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": used.ru_utime + used.ru_stime,
        "kilobytes": used.ru_maxrss,
        "timed_out": not in_time,
    }


def _be_the_program(asked: dict[str, Any]) -> None:
    """Ends the process as `llm-jax` would end, but for what its threads still do."""
    os.setsid()
    code = 70
    try:
        _set_streams(asked)
        if asked["around"]:
            _start_anew(asked)
        code = _called(asked)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _set_streams(asked: dict[str, Any]) -> None:
    os.chdir(asked["folder"])
    for number, name, how in ((0, "in", os.O_RDONLY), (1, "out", os.O_WRONLY | os.O_CREAT),
                              (2, "err", os.O_WRONLY | os.O_CREAT)):  # fmt: skip
        opened = os.open(asked["streams"][name], how | os.O_TRUNC * (number > 0), 0o600)
        os.dup2(opened, number)
        os.close(opened)


def _start_anew(asked: dict[str, Any]) -> None:
    """Becomes a new program in other surroundings."""
    around = Environment(**asked["around"])
    changed = {**os.environ, **asked["environment"], **around.variables}
    variables = {name: value for name, value in changed.items() if value is not None}
    if around.folder == "gone":
        Path("gone").mkdir()
        os.chdir("gone")
        Path("../gone").rmdir()
    elif around.folder:
        os.chdir(around.folder)
    if around.stdout == "pipe":
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)
    elif around.stdout == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    for number in around.closed:
        os.close(number)
    if around.file_bytes is not None:
        variables["PYTHONDONTWRITEBYTECODE"] = "1"  # it would be cut off, and no import would work
        resource.setrlimit(resource.RLIMIT_FSIZE, (around.file_bytes,) * 2)
    words = [sys.executable, "-m", "llm_jax", *asked["argv"]]
    os.execve(sys.executable, words, variables | {"PYTHONPATH": str(REPOSITORY)})


def _called(asked: dict[str, Any]) -> int:
    from llm_jax.cli import main

    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    os.environ.update(asked["environment"])
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What a verb would train or measure in a process of its own ends at once here.
    sys.executable = asked["environment"].get("FUZZ_CHILD", sys.executable)
    try:
        main(asked["argv"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70


if __name__ == "__main__":
    serve()
