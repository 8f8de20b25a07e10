"""A start with the parts of induction heads: what it sets, and that copying is learned sooner."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import model_config, run_config

from llm_jax.config import ConfigError, ModelConfig
from llm_jax.models.common.rope import apply_rope, rotations
from llm_jax.models.decoder.induction import LIKENESS
from llm_jax.models.decoder.transformer import DECODER
from llm_jax.train.step import loss_fn

COPYING = {"qk_norm": True, "biases": ("qkv",), "head_dim": 32}


def model(init: str = "induction", **changes: Any) -> ModelConfig:
    fields = {"num_heads": 4, "num_kv_heads": 2, "d_model": 64, **COPYING}
    return model_config(attention_init=init, **(fields | changes))


def attention(config: ModelConfig) -> Any:
    return jax.device_get(DECODER.init(config, jax.random.key(0))["blocks"]["attn"])


@pytest.mark.slow
def test_keys_are_like_queries_but_in_the_copying_head() -> None:
    config = model(d_model=512)
    attn = attention(config)
    for layer in range(config.num_layers):
        for head in range(config.num_kv_heads):
            query, key = attn["q"][layer, :, 2 * head], attn["k"][layer, :, head]
            found = np.corrcoef(query.ravel(), key.ravel())[0, 1]
            wanted = 0.0 if (layer, head) == (1, 0) else LIKENESS
            assert found == pytest.approx(wanted, abs=0.02)
    assert np.std(attn["k"]) == pytest.approx(np.std(attn["q"]), rel=0.02)


@pytest.mark.slow
def test_the_copying_head_finds_what_the_first_has_written() -> None:
    """A token's query is like the key of what the first head writes of it, and not of others."""
    attn = attention(model(d_model=64))
    tokens_VD = np.random.default_rng(0).standard_normal((200, 64))
    query_VH = tokens_VD @ attn["q"][1, :, 0]
    written_VD = tokens_VD @ attn["v"][0, :, 0] @ attn["o"][0, 0]
    key_VH = written_VD @ attn["k"][1, :, 0]

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    likeness = unit(query_VH) @ unit(key_VH).T
    assert (likeness.argmax(axis=1) == np.arange(200)).mean() > 0.95
    copied_VD = tokens_VD @ attn["v"][1, :, 0] @ attn["o"][1, 0]
    assert ((tokens_VD @ copied_VD.T).argmax(axis=0) == np.arange(200)).mean() > 0.95


@pytest.mark.parametrize("theta", [1e4, 1e6])
def test_one_head_looks_one_token_back(theta: float) -> None:
    """The biases' score by distance is greatest at one, wherever the query stands."""
    config = model(rope_theta=theta)
    attn = attention(config)
    assert not attn["q_bias"][1:].any()
    assert not attn["q_bias"][0, 1:].any()
    table = rotations(config, jnp.arange(64)[None])["global"].keys
    q_TH, k_TH = (
        np.asarray(apply_rope(jnp.tile(attn[name][0, 0], (1, 64, 1, 1)), table))[0, :, 0]
        for name in ("q_bias", "k_bias")
    )
    scores_TS = q_TH @ k_TH.T
    for t in (1, 20, 63):
        best, second = np.sort(scores_TS[t, : t + 1])[::-1][:2]
        assert np.argmax(scores_TS[t, : t + 1]) == t - 1
        assert best - second > 5


def copying_loss(model: ModelConfig, steps: int) -> float:
    """Loss where sequences repeat what they began with, after a random number of tokens."""
    B, T = 16, 64
    config, adam = run_config(model=model), optax.adam(3e-3)

    def loss(params: Any, key: jax.Array) -> jax.Array:
        draw, period = jax.random.split(key)
        tokens = jax.random.randint(draw, (B, T // 2), 3, model.vocab_size)
        periods = jax.random.randint(period, (B, 1), T // 4, T // 2 + 1)
        tokens = jnp.take_along_axis(tokens, jnp.arange(T + 1) % periods, axis=1)
        batch = {
            "inputs": tokens[:, :-1],
            "targets": jnp.where(jnp.arange(T) < T // 2, -1, tokens[:, 1:]),
            "positions": jnp.tile(jnp.arange(T), (B, 1)),
            "segments": jnp.ones((B, T), jnp.int32),
        }
        return loss_fn(params, batch, jnp.float32(2 / (B * T)), config)[0]

    def step(carry: Any, key: jax.Array) -> Any:
        params, opt = carry
        value, grads = jax.value_and_grad(loss)(params, key)
        updates, opt = adam.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), value

    @jax.jit
    def train(params: Any) -> jax.Array:
        keys = jax.random.split(jax.random.key(1), steps)
        return jax.lax.scan(step, (params, adam.init(params)), keys)[1]

    return float(train(DECODER.init(model, jax.random.key(0)))[-10:].mean())


@pytest.mark.slow
def test_copying_is_learned_sooner() -> None:
    assert copying_loss(model(), 150) < 0.3
    assert copying_loss(model("normal"), 150) > 2.5


@pytest.mark.parametrize(
    "changes",
    [
        {"biases": ()},
        {"qk_norm": False},
        {"positions": "learned"},
        {"num_layers": 1},
        {"qkv_clip": 1.0},
        {"rope_local_theta": 100.0},
    ],
)
def test_it_takes_what_it_is_made_of(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"attention_init is 'induction', which requires .*set"):
        model(**changes)
