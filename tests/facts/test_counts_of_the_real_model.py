"""The planner's counts against the model that trains: parameters exactly, FLOPs, memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.config import (
    ComputeConfig,
    DataConfig,
    LatentConfig,
    ModelConfig,
    MoeConfig,
    OptimConfig,
    ParallelConfig,
    RunConfig,
    load,
)
from llm_jax.config import recipe_folders as folders
from llm_jax.facts.counts import token_flops, total_parameters, update_flops
from llm_jax.facts.sizes import state_bytes
from llm_jax.models.decoder.transformer import DECODER
from llm_jax.parallel.mesh import make_mesh
from llm_jax.plan.memory import Layout, device_bytes
from llm_jax.train.optimizers.muon import muon_axes
from llm_jax.train.state import abstract_state
from llm_jax.train.step import compile_train_step, gradients

BASE = {
    "vocab_size": 4096,
    "num_layers": 3,
    "d_model": 1024,
    "num_heads": 8,
    "num_kv_heads": 2,
    "head_dim": 128,
    "d_ff": 3072,
    "max_seq_len": 512,
}
GPT2 = {
    "activation": "gelu", "norm": "layernorm", "num_kv_heads": 8, "positions": "learned",
    "biases": ("qkv", "out", "mlp"), "tie_embeddings": True,
}  # fmt: skip
VARIANTS = {
    "llama": {},
    "gpt2": GPT2,
    "qwen": {"qk_norm": True, "tie_embeddings": True},
    "gemma": {"post_norm": True, "norm_plus_one": True, "activation": "geglu"},
    "bias": {"biases": ("qkv", "mlp"), "post_norm": True, "norm": "layernorm"},
    "norms after": {
        "pre_norm": False, "post_norm": True, "qk_norm": True, "qk_norm_over": "width",
        "activation": "xielu", "rotary_fraction": 0.5, "num_layers": 4,
    },
    "parallel": {
        "parallel_block": "one_norm", "norm": "layernorm", "embed_norm": True,
        "activation": "relu2", "positions": "alibi", "biases": ("qkv", "unembed"),
    },
    # As many slots as assignments, so that XLA counts what active parameters cost.
    "experts": {
        "moe": MoeConfig(
            experts=8, top_k=2, d_ff=1536, shared_d_ff=512, dense_layers=1, capacity_factor=1.0
        )
    },
    "balancing bias": {"moe": MoeConfig(experts=8, top_k=2, d_ff=256, every=3, balance_rate=0.1)},
    "deepseek": {
        "num_kv_heads": 8, "head_dim": 192,
        "latent": LatentConfig(kv_rank=256, q_rank=384, rope_dim=64, value_dim=128),
        "moe": MoeConfig(
            experts=8, top_k=2, d_ff=768, shared_d_ff=768, dense_layers=1, capacity_factor=1.0,
            groups=4, top_groups=2, router="sigmoid", balance_rate=0.001,
        ),
    },
    "latent without compressed queries": {
        "num_kv_heads": 8, "latent": LatentConfig(kv_rank=256, rope_dim=32, value_dim=64),
    },
    "gpt_oss": {
        "biases": ("qkv", "out", "mlp"), "attn_sinks": True, "activation": "clamped_swiglu",
        "moe": MoeConfig(experts=8, top_k=2, d_ff=1536, capacity_factor=1.0),
    },
    "shared gate": {
        "biases": ("mlp",),
        "moe": MoeConfig(
            experts=8, top_k=2, d_ff=768, shared_d_ff=512, shared_gate=True, capacity_factor=1.0
        ),
    },
    "head size of its own": {"head_dim": 96, "num_heads": 6, "num_kv_heads": 3},
}  # fmt: skip


def real_size(model: ModelConfig) -> int:
    shapes = jax.eval_shape(lambda key: DECODER.init(model, key), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_exact(name):
    model = ModelConfig(**{**BASE, **VARIANTS[name]})
    assert total_parameters(model) == real_size(model)


def test_parameters_of_every_recipe_are_exact():
    names = {path.stem for folder in folders() for path in folder.glob("*.py")}
    assert names, "there are recipes"
    for name in sorted(names):
        model = load(name).model
        if isinstance(model, ModelConfig):
            assert total_parameters(model) == real_size(model), name


BFLOAT16 = {"param_dtype": "bfloat16", "moment_dtype": "bfloat16"}


@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor", "schedule_free"])
@pytest.mark.parametrize("dtypes", [{}, BFLOAT16, {"second_moment_dtype": "bfloat16"}])
@pytest.mark.parametrize("name", ["llama", "bias", "norms after", "balancing bias", "deepseek"])
def test_bytes_of_the_state_are_exact(name, dtypes, kind):
    """But for counters. Adafactor's second moments are a bound: rows and columns of 128 or more."""
    if kind == "schedule_free":
        dtypes = {"schedule": "constant", "second_moment_dtype": "bfloat16"}
    config = dataclasses.replace(
        run_of(ModelConfig(**{**BASE, **VARIANTS[name]})),
        optim=OptimConfig(kind=kind, warmup_steps=1, **dtypes),
    )
    state = abstract_state(config, make_mesh(ParallelConfig(), jax.devices()[:1]))
    counted = state_bytes(config.model, config.optim)

    def size(tree):
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if x.size > 3)

    assert counted["params"] == size(state["params"])
    if kind == "adafactor":
        assert counted["moments"] == pytest.approx(size(state["opt"]), rel=0.03)
    else:
        assert counted["moments"] == size(state["opt"])


