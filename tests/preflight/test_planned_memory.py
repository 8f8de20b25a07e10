"""The planner's memory against the TPU compiler's, for the large programs of docs/scale.md.

Nothing is compiled here: the compiler's figures are those that the command beside each printed with
libtpu 0.0.42.1 and jax 0.10.2 (`hbm_bytes.peak`).
"""

from __future__ import annotations

import pytest
from jax.sharding import AbstractMesh

from llm_jax.commands.overrides import override
from llm_jax.config import ModelConfig, MoeConfig
from llm_jax.facts.counts import Remat
from llm_jax.parallel.mesh import AXES
from llm_jax.plan.memory import Layout, device_bytes
from llm_jax.preflight.measure import planned_bytes

COMPILED = {
    # llm-jax preflight COMMAND --json: bytes a device
    "llama3_8b --topology v5p-128": 15_112_877_952,
    "llama3_8b --topology v5e-256 --parallel.fsdp 128 --data.batch-size 256": 6_553_100_288,
    "llama3_8b --topology v6e-256 --parallel.fsdp 128 --data.batch-size 256": 7_701_510_752,
    "llama3_8b --topology v5p-128 --model.max-seq-len 131072 --data.seq-len 131072 "
    "--data.batch-size 8 --parallel.fsdp 8 --parallel.tensor 1 --parallel.context 8 "
    "--parallel.context-kind gather": 31_504_610_752,
    "mixtral_8x7b --topology v5p-512": 22_063_336_544,
    "deepseek_moe_16b --topology v5p-512 --parallel.fsdp 32 --compute.accumulate 9": 13_597_659_232,
    "llama3_70b --topology v5p-512": 45_274_387_104,
    "llama3_70b --topology v5p-512 --slices 2 --parallel.replica 2 "
    "--data.batch-size 1024": 50_167_059_840,
    "llama3_405b --topology v5p-4096": 70_834_559_072,
}


@pytest.mark.parametrize("command", COMPILED)
def test_the_planner_is_within_a_tenth_of_the_compiler(command: str) -> None:
    recipe, *words = command.split()
    flags = [f"{a}={b}" for a, b in zip(words[::2], words[1::2], strict=True) if "." in a]
    config = override(recipe, flags, verb="preflight")
    mesh = AbstractMesh(tuple(getattr(config.parallel, axis) for axis in AXES), AXES)
    planned = planned_bytes(config, mesh)
    assert planned is not None
    assert planned["total"] == sum(size for part, size in planned.items() if part != "total")
    assert planned["total"] == pytest.approx(COMPILED[command], rel=0.10)


@pytest.mark.parametrize(
    ("expert", "remat", "peak"),
    [(4, "full", 7.70e9), (1, "dots", 12.35e9), (2, "dots", 17.81e9), (4, "dots", 27.4e9)],
)
def test_rows_of_experts_that_devices_share(expert: int, remat: Remat, peak: float) -> None:
    """2.02B parameters on v5e-16, 128 sequences of 2,048 tokens in two micro-batches, fsdp ×
    expert = 16. Each device has room for the rows that all of them could send it."""
    model = ModelConfig(
        vocab_size=32_000, num_layers=17, d_model=1280, num_heads=10, num_kv_heads=10, head_dim=128,
        d_ff=3584, max_seq_len=2048, moe=MoeConfig(experts=8, top_k=2, d_ff=3584),
    )  # fmt: skip
    layout = Layout(
        data=1, fsdp=16, tensor=1, expert=expert, accumulate=2, remat=remat, dtype="bfloat16"
    )
    planned = sum(device_bytes(model, layout, 4 * 2048, 512).values())
    assert planned == pytest.approx(peak, rel=0.10)
