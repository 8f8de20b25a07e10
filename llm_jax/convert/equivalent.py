"""Forms of a model that compute the same, for what classes of transformers always have.

A bias that is added is zero. A gate of shared experts that is added has a matrix of zeros, so it is
one half for every token, and the experts' output matrix is doubled: no number is rounded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from llm_jax.config import ModelConfig

Params = dict[str, Any]
BALANCE_RATE = 0.001
"""Step size of a bias on the choice of experts that no file tells (DeepSeek-V3, §4.2)."""


def forms(config: ModelConfig) -> Iterator[ModelConfig]:
    """The forms of `config`, and `config` itself, in the order in which they are tried.

    Llama has biases on q, k, v and the output, or on none. Qwen2 has the first three, but for that
    model type AutoTokenizer always uses Qwen's own byte-level tokenizer class, which gives other
    ids with our files. Qwen2-MoE has a gate on shared experts, DeepSeek-V3 a bias on the choice.
    """
    moe = config.moe
    if config.qkv_bias and not config.out_bias:
        yield dataclasses.replace(config, biases=("qkv", "out", *config.biases[1:]))
    yield config
    if (
        config.biases == ("out",) and moe is None
    ):  # GPT-NeoX Japanese, whose class has it in the last layer only
        yield dataclasses.replace(config, biases=("qkv", "out", "mlp"))
    if moe and moe.shared_d_ff and not moe.shared_gate and moe.router == "softmax":
        yield dataclasses.replace(config, moe=dataclasses.replace(moe, shared_gate=True))
    if moe and moe.router == "sigmoid" and not moe.balance_rate:
        biased = dataclasses.replace(moe, balance_rate=BALANCE_RATE)
        yield dataclasses.replace(config, moe=biased)


def in_form(params: Params, config: ModelConfig, form: ModelConfig) -> Params:
    """The parameters of `config` as those of one of its `forms`."""
    made = dict(params)
    for name, stack in params.items():
        if not (isinstance(stack, dict) and "attn" in stack):
            continue
        made[name], layers = dict(stack), stack["attn"]["o"].shape[0]
        if form.out_bias and not config.out_bias:
            zeros = np.zeros((layers, config.d_model), np.float32)
            made[name]["attn"] = {**stack["attn"], "o_bias": zeros}
        if form.mlp_bias and not config.mlp_bias:
            made[name]["attn"] = _zero_biases(stack["attn"], "qkv") | stack["attn"]
            made[name]["mlp"] = (
                _zero_biases(
                    stack["mlp"], [part for part in ("gate", "up", "down") if part in stack["mlp"]]
                )
                | stack["mlp"]
            )
        if "moe" in stack:
            made[name]["moe"] = _experts(stack["moe"], config, form, layers)
    return made


def _zero_biases(half: Params, names: Iterable[str]) -> Params:
    """Biases of matrices (L, in, out…), all zero."""
    return {
        f"{name}_bias": np.zeros((half[name].shape[0], *half[name].shape[2:]), np.float32)
        for name in names
    }


def _experts(experts: Params, config: ModelConfig, form: ModelConfig, layers: int) -> Params:
    assert config.moe is not None and form.moe is not None
    made = dict(experts)
    if form.moe.shared_gate and not config.moe.shared_gate:
        from llm_jax.train.stored import StoredArray  # JAX, which reading a config does not need

        down = experts["shared"]["down"]
        doubled = StoredArray(
            down.shape, np.dtype(down.dtype), lambda place: 2 * np.asarray(down[place])
        )
        made["shared"] = {**experts["shared"], "down": doubled}
        made["shared_gate"] = np.zeros((layers, config.d_model, 1), np.float32)
    if form.moe.balance_rate and not config.moe.balance_rate:
        made["bias"] = np.zeros((layers, config.moe.experts), np.float32)
    return made
