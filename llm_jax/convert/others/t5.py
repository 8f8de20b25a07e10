"""T5: `T5ForConditionalGeneration`.

transformers 5 ties the head to the table of tokens whatever config.json says, unless the folder has
another head, and reads `tie_word_embeddings` only as whether the decoder's output is scaled. A
checkpoint with a head of its own (T5 1.1 as published) is refused.
"""

from __future__ import annotations

from typing import Any

from llm_jax.config import EncoderDecoderConfig, UserError
from llm_jax.convert.families.family import Naming
from llm_jax.convert.others.other import Keys, Other
from llm_jax.convert.others.sources import PIPELINE, ours, theirs, use
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.sentinels import start_id

FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_layers",
    "d_model": "d_model",
    "num_heads": "num_heads",
    "head_dim": "d_kv",
    "d_ff": "d_ff",
    "buckets": "relative_attention_num_buckets",
    "max_distance": "relative_attention_max_distance",
    "norm_eps": "layer_norm_epsilon",
}
ACTIVATIONS = {"relu": "relu", "gated-gelu": "geglu"}
LONGEST = 512
"""Length of a source that config.json does not limit: that of T5's training."""


def _stack(stack: str, mlp: int) -> dict[str, str]:
    """The names of one stack, whose MLP is sub-layer `mlp`."""
    block = f"{stack}.block.{{}}.layer"
    names = {f"{stack}/attn/{x}": f"{block}.0.SelfAttention.{x}.weight" for x in "qkvo"}
    names[f"{stack}/attn_norm/scale"] = f"{block}.0.layer_norm.weight"
    names[f"{stack}/mlp_norm/scale"] = f"{block}.{mlp}.layer_norm.weight"
    names[f"{stack}/mlp/down"] = f"{block}.{mlp}.DenseReluDense.wo.weight"
    return names


def _mlp(stack: str, mlp: int, gated: bool) -> dict[str, str]:
    dense = f"{stack}.block.{{}}.layer.{mlp}.DenseReluDense"
    if not gated:
        return {f"{stack}/mlp/up": f"{dense}.wi.weight"}
    return {f"{stack}/mlp/gate": f"{dense}.wi_0.weight", f"{stack}/mlp/up": f"{dense}.wi_1.weight"}


def naming(config: EncoderDecoderConfig) -> Naming:
    """The names of the tensors."""
    gated, cross = config.activation == "geglu", "decoder.block.{}.layer.1"
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return Naming(
        {
            "embed/tokens": "shared.weight",
            "embed/encoder_bias": f"encoder.{bias}",
            "embed/decoder_bias": f"decoder.{bias}",
            **_stack("encoder", 1),
            **_mlp("encoder", 1, gated),
            "encoder_norm/scale": "encoder.final_layer_norm.weight",
            **_stack("decoder", 2),
            **{f"decoder/cross/attn/{x}": f"{cross}.EncDecAttention.{x}.weight" for x in "qkvo"},
            "decoder/cross_norm/scale": f"{cross}.layer_norm.weight",
            **_mlp("decoder", 2, gated),
            "decoder_norm/scale": "decoder.final_layer_norm.weight",
        },
        own_numbers=True,
    )


def read(raw: Keys) -> dict[str, Any]:
    """Activation, depth of the decoder and scale of the head.

    Raises:
      UserError: an activation that is not supported.
    """
    kind = raw.get("feed_forward_proj", "relu")
    if kind not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"config.json has feed_forward_proj {kind!r}: supported are {known}.")
    scaled = raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings") is not False)
    return {
        "activation": ACTIVATIONS[kind],
        "num_decoder_layers": raw.get("num_decoder_layers") or raw["num_layers"],
        "scaled_head": scaled,
        "max_seq_len": raw.get("n_positions", LONGEST),
    }


def write(config: EncoderDecoderConfig, tokenizer: Tokenizer) -> Keys:
    """The keys that are not those of `FIELDS`."""
    kind = next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)
    start = start_id(tokenizer, config)
    return {
        "feed_forward_proj": kind,
        "num_decoder_layers": config.num_decoder_layers,
        "n_positions": config.max_seq_len,
        # How transformers learns whether the output is scaled; it ties the head in both cases.
        "tie_word_embeddings": config.scaled_head,
        "scale_decoder_outputs": config.scaled_head,
        "dropout_rate": 0.0,
        "pad_token_id": start,
        "decoder_start_token_id": start,
        "eos_token_id": tokenizer.eos_id,
    }


T5 = Other(
    model_type="t5",
    kind="encoder_decoder",
    naming=naming,
    unused=("lm_head.weight", "encoder.embed_tokens.", "decoder.embed_tokens."),
    tied=dict.fromkeys(
        ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
        "shared.weight",
    ),
    generates=True,
    fields=FIELDS,
    fixed={"is_encoder_decoder": True, "is_decoder": False},
    config=EncoderDecoderConfig,
    read_keys=frozenset(
        {
            "decoder_start_token_id",
            "dense_act_fn",
            "feed_forward_proj",
            "is_gated_act",
            "n_positions",
            "num_decoder_layers",
            "scale_decoder_outputs",
            "tie_word_embeddings",
        }
    ),
    architecture=lambda config: "T5ForConditionalGeneration",
    read=read,
    write=write,
    ours=ours,
    theirs=theirs,
    use=use,
    noun="An encoder-decoder",
    pipeline=PIPELINE,
)
