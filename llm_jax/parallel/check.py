"""Check that the mesh divides every size that it splits, before anything is compiled."""

from __future__ import annotations

import math
from operator import attrgetter

from jax.sharding import Mesh

from llm_jax.config import (
    EncoderConfig,
    ModelConfig,
    RecurrentConfig,
    RunConfig,
    layers_of,
    require,
)
from llm_jax.parallel.mesh import BATCH_AXES, in_words, mesh_axes


def check_divisible(config: RunConfig, mesh: Mesh) -> None:
    """Raises `ConfigError` if a mesh axis does not divide a size that it splits; it names both."""
    parallel, stages = config.parallel, mesh.shape["pipeline"]
    shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    pieces = (parallel.pieces or stages) if stages > 1 else 1
    micro = config.data.batch_size // config.compute.accumulate
    require(
        micro % (shards * pieces) == 0 and pieces % stages == 0,
        f"data.batch_size / compute.accumulate is {micro} sequences, which the {shards} batch "
        f"shards of the mesh (replica x data x fsdp x expert)"
        + (f" times {pieces} pieces for {stages} pipeline stages" if stages > 1 else "")
        + f" do not divide: make it a multiple of {shards * math.lcm(pieces, stages)}.",
    )
    _check_sequences(config, mesh)
    _check_stages(config, stages)
    for field, logical in SPLIT_FIELDS:
        size = _size(config, field) if _present(config, field) else None
        axes = {axis: mesh.shape[axis] for axis in mesh_axes(logical) if mesh.shape[axis] > 1}
        require(
            size is None or size % math.prod(axes.values()) == 0,
            f"{field} is {size}, which mesh axis {in_words(axes)} does not divide: "
            f"change one of them.",
        )


def _check_sequences(config: RunConfig, mesh: Mesh) -> None:
    length, shards, moe = config.data.seq_len, mesh.shape["context"], layers_of(config.model).moe
    require(
        shards == 1 or length % (2 * shards) == 0,
        f"data.seq_len is {length}, but mesh axis 'context' of size {shards} needs a multiple of "
        f"twice its size: make it a multiple of {2 * shards}.",
    )
    require(
        shards == 1 or moe is None or moe.capacity_factor is None,
        "model.moe.capacity_factor counts within whole sequences, which mesh axis 'context' of "
        f"size {shards} splits: set it to None, or parallel.context to 1.",
    )
    require(
        shards == 1 or isinstance(config.model, ModelConfig),
        f"parallel.context is {shards}, but model.kind is {config.model.kind!r}, whose length "
        "cannot be split: set it to 1.",
    )
    require(
        shards == 1 or config.compute.attention == "auto",
        f"compute.attention is {config.compute.attention!r}, but mesh axis 'context' of size "
        f"{shards} has its own attention (parallel.context_kind): set it to 'auto'.",
    )


def _check_stages(config: RunConfig, stages: int) -> None:
    model, rounds = layers_of(config.model), config.parallel.rounds
    require(
        stages == 1 or isinstance(config.model, ModelConfig | EncoderConfig | RecurrentConfig),
        f"parallel.pipeline is {stages}, but model.kind is {config.model.kind!r}, whose layers are "
        "not all alike: set it to 1.",
    )
    groups = stages * rounds
    require(
        stages > 1 or rounds == 1,
        f"parallel.rounds is {rounds}, but parallel.pipeline is 1: set parallel.rounds to 1, or "
        "use more stages.",
    )
    if groups == 1:
        return
    require(
        model.num_layers % groups == 0,
        f"model.num_layers is {model.num_layers}, which mesh axis 'pipeline' of size {stages} and "
        f"parallel.rounds = {rounds} do not divide: make it a multiple of {groups}.",
    )
    size = model.num_layers // groups
    for name, kinds in (
        ("window_pattern", model.windows),
        ("rope_pattern", model.rotations),
        ("moe", model.moe_layers),
    ):
        require(
            kinds == kinds[:size] * groups,
            f"model.{name} makes the {groups} groups of {size} layers differ, but all stages of a "
            "pipeline must be equal: change parallel.pipeline, parallel.rounds, or the pattern.",
        )


def tensor_sizes(config: RunConfig) -> dict[str, int]:
    """Fields of the model whose sizes mesh axis `tensor` divides, with their values."""
    fields = [field for field, logical in SPLIT_FIELDS if mesh_axes(logical) == ("tensor",)]
    return {field: _size(config, field) for field in fields if _present(config, field)}


def _size(config: RunConfig, field: str) -> int:
    part, _, name = field.partition(".")
    owner = layers_of(config.model) if part == "model" else getattr(config, part)
    return int(attrgetter(name)(owner))


def _present(config: RunConfig, field: str) -> bool:
    """Whether the model has a parameter with the size of that field."""
    if field == "model.d_ff":
        return not all(layers_of(config.model).moe_layers)
    if field.startswith("model.latent."):
        latent = layers_of(config.model).latent
        return latent is not None and getattr(latent, field.rpartition(".")[2]) is not None
    return layers_of(config.model).moe is not None or not field.startswith("model.moe.")


# Fields of the run and the logical axes whose sizes they are.
SPLIT_FIELDS = (
    ("model.vocab_size", "vocab"),
    ("model.num_heads", "heads"),
    ("model.num_kv_heads", "kv_heads"),
    ("model.d_ff", "mlp"),
    ("model.d_model", "embed"),
    ("model.latent.kv_rank", "embed"),
    ("model.latent.q_rank", "embed"),
    ("model.moe.experts", "experts"),
    ("model.moe.d_ff", "expert_mlp"),
    ("model.moe.shared_d_ff", "mlp"),
    ("data.seq_len", "stream_length"),
)
