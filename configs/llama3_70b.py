"""Llama 3 70B (Grattafiori et al. 2024, table 3) with sequences of 8,192 tokens.

  llm-jax train llama3_70b --data.path gs://bucket/data

Hardware: v5p-512 (256 chips), mesh fsdp 64 x tensor 4. The published run has 15 T tokens; this
recipe trains 100,000 steps of 4 M tokens.
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
        name="llama3_70b",
        out="runs/llama3_70b",
        steps=100_000,
        model=ModelConfig(
            vocab_size=128_256,
            num_layers=80,
            d_model=8192,
            num_heads=64,
            num_kv_heads=8,
            head_dim=128,
            d_ff=28_672,
            max_seq_len=8192,
            rope_theta=500_000.0,
        ),
        compute=ComputeConfig(remat="full"),
        data=DataConfig(path="data/web", seq_len=8192, batch_size=512),
        optim=OptimConfig(learning_rate=1.5e-4, warmup_steps=8000, final_fraction=0.01),
        parallel=ParallelConfig(data=1, fsdp=64, tensor=4),
        checkpoint=CheckpointConfig(every=1000, keep_last=3, keep_every=10_000),
    )
