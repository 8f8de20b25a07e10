"""FLOPs of training per token of a run, whatever its kind of model: the numerator of MFU."""

from __future__ import annotations

from llm_jax.config import EncoderConfig, RecurrentConfig, RunConfig
from llm_jax.config.model import ModelConfig
from llm_jax.facts.counts import token_flops


def train_flops(config: RunConfig) -> float | None:
    """FLOPs per token of forward and backward (twice the forward); None for a family of your own.

    As in `counts.py`, a multiply-add is 2 FLOPs, only matmuls count, and a query is taken to see
    all of its window, not only its own document.
    """
    model = config.model
    if isinstance(model, EncoderConfig):
        return 3 * encoder_flops(model, config.data.seq_len, config.data.mask_rate)
    if isinstance(model, RecurrentConfig):
        return 3 * recurrent_flops(model)
    if isinstance(model, ModelConfig) and model.kind == "decoder":
        return token_flops(model, config.data.seq_len).train
    return None


def encoder_flops(model: EncoderConfig, seq_len: int, mask_rate: float) -> float:
    """FLOPs per token of one forward pass of BERT.

    Letters as in `counts.py`. A layer has 4·D² weights of attention, 2·D·F of the MLP, and 4·D·T
    FLOPs of scores and values. The head, D² + D·V, is computed for the hidden tokens alone; that of
    the halves, D² + 2·D, once for each window.
    """
    D, F, T = model.d_model, model.d_ff, seq_len
    layer = 2 * (4 * D * D + 2 * D * F) + 4 * D * T
    head = mask_rate * 2 * (D * D + D * model.vocab_size)
    pair = 2 * (D * D + 2 * D) / T if model.next_sentence else 0
    return model.num_layers * layer + head + pair


def recurrent_flops(model: RecurrentConfig) -> float:
    """FLOPs per token of one forward pass: D² weights for each gate from the input, and as many
    from the state; D·V of the output."""
    gates = {"lstm": 4, "gru": 3}[model.cell]
    D, L = model.d_model, model.num_layers
    return float(L * 2 * 2 * gates * D * D + 2 * D * model.vocab_size)


def recurrent_parameters(model: RecurrentConfig) -> int:
    """The matrices of `recurrent_flops`, the embedding, and the biases: one of each gate, and in a
    GRU one of the new state."""
    gates = {"lstm": 4, "gru": 3}[model.cell]
    D, tables = model.d_model, 1 if model.tie_embeddings else 2
    layer = 2 * gates * D * D + gates * D + (D if model.cell == "gru" else 0)
    return model.num_layers * layer + tables * model.vocab_size * D
