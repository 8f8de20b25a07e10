"""The planner's memory against the TPU compiler's, for the large programs of docs/scale.md.

Nothing is compiled here: the compiler's figures are those that the command beside each printed with
libtpu 0.0.42.1 and jax 0.10.2 (`hbm_bytes.peak`).
"""

from __future__ import annotations

import pytest
from jax.sharding import AbstractMesh

from llm_jax.commands.overrides import override
from llm_jax.parallel.mesh import AXES
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
