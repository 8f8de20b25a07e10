"""Vectors of tokens from the tokens around them."""
