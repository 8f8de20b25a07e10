"""A small valid file of every kind that a verb reads, made once by the verbs themselves.

Paths in it are relative, so that a copy works wherever it lies.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
from pathlib import Path

from zygote import Outcome, Zygote

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    to_json,
)
from llm_jax.launch.folder import open_folder
from llm_jax.launch.history import close
from llm_jax.launch.records import ExitRecord, job_json, log_name, record_exit, write_json
from llm_jax.launch.spec import JobSpec

STEPS = 2
TEXT = """
the cat sat on a mat and saw two grey mice run under an old door while rain fell over roofs
吾輩は猫である 名前は まだ無い def main return for in range print import value
"""
WORDS = TEXT.split()


def make(root: Path, zygote: Zygote) -> dict[str, list[str]]:
    """Makes the world in `root`.

    Returns:
      Its entries, with the files of each (relative to `root`), those of chance names last.
    """
    root.mkdir(parents=True)
    _texts(root / "texts")
    _labelled(root / "labelled.jsonl")
    _curves(root / "runs.csv")
    (root / "schema.json").write_text('{"enum": ["cat", 12]}', encoding="utf-8")
    config = run_config()
    (root / "run.json").write_text(to_json(config), encoding="utf-8")

    def call(*words):
        return _called(zygote, root, *words)

    call("tokenizer", "train", "--input", "texts", "--vocab-size", "300", "--out",
         "tokenizer.model", "--character-coverage", "0.98")  # fmt: skip
    call("data", "build", "--input", "texts", "--tokenizer", "tokenizer.model", "--out", "dataset",
         "--validation-fraction", "0.2")  # fmt: skip
    call("train", "run.json")
    call("export", "run", "--to", "hf", "hf", "--no-check")
    call("fit", "runs.csv", "--out", "law.json", "--figure", "figure.png", "--bootstraps", "20")
    (root / "figure.png").unlink()
    call("plan", "--flops", "1e18", "--write", "planned.json")
    _job(root)
    return {
        entry.name: _files(entry, root) for entry in sorted(root.iterdir()) if entry.name != "home"
    }


def _called(zygote: Zygote, root: Path, *words: str) -> Outcome:
    done = zygote.run(list(words), root, {"HOME": str(root / "home")}, seconds=300)
    assert done.code == 0, (words, done.err.decode(errors="replace"))
    return done


def _files(entry: Path, root: Path) -> list[str]:
    """The files of an entry, one of each folder's files of chance names: their number and their
    order differ from one machine to the next, and the tries are the same everywhere."""
    found = [entry] if entry.is_file() else [p for p in entry.rglob("*") if p.is_file()]
    fixed = sorted(path for path in found if not _by_chance(path.name))
    by_chance = {path.parent: path for path in sorted(found) if _by_chance(path.name)}
    return [str(path.relative_to(root)) for path in (*fixed, *by_chance.values())]


def _by_chance(name: str) -> bool:
    return len(name) >= 32 or "tfevents" in name


def _texts(folder: Path) -> None:
    rng = random.Random(0)
    (folder / "sub").mkdir(parents=True)
    documents = [" ".join(rng.choices(WORDS, k=60)) + "\n" for _ in range(60)]
    for place, name in enumerate(("a.txt", "猫 の 本.txt", "sub/c.md")):
        (folder / name).write_text(documents[place], encoding="utf-8")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents[3:])
    (folder / "b.jsonl").write_text(lines, encoding="utf-8")
    packed = gzip.compress("".join(documents[:3]).encode() + b"end\n", mtime=0)
    (folder / "d.txt.gz").write_bytes(packed)


def _labelled(path: Path) -> None:
    rng = random.Random(0)
    rows = [{"text": " ".join(rng.choices(WORDS, k=4)), "label": "ab"[i % 2]} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _curves(path: Path) -> None:
    rng = random.Random(0)
    rows = ["params,tokens,loss"]
    for params in (1e6, 4e6, 1.6e7, 6.4e7):
        for tokens in (2e7, 1e8, 5e8):
            loss = 1.7 + 400 / params**0.34 + 410 / tokens**0.28
            rows.append(f"{params:g},{tokens:g},{loss * (1 + 0.001 * rng.random()):.5f}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def run_config() -> RunConfig:
    model = ModelConfig(
        vocab_size=300,
        num_layers=1,
        d_model=16,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        d_ff=32,
        max_seq_len=64,
    )
    return RunConfig(
        name="fuzzed",
        out="run",
        steps=STEPS,
        log_every=1,
        model=model,
        compute=ComputeConfig(dtype="float32", remat="none", loss_chunk=64),
        data=DataConfig(path="dataset", seq_len=16, batch_size=2),
        optim=OptimConfig(warmup_steps=1),
        checkpoint=CheckpointConfig(every=STEPS, keep_last=1),
        eval=EvalConfig(every=2, batches=1),
    )


def _job(root: Path) -> None:
    """An output folder of a job of two attempts, the second of which has finished."""
    spec = JobSpec(name="fuzzed", config="run.json", out="job", slices=2)
    folder = open_folder(str(root / "job"))
    (root / "job.json").write_text(job_json(spec, 0), encoding="utf-8")
    folder.write("launch/job.json", job_json(spec, 0).encode())
    for name in ("run.json", "metrics.jsonl"):
        shutil.copy(root / "run" / name, root / "job" / name)
    shutil.copy(root / "run.json", root / "job" / "launch" / "run.json")
    for attempt, kind in (("0000.0000", "memory"), ("0000.0001", "finished")):
        for process in (0, 1):
            here = f"launch/attempts/{attempt}/host.{process}"
            write_json(folder, f"{here}.json", {"address": "127.0.0.1", "phase": "train"})
            folder.append(log_name(attempt, process), f"step 1 of {attempt}\n".encode())
            write_json(folder, f"status.{process}.json", {"phase": "train", "step": 2, "time": 9})
            record = ExitRecord(
                process=process,
                hostname="here",
                kind=kind,  # type: ignore[arg-type]
                sentence="out of memory at step 1",
                code=1 if kind == "memory" else 0,
                step=2,
                phase="train",
                time=9.0,
            )
            record_exit(folder, attempt, record)
    close(folder, 2, 0, "0000.0000")
