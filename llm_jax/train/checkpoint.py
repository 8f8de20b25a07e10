"""Checkpoints, written by Orbax asynchronously: nested dicts of arrays and a JSON record.

    <out>/run.json, <out>/tokenizer.model
    <out>/checkpoints/<step>/params    tree of the model
    <out>/checkpoints/<step>/opt       optimizer state, nested dicts with the names of its fields
    <out>/checkpoints/<step>/guard     the guard's recent losses and counts
    <out>/checkpoints/<step>/meta      config, step, data order, lineage, tokenizer hash, versions
    <out>/checkpoints/<step>/manifest.json  sizes and checksums of these files
    <out>/damaged/<step>               a checkpoint whose files changed after they were written

No NNX or optax object is stored, so the files outlive both libraries. Orbax writes a step under a
temporary name and renames it when it is complete: an interrupted save never looks like a
checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from llm_jax.config import RunConfig, from_dict, to_dict
from llm_jax.runs.slow_save import SlowSave, keep_slow_save
from llm_jax.train import distributed
from llm_jax.train.damage import saved_steps, set_damaged_aside
from llm_jax.train.failures import Damaged, FileFailure, reason
from llm_jax.train.guard import fresh_guard
from llm_jax.train.local_checkpoints import LocalCheckpoints
from llm_jax.train.manager import Barrier, Manager
from llm_jax.train.manifest import require_regular
from llm_jax.train.plain import plain, unplain
from llm_jax.train.run_folder import (
    CHECKPOINT_FORMAT,
    check_architecture,
    check_format,
    check_tokenizer,
)
from llm_jax.train.save_speed import Hold, SaveSpeed, save_speed
from llm_jax.train.state import State, fresh_optimizer
from llm_jax.train.sums import ITEM, Committed, SumsSave

VERSIONED = ("jax", "flax", "optax", "orbax-checkpoint", "sentencepiece")


class Checkpointer:
    """Saves and restores the training state of one run.

    Attributes:
      notes: sentences about the checkpoints found, such as damaged ones that were moved away.
      speed: how fast the run's earlier saves were, and the deadline that follows.
    """

    @classmethod
    def open(cls, config: RunConfig, tokenizer_sha256: str, abstract: State) -> Checkpointer:
        """Opens the folder of checkpoints, or creates it, and moves damaged checkpoints away.

        Args:
          abstract: the state that is saved and restored.
        """
        out = Path(config.out).absolute()
        folder = out / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        require_regular(folder)
        notes = set_damaged_aside(folder)
        return cls(config, tokenizer_sha256, folder, notes, save_speed(out, abstract))

    def __init__(
        self,
        config: RunConfig,
        tokenizer_sha256: str,
        folder: Path,
        notes: list[str],
        speed: SaveSpeed,
    ) -> None:
        self.config, self.tokenizer_sha256 = config, tokenizer_sha256
        self.folder, self.notes, self.speed = folder, notes, speed
        self._barrier = Barrier()
        policy = config.checkpoint
        options = ocp.CheckpointManagerOptions(
            max_to_keep=policy.keep_last,
            keep_period=policy.keep_every,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(
                timeout_secs=speed.deadline, barrier_sync_fn=self._barrier
            ),
            temporary_path_class=Committed,
        )
        self._saving = 0
        self._manager = Manager(self.folder, options=options)
        self._local = LocalCheckpoints(config) if policy.local else None
        self._near: int | None = None
        """Step to restore from the hosts' own disks, if that is ahead of the run's folder."""

    @property
    def latest_step(self) -> int | None:
        """Newest whole checkpoint in the run's folder, None if there is none."""
        return self._manager.latest_step()

    def newest(self, abstract: State) -> int | None:
        """Newest whole checkpoint, on the hosts' own disks or in the run's folder.

        Args:
          abstract: the state to restore it to.
        """
        saved = self.latest_step
        if self._local:
            self._local.look(abstract)
            ahead = [step for step in self._local.usable if saved is None or step > saved]
            self._near = ahead[0] if ahead else None
            if ahead:
                there = "no checkpoint" if saved is None else f"checkpoint {saved}"
                self.notes.append(
                    f"Checkpoint {ahead[0]} on the hosts' own disks is used: the run's folder has "
                    f"{there}."
                )
        return saved if self._near is None else self._near

    def save(
        self, state: State, step: int, standing: dict[str, Any], lineage: dict[str, Any]
    ) -> Hold:
        """Starts saving. Arrays are copied before this returns; files are written afterwards.

        Args:
          standing: what the run has read by then (`History.standing`).
          lineage: that of the state (`runs/lineage.py`).

        Returns:
          The seconds for which the caller was held.

        Raises:
          UserError: this save, or the one before it, could not be written.
        """
        meta = {
            "format": CHECKPOINT_FORMAT,
            "stacked_layers": True,
            "step": step,
            "config": to_dict(self.config),
            "data": {"seed": self.config.data.seed, "next_step": step} | standing,
            "lineage": lineage,
            "tokenizer_sha256": self.tokenizer_sha256,
            "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        }
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(state["params"]),
            opt=ocp.args.StandardSave(plain(state["opt"])),
            guard=ocp.args.StandardSave(state["guard"]),
            meta=ocp.args.JsonSave(meta),
            **{ITEM: SumsSave()},
        )
        began = time.perf_counter()
        self.wait()  # `_saving` holds one step at a time
        waited = time.perf_counter()
        with self._explained():
            self._saving = step
            self._manager.save(step, args=args)
        return Hold(waited - began, time.perf_counter() - waited)

    def check(self) -> None:
        """Raises the error of a save in the background, if this process's part has failed."""
        if self._barrier.failure is not None:
            self.wait()

    def save_near(self, state: State, step: int) -> None:
        """Saves on the hosts' own disks. If a disk fails, the run warns and continues."""
        assert self._local is not None
        self._local.save(state, step)

    def secure_near(self, state: State, step: int) -> bool:
        """Saves on the hosts' own disks, and waits. Whether every process has; False if the run
        keeps no checkpoints there."""
        if self._local is None:
            return False
        self._local.save(state, step)
        self._local.wait()
        return bool(np.all(multihost_utils.process_allgather(np.bool_(self._local.has(step)))))

    def wait(self) -> None:
        """Returns when everything saved is on disk; raises as `save` does."""
        with self._explained():
            self._manager.wait_until_finished()
        if self._local and (saved := self.latest_step) is not None:
            self._local.forget(saved)

    def forget_near(self) -> None:
        """Deletes the checkpoints on this host's own disk, so that no start resumes from them."""
        if self._local:
            self._local.forget()

    def record(self, step: int) -> dict[str, Any] | None:
        """The metadata of checkpoint `step` (item `meta`); None for one on the hosts' own disks,
        which has none: only this run can have written it.

        Raises:
          ConfigError: the checkpoint holds another architecture or belongs to another tokenizer.
          Damaged: it cannot be read.
        """
        if step == self._near:
            return None
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        meta = self._manager.restore(step, args=args)["meta"]
        check_format(meta, f"Checkpoint {step} of the run in {self.config.out}")
        check_architecture(self.config, from_dict(meta["config"], RunConfig), "was trained with")
        check_tokenizer(self.config.out, meta["tokenizer_sha256"], self.tokenizer_sha256)
        return meta

    def restore(self, abstract: State, step: int) -> State:
        """The state of `step`, which `record` has checked, on the mesh and shardings of
        `abstract`."""
        if self._local and step == self._near:
            return self._local.restore(abstract, step)
        items = {"params": ocp.args.StandardRestore(abstract["params"])}
        if self.has_optimizer(step):
            items["opt"] = ocp.args.StandardRestore(plain(abstract["opt"]))
        if self._holds(step, "guard"):
            items["guard"] = ocp.args.StandardRestore(abstract["guard"])
        try:
            made = self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax raises no narrower one
            if distributed.is_peer_lost(error):
                raise
            raise Damaged(
                f"Checkpoint {step} of the run in {self.config.out} is damaged (it cannot be read: "
                f"{reason(error)}): move {self.folder / str(step)} away to resume from the one "
                "before."
            ) from error
        if self.has_optimizer(step):
            opt = unplain(made["opt"], abstract["opt"])
        else:
            opt = fresh_optimizer(self.config, abstract, made["params"])
        counter = jax.device_put(np.int32(step), abstract["step"].sharding)
        if "guard" in items:
            guard = made["guard"]
        else:
            guard = jax.tree.map(
                lambda leaf, where: jax.device_put(np.asarray(leaf), where.sharding),
                fresh_guard(),
                abstract["guard"],
            )
        return {"params": made["params"], "opt": opt, "guard": guard, "step": counter}

    def has_optimizer(self, step: int) -> bool:
        """Whether the checkpoint has optimizer state; imported weights have none."""
        return step == self._near or self._holds(step, "opt")

    def _holds(self, step: int, item: str) -> bool:
        return (self.folder / str(step) / item).exists()

    def close(self) -> None:
        if self._local:
            self._local.wait()
        with self._explained():
            self._manager.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns a failed write into `FileFailure`, unless a lost peer caused it."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            if distributed.is_peer_lost(error):
                raise
            if isinstance(error, TimeoutError) and jax.process_index() == 0:
                late = SlowSave(self._saving, self.speed.deadline)
                with contextlib.suppress(OSError):  # the sentence below says what failed
                    keep_slow_save(Path(self.config.out), late)
            raise FileFailure(self.config.out, error, saved_steps(self.folder)) from error


def forget_after(folder: Path, step: int) -> int:
    """Deletes the checkpoints after `step`; returns the newest of the others, 0 if none is left.

    Only one process may call it, and only while nothing is being saved.
    """
    for newer in saved_steps(folder):
        if newer > step:
            shutil.rmtree(folder / str(newer))
    return next(iter(saved_steps(folder)), 0)
