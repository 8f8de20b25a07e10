"""Step times that the planner predicts for this machine, compared with measured ones.

    python benchmarks/plan_step_time.py [--rounds 8]

The train step is that of `llm-jax train`; each size runs in its own process. Before each step the
matmul peak is measured in the same way as for `--chip local`. The prediction uses the median of
these peaks, because the speed of a shared machine changes from minute to minute. So the test is
about the share of the peak.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.cli import restart_with
from llm_jax.commands.train import environment
from llm_jax.config import (
    ComputeConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    decoder_of,
)
from llm_jax.facts.counts import token_flops, total_parameters
from llm_jax.parallel.mesh import make_mesh
from llm_jax.plan.memory import Layout
from llm_jax.plan.roofline import step_time
from llm_jax.plan.this_machine import SIZE, local_chip
from llm_jax.train.cpu_dispatch import dispatch_for
from llm_jax.train.feed import to_device
from llm_jax.train.state import init_state
from llm_jax.train.step import compile_train_step

# name: layers, width, head size, ffn width, vocabulary, sequence, batch
SIZES = {
    "0.5M": (3, 64, 32, 256, 4096, 512, 2),
    "1M": (3, 128, 32, 256, 4096, 512, 4),
    "5M": (4, 256, 64, 704, 4096, 256, 8),
    "17M": (6, 384, 64, 1024, 8192, 512, 4),
    "34M": (8, 512, 64, 1408, 8192, 512, 4),
}


def config_of(name: str) -> RunConfig:
    layers, width, head, ffn, vocabulary, length, batch = SIZES[name]
    model = ModelConfig(
        vocab_size=vocabulary,
        num_layers=layers,
        d_model=width,
        num_heads=width // head,
        num_kv_heads=width // head,
        head_dim=head,
        d_ff=ffn,
        max_seq_len=length,
    )
    return RunConfig(
        name=name,
        out="unused",
        steps=100,
        model=model,
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(seq_len=length, batch_size=batch),
        optim=OptimConfig(warmup_steps=1),
    )


def matmul_peak() -> Callable[[], float]:
    """FLOP/s of the best of five large matmuls, measured at each call."""
    x = jnp.ones((SIZE, SIZE), jnp.float32)
    multiply = jax.jit(lambda a, b: a @ b)
    multiply(x, x).block_until_ready()

    def measure() -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            multiply(x, x).block_until_ready()
            times.append(time.perf_counter() - start)
        return 2 * SIZE**3 / min(times)

    return measure


def measured(config: RunConfig, rounds: int) -> tuple[float, float]:
    """Median seconds per step, and median matmul peak in FLOP/s."""
    dispatch_for(config)
    mesh = make_mesh(config.parallel)
    peak = matmul_peak()
    rng = np.random.default_rng(0)
    shape = config.data.batch_size, config.data.seq_len
    tokens = rng.integers(0, config.model.vocab_size, shape, dtype=np.int32)
    host = {
        "inputs": tokens,
        "targets": tokens,
        "segments": np.zeros(shape, np.int32),
        "positions": np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1)),
    }
    step = compile_train_step(config, mesh, np.ones(config.model.vocab_size, np.int32))
    state = init_state(config, mesh)
    batch = to_device(host, mesh)
    times, peaks = [], []
    for _ in range(rounds + 2):
        peaks.append(peak())
        start = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:]), statistics.median(peaks[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    os.environ["JAX_PLATFORMS"] = "cpu"  # the chip `local` is the CPU
    restart_with(environment())  # as `llm-jax train` does
    chip = local_chip()
    layout = Layout(data=1, fsdp=1, tensor=1, accumulate=1, remat="none", dtype="float32")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as processes:
        for name in SIZES:
            config = config_of(name)
            seconds, peak = processes.submit(measured, config, rounds).result()
            model = decoder_of(config.model, "The benchmark")
            flops = token_flops(model, config.data.seq_len)
            now = dataclasses.replace(chip, f32_flops=peak)
            predicted = step_time(model, flops, now, chip.slices[0], 1, layout, config.batch_tokens)
            work = flops.executed("none") * config.batch_tokens
            line = {
                "size": name,
                "params": total_parameters(model),
                "predicted_seconds": round(predicted.expected, 4),
                "measured_seconds": round(seconds, 4),
                "error": round(predicted.expected / seconds - 1, 3),
                "peak_gflops": round(peak / 1e9, 1),
                "share_of_peak": round(work / seconds / peak, 3),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
