"""Encoders: each position sees the whole text."""
