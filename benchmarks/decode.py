"""Tokens per second of the engine, beside transformers' `generate` with the same weights.

    python benchmarks/decode.py [--quick] [--sizes 28 110] [--batches 1 8 32]

Greedy, 256 new tokens after 16 of a prompt, as many threads as there are cores. Both are warm. They
run in turn, so that both meet the same load of the machine; the medians count. `share` is the share
of the memory bandwidth that weights and cache take if each step reads all weights once, in the
run's dtype, and each text's keys and values; the bandwidth is that of a sum over a large array.
`alike` is the share of tokens that both made, which rounding ends early in bfloat16. `products` is
how much faster the bare products with the weights are, in XLA against torch: with more texts than a
few, both programs are bound by them.
`--first-token` times new processes instead: import, weights from disk, one token; `warm` is with
what the one before has compiled. `peak` is the largest resident set of the warm one in MB, and
`weights` the parameters in float32, as they are read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {
    28: {"layers": 8, "width": 384, "heads": 6, "mlp": 1024},
    110: {"layers": 12, "width": 768, "heads": 12, "mlp": 2048},
}
"""Millions of parameters → a Llama with an output matrix of its own."""
VOCAB, PROMPT = 16_384, 16
PLAIN = 300
"""An id above those of control tokens and bytes."""
Program = Callable[[np.ndarray, int], list[list[int]]]
"""program(prompts, count) -> the new tokens of each prompt."""
CONTEXT = 512


def model_folder(millions: int, root: Path) -> Path:
    """A Llama of transformers with random weights, whose texts do not repeat one token."""
    import torch
    import transformers

    shape = SHAPES[millions]
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=shape["width"], intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
        num_key_value_heads=shape["heads"], max_position_embeddings=CONTEXT,
        bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(root / str(millions))
    return root / str(millions)


def theirs(folder: Path, dtype: str) -> Program:
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.eval()
    model.generation_config.eos_token_id = None

    def run(prompts: np.ndarray, count: int) -> list[list[int]]:
        ids = torch.from_numpy(prompts.astype(np.int64))
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        rows: list[list[int]] = out[:, prompts.shape[1] :].tolist()
        return rows

    return run


def ours(folder: Path, dtype: str, slots: int, max_len: int) -> Program:
    from llm_jax.config import ComputeConfig
    from llm_jax.convert.hf_model import read
    from llm_jax.infer.engine.engine import Engine
    from llm_jax.infer.engine.request import Request
    from llm_jax.infer.engine.settings import EngineSettings

    config, params = read(folder)
    settings = EngineSettings(slots=slots, max_len=max_len)
    compute = ComputeConfig(dtype="float32" if dtype == "float32" else "bfloat16")
    engine = Engine.of_parameters(config, params, compute, VOCAB, settings, frees=True)

    def run(prompts: np.ndarray, count: int) -> list[list[int]]:
        asked = [Request(prompt=tuple(row), max_tokens=count) for row in prompts.tolist()]
        return [ticket.ids for ticket in engine.run(asked)]

    return run


def bandwidth() -> float:
    """Bytes per second of reading, by all cores."""
    import torch

    array = torch.ones(1 << 27)
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        array.sum()
        seconds.append(time.perf_counter() - began)
    return 4 * len(array) / min(seconds)


def weight_bytes(millions: int, size: int) -> int:
    """Of what a step reads: all matrices but the embedding."""
    shape = SHAPES[millions]
    D, F = shape["width"], shape["mlp"]
    return size * (shape["layers"] * (4 * D * D + 3 * D * F) + D * VOCAB)


def middle_seconds(call: Callable[[], object], rounds: int = 21) -> float:
    """The median of some calls, after two more."""
    seconds = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[2:]))


def products(millions: int, dtype: str, batch: int) -> float:
    """Seconds of torch over XLA's for the products of one step: each layer's, and the logits."""
    import jax
    import torch

    from llm_jax.models.common.layers import plain_product

    shape = SHAPES[millions]
    D, F = shape["width"], shape["mlp"]
    shapes = [(D, D)] * 4 + [(D, F)] * 2 + [(F, D)]
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=one).astype(np.float32) for one in shapes * shape["layers"]]
    weights.append(rng.normal(size=(D, VOCAB)).astype(np.float32))
    x = {n: rng.normal(size=(batch, n)).astype(np.float32) for n in (D, F)}
    x_torch = {n: torch.tensor(one, dtype=getattr(torch, dtype)) for n, one in x.items()}
    w_torch = [torch.tensor(w.T.copy(), dtype=getattr(torch, dtype)) for w in weights]
    x_jax = {n: jax.numpy.asarray(one, dtype) for n, one in x.items()}
    w_jax = [jax.numpy.asarray(w, dtype) for w in weights]
    step = jax.jit(lambda x, ws: [plain_product(x[w.shape[0]], w) for w in ws])

    def by_torch() -> list[Any]:
        return [torch.nn.functional.linear(x_torch[w.shape[1]], w) for w in w_torch]

    def by_xla() -> object:
        return jax.block_until_ready(step(x_jax, w_jax))

    return middle_seconds(by_torch) / middle_seconds(by_xla)


def in_turn(
    both: dict[str, Program], batch: int, count: int, rounds: int
) -> tuple[dict[str, float], float]:
    """The median seconds of each program, and the share of tokens that they have in common."""
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in both}
    alike = 0.0
    for number in range(rounds + 1):
        prompts = rng.integers(PLAIN, VOCAB, (batch, PROMPT)).astype(np.int32)
        texts = []
        for name, run in both.items():
            began = time.perf_counter()
            texts.append(np.array(run(prompts, count)))
            if number:  # the first compiles
                seconds[name].append(time.perf_counter() - began)
        alike = float(np.mean(texts[0] == texts[1]))
    return {name: float(np.median(times)) for name, times in seconds.items()}, alike


def print_line(line: dict[str, Any]) -> None:
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}
    print(json.dumps(rounded), flush=True)


def measured(
    millions: int, folder: Path, dtype: str, batch: int, count: int, rounds: int, rate: float
) -> dict[str, Any]:
    """One line of the table."""
    both = {"ours": ours(folder, dtype, batch, PROMPT + count), "theirs": theirs(folder, dtype)}
    middle, alike = in_turn(both, batch, count, rounds)
    size = 4 if dtype == "float32" else 2
    cached = SHAPES[millions]["layers"] * 2 * SHAPES[millions]["width"] * size
    step = weight_bytes(millions, size) + batch * cached * (PROMPT + count / 2)
    return {
        "millions": millions, "dtype": dtype, "batch": batch,
        "tokens_per_second": batch * count / middle["ours"],
        "transformers": batch * count / middle["theirs"],
        "ratio": middle["theirs"] / middle["ours"],
        "share": step * count / middle["ours"] / rate,
        "alike": alike,
        "products": products(millions, dtype, batch),
    }  # fmt: skip


FIRST = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from decode import ours
import numpy as np
ours(Path({folder!r}), {dtype!r}, 1, 272)(np.arange(3, 19, dtype=np.int32)[None], 1)
"""


