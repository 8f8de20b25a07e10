"""DeepSeek V2 and V3 (DeepSeek-AI 2024): latent attention, groups of experts, shared experts.

A head's last `qk_rope_head_dim` numbers are rotated, in pairs that are neighbours on file.
"""

from __future__ import annotations

import dataclasses
import math

from llm_jax.config import LatentConfig, ModelConfig, MoeConfig, UserError, YarnRope
from llm_jax.convert.equivalent import BALANCE_RATE
from llm_jax.convert.families import names
from llm_jax.convert.families.experts import SHARED_EXPERTS, SPARSE
from llm_jax.convert.families.family import Family, Fields, Keys, Naming, Part
from llm_jax.convert.families.parts import activation
from llm_jax.convert.families.rope import rope

LATENT_NAMES = {
    "blocks/attn/q": "model.layers.{}.self_attn.q_proj.weight",
    "blocks/attn/q_down": "model.layers.{}.self_attn.q_a_proj.weight",
    "blocks/attn/q_norm/scale": "model.layers.{}.self_attn.q_a_layernorm.weight",
    "blocks/attn/q_up": "model.layers.{}.self_attn.q_b_proj.weight",
    "blocks/attn/kv_down": "model.layers.{}.self_attn.kv_a_proj_with_mqa.weight",
    "blocks/attn/k_rope": "model.layers.{}.self_attn.kv_a_proj_with_mqa.weight",
    "blocks/attn/kv_norm/scale": "model.layers.{}.self_attn.kv_a_layernorm.weight",
    "blocks/attn/kv_up": "model.layers.{}.self_attn.kv_b_proj.weight",
}
SCORE_BIAS = {"blocks/moe/bias": "model.layers.{}.mlp.gate.e_score_correction_bias"}
EXPERTS = {
    "experts": "n_routed_experts",
    "top_k": "num_experts_per_tok",
    "d_ff": "moe_intermediate_size",
    "scale": "routed_scaling_factor",
    "dense_layers": "first_k_dense_replace",
}
"""Field of `MoeConfig` → key of config.json."""
GROUPS = {"groups": "n_group", "top_groups": "topk_group"}


def _read_experts(given: Keys) -> Fields:
    for key in (*EXPERTS.values(), "n_shared_experts"):
        if given[key] is None:
            raise UserError(f"config.json has {key} = None: a whole number is needed.")
    fields = {name: given[key] for name, key in EXPERTS.items()}
    shared = given["n_shared_experts"] * given["moe_intermediate_size"]
    return fields | {"shared_d_ff": shared}


