"""Training speed compared with `transformers` + torch on the same work, interleaved in one run.

    python benchmarks/train_step.py                 # size S, float32
    python benchmarks/train_step.py --size M --rounds 7
    python benchmarks/train_step.py --dtype bfloat16

Work: a Llama decoder with an untied vocabulary of 32,000 and sequences of 512; forward, backward,
clipping by global norm, AdamW. S is 6 layers x 384, 6 heads, ffn 1024, batch 8. M is 12 layers x
768, 12 heads, ffn 2048, batch 4. Ours has the programs of every run, compiled as there
(`llm_jax.train.programs`).

Each contender runs in its own process. In each round the contenders take turns, and each makes two
steps. Only the second is timed: the kernel reclaims idle memory in the pauses between turns, and
training has no such pauses. Printed: median tokens/s, the median of the per-round ratios to each
reference, the fraction of this machine's measured matmul peak, peak memory, and seconds from the
start of the process to the beginning and to the end of the first step, in wall time and in
processor time (which other programs on the machine change less), ours also with what an earlier
start compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Literal

from llm_jax.commands.compile_cache import LEAST_SECONDS
from llm_jax.commands.train import environment

SIZES = {
    "S": {"layers": 6, "width": 384, "heads": 6, "ffn": 1024, "batch": 8},
    "M": {"layers": 12, "width": 768, "heads": 12, "ffn": 2048, "batch": 4},
}
VOCAB, LENGTH = 32_000, 512
Dtype = Literal["float32", "bfloat16"]
# With these, glibc keeps freed memory. Otherwise it returns it to the system and faults it in again
# at the next step.
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "34359738368",
    "MALLOC_TRIM_THRESHOLD_": "34359738368",
    "MALLOC_TOP_PAD_": "268435456",
}


def our_step(size: dict, dtype: Dtype) -> Callable[[], float]:
    import jax
    import numpy as np

    from llm_jax import config as c
    from llm_jax.parallel.mesh import make_mesh
    from llm_jax.train.cpu_dispatch import dispatch_for
    from llm_jax.train.feed import to_device
    from llm_jax.train.programs import compile_programs

    head_dim = size["width"] // size["heads"]
    config = c.RunConfig(
        name="benchmark",
        out="none",
        steps=1000,
        model=c.ModelConfig(
            vocab_size=VOCAB, num_layers=size["layers"], d_model=size["width"],
            num_heads=size["heads"], num_kv_heads=size["heads"], head_dim=head_dim,
            d_ff=size["ffn"], max_seq_len=LENGTH,
        ),
        compute=c.ComputeConfig(dtype=dtype, remat="none", scan_layers=False),
        data=c.DataConfig(seq_len=LENGTH, batch_size=size["batch"]),
    )  # fmt: skip
    dispatch_for(config)
    mesh = make_mesh(config.parallel)
    programs = compile_programs([config], mesh, np.ones(VOCAB, np.int32), random_start=True)
    assert programs.first_state is not None
    state, step = programs.first_state(), programs.steps[size["batch"]]
    tokens = np.random.default_rng(0).integers(0, VOCAB, (size["batch"], LENGTH + 1), np.int32)
    ones = np.ones((size["batch"], LENGTH), np.int32)
    batch = to_device(
        {
            "inputs": tokens[:, :-1],
            "targets": tokens[:, 1:],
            "segments": ones,
            "positions": ones * np.arange(LENGTH, dtype=np.int32),
        },
        mesh,
    )

    def run() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        return float(jax.block_until_ready(metrics)["loss"])

    return run


def hf_step(size: dict, dtype: Dtype) -> Callable[[], float]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB, hidden_size=size["width"], num_hidden_layers=size["layers"],
            num_attention_heads=size["heads"], num_key_value_heads=size["heads"],
            intermediate_size=size["ffn"], max_position_embeddings=LENGTH, use_cache=False,
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    # The model shifts `labels` by one, so each sequence has one target less than ours.
    ids = torch.randint(0, VOCAB, (size["batch"], LENGTH))

    def run() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def worker(who: str, size: dict, dtype: Dtype) -> None:
    """Prints the processor time before and after the first step. For each line on stdin, makes
    two steps and prints the second's time and the peak memory."""
    run = (our_step if who == "ours" else hf_step)(size, dtype)
    print(json.dumps(processor_seconds()), flush=True)
    run()
    print(json.dumps(processor_seconds()), flush=True)
    for _ in sys.stdin:
        run()
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak_bytes": peak}), flush=True)


