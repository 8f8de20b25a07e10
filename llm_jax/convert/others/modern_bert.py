"""ModernBERT: `ModernBertForMaskedLM`, and its fine-tuned classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_jax.config import ModernEncoderConfig, UserError
from llm_jax.convert.families.family import Naming
from llm_jax.convert.others.encoders import masked_use, our_masked, plain_masked
from llm_jax.convert.others.heads import class_of, label_keys, naming_with, read_head
from llm_jax.convert.others.other import MASKED, Keys, Other, pad_id
from llm_jax.data.tokenizers import Tokenizer

FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "norm_eps",
    "window": "local_attention",
}
WHOLE, LOCAL = "full_attention", "sliding_attention"
"""Types of layers in config.json."""
THETAS = {
    "rope_theta": (WHOLE, "global_rope_theta", 160_000.0),
    "local_rope_theta": (LOCAL, "local_rope_theta", 10_000.0),
}
"""Field → the type of layers that has it, its key in older files, and its default."""
LAYER = {
    "attn_norm/scale": "attn_norm.weight",
    "attn/q": "attn.Wqkv.weight",
    "attn/k": "attn.Wqkv.weight",
    "attn/v": "attn.Wqkv.weight",
    "attn/o": "attn.Wo.weight",
    "mlp_norm/scale": "mlp_norm.weight",
    "mlp/gate": "mlp.Wi.weight",
    "mlp/up": "mlp.Wi.weight",
    "mlp/down": "mlp.Wo.weight",
}
NAMING = Naming(
    {
        "embed/tokens": "model.embeddings.tok_embeddings.weight",
        "embed_norm/scale": "model.embeddings.norm.weight",
        **{
            f"{stack}/{leaf}": f"model.layers.{{}}.{name}"
            for stack in ("first", "blocks")
            for leaf, name in LAYER.items()
        },
        "final_norm/scale": "model.final_norm.weight",
        "head/dense": "head.dense.weight",
        "head/norm/scale": "head.norm.weight",
        "head/bias": "decoder.bias",
    }
)


def read(raw: Keys) -> dict[str, Any]:
    """Which layers see all, and the bases of their rotary positions.

    Raises:
      UserError: layers do not alternate as they do here, or positions are scaled.
    """
    every = raw.get("global_attn_every_n_layers", 3)
    types, count = raw.get("layer_types"), raw["num_hidden_layers"]
    if types is not None:
        rest = types[1:] if isinstance(types, list) else []
        every = rest.index(WHOLE) + 1 if WHOLE in rest else count
        if types != _types(count, every):
            raise UserError(
                f"config.json has layer_types {types!r}: only {WHOLE!r} in the first layer of each "
                f"group of equal size, and {LOCAL!r} in the others, is supported."
            )
    found: dict[str, Any] = {"global_every": every}
    rope = raw.get("rope_parameters") or {}
    for name, (kind, old, default) in THETAS.items():
        own = rope.get(kind) or {} if isinstance(rope, dict) else {}
        if not isinstance(own, dict) or own.get("rope_type", "default") != "default":
            raise UserError(f"config.json has rope_parameters {rope!r}: scaling is not supported.")
        found[name] = own.get("rope_theta", raw.get(old, default))
    head = read_head(raw, "ModernBert")
    if head["head"] == "classify" and raw.get("classifier_pooling", "cls") != "cls":
        raise UserError(
            f"config.json has classifier_pooling {raw['classifier_pooling']!r}: only 'cls' is "
            "supported."
        )
    if raw.get("classifier_activation", "gelu") != "gelu":
        raise UserError(
            f"config.json has classifier_activation {raw['classifier_activation']!r}: only 'gelu' "
            "is supported."
        )
    return found | head


def _types(count: int, every: int) -> list[str]:
    return [LOCAL if i % every else WHOLE for i in range(count)]


def write(config: ModernEncoderConfig, tokenizer: Tokenizer) -> Keys:
    """The keys that are not those of `FIELDS`."""
    return {
        "layer_types": _types(config.num_layers, config.global_every),
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": getattr(config, name)}
            for name, (kind, _, _) in THETAS.items()
        },
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "cls_token_id": tokenizer.bos_id,
        "sep_token_id": tokenizer.eos_id,
        "pad_token_id": pad_id(tokenizer),
        "classifier_pooling": "cls",
        "classifier_dropout": 0.0,
        **label_keys(config),
    }


def theirs(model: Any, tokens_BT: np.ndarray) -> np.ndarray:
    """Logits of the tokens."""
    import torch

    return plain_masked(model(torch.from_numpy(tokens_BT.astype(np.int64))).logits.numpy())


MODERN_BERT = Other(
    model_type="modernbert",
    kind="modern_encoder",
    naming=lambda config: naming_with(NAMING, config, "model."),
    unused=("decoder.weight",),
    tied={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
    fields=FIELDS,
    fixed={
        "hidden_activation": "gelu",
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "decoder_bias": True,
        "tie_word_embeddings": True,
    },
    config=ModernEncoderConfig,
    read_keys=frozenset(
        {
            "classifier_activation",
            "classifier_pooling",
            "deterministic_flash_attn",
            "global_attn_every_n_layers",
            "global_rope_theta",
            "initializer_cutoff_factor",
            "layer_norm_eps",
            "layer_types",
            "local_rope_theta",
            "position_embedding_type",
            "rope_parameters",
            "sparse_pred_ignore_index",
            "sparse_prediction",
        }
    ),
    architecture=lambda config: class_of("ModernBert", config, "ModernBertForMaskedLM"),
    read=read,
    write=write,
    ours=our_masked,
    theirs=theirs,
    use=masked_use,
    noun="An encoder for masked tokens",
    pipeline=MASKED,
)
