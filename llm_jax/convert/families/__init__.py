"""The families of Hugging Face that can be read and written, one small file each."""

from __future__ import annotations

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert.equivalent import forms
from llm_jax.convert.families.apertus import APERTUS
from llm_jax.convert.families.arcee import ARCEE
from llm_jax.convert.families.bloom import BLOOM
from llm_jax.convert.families.cohere import COHERE, COHERE2
from llm_jax.convert.families.deepseek import DEEPSEEK_V2, DEEPSEEK_V3
from llm_jax.convert.families.ernie import ERNIE4_5
from llm_jax.convert.families.exaone4 import EXAONE4
from llm_jax.convert.families.falcon import FALCON
from llm_jax.convert.families.family import Family, Naming
from llm_jax.convert.families.gemma import GEMMA, GEMMA2, GEMMA3
from llm_jax.convert.families.glm import GLM, GLM4
from llm_jax.convert.families.glm_moe import GLM4_MOE
from llm_jax.convert.families.gpt2 import GPT2
from llm_jax.convert.families.gpt_neox import GPT_NEOX
from llm_jax.convert.families.gpt_neox_japanese import GPT_NEOX_JAPANESE
from llm_jax.convert.families.gpt_oss import GPT_OSS
from llm_jax.convert.families.gptj import GPTJ
from llm_jax.convert.families.granite import GRANITE
from llm_jax.convert.families.granite_moe import GRANITE_MOE
from llm_jax.convert.families.hunyuan import HUNYUAN
from llm_jax.convert.families.llama import LLAMA
from llm_jax.convert.families.mistral import MINISTRAL, MINISTRAL3, MISTRAL, MIXTRAL
from llm_jax.convert.families.mpt import MPT
from llm_jax.convert.families.nanochat import NANOCHAT
from llm_jax.convert.families.nemotron import NEMOTRON
from llm_jax.convert.families.olmo import OLMO, OLMO2, OLMO3
from llm_jax.convert.families.olmoe import OLMOE
from llm_jax.convert.families.opt import OPT
from llm_jax.convert.families.phi import PHI, PHI3
from llm_jax.convert.families.qwen import QWEN2, QWEN3, QWEN3_MOE
from llm_jax.convert.families.qwen_moe import QWEN2_MOE
from llm_jax.convert.families.seed_oss import SEED_OSS
from llm_jax.convert.families.smollm3 import SMOLLM3
from llm_jax.convert.families.stablelm import STABLELM
from llm_jax.convert.families.starcoder2 import STARCODER2

FAMILIES = (
    LLAMA, QWEN3, QWEN2, MISTRAL, MINISTRAL, MIXTRAL, QWEN3_MOE, GEMMA, GEMMA2, GPT2,
    GEMMA3, PHI3, MINISTRAL3, SEED_OSS, ARCEE, GRANITE, SMOLLM3, OLMO, OLMO2, OLMO3, EXAONE4,
    APERTUS, HUNYUAN, ERNIE4_5, COHERE, COHERE2, STABLELM, GLM, GLM4, NEMOTRON,
    PHI, GPTJ, GPT_NEOX, STARCODER2, FALCON, OPT, BLOOM, MPT, NANOCHAT,
    QWEN2_MOE, OLMOE, DEEPSEEK_V2, DEEPSEEK_V3, GPT_OSS, GLM4_MOE, GRANITE_MOE,
    GPT_NEOX_JAPANESE,
)  # fmt: skip
"""A model is exported as the first of those that can express it."""

RECURRENT = (
    "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear", "lfm2",
    "lfm2_moe", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe",
    "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2",
)  # fmt: skip
"""Model types whose layers, all or some of them, are not attention."""


def as_exported(config: ModelConfig) -> ModelConfig:
    """The first of the `forms` of `config` that a family has; `config` itself if there is none."""
    for form in forms(config):
        if any(not family.misfits(form) for family in FAMILIES):
            return form
    return config


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
    """The names of the tensors of a `model_type`."""
    return family_named(model_type).naming
