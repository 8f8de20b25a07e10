"""llm_jax turns a compute budget into a pretrained language model."""

__version__ = "0.1.0"
