"""No option of the architecture is dead, and every parameter is counted and used."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import compute_config, model_config, packed_batch, parameters, relative_error, run_config

from llm_jax.config import (
    ComputeConfig,
    DynamicRope,
    LatentConfig,
    LinearRope,
    Llama3Rope,
    LongRope,
    ModelConfig,
    MoeConfig,
    YarnRope,
    load,
    recipe_folders,
)
from llm_jax.facts.counts import total_parameters
from llm_jax.models.decoder.transformer import DECODER
from llm_jax.parallel.mesh import RULES
from llm_jax.train.step import loss_fn

T = 16
BASE = model_config(num_layers=3)
OPTIONS: dict[str, dict[str, Any]] = {
    "dense": {"num_kv_heads": 8},
    "geglu": {"activation": "geglu"},
    "gelu": {"activation": "gelu"},
    "gelu_exact": {"activation": "gelu_exact"},
    "layernorm": {"norm": "layernorm"},
    "norm_eps": {"norm_eps": 1e-2},
    "post_norm": {"post_norm": True},
    "norm_plus_one": {"norm_plus_one": True},
    "qk_norm": {"qk_norm": True},
    "learned": {"positions": "learned"},
    "rope_theta": {"rope_theta": 100.0},
    "llama3_rope": {"rope_scaling": Llama3Rope(original_max_seq_len=16)},
    "yarn_rope": {"rope_scaling": YarnRope(original_max_seq_len=16)},
    "qkv_bias": {"biases": ("qkv",)},
    "out_bias": {"biases": ("out",)},
    "mlp_bias": {"biases": ("mlp",)},
    "tie_embeddings": {"tie_embeddings": True},
    "scale_embeddings": {"scale_embeddings": True},
    "attn_scale": {"attn_scale": 1.0},
    "attn_softcap": {"attn_softcap": 0.5},
    "logit_softcap": {"logit_softcap": 0.5},
    "sliding_window": {"sliding_window": 2},
    "linear_rope": {"rope_scaling": LinearRope(factor=2.0)},
    "dynamic_rope": {"rope_scaling": DynamicRope(factor=2.0, original_max_seq_len=8)},
    "longrope": {
        "rope_scaling": LongRope(original_max_seq_len=8, long_factors=(1.0, 2.0, 3.0, 4.0))
    },
    "yarn_query_beta": {"rope_scaling": YarnRope(original_max_seq_len=8, query_beta=0.5)},
    "rotary_fraction": {"rotary_fraction": 0.5},
    "rope_local_theta": {"rope_local_theta": 100.0, "sliding_window": 2, "window_pattern": "LG"},
    "rope_pattern": {"rope_pattern": "RN"},
    "alibi": {"positions": "alibi"},
    "position_offset": {"positions": "learned", "position_offset": 2},
    "relu": {"activation": "relu"},
    "relu2": {"activation": "relu2"},
    "xielu": {"activation": "xielu"},
    "norm_weights": {"norm_weights": "none"},
    "layernorm_scale": {"norm": "layernorm", "norm_weights": "scale"},
    "layernorm_plus_one": {"norm": "layernorm", "norm_plus_one": True},
    "pre_norm": {"pre_norm": False, "post_norm": True},
    "embed_norm": {"embed_norm": True},
    "parallel_block": {"parallel_block": "one_norm"},
    "parallel_two_norms": {"parallel_block": "two_norms"},
    "qk_norm_over": {"qk_norm": True, "qk_norm_over": "width"},
    "qk_norm_after_rope": {"qk_norm": True, "qk_norm_after_rope": True},
    "qkv_clip": {"qkv_clip": 0.5},
    "embed_multiplier": {"embed_multiplier": 2.0},
    "residual_multiplier": {"residual_multiplier": 0.5},
    "logit_multiplier": {"logit_multiplier": 0.5},
    "unembed_bias": {"biases": ("unembed",)},
    "moe": {"moe": MoeConfig(experts=4, top_k=2, d_ff=32, shared_d_ff=16, balance_rate=0.1)},
    "window_pattern": {"sliding_window": 2, "window_pattern": "LG"},
    "clamped_swiglu": {"activation": "clamped_swiglu"},
    "expert_biases": {"moe": MoeConfig(experts=4, top_k=2, d_ff=32), "biases": ("mlp",)},
    "groups": {"moe": MoeConfig(experts=8, top_k=2, d_ff=16, groups=4, top_groups=2)},
    "latent": {
        "latent": LatentConfig(kv_rank=16, q_rank=24, rope_dim=4, value_dim=6), "num_kv_heads": 8,
    },
    "attn_sinks": {"attn_sinks": True},
}  # fmt: skip
PLAIN = {f: v for f, v in vars(BASE).items() if isinstance(v, int) and not isinstance(v, bool)}


def one_document() -> dict[str, np.ndarray]:
    batch = packed_batch(2, T)
    return batch | {
        "segments": np.ones((2, T), np.int32),
        "positions": np.tile(np.arange(T, dtype=np.int32), (2, 1)),
    }


def value_and_grad(model: ModelConfig, compute: ComputeConfig, params: Any) -> tuple[float, Any]:
    config = run_config(model=model, compute=compute)
    weight = np.float32(1 / 32)
    loss = functools.partial(loss_fn, config=config)
    (value, _), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        params, one_document(), weight
    )
    return float(value), jax.device_get(grads)


@functools.cache
def base() -> tuple[float, Any]:
    return value_and_grad(BASE, compute_config(), parameters(BASE))


def test_every_field_is_an_option_here() -> None:
    covered = {name for changes in OPTIONS.values() for name in changes}
    elsewhere = set(PLAIN) - {"num_kv_heads", "position_offset"} | {
        "attention_init",
        "kind",
    }  # test_induction.py, test_bert.py
    assert set(vars(BASE)) - covered == elsewhere - {"norm_eps", "rope_theta"}


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_option_changes_the_output_and_all_its_parameters_learn(option: str) -> None:
    check_output_and_gradients(model_config(**({"num_layers": 3} | OPTIONS[option])))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            ("gelu", "layernorm", "learned", "qkv_bias", "out_bias", "mlp_bias"), id="gpt2"
        ),
        pytest.param(("geglu", "post_norm", "norm_plus_one", "window_pattern"), id="gemma"),
        pytest.param(("qk_norm", "yarn_rope", "tie_embeddings"), id="qwen"),
        pytest.param(("latent", "groups", "yarn_rope"), id="deepseek"),
        pytest.param(("attn_sinks", "expert_biases", "clamped_swiglu", "qk_norm"), id="gpt_oss"),
        pytest.param(
            ("pre_norm", "qk_norm_over", "rope_local_theta", "rope_pattern", "dynamic_rope",
             "rotary_fraction", "xielu", "residual_multiplier", "embed_multiplier"),
            id="after",
        ),
        pytest.param(
            ("parallel_two_norms", "layernorm_plus_one", "alibi", "embed_norm", "relu2", "qkv_clip",
             "qkv_bias", "unembed_bias", "logit_multiplier"),
            id="parallel",
        ),
    ],
)  # fmt: skip
def test_options_together(options: tuple[str, ...]) -> None:
    changes = {name: value for option in options for name, value in OPTIONS[option].items()}
    check_output_and_gradients(model_config(num_layers=3, **changes))


def check_output_and_gradients(model: ModelConfig) -> None:
    """The loss is not the base model's, and every parameter of every layer has a gradient."""
    loss, grads = value_and_grad(model, compute_config(), parameters(model))
    assert np.isfinite(loss)
    assert abs(loss - base()[0]) > 1e-5
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(grad).all(), name
        assert np.abs(grad).max() > 0, name
        if "blocks" in name:
            assert (np.abs(grad).reshape(3, -1).max(axis=1) > 0).all(), name


