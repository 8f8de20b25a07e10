"""What a position's logits depend on, proved by gradients that are exactly zero.

Every position holds a token of its own, so row s of the gradient with respect to the embedding
table is the influence of input s. What may influence position t is computed without the model: a
layer lets t see its own document's earlier rows inside the window, and layers compose.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from tiny import compute_config, model_config, parameters

from llm_jax.attention import blockwise
from llm_jax.config import ModelConfig
from llm_jax.models.common.attend import packed_attend
from llm_jax.models.decoder.transformer import DECODER
from llm_jax.models.protocol import Context

T = 24
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "blockwise": ({}, {"attention": "blockwise"}),
    "reference_unrolled": ({}, {"attention": "reference", "scan_layers": False}),
    # Three layers on a pattern of two: one layer is outside of the scan.
    "pattern": ({"sliding_window": 3, "window_pattern": "LG", "num_layers": 3}, {"remat": "full"}),
    "local_unrolled": ({"sliding_window": 3}, {"scan_layers": False}),
    "local_reference": ({"sliding_window": 4}, {"attention": "reference"}),
}


def documents() -> dict[str, np.ndarray]:
    """One row of three documents, every token different."""
    starts = np.isin(np.arange(T), (0, 9, 11))
    segments = np.cumsum(starts).astype(np.int32)
    begin = np.maximum.accumulate(np.where(starts, np.arange(T), 0))
    tokens = np.random.default_rng(0).permutation(64)[:T]
    return {
        "tokens": tokens.astype(np.int32)[None],
        "segments": segments[None],
        "positions": (np.arange(T) - begin).astype(np.int32)[None],
    }


def reachable(model: ModelConfig, segments: np.ndarray) -> np.ndarray:
    """(T, T): may input s influence position t after all layers."""
    t, s = np.arange(T)[:, None], np.arange(T)[None]
    reach = np.eye(T, dtype=bool)
    for window in model.windows:
        sees = (s <= t) & (segments[t] == segments[s])
        if window is not None:
            sees &= t - s < window
        reach = sees @ reach | reach
    return reach


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_influence_is_exactly_what_the_masks_allow(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "block_size", lambda T: 8)
    model_changes, compute_changes = VARIANTS[variant]
    model, compute = model_config(**model_changes), compute_config(**compute_changes)
    params, text = parameters(model), documents()
    mix = np.random.default_rng(1).standard_normal(64).astype(np.float32)

    def outputs(table: Any) -> Any:
        full = params | {"embed": {"tokens": table}}
        attend = packed_attend(model, Context(compute), text["segments"])
        x, *_ = DECODER.hidden(full, text["tokens"], text["positions"], attend, model, compute)
        return DECODER.logits(x, full, model)[0] @ mix

    jacobian = jax.jit(jax.jacrev(outputs))(params["embed"]["tokens"])
    influence = np.abs(np.asarray(jacobian)).max(axis=-1)
    absent = np.setdiff1d(np.arange(64), text["tokens"])
    assert not influence[:, absent].any()
    wanted = reachable(model, text["segments"][0])
    assert np.array_equal(influence[:, text["tokens"][0]] != 0.0, wanted)
