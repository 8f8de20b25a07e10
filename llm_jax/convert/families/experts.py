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


def _fields(given: Keys, names: Mapping[str, str]) -> Fields:
    return {name: given[key] for name, key in names.items()}


def _keys(config: ModelConfig, names: Mapping[str, str]) -> Keys:
    moe = config.moe
    return {} if moe is None else {key: getattr(moe, name) for name, key in names.items()}


def _read_qwen(given: Keys) -> Fields:
    """Qwen3 lists the layers without experts (`mlp_only_layers`)."""
    fields, layers = _fields(given, QWEN), given["num_hidden_layers"]
    step, without = given["decoder_sparse_step"], given["mlp_only_layers"] or []
    wanted = tuple(i not in without and (i + 1) % step == 0 for i in range(layers))
    dense = wanted.index(True) if True in wanted else layers
    for first, every in ((dense, 1), (0, dense + 1)):
        places = range(-first, layers - first)
        if wanted == tuple(i >= 0 and i % every == every - 1 for i in places):
            return {"moe": MoeConfig(**fields, dense_layers=first, every=every)}
    raise UserError(
        f"config.json has mlp_only_layers = {without!r} and decoder_sparse_step = {step!r}: only "
        "the first layers, or all but every n-th layer, can be without experts."
    )


def _write_qwen(config: ModelConfig) -> Keys:
    dense = [i for i, experts in enumerate(config.moe_layers) if not experts]
    return _keys(config, QWEN) | {"decoder_sparse_step": 1, "mlp_only_layers": dense}


MIXTRAL_EXPERTS = Part(
    lambda given: {"moe": MoeConfig(**_fields(given, MIXTRAL))},
    lambda config: _keys(config, MIXTRAL),
    {"num_local_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.001},
)
QWEN_EXPERTS = Part(
    _read_qwen,
    _write_qwen,
    {
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "router_aux_loss_coef": 0.001,
        "decoder_sparse_step": 1,
        "mlp_only_layers": None,
    },
)
