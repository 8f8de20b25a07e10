"""Surroundings in which a program may be started, each as it really is: a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from zygote import REPOSITORY, Outcome

SECONDS = 120


@dataclass(frozen=True)
class Environment:
    """What differs from a shell in a terminal."""

    variables: dict[str, str | None] = field(default_factory=dict)
    """None: it is not set."""
    closed: tuple[int, ...] = ()
    """Standard streams."""
    stdout: str = "file"
    """`file`, `full`: a device without room, or `pipe`: that nobody reads."""
    folder: str = ""
    """That is worked in, made below the call's own; `gone` is removed before the program starts."""
    limits: dict[int, int] = field(default_factory=dict)

    @property
    def is_heard(self) -> bool:
        return 2 not in self.closed


ASCII: dict[str, str | None] = {
    "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
}  # fmt: skip
ENVIRONMENTS = {
    "LANG=C": Environment({"LC_ALL": "C", "LANG": "C"}),
    "ASCII": Environment(ASCII),
    "a locale that is not there": Environment({"LC_ALL": "xx_YY.ISO-8859-1"}),
    "Latin-1 output": Environment({"PYTHONIOENCODING": "latin-1"}),
    "no home": Environment({"HOME": None, "XDG_CACHE_HOME": None, "USER": None, "LOGNAME": None}),
    "a home that is not there": Environment({"HOME": "/nonexistent/home"}),
    "no variables": Environment({name: None for name in os.environ if name != "PATH"}),
    "no terminal": Environment({"TERM": None, "COLUMNS": "1", "LINES": "0"}),
    "closed stdin": Environment(closed=(0,)),
    "closed stdout": Environment(closed=(1,)),
    "closed stderr": Environment(closed=(2,)),
    "all closed": Environment(closed=(0, 1, 2)),
    "full stdout": Environment(stdout="full"),
    "broken pipe": Environment(stdout="pipe"),
    "Japanese folder": Environment(folder="猫 の 部屋"),
    "folder of two lines": Environment(folder="a\nb"),
    "folder that is not UTF-8": Environment(folder="caf\udce9"),
    "removed folder": Environment(folder="gone"),
    "no room for temporary files": Environment({"TMPDIR": "/nonexistent"}),
    "without docstrings": Environment({"PYTHONOPTIMIZE": "2"}),
    "warnings are errors": Environment({"PYTHONWARNINGS": "error::UserWarning"}),
    "files of 1 KB": Environment(limits={resource.RLIMIT_FSIZE: 1000}),
}


def run(argv: list[str], around: Environment, folder: Path, variables: dict[str, str]) -> Outcome:
    """`llm-jax argv` started there, in `folder`, or in the folder below it that `around` names."""
    set_ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", **variables}
    changed = {**set_, **around.variables}
    environment = {name: value for name, value in changed.items() if value is not None}
    environment["PYTHONPATH"] = str(REPOSITORY)
    files = {name: folder.with_name(f"{folder.name}.{name}") for name in ("out", "err")}
    outputs = {"file": str(files["out"]), "full": "/dev/full"}

    def start() -> None:
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
        for number in around.closed:
            os.close(number)
        for name, most in around.limits.items():
            resource.setrlimit(name, (most, most))

    begin = time.monotonic()
    with (
        open(outputs.get(around.stdout, os.devnull), "wb") as out,  # noqa: PTH123
        files["err"].open("wb") as err,
    ):
        done = subprocess.run(
            [sys.executable, "-m", "llm_jax", *argv],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            preexec_fn=start,
            timeout=SECONDS,
            check=False,
        )
    seconds = time.monotonic() - begin
    printed = files["out"].read_bytes() if files["out"].exists() else b""
    return Outcome(done.returncode, printed, files["err"].read_bytes(), seconds, kilobytes=0)
