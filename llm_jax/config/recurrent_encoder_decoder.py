"""The architecture of a recurrent encoder-decoder with attention as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_jax.config.errors import positive, require
from llm_jax.config.model import ModelConfig
from llm_jax.config.model_checks import MOST_LAYERS


@dataclass(frozen=True, kw_only=True)
class RecurrentEncoderDecoderConfig:
    """An encoder of LSTM or GRU layers that read the source from both sides, and a decoder that
    attends to it and is fed with what it has read (Luong et al. 2015, §3.1 and §3.3)."""

    kind: Literal["recurrent_encoder_decoder"] = "recurrent_encoder_decoder"
    """Family of architectures (`models/protocol.py`)."""
    cell: Literal["lstm", "gru"] = "lstm"
    """The layer, as in `RecurrentConfig.cell`."""
    attention: Literal["general", "additive"] = "general"
    """Scores of the decoder's state h and the encoder's state m: h·Wm (Luong et al. 2015), or
    v·tanh(Uh + Wm) (Bahdanau et al. 2015), which holds a vector for each pair of positions."""
    vocab_size: int
    """Rows of the embedding table: at least the tokenizer's pieces and the sentinels."""
    num_layers: int
    """Layers of the encoder, each half from left to right and half from right to left."""
    num_decoder_layers: int
    """Layers of the decoder."""
    d_model: int
    """Width of the embedding and of each layer's state."""
    max_seq_len: int
    """Longest source, in tokens. Nothing in the parameters depends on it."""
    tie_embeddings: bool = True
    """Use the embedding table as the output matrix too (Press & Wolf 2017)."""
    sentinels: int = 100
    """Ids after the tokenizer's own that stand for hidden spans, unless it has `<extra_id_0>`."""

    def __post_init__(self) -> None:
        positive("model", self, "num_layers", "num_decoder_layers", most=MOST_LAYERS)
        positive("model", self, "vocab_size", "d_model", "max_seq_len", "sentinels")
        require(
            self.d_model % 2 == 0,
            f"model.d_model is {self.d_model}, of which each direction of the encoder has half: "
            "make it even.",
        )

    @property
    def layers(self) -> ModelConfig:
        """A Transformer whose widths a mesh splits in the same way, for checks of sizes."""
        return ModelConfig(
            vocab_size=self.vocab_size,
            num_layers=self.num_layers,
            d_model=self.d_model,
            num_heads=self.d_model,
            num_kv_heads=self.d_model,
            head_dim=1,
            d_ff=self.d_model // 2,
            max_seq_len=self.max_seq_len,
            positions="learned",
            tie_embeddings=self.tie_embeddings,
        )
