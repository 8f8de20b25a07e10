"""Surroundings in which a program may be started; the zygote starts it there, as a new program."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


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
    file_bytes: int | None = None
    """Largest file that may be written."""

    @property
    def is_heard(self) -> bool:
        """Whether all that the program prints arrives."""
        return not {1, 2} & {*self.closed} and self.stdout != "pipe" and self.file_bytes is None


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
    "files of 1 KB": Environment(file_bytes=1000),
}
