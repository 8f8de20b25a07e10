"""Peak memory of `llm-jax import` and `llm-jax export` of a large random model in bfloat16.

  python benchmarks/convert_memory.py --size 8b --folder /tmp/convert
  python benchmarks/convert_memory.py --size 1b --folder /tmp/convert --gguf q8_0

Writes a Hugging Face folder of random weights, imports it as a run, deletes it, and exports the
run. Prints seconds, and the largest resident set of each program. It needs free disk for twice the
weights (8b: 33 GB), and deletes what it has written. Logits are not compared, which would need the
model in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from llm_jax.config import ModelConfig
from llm_jax.convert import hf_config, hf_tokenizer, shards
from llm_jax.convert.families import family_of
from llm_jax.convert.sample import SAMPLE
from llm_jax.convert.tensors import tensors
from llm_jax.data.tokenizers.training import train

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"num_layers": 2, "d_model": 64, "num_heads": 4, "num_kv_heads": 2, "d_ff": 128},
    "1b": {"num_layers": 16, "d_model": 2048, "num_heads": 32, "num_kv_heads": 8, "d_ff": 8192},
    "8b": {"num_layers": 32, "d_model": 4096, "num_heads": 32, "num_kv_heads": 8, "d_ff": 14336},
}
"""Of Llama 3.2 1B and Llama 3.1 8B, with unembeddings of their own."""
VOCAB = {"tiny": 1024, "1b": 128_256, "8b": 128_256}
BLOCK = 2**24
"""Random numbers that are used over and over: drawing eight billion would take minutes."""


def model_of_size(size: str) -> ModelConfig:
    fields = SIZES[size]
    return ModelConfig(
        **fields,
        vocab_size=VOCAB[size],
        head_dim=fields["d_model"] // fields["num_heads"],
        max_seq_len=8192,
        rope_theta=500_000.0,
    )


def write_model(model: ModelConfig, folder: Path) -> int:
    """A Hugging Face folder of random weights; returns their bytes."""
    folder.mkdir(parents=True)
    tokenizer = train([SAMPLE * 50], vocab_size=600, character_coverage=0.98)
    hf_tokenizer.write(folder, tokenizer, model.max_seq_len)
    made = hf_config.to_hf(model, tokenizer, "bfloat16")
    (folder / "config.json").write_text(json.dumps(made))
    dtype = np.dtype(ml_dtypes.bfloat16)
    rng = np.random.default_rng(0)
    block = (0.02 * rng.standard_normal(BLOCK, np.float32)).astype(dtype)
    shapes = {one.name: one.shape for one in tensors(model, family_of(model).model_type)}

    def read(name: str) -> np.ndarray:
        size = int(np.prod(shapes[name]))
        return np.resize(np.roll(block, int(rng.integers(BLOCK))), size).reshape(shapes[name])

    files = shards.write(folder, shapes, dtype, read)
    return sum((folder / file).stat().st_size for file in files)


def measured(*command: str) -> tuple[float, float]:
    """Seconds, and the largest resident set in GB, of an `llm-jax` command."""
    began = time.perf_counter()
    program = subprocess.Popen(
        [sys.executable, "-m", "llm_jax", *command],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        sys.exit(f"llm-jax {' '.join(command)} ended with {program.returncode}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return time.perf_counter() - began, kilobytes * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--folder", type=Path, required=True, help="new folder for all files")
    parser.add_argument("--gguf", choices=("float32", "float16", "bfloat16", "q8_0"))
    args = parser.parse_args()
    model = model_of_size(args.size)
    source, run, out = (args.folder / name for name in ("hf", "run", "out"))
    try:
        size = write_model(model, source)
        largest = max(np.prod(one.shape) * 2 for one in tensors(model, "llama"))
        print(
            f"{args.size}: {size / 1e9:.2f} GB of bfloat16, largest tensor {largest / 1e9:.2f} GB"
        )
        seconds, peak = measured("import", str(source), str(run), "--no-check")
        print(f"import: {seconds:.0f} s, {peak:.2f} GB resident", flush=True)
        shutil.rmtree(source)
        kind = ("gguf", "--dtype", args.gguf) if args.gguf else ("hf", "--dtype", "bfloat16")
        to, *dtype = kind
        seconds, peak = measured("export", str(run), "--to", to, str(out), *dtype, "--no-check")
        print(f"export: {seconds:.0f} s, {peak:.2f} GB resident")
    finally:
        shutil.rmtree(args.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
