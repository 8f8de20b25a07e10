"""Every layout of 8 devices computes what one device computes, with the shardings of the table.

The compiled step's collectives are compared with collectives.json, by version of JAX. After a
change that is meant to alter them: UPDATE_GOLDENS=1 python -m pytest tests/parallel
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from tiny import (
    compute_config,
    device_batch,
    model_config,
    optim_config,
    packed_batch,
    relative_error,
    run_config,
    state_on,
)

from llm_jax.config import (
    ConfigError,
    DataConfig,
    DynamicRope,
    LatentConfig,
    MoeConfig,
    ParallelConfig,
    RunConfig,
)
from llm_jax.parallel.check import check_divisible
from llm_jax.parallel.mesh import (
    AXES,
    make_mesh,
    parameter_sharding,
    spec,
    used_axes,
)
from llm_jax.train.state import abstract_state, init_state
from llm_jax.train.step import compile_train_step

LAYOUTS = {
    "data8": ParallelConfig(data=8),
    "fsdp8": ParallelConfig(data=1, fsdp=8),
    "data2_tensor4": ParallelConfig(data=2, tensor=4),
    "fsdp4_tensor2": ParallelConfig(data=1, fsdp=4, tensor=2),
    "data2_fsdp2_tensor2": ParallelConfig(data=2, fsdp=2, tensor=2),
}
MOE = MoeConfig(experts=8, top_k=2, d_ff=16, shared_d_ff=32, balance_loss=0.1, z_loss=0.1)
MODELS = {
    "dense": model_config(),
    "dense4": model_config(num_layers=4),
    "deep": model_config(num_layers=4, sliding_window=5, window_pattern="LG"),
    "moe": model_config(moe=MOE),
    "bias": model_config(moe=replace(MOE, router="sigmoid", balance_loss=0.0, balance_rate=0.1)),
    "mixed": model_config(num_layers=3, moe=replace(MOE, dense_layers=1)),
    "capacity": model_config(moe=replace(MOE, capacity_factor=1.0)),
    "softcap": model_config(attn_softcap=1.0, num_heads=4, num_kv_heads=1),
    "deepseek": model_config(
        num_kv_heads=8, latent=LatentConfig(kv_rank=16, q_rank=24, rope_dim=4, value_dim=6),
        moe=replace(MOE, groups=4, top_groups=2, router="sigmoid", balance_rate=0.1),
    ),
    "gpt_oss": model_config(
        activation="clamped_swiglu", attn_sinks=True, biases=("qkv", "out", "mlp"),
        sliding_window=5, window_pattern="LG", moe=replace(MOE, shared_d_ff=0),
    ),
    "gated": model_config(
        biases=("mlp",), moe=replace(MOE, shared_gate=True, capacity_factor=1.0)
    ),
    "norms_after": model_config(
        num_layers=4, pre_norm=False, post_norm=True, qk_norm=True, qk_norm_over="width",
        rope_local_theta=100.0, sliding_window=5, window_pattern="LLLG", rope_pattern="RN",
        rope_scaling=DynamicRope(original_max_seq_len=8), rotary_fraction=0.5, activation="xielu",
        residual_multiplier=0.5, embed_multiplier=2.0,
    ),
    "parallel": model_config(
        parallel_block="two_norms", norm="layernorm", norm_plus_one=True, positions="alibi",
        embed_norm=True, activation="relu2", qkv_clip=0.5, logit_multiplier=0.5,
        biases=("qkv", "out", "mlp", "unembed"),
    ),
}  # fmt: skip
MORE: dict[str, tuple[str, ParallelConfig]] = {
    "replica2_fsdp4": ("dense", ParallelConfig(replica=2, data=1, fsdp=4)),
    "ring4_tensor2": ("deep", ParallelConfig(data=1, context=4, tensor=2)),
    "gather4_fsdp2": ("softcap", ParallelConfig(data=1, fsdp=2, context=4, context_kind="gather")),
    "ring8": ("softcap", ParallelConfig(data=1, context=8)),
    "pipeline2_tensor2": ("deep", ParallelConfig(fsdp=2, pipeline=2, tensor=2, pieces=4)),
    "pipeline2_rounds2": ("dense4", ParallelConfig(fsdp=2, pipeline=2, rounds=2, tensor=2)),
    "pipeline4_rounds1": ("dense4", ParallelConfig(data=2, pipeline=4)),
    "expert4_tensor2": ("moe", ParallelConfig(data=1, expert=4, tensor=2)),
    "expert8": ("bias", ParallelConfig(data=1, expert=8)),
    "moe_fsdp4_tensor2": ("mixed", ParallelConfig(data=1, fsdp=4, tensor=2)),
    "expert2_fsdp2_ring2": ("mixed", ParallelConfig(data=1, expert=2, fsdp=2, context=2)),
    "capacity_expert4_data2": ("capacity", ParallelConfig(data=2, expert=4)),
    "expert2_pipeline2_gather2": (
        "moe", ParallelConfig(data=1, expert=2, pipeline=2, context=2, context_kind="gather"),
    ),
    "capacity_expert2_pipeline2_tensor2": (
        "capacity", ParallelConfig(data=1, expert=2, pipeline=2, tensor=2),
    ),
}  # fmt: skip
# Latent attention, sinks, groups and biases of experts: losses and gradients, not collectives.
SPARSE: dict[str, tuple[str, ParallelConfig]] = {
    "deepseek_fsdp2_expert2_tensor2": (
        "deepseek", ParallelConfig(data=1, fsdp=2, expert=2, tensor=2),
    ),
    "deepseek_ring2_fsdp4": ("deepseek", ParallelConfig(data=1, fsdp=4, context=2)),
    "gpt_oss_fsdp2_expert2_tensor2": (
        "gpt_oss", ParallelConfig(data=1, fsdp=2, expert=2, tensor=2),
    ),
    "gpt_oss_ring2_tensor4": ("gpt_oss", ParallelConfig(data=1, tensor=4, context=2)),
    "gated_fsdp2_expert2_tensor2": (
        "gated", ParallelConfig(data=1, fsdp=2, expert=2, tensor=2),
    ),
}  # fmt: skip
FAST = (
    "ring4_tensor2",
    "pipeline2_rounds2",
    "expert4_tensor2",
)
FSDP = ("fsdp", "expert")
OPTIM = {"clip_norm": 1e9, "weight_decay": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "scan": {},
    "unrolled": {"compute": compute_config(scan_layers=False)},
    "accumulate": {"compute": compute_config(accumulate=2)},
    "remat": {"compute": compute_config(remat="full")},
    "offload": {"compute": compute_config(remat="offload")},
}
GOLDEN = Path(__file__).with_name("collectives.json")
COLLECTIVE = re.compile(
    r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


def config_of(variant: str, model: str, parallel: ParallelConfig) -> RunConfig:
    data = DataConfig(seq_len=16, batch_size=16)
    fields: dict[str, Any] = {"data": data, "optim": optim_config(**OPTIM)}
    fields |= {"model": MODELS[model], "parallel": parallel}
    return run_config(**(fields | VARIANTS[variant]))


def one_step(variant: str, parallel: ParallelConfig, devices: int = 8, model: str = "dense") -> Any:
    """Loss, gradients and collectives of the first step; shardings are checked on the way.

    Without clipping the first moment after one step is (1 - b1) times the gradient.
    """
    config = config_of(variant, model, parallel)
    mesh = make_mesh(parallel, jax.devices()[:devices])
    check_divisible(config, mesh)
    step: Any = compile_train_step(config, mesh, np.ones(config.model.vocab_size, np.int32))
    state = state_on(config, mesh)
    before = jax.tree.map(lambda leaf: leaf.sharding, state)
    state, metrics = step(state, device_batch(packed_batch(16, 16), mesh))
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == before
    moments = jax.device_get(optax.tree_utils.tree_get(state["opt"], "mu"))
    grads = jax.tree.map(lambda mu: mu / (1 - config.optim.b1), moments)
    return float(metrics["loss"]), grads, dict(Counter(COLLECTIVE.findall(step.as_text())))


@functools.cache
def one_device(model: str = "dense", variant: str = "scan") -> Any:
    return one_step(variant, ParallelConfig(), 1, model)


def cases() -> list[Any]:
    fast = [
        ("fsdp8", "scan"),
        ("data2_tensor4", "scan"),
        ("data2_fsdp2_tensor2", "scan"),
        ("data2_fsdp2_tensor2", "accumulate"),
        ("data2_fsdp2_tensor2", "offload"),
    ]
    every = [(layout, variant) for variant in VARIANTS for layout in LAYOUTS]
    return [pytest.param(*c, marks=() if c in fast else pytest.mark.slow) for c in every]


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "variant"), cases())
def test_layout_agrees_with_one_device(layout: str, variant: str) -> None:
    loss, grads, collectives = one_step(variant, LAYOUTS[layout])
    loss_1, grads_1, collectives_1 = one_device()
    assert loss == pytest.approx(loss_1, rel=1e-5)
    assert relative_error(grads, grads_1) < 1e-4
    assert collectives_1 == {}
    if variant == "scan":
        check_collectives(layout, collectives)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in MORE]
)
def test_other_axes_and_experts_agree_with_one_device(layout: str) -> None:
    model, parallel = MORE[layout]
    loss, grads, collectives = one_step("scan", parallel, model=model)
    # The balance of experts is that of a micro-batch, and a pipeline's pieces are micro-batches.
    in_pieces = MODELS[model].moe is not None and parallel.pipeline == 2
    loss_1, grads_1, _ = one_device(model, "accumulate" if in_pieces else "scan")
    assert loss == pytest.approx(loss_1, rel=1e-5)
    assert relative_error(grads, grads_1) < 1e-4
    check_collectives(layout, collectives)


@pytest.mark.slow
@pytest.mark.parametrize("model", [pytest.param("norms_after", marks=pytest.mark.slow), "parallel"])
def test_options_of_the_block_agree_with_one_device(model: str) -> None:
    loss, grads, _ = one_step("scan", LAYOUTS["data2_fsdp2_tensor2"], model=model)
    loss_1, grads_1, _ = one_device(model)
    assert loss == pytest.approx(loss_1, rel=1e-5)
    assert relative_error(grads, grads_1) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout", [pytest.param(n, marks=pytest.mark.slow if "ring" in n else ()) for n in SPARSE]
)
def test_latents_sinks_and_experts_agree_with_one_device(layout: str) -> None:
    model, parallel = SPARSE[layout]
    loss, grads, _ = one_step("scan", parallel, model=model)
    loss_1, grads_1, _ = one_device(model)
    assert loss == pytest.approx(loss_1, rel=1e-5)
    assert relative_error(grads, grads_1) < 1e-4


def check_collectives(layout: str, found: dict[str, int]) -> None:
    version = ".".join(jax.__version__.split(".")[:2])
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if "UPDATE_GOLDENS" in os.environ:
        golden.setdefault(version, {})[layout] = found
        GOLDEN.write_text(json.dumps(golden, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    elif version not in golden:
        pytest.skip(f"losses agree, but collectives.json knows no JAX {version}")
    assert found == golden[version][layout]


@pytest.mark.slow
def test_initial_parameters_do_not_depend_on_the_mesh() -> None:
    config = run_config(model=model_config(tie_embeddings=True))
    mesh = make_mesh(LAYOUTS["data2_fsdp2_tensor2"])
    made = init_state(config, mesh)
    alone = init_state(config, make_mesh(ParallelConfig(), jax.devices()[:1]))
    assert jax.tree.all(jax.tree.map(np.array_equal, jax.device_get(made), jax.device_get(alone)))
    wanted = abstract_state(config, mesh)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, made, wanted))


def test_shardings_are_those_of_the_table() -> None:
    state = abstract_state(run_config(), make_mesh(LAYOUTS["data2_fsdp2_tensor2"]))
    found = jax.tree.map(lambda leaf: leaf.sharding.spec, state)
    block = found["params"]["blocks"]
    assert found["params"]["embed"]["tokens"] == P("tensor", FSDP)
    assert found["params"]["unembed"] == P(FSDP, "tensor")
    assert block["attn"]["q"] == P("pipeline", FSDP, "tensor", None)
    assert block["attn"]["k"] == P("pipeline", FSDP, "tensor", None)
    assert block["attn"]["o"] == P("pipeline", "tensor", None, FSDP)
    assert block["mlp"]["up"] == P("pipeline", FSDP, "tensor")
    assert block["mlp"]["down"] == P("pipeline", "tensor", FSDP)
    assert block["attn_norm"]["scale"] == P("pipeline", None)
    assert found["step"] == P()
    moments = [
        leaf.spec for leaf in jax.tree.leaves(jax.tree.map(lambda s: s.sharding, state["opt"]))
    ]
    params = jax.tree.leaves(found["params"], is_leaf=lambda leaf: isinstance(leaf, P))
    for specs in (params, [P("tensor", FSDP)]):
        assert all(moments.count(one) >= 2 * specs.count(one) for one in specs)


@pytest.mark.parametrize(
    ("parallel", "words"),
    [
        (ParallelConfig(data=3), "parallel.data is 3 = 3, but there are 8 devices"),
        (ParallelConfig(fsdp=3), "data x fsdp is 2 x 3 = 6, but there are 8 devices"),
        (ParallelConfig(data=16, tensor=2), "16 x 2 = 32, but there are 8 devices"),
        (ParallelConfig(replica=2, fsdp=16), "2 x 1 x 16 = 32, but there are 8 devices"),
    ],
)
def test_a_mesh_of_another_size_is_refused(parallel: ParallelConfig, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_mesh(parallel)
    assert words in str(error.value)


def test_minus_one_is_all_other_devices() -> None:
    mesh = make_mesh(ParallelConfig(fsdp=2, tensor=2))
    assert used_axes(mesh) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert mesh.axis_names == AXES


@pytest.mark.parametrize(
    ("field", "value", "parallel", "axis"),
    [
        ("vocab_size", 62, ParallelConfig(data=2, tensor=4), "'tensor' of size 4"),
        ("num_kv_heads", 2, ParallelConfig(data=2, tensor=4), "'tensor' of size 4"),
        ("num_heads", 4, ParallelConfig(data=1, tensor=8), "'tensor' of size 8"),
        ("d_ff", 66, ParallelConfig(data=2, tensor=4), "'tensor' of size 4"),
        ("d_model", 28, ParallelConfig(data=1, fsdp=8), "'fsdp' of size 8"),
    ],
)
def test_what_the_mesh_does_not_divide_is_named(
    field: str, value: int, parallel: ParallelConfig, axis: str
) -> None:
    config = run_config(model=model_config(**{field: value}))
    with pytest.raises(ConfigError) as error:
        check_divisible(config, make_mesh(parallel))
    assert f"model.{field} is {value}, which mesh axis {axis}" in str(error.value)


def test_a_batch_that_the_mesh_does_not_divide_is_named() -> None:
    config = run_config(compute=compute_config(accumulate=2))
    with pytest.raises(ConfigError, match=r"accumulate is 4 sequences, which the 8 batch shards"):
        check_divisible(config, make_mesh(ParallelConfig(data=4, fsdp=2)))
    check_divisible(config, make_mesh(ParallelConfig(data=2, fsdp=2, tensor=2)))


@pytest.mark.parametrize(
    ("model", "parallel", "words"),
    [
        ("mixed", ParallelConfig(pipeline=2), "num_layers is 3, which mesh axis 'pipeline' of"),
        (
            "deep",
            ParallelConfig(pipeline=4),
            "the 4 groups of 1 layers differ",
        ),
        ("dense", ParallelConfig(rounds=2), "parallel.rounds is 2, but parallel.pipeline is 1"),
        ("dense", ParallelConfig(data=4, pipeline=2, pieces=6), "6 pieces for 2"),
        ("moe", ParallelConfig(data=1, fsdp=2, tensor=4), "num_heads"),
        (
            "odd",
            ParallelConfig(data=2, expert=4),
            "experts is 6, which mesh axis",
        ),
    ],
)
def test_what_stages_and_experts_cannot_split_is_named(
    model: str, parallel: ParallelConfig, words: str
) -> None:
    models = MODELS | {
        "odd": model_config(moe=replace(MOE, experts=6)),
        "moe": model_config(moe=MOE, num_heads=6, num_kv_heads=6),
    }
    config = run_config(model=models[model], parallel=parallel)
    with pytest.raises(ConfigError) as error:
        check_divisible(config, make_mesh(parallel))
    assert words in str(error.value)


def test_an_axis_that_the_table_does_not_know_fails() -> None:
    assert spec(("embed", None, "mlp")) == P(FSDP, None, "tensor")
    with pytest.raises(KeyError, match="expert_mpl"):
        spec(("experts", "expert_mpl"))
    mesh = make_mesh(ParallelConfig(fsdp=4, tensor=2))
    with pytest.raises(ConfigError, match=r"Parameter mlp/up has logical axis 'ffn', which RULES"):
        parameter_sharding(mesh, "mlp/up", (8, 8), ("embed", "ffn"))
    with pytest.raises(ConfigError, match=r"mlp/up has 6 along 'embed', which mesh axis 'fsdp'"):
        parameter_sharding(mesh, "mlp/up", (6, 8), ("embed", "mlp"))
