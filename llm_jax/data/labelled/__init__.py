"""Labelled examples: records of files become fixed-size rows with targets (`llm-jax data label`)."""
