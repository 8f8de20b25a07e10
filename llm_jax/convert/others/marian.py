"""Marian's translation models: `MarianMTModel`; and what BART has in common with them.

transformers keeps the bias of the logits as a buffer, which its trainers do not learn and its files
hold. Here it is a parameter. Its tables of tokens do not learn from reading the padding token
(`padding_idx`); ours do.
"""

from __future__ import annotations

from typing import Any

from llm_jax.config import TransformerEncoderDecoderConfig, UserError
from llm_jax.convert.families.family import Naming
from llm_jax.convert.others.other import Keys, Other
from llm_jax.convert.others.sources import PIPELINE, ours, theirs, use
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.sentinels import start_id

FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "d_model": "d_model",
    "num_heads": "encoder_attention_heads",
    "d_ff": "encoder_ffn_dim",
    "max_seq_len": "max_position_embeddings",
}
ACTIVATIONS = {"relu": "relu", "gelu": "gelu_exact"}
EQUAL = {
    "decoder_attention_heads": "encoder_attention_heads",
    "decoder_ffn_dim": "encoder_ffn_dim",
    "decoder_vocab_size": "vocab_size",
}
"""Key of the decoder → the key whose value it must have, where a config.json has it."""
FIXED: Keys = {
    "is_encoder_decoder": True,
    "is_decoder": False,
    "tie_word_embeddings": True,
    "normalize_before": False,
    "add_final_layer_norm": False,
}
READ_KEYS = frozenset(
    {
        *EQUAL,
        "activation_function",
        "scale_embedding",
        "decoder_start_token_id",
        "num_hidden_layers",
        # Dropout, and what older files say of a class whose choices are fixed.
        "activation_dropout",
        "classif_dropout",
        "encoder_layerdrop",
        "decoder_layerdrop",
        "normalize_embedding",
        "static_position_embeddings",
        "num_labels",
        "_num_labels",
        # Of generation.
        "forced_bos_token_id",
        "forced_eos_token_id",
        "no_repeat_ngram_size",
        "bad_words_ids",
    }
)
TIED = dict.fromkeys(
    ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
    "model.shared.weight",
)
BIAS = "unembed_bias"


def _with_bias(leaf: str, tensor: str, kernel: str = "weight") -> dict[str, str]:
    """A matrix and its bias."""
    return {leaf: f"{tensor}.{kernel}", f"{leaf}_bias": f"{tensor}.bias"}


def _norm(leaf: str, tensor: str) -> dict[str, str]:
    return {f"{leaf}/scale": f"{tensor}.weight", f"{leaf}/bias": f"{tensor}.bias"}


def _attention(leaf: str, tensor: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for x, name in zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj"), strict=True):
        names |= _with_bias(f"{leaf}/{x}", f"{tensor}.{name}")
    return names


def _stack(stack: str) -> dict[str, str]:
    """The names of the blocks of one stack."""
    block = f"model.{stack}.layers.{{}}"
    names = _attention(f"{stack}/attn", f"{block}.self_attn")
    names |= _norm(f"{stack}/attn_norm", f"{block}.self_attn_layer_norm")
    if stack == "decoder":
        names |= _attention(f"{stack}/cross/attn", f"{block}.encoder_attn")
        names |= _norm(f"{stack}/cross_norm", f"{block}.encoder_attn_layer_norm")
    names |= _with_bias(f"{stack}/mlp/up", f"{block}.fc1")
    names |= _with_bias(f"{stack}/mlp/down", f"{block}.fc2")
    return names | _norm(f"{stack}/mlp_norm", f"{block}.final_layer_norm")


def naming(config: TransformerEncoderDecoderConfig) -> Naming:
    """The names of the tensors."""
    names = {"embed/tokens": "model.shared.weight", BIAS: "final_logits_bias"}
    for stack in ("encoder", "decoder"):
        names[f"embed/{stack}_positions"] = f"model.{stack}.embed_positions.weight"
        names |= _norm(f"{stack}_embed_norm", f"model.{stack}.layernorm_embedding")
        names |= _stack(stack)
    return Naming(names, own_numbers=True, rows=(BIAS,))


def reader(start: int, pad: int, eos: int, choices: Keys) -> Any:
    """`Other.read` of a class.

    Args:
      start, pad, eos: the ids that it takes where a config.json says none.
      choices: fields that all its models have.
    """

    def read(raw: Keys) -> dict[str, Any]:
        for key, like in EQUAL.items():
            if raw.get(key, raw[like]) not in (None, raw[like]):
                raise UserError(
                    f"config.json has {key} = {raw[key]!r} and {like} = {raw[like]!r}: only equal "
                    "ones are supported."
                )
        act = raw.get("activation_function", "gelu")
        if not isinstance(act, str) or act not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f"config.json has activation_function {act!r}: supported are {known}.")
        begin = raw.get("decoder_start_token_id", start)
        if begin not in (raw.get("eos_token_id", eos), raw.get("pad_token_id", pad)):
            raise UserError(
                f"config.json has decoder_start_token_id = {begin!r}: only that of eos_token_id or "
                "of pad_token_id is supported."
            )
        return choices | {
            "activation": ACTIVATIONS[act],
            "scale_embeddings": bool(raw.get("scale_embedding", False)),
            "target_start": "eos" if begin == raw.get("eos_token_id", eos) else "pad",
        }

    return read


def write(config: TransformerEncoderDecoderConfig, tokenizer: Tokenizer) -> Keys:
    """The keys that are not those of `FIELDS`.

    transformers has ids of its own published models where a config.json lacks one, and would force
    such an id at the end of a target.
    """
    start = start_id(tokenizer, config)
    return {
        "decoder_attention_heads": config.num_heads,
        "decoder_ffn_dim": config.d_ff,
        "activation_function": next(
            key for key, name in ACTIVATIONS.items() if name == config.activation
        ),
        "scale_embedding": config.scale_embeddings,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id if tokenizer.pad_id >= 0 else start,
        "decoder_start_token_id": start,
        "forced_eos_token_id": None,
    }


MARIAN = Other(
    model_type="marian",
    kind="transformer_encoder_decoder",
    naming=naming,
    unused=(*TIED, "model.encoder.embed_positions.", "model.decoder.embed_positions."),
    tied=TIED,
    generates=True,
    fields=FIELDS,
    fixed=FIXED | {"share_encoder_decoder_embeddings": True},
    config=TransformerEncoderDecoderConfig,
    read_keys=READ_KEYS,
    architecture=lambda config: "MarianMTModel",
    read=reader(58100, 58100, 0, {"positions": "sinusoidal", "embed_norm": False}),
    write=write,
    ours=ours,
    theirs=theirs,
    use=use,
    noun="An encoder-decoder",
    pipeline=PIPELINE,
)
