"""The families of Hugging Face that can be read and written, one small file each."""

from __future__ import annotations

import dataclasses

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert.families.apertus import APERTUS
from llm_jax.convert.families.arcee import ARCEE
from llm_jax.convert.families.bloom import BLOOM
from llm_jax.convert.families.cohere import COHERE, COHERE2
from llm_jax.convert.families.ernie import ERNIE4_5
from llm_jax.convert.families.exaone4 import EXAONE4
from llm_jax.convert.families.falcon import FALCON
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.gemma import GEMMA, GEMMA2, GEMMA3
from llm_jax.convert.families.glm import GLM, GLM4
from llm_jax.convert.families.gpt2 import GPT2
from llm_jax.convert.families.gpt_neox import GPT_NEOX
from llm_jax.convert.families.gptj import GPTJ
from llm_jax.convert.families.granite import GRANITE
from llm_jax.convert.families.hunyuan import HUNYUAN
from llm_jax.convert.families.llama import LLAMA
from llm_jax.convert.families.mistral import MINISTRAL, MINISTRAL3, MISTRAL, MIXTRAL
from llm_jax.convert.families.mpt import MPT
from llm_jax.convert.families.names import BERT
from llm_jax.convert.families.nanochat import NANOCHAT
from llm_jax.convert.families.nemotron import NEMOTRON
from llm_jax.convert.families.olmo import OLMO, OLMO2, OLMO3
from llm_jax.convert.families.opt import OPT
from llm_jax.convert.families.phi import PHI, PHI3
from llm_jax.convert.families.qwen import QWEN2, QWEN3, QWEN3_MOE
from llm_jax.convert.families.seed_oss import SEED_OSS
from llm_jax.convert.families.smollm3 import SMOLLM3
from llm_jax.convert.families.stablelm import STABLELM
from llm_jax.convert.families.starcoder2 import STARCODER2

FAMILIES = (
    LLAMA, QWEN3, QWEN2, MISTRAL, MINISTRAL, MIXTRAL, QWEN3_MOE, GEMMA, GEMMA2, GPT2,
    GEMMA3, PHI3, MINISTRAL3, SEED_OSS, ARCEE, GRANITE, SMOLLM3, OLMO, OLMO2, OLMO3, EXAONE4,
    APERTUS, HUNYUAN, ERNIE4_5, COHERE, COHERE2, STABLELM, GLM, GLM4, NEMOTRON,
    PHI, GPTJ, GPT_NEOX, STARCODER2, FALCON, OPT, BLOOM, MPT, NANOCHAT,
)  # fmt: skip
"""A model is exported as the first of those that can express it."""

RECURRENT = (
    "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear", "lfm2",
    "lfm2_moe", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe",
    "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2",
)  # fmt: skip
"""Model types whose layers, all or some of them, are not attention."""


def as_exported(config: ModelConfig) -> ModelConfig:
    """`config` with a bias on the output projection, if q, k and v alone have biases.

    Llama has all four biases or none. Qwen2 has these three, but for that model type AutoTokenizer
    always uses Qwen's own byte-level tokenizer class, which gives other ids with our files. A model
    that no family has with the fourth bias stays as it is.
    """
    if not config.qkv_bias or config.out_bias:
        return config
    added = dataclasses.replace(config, biases=("qkv", "out", *config.biases[1:]))
    return added if any(not family.misfits(added) for family in FAMILIES) else config


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
    also = "; state-space and hybrid models are not" if model_type in RECURRENT else ""
    raise UserError(f"config.json has model_type {model_type!r}: supported are {known}{also}.")


def naming_of(model_type: str) -> Naming:
    """The names of the tensors of a `model_type`, BERT's too."""
    return BERT if model_type == "bert" else family_named(model_type).naming
