"""Mixtral 8x7B (Jiang et al. 2024): 46.7 B parameters, of which each token uses 12.9 B.

  llm-jax train mixtral_8x7b --data.path gs://bucket/data

Hardware: v5p-512 (256 chips), mesh fsdp 128 x tensor 2. The weights of the experts are gathered
like those of a dense layer, and tokens do not move. With `--parallel.fsdp 32 --parallel.expert 4`
the experts do not move, and tokens are gathered. The paper gives neither data nor schedule; batch
and learning rate are chosen for the model's size.
"""

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    ModelConfig,
    MoeConfig,
    OptimConfig,
    ParallelConfig,
    RunConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="mixtral_8x7b",
        out="runs/mixtral_8x7b",
        steps=100_000,
        model=ModelConfig(
            vocab_size=32_000,
            num_layers=32,
            d_model=4096,
            num_heads=32,
            num_kv_heads=8,
            head_dim=128,
            d_ff=14_336,
            max_seq_len=32_768,
            rope_theta=1_000_000.0,
            moe=MoeConfig(experts=8, top_k=2, d_ff=14_336, balance_loss=0.01, z_loss=0.001),
        ),
        compute=ComputeConfig(remat="full"),
        data=DataConfig(path="data/web", seq_len=4096, batch_size=1024),
        optim=OptimConfig(learning_rate=3e-4, warmup_steps=2000),
        parallel=ParallelConfig(data=1, fsdp=128, tensor=2),
        checkpoint=CheckpointConfig(every=1000, keep_last=3, keep_every=10_000),
    )
