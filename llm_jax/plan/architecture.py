"""Choice of an architecture for a given size, with widths that hardware and meshes divide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from llm_jax.config import ModelConfig, MoeConfig, UserError, nearest
from llm_jax.plan.no_run import NoRun
from llm_jax.plan.recurrent_size import CELLS
from llm_jax.plan.solve import root

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_theta": 500_000.0, "norm_eps": 1e-5},
    "qwen": {"rope_theta": 1_000_000.0, "norm_eps": 1e-6, "qk_norm": True},
    "moe": {"rope_theta": 1_000_000.0, "norm_eps": 1e-5},
    "gpt2": {
        "activation": "gelu",
        "norm": "layernorm",
        "positions": "learned",
        "biases": ("qkv", "out", "mlp"),
    },
}
"""The fixed fields of each family: Llama 3 (Grattafiori et al. 2024), Qwen3 (Yang et al. 2025),
Mixtral (Jiang et al. 2024), GPT-2."""
COPYING: dict[str, Any] = {"biases": ("qkv",), "attention_init": "induction"}
"""Extra fields of small models of family `qwen`: with them they learn to copy early
(`models/decoder/induction.py`). The biases are those of Qwen 1 to 2.5, and `attention_bias` of
Qwen3 in transformers."""
EXPERTS = {"moe": (8, 2)}
"""For families with experts: (experts per layer, experts per token), as in Mixtral."""
BALANCE_LOSS, ROUTER_Z_LOSS = 0.01, 0.001
"""Weights of the routers' losses (Fedus et al. 2022, §2.2; Zoph et al. 2022, §4)."""
VOCABULARIES = {
    "llama": (128_256, 32_000, 8_192, 4_096),
    "qwen": (151_936, 32_000, 8_192, 4_096),
    "moe": (32_000, 8_192, 4_096),
    "gpt2": (50_304, 32_000, 8_192, 4_096),
}
"""Vocabulary sizes: first the family's own, then smaller ones for models that it would dominate."""
EMBEDDING_SHARE = 0.25
"""Largest share of the parameters in embeddings; above it a smaller vocabulary is used."""
TOLERANCE = 0.02
"""Largest relative difference between a chosen size and the target."""
SMALL = 2e7
"""Below this number of parameters, heads have size 32 and widths are multiples of 8 to 32. That is
fine enough to meet a size within 2% at the usual depth. Heads of size 16 are a third slower on a
CPU (docs/log.md)."""
LEAST_LAYERS = 3
"""Fewest layers, where the size allows it. Copying what followed an earlier occurrence of a token
takes two layers (induction heads, Olsson et al. 2022). Sizes that can copy and sizes that cannot
do not follow one law."""
LEAST_HEADS = 3
"""Fewest heads of small models with a width of 64 or more. With two heads and random initial
matrices, no model of half a million parameters learned to copy (docs/log.md)."""
TIED = 4e9
"""Below this number of parameters, embeddings are tied, as in Llama 3.2 (1B and 3B) and Qwen3."""


def default_seq_len(params: float) -> int:
    """Sequence length by model size: 512 below 20M, 2,048 to 3B, 4,096 to 20B, 8,192 above."""
    for limit, length in ((20e6, 512), (3e9, 2048), (20e9, 4096)):
        if params < limit:
            return length
    return 8192


def ideal_aspect(params: float) -> float:
    """Width over depth: 64 at 100M (GPT-2, GPT-3 small), rising to 128 at 7B (GPT-3, Llama).

    Between 50 and 150 it hardly affects the loss (Kaplan et al. 2020, figure 5). It falls to 32 at
    1.4M parameters, so that the smallest models keep a few layers.
    """
    return 64 * 2 ** min(1.0, max(-1.0, math.log(params / 1e8) / math.log(70)))


def ffn_ratio(family: str, width: int) -> float:
    """d_ff/d_model: 4 for GPT-2's MLP. Gated: 8/3 (Shazeer 2020), or 3.5 from a width of 2,048
    (Llama 3)."""
    if family == "gpt2":
        return 4.0
    return 3.5 if width >= 2048 else 8 / 3