@pytest.mark.parametrize("option", OPTIONS)
def test_parameters_are_those_that_the_planner_counts(option: str) -> None:
    check_count(model_config(**OPTIONS[option]))


RECIPES = sorted({path.stem for folder in recipe_folders() for path in folder.glob("*.py")})
DECODERS = [name for name in RECIPES if isinstance(load(name).model, ModelConfig)]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", DECODERS)
def test_recipes_have_the_parameters_that_the_planner_counts(recipe: str) -> None:
    check_count(load(recipe).model)


def check_count(model: ModelConfig) -> None:
    shapes = jax.eval_shape(lambda: DECODER.init(model, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == total_parameters(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    axes = jax.tree.map(lambda spec: spec.axes, DECODER.specs(model))
    ranks = jax.tree.map(lambda leaf, names: leaf.ndim - len(names), shapes, axes)
    assert not any(jax.tree.leaves(ranks))
    names = {
        name for leaf in jax.tree.leaves(axes, is_leaf=lambda x: type(x) is tuple) for name in leaf
    }
    assert names <= set(RULES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"remat": "full"},
        {"remat": "dots"},
        {"scan_layers": False},
        pytest.param({"scan_layers": False, "remat": "full"}, marks=pytest.mark.slow),
        pytest.param({"scan_layers": False, "remat": "dots"}, marks=pytest.mark.slow),
        pytest.param({"attention": "reference"}, marks=pytest.mark.slow),
        pytest.param({"loss_chunk": 4}, marks=pytest.mark.slow),
    ],
)
def test_execution_changes_nothing(changes: dict[str, Any]) -> None:
    loss, grads = value_and_grad(BASE, compute_config(**changes), parameters(BASE))
    assert loss == pytest.approx(base()[0], rel=1e-6)
    assert relative_error(grads, base()[1]) < 5e-6


@pytest.mark.slow
def test_scan_with_a_window_pattern_equals_unrolled() -> None:
    model = model_config(num_layers=5, sliding_window=3, window_pattern="LG")
    found = [
        value_and_grad(model, compute_config(scan_layers=scan), parameters(model))
        for scan in (True, False)
    ]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert relative_error(found[0][1], found[1][1]) < 5e-6


@pytest.mark.slow
def test_bfloat16_stays_near_float32() -> None:
    loss, grads = value_and_grad(BASE, compute_config(dtype="bfloat16"), parameters(BASE))
    assert loss == pytest.approx(base()[0], rel=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {np.dtype("float32")}
    for found, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(base()[1]), strict=True):
        cosine = (found * wanted).sum() / np.linalg.norm(found) / np.linalg.norm(wanted)
        assert cosine > 0.98
