"""Labelled examples (`llm-jax data label`): records of files become rows with targets."""
