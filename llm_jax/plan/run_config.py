"""The config of a run that a plan or a ladder has chosen."""

from __future__ import annotations

from dataclasses import replace

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    RunConfig,
)
from llm_jax.laws.hyperparameters import HyperParameters
from llm_jax.plan.layout import Execution
from llm_jax.plan.plan import Plan
from llm_jax.plan.restarts import LONGEST

EVAL_TOKENS = 131_072
"""Least number of validation tokens of an evaluation; it keeps the error below 0.01 nats."""


def run_config(plan: Plan, *, name: str, data: str, out: str | None = None) -> RunConfig:
    """The config of the plan's run, ready for `train` and `preflight`.

    Args:
      data: folder of the dataset.
      out: folder of the run; None: `runs/<name>`.
    """
    given, hyper = plan.request.given, plan.hyper
    if given and given.run:  # its own optimizer is kept
        hyper = replace(hyper, optimizer="adamw")
    planned = training(
        plan.model,
        plan.execution,
        hyper,
        steps=plan.steps,
        seq_len=plan.seq_len,
        name=name,
        data=data,
        out=out or f"runs/{name}",
        save_seconds=plan.checkpoint_seconds,
    )
    compute = replace(planned.compute, quantize=plan.request.quantize)
    planned = replace(planned, compute=compute)
    return given.keep(planned) if given else planned


def training(
    model: ModelConfig,
    run: Execution,
    hyper: HyperParameters,
    *,
    steps: int,
    seq_len: int,
    name: str,
    data: str,
    out: str,
    save_seconds: float = LONGEST,
) -> RunConfig:
    """The config of a run.

    Args:
      run: the machine, mesh, batch and memory policy.
      save_seconds: between checkpoints; evaluations come every half hour.
    """
    quarter = -(-steps // 4)
    every = max(1, min(quarter, round(LONGEST / run.time.expected)))
    save = max(1, min(quarter, round(save_seconds / run.time.expected)))
    batch_tokens = run.batch_sequences * seq_len
    return RunConfig(
        name=name,
        out=out,
        steps=steps,
        log_every=max(1, min(10, steps // 20)),
        model=model,
        compute=ComputeConfig(
            dtype="float32" if run.layout.dtype == "float32" else "bfloat16",
            remat=run.layout.remat,
            accumulate=run.layout.accumulate,
            # On a CPU, written-out layers are faster, and they are few enough to compile.
            scan_layers=run.machine.chip.kind != "cpu",
        ),
        data=DataConfig(path=data, seq_len=seq_len, batch_size=run.batch_sequences),
        optim=OptimConfig(
            kind=hyper.optimizer,
            learning_rate=float(f"{hyper.learning_rate:.4g}"),
            warmup_steps=min(2000, max(1, round(hyper.warmup * steps))),
            final_fraction=hyper.final,
            b2=hyper.b2,
            weight_decay=hyper.weight_decay,
            param_dtype=run.layout.params,
            moment_dtype=run.layout.moments,
            second_moment_dtype=run.layout.moments,
            grad_dtype=run.layout.gradients,
        ),
        parallel=_parallel(run),
        checkpoint=CheckpointConfig(every=save),
        eval=EvalConfig(every=every, batches=max(8, -(-EVAL_TOKENS // batch_tokens))),
    )


def _parallel(run: Execution) -> ParallelConfig:
    """The mesh of a layout. Its data axis spans the TPU slices; they become the replicas."""
    layout, machine = run.layout, run.machine
    mesh, replica = layout.mesh, machine.slices if machine.chip.torus else 1
    return ParallelConfig(
        replica=replica,
        **mesh | {"data": mesh["data"] // replica},
        # TPUs have a kernel for gathered keys, and none for a ring (`attention/choose.py`).
        context_kind="gather" if layout.context > 1 else "ring",
        pieces=layout.pieces if layout.pipeline > 1 else None,
        rounds=layout.rounds,
    )
