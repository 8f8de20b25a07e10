"""Decoders: each position sees the text before it."""
