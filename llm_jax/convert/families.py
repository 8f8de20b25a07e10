"""Which Hugging Face architecture a `ModelConfig` has: a table of options.

An option describes one choice of the architecture, computed from `ModelConfig`. A family is a
`model_type` of transformers with the values that it supports for each option. Options that it does
not list must be as in `LLAMA`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from llm_jax.config import ModelConfig, MoeConfig, UserError


def options(config: ModelConfig) -> dict[str, object]:
    """Field name of `ModelConfig` → the choice that decides the family."""
    biases = {(False, False): "none", (True, False): "qkv", (True, True): "qkv and out"}
    local = {window is not None for window in config.windows}
    square = config.num_heads * config.head_dim == config.d_model
    divides = config.d_model % config.num_heads == 0
    scale = config.attn_scale
    return {
        "activation": config.activation,
        "norm": config.norm,
        "post_norm": config.post_norm,
        "norm_plus_one": config.norm_plus_one,
        "qk_norm": config.qk_norm,
        "positions": config.positions,
        "qkv_bias and out_bias": biases.get((config.qkv_bias, config.out_bias), "out alone"),
        "mlp_bias": config.mlp_bias,
        "scale_embeddings": config.scale_embeddings,
        "attn_scale": "default" if scale is None else "1/sqrt(n)" if _whole(scale) else "free",
        "attn_softcap": config.attn_softcap is not None,
        "logit_softcap": config.logit_softcap is not None,
        "sliding_window": "some layers" if len(local) > 1 else "all" if True in local else "none",
        "num_kv_heads": "fewer" if config.num_kv_heads < config.num_heads else "num_heads",
        "head_dim": "d_model/num_heads" if square else "free" if divides else "indivisible",
        "moe": _experts(config),
    }


def _experts(config: ModelConfig) -> str:
    """The kind of experts: Mixtral's, Qwen3's (which need not be in each layer), or others."""
    moe = config.moe
    if moe is None:
        return "none"
    mixtral = MoeConfig(experts=moe.experts, top_k=moe.top_k, d_ff=moe.d_ff)
    computed = dataclasses.replace(moe, balance_loss=0.0, z_loss=0.0)
    if computed == mixtral:
        return "mixtral"
    in_each = dataclasses.replace(computed, renormalise=True, dense_layers=0, every=1)
    return "qwen" if in_each == mixtral else "free"


def _whole(scale: float) -> bool:
    """Whether the factor on q·k is 1/sqrt of a whole number, as Gemma 2's config stores it."""
    return abs(scale**-2 - round(scale**-2)) < 1e-6


LLAMA: dict[str, tuple[object, ...]] = {
    "activation": ("swiglu", "geglu"),
    "norm": ("rmsnorm",),
    "post_norm": (False,),
    "norm_plus_one": (False,),
    "qk_norm": (False,),
    "positions": ("rope",),
    "qkv_bias and out_bias": ("none", "qkv and out"),
    "mlp_bias": (False,),
    "scale_embeddings": (False,),
    "attn_scale": ("default",),
    "attn_softcap": (False,),
    "logit_softcap": (False,),
    "sliding_window": ("none",),
    "num_kv_heads": ("fewer", "num_heads"),
    "head_dim": ("d_model/num_heads", "free"),
    "moe": ("none",),
}
ANY_HEAD_DIM = ("d_model/num_heads", "free", "indivisible")
GEMMA: dict[str, tuple[object, ...]] = {
    "activation": ("geglu",),
    "norm_plus_one": (True,),
    "scale_embeddings": (True,),
}


@dataclass(frozen=True)
class Family:
    """One `model_type` of transformers."""

    model_type: str
    architecture: str
    differs: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def misfits(self, config: ModelConfig) -> dict[str, object]:
        """The options of `config` that this family does not support."""
        able = LLAMA | self.differs
        return {name: value for name, value in options(config).items() if value not in able[name]}


FAMILIES = (
    Family("llama", "LlamaForCausalLM", {"mlp_bias": (False, True)}),
    Family(
        "qwen3",
        "Qwen3ForCausalLM",
        {
            "qk_norm": (True,),
            "sliding_window": ("none", "all", "some layers"),
            "head_dim": ANY_HEAD_DIM,
        },
    ),
    Family(
        "qwen2",
        "Qwen2ForCausalLM",
        {
            "qkv_bias and out_bias": ("qkv",),
            "sliding_window": ("none", "all", "some layers"),
            "head_dim": ANY_HEAD_DIM,
        },
    ),
    Family(
        "mistral",
        "MistralForCausalLM",
        {
            "qkv_bias and out_bias": ("none",),
            "sliding_window": ("none", "all"),
            "head_dim": ANY_HEAD_DIM,
        },
    ),
    Family(
        "ministral",
        "MinistralForCausalLM",
        {
            "qkv_bias and out_bias": ("none",),
            "sliding_window": ("some layers",),
            "head_dim": ANY_HEAD_DIM,
        },
    ),
    Family(
        "mixtral",
        "MixtralForCausalLM",
        {
            "qkv_bias and out_bias": ("none",),
            "sliding_window": ("none", "all"),
            "head_dim": ANY_HEAD_DIM,
            "moe": ("mixtral",),
        },
    ),
    Family(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        {
            "qk_norm": (True,),
            "sliding_window": ("none", "all"),
            "head_dim": ANY_HEAD_DIM,
            "moe": ("mixtral", "qwen"),
        },
    ),
    Family("gemma", "GemmaForCausalLM", {**GEMMA, "head_dim": ANY_HEAD_DIM}),
    Family(
        "gemma2",
        "Gemma2ForCausalLM",
        {
            **GEMMA,
            "post_norm": (True,),
            "attn_scale": ("default", "1/sqrt(n)"),
            "attn_softcap": (False, True),
            "logit_softcap": (False, True),
            "sliding_window": ("none", "all", "some layers"),
        },
    ),
    Family(
        "gpt2",
        "GPT2LMHeadModel",
        {
            "activation": ("gelu", "gelu_exact"),
            "norm": ("layernorm",),
            "positions": ("learned",),
            "qkv_bias and out_bias": ("qkv and out",),
            "mlp_bias": (True,),
            "num_kv_heads": ("num_heads",),
            "head_dim": ("d_model/num_heads",),
        },
    ),
)


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
    family = min(FAMILIES, key=lambda one: len(one.misfits(config)))
    wrong = family.misfits(config)
    if wrong:
        named = ", ".join(f"model.{name} ({_shown(config, name, v)})" for name, v in wrong.items())
        raise UserError(
            f"No Hugging Face architecture has this model's options: the nearest, "
            f"{family.architecture}, lacks {named}."
        )
    return family


def _shown(config: ModelConfig, name: str, value: object) -> object:
    known = {item.name for item in dataclasses.fields(config)}
    return repr(getattr(config, name)) if name in known else value


def family_named(model_type: object) -> Family:
    """The family of a `model_type`; raises `UserError` for one that is not in the table."""
    for family in FAMILIES:
        if family.model_type == model_type:
            return family
    known = ", ".join(family.model_type for family in FAMILIES)
    raise UserError(f"config.json has model_type {model_type!r}: supported are {known}.")
