"""Speed of scoring tasks, compared with lm-eval's own `hf` model on the same weights in one run.

    python benchmarks/lm_eval_speed.py                       # 28 M parameters
    python benchmarks/lm_eval_speed.py --small --limit 20    # to see that it works

Work: the bundled tasks of `--tasks`, float32, random weights, a tokenizer trained on the standard
library. Both see the same requests, twice: the first time
with what compiling and the first call cost, the second time without. `hf` runs in batches of
`--batch`, sorted by length, as lm-eval does it.

Printed: requests, seconds of each in both rounds, their ratio, the largest difference of two
log-likelihoods, and how many shapes were compiled.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TASKS = ("copying_en", "counters_ja", "stdlib_en", "needle_en", "truth_en")
SIZES: dict[bool, dict[str, Any]] = {
    True: {"num_layers": 2, "d_model": 64, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16,
           "d_ff": 128},
    False: {"num_layers": 8, "d_model": 384, "num_heads": 6, "num_kv_heads": 6, "head_dim": 64,
            "d_ff": 1024},
}  # fmt: skip
VOCAB = {True: 512, False: 16_384}


def make_run(folder: Path, small: bool) -> Path:
    """A run of random weights, with a tokenizer trained on the standard library."""
    import sysconfig

    import jax

    from llm_jax.config import ComputeConfig, DataConfig, ModelConfig, RunConfig
    from llm_jax.convert.hf_import import write_run
    from llm_jax.data.build import BuildSpec, VocabSpec, build
    from llm_jax.data.dataset import TokenDataset
    from llm_jax.data.sources import FileSource
    from llm_jax.models.protocol import model_of

    text = Path(sysconfig.get_path("stdlib"))
    sources = [FileSource(text / name, licence="PSF-2.0") for name in ("json", "email", "asyncio")]
    spec = BuildSpec(sources=tuple(sources), tokenizer=VocabSpec(vocab_size=VOCAB[small]))
    dataset = folder / "data"
    build(spec, dataset, lambda *_: None)
    tokenizer = TokenDataset.open(dataset).tokenizer
    model = ModelConfig(vocab_size=tokenizer.vocab_size, max_seq_len=1024, **SIZES[small])
    run = folder / "run"
    run.mkdir()
    config = RunConfig(
        name="speed", out=str(run), steps=1, model=model,
        data=DataConfig(path=str(dataset), seq_len=512, batch_size=8),
        compute=ComputeConfig(dtype="float32"),
    )  # fmt: skip
    params = jax.jit(lambda key: model_of(model).init(model, key))(jax.random.key(0))
    write_run(run, config, jax.device_get(params), tokenizer)
    return run


def requests_of(names: list[str], limit: int | None) -> list[Any]:
    """What lm-eval asks of these tasks."""
    from llm_jax.evals.tasks.catalog import Settings, load_tasks

    made: list[Any] = []
    for task in load_tasks(names, Settings()).tasks.values():
        task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=0)
        task.build_all_requests(limit=limit, rank=0, world_size=1)
        made += task.instances
    return made


def timed(ask: Any, requests: list[Any]) -> tuple[list[float], float]:
    began = time.perf_counter()
    answers = ask(requests)
    return [log_prob for log_prob, _ in answers], time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--limit", type=int, help="examples of each task (default: all)")
    parser.add_argument("--batch", type=int, default=16, help="rows of a batch of `hf`")
    parser.add_argument("--small", action="store_true", help="a tiny model")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), args.small)
        requests = requests_of(args.tasks, args.limit)
        from llm_jax.evals.tasks.model import HarnessModel
        from llm_jax.language_model import load_model

        exported = Path(folder) / "hf"
        words = [
            "export",
            str(run),
            "--to",
            "hf",
            str(exported),
            "--no-check",
            "--dtype",
            "float32",
        ]
        subprocess.run([sys.executable, "-m", "llm_jax", *words], check=True, stdout=sys.stderr)
        ours = HarnessModel(load_model(run))
        from lm_eval.models.huggingface import HFLM

        theirs = HFLM(
            pretrained=str(exported), device="cpu", dtype="float32", batch_size=args.batch
        )
        times: dict[str, list[float]] = {"ours": [], "hf": []}
        found: dict[str, list[float]] = {}
        for _ in range(2):
            for name, ask in (("ours", ours.loglikelihood), ("hf", theirs.loglikelihood)):
                found[name], seconds = timed(ask, requests)
                times[name].append(round(seconds, 2))
        worst = max(abs(a - b) for a, b in zip(found["ours"], found["hf"], strict=True))
        ratios = [round(b / a, 2) for a, b in zip(times["ours"], times["hf"], strict=True)]
        print(
            json.dumps(
                {
                    "requests": len(requests),
                    "seconds": times,
                    "times_faster": {"first": ratios[0], "again": ratios[1]},
                    "largest_difference": worst,
                    "shapes": ours.scorer.shapes,
                }
            )
        )


if __name__ == "__main__":
    main()
