"""Multi-head latent attention is its paper's equations, and its cache is as small as it says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import model_config, parameters, relative_error, run_config

from llm_jax.attention.choose import Choice, attend_by
from llm_jax.config import ConfigError, LatentConfig, ParallelConfig
from llm_jax.facts.counts import cache_values
from llm_jax.infer.kv_cache import empty_cache
from llm_jax.models.common.attend import scores
from llm_jax.models.common.layers import Shared
from llm_jax.models.common.rope import rotations
from llm_jax.models.common.stack import declare
from llm_jax.models.decoder.block import Block
from llm_jax.models.decoder.transformer import DECODER
from llm_jax.parallel.check import check_divisible
from llm_jax.parallel.mesh import make_mesh

LATENT = LatentConfig(kv_rank=16, q_rank=24, rope_dim=4, value_dim=6)
MODEL = model_config(num_kv_heads=8, head_dim=12, latent=LATENT)
B, T = 2, 10


def rms(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale


def rotated(x_BTNr: np.ndarray) -> np.ndarray:
    half = x_BTNr.shape[-1] // 2
    freqs = 10_000.0 ** -(np.arange(half) / half)
    angle = np.arange(T)[:, None, None] * freqs
    a, b = x_BTNr[..., :half], x_BTNr[..., half:]
    turned = a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)
    return np.concatenate(turned, axis=-1)


def by_definition(w: dict[str, Any], x_BTD: np.ndarray) -> np.ndarray:
    """DeepSeek-V2, equations 37 to 47, in float64."""
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), w)
    q_BTNH = np.einsum("BTQ,QNH->BTNH", rms(x_BTD @ w["q_down"], w["q_norm"]["scale"]), w["q_up"])
    c_BTR = rms(x_BTD @ w["kv_down"], w["kv_norm"]["scale"])
    up_BTNU = np.einsum("BTR,RNU->BTNU", c_BTR, w["kv_up"])
    k_BTNh, v_BTNV = up_BTNU[..., :8], up_BTNU[..., 8:]
    k_BTr = rotated((x_BTD @ w["k_rope"])[:, :, None])[:, :, 0]
    products = np.einsum("BTNh,BSNh->BNTS", q_BTNH[..., :8], k_BTNh)
    products += np.einsum("BTNr,BSr->BNTS", rotated(q_BTNH[..., 8:]), k_BTr)
    products = np.where(np.tri(T, dtype=bool), products / np.sqrt(12), -np.inf)
    weights = np.exp(products - products.max(-1, keepdims=True))
    out_BTNV = np.einsum("BNTS,BSNV->BTNV", weights / weights.sum(-1, keepdims=True), v_BTNV)
    return np.einsum("BTNV,NVD->BTD", out_BTNV, w["o"])


def test_it_is_the_equations() -> None:
    graphdef, _ = declare(Block, MODEL)
    block = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), parameters(MODEL)["blocks"])
    x_BTD = np.random.default_rng(1).standard_normal((B, T, MODEL.d_model), np.float32)
    positions = jnp.broadcast_to(jnp.arange(T), (B, T))
    segments = jnp.ones((B, T), jnp.int32)

    @jax.jit
    def attention(block: Any, x_BTD: jax.Array) -> jax.Array:
        attend = attend_by(Choice("blockwise"), scores(MODEL), segments)
        shared = Shared(attend, rotations(MODEL, positions))
        mask = DECODER.layout(MODEL).layers[0].mask
        return nnx.merge(graphdef, block).attn(x_BTD, shared, mask, None)[0]

    found = attention(block, jnp.asarray(x_BTD))
    assert relative_error(found, by_definition(block["attn"], x_BTD.astype(np.float64))) < 1e-5


def test_the_cache_keeps_the_latent_and_one_rotary_key() -> None:
    cache = jax.eval_shape(lambda: empty_cache(MODEL, 3, 7, jnp.dtype("bfloat16")))
    assert jax.tree.map(lambda leaf: leaf.shape, cache) == {"latent": (2, 3, 7, 16 + 4)}
    for model in (MODEL, model_config()):
        cache = jax.eval_shape(lambda model=model: empty_cache(model, 1, 1, jnp.dtype("bfloat16")))
        assert cache_values(model) == sum(leaf.size for leaf in jax.tree.leaves(cache))


@pytest.mark.parametrize(
    ("latent", "model", "words"),
    [
        ({"rope_dim": 3}, {}, "model.latent.rope_dim is 3: rotary positions need an even number"),
        ({"rope_dim": 12}, {}, "model.latent.rope_dim is 12: it must be less than model.head_dim"),
        ({"kv_rank": 0}, {}, "model.latent.kv_rank is 0: it must be above 0"),
        ({}, {"num_kv_heads": 4}, "model.latent requires model.num_kv_heads = 8, not 4"),
        ({}, {"positions": "learned"}, "requires model.positions = 'rope', not 'learned'"),
        ({}, {"biases": ("qkv",)}, "but model.biases is ['qkv']: leave out"),
    ],
)
def test_what_cannot_be_is_refused(latent: dict, model: dict, words: str) -> None:
    fields = {"kv_rank": 16, "rope_dim": 4, "value_dim": 6} | latent
    with pytest.raises(ConfigError) as error:
        changes = {"num_kv_heads": 8, "head_dim": 12, "latent": LatentConfig(**fields)}
        model_config(**(changes | model))
    assert words in str(error.value)


@pytest.mark.parametrize(("q_rank", "split"), [(None, True), (24, True), (20, False)])
def test_a_mesh_divides_the_latents_that_there_are(q_rank: int | None, split: bool) -> None:
    latent = LatentConfig(kv_rank=16, q_rank=q_rank, rope_dim=4, value_dim=6)
    config = run_config(model=model_config(num_kv_heads=8, head_dim=12, latent=latent))
    mesh = make_mesh(ParallelConfig(data=1, fsdp=8))
    if split:
        check_divisible(config, mesh)
        return
    with pytest.raises(ConfigError, match=r"model\.latent\.q_rank is 20, which mesh axis 'fsdp'"):
        check_divisible(config, mesh)
