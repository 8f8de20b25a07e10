"""A BERT folder of transformers → `EncoderConfig` and parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config import EncoderConfig, UserError
from llm_jax.convert.hf_model import matched, read_config_json
from llm_jax.convert.shards import Weights

RENAMED = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "types": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
}
"""Field of `EncoderConfig` → key of config.json."""
ACTIVATIONS = {"gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}
UNUSED = ("bert.pooler.", "cls.seq_relationship.", "cls.predictions.decoder.")
"""Prefixes of tensors that the masked language model does not use, or shares with another."""


def from_hf(raw: dict[str, Any]) -> EncoderConfig:
    """The architecture that a config.json of BERT describes.

    Raises:
      UserError: it is not BERT's, lacks a key, or has a value that is not supported.
    """
    kind, act = raw.get("model_type"), raw.get("hidden_act", "gelu")
    if kind != "bert":
        raise UserError(f"config.json has model_type {kind!r}: only 'bert' is an encoder here.")
    if act not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"config.json has hidden_act {act!r}: supported are {known}.")
    if missing := [key for key in RENAMED.values() if key not in raw]:
        raise UserError(f"config.json lacks {', '.join(missing)}: it does not describe a BERT.")
    if raw.get("is_decoder") or raw.get("position_embedding_type", "absolute") != "absolute":
        raise UserError("config.json describes a BERT that is a decoder or has relative positions.")
    fields = {name: raw[key] for name, key in RENAMED.items()}
    return EncoderConfig(activation=ACTIVATIONS[act], **fields)  # type: ignore[arg-type]


def read_encoder(folder: Path) -> tuple[EncoderConfig, dict[str, Any]]:
    """The architecture and float32 NumPy parameters of `BertForMaskedLM` in `folder`.

    Raises:
      UserError: as `from_hf` does; a file is unsafe or damaged, or a tensor is missing or has
        another shape than config.json says.
    """
    config, weights = from_hf(read_config_json(folder)), Weights(folder)
    stored = {name: name for name in weights.shapes if not name.startswith(UNUSED)}
    return config, matched(folder, config, "bert", weights, stored).params()
