"""The tensors of a Hugging Face checkpoint as llama.cpp names and orders them.

Its files hold the experts of a layer in one tensor, norms as the factor that they apply, and for
some architectures the rows of q and k in another order: it rotates neighbours where Hugging Face
rotates halves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np

from llm_jax.config import Llama3Rope, ModelConfig, UserError
from llm_jax.convert.gguf_arch import Architecture
from llm_jax.convert.tensors import Tensor
from llm_jax.models.common.rope import inverse_frequencies

Params = dict[str, Any]
EXPERT = re.compile(r"model\.layers\.(\d+)\..*\.experts\.\d+\.(\w+)\.weight")
EXPERTS = {
    "w1": gguf.MODEL_TENSOR.FFN_GATE_EXP,
    "gate_proj": gguf.MODEL_TENSOR.FFN_GATE_EXP,
    "w2": gguf.MODEL_TENSOR.FFN_DOWN_EXP,
    "down_proj": gguf.MODEL_TENSOR.FFN_DOWN_EXP,
    "w3": gguf.MODEL_TENSOR.FFN_UP_EXP,
    "up_proj": gguf.MODEL_TENSOR.FFN_UP_EXP,
}
CONV1D = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight")
WHOLE = ("ffn_gate_inp", "position_embd")
"""Tensors that are kept in float32, as vectors are."""


@dataclass(frozen=True)
class Part:
    """A tensor of the file: one of Hugging Face's, or the experts of a layer.

    Attributes:
      heads: of the rows that are put in llama.cpp's order; None: they stay.
      fixed: its values, if it is none of Hugging Face's.
    """

    name: str
    sources: tuple[Tensor, ...]
    shape: tuple[int, ...]
    heads: int | None = None
    plus_one: bool = False
    turned: bool = False
    fixed: np.ndarray | None = None

    @property
    def whole(self) -> bool:
        """Whether it stays in float32."""
        return len(self.shape) == 1 or any(word in self.name for word in WHOLE)

    def read(self, params: Params) -> np.ndarray:
        """float32 values."""
        if self.fixed is not None:
            return self.fixed
        read = [source.read(params, np.dtype(np.float32)) for source in self.sources]
        array = np.stack(read) if len(self.shape) == 3 else read[0]
        array = array.T if self.turned else array
        if self.heads is not None:
            halves = (self.heads, 2, array.shape[0] // self.heads // 2, *array.shape[1:])
            array = array.reshape(halves).swapaxes(1, 2).reshape(array.shape)
        return np.ascontiguousarray(array + 1 if self.plus_one else array)


def parts(
    config: ModelConfig, arch: Architecture, tensors: list[Tensor], params: Params
) -> list[Part]:
    """All tensors of the file, in the order in which they are written.

    Raises:
      UserError: the model has an output bias, which the architecture does not add.
    """
    kind = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == arch.name)
    names = gguf.get_tensor_name_map(kind, config.num_layers)
    made: list[Part] = []
    experts: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        if found := EXPERT.fullmatch(tensor.name):
            name = gguf.TENSOR_NAMES[EXPERTS[found[2]]].format(bid=int(found[1])) + ".weight"
            experts.setdefault(name, []).append(tensor)
            continue
        if tensor.name.endswith("o_proj.bias") and not arch.output_bias:
            _require_zero(tensor, params, arch)
            continue
        named = names.get_name(tensor.name, try_suffixes=(".weight", ".bias"))
        assert named is not None, tensor.name
        made.append(_part(named, tensor, config, arch))
    for name, group in experts.items():
        made.append(Part(name, tuple(group), (len(group), *group[0].shape)))
    if isinstance(config.rope_scaling, Llama3Rope):
        plain = config.rope_theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
        factors = (plain / inverse_frequencies(config)[0]).astype(np.float32)
        made.append(Part("rope_freqs.weight", (), factors.shape, fixed=factors))
    return made


def _part(name: str, tensor: Tensor, config: ModelConfig, arch: Architecture) -> Part:
    heads = None
    if arch.interleaved and ".self_attn.q_proj." in tensor.name:
        heads = config.num_heads
    elif arch.interleaved and ".self_attn.k_proj." in tensor.name:
        heads = config.num_kv_heads
    turned = CONV1D.search(tensor.name) is not None
    shape = tensor.shape[::-1] if turned else tensor.shape
    plus_one = config.norm_plus_one and tensor.name.endswith("norm.weight")
    return Part(name, (tensor,), shape, heads, plus_one, turned)


def _require_zero(tensor: Tensor, params: Params, arch: Architecture) -> None:
    if np.any(tensor.read(params, np.dtype(np.float32))):
        raise UserError(
            f"llama.cpp's {arch.name} does not compute this model: it adds no bias after attention "
            f"({tensor.name}). Export it with --to hf."
        )
