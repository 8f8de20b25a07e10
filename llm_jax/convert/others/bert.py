"""BERT: `BertForMaskedLM`, `BertForPreTraining` with its second head, and fine-tuned classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_jax.config import EncoderConfig, UserError
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
    "types": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
}
ACTIVATIONS = {"gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}
NAMING = Naming(
    {
        "embed/tokens": "bert.embeddings.word_embeddings.weight",
        "embed/positions": "bert.embeddings.position_embeddings.weight",
        "embed/types": "bert.embeddings.token_type_embeddings.weight",
        "embed_norm/scale": "bert.embeddings.LayerNorm.weight",
        "embed_norm/bias": "bert.embeddings.LayerNorm.bias",
        "blocks/attn/q": "bert.encoder.layer.{}.attention.self.query.weight",
        "blocks/attn/q_bias": "bert.encoder.layer.{}.attention.self.query.bias",
        "blocks/attn/k": "bert.encoder.layer.{}.attention.self.key.weight",
        "blocks/attn/k_bias": "bert.encoder.layer.{}.attention.self.key.bias",
        "blocks/attn/v": "bert.encoder.layer.{}.attention.self.value.weight",
        "blocks/attn/v_bias": "bert.encoder.layer.{}.attention.self.value.bias",
        "blocks/attn/o": "bert.encoder.layer.{}.attention.output.dense.weight",
        "blocks/attn/o_bias": "bert.encoder.layer.{}.attention.output.dense.bias",
        "blocks/attn_norm/scale": "bert.encoder.layer.{}.attention.output.LayerNorm.weight",
        "blocks/attn_norm/bias": "bert.encoder.layer.{}.attention.output.LayerNorm.bias",
        "blocks/mlp/up": "bert.encoder.layer.{}.intermediate.dense.weight",
        "blocks/mlp/up_bias": "bert.encoder.layer.{}.intermediate.dense.bias",
        "blocks/mlp/down": "bert.encoder.layer.{}.output.dense.weight",
        "blocks/mlp/down_bias": "bert.encoder.layer.{}.output.dense.bias",
        "blocks/mlp_norm/scale": "bert.encoder.layer.{}.output.LayerNorm.weight",
        "blocks/mlp_norm/bias": "bert.encoder.layer.{}.output.LayerNorm.bias",
        "head/dense": "cls.predictions.transform.dense.weight",
        "head/dense_bias": "cls.predictions.transform.dense.bias",
        "head/norm/scale": "cls.predictions.transform.LayerNorm.weight",
        "head/norm/bias": "cls.predictions.transform.LayerNorm.bias",
        "head/bias": "cls.predictions.bias",
        "pair/pool": "bert.pooler.dense.weight",
        "pair/pool_bias": "bert.pooler.dense.bias",
        "pair/out": "cls.seq_relationship.weight",
        "pair/out_bias": "cls.seq_relationship.bias",
    }
)


def architecture(config: EncoderConfig) -> str:
    """The class of transformers."""
    masked = "BertForPreTraining" if config.next_sentence else "BertForMaskedLM"
    return class_of("Bert", config, masked)


def read(raw: Keys) -> dict[str, Any]:
    """Activation and heads; raises `UserError` for an activation that is not supported."""
    act = raw.get("hidden_act", "gelu")
    if act not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"config.json has hidden_act {act!r}: supported are {known}.")
    pair = "BertForPreTraining" in (raw.get("architectures") or [])
    return {"activation": ACTIVATIONS[act], "next_sentence": pair} | read_head(raw, "Bert")


def write(config: EncoderConfig, tokenizer: Tokenizer) -> Keys:
    """The keys that are not those of `FIELDS`."""
    act = next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)
    return {
        "hidden_act": act,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": pad_id(tokenizer),
        **label_keys(config),
    }


def theirs(model: Any, tokens_BT: np.ndarray) -> np.ndarray:
    """Logits of the tokens, and those of the halves if the model has them."""
    import torch

    made = model(torch.from_numpy(tokens_BT.astype(np.int64)))
    if "seq_relationship_logits" not in made:
        return plain_masked(made.logits.numpy())
    return plain_masked(made.prediction_logits.numpy(), made.seq_relationship_logits.numpy())


BERT = Other(
    model_type="bert",
    kind="encoder",
    naming=lambda config: naming_with(NAMING, config, "bert."),
    unused=(
        "cls.predictions.decoder.",
        "bert.embeddings.position_ids",
        "embeddings.position_ids",
    ),
    tied={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    heads=("bert.pooler.", "pooler.", "cls.seq_relationship."),
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    fields=FIELDS,
    fixed={
        "is_decoder": False,
        "add_cross_attention": False,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
    },
    config=EncoderConfig,
    architecture=architecture,
    read=read,
    write=write,
    ours=our_masked,
    theirs=theirs,
    use=masked_use,
    noun="An encoder for masked tokens",
    pipeline=MASKED,
)
