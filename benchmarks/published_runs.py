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
from llm_jax.plan.machines import Machine
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
# Llama 4's chunked attention is full attention at 8,192 tokens.
LLAMA4: dict[str, Any] = {"top_k": 1, "d_ff": 8192, "shared_d_ff": 8192, "router": "sigmoid"}
MODELS["llama4_scout"] = _model(
    48, 5120, 40, 8, 128, 16_384, 202_048, moe=MoeConfig(experts=16, **LLAMA4)
)
MODELS["llama4_maverick"] = _model(
    48, 5120, 40, 8, 128, 16_384, 202_048, moe=MoeConfig(experts=128, every=2, **LLAMA4)
)
LATENT_HEADS = 128
# A stand-in for multi-head latent attention: the same scores and values (128 heads, (192 + 128)/2
# wide), and matrices of the same size in sum (187 M per layer) with fewer key/value heads.
MODELS["deepseek-v3"] = _model(
    61,
    7168,
    80,
    2,
    160,
    18_432,
    129_280,
    moe=MoeConfig(experts=256, top_k=8, d_ff=2048, shared_d_ff=2048, dense_layers=3),
)
MODELS |= {"llama3.1-405b": MODELS["llama3_405b"], "llama3.1-70b": MODELS["llama3_70b"]}
REMATS = {
    "full": "full",
    "dots": "dots",
    "selective": "dots",
    "custom": "full",
    # All but a few of the block's matmuls is computed again.
    "qkv offloaded": "full",
    "qkv kept": "full",
    "attention offloaded": "full",
    "dots offloaded to host": "dots",
    "": "full",
}


NOT_EXPLAINED = {
    "gpt-oss-120b": "half as fast as rows per expert, widths, bytes and mesh explain: 14% of the "
    "peak, where Qwen3's narrower experts reach 30% on the same chips; not fitted to",
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
    explained: bool = True
    """Whether the factors are fitted to it (`NOT_EXPLAINED`)."""

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


def published() -> list[Published]:
    """All runs of the CSV."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return [_published(row) for row in csv.DictReader(file)]


def _published(row: dict[str, str]) -> Published:
    model, T = MODELS[row["model"]], int(row["seq_len"])
    flops = token_flops(model, T)
    if row["model"] == "deepseek-v3":
        flops = replace(flops, attention=flops.attention * LATENT_HEADS / model.num_heads)
    unit, chips, slices = chip(row["chip"]), int(row["chips"]), int(row["slices"])
    size = chips // slices
    assumed = []
    if "500 W" in row["source"]:
        # Not the H100 of the data sheet (700 W, 3.35 TB/s): it is taken to compute in
        # proportion to its power.
        share = 500 / (unit.watts or 500)
        unit = replace(
            unit, bf16_flops=share * unit.bf16_flops, fp8_flops=share * (unit.fp8_flops or 0),
            hbm_bandwidth=2.4e12,
        )  # fmt: skip
        assumed.append("5/7 of the peak at 500 W")
    known = {piece.chips: piece for piece in unit.slices}
    long = Slice((4, 4, size // 16), f"{unit.name}-{size}", size // 4, (True, True, True))
    machine = Machine(unit, known.get(size, long), slices)
    tokens = int(row["tokens_per_step"])
    remat = REMATS.get(row["recompute"], "full")
    if not row["recompute"] and "pipeline" not in row["mesh"]:
        assumed.append("full recomputation")
    layout, said = _layout(row["mesh"], machine)
    if not said:
        assumed.append("fsdp over a slice")
    rate = float(row["tokens_per_s_per_chip"] or 0)
    if not rate:
        whole = 3 * (flops.projections + flops.attention_full + flops.unembedding)
        counted = whole if "in full" in row["source"] else flops.train
        rate = float(row["tflops_per_chip"]) * 1e12 / counted
    layout = replace(layout, remat=remat)  # type: ignore[arg-type]
    if layout.pipeline > 1:
        # Llama 3 (§3.3.2): no recomputation. Interleaved: its 430 and 400 TFLOP/s with 32 and 16
        # pieces are those of about 6 rounds; a stage has 8 layers.
        pieces = tokens // T // layout.batch_shards
        layout = replace(layout, pieces=pieces, rounds=8, remat="none")
        assumed += ["one sequence per piece, 8 rounds, no recomputation"]
    if row["precision"] != "bf16":
        layout = replace(layout, eight_bit=1.0)
    if row["model"] in NOT_EXPLAINED:
        assumed.append(NOT_EXPLAINED[row["model"]])
    return Published(
        row["name"], model, flops, machine, layout, T, tokens,
        tokens / (rate * chips), row["precision"], ", ".join(assumed),
        row["model"] not in NOT_EXPLAINED,
    )  # fmt: skip


def _layout(mesh: str, machine: Machine) -> tuple[Layout, bool]:
    """The mesh, and whether the source says it."""
    sizes = {axis: int(size) for axis, size in re.findall(r"(\w+) (\d+)", mesh)}
    tensor = sizes.get("tensor", 1)
    inside = machine.piece.chips * machine.chip.devices_per_chip
    reach = inside if machine.chip.torus else machine.devices
    stages, expert = sizes.get("pipeline", 1), sizes.get("expert", 1)
    split = 1 if stages > 1 else reach // tensor
    fsdp = sizes.get("fsdp", split) * expert
    layout = Layout(
        data=machine.devices // (fsdp * tensor * stages), fsdp=fsdp, tensor=tensor,
        accumulate=1, remat="full", dtype="bfloat16", expert=expert,
        context=sizes.get("context", 1), pipeline=stages,
    )  # fmt: skip
    return layout, bool(mesh)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for run in published():
        mesh = f"data {run.layout.data}, fsdp {run.layout.fsdp}, tensor {run.layout.tensor}"
        print(f"{run.name:38}{run.seconds:8.2f} s per step of {run.tokens:,} tokens  {mesh}")


if __name__ == "__main__":
    main()
