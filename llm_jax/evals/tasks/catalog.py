"""From the names of tasks to lm-eval's task objects, with their data.

A name is, in this order: `reasoning_gym:NAME` or `humaneval`; a task of `--include`, in lm-eval's
YAML or llm-jp-eval's JSON; one of our own (`bundled/`); one of lm-eval's, whose index of 14,000
tasks takes seconds to read and is only read for them.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, nearest, read_json
from llm_jax.evals.tasks import gym, human_eval, llm_jp, versions
from llm_jax.evals.tasks.included import check_files, folders_of, task_files
from llm_jax.evals.tasks.library import DOWNLOAD, harness

BUNDLED = Path(__file__).parent / "bundled"
NAMED = re.compile(
    r"""(?:["']?(?:task|group|tag)["']?:[ \t]*|^[ \t]*-[ \t]*|[\[,]\s*)["']?([^\s"',\[\]{}#]+)""",
    re.M,
)
"""A value of `task`, `group` or `tag`, or an item of a list: names that are suggested."""
HELD_OUT = "cloze"
"""The bundled task that is made from held-out text."""


@dataclass(frozen=True)
class Settings:
    """What tasks are read with.

    Attributes:
      include: folders or files with task files of others.
      trust_code: run the Python code that those files name.
      run_code: run programs that a model has written, in a sandbox.
      texts: text files that cloze questions are made from; empty: the run's validation splits.
      datasets: folders of the run's datasets.
    """

    include: Path | str | Sequence[Path | str] | None = None
    trust_code: bool = False
    run_code: bool = False
    texts: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


@dataclass
class Loaded:
    """Tasks with their data, by lm-eval's names, the groups that were asked for, and a sentence for
    each task some of whose metrics we do not have."""

    tasks: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, found: Any) -> None:
        for kind, new in (("tasks", found["tasks"]), ("groups", found.get("groups") or {})):
            getattr(self, kind).update(new)


def check_names(names: Sequence[str], settings: Settings) -> list[str]:
    """Checks names; no data are read.

    Returns:
      A sentence for each task some of whose metrics we do not have.

    Raises:
      UserError: a task does not exist (the nearest is named), is named twice, or would run code
        that is not trusted; or lm-eval is not installed.
    """
    if not names:
        raise UserError("No task is named: see docs/evaluation.md for those that there are.")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--tasks names {name!r} twice: name it once.")
    harness()
    folders = folders_of(settings.include)
    defined = check_files(folders, settings.trust_code)
    theirs, ours = llm_jp.tasks_in(folders), _index(tuple(folders), False)
    for name in names:
        files = sorted(defined.get(name, set()) | ({theirs[name]} if name in theirs else set()))
        if len(files) > 1:
            raise UserError(
                f"Two files of --include define task {name!r}, {str(files[0])!r} and "
                f"{str(files[1])!r}: rename one."
            )
        if name.startswith(gym.PREFIX):
            gym.check_name(name)
        elif name == human_eval.NAME:
            human_eval.check(settings.run_code)
        elif not (name in {*theirs, *ours} or _is_theirs(name, tuple(folders))):
            for path in (one for folder in folders for one in task_files(folder, ".json")):
                if path.stem == name:
                    read_json(path)  # says what is wrong with it
            known = {*theirs, *ours, human_eval.NAME}
            known.update(word for text in _texts() for word in NAMED.findall(text))
            several = re.findall(r"[^][,\"' ]+", name)
            if len(several) > 1 and known.issuperset(several):
                raise UserError(
                    f"There is no task {name!r}: write blanks between names: {' '.join(several)}."
                )
            raise UserError(f"There is no task {name!r}: {nearest(name, known)}")
    said = (llm_jp.left_out(name, theirs[name]) for name in names if name in theirs)
    return [one for one in said if one]


def load_tasks(names: Sequence[str], settings: Settings) -> Loaded:
    """The tasks with their data.

    Raises:
      UserError: as `check_names` does, or a task's data are not at hand.
    """
    loaded = Loaded(notes=check_names(names, settings))
    folders = folders_of(settings.include)
    theirs = llm_jp.tasks_in(folders)
    for name in names:
        with _sentences(name):
            if name.startswith(gym.PREFIX):
                loaded.add({"tasks": {name: gym.task(name)}})
            elif name == human_eval.NAME:
                loaded.add({"tasks": {name: human_eval.task()}})
            elif name in theirs:
                loaded.add({"tasks": {name: llm_jp.task(name, theirs[name])}})
            else:
                ours = _is_whole(name, _index(tuple(folders), False))
                if not ours:
                    _check_members(name, _index(tuple(folders), True))
                held = {"texts": settings.texts, "datasets": settings.datasets}
                metadata = {"held_out": held} if name == HELD_OUT else None
                found = _manager(tuple(folders), not ours, metadata).load([name])
                if not found["tasks"]:
                    raise UserError(f"Group {name!r} has no tasks: name some in its file.")
                loaded.add(found)
    return loaded


def _members(entry: Any) -> list[str]:
    """The tasks and groups that a group names."""
    parts = (entry.cfg or {}).get("task")
    named = (
        one.get("task", one.get("group")) if isinstance(one, dict) else one
        for one in (parts if isinstance(parts, list) else ())
    )
    return [one for one in named if isinstance(one, str)]


def _is_whole(name: str, index: dict[str, Any]) -> bool:
    """Whether a task, or all members of a group, are in an index."""
    return name in index and all(_is_whole(one, index) for one in _members(index[name]))


def _check_members(name: str, index: dict[str, Any]) -> None:
    """Raises `UserError` if a group names a task that there is not."""
    parts = (index[name].cfg or {}).get("task")
    for one in parts if isinstance(parts, list) else ():
        if isinstance(one, str) and one not in index:
            raise UserError(f"Group {name!r} names task {one!r}: {nearest(one, index)}")


def version_of(name: str, settings: Settings) -> str | None:
    """The version of a task or group that `check_names` knows; None if its file says none. No data
    are read."""
    if name.startswith(gym.PREFIX):
        return gym.version()
    if name == human_eval.NAME:
        return human_eval.version()
    folders = folders_of(settings.include)
    if path := llm_jp.tasks_in(folders).get(name):
        return llm_jp.version(path)
    entries = _index(tuple(folders), False)
    return versions.of_entry(name, entries if name in entries else _index(tuple(folders), True))


def bundled_names() -> list[str]:
    """The names of our own tasks."""
    return sorted(path.stem for path in task_files(BUNDLED, ".yaml") if path.stem[0] != "_")


@functools.cache
def _texts() -> tuple[str, ...]:
    """lm-eval's task files. Searching them takes a tenth of the time of reading them as YAML. Some
    that others include have no suffix."""
    files = Path(harness().tasks.__file__).parent.rglob("*")
    return tuple(
        path.read_text("utf-8", "replace")
        for path in files
        if path.suffix in ("", ".yaml", ".yml") and path.is_file()
    )


def _is_theirs(name: str, folders: tuple[Path, ...]) -> bool:
    """Whether a name is one of lm-eval's. Their index is only read if a file has the name."""
    return any(name in text for text in _texts()) and name in _index(folders, True)


def _index(folders: tuple[Path, ...], defaults: bool) -> dict[str, Any]:
    entries: dict[str, Any] = _manager(folders, defaults, None).task_index
    return entries


def _manager(folders: tuple[Path, ...], defaults: bool, metadata: dict[str, Any] | None) -> Any:
    if metadata:
        return _made(folders, defaults, metadata)
    files = [file for folder in folders for file in task_files(folder, ".yaml")]
    now = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _indexed(folders, defaults, now)


@functools.lru_cache(maxsize=4)
def _indexed(folders: tuple[Path, ...], defaults: bool, files: tuple[Any, ...]) -> Any:
    """Read once, as long as `files` are the same: a notebook may edit them."""
    return _made(folders, defaults, None)


def _made(folders: tuple[Path, ...], defaults: bool, metadata: dict[str, Any] | None) -> Any:
    """lm-eval's reader of task files. It takes folders; what is in single files is added."""
    made = harness().tasks.TaskManager(
        include_path=[BUNDLED, *(one for one in folders if one.is_dir())],
        include_defaults=defaults,
        metadata=metadata,
    )
    from lm_eval.tasks._index import TaskIndex
    from lm_eval.tasks._yaml_loader import load_yaml

    for file in folders:
        if file.suffix == ".yaml" and file.is_file():
            entries: dict[str, Any] = {}
            TaskIndex.process_cfg(load_yaml(file, resolve_func=False), file, entries)
            made.task_index.update(entries)
    return made


@contextmanager
def _sentences(name: str) -> Iterator[None]:
    """Errors of a task's own code and of the library that loads its data, as one sentence."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"Task {name!r} needs {error.name or error}, which is not installed: install it."
        ) from error
    except Exception as error:  # whatever the task's code and the library raise
        line = " ".join(str(error).split())[:300]
        if isinstance(error, StopIteration):  # of the library that reads the data
            raise UserError(f"The data of task {name!r} are empty: write some.") from error
        if _is_absence(error):
            raise UserError(
                f"The data of task {name!r} are not at hand ({line}): give a task whose data are, "
                f"or download them with {DOWNLOAD} in the environment."
            ) from error
        raise UserError(
            f"Task {name!r} cannot be loaded ({type(error).__name__}: {line})."
        ) from error


def _is_absence(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that data are missing."""
    while error is not None:
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & {"ConnectionError", "FileNotFoundError", "OfflineModeIsEnabled"}:
            return True
        error = error.__cause__ or error.__context__
    return False
