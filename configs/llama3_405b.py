"""Llama 3 405B (Grattafiori et al. 2024, table 3) with sequences of 8,192 tokens.

  llm-jax preflight llama3_405b --topology v5p-4096
  llm-jax train llama3_405b --data.path gs://bucket/data

Hardware: v5p-4096 (2,048 chips), mesh fsdp 256 x tensor 8. The published run has 15.6 T tokens;
this recipe trains 100,000 steps of 16.8 M tokens.
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
        name="llama3_405b",
        out="runs/llama3_405b",
        steps=100_000,
        model=ModelConfig(
            vocab_size=128_256,
            num_layers=126,
            d_model=16_384,
            num_heads=128,
            num_kv_heads=8,
            head_dim=128,
            d_ff=53_248,
            max_seq_len=8192,
            rope_theta=500_000.0,
        ),
        compute=ComputeConfig(remat="full"),
        data=DataConfig(path="data/web", seq_len=8192, batch_size=2048),
        optim=OptimConfig(learning_rate=8e-5, warmup_steps=8000, final_fraction=0.01),
        parallel=ParallelConfig(data=1, fsdp=256, tensor=8),
        checkpoint=CheckpointConfig(every=1000, keep_last=3, keep_every=10_000),
    )
