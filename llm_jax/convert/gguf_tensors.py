"""The tensors of a Hugging Face checkpoint as llama.cpp names and orders them.

Its files hold the experts of a layer in one tensor, norms as the factor that they apply, and for
some architectures the rows of q and k in another order: it rotates neighbours where Hugging Face
rotates halves.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np

from llm_jax.config import Llama3Rope, ModelConfig, UserError
from llm_jax.convert.expert_tensor import ExpertTensor
from llm_jax.convert.gguf_arch import Architecture, Metadata
from llm_jax.convert.tensors import Leaf, Tensor
from llm_jax.models.common.activations import Xielu
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
SCORE_BIAS = re.compile(r"model\.layers\.(\d+)\..*e_score_correction_bias")
WHOLE = ("ffn_gate_inp", "position_embd", "exps.bias")
"""Tensors that are kept in float32, as vectors are."""


@dataclass(frozen=True)
class Part:
    """A tensor of the file: one of Hugging Face's, or the experts of a layer.

    Attributes:
      heads: of the rows that are put in llama.cpp's order; None: they stay.
      fixed: its values, if it is none of Hugging Face's.
      leaf: the one that it holds, in the order of `view`, if its values are not those of `sources`.
    """

    name: str
    sources: tuple[Tensor | ExpertTensor, ...]
    shape: tuple[int, ...]
    heads: int | None = None
    plus_one: bool = False
    turned: bool = False
    fixed: np.ndarray | None = None
    leaf: Leaf | None = None
    view: Callable[[np.ndarray], np.ndarray] = np.asarray

    @property
    def whole(self) -> bool:
        """Whether it stays in float32."""
        return len(self.shape) == 1 or any(word in self.name for word in WHOLE)

    def read(self, params: Params) -> np.ndarray:
        """float32 values."""
        if self.fixed is not None:
            return self.fixed
        if self.leaf is not None:
            return np.ascontiguousarray(self.view(self.leaf.of(params)), np.float32)
        read = [source.read(params, np.dtype(np.float32)) for source in self.sources]
        array = np.stack(read) if len(self.shape) == 3 else read[0]
        array = array.T if self.turned else array
        if self.heads is not None:
            halves = (self.heads, 2, array.shape[0] // self.heads // 2, *array.shape[1:])
            array = array.reshape(halves).swapaxes(1, 2).reshape(array.shape)
        return np.ascontiguousarray(array + 1 if self.plus_one else array)


def parts(
    config: ModelConfig, arch: Architecture, tensors: list[Tensor | ExpertTensor], params: Params
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
        if isinstance(tensor, ExpertTensor):
            made += _of_experts(tensor)
            continue
        if tensor.name.endswith(".kv_b_proj.weight"):
            made += _latent(tensor, config)
            continue
        if ".act_fn." in tensor.name:
            continue  # numbers, which are settings there
        if found := EXPERT.fullmatch(tensor.name):
            name = gguf.TENSOR_NAMES[EXPERTS[found[2]]].format(bid=int(found[1])) + ".weight"
            experts.setdefault(name, []).append(tensor)
            continue
        if tensor.name.endswith("o_proj.bias") and not arch.output_bias:
            _require_zero(tensor, params, arch)
            continue
        made.append(_part(_name(tensor.name, names, arch), tensor, config, arch))
    if config.tie_embeddings and arch.untied:
        table = next(one for one in made if one.name == "token_embd.weight")
        made.append(dataclasses.replace(table, name="output.weight"))
    for name, group in experts.items():
        made.append(Part(name, tuple(group), (len(group), *group[0].shape)))
    if isinstance(config.rope_scaling, Llama3Rope):
        plain = config.rope_theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
        factors = (plain / inverse_frequencies(config)[0]).astype(np.float32)
        made.append(Part("rope_freqs.weight", (), factors.shape, fixed=factors))
    return made


def _name(name: str, names: Any, arch: Architecture) -> str:
    """llama.cpp's name of a tensor."""
    if found := SCORE_BIAS.match(name):
        return f"blk.{found[1]}.exp_probs_b.bias"
    if arch.name == "bloom":
        name = name.removeprefix("transformer.")
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert found is not None, name
    return found if found.endswith((".weight", ".bias")) else f"{found}.weight"


def _of_experts(tensor: ExpertTensor) -> list[Part]:
    """Each matrix (E, out, in) and bias (E, out) of a tensor that holds those of all experts."""
    made = []
    for leaf in tensor.leaves:
        which, _, bias = leaf.path.removeprefix("blocks/moe/").partition("_")
        name = gguf.TENSOR_NAMES[EXPERTS[f"{which}_proj"]].format(bid=leaf.layer)
        shape = (leaf.shape[0], *leaf.shape[:0:-1])
        suffix = ".bias" if bias else ".weight"
        view = np.asarray if bias else _turned
        made.append(Part(name + suffix, (tensor,), shape, leaf=leaf, view=view))
    return made


def _turned(array: np.ndarray) -> np.ndarray:
    return array.swapaxes(1, 2)


def _latent(tensor: Tensor, config: ModelConfig) -> list[Part]:
    """The matrix from a latent to keys and values, in two: (N, R, key) and (N, value, R)."""
    leaf, latent = tensor.leaves[0], config.latent
    assert latent is not None
    R, N, _ = leaf.shape
    plain = config.head_dim - latent.rope_dim
    keys, values = (N, R, plain), (N, latent.value_dim, R)
    place = f"blk.{leaf.layer}"
    return [
        Part(
            f"{place}.attn_k_b.weight", (tensor,), keys, leaf=leaf,
            view=lambda up_RNU: up_RNU[..., :plain].swapaxes(0, 1),
        ),
        Part(
            f"{place}.attn_v_b.weight", (tensor,), values, leaf=leaf,
            view=lambda up_RNU: up_RNU[..., plain:].transpose(1, 2, 0),
        ),
    ]  # fmt: skip


def _part(name: str, tensor: Tensor, config: ModelConfig, arch: Architecture) -> Part:
    ungrouped = tuple(dataclasses.replace(leaf, groups=1) for leaf in tensor.leaves)
    tensor = dataclasses.replace(tensor, leaves=ungrouped)
    heads = None
    if arch.interleaved and ".self_attn.q_proj." in tensor.name:
        heads = config.num_heads
    elif arch.interleaved and ".self_attn.k_proj." in tensor.name:
        heads = config.num_kv_heads
    turned = arch.name == "gpt2" and CONV1D.search(tensor.name) is not None
    shape = tensor.shape[::-1] if turned else tensor.shape
    plus_one = config.norm_plus_one and tensor.name.endswith("norm.weight")
    return Part(name, (tensor,), shape, heads, plus_one, turned)


def _require_zero(tensor: Tensor, params: Params, arch: Architecture) -> None:
    if np.any(tensor.read(params, np.dtype(np.float32))):
        raise UserError(
            f"llama.cpp's {arch.name} does not compute this model: it adds no bias after attention "
            f"({tensor.name}). Export it with --to hf."
        )


def xielu(params: Params) -> Metadata:
    """The numbers of each layer's xIELU, as settings; none if the model has another activation."""
    numbers = params["blocks"].get("mlp", {}).get("xielu")
    if numbers is None:
        return {}
    made = {f"alpha_{x}": np.ravel(np.asarray(numbers[f"alpha_{x}"])).tolist() for x in "pn"}
    layers = len(made["alpha_p"])
    return {
        **{f"xielu.{name}": values for name, values in made.items()},
        "xielu.beta": [Xielu.BETA] * layers,
        "xielu.eps": [Xielu.LARGEST] * layers,
    }