def run_of(model: ModelConfig, **compute) -> RunConfig:
    return RunConfig(
        name="count",
        out="count",
        steps=2,
        model=model,
        compute=ComputeConfig(**{"dtype": "float32", "loss_chunk": 1 << 30, **compute}),
        data=DataConfig(seq_len=512, batch_size=2),
        optim=OptimConfig(warmup_steps=1),
    )


def xla_flops_per_token(config: RunConfig) -> float:
    """What XLA counts for the loss and its gradient, before it optimises anything."""
    B, T = config.data.batch_size, config.data.seq_len
    key = jax.random.key(0)
    params = jax.eval_shape(lambda key: DECODER.init(config.model, key), key)
    leaf = jax.ShapeDtypeStruct((B, T), jnp.int32)
    batch = dict.fromkeys(("inputs", "targets", "segments", "positions"), leaf)
    lowered = jax.jit(lambda p, b: gradients(p, b, config)).lower(params, batch)
    return lowered.cost_analysis()["flops"] / (B * T)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "balancing bias"])
def test_flops_are_xla_s_within_half_a_percent(name):
    """Unrolled, reference attention (all T×S scores), nothing recomputed. XLA counts elementwise
    work too, which is what the half percent is."""
    model = ModelConfig(**{**BASE, **VARIANTS[name]})
    config = run_of(model, remat="none", scan_layers=False, attention="reference")
    flops = token_flops(model, 512)
    ours = 3 * (flops.projections + flops.attention_full + flops.unembedding)
    assert xla_flops_per_token(config) == pytest.approx(ours, rel=0.005)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_executed_flops_of_blockwise_attention(remat):
    """Blocks of 128 rows compute their whole diagonal block: 64 keys a row beyond the causal."""
    model = ModelConfig(**BASE)
    config = run_of(model, remat=remat, scan_layers=False, attention="blockwise")
    flops = token_flops(model, 512)
    extra = flops.attention * 63.5 / 256.5
    passes = 3.5 if remat == "none" else 4.5
    ours = flops.executed(remat) + passes * extra
    assert xla_flops_per_token(config) == pytest.approx(ours, rel=0.012)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "full"])
def test_memory_is_the_compiler_s_within_a_quarter(remat):
    """The CPU compiler's own figure for the whole train step, state included."""
    model = ModelConfig(**{**BASE, "num_layers": 6, "d_model": 384, "d_ff": 1024, "num_heads": 6,
                           "num_kv_heads": 6, "head_dim": 64, "vocab_size": 32_000})  # fmt: skip
    config = run_of(model, remat=remat, scan_layers=True, attention="auto", loss_chunk=512)
    mesh = make_mesh(ParallelConfig(data=1), jax.devices()[:1])
    stats = compile_train_step(config, mesh, np.ones(32_000, np.int32)).memory_analysis()
    real = stats.temp_size_in_bytes + stats.argument_size_in_bytes
    layout = Layout(data=1, fsdp=1, tensor=1, accumulate=1, remat=remat, dtype="float32")
    ours = sum(device_bytes(model, layout, 2 * 512, 512).values())
    assert ours == pytest.approx(real, rel=0.25)


@pytest.mark.parametrize("name", ["llama", "gpt2", "experts", "head size of its own", "deepseek"])
def test_flops_of_muon_are_those_of_the_matrices_that_it_orthogonalises(name):
    model = ModelConfig(**BASE | VARIANTS[name])
    shapes = jax.eval_shape(lambda key: DECODER.init(model, key), jax.random.key(0))
    specs = jax.tree.leaves(DECODER.specs(model))
    wanted = 0
    for spec, leaf in zip(specs, jax.tree.leaves(shapes), strict=True):
        if (numbers := muon_axes(spec)) is None:
            continue
        sides = [
            int(np.prod([leaf.shape[i] for i in side]))
            for side in (numbers.reduction_axis, numbers.output_axis)
        ]
        a, b = sorted(sides)
        gram, square, product = 2 * a * a * b, 2 * a**3, 2 * a * a * b
        wanted += leaf.size // (a * b) * 5 * (gram + square + product)
    assert update_flops(model, "muon") == wanted > 0
    assert update_flops(model, "adamw") == 0
