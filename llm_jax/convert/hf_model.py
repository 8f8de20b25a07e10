"""The model in a Hugging Face folder, which is not trusted; its tensors are read when needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from llm_jax.config import Architecture, UserError, read_json
from llm_jax.config.wording import counted
from llm_jax.convert import hf_config
from llm_jax.convert.expert_tensor import ExpertTensor
from llm_jax.convert.families import Family, family_named
from llm_jax.convert.families.further import KEY, of_further_layers
from llm_jax.convert.fp8 import Fp8Weights, block_of
from llm_jax.convert.mxfp4 import Mxfp4Weights
from llm_jax.convert.others import other_named
from llm_jax.convert.others.other import Other
from llm_jax.convert.rows import layered
from llm_jax.convert.shards import Weights
from llm_jax.convert.tensor_file import TensorFile
from llm_jax.convert.tensors import Absent, Constant, Tensor, empty, tensors, with_absent
from llm_jax.train.finite import require_finite

Params = dict[str, Any]
READERS = 2
"""Tensors that are read at a time, and so in memory beside the parameters."""
# Buffers in old checkpoints. They are not parameters.
BUFFERS = (
    ".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias",
    ".attention.masked_bias",
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model in Hugging Face's format, of which no tensor has been read yet.

    Attributes:
      config: the architecture, as `model_of` takes it.
      tensors: all that have parameters; each is in `weights`, with its shape, or absent.
      stored: name of each tensor → its name in `weights`.
    """

    folder: Path
    config: Any
    weights: Weights
    tensors: list[Tensor | ExpertTensor | Absent]
    stored: dict[str, str]

    def params(self) -> Params:
        """All parameters as float32 NumPy arrays."""
        params = empty(self.config)

        def fill(tensor: Tensor | ExpertTensor | Absent) -> None:
            tensor.write(self._values(tensor), params)

        with ThreadPoolExecutor(READERS) as pool:  # neither reading nor copying holds the lock
            for _ in pool.map(fill, self.tensors):
                pass
        return params

    def layers(self) -> Params:
        """The parameters as `LayeredArray`, which read their tensors when they are written: in
        bfloat16 if all tensors are, otherwise in float32.

        A tensor that is not finite raises `UserError` then.
        """
        dtype = np.dtype(jnp.bfloat16 if self.weights.is_bfloat16 else np.float32)
        return layered(self.config, self.tensors, dtype, self._finite)

    def _values(self, tensor: Tensor | ExpertTensor | Absent) -> Any:
        if isinstance(tensor, Absent):
            return None
        return self.weights.read(self.stored[tensor.name])

    def _finite(self, tensor: Tensor | ExpertTensor | Absent) -> Any:
        values = self._values(tensor)
        if values is None:
            return None
        require_finite({tensor.name: values}, str(self.folder), "download it again")
        return values


def open_model(
    folder: Path,
    *,
    compared: bool = False,
    elsewhere: Callable[[str], TensorFile] | None = None,
) -> Model:
    """The model in a Hugging Face folder.

    Args:
      compared: as `hf_config.from_hf` takes it.
      elsewhere: as `Weights` takes it.

    Raises:
      UserError: there is no such folder, the architecture is not supported, a file is unsafe or
        damaged, or a tensor is missing, not used, or has another shape than config.json says.
    """
    raw = read_config_json(folder)
    if other := other_named(raw.get("model_type")):
        config = other.from_hf(raw, compared=compared)
        return _open_other(folder, config, other, Weights(folder, elsewhere))
    config, family = hf_config.from_hf(raw, compared=compared), family_named(raw["model_type"])
    weights = weights_in(folder, raw, elsewhere)
    stored = _without_further_layers(folder, raw, _stored_names(weights, family))
    if config.tie_embeddings and (copy := stored.pop(family.naming.names["unembed"], None)):
        table = stored.get(family.naming.names["embed/tokens"], "")
        why = "set tie_word_embeddings to false in its config.json."
        _require_same(folder, weights, copy, table, why)
    return matched(folder, config, family.model_type, weights, stored)


def architecture_of(raw: dict[str, Any], *, compared: bool = False) -> Architecture:
    """The architecture that a config.json describes, of whichever kind; raises, and takes
    `compared`, as `hf_config.from_hf` does."""
    if other := other_named(raw.get("model_type")):
        return other.from_hf(raw, compared=compared)
    return hf_config.from_hf(raw, compared=compared)


