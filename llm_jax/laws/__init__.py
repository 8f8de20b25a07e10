"""Scaling laws: published ones, law files, fits to runs, and the rules for batch and rate."""
