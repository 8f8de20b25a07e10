"""The engine's parameters: the same numbers as those that were read, without copies."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from llm_jax.config import MoeConfig
from llm_jax.infer.decoder import prepared
from llm_jax.infer.engine.weights import engine_params
from llm_jax.models.common.int8 import Int8
from llm_jax.train.host_arrays import aligned_empty

MODELS = {
    "tied": tiny.model_config(tie_embeddings=True),
    "experts": tiny.model_config(moe=MoeConfig(experts=4, top_k=2, d_ff=24, dense_layers=1)),
}


def read(model: Any) -> Any:
    """Parameters as they are read: NumPy arrays at addresses that XLA takes."""

    def array(leaf: Any) -> np.ndarray:
        made = aligned_empty(leaf.shape)
        made[...] = leaf
        return made

    return jax.tree.map(array, tiny.parameters(model))


def apart(params: Any, model: Any) -> Any:
    """What the engine's parameters should be: each layer of `prepared` ones."""
    stacks = [name for name in ("dense_blocks", "blocks") if name in params]
    layers = [
        jax.tree.map(lambda leaf, i=i: leaf[i], params[name])
        for name in stacks
        for i in range(len(jax.tree.leaves(params[name])[0]))
    ]
    made = {name: leaf for name, leaf in params.items() if name not in stacks}
    if model.tie_embeddings:
        made["unembed"] = params["embed"]["tokens"].T
    return made | {"layers": tuple(layers)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_are_those_that_were_read(name: str, dtype: str) -> None:
    model, compute = MODELS[name], tiny.compute_config(dtype=dtype)
    params = read(model)
    wanted = apart(prepared(params, model, compute), model)
    kept = engine_params(params, model, compute, None)
    freed = engine_params(read(model), model, compute, None, frees=True)
    for made in (kept, freed, engine_params(jax.device_put(params), model, compute, None)):
        assert jax.tree.structure(made) == jax.tree.structure(wanted)
        jax.tree.map(np.testing.assert_array_equal, made, wanted)
        assert jax.tree.map(jnp.dtype, made) == jax.tree.map(jnp.dtype, wanted)


def test_memory_is_shared_and_given_back() -> None:
    model, compute = tiny.model_config(d_ff=64), tiny.compute_config()
    params = read(model)
    up = params["blocks"]["mlp"]["up"]
    made = engine_params(params, model, compute, None, frees=True)
    assert jax.tree.leaves(params) == []
    for number, layer in enumerate(made["layers"]):
        assert layer["mlp"]["up"].unsafe_buffer_pointer() == up[number].ctypes.data


def test_eight_bits_are_rounded_by_channel() -> None:
    model, compute = tiny.model_config(), tiny.compute_config()
    params = read(model)
    made = engine_params(params, model, compute, None, "int8")
    assert made["embed"]["tokens"].dtype == np.float32
    for number, layer in enumerate(made["layers"]):
        up, down = layer["mlp"]["up"], layer["mlp"]["down"]
        assert isinstance(up, Int8) and up.values.dtype == np.int8
        assert up.factors.shape == (1, 64) and down.factors.shape == (1, 32)
        error = np.abs(up.values * up.factors - params["blocks"]["mlp"]["up"][number])
        assert np.all(error <= up.factors / 2 + 1e-7)
