"""Architectures: parameters in, hidden states out. The only room that imports Flax."""
