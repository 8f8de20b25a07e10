"""Encoders with heads of labels, answers or sentence vectors: their classes of transformers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import EncoderConfig, ModernEncoderConfig, UserError
from llm_jax.config.heads import MOST_LABELS, NAMED, Head
from llm_jax.convert.families.family import Naming
from llm_jax.convert.others.other import Keys, Other
from llm_jax.convert.parity import hidden_states
from llm_jax.models.protocol import model_of

Encoder = EncoderConfig | ModernEncoderConfig
CLASSES: dict[Head, str] = {
    "classify": "ForSequenceClassification",
    "tag": "ForTokenClassification",
    "answer": "ForQuestionAnswering",
    "embed": "Model",
}
"""Head → end of the name of its class."""
KINDS: dict[Head, tuple[str, str]] = {
    "classify": ("An encoder that labels texts", "text-classification"),
    "tag": ("An encoder that labels words", "token-classification"),
    "answer": ("An encoder that finds answers", "question-answering"),
    "embed": ("An encoder that gives vectors of sentences", "sentence-similarity"),
}
"""Head → noun and pipeline (`Other`)."""


def class_of(model: str, config: Encoder, masked: str) -> str:
    """The class of transformers.

    Args:
      model: beginning of its name, "Bert" or "ModernBert".
      masked: the class for hidden tokens.
    """
    return masked if config.head == "masked" else model + CLASSES[config.head]


def read_head(raw: Keys, model: str) -> dict[str, Any]:
    """`head` and `labels` of a config.json.

    Raises:
      UserError: labels are not numbered from 0, or the head has several labels for a text, or none.
    """
    named = (raw.get("architectures") or [""])[0]
    ends = {model + end: head for head, end in CLASSES.items()}
    head = ends.get(str(named), "masked")
    if head not in NAMED:
        return {"head": head}
    if (problem := raw.get("problem_type")) not in (None, "single_label_classification"):
        raise UserError(
            f"config.json has problem_type {problem!r}: only one label for each text is supported."
        )
    labels = raw.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    if not isinstance(labels, dict) or len(labels) > MOST_LABELS:
        raise UserError(f"config.json has id2label {str(labels)[:60]!r}: it must name labels.")
    names = [labels.get(str(i)) for i in range(len(labels))]
    if len(labels) < 2 or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            f"config.json has id2label {str(labels)[:60]!r}: give two labels or more, by numbers "
            "from 0."
        )
    return {"head": head, "labels": tuple(names)}


def label_keys(config: Encoder) -> Keys:
    """The keys of config.json that name labels."""
    if config.head not in NAMED:
        return {}
    return {
        "id2label": {str(i): name for i, name in enumerate(config.labels)},
        "label2id": {name: i for i, name in enumerate(config.labels)},
    }


def naming_with(naming: Naming, config: Encoder, prefix: str) -> Naming:
    """The names of the tensors of `config`.

    Args:
      naming: with the names of the model for hidden tokens.
      prefix: of names, which the class of `embed` does not have.
    """
    if config.head == "embed":
        names = {path: name.removeprefix(prefix) for path, name in naming.names.items()}
        return dataclasses.replace(naming, names=names)
    bert_answers = config.head == "answer" and isinstance(config, EncoderConfig)
    out = "qa_outputs" if bert_answers else "classifier"
    more = {
        "labels/pool": f"{prefix}pooler.dense.weight",
        "labels/pool_bias": f"{prefix}pooler.dense.bias",
        "labels/out": f"{out}.weight",
        "labels/out_bias": f"{out}.bias",
    }
    return dataclasses.replace(naming, names={**naming.names, **more})


def with_head(other: Other, config: Encoder) -> Other:
    """The family as an architecture with a head has it."""
    if config.head == "masked":
        return other
    noun, pipeline = KINDS[config.head]
    return dataclasses.replace(
        other, ours=ours, theirs=theirs, use=USES[config.head], noun=noun, pipeline=pipeline
    )


def ours(params: Any, config: Encoder, tokens_BT: np.ndarray) -> np.ndarray:
    """Outputs of the head, last hidden states for `embed`, with all matmuls in full precision."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(_forward(params, jnp.asarray(tokens_BT), config))


@functools.partial(jax.jit, static_argnames="config")
def _forward(params: dict[str, Any], tokens_BT: jax.Array, config: Encoder) -> jax.Array:
    x_BTD = hidden_states(params, tokens_BT, config)
    if config.head == "embed":
        return x_BTD
    made: jax.Array = model_of(config).label_outputs(x_BTD, params, config)
    return made


def theirs(model: Any, tokens_BT: np.ndarray) -> np.ndarray:
    """The same of a model of transformers."""
    import torch

    made = model(torch.from_numpy(tokens_BT.astype(np.int64)))
    if "start_logits" in made:
        found: np.ndarray = torch.stack([made.start_logits, made.end_logits], -1).numpy()
        return found
    plain: np.ndarray = (made.logits if "logits" in made else made.last_hidden_state).numpy()
    return plain


def _use_labels(prompt: str) -> list[str]:
    return [
        f'inputs = tokenizer({prompt!r}, return_tensors="pt")',
        "print(model.config.id2label[model(**inputs).logits[0].argmax().item()])",
    ]


def _use_tags(prompt: str) -> list[str]:
    return [
        f'inputs = tokenizer({prompt!r}, return_tensors="pt")',
        "print([model.config.id2label[i] for i in model(**inputs).logits[0].argmax(-1).tolist()])",
    ]


def _use_answers(prompt: str) -> list[str]:
    return [
        f'inputs = tokenizer("a question", {prompt!r}, return_tensors="pt")',
        "made = model(**inputs)",
        "begin, end = made.start_logits[0].argmax(), made.end_logits[0].argmax()",
        'print(tokenizer.decode(inputs["input_ids"][0, begin : end + 1]))',
    ]


def _use_vectors(prompt: str) -> list[str]:
    return [
        f'inputs = tokenizer([{prompt!r}], return_tensors="pt")',
        "print(model(**inputs).last_hidden_state.mean(1))  # of one text, without padding",
    ]


USES: dict[Head, Callable[[str], list[str]]] = {
    "classify": _use_labels,
    "tag": _use_tags,
    "answer": _use_answers,
    "embed": _use_vectors,
}
"""Head → lines of the model card."""
