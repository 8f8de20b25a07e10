"""Task files of others: what is in a folder, and whether it would run code.

lm-eval's own reader skips a file that it cannot parse, runs the functions that a file names, and
fills in templates with all of Python within reach. So the files are read here first, as data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_bytes
from llm_jax.evals.tasks.library import metric_names

SAFE_DATA = ("json", "csv", "text", "parquet", "arrow")
"""Kinds of data files whose readers run nothing that the files hold."""


@dataclass(frozen=True)
class Code:
    """A Python function that a task file names."""

    name: str


def folders_of(include: Path | str | Sequence[Path | str] | None) -> list[Path]:
    """The folders and files of `--include`.

    Raises:
      UserError: one does not exist.
    """
    given = [include] if isinstance(include, str | Path) else [*(include or ())]
    paths = [Path(one) for one in given]
    for path in paths:
        if not path.exists():
            raise UserError(f"--include {str(path)!r} does not exist: check the path.")
    return paths


def task_files(folder: Path, suffix: str) -> Iterator[Path]:
    """The files of a folder with this suffix, or the file itself if it has it."""
    found = [folder] if folder.is_file() else sorted(folder.rglob(f"*{suffix}"))
    return (path for path in found if path.suffix == suffix and path.is_file())


def check_files(folders: Sequence[Path], trust_code: bool) -> dict[str, set[Path]]:
    """Reads all task files.

    Returns:
      The name of each task and group, and the files that define it.

    Raises:
      UserError: one is not valid, or names code and `trust_code` is False.
    """
    found: dict[str, set[Path]] = {}
    for folder in folders:
        for path in task_files(folder, ".yaml"):
            config = read_task(path)
            reason = None if trust_code else why_code(config)
            if reason:
                raise UserError(
                    f"The task file {str(path)!r} {reason}, which is code of its author: read it, "
                    "then give --trust-code."
                )
            name = config.get("group", config.get("task"))
            if isinstance(name, str):
                found.setdefault(name, set()).add(path.resolve())
    return found


def read_task(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A task file with those that it includes, its functions as `Code`.

    Raises:
      UserError: it cannot be read or is not a mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Functions are named and not called."""

    Loader.add_constructor("!function", lambda loader, node: Code(str(node.value)))
    path = path.resolve()
    if path in seen:
        raise UserError(f"The task file {str(path)!r} includes itself: remove that include.")
    try:
        held = yaml.load(read_bytes(path), Loader=Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"The task file {str(path)!r} is not valid YAML ({line}).") from None
    if not isinstance(held, dict):
        raise UserError(f"The task file {str(path)!r} holds no settings: write `task: NAME` first.")
    includes = held.pop("include", [])
    merged: dict[str, Any] = {}
    for one in includes if isinstance(includes, list) else [includes]:
        merged |= read_task(path.parent / str(one), (*seen, path))
    return merged | held


def why_code(value: Any) -> str | None:
    """Why a task would run code of its author, as the end of a sentence; None if it would not."""
    if isinstance(value, Code):
        return f"names the Python function {value.name!r}"
    if isinstance(value, list):
        return next(filter(None, map(why_code, value)), None)
    if not isinstance(value, dict):
        return None
    for key in ("class", "use_prompt"):
        if value.get(key):
            return f"has {key}: {value[key]!r}"
    if value.get("hf_evaluate"):
        return "loads its metric's code (hf_evaluate)"
    metric = value.get("metric")
    if isinstance(metric, str) and metric not in metric_names():
        return (
            f"has the metric {metric!r}, a script that lm-eval would look for (it has itself: "
            f"{', '.join(sorted(metric_names()))})"
        )
    data = value.get("dataset_path")
    if data is not None and data not in SAFE_DATA:
        return f"loads data by {str(data)!r} (safe are {', '.join(SAFE_DATA)})"
    return next(filter(None, map(why_code, value.values())), None)
