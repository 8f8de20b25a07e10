"""Encoder-decoders: T5."""
