"""Llama 3 8B (Grattafiori et al. 2024, table 3) with sequences of 8,192 tokens.

  llm-jax train llama3_8b --data.path gs://bucket/data

Hardware: v5p-128 (64 chips), mesh fsdp 32 x tensor 2. The published run has 15 T tokens; this
recipe trains 100,000 steps of 1 M tokens.
"""

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    RunConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="llama3_8b",
        out="runs/llama3_8b",
        steps=100_000,
        model=ModelConfig(
            vocab_size=128_256,
            num_layers=32,
            d_model=4096,
            num_heads=32,
            num_kv_heads=8,
            head_dim=128,
            d_ff=14_336,
            max_seq_len=8192,
            rope_theta=500_000.0,
        ),
        compute=ComputeConfig(remat="full"),
        data=DataConfig(path="data/web", seq_len=8192, batch_size=128),
        optim=OptimConfig(learning_rate=3e-4, warmup_steps=8000, final_fraction=0.01),
        parallel=ParallelConfig(data=1, fsdp=32, tensor=2),
        checkpoint=CheckpointConfig(every=1000, keep_last=3, keep_every=10_000),
    )
