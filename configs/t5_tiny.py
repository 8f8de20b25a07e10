"""A small T5, for tests and a CPU: 0.92 million parameters, 5 million tokens.

  llm-jax data build --stdlib --vocab-size 4096 --out data/stdlib
  llm-jax train t5_tiny
  llm-jax generate runs/t5_tiny --prompt "import <extra_id_0>" --temperature 0

Hardware: 2 CPU cores, a few minutes. Expected: 4.50 nats per token of held-out targets; the
frequencies of such tokens have 5.75 (benchmarks/hidden_tokens.py).
"""

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EncoderDecoderConfig,
    EvalConfig,
    OptimConfig,
    RunConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="t5_tiny",
        out="runs/t5_tiny",
        steps=1200,
        objective="spans",
        model=EncoderDecoderConfig(
            vocab_size=4224,  # 4,096 and 100 sentinels, rounded up
            num_layers=2,
            num_decoder_layers=2,
            d_model=96,
            num_heads=3,
            head_dim=32,
            d_ff=256,
            max_seq_len=512,
        ),
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(seq_len=128, batch_size=32),
        optim=OptimConfig(learning_rate=3e-3, warmup_steps=120, final_fraction=0.02),
        checkpoint=CheckpointConfig(every=600),
        eval=EvalConfig(every=600, batches=64),
    )
