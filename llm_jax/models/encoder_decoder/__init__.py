"""Encoder-decoders: T5, and the original Transformer."""
