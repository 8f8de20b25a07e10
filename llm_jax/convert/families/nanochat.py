"""nanochat (Karpathy 2025): norms without parameters, also of the embedding, queries and keys;
squared ReLU. On file, heads are rotated the other way."""

from llm_jax.convert.families import names
from llm_jax.convert.families.family import FIELDS_BUT_HEAD_DIM, Family, Naming
from llm_jax.convert.families.parts import PLAIN, activation, biases, same
from llm_jax.convert.families.rope import rope

MLP = {
    "blocks/mlp/up": "model.layers.{}.mlp.fc1.weight",
    "blocks/mlp/down": "model.layers.{}.mlp.fc2.weight",
}

NANOCHAT = Family(
    model_type="nanochat",
    architecture="NanoChatForCausalLM",
    naming=Naming(names.LLAMA | MLP, pairs="swapped"),
    fields=FIELDS_BUT_HEAD_DIM,
    always={
        "norm_weights": "none",
        "embed_norm": True,
        "qk_norm": True,
        "qk_norm_after_rope": True,
    },
    defaults={"max_position_embeddings": 2048, "final_logit_softcapping": 15.0},
    parts=(
        rope(),
        activation(PLAIN, default="relu2"),
        biases(qkv="attention_bias", out="attention_bias"),
        same(logit_softcap="final_logit_softcapping"),
    ),
)
