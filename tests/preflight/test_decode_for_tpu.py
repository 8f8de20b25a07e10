"""The real TPU compiler takes the engine's programs, split over the four chips of a v5e host."""

from __future__ import annotations

import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import model_config

from llm_jax.config import ComputeConfig, MoeConfig, ParallelConfig
from llm_jax.infer.decoder import compute_for_inference
from llm_jax.infer.engine.arrays import Decoding, no_stops
from llm_jax.infer.engine.cache import AXES, empty_cache, turned
from llm_jax.infer.engine.programs import Programs, Shapes
from llm_jax.infer.engine.tpu_layout import as_read
from llm_jax.infer.engine.weights import cache_dtype, engine_params, separate_specs
from llm_jax.infer.row_sampling import stack_rows
from llm_jax.infer.sampling import GREEDY
from llm_jax.models.protocol import parameter_shapes
from llm_jax.parallel.mesh import make_mesh, parameter_sharding, sharding
from llm_jax.preflight.topology import devices, find

SIZES = {
    "vocab_size": 2048, "d_model": 512, "num_heads": 8, "num_kv_heads": 4, "head_dim": 128,
    "d_ff": 2048, "max_seq_len": 512,
}  # fmt: skip
MODELS = {
    "dense": model_config(**SIZES),
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
    model = MODELS[name]
    mesh = make_mesh(ParallelConfig(data=1, tensor=4), devices(find("v5e-4")))
    with jax.set_mesh(mesh):
        compute = compute_for_inference(ComputeConfig(dtype="bfloat16"))
        kept = cache_dtype(compute)
        assert kept == "bfloat16"  # as on a TPU, not as on this machine
        programs = Programs(Shapes(model, compute, 2000, SLOTS, 512, 128, mesh))
        shapes = jax.eval_shape(
            lambda params: engine_params(params, model, compute, None), parameter_shapes(model)
        )

        def placed(leaf, spec):
            where = as_read(parameter_sharding(mesh, "", leaf.shape, spec.axes), spec)
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

        params = jax.tree.map(placed, shapes, separate_specs(model))
        cache = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding(mesh, turned(AXES))
            ),
            jax.eval_shape(lambda: empty_cache(model, SLOTS, 512, 128, kept)),
        )
        zeros = np.zeros((4, SLOTS), np.int32)
        seeds, rows = np.zeros(SLOTS, np.uint32), stack_rows([GREEDY] * SLOTS)
        state = Decoding(*zeros, seeds, rows, no_stops(SLOTS))
        decode = programs.decode.lower(
            params, cache, state, None, np.int32(4), np.bool_(False), kind="greedy"
        ).compile()
        tokens, one = np.zeros((1, 128), np.int32), np.zeros(1, np.int32)
        piece = programs.prefill.lower(
            params, cache, tokens, one, one, one, one, tokens, scored=False
        ).compile()
    leaves = jax.tree.leaves((params, cache))
    whole = sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in leaves)
    for program in (decode, piece):
        # Arguments of a chip: a fourth of weights and cache, and padding.
        assert program.memory_analysis().argument_size_in_bytes < 0.28 * whole
        text = program.as_text()
        assert "all-reduce" in text
        # No program copies a part of the cache, or a layer's weights, into another order.
        copied = {tuple(map(int, found.split(","))) for found in COPIED.findall(text)}
        kept = {tuple(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves if leaf.ndim > 2}
        assert len(kept) > 2
        assert not copied & kept
