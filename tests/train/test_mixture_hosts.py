"""A mixture of three sources in two stages on one host, three, and two, killed at random steps."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax.config import (
    Amount,
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    MixtureConfig,
    MixtureSource,
    MixtureStage,
    to_json,
)
from llm_jax.runs.lineage import saved_lineage
from llm_jax.train.metrics import read_metrics

STEPS, B, DEVICES = 30, 12, 6

# `llm-jax train RUN`, which notes what each process is fed: (step, first row, checksum of rows).
TRAINER = """
import json, os, sys, zlib
from llm_jax.cli import main
from llm_jax.train import feed

class Noted(feed.MixedBatches):
    def run(self, first, count):
        made = super().run(first, count)
        with open(os.environ["FED"] + os.environ.get("JAX_PROCESS_ID", "0"), "a") as file:
            for number, batch in enumerate(made, first):
                sums = [zlib.crc32(b"".join(a[i].tobytes() for a in batch.values()))
                        for i in range(len(batch["inputs"]))]
                file.write(json.dumps([number, self._host * len(sums), sums]) + "\\n")
        return made

    def __init__(self, *arguments, host=0, **named):
        self._host = host
        super().__init__(*arguments, host=host, **named)

feed.MixedBatches = Noted
main(["train", sys.argv[-1]])
"""


def start(
    folder: Path, config: Path, hosts: int, environment: dict[str, str], fed: Path
) -> list[subprocess.Popen]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    made = []
    for host in range(hosts):
        env = environment | {"FED": str(fed), "JAX_NUM_CPU_DEVICES": str(DEVICES // hosts)}
        if hosts > 1:
            env |= {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(hosts),
                "JAX_PROCESS_ID": str(host),
            }
        command = [sys.executable, str(folder / "trainer.py"), str(config)]
        with (folder / f"{fed.name}{host}.log").open("ab") as log:
            made.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
    return made


def fed_to(fed: Path, hosts: int) -> dict[int, list[int]]:
    """step → checksums of all rows of its batch, in their order."""
    found: dict[int, dict[int, int]] = {}
    for host in range(hosts):
        for line in Path(f"{fed}{host}").read_text().splitlines():
            step, row, sums = json.loads(line)
            found.setdefault(step, {}).update(enumerate(sums, row))
    return {step: [rows[n] for n in sorted(rows)] for step, rows in found.items()}


def losses(out: Path, split: str) -> dict[int, float]:
    records = read_metrics(out / "metrics.jsonl")
    return {r["step"]: r["loss"] for r in records if r["split"] == split}


def reached(out: Path) -> int:
    return max(losses(out, "train"), default=0) if (out / "metrics.jsonl").is_file() else 0


@pytest.mark.slow
def test_one_host_then_three_then_two(
    tmp_path: Path, three_sources: dict[str, Path], environment: dict[str, str]
) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    shares = ({"web": 5, "code": 3, "books": 2}, {"web": 1, "code": 1, "books": 8})
    mixture = MixtureConfig(
        sources=tuple(MixtureSource(name=n, path=str(p)) for n, p in three_sources.items()),
        stages=tuple(
            MixtureStage(start=at, read=tuple(Amount(source=n, weight=w) for n, w in read.items()))
            for at, read in zip((0.0, 0.5), shares, strict=True)
        ),
    )

    def config_of(name: str) -> Path:
        config = run_config(
            tmp_path / name,
            steps=STEPS,
            model=model_config(vocab_size=VOCAB, num_layers=1),
            data=DataConfig(path="", mixture=mixture, seq_len=16, batch_size=B),
            checkpoint=CheckpointConfig(every=3),
            eval=EvalConfig(every=STEPS, batches=1),
        )
        (tmp_path / f"{name}.json").write_text(to_json(config))
        return tmp_path / f"{name}.json"

    def finish(processes: list[subprocess.Popen]) -> None:
        assert [one.wait(timeout=300) for one in processes] == [0] * len(processes)

    environment = environment | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    finish(start(tmp_path, config_of("staying"), 1, environment, tmp_path / "staying."))
    wanted = fed_to(tmp_path / "staying.", 1)
    chance = random.SystemRandom()
    made: dict[int, list[int]] = {}
    kills = {1: chance.randrange(5, 12), 3: chance.randrange(14, 22)}
    print("killed at steps", kills)
    config, out = config_of("moving"), tmp_path / "moving"
    for hosts in (1, 3, 2):
        fed = tmp_path / f"moving.{hosts}."
        processes = start(tmp_path, config, hosts, environment, fed)
        if hosts in kills:
            while reached(out) < kills[hosts]:
                assert all(one.poll() is None for one in processes), tmp_path
                time.sleep(0.002)
            for one in processes:
                one.send_signal(signal.SIGKILL)
                one.wait()
        else:
            finish(processes)
        made |= fed_to(fed, hosts)
    for step in range(STEPS):
        assert made[step] == wanted[step], step
    for split in ("train", "validation"):
        found = losses(out, split)
        assert found == pytest.approx(losses(tmp_path / "staying", split), rel=2e-5)
        print(split, "bitwise:", found == losses(tmp_path / "staying", split))
    ends = [saved_lineage(folder, None) for folder in (out, tmp_path / "staying")]
    assert ends[0] == ends[1]
