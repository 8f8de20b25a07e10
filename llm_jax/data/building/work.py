"""The folder in which a dataset is built.

Its name has the fingerprint of the inputs and settings, so a task that outlived its killed parent
writes just what that of the next call does.

<work>/plan.json                    versions, how documents are cleaned, the current directory
<work>/tokenizer/                   the tokenizer, once there is one
<work>/read/NNNNN.task.json         a shard of the sources: which files, or what the parent read
<work>/read/NNNNN.given             texts that the parent read, gone once they are cleaned
<work>/read/NNNNN.texts             cleaned texts, one after another
<work>/read/NNNNN.index.npy         digest, size and part of each text
<work>/read/NNNNN.places.jsonl      file and line of each text
<work>/encode/NNNNN.documents.npy   the texts to encode: file, first byte, size, whether to compare
<work>/encode/NNNNN.tokens          their tokens, one text after another
<work>/encode/NNNNN.counts.npy      tokens of each text, and the bytes that they stand for
<work>/encode/NNNNN.keys.npy        key of each text, with which the splits are checked
<work>/PASS/NNNNN.done.json         written last, so the shard is done
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from llm_jax import __version__
from llm_jax.data.clean import Cleaner
from llm_jax.data.tasks.seen import wait_until
from llm_jax.runs.files import write_text

FORMAT = 1
"""Raised whenever the files of a work folder come to mean something else."""
PassName = Literal["read", "encode"]
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Work:
    """The folder, and what all tasks need to know."""

    folder: Path
    cleaner: Cleaner

    @classmethod
    def open(cls, folder: Path) -> Work:
        return cls(folder, Cleaner(**_plan(folder)["cleaner"]))

    def start(self, also: Sequence[Path] = ()) -> None:
        """Makes the folder; what another version of this program left in it is deleted.

        Args:
          also: folders of what was made from it, which are deleted with it.
        """
        same = {"format": FORMAT, "llm-jax": __version__, "cleaner": asdict(self.cleaner)}
        plan = same | {"directory": str(Path.cwd())}
        path = self.folder / PLAN_FILE
        before = _plan(self.folder) if path.is_file() else {}
        if before == plan:
            return
        if before | {"directory": ""} != same | {"directory": ""}:
            for folder in (*also, self.folder):
                if folder.exists():
                    shutil.rmtree(folder)
        write_text(path, json.dumps(plan, indent=1))

    def enter(self) -> None:
        """Goes to the directory that the paths of sources are relative to, if this machine has it;
        else files with such paths are not found."""
        directory = Path(_plan(self.folder)["directory"])
        if directory.is_dir():
            os.chdir(directory)

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    def path(self, pass_: PassName, shard: int, suffix: str) -> Path:
        return self.folder / pass_ / f"{shard:05d}.{suffix}"

    def give(self, pass_: PassName, shard: int, task: dict[str, Any]) -> bool:
        """Writes what a task is to do; False if just that has been done."""
        text = json.dumps(task)
        path = self.path(pass_, shard, "task.json")
        if self._was_done(pass_, shard, text):
            return False
        write_text(path, text)
        return True

    def task(self, pass_: PassName, shard: int) -> dict[str, Any]:
        return json.loads(self.path(pass_, shard, "task.json").read_text(encoding="utf-8"))

    def is_done(self, pass_: PassName, shard: int) -> bool:
        task = self.path(pass_, shard, "task.json")
        return task.is_file() and self._was_done(pass_, shard, task.read_text(encoding="utf-8"))

    def finish(self, pass_: PassName, shard: int, **result: Any) -> None:
        """Writes the result of a task, whose other files are written: it is done."""
        of = _digest(self.path(pass_, shard, "task.json").read_text(encoding="utf-8"))
        write_text(self.path(pass_, shard, "done.json"), json.dumps({"of": of, **result}))

    def result(self, pass_: PassName, shard: int) -> dict[str, Any]:
        return json.loads(self.path(pass_, shard, "done.json").read_text(encoding="utf-8"))

    def wait(self, pass_: PassName, count: int) -> None:
        """Waits until the first `count` shards, whose tasks have ended, are seen to be done.

        Raises:
          TaskFailed: one is not.
        """
        for shard in range(count):
            done = partial(self.is_done, pass_, shard)
            wait_until(done, self.path(pass_, shard, "done.json"))

    def _was_done(self, pass_: PassName, shard: int, task: str) -> bool:
        done = self.path(pass_, shard, "done.json")
        return done.is_file() and self.result(pass_, shard)["of"] == _digest(task)


def _plan(folder: Path) -> dict[str, Any]:
    return json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
