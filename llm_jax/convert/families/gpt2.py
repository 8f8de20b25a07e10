"""GPT-2 (Radford et al. 2019). On file, query, key and value are one matrix, stored (in, out)."""

from __future__ import annotations

from llm_jax.convert.families.family import Family, Naming, Part
from llm_jax.convert.families.parts import PLAIN, activation, mlp_width

NAMES = {
    "embed/tokens": "transformer.wte.weight",
    "embed/positions": "transformer.wpe.weight",
    "blocks/attn_norm/scale": "transformer.h.{}.ln_1.weight",
    "blocks/attn_norm/bias": "transformer.h.{}.ln_1.bias",
    "blocks/attn/q": "transformer.h.{}.attn.c_attn.weight",
    "blocks/attn/k": "transformer.h.{}.attn.c_attn.weight",
    "blocks/attn/v": "transformer.h.{}.attn.c_attn.weight",
    "blocks/attn/q_bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks/attn/k_bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks/attn/v_bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks/attn/o": "transformer.h.{}.attn.c_proj.weight",
    "blocks/attn/o_bias": "transformer.h.{}.attn.c_proj.bias",
    "blocks/mlp_norm/scale": "transformer.h.{}.ln_2.weight",
    "blocks/mlp_norm/bias": "transformer.h.{}.ln_2.bias",
    "blocks/mlp/up": "transformer.h.{}.mlp.c_fc.weight",
    "blocks/mlp/up_bias": "transformer.h.{}.mlp.c_fc.bias",
    "blocks/mlp/down": "transformer.h.{}.mlp.c_proj.weight",
    "blocks/mlp/down_bias": "transformer.h.{}.mlp.c_proj.bias",
    "final_norm/scale": "transformer.ln_f.weight",
    "final_norm/bias": "transformer.ln_f.bias",
    "unembed": "lm_head.weight",
}


NO_DROPOUT = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)

GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    naming=Naming(NAMES, linear=False, optional_prefix="transformer."),
    fields={
        "vocab_size": "vocab_size",
        "num_layers": "n_layer",
        "d_model": "n_embd",
        "num_heads": "n_head",
        "max_seq_len": "n_positions",
        "norm_eps": "layer_norm_epsilon",
        "tie_embeddings": "tie_word_embeddings",
    },
    always={"norm": "layernorm", "positions": "learned", "biases": ("qkv", "out", "mlp")},
    defaults={"n_positions": 1024, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
    parts=(
        activation(PLAIN, "activation_function", "gelu_new"),
        mlp_width("n_inner", "n_embd"),
        Part(lambda given: {}, lambda config: NO_DROPOUT),
    ),
)
