"""The real TPU compiler takes the engine's programs, split over the four chips of a v5e host."""

from __future__ import annotations

import importlib.util
import json
import re

import jax
import pytest
from tiny import model_config, run_config

from llm_jax.cli import main
from llm_jax.config import ComputeConfig, LatentConfig, MoeConfig, ParallelConfig, to_json
from llm_jax.infer.decoder import compute_for_inference
from llm_jax.infer.engine.ahead import ahead
from llm_jax.infer.engine.programs import Shapes
from llm_jax.parallel.mesh import make_mesh
from llm_jax.preflight.topology import devices, find

SIZES = {
    "vocab_size": 2048, "d_model": 512, "num_heads": 8, "num_kv_heads": 4, "head_dim": 128,
    "d_ff": 2048, "max_seq_len": 512,
}  # fmt: skip
MODELS = {
    "dense": model_config(**SIZES),
    "heads of 64": model_config(**SIZES | {"head_dim": 64}),
    # A TPU would keep experts of this width in another order than it reads them.
    "experts": model_config(**SIZES, moe=MoeConfig(experts=8, top_k=2, d_ff=1408)),
}
SLOTS = 8
COPIED = re.compile(r"= bf16\[([\d,]+)\]\S* copy\(")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install libtpu"
)
@pytest.mark.parametrize("name", MODELS)
def test_decoding_and_a_piece_of_a_prompt_compile_for_four_chips(name):
    mesh = make_mesh(ParallelConfig(data=1, tensor=4), devices(find("v5e-4")))
    compute = compute_for_inference(ComputeConfig(dtype="bfloat16"))
    made = ahead(Shapes(MODELS[name], compute, 2000, SLOTS, 512, 128, mesh))
    leaves = jax.tree.leaves((made.params, made.cache))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(made.cache)} == {"bfloat16"}
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    for lowered in (made.decode, made.piece):
        program = lowered.compile()
        # Arguments of a chip: a fourth of weights and cache, and padding.
        assert program.memory_analysis().argument_size_in_bytes < 0.28 * whole
        text = program.as_text()
        assert "all-reduce" in text
        # No program copies a part of the cache, or a layer's weights, into another order.
        copied = {tuple(map(int, found.split(","))) for found in COPIED.findall(text)}
        kept = {tuple(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves if leaf.ndim > 1}
        assert len(kept) > 2
        assert not copied & kept


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install libtpu"
)
def test_preflight_says_whether_serving_fits(tmp_path, capsys):
    latent = LatentConfig(kv_rank=256, rope_dim=64, value_dim=128)
    sizes = SIZES | {"num_kv_heads": 8, "head_dim": 128 + 64}
    config = run_config(model=model_config(**sizes, latent=latent, num_layers=2))
    run = tmp_path / "run.json"
    run.write_text(to_json(config))

    def served(*flags):
        with pytest.raises(SystemExit) as end:
            main(["preflight", str(run), "--topology", "v5e-4", "--serve", "--json", *flags])
        printed = capsys.readouterr()
        return end.value.code, json.loads(printed.out or "null"), printed.err

    code, found, _ = served("--slots", "8", "--tensor", "4", "--compute.dtype", "bfloat16")
    assert (code, found["fits"], found["mesh"]) == (0, True, {"tensor": 4})
    # Each chip has the one latent of every position, whose 320 numbers fill three tiles of 128: 2
    # layers, 8 texts of 512, bfloat16.
    assert found["cache_bytes"] == 2 * 8 * 512 * 384 * 2
    assert found["programs"]["decode"]["peak"] < 1.4 * (
        found["weight_bytes"] + found["cache_bytes"]
    )
    code, found, _ = served("--slots", "2000000", "--tensor", "1")
    assert (code, found["fits"], found["mesh"]) == (1, False, {"data": 4})
    code, _, said = served("--tensor", "3")
    assert code == 2 and "--tensor is 3, which does not divide" in said
    code, _, said = served("--tensor", "0")
    assert code == 2 and "argument --tensor" in said and "Traceback" not in said
    code, _, said = served("--max-len", "513")
    assert code == 2 and "more than the model's context of 512" in said
    code, _, said = served("--search")
    assert code == 2 and "leave out --serve" in said
    code, _, said = served("--topology", "v5e-16")
    assert code == 2 and "has 4 hosts, and `serve` is one process" in said
