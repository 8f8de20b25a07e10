"""Tokens per second of the engine, beside llama.cpp with the same weights.

    python benchmarks/decode_llama_cpp.py [--sizes 28 110] [--batches 1 8 32]

The models are those of decode.py: Llamas with random weights, here with a tokenizer of Python's
standard library, since a GGUF file has one. llama.cpp is xllamacpp's server in this process, with a
slot for each text and as many threads as there are cores; its caches are float16, its default.
Greedy, 256 new tokens after 16 of a prompt, both warm and in turn; the medians count. `alike` is
the share of tokens that both made.
"""

from __future__ import annotations

import argparse
import json
import os
import sysconfig
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from decode import PROMPT, SHAPES, VOCAB, Program, in_turn, model_folder, ours, print_line

TEXT_FILES = 400


def gguf_file(folder: Path, dtype: str) -> Path:
    """The model of a Hugging Face folder for llama.cpp."""
    from llm_jax.config import DataConfig, RunConfig
    from llm_jax.convert.gguf_export import export_gguf
    from llm_jax.convert.hf_model import read
    from llm_jax.data.tokenizers.training import train

    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(library.glob("*.py")) + sorted(library.glob("*/*.py"))
    texts = (file.read_text("utf-8", errors="ignore") for file in files[:TEXT_FILES])
    config, params = read(folder)
    run = RunConfig(
        name="decode", out=str(folder), steps=1, model=config,
        data=DataConfig(path="none", seq_len=16, batch_size=1),
    )  # fmt: skip
    out = folder / f"{dtype}.gguf"
    export_gguf(run, 0, params, train(texts, VOCAB), out, run=folder, dtype=dtype, check=False)
    return out


class LlamaCpp:
    """llama.cpp's server, on loopback."""

    def __init__(self, file: Path, slots: int, max_len: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.fit_params = slots * max_len, slots, False
        params.port, params.verbosity, params.cpuparams.n_threads = 0, 0, os.cpu_count() or 1
        self._server, self._slots = xllamacpp.Server(params), slots

    def __call__(self, prompts: np.ndarray, count: int) -> list[list[int]]:
        with ThreadPoolExecutor(self._slots) as pool:
            return list(pool.map(lambda row: self._made(row, count), prompts.tolist()))

    def _made(self, prompt: list[int], count: int) -> list[int]:
        words = {
            "prompt": prompt, "n_predict": count, "temperature": 0, "return_tokens": True,
            "cache_prompt": False, "ignore_eos": True,
        }  # fmt: skip
        request = urllib.request.Request(
            f"{self._server.listening_address}/completion", json.dumps(words).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=600) as answer:
            tokens: list[int] = json.loads(answer.read())["tokens"]
        return tokens


def measured(folder: Path, dtype: str, batch: int, count: int, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    both: dict[str, Program] = {
        "ours": ours(folder, dtype, batch, PROMPT + count),
        "llama.cpp": LlamaCpp(folder / f"{dtype}.gguf", batch, PROMPT + count),
    }
    middle, alike = in_turn(both, batch, count, rounds)
    return {
        "dtype": dtype, "batch": batch, "tokens_per_second": batch * count / middle["ours"],
        "llama.cpp": batch * count / middle["llama.cpp"],
        "ratio": middle["llama.cpp"] / middle["ours"], "alike": alike,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", choices=sorted(SHAPES), default=[28, 110])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for millions in args.sizes:
            folder = model_folder(millions, Path(name))
            for dtype in args.dtypes:
                gguf_file(folder, dtype)
                for batch in args.batches:
                    line = measured(folder, dtype, batch, args.tokens, args.rounds)
                    print_line({"millions": millions} | line)


if __name__ == "__main__":
    main()