def usual_ffn(family: str, width: int, heads_width: int) -> float:
    """d_ff by `ffn_ratio`. In small models the heads may be wider than the model. Then the ffn is
    smaller, by the parameters that the four wider attention matrices add, but at least half."""
    plain = ffn_ratio(family, width) * width
    return max(plain / 2, plain - max(0, heads_width - width) * 4 / 3)


def shapes(
    family: str, params: float, vocab_size: int | None
) -> Iterator[tuple[int, int, int, int]]:
    """(layers, width, heads, head size) of shapes near a size. Widths are whole heads, or finer in
    small models.

    The blocks of a plain Transformer have 12·L·D² parameters (Kaplan et al. 2020). Shapes whose
    blocks are far from `params` are skipped before any exact count. In small models most parameters
    are the V·D of the embedding.
    """
    aspect = ideal_aspect(params)
    embedded = (vocab_size or VOCABULARIES[family][-1]) if params < SMALL else 0
    centre = _width(params, aspect, embedded)
    step = _width_step(centre) if params < SMALL else max(64, _width_step(centre))
    first = max(step, int(centre / 2 // step * step))
    for width in range(first, int(centre * 2) + step, step):
        middle = width / aspect
        stride = max(1, int(middle / 32))
        most = max(int(middle * (1.4 if params >= SMALL else 3.0)), LEAST_LAYERS) + 2
        for layers in range(max(1, int(middle * 0.7)), most, stride):
            if 0.2 < 12 * layers * width**2 / (params - embedded * width or 1) < 2:
                yield layers, width, *_heads(family, width, params)


def _heads(family: str, width: int, params: float) -> tuple[int, int]:
    """(heads, head size). The size is 128 from a width of 1,024, 64 below, and 32 in small models.

    The heads of GPT-2 fill its width exactly: if 32 does not divide it, their size is 16.
    """
    if params >= SMALL:
        head = 128 if width >= 1024 else 64
    elif family == "gpt2":
        head = 16 if width % 32 else 32
    else:
        return max(LEAST_HEADS if width >= 64 else 1, math.ceil(width / 32)), 32
    return width // head, head


def _width(params: float, aspect: float, embedded: int) -> float:
    """The width at which V·D + 12·L·D², with L = D/aspect, is `params`."""
    plain = (params * aspect / 12) ** (1 / 3)
    if not embedded:
        return plain
    return root(lambda d: embedded * d + 12 * d**3 / aspect - params, 0.0, plain)


def _width_step(width: float) -> int:
    """Step between widths. It makes the number of heads a multiple of 4 from a width of 2,048, and
    of 8 from 4,096."""
    steps = {56: 8, 96: 16, 512: 32, 1024: 128, 2048: 256, 4096: 512, 16384: 1024}
    return next((step for limit, step in steps.items() if width < limit), 2048)


def kv_heads(family: str, heads: int) -> int:
    """Key/value heads: 8 for 16 or more query heads (Llama 3), or 4 if 8 does not divide them."""
    if family == "gpt2" or heads < 16:
        return heads
    return next(k for k in (8, 4, heads) if heads % k == 0)


def choose(
    family: str,
    size_of: Callable[[ModelConfig], float],
    target: float,
    *,
    params: float,
    seq_len: int,
    vocab_size: int | None,
) -> ModelConfig:
    """The architecture of `family` whose `size_of` (parameters, or FLOPs per token) meets `target`.

    Of the shapes within 2%, it takes the one whose width over depth is nearest to the usual one.
    The ffn width is a multiple of 128 (8 to 32 in small models, up to 512 in large ones), chosen to
    meet the target.

    Args:
      params: rough number of parameters.
      seq_len: becomes `max_seq_len`, in tokens.
      vocab_size: None: the family's own, or a smaller one.

    Raises:
      UserError: there is no such family, or no shape of whole heads is within 2% of the target.
    """
    if family in CELLS:
        raise UserError(
            f"The family is {family!r}, and only `llm-jax ladder` trains recurrent networks: give "
            "the --law of Transformers, or another --family."
        )
    if family not in FAMILIES:
        raise UserError(f"There is no family {family!r}: {nearest(family, FAMILIES)}")
    aspect = ideal_aspect(params)
    best: tuple[tuple[float, ...], ModelConfig] | None = None
    for layers, width, heads, head in shapes(family, params, vocab_size):
        vocabulary = vocab_size or _vocabulary(family, params, width)
        for model in _with_ffn(
            family, params, layers, width, heads, head, seq_len, vocabulary, size_of, target
        ):
            error = abs(size_of(model) / target - 1)
            bend = abs(math.log(width / layers / aspect))
            stretch = abs(math.log(model.d_ff / usual_ffn(family, width, heads * head)))
            shallow = 2 * max(0, LEAST_LAYERS - layers)
            power = 0.02 * (width % 512 != 0) if width >= 1024 else 0.0
            # On a CPU a layer of a small model costs time beyond its FLOPs, so prefer fewer, wider
            # layers.
            bent = 2 * bend + stretch if params < SMALL else bend + 2 * stretch
            form = bent + shallow + power
            rank = (max(0.0, error - TOLERANCE / 2), form + error)
            if best is None or rank < best[0]:
                best = (rank, model)
    if best is None or best[0][0] > TOLERANCE / 2:
        raise NoRun(
            f"No {family} architecture has about {params:.3g} parameters with a vocabulary of "
            f"{vocab_size or VOCABULARIES[family][-1]:,}",
            "raise the budget, or give a smaller --vocab-size.",
            "raise",
        )
    return best[1]


def _vocabulary(family: str, params: float, width: int) -> int:
    tables = 1 if _tied(family, params) else 2
    for size in VOCABULARIES[family]:
        if tables * size * width <= EMBEDDING_SHARE * params:
            return size
    return VOCABULARIES[family][-1]


def _tied(family: str, params: float) -> bool:
    return family == "gpt2" or params < TIED


def _with_ffn(
    family: str,
    params: float,
    layers: int,
    width: int,
    heads: int,
    head: int,
    seq_len: int,
    vocabulary: int,
    size_of: Callable[[ModelConfig], float],
    target: float,
) -> Iterator[ModelConfig]:
    """The shape with the two ffn widths nearest to the target, one below and one above.

    The ffn width must be 0.75 to 1.3 times the usual one. Below a width of 512 the range is 0.5 to
    1.75, because one layer more or less is a large step there.
    """
    units = ((8192, 512), (2048, 256), (512, 128), (256, 32), (128, 16), (0, 8))
    unit = next(size for least, size in units if width >= least)
    copies = family == "qwen" and params < SMALL and layers > 1
    besides = COPYING if copies else {}

    def build(d_ff: int) -> ModelConfig:
        moe = None
        if family in EXPERTS:
            experts, top_k = EXPERTS[family]
            moe = MoeConfig(
                experts=experts,
                top_k=top_k,
                d_ff=d_ff,
                balance_loss=BALANCE_LOSS,
                z_loss=ROUTER_Z_LOSS,
            )
        return ModelConfig(
            vocab_size=vocabulary,
            num_layers=layers,
            d_model=width,
            num_heads=heads,
            num_kv_heads=kv_heads(family, heads),
            head_dim=head,
            d_ff=d_ff,
            max_seq_len=seq_len,
            tie_embeddings=_tied(family, params),
            moe=moe,
            **FAMILIES[family],
            **besides,
        )

    usual = usual_ffn(family, width, heads * head)
    stretch = (0.75, 1.3) if width >= 512 else (0.5, 1.75)
    low, high = (max(unit, round(usual * s / unit) * unit) for s in stretch)
    bottom, top = size_of(build(low)), size_of(build(high))
    if top == bottom:
        yield build(low)
        return
    exact = low + (target - bottom) / (top - bottom) * (high - low)
    if not low - unit <= exact <= high + unit:
        return
    for d_ff in {math.floor(exact / unit) * unit, math.ceil(exact / unit) * unit}:
        if low <= d_ff <= high:
            yield build(d_ff)
