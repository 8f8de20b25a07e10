"""Qwen3 0.6B (Yang et al. 2025, table 1): QK-norm, 16 query and 8 key/value heads of size 128.

  llm-jax train qwen3_0_6b --data.path gs://bucket/data

Hardware: v5e-16, or 8 x A100-80 with `--parallel.fsdp 8`. The published run has 36 T tokens. This
recipe has 12 B, twenty tokens per parameter (Hoffmann et al. 2022).
"""

from llm_jax.config import (
    ComputeConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    RunConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="qwen3_0_6b",
        out="runs/qwen3_0_6b",
        steps=23_000,
        model=ModelConfig(
            vocab_size=151_936,
            num_layers=28,
            d_model=1024,
            num_heads=16,
            num_kv_heads=8,
            head_dim=128,
            d_ff=3072,
            max_seq_len=40_960,
            rope_theta=1_000_000.0,
            norm_eps=1e-6,
            qk_norm=True,
            tie_embeddings=True,
        ),
        compute=ComputeConfig(remat="dots"),
        data=DataConfig(path="data/web", seq_len=4096, batch_size=128),
        optim=OptimConfig(learning_rate=1e-3, warmup_steps=500),
        parallel=ParallelConfig(data=1, fsdp=16),
    )