def _write_experts(config: ModelConfig) -> Keys:
    moe = config.moe
    if moe is None:
        return {"n_shared_experts": 1, "num_experts_per_tok": 1}
    made = {key: getattr(moe, name) for name, key in EXPERTS.items()}
    return made | {"n_shared_experts": max(1, moe.shared_d_ff // moe.d_ff)}


def sigmoid_experts(dense_layers: int, scale: float, experts: int, groups: int) -> Part:
    """Experts by sigmoids and a bias on the choice, as in V3; the arguments are defaults."""

    def read(given: Keys) -> Fields:
        groups: Fields = {name: given[key] or 1 for name, key in GROUPS.items()}
        return {
            "moe": MoeConfig(
                **_read_experts(given),
                **groups,
                renormalise=given["norm_topk_prob"],
                router="sigmoid",
                balance_rate=BALANCE_RATE,
            )
        }

    def write(config: ModelConfig) -> Keys:
        moe = config.moe
        chosen = {} if moe is None else {key: getattr(moe, name) for name, key in GROUPS.items()}
        renormalise = moe is None or moe.renormalise
        return _write_experts(config) | chosen | {"norm_topk_prob": renormalise}

    return Part(
        read,
        write,
        {
            "n_routed_experts": experts,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 2048,
            "routed_scaling_factor": scale,
            "first_k_dense_replace": dense_layers,
            "n_shared_experts": 1,
            "n_group": groups,
            "topk_group": max(1, groups // 2),
            "norm_topk_prob": True,
        },
    )


def _read_softmax(given: Keys) -> Fields:
    """V2 chooses among groups only if `topk_method` says so."""
    method, groups = given["topk_method"], {}
    if method == "group_limited_greedy":
        groups = {name: given[key] for name, key in GROUPS.items()}
    elif method != "greedy":
        raise UserError(
            f"config.json has topk_method {method!r}: supported are greedy, group_limited_greedy."
        )
    if None in groups.values():
        raise UserError(
            f"config.json has topk_method {method!r} without {' and '.join(GROUPS.values())}: "
            "give both."
        )
    return {"moe": MoeConfig(**_read_experts(given), **groups, renormalise=False)}


def _write_softmax(config: ModelConfig) -> Keys:
    moe, made = config.moe, _write_experts(config)
    if moe is None or moe.top_groups == moe.groups:
        return made | {"topk_method": "greedy"}
    chosen = {key: getattr(moe, name) for name, key in GROUPS.items()}
    return made | chosen | {"topk_method": "group_limited_greedy"}


def _read_latent(given: Keys) -> Fields:
    rotated = given["qk_rope_head_dim"]
    latent = LatentConfig(
        kv_rank=given["kv_lora_rank"],
        q_rank=given["q_lora_rank"],
        rope_dim=rotated,
        value_dim=given["v_head_dim"],
    )
    return {"latent": latent, "head_dim": given["qk_nope_head_dim"] + rotated}


def _write_latent(config: ModelConfig) -> Keys:
    latent = config.latent
    if latent is None:
        return {}
    return {
        "kv_lora_rank": latent.kv_rank,
        "q_lora_rank": latent.q_rank,
        "qk_rope_head_dim": latent.rope_dim,
        "v_head_dim": latent.value_dim,
        "qk_nope_head_dim": config.head_dim - latent.rope_dim,
        "head_dim": latent.rope_dim,  # what transformers calls so
    }


LATENT = Part(
    _read_latent,
    _write_latent,
    {
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "head_dim": None,  # what transformers writes, too, and does not read
        "qk_head_dim": None,
    },
)


def _scaled_rope() -> Part:
    """YaRN whose `mscale_all_dim` m multiplies scores, too: by (0.1·m·ln(factor) + 1)²."""
    plain = rope()

    def read(given: Keys) -> Fields:
        fields = plain.read(given)
        scaling = fields.get("rope_scaling")
        found = given["rope_parameters"] or given["rope_scaling"] or {}
        all_dim = found.get("mscale_all_dim")
        if isinstance(scaling, YarnRope) and all_dim and scaling.factor > 1:
            size = given["qk_nope_head_dim"] + given["qk_rope_head_dim"]
            grown = 0.1 * all_dim * math.log(scaling.factor) + 1
            fields["attn_scale"] = size**-0.5 * grown * grown
        return fields

    def write(config: ModelConfig) -> Keys:
        made, scaling = plain.write(config), config.rope_scaling
        if isinstance(scaling, YarnRope) and config.attn_scale and scaling.factor > 1:
            grown = math.sqrt(config.attn_scale * math.sqrt(config.head_dim))
            all_dim = round((grown - 1) / (0.1 * math.log(scaling.factor)), 9)
            parameters = {"mscale_all_dim": all_dim, "attention_factor": scaling.temperature}
            made["rope_parameters"] |= parameters
        return made

    return dataclasses.replace(plain, read=read, write=write)


def _naming(extra: dict[str, str]) -> Naming:
    found = names.LLAMA | LATENT_NAMES | SPARSE | SHARED_EXPERTS | extra
    return Naming(found, pairs="interleaved")


FIXED = {"attention_bias": False, "moe_layer_freq": 1}
DEEPSEEK_V2 = Family(
    model_type="deepseek_v2",
    architecture="DeepseekV2ForCausalLM",
    naming=_naming({}),
    defaults={"max_position_embeddings": 2048},
    fixed={**FIXED, "norm_topk_prob": False, "scoring_func": "softmax", "mlp_bias": False},
    parts=(
        _scaled_rope(),
        activation(),
        LATENT,
        Part(
            _read_softmax,
            _write_softmax,
            {
                "n_routed_experts": 64,
                "num_experts_per_tok": None,
                "moe_intermediate_size": 1407,
                "routed_scaling_factor": 1.0,
                "first_k_dense_replace": 0,
                "n_shared_experts": 2,
                "n_group": None,
                "topk_group": None,
                "topk_method": "greedy",
            },
        ),
    ),
    heads_divide_width=True,
)
DEEPSEEK_V3 = Family(
    model_type="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    naming=_naming(SCORE_BIAS),
    defaults={"max_position_embeddings": 4096},
    fixed={
        **FIXED,
        "rope_interleave": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    },
    parts=(
        _scaled_rope(),
        activation(),
        LATENT,
        sigmoid_experts(dense_layers=3, scale=2.5, experts=256, groups=8),
    ),
    aliases={"num_local_experts": "n_routed_experts"},
    quantised=("fp8",),
)