def weights_in(
    folder: Path, raw: dict[str, Any], elsewhere: Callable[[str], TensorFile] | None = None
) -> Weights:
    """The tensors of a folder, quantised or not, of which none is read; raises as `Weights` does.

    Args:
      raw: its config.json.
    """
    method = hf_config.quant_method(raw)
    if method == "fp8":
        return Fp8Weights(folder, elsewhere, block_of(raw))
    return (Weights if method is None else Mxfp4Weights)(folder, elsewhere)


def _without_further_layers(
    folder: Path, raw: dict[str, Any], stored: dict[str, str]
) -> dict[str, str]:
    """`stored` without the layers that predict further tokens, which is said."""
    kept = {name: place for name, place in stored.items() if not of_further_layers(raw, name)}
    if count := len(stored) - len(kept):
        layers = raw["num_hidden_layers"]
        print(
            f"{folder} has {counted(count, 'tensor')} of layers that predict further tokens "
            f"({KEY} {raw[KEY]}, from model.layers.{layers}), which transformers does not use; "
            "left out.",
            file=sys.stderr,
        )
    return kept


def _open_other(folder: Path, config: Architecture, other: Other, weights: Weights) -> Model:
    """An encoder, or an encoder-decoder; raises as `open_model` does."""
    wanted = {tensor.name for tensor in tensors(config, other.model_type)}
    stored, left_out = {}, list[str]()
    for name in weights.shapes:
        end = next((old for old in other.renamed if name.endswith(old)), None)
        now = name.removesuffix(end) + other.renamed[end] if end else name
        if now not in wanted and now.startswith(other.heads):
            left_out.append(name)
        elif now in wanted or not now.startswith(other.unused):
            stored[now] = name
    if left_out:
        print(
            f"{folder} has {counted(len(left_out), 'tensor')} of a head that "
            f"{other.architecture(config)}, which its config.json names, does not have; left out: "
            f"{', '.join(left_out)}.",
            file=sys.stderr,
        )
    for copy, original in other.tied.items():
        why = "a tensor of its own in its place is not supported."
        _require_same(folder, weights, copy, original, why)
    return matched(folder, config, other.model_type, weights, stored)


def _require_same(folder: Path, weights: Weights, copy: str, original: str, why: str) -> None:
    """Raises `UserError` if the folder has both tensors, and they differ."""
    if copy not in weights.shapes or original not in weights.shapes:
        return
    if not np.array_equal(weights.read(copy), weights.read(original)):
        raise UserError(f"{folder} has {copy!r} with other values than {original!r}: {why}")


def read(folder: Path, *, compared: bool = False) -> tuple[Architecture, Params]:
    """The architecture and float32 NumPy parameters of a Hugging Face folder; raises as
    `open_model` does."""
    model = open_model(folder, compared=compared)
    return model.config, model.params()


def matched(
    folder: Path, config: Any, model_type: str, weights: Weights, stored: dict[str, str]
) -> Model:
    """The tensors of an architecture in `weights`.

    Args:
      stored: name in transformers → name in `weights`, of all tensors that must be used.

    Raises:
      UserError: a tensor is missing, not used, or has another shape, or is a constant of another
        value.
    """
    needed, left = with_absent(config, model_type), dict(stored)
    for tensor in needed:
        if isinstance(tensor, Absent):
            continue
        if tensor.name not in left:
            raise UserError(
                f"{folder} has no tensor {tensor.name!r}, but its config.json needs it."
            )
        name = left.pop(tensor.name)
        shape = weights.shapes[name]
        if shape != tensor.shape:
            raise UserError(
                f"Tensor {name!r} of {folder} has shape {list(shape)}, but its config.json says "
                f"{list(tensor.shape)}."
            )
        if isinstance(tensor, Constant):
            tensor.write(weights.read(name), {})
    if left:
        names = ", ".join(sorted(left.values())[:3])
        raise UserError(
            f"{folder} has {counted(len(left), 'tensor')} that its config.json does not use: "
            f"{names}."
        )
    learned = [one for one in needed if not isinstance(one, Constant)]
    return Model(folder, config, weights, learned, stored)


def read_config_json(folder: Path) -> dict[str, Any]:
    """config.json of a Hugging Face folder; raises `UserError` if there is none."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"There is no {path}: give a folder in Hugging Face format.")
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a JSON object.")
    return raw


def _stored_names(weights: Weights, family: Family) -> dict[str, str]:
    """Name in transformers → name in the files, without buffers."""
    older = family.naming.older
    names = {older.get(n, n): n for n in weights.shapes if not n.endswith(BUFFERS)}
    prefix, unembed = family.naming.optional_prefix, family.naming.names["unembed"]
    if prefix and not any(n.startswith(prefix) for n in names):
        head = (unembed, family.naming.names.get("unembed_bias"))
        names = {n if n in head else f"{prefix}{n}": n for n in names}
    return names
