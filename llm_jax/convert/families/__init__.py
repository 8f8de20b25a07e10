"""The families of Hugging Face that can be read and written, one small file each."""

from __future__ import annotations

import dataclasses

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.gemma import GEMMA, GEMMA2
from llm_jax.convert.families.gpt2 import GPT2
from llm_jax.convert.families.llama import LLAMA
from llm_jax.convert.families.mistral import MINISTRAL, MISTRAL, MIXTRAL
from llm_jax.convert.families.names import BERT
from llm_jax.convert.families.qwen import QWEN2, QWEN3, QWEN3_MOE

FAMILIES = (
    LLAMA, QWEN3, QWEN2, MISTRAL, MINISTRAL, MIXTRAL, QWEN3_MOE, GEMMA, GEMMA2, GPT2,
)  # fmt: skip
"""A model is exported as the first of those that can express it."""


def as_exported(config: ModelConfig) -> ModelConfig:
    """`config` with a bias on the output projection, if q, k and v alone have biases.

    Llama has all four biases or none. Qwen2 has these three, but for that model type AutoTokenizer
    always uses Qwen's own byte-level tokenizer class, which gives other ids with our files.
    """
    if not config.qkv_bias or config.out_bias:
        return config
    return dataclasses.replace(config, biases=("qkv", "out", *config.biases[1:]))


def why_not_exportable(config: ModelConfig) -> str | None:
    """The error with which `export` would refuse this model; None if it can be exported."""
    try:
        family_of(as_exported(config))
    except UserError as error:
        return str(error)
    return None


def family_of(config: ModelConfig) -> Family:
    """The first family that supports every option of `config`.

    Raises:
      UserError: there is none; the message names the options that the nearest one lacks.
    """
    if config.kind != "decoder":
        raise UserError(
            f"No Hugging Face architecture has this model's options: model.kind is "
            f"{config.kind!r}, which only this package can run."
        )
    found: list[tuple[int, Family]] = []
    for family in FAMILIES:
        wrong = family.misfits(config)
        if not wrong:
            return family
        found.append((len(wrong), family))
    nearest = min(found, key=lambda one: one[0])[1]
    named = ", ".join(
        f"model.{name} ({getattr(config, name)!r})" for name in nearest.misfits(config)
    )
    raise UserError(
        f"No Hugging Face architecture has this model's options: the nearest, "
        f"{nearest.architecture}, lacks {named}."
    )


def family_named(model_type: object) -> Family:
    """The family of a `model_type`; raises `UserError` for one that is not in the table."""
    for family in FAMILIES:
        if family.model_type == model_type:
            return family
    known = ", ".join(family.model_type for family in FAMILIES)
    raise UserError(f"config.json has model_type {model_type!r}: supported are {known}.")


def naming_of(model_type: str) -> Naming:
    """The names of the tensors of a `model_type`, BERT's too."""
    return BERT if model_type == "bert" else family_named(model_type).naming
