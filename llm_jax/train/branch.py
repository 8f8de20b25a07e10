"""Starts a run as a branch of another one: its checkpoint with everything, and its past.

A branch has the parent's history, metrics and rollbacks up to the checkpoint, and a line in its
history that names the parent. From there it is a run that resumes, with whatever is changed.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import jax

from llm_jax.config import ConfigError, RunConfig, require, to_dict, to_json
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs import history as histories
from llm_jax.runs import rollbacks
from llm_jax.runs.files import write_text
from llm_jax.runs.history import Entry, History, read_history, to_line
from llm_jax.runs.imported import FOLDER
from llm_jax.runs.places import folder_and_step
from llm_jax.train import distributed
from llm_jax.train.damage import shared_damage
from llm_jax.train.failures import Damaged
from llm_jax.train.inherit import check_fits, run_named
from llm_jax.train.manifest import damage_sentence, require_regular
from llm_jax.train.metrics import METRICS_FILE, forget_after
from llm_jax.train.run_folder import check_architecture, check_folder

PARTIAL = ".branch.partial"
"""What is copied, until all of it is."""
WHOLE = ("tokenizer.model", "tokenizer", FOLDER)
"""Files and folders that a branch has as its parent has them."""
COPIED = ("checkpoints", histories.FILE, METRICS_FILE, rollbacks.FILE, *WHOLE)
SEEN_WITHIN = 120.0
"""Seconds for which a host waits to see what another one has written."""


def open_branch(config: RunConfig, branch: str, tokenizer: Tokenizer) -> None:
    """Makes the folder `config.out` a branch of the run that `branch` names, unless it is already.

    Args:
      branch: `RUN` or `RUN@STEP`.
      tokenizer: of the branch's dataset.

    Raises:
      ConfigError: there is no such checkpoint, its architecture, optimizer or tokenizer differs, or
        the folder holds something else.
      Damaged: the checkpoint's files have changed.
    """
    out = Path(config.out)
    if (out / "run.json").is_file():
        _check_same(config, branch, tokenizer)
        return
    folder, step, parent = distributed.all_pass(lambda: _parent(config, branch, tokenizer))
    checkpoint = folder / "checkpoints" / str(step)
    place = shared_damage(checkpoint)
    if place is not None:
        raise Damaged(
            f"--branch is {branch!r}, whose checkpoint {step} is damaged "
            f"({damage_sentence(checkpoint, place)}): restore it from a copy, or name another step."
        )
    distributed.wait_for_all("the branch is checked")
    if jax.process_index() == 0:
        _forget_partial(out)
    distributed.wait_for_all("nothing is left of an interrupted branch")
    check_folder(config, tokenizer)
    distributed.wait_for_all("the branch's folder is checked")  # it holds copies from now on
    if jax.process_index() == 0:
        _copy(config, folder, step, parent)
    distributed.wait_for_all("the branch is made")
    _wait_to_see(out / "run.json")


def _parent(config: RunConfig, branch: str, tokenizer: Tokenizer) -> tuple[Path, int, RunConfig]:
    """Folder, step and config of the run that `branch` names, which `config` can go on from."""
    folder, step, parent = run_named("--branch", branch)
    check_fits("--branch", branch, folder, config, tokenizer.sha256)
    check_architecture(config, parent, "is a branch of a run that has")
    if parent.optim.kind != config.optim.kind:
        raise ConfigError(
            f"--branch is {branch!r}, a run with optim.kind {parent.optim.kind!r}, not "
            f"{config.optim.kind!r}: keep it, or begin with its weights alone with --init."
        )
    require_regular(folder / "checkpoints" / str(step))
    return folder, step, parent


def _check_same(config: RunConfig, branch: str, tokenizer: Tokenizer) -> None:
    """Raises `ConfigError` unless the run in `config.out` is the branch of `branch`."""
    old = check_folder(config, tokenizer)
    folder, step = folder_and_step(branch)
    made = read_history(Path(config.out), old or config).branch
    if made is None or made["run"] != str(folder) or step not in (None, made["step"]):
        began = f"a branch of {made['run']}, step {made['step']}" if made else "not a branch"
        raise ConfigError(
            f"--branch is {branch!r}, but the run in {config.out} is {began}: leave the flag "
            "out to resume it, or choose another `out`."
        )


def _forget_partial(out: Path) -> None:
    if (out / PARTIAL).exists():
        for name in (*COPIED, PARTIAL):  # while PARTIAL is there, the others are known as copies
            shutil.rmtree(out / name, ignore_errors=True)
            if (out / name).exists():
                (out / name).unlink()


def _copy(config: RunConfig, folder: Path, step: int, parent: RunConfig) -> None:
    """Copies the past of the run in `folder`; `run.json`, which makes a run of it, comes last."""
    out = Path(config.out)
    partial = out / PARTIAL
    (partial / "checkpoints").mkdir(parents=True)
    number = str(step)
    shutil.copytree(folder / "checkpoints" / number, partial / "checkpoints" / number)
    past = read_history(folder, parent)
    lines = [*(one for one in past.entries if one.step < step), _line(config, folder, step, past)]
    write_text(partial / histories.FILE, "".join(f"{to_line(one)}\n" for one in lines))
    if (folder / METRICS_FILE).is_file():
        shutil.copyfile(folder / METRICS_FILE, partial / METRICS_FILE)
        forget_after(partial / METRICS_FILE, step)
    if backs := [one for one in rollbacks.read_rollbacks(folder) if one.step <= step]:
        write_text(partial / rollbacks.FILE, json.dumps([asdict(one) for one in backs], indent=1))
    for name in WHOLE:
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copyfile
        if (folder / name).exists():
            copy(folder / name, partial / name)
    for name in COPIED:
        if (partial / name).exists():
            (partial / name).rename(out / name)
    write_text(out / "run.json", to_json(config))
    partial.rmdir()


def _wait_to_see(file: Path) -> None:
    """Returns when this host sees `file`, which process 0 has written. Network file systems
    remember for up to a minute that a file was not there."""
    end = time.monotonic() + SEEN_WITHIN
    while not file.is_file():
        require(
            time.monotonic() < end,
            f"Process 0 has made a branch in {file.parent}, which this host does not see: choose "
            "an `out` on storage that all hosts share.",
        )
        time.sleep(0.2)


def _line(config: RunConfig, folder: Path, step: int, past: History) -> Entry:
    """The line that begins the branch, with the parent's config under the branch's name."""
    before = past.at(step)
    name = before.config["name"]
    return Entry(
        step,
        before.config | {"name": config.name, "out": to_dict(config)["out"]},
        before.text,
        time.time(),
        past.sequences(step),
        past.tokens(step),
        {"run.name": [name, config.name]},
        effect=f"a branch of {name} begins",
        parent=past.parent,
        branch={"run": str(folder), "name": name, "step": step},
    )
