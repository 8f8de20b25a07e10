"""Training runs whose speed was published: published_runs.csv as models, machines and seconds.

    python benchmarks/published_runs.py

The CSV says for each run where it was published. What the source does not say is filled in here,
and `Published.assumed` names it.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm_jax.config import ModelConfig, MoeConfig
from llm_jax.facts.calibration import Calibration
from llm_jax.facts.counts import TokenFlops, token_flops
from llm_jax.facts.hardware import Slice, chip
from llm_jax.plan.layout import Machine
from llm_jax.plan.memory import Layout
from llm_jax.plan.roofline import StepTime, step_time

FILE = Path(__file__).with_name("published_runs.csv")


def _model(L: int, D: int, N: int, K: int, H: int, F: int, V: int, **options: Any) -> ModelConfig:
    return ModelConfig(
        num_layers=L, d_model=D, num_heads=N, num_kv_heads=K, head_dim=H, d_ff=F, vocab_size=V,
        max_seq_len=131_072, **options,
    )  # fmt: skip


def _scaled(params: int) -> ModelConfig:
    """MaxText's `global_parameter_scale`: its base of 1B, whose heads and MLP, then width, then
    layers are doubled in turn (MaxText/pyconfig.py)."""
    turns, rest = divmod(round(math.log2(params)), 3)
    wide, deep = 2 ** (turns + (rest > 0)), 2**turns
    D = 2048 * 2 ** (turns + (rest > 1))
    return _model(16 * deep, D, 16 * wide, 16 * wide, 128, 7168 * wide, 32_000)


GPT3 = {"activation": "gelu", "norm": "layernorm", "positions": "learned", "tie_embeddings": True}
MODELS = {
    "llama3_8b": _model(32, 4096, 32, 8, 128, 14_336, 128_256),
    "llama3_70b": _model(80, 8192, 64, 8, 128, 28_672, 128_256),
    "llama3_405b": _model(126, 16_384, 128, 8, 128, 53_248, 128_256),
    "llama2_70b": _model(80, 8192, 64, 8, 128, 28_672, 32_000),
    "mistral_7b": _model(32, 4096, 32, 8, 128, 14_336, 32_000),
    "gpt3_175b": _model(96, 12_288, 96, 96, 128, 49_152, 50_304, **GPT3),
    "gemma3_12b": _model(
        48, 3840, 16, 8, 256, 15_360, 262_144, activation="geglu", tie_embeddings=True,
        sliding_window=1024, window_pattern="LLLLLG",
    ),
    "palm_540b": _model(118, 18_432, 48, 1, 256, 73_728, 256_000, tie_embeddings=True),
    # MaxText's first configs: an MLP of two matrices, heads of 256 (configs/1xv4-128.sh, -384.sh).
    "dense 22B": _model(24, 9216, 24, 24, 256, 36_864, 32_000, activation="gelu"),
    "dense 52B": _model(32, 12_288, 32, 32, 256, 49_152, 32_000, activation="gelu"),
    **{f"dense {size}B": _scaled(size) for size in (16, 32, 64, 128, 256, 512, 1024)},
    "mixtral_8x7b": _model(
        32, 4096, 32, 8, 128, 14_336, 32_000, moe=MoeConfig(experts=8, top_k=2, d_ff=14_336)
    ),
    "mixtral_8x22b": _model(
        56, 6144, 48, 8, 128, 16_384, 32_768, moe=MoeConfig(experts=8, top_k=2, d_ff=16_384)
    ),
    "qwen3-235b-a22b": _model(
        94, 4096, 64, 4, 128, 1536, 151_936, moe=MoeConfig(experts=128, top_k=8, d_ff=1536)
    ),
    "gpt-oss-120b": _model(
        36, 2880, 64, 8, 64, 2880, 201_088, moe=MoeConfig(experts=128, top_k=4, d_ff=2880),
        sliding_window=128, window_pattern="LG",
    ),
}  # fmt: skip
MODELS |= {"llama3.1-405b": MODELS["llama3_405b"], "llama3.1-70b": MODELS["llama3_70b"]}
REMATS = {
    "full": "full",
    "dots": "dots",
    "selective": "dots",
    "custom": "full",
    "qkv offloaded": "full",  # all but three of the block's matmuls is computed again
    "dots offloaded to host": "dots",
    "": "full",
}


@dataclass(frozen=True)
class Published:
    """One published run."""

    name: str
    model: ModelConfig
    flops: TokenFlops
    machine: Machine
    layout: Layout
    seq_len: int
    tokens: int
    """Tokens per step."""
    seconds: float
    """Measured seconds per step."""
    precision: str
    assumed: str
    """What the source does not say, and what stands here in its place."""

    @property
    def dense(self) -> bool:
        """Whether it is a dense model in bfloat16."""
        return self.model.moe is None and self.precision == "bf16"

    @property
    def twin(self) -> tuple[str, int, int]:
        """Runs that are alike: the same model (layers and width) on the same chip."""
        return self.machine.chip.name, self.model.num_layers, self.model.d_model

    def time(self, fitted: Calibration | None = None) -> StepTime:
        """What the planner predicts for this mesh."""
        return step_time(
            self.model, self.flops, self.machine.chip, self.machine.piece, self.machine.slices,
            self.layout, self.tokens, fitted=fitted,
        )  # fmt: skip

    def error(self, fitted: Calibration | None = None) -> float:
        """ln(predicted/measured)."""
        return math.log(self.time(fitted).expected / self.seconds)


def published() -> tuple[list[Published], list[tuple[str, str]]]:
    """The runs that can be predicted, and (name, reason) of the others."""
    found, left = [], []
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            reason = _why_not(row)
            if reason:
                left.append((row["name"], reason))
            else:
                found.append(_published(row))
    return found, left


def _why_not(row: dict[str, str]) -> str | None:
    if row["model"] not in MODELS:
        return "its attention or its layers are not ones that this package has"
    if "pipeline" in row["mesh"]:
        return "the planner has no pipelines yet"
    if "not said" in row["precision"]:
        return f"precision {row['precision']}"
    return None


def _published(row: dict[str, str]) -> Published:
    model, T = MODELS[row["model"]], int(row["seq_len"])
    flops = token_flops(model, T)
    unit, chips, slices = chip(row["chip"]), int(row["chips"]), int(row["slices"])
    size = chips // slices
    known = {piece.chips: piece for piece in unit.slices}
    long = Slice((4, 4, size // 16), f"{unit.name}-{size}", size // 4, (True, True, True))
    machine = Machine(unit, known.get(size, long), slices)
    assumed = []
    tokens = int(row["tokens_per_step"] or 0)
    if not tokens:
        tokens = 4 * machine.devices * T
        assumed.append("4 sequences per device")
    remat = REMATS.get(row["recompute"], "full")
    if not row["recompute"]:
        assumed.append("full recomputation")
    layout, said = _layout(row["mesh"], machine)
    if not said:
        assumed.append("fsdp over a slice")
    rate = float(row["tokens_per_s_per_chip"] or 0)
    if not rate:
        whole = 3 * (flops.projections + flops.attention_full + flops.unembedding)
        counted = whole if "in full" in row["source"] else flops.train
        rate = float(row["tflops_per_chip"]) * 1e12 / counted
    return Published(
        row["name"], model, flops, machine, replace(layout, remat=remat), T, tokens,  # type: ignore[arg-type]
        tokens / (rate * chips), row["precision"], ", ".join(assumed),
    )  # fmt: skip


def _layout(mesh: str, machine: Machine) -> tuple[Layout, bool]:
    """The mesh, and whether the source says it."""
    sizes = {axis: int(size) for axis, size in re.findall(r"(\w+) (\d+)", mesh)}
    tensor = sizes.get("tensor", 1)
    inside = machine.piece.chips * machine.chip.devices_per_chip
    reach = inside if machine.chip.torus else machine.devices
    fsdp = sizes.get("fsdp", reach // tensor) * sizes.get("expert", 1)
    data = machine.devices // (fsdp * tensor)
    layout = Layout(
        data=data, fsdp=fsdp, tensor=tensor, accumulate=1, remat="full", dtype="bfloat16"
    )
    return layout, bool(mesh)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for run in published()[0]:
        mesh = f"data {run.layout.data}, fsdp {run.layout.fsdp}, tensor {run.layout.tensor}"
        print(f"{run.name:38}{run.seconds:8.2f} s per step of {run.tokens:,} tokens  {mesh}")


if __name__ == "__main__":
    main()
