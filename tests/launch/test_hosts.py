"""A run that goes on on other numbers of hosts reads the batches that it would have read."""

import dataclasses
import json
import sys

import pytest
from tiny import VOCAB, model_config, run_config

from llm_jax import config
from llm_jax.launch import job
from llm_jax.launch.backends import driver
from llm_jax.launch.spec import JobSpec
from llm_jax.launch.supervisor import supervise
from llm_jax.train.metrics import read_metrics

# `llm-jax train RUN`, which notes what each process is fed: (step, first row, checksum of rows).
TRAINER = """
import json, os, sys, zlib
from llm_jax.cli import main
from llm_jax.data.batches import Batches

run, mine = Batches.run, os.environ["FED"] + os.environ.get("JAX_PROCESS_ID", "0")

def noted(self, first, count):
    made = run(self, first, count)
    if self.seed is not None:
        with open(mine, "a") as file:
            for number, batch in enumerate(made, first):
                rows = batch["inputs"]
                sums = [zlib.crc32(row.tobytes()) for row in rows]
                file.write(json.dumps([number, int(self._rows[0]), sums]) + "\\n")
    return made

Batches.run = noted
main(["train", sys.argv[-1]])
"""


@pytest.mark.slow
def test_two_hosts_then_one_then_four(tiny_dataset, tmp_path):
    """Steps 1 to 3 on two hosts, 4 to 6 on one, 7 to 9 on four; beside them all 9 on one."""
    (tmp_path / "trainer.py").write_text(TRAINER)

    def go_on(name, hosts, steps):
        run = run_config(
            "unused",
            tiny_dataset,
            steps=steps,
            model=model_config(vocab_size=VOCAB, num_layers=1),
            eval=config.EvalConfig(every=100, batches=1),
        )
        run = dataclasses.replace(run, optim=dataclasses.replace(run.optim, warmup_steps=2))
        (tmp_path / "run.json").write_text(config.to_json(run))
        fed = tmp_path / f"{name}.{steps}."
        spec = JobSpec(
            name=name,
            config=str(tmp_path / "run.json"),
            out=str(tmp_path / name),
            accelerator="cpu-1",
            slices=hosts,
            trainer=[sys.executable, str(tmp_path / "trainer.py")],
            env={
                "FED": str(fed),
                "XLA_FLAGS": "--xla_backend_optimization_level=0",
                "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            },
        )
        _, first = job.prepare(spec, driver(spec))
        job.store(spec, run, first)
        assert supervise(spec.out, print).state == "finished"
        status = job.status(spec.out)
        assert (len(status["attempts"]), status["hosts"]) == (1, hosts)
        return fed

    made = {}
    for hosts, steps in ((2, 3), (1, 6), (4, 9)):
        fed = go_on("moving", hosts, steps)
        made |= {step: rows for step, rows in batches(fed, hosts).items() if step >= steps - 3}
    wanted = batches(go_on("staying", 1, 9), 1)
    assert {step: made[step] for step in range(9)} == {step: wanted[step] for step in range(9)}
    losses = [
        [
            r["loss"]
            for r in read_metrics(tmp_path / name / "metrics.jsonl")
            if r["split"] == "train"
        ]
        for name in ("moving", "staying")
    ]
    # From step 4 on the learning rate differs, which is a function of the number of steps.
    assert losses[0][:3] == pytest.approx(losses[1][:3], rel=2e-5)
    assert [len(found) for found in losses] == [9, 9]


def batches(fed, hosts):
    """step → checksums of all rows of its batch, in order, of what the hosts were fed."""
    found = {}
    for host in range(hosts):
        for line in (fed.parent / f"{fed.name}{host}").read_text().splitlines():
            step, row, sums = json.loads(line)
            found.setdefault(step, {}).update(enumerate(sums, row))
    return {step: [rows[n] for n in sorted(rows)] for step, rows in found.items()}
