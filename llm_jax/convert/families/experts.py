"""Experts in `config.json`: those of Mixtral, and those of Qwen3."""

from __future__ import annotations

from collections.abc import Mapping

from llm_jax.config import ModelConfig, MoeConfig, UserError
from llm_jax.convert.families.family import Fields, Keys, Part

MIXTRAL = {
    "experts": "num_local_experts",
    "top_k": "num_experts_per_tok",
    "d_ff": "intermediate_size",
    "balance_loss": "router_aux_loss_coef",
}
"""Field of `MoeConfig` → key of config.json."""
QWEN = {
    "experts": "num_experts",
    "top_k": "num_experts_per_tok",
    "d_ff": "moe_intermediate_size",
    "renormalise": "norm_topk_prob",
    "balance_loss": "router_aux_loss_coef",
}
SPARSE = {
    "blocks/moe/router": "model.layers.{}.mlp.gate.weight",
    "blocks/moe/gate": "model.layers.{}.mlp.experts.{}.gate_proj.weight",
    "blocks/moe/up": "model.layers.{}.mlp.experts.{}.up_proj.weight",
    "blocks/moe/down": "model.layers.{}.mlp.experts.{}.down_proj.weight",
}
"""Names of the tensors of a router and its experts, as most families have them."""
SHARED_EXPERTS = {
    "blocks/moe/shared/gate": "model.layers.{}.mlp.shared_experts.gate_proj.weight",
    "blocks/moe/shared/up": "model.layers.{}.mlp.shared_experts.up_proj.weight",
    "blocks/moe/shared/down": "model.layers.{}.mlp.shared_experts.down_proj.weight",
}


def _fields(given: Keys, names: Mapping[str, str]) -> Fields:
    return {name: given[key] for name, key in names.items()}


def _keys(config: ModelConfig, names: Mapping[str, str]) -> Keys:
    moe = config.moe
    return {} if moe is None else {key: getattr(moe, name) for name, key in names.items()}


def every_layer(names: Mapping[str, str] = MIXTRAL, *, experts: int = 8, top_k: int = 2) -> Part:
    """Experts in each layer; `experts` and `top_k` are defaults."""
    defaults: Keys = {
        names["experts"]: experts,
        names["top_k"]: top_k,
        names["balance_loss"]: 0.001,
    }
    if "renormalise" in names:
        defaults[names["renormalise"]] = False
    return Part(
        lambda given: {"moe": MoeConfig(**_fields(given, names))},
        lambda config: _keys(config, names),
        defaults,
    )


def sparse_layers(*, experts: int, top_k: int, d_ff: int) -> Part:
    """Experts in all layers but those of `mlp_only_layers`; the arguments are defaults."""

    def read(given: Keys) -> Fields:
        fields, layers = _fields(given, QWEN), given["num_hidden_layers"]
        step, without = given["decoder_sparse_step"], given["mlp_only_layers"] or []
        wanted = tuple(i not in without and (i + 1) % step == 0 for i in range(layers))
        dense = wanted.index(True) if True in wanted else layers
        for first, every in ((dense, 1), (0, dense + 1)):
            places = range(-first, layers - first)
            if wanted == tuple(i >= 0 and i % every == every - 1 for i in places):
                return {"moe": MoeConfig(**fields, dense_layers=first, every=every)}
        raise UserError(
            f"config.json has mlp_only_layers = {without!r} and decoder_sparse_step = {step!r}: "
            "only the first layers, or all but every n-th layer, can be without experts."
        )

    def write(config: ModelConfig) -> Keys:
        dense = [i for i, sparse in enumerate(config.moe_layers) if not sparse]
        return _keys(config, QWEN) | {"decoder_sparse_step": 1, "mlp_only_layers": dense}

    return Part(
        read,
        write,
        {
            "num_experts": experts,
            "num_experts_per_tok": top_k,
            "moe_intermediate_size": d_ff,
            "norm_topk_prob": False,
            "router_aux_loss_coef": 0.001,
            "decoder_sparse_step": 1,
            "mlp_only_layers": None,
        },
    )


MIXTRAL_EXPERTS = every_layer()
QWEN_EXPERTS = sparse_layers(experts=128, top_k=8, d_ff=768)