def first_tokens(folder: Path, dtype: str, cache: Path) -> Iterator[tuple[float, float]]:
    """Seconds of two processes after each other, from their start to the end with one token, and
    their largest resident set in MB."""
    program = FIRST.format(here=str(Path(__file__).parent), folder=str(folder), dtype=dtype)
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    for _ in range(2):
        began = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-c", program], env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"a process ended with {child.returncode}")
        kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        yield time.perf_counter() - began, kilobytes * 1024 / 1e6


def first_token_line(millions: int, folder: Path, dtype: str, cache: Path) -> dict[str, Any]:
    (cold, _), (warm, peak) = first_tokens(folder, dtype, cache)
    weights = weight_bytes(millions, 4) + 4 * SHAPES[millions]["width"] * VOCAB
    return {
        "millions": millions, "dtype": dtype, "cold": cold, "warm": warm, "peak": peak,
        "weights": weights / 1e6,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", choices=sorted(SHAPES), default=[28, 110])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="28 M, float32, 32 tokens")
    parser.add_argument("--first-token", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.dtypes, args.batches, args.tokens, args.rounds = (
            [28],
            ["float32"],
            [1, 8],
            32,
            1,
        )
    rate = bandwidth()
    print(f"memory: {rate / 1e9:.1f} GB/s", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for millions in args.sizes:
            folder = model_folder(millions, Path(name))
            for dtype in args.dtypes:
                if args.first_token:
                    cache = Path(name) / "compiled"
                    print_line(first_token_line(millions, folder, dtype, cache))
                    continue
                for batch in args.batches:
                    line = measured(millions, folder, dtype, batch, args.tokens, args.rounds, rate)
                    print_line(line)


if __name__ == "__main__":
    main()
