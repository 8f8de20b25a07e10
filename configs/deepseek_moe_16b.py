"""DeepSeekMoE 16B (Dai et al. 2024): 16.4 B parameters, of which each token uses 2.8 B.

  llm-jax train deepseek_moe_16b --data.path gs://bucket/data

Hardware: v5p-128 (64 chips), mesh fsdp 8 x expert 8. Each device has 8 of the 64 routed experts.
The first layer is dense, two shared experts see every token, and the weights of the six chosen
experts are not renormalised. The published run has 2 T tokens, batches of 4.5 K sequences of 4,096
tokens, a peak learning rate of 4.2e-4 and a balance loss of 0.001.
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
        name="deepseek_moe_16b",
        out="runs/deepseek_moe_16b",
        steps=106_000,
        model=ModelConfig(
            vocab_size=102_400,
            num_layers=28,
            d_model=2048,
            num_heads=16,
            num_kv_heads=16,
            head_dim=128,
            d_ff=10_944,
            max_seq_len=4096,
            norm_eps=1e-6,
            moe=MoeConfig(
                experts=64,
                top_k=6,
                d_ff=1408,
                shared_d_ff=2816,
                renormalise=False,
                dense_layers=1,
                balance_loss=0.001,
            ),
        ),
        compute=ComputeConfig(remat="full", accumulate=8),
        data=DataConfig(path="data/web", seq_len=4096, batch_size=4608),
        optim=OptimConfig(learning_rate=4.2e-4, warmup_steps=2000),
        parallel=ParallelConfig(data=1, fsdp=8, expert=8),
        checkpoint=CheckpointConfig(every=1000, keep_last=3, keep_every=10_000),
    )
