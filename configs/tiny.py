"""For tests: one million parameters, seconds on a CPU.

  llm-jax train tiny --data.path data/stdlib

Hardware: any. Expected: about 2.3 bits per byte after 200 steps on the standard library.
"""

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="tiny",
        out="runs/tiny",
        steps=200,
        model=ModelConfig(
            vocab_size=4096,
            num_layers=2,
            d_model=128,
            num_heads=4,
            num_kv_heads=2,
            head_dim=32,
            d_ff=352,
            max_seq_len=512,
            tie_embeddings=True,
        ),
        compute=ComputeConfig(dtype="float32", remat="none"),
        data=DataConfig(seq_len=128, batch_size=8),
        optim=OptimConfig(learning_rate=3e-3, warmup_steps=20),
        checkpoint=CheckpointConfig(every=50),
        eval=EvalConfig(every=50, batches=4),
    )
