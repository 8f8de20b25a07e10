"""Exact counts of a recurrent network; letters and rules as in `counts.py`."""

from __future__ import annotations

from llm_jax.config import ModelConfig, RecurrentConfig
from llm_jax.facts.counts import active_parameters, non_embedding_parameters

GATES = {"lstm": 4, "gru": 3}
"""Gates of a cell; in an LSTM input, forget, cell and output, in a GRU reset, update and new."""


def recurrent_flops(model: RecurrentConfig) -> float:
    """FLOPs per token of one forward pass: D² weights for each gate from the input, and as many
    from the state; D·V of the output."""
    D, gates = model.d_model, GATES[model.cell]
    return float(model.num_layers * 2 * 2 * gates * D * D + 2 * D * model.vocab_size)


def recurrent_parameters(model: RecurrentConfig) -> int:
    """All parameters: the matrices of `recurrent_flops`, the embedding, and the biases, one of each
    gate, and in a GRU one of the new state."""
    D, gates = model.d_model, GATES[model.cell]
    tables = 1 if model.tie_embeddings else 2
    layer = 2 * gates * D * D + gates * D + (D if model.cell == "gru" else 0)
    return model.num_layers * layer + tables * model.vocab_size * D


def sizes_of(model: ModelConfig | RecurrentConfig) -> dict[str, int]:
    """N of a scaling law, `all` and `non-embedding`: the parameters that a token uses."""
    if isinstance(model, RecurrentConfig):
        tables = 1 if model.tie_embeddings else 2
        size = recurrent_parameters(model)
        return {"all": size, "non-embedding": size - tables * model.vocab_size * model.d_model}
    return {"all": active_parameters(model), "non-embedding": non_embedding_parameters(model)}
