"""GPT-NeoX Japanese (ABEJA 2022): sequential blocks without biases, but for the attention's output
in the last layer. A run has a bias in each layer, of which the others are zero at import."""

from __future__ import annotations

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.gpt_neox import FIELDS, NAMES
from llm_jax.convert.families.parts import PLAIN, activation
from llm_jax.convert.families.rope import rope

OUT_BIAS = "gpt_neox_japanese.layers.{}.attention.dense_bias"
OWN_NAMES = {
    path: name.replace("gpt_neox.", "gpt_neox_japanese.")
    for path, name in NAMES.items()
    if not path.endswith(("q_bias", "k_bias", "v_bias", "up_bias", "down_bias"))
}


def _read(given: Keys) -> Fields:
    times = given["intermediate_multiple_size"]
    if times < 1:
        raise UserError(f"config.json has intermediate_multiple_size = {times!r}: give 1 or more.")
    return {"d_ff": int(given["hidden_size"] * times)}


def _write(config: ModelConfig) -> Keys:
    times, rest = divmod(config.d_ff, config.d_model)
    return {} if rest else {"intermediate_multiple_size": times}


GPT_NEOX_JAPANESE = Family(
    model_type="gpt_neox_japanese",
    architecture="GPTNeoXJapaneseForCausalLM",
    naming=Naming(
        OWN_NAMES | {"blocks/attn/o_bias": OUT_BIAS},
        grouped=True,
        last_layer_only=("blocks/attn/o_bias",),
    ),
    fields={name: key for name, key in FIELDS.items() if name != "d_ff"},
    always={"norm": "layernorm", "biases": ("out",)},
    defaults={
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    parts=(
        rope(fraction=1.0, theta_key="rotary_emb_base", fraction_key="rotary_pct"),
        activation(PLAIN, default="gelu"),
        Part(_read, _write, {"intermediate_multiple_size": 4}),
    ),
    heads_divide_width=True,
)
