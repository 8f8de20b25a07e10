"""GPT-J (Wang & Komatsuzaki 2021): parallel blocks after one norm, an output bias. On file, rotated
pairs are neighbours."""

from __future__ import annotations

from llm_jax.config import ModelConfig
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import PLAIN, activation, mlp_width

NAMES = {
    "embed/tokens": "transformer.wte.weight",
    "blocks/attn_norm/scale": "transformer.h.{}.ln_1.weight",
    "blocks/attn_norm/bias": "transformer.h.{}.ln_1.bias",
    "blocks/attn/q": "transformer.h.{}.attn.q_proj.weight",
    "blocks/attn/k": "transformer.h.{}.attn.k_proj.weight",
    "blocks/attn/v": "transformer.h.{}.attn.v_proj.weight",
    "blocks/attn/o": "transformer.h.{}.attn.out_proj.weight",
    "blocks/mlp/up": "transformer.h.{}.mlp.fc_in.weight",
    "blocks/mlp/up_bias": "transformer.h.{}.mlp.fc_in.bias",
    "blocks/mlp/down": "transformer.h.{}.mlp.fc_out.weight",
    "blocks/mlp/down_bias": "transformer.h.{}.mlp.fc_out.bias",
    "final_norm/scale": "transformer.ln_f.weight",
    "final_norm/bias": "transformer.ln_f.bias",
    "unembed": "lm_head.weight",
    "unembed_bias": "lm_head.bias",
}


def _read(given: Keys) -> Fields:
    size = given["n_embd"] // given["n_head"]
    return {"rotary_fraction": given["rotary_dim"] / size}


def _write(config: ModelConfig) -> Keys:
    return {"rotary_dim": config.rotary_dim}


GPTJ = Family(
    model_type="gptj",
    architecture="GPTJForCausalLM",
    naming=Naming(NAMES, pairs="interleaved", optional_prefix="transformer."),
    fields={
        "vocab_size": "vocab_size",
        "num_layers": "n_layer",
        "d_model": "n_embd",
        "num_heads": "n_head",
        "max_seq_len": "n_positions",
        "norm_eps": "layer_norm_epsilon",
        "tie_embeddings": "tie_word_embeddings",
    },
    always={"norm": "layernorm", "parallel_block": "one_norm", "biases": ("mlp", "unembed")},
    defaults={"n_positions": 2048, "layer_norm_epsilon": 1e-5},
    parts=(
        activation(PLAIN, "activation_function", "gelu_new"),
        mlp_width("n_inner", "n_embd"),
        Part(_read, _write, {"rotary_dim": 64}),
    ),
)