def processor_seconds() -> float:
    """Seconds that all threads of this process have run."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Contender:
    """A process that makes steps on demand.

    Attributes:
      start: (seconds, seconds of the processors) from the start of the process to the first step.
      first: the same to the end of the first step.
    """

    def __init__(self, name: str, args: argparse.Namespace, env: dict[str, str]) -> None:
        self.name, self.peak = name, 0
        self.seconds: list[float] = []
        command = [sys.executable, __file__, "--worker", name.split()[0], "--size", args.size]
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, "--dtype", args.dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | env,
        )
        processors = self._answer()
        self.start = time.perf_counter() - began, processors
        processors = self._answer()
        self.first = time.perf_counter() - began, processors

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early; see its message above")
        return json.loads(line)

    def step(self) -> None:
        print("step", file=self.process.stdin, flush=True)
        answer = self._answer()
        self.seconds.append(answer["seconds"])
        self.peak = answer["peak_bytes"]


def kept_in(cache: str) -> dict[str, str]:
    """The environment in which a program finds there what an earlier one compiled."""
    return {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(LEAST_SECONDS),
    }


def flops_per_token(size: dict) -> float:
    """6 x the weights in matmuls + 12·L·T·D, used for both contenders."""
    L, D, F = size["layers"], size["width"], size["ffn"]
    weights = L * (4 * D * D + 3 * D * F) + VOCAB * D
    return 6 * weights + 12 * L * LENGTH * D


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="S")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", choices=("ours", "hf"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = SIZES[args.size]
    if args.worker:
        return worker(args.worker, size, args.dtype)

    with tempfile.TemporaryDirectory() as cache:
        ours = Contender("ours", args, environment() | kept_in(cache))
        warm = Contender("ours warm", args, environment() | kept_in(cache))
        warm.process.kill()
    references = [Contender("hf", args, {}), Contender("hf allocator-tuned", args, TUNED)]
    contenders = [ours, *references]
    peaks = []
    for _ in range(args.rounds):
        for contender in contenders:
            contender.step()
        peaks.append(matmul_peak(args.dtype))
    tokens, peak = size["batch"] * LENGTH, statistics.median(peaks)
    title = f"size {args.size}, {args.dtype}, {args.rounds} rounds"
    print(f"{title}, matmul peak {peak / 1e9:.0f} GFLOP/s")
    for contender in [ours, warm, *references]:
        print(f"{contender.name:20s} first step: {since(contender)}")
    for contender in contenders:
        rate = tokens / statistics.median(contender.seconds)
        fraction = rate * flops_per_token(size) / peak
        ratios = [a / b for a, b in zip(contender.seconds, ours.seconds, strict=True)]
        compared = f"  ours is {statistics.median(ratios):.2f} x as fast"
        print(
            f"{contender.name:20s} {rate:7.0f} tokens/s  {fraction:4.0%} of peak  "
            f"{contender.peak / 1e9:.2f} GB" + ("" if contender is ours else compared)
        )


def since(contender: Contender) -> str:
    """When the first step began and ended."""
    (begins, before), (ends, after) = contender.start, contender.first
    return (
        f"begins after {begins:4.1f} s, ends after {ends:4.1f} s "
        f"(processors {before:4.1f} and {after:4.1f} s)"
    )


def matmul_peak(dtype: str) -> float:
    """FLOP/s, measured in a separate process, so that no contender's threads disturb it."""
    code = f"from llm_jax.train.peak import measured_matmul_peak as m; print(m({dtype!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
