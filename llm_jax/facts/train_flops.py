"""FLOPs of training per token of a run, whatever its kind of model: the numerator of MFU."""

from __future__ import annotations

from llm_jax.config import (
    DataConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ModernEncoderConfig,
    RecurrentConfig,
    RecurrentEncoderDecoderConfig,
    RunConfig,
    TransformerEncoderDecoderConfig,
)
from llm_jax.config.data import span_lengths
from llm_jax.config.heads import outputs_of
from llm_jax.config.model import ModelConfig
from llm_jax.facts.counts import token_flops
from llm_jax.facts.recurrent_counts import GATES, recurrent_flops


def train_flops(config: RunConfig) -> float | None:
    """FLOPs per token of forward and backward (twice the forward); None for a family of your own,
    and for word2vec, which looks rows up and has no large products.

    As in `counts.py`, a multiply-add is 2 FLOPs, only matmuls count, and a query is taken to see
    all of its window, not only its own document.
    """
    model = config.model
    if isinstance(model, EncoderConfig | ModernEncoderConfig):
        return 3 * encoder_flops(model, config.data.seq_len, config.data.mask_rate)
    if isinstance(model, RecurrentConfig):
        return 3 * recurrent_flops(model)
    if isinstance(model, EncoderDecoderConfig | TransformerEncoderDecoderConfig):
        return 3 * encoder_decoder_flops(model, config.data)
    if isinstance(model, RecurrentEncoderDecoderConfig):
        return 3 * recurrent_encoder_decoder_flops(model, config.data)
    if isinstance(model, ModelConfig) and model.kind == "decoder":
        return token_flops(model, config.data.seq_len).train
    return None


def encoder_flops(
    model: EncoderConfig | ModernEncoderConfig, seq_len: int, mask_rate: float
) -> float:
    """FLOPs per token of one forward pass of BERT or ModernBERT.

    Letters as in `counts.py`. A layer has 4·D² weights of attention, 2·D·F of the MLP (3·D·F with a
    gate), and 4·D FLOPs of scores and values for each key. The head, D² + D·V, is computed for the
    hidden tokens alone; that of the halves, D² + 2·D, once for each window. A head of C labels has
    D² + D·C for each text (`classify`), or for each token; BERT has no D² for tokens. A sequence of
    `embed` is two texts.
    """
    D, F, T = model.d_model, model.d_ff, seq_len
    head = mask_rate * 2 * (D * D + D * model.vocab_size)
    if model.head != "masked":
        own = 0 if isinstance(model, EncoderConfig) and model.head != "classify" else D * D
        each = 1 / T if model.head == "classify" else 1
        head = 0.0 if model.head == "embed" else each * 2 * (own + D * outputs_of(model))
    if isinstance(model, EncoderConfig):
        keys, matrices = [float(T)] * model.num_layers, 2
        head += 2 * (D * D + 2 * D) / T if model.next_sentence else 0
    else:
        near = keys_on_both_sides(T, model.window // 2)
        keys, matrices = [float(T) if whole else near for whole in model.whole], 3
    weights = model.num_layers * (4 * D * D + matrices * D * F)
    texts = 2 if model.head == "embed" else 1
    return texts * (2 * weights + 4 * D * sum(keys)) + head


def encoder_decoder_flops(
    model: EncoderDecoderConfig | TransformerEncoderDecoderConfig, data: DataConfig
) -> float:
    """FLOPs per token of the text of one forward pass of T5 or the original Transformer, whose
    windows become a source of S tokens and a target of T.

    Attention has 4·D·N·H weights, the MLP 2·D·F (3·D·F with a gate), and a query 4·N·H FLOPs of
    scores and values for each key. Of cross-attention, keys and values are of the source.
    """
    D, V, width = model.d_model, model.vocab_size, model.num_heads * model.layers.head_dim
    S, T = span_lengths(data.seq_len, data.mask_rate, data.mean_span)
    mlp = (3 if model.activation == "geglu" else 2) * D * model.d_ff
    encoder = S * (2 * (4 * D * width + mlp) + 4 * width * S)
    decoder = T * (2 * (6 * D * width + mlp) + 4 * width * ((T + 1) / 2 + S)) + S * 4 * D * width
    head = T * 2 * D * V
    whole = model.num_layers * encoder + model.num_decoder_layers * decoder + head
    return whole / data.seq_len


def recurrent_encoder_decoder_flops(
    model: RecurrentEncoderDecoderConfig, data: DataConfig
) -> float:
    """FLOPs per token of the text of one forward pass, whose windows become a source of S tokens
    and a target of T.

    A layer of G gates has 3/2·G·D² weights in the encoder, whose directions have states of D/2, and
    2·G·D² in the decoder. Attention has D² for the keys of the source; for the target G·D² for what
    is fed, 2·D² for its output, D² more where scores are additive, and D² for the first step. A
    query has 4·D FLOPs of scores and values for each position of the source, and 2·D of their mean.
    """
    D, G, V = model.d_model, GATES[model.cell], model.vocab_size
    S, T = span_lengths(data.seq_len, data.mask_rate, data.mean_span)
    source = model.num_layers * 3 * G * D * D + 2 * D * D
    attention = G + 3 + (model.attention == "additive")
    weights = (2 * G * model.num_decoder_layers + attention) * D * D + D * V
    return (S * source + T * (2 * weights + 6 * D * S)) / data.seq_len


def keys_on_both_sides(seq_len: int, reach: int) -> float:
    """Mean number of keys, its own included, that a query sees up to `reach` positions away."""
    r = min(reach, seq_len - 1)
    return 1 + 2 * r - r * (r + 1) / seq_len
