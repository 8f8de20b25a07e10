"""The parameter tree of the Transformer ↔ the named tensors of a Hugging Face checkpoint.

Torch's Linear stores (out, in), the tree (in…, out…). The Conv1D of GPT-2 stores (in, out), with
query, key and value in one tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import ml_dtypes
import numpy as np

from llm_jax.models.protocol import model_of

Params = dict[str, Any]
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

# Leaf of the tree → tensor name. Leaves with the same name are joined along the output axis, in the
# order of this table.
LLAMA_NAMES = {
    "embed/tokens": "model.embed_tokens.weight",
    "blocks/attn_norm/scale": "model.layers.{}.input_layernorm.weight",
    "blocks/attn/q": "model.layers.{}.self_attn.q_proj.weight",
    "blocks/attn/q_bias": "model.layers.{}.self_attn.q_proj.bias",
    "blocks/attn/k": "model.layers.{}.self_attn.k_proj.weight",
    "blocks/attn/k_bias": "model.layers.{}.self_attn.k_proj.bias",
    "blocks/attn/v": "model.layers.{}.self_attn.v_proj.weight",
    "blocks/attn/v_bias": "model.layers.{}.self_attn.v_proj.bias",
    "blocks/attn/q_norm/scale": "model.layers.{}.self_attn.q_norm.weight",
    "blocks/attn/k_norm/scale": "model.layers.{}.self_attn.k_norm.weight",
    "blocks/attn/o": "model.layers.{}.self_attn.o_proj.weight",
    "blocks/attn/o_bias": "model.layers.{}.self_attn.o_proj.bias",
    "blocks/mlp_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
    "blocks/mlp/gate": "model.layers.{}.mlp.gate_proj.weight",
    "blocks/mlp/gate_bias": "model.layers.{}.mlp.gate_proj.bias",
    "blocks/mlp/up": "model.layers.{}.mlp.up_proj.weight",
    "blocks/mlp/up_bias": "model.layers.{}.mlp.up_proj.bias",
    "blocks/mlp/down": "model.layers.{}.mlp.down_proj.weight",
    "blocks/mlp/down_bias": "model.layers.{}.mlp.down_proj.bias",
    "final_norm/scale": "model.norm.weight",
    "unembed": "lm_head.weight",
}
GEMMA2_NAMES = LLAMA_NAMES | {
    "blocks/attn_post_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
    "blocks/mlp_norm/scale": "model.layers.{}.pre_feedforward_layernorm.weight",
    "blocks/mlp_post_norm/scale": "model.layers.{}.post_feedforward_layernorm.weight",
}
GPT2_NAMES = {
    "embed/tokens": "transformer.wte.weight",
    "embed/positions": "transformer.wpe.weight",
    "blocks/attn_norm/scale": "transformer.h.{}.ln_1.weight",
    "blocks/attn_norm/bias": "transformer.h.{}.ln_1.bias",
    "blocks/attn/q": "transformer.h.{}.attn.c_attn.weight",
    "blocks/attn/k": "transformer.h.{}.attn.c_attn.weight",
    "blocks/attn/v": "transformer.h.{}.attn.c_attn.weight",
    "blocks/attn/q_bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks/attn/k_bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks/attn/v_bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks/attn/o": "transformer.h.{}.attn.c_proj.weight",
    "blocks/attn/o_bias": "transformer.h.{}.attn.c_proj.bias",
    "blocks/mlp_norm/scale": "transformer.h.{}.ln_2.weight",
    "blocks/mlp_norm/bias": "transformer.h.{}.ln_2.bias",
    "blocks/mlp/up": "transformer.h.{}.mlp.c_fc.weight",
    "blocks/mlp/up_bias": "transformer.h.{}.mlp.c_fc.bias",
    "blocks/mlp/down": "transformer.h.{}.mlp.c_proj.weight",
    "blocks/mlp/down_bias": "transformer.h.{}.mlp.c_proj.bias",
    "final_norm/scale": "transformer.ln_f.weight",
    "final_norm/bias": "transformer.ln_f.bias",
    "unembed": "lm_head.weight",
}
BERT_NAMES = {
    "embed/tokens": "bert.embeddings.word_embeddings.weight",
    "embed/positions": "bert.embeddings.position_embeddings.weight",
    "embed/types": "bert.embeddings.token_type_embeddings.weight",
    "embed_norm/scale": "bert.embeddings.LayerNorm.weight",
    "embed_norm/bias": "bert.embeddings.LayerNorm.bias",
    "blocks/attn/q": "bert.encoder.layer.{}.attention.self.query.weight",
    "blocks/attn/q_bias": "bert.encoder.layer.{}.attention.self.query.bias",
    "blocks/attn/k": "bert.encoder.layer.{}.attention.self.key.weight",
    "blocks/attn/k_bias": "bert.encoder.layer.{}.attention.self.key.bias",
    "blocks/attn/v": "bert.encoder.layer.{}.attention.self.value.weight",
    "blocks/attn/v_bias": "bert.encoder.layer.{}.attention.self.value.bias",
    "blocks/attn/o": "bert.encoder.layer.{}.attention.output.dense.weight",
    "blocks/attn/o_bias": "bert.encoder.layer.{}.attention.output.dense.bias",
    "blocks/attn_norm/scale": "bert.encoder.layer.{}.attention.output.LayerNorm.weight",
    "blocks/attn_norm/bias": "bert.encoder.layer.{}.attention.output.LayerNorm.bias",
    "blocks/mlp/up": "bert.encoder.layer.{}.intermediate.dense.weight",
    "blocks/mlp/up_bias": "bert.encoder.layer.{}.intermediate.dense.bias",
    "blocks/mlp/down": "bert.encoder.layer.{}.output.dense.weight",
    "blocks/mlp/down_bias": "bert.encoder.layer.{}.output.dense.bias",
    "blocks/mlp_norm/scale": "bert.encoder.layer.{}.output.LayerNorm.weight",
    "blocks/mlp_norm/bias": "bert.encoder.layer.{}.output.LayerNorm.bias",
    "head/dense": "cls.predictions.transform.dense.weight",
    "head/dense_bias": "cls.predictions.transform.dense.bias",
    "head/norm/scale": "cls.predictions.transform.LayerNorm.weight",
    "head/norm/bias": "cls.predictions.transform.LayerNorm.bias",
    "head/bias": "cls.predictions.bias",
}
MIXTRAL_NAMES = LLAMA_NAMES | {
    "blocks/moe/router": "model.layers.{}.block_sparse_moe.gate.weight",
    "blocks/moe/gate": "model.layers.{}.block_sparse_moe.experts.{}.w1.weight",
    "blocks/moe/down": "model.layers.{}.block_sparse_moe.experts.{}.w2.weight",
    "blocks/moe/up": "model.layers.{}.block_sparse_moe.experts.{}.w3.weight",
}
QWEN3_MOE_NAMES = LLAMA_NAMES | {
    "blocks/moe/router": "model.layers.{}.mlp.gate.weight",
    "blocks/moe/gate": "model.layers.{}.mlp.experts.{}.gate_proj.weight",
    "blocks/moe/up": "model.layers.{}.mlp.experts.{}.up_proj.weight",
    "blocks/moe/down": "model.layers.{}.mlp.experts.{}.down_proj.weight",
}
NAMES = {
    "bert": BERT_NAMES,
    "gemma2": GEMMA2_NAMES,
    "gpt2": GPT2_NAMES,
    "mixtral": MIXTRAL_NAMES,
    "qwen3_moe": QWEN3_MOE_NAMES,
}
PER_EXPERT = ("blocks/moe/gate", "blocks/moe/up", "blocks/moe/down")


@dataclass(frozen=True)
class Leaf:
    """One array of the tree. Of a stacked array: one layer, or one expert of a layer."""

    path: str
    shape: tuple[int, ...]
    """Without the axes of `place`."""
    place: tuple[int, ...] = ()
    """Row of the stack, and expert."""
    layer: int | None = None

    def of(self, params: Params) -> np.ndarray:
        array: Any = params
        for key in self.path.split("/"):
            array = array[key]
        return np.asarray(array[self.place] if self.place else array)

    @property
    def matrix(self) -> tuple[int, int] | None:
        """(in, out) of a projection, None for tables and vectors."""
        if self.path.startswith("embed/") or self.path.endswith(("_bias", "scale", "bias")):
            return None
        inputs = 2 if self.path.endswith("/attn/o") else 1
        return math.prod(self.shape[:inputs]), math.prod(self.shape[inputs:])


@dataclass(frozen=True)
class Tensor:
    """One tensor of a Hugging Face checkpoint and the leaves that it is made of."""

    name: str
    leaves: tuple[Leaf, ...]
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.leaves[0]
        if first.matrix is None:
            if first.path.startswith("embed/"):
                return first.shape
            return (sum(math.prod(leaf.shape) for leaf in self.leaves),)
        outputs = sum(leaf.matrix[1] for leaf in self.leaves if leaf.matrix)
        inputs = first.matrix[0]
        return (outputs, inputs) if self.transposed else (inputs, outputs)

    def read(self, params: Params, dtype: np.dtype) -> np.ndarray:
        """The contiguous tensor with the values of the tree."""
        parts = [leaf.of(params) for leaf in self.leaves]
        if self.leaves[0].matrix is not None:
            parts = [p.reshape(leaf.matrix) for p, leaf in zip(parts, self.leaves, strict=True)]
        elif not self.leaves[0].path.startswith("embed/"):
            parts = [part.reshape(-1) for part in parts]
        tensor = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        tensor = tensor.T if self.transposed else tensor
        return np.ascontiguousarray(tensor.astype(dtype, copy=False))

    def write(self, tensor: np.ndarray, params: Params) -> None:
        """Stores the tensor in the NumPy arrays of the tree; its shape must be `self.shape`."""
        tensor = tensor.T if self.transposed else tensor
        outputs = [leaf.matrix[1] if leaf.matrix else math.prod(leaf.shape) for leaf in self.leaves]
        joined = len(self.leaves) > 1
        parts = np.split(tensor, np.cumsum(outputs)[:-1], axis=-1) if joined else [tensor]
        for leaf, part in zip(self.leaves, parts, strict=True):
            leaf.of(params)[...] = part.reshape(leaf.shape)


def tensors(config: Any, model_type: str) -> list[Tensor]:
    """Every tensor of the checkpoint, embedding first, then by layer; a tied matrix once.

    Args:
      config: an architecture, as `model_of` takes it.
    """
    model = model_of(config)
    shapes = flat(jax.eval_shape(lambda: model.init(config, jax.random.key(0))))
    names = NAMES.get(model_type, LLAMA_NAMES)
    stacks = model.layout(config).stacks
    leaves: list[Leaf] = []
    for path, found in shapes.items():
        stack = path.split("/")[0]
        if stack not in stacks:
            leaves.append(Leaf(path, found.shape))
            continue
        for row, layer in enumerate(stacks[stack]):
            if path in PER_EXPERT:
                experts = range(found.shape[1])
                leaves += [Leaf(path, found.shape[2:], (row, e), layer) for e in experts]
            else:
                leaves.append(Leaf(path, found.shape[1:], (row,), layer))
    order = {path: i for i, path in enumerate(names)}
    leaves.sort(key=lambda leaf: (_place(leaf), order[_name_of(leaf)], leaf.place))
    joined: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        name = names[_name_of(leaf)].format(leaf.layer, *leaf.place[1:])
        joined.setdefault(name, []).append(leaf)
    linear = model_type != "gpt2"
    return [
        Tensor(name, tuple(group), _is_transposed(group[0], linear))
        for name, group in joined.items()
    ]


def _name_of(leaf: Leaf) -> str:
    """Path of the leaf in a table of names; layers without experts are named as in dense models."""
    return leaf.path.replace("dense_blocks/", "blocks/")


def _place(leaf: Leaf) -> float:
    if leaf.layer is not None:
        return leaf.layer
    return -1 if leaf.path.startswith("embed/") else math.inf


def _is_transposed(leaf: Leaf, linear: bool) -> bool:
    return leaf.matrix is not None and (linear or leaf.path == "unembed")


def flat(tree: Params) -> dict[str, Any]:
    """Leaves of a nested dict by their path, joined with '/'."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        found["/".join(entry.key for entry in path)] = leaf
    return found


def empty(config: Any) -> Params:
    """The tree of `init` as float32 NumPy arrays, not yet filled."""
    shapes = jax.eval_shape(lambda: model_of(config).init(config, jax.random.key(0)))
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), shapes)
