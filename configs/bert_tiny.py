"""A small BERT, for tests and a CPU: 0.76 million parameters, 6 million tokens.

  llm-jax data build --stdlib --vocab-size 4096 --out data/stdlib
  llm-jax train bert_tiny

Hardware: 2 CPU cores, a few minutes. Expected: 5.55 nats per hidden token of held-out text; the
frequencies of such tokens have 6.34 (benchmarks/hidden_tokens.py).
"""

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EncoderConfig,
    EvalConfig,
    OptimConfig,
    RunConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="bert_tiny",
        out="runs/bert_tiny",
        steps=1500,
        objective="masked",
        model=EncoderConfig(
            vocab_size=4096, num_layers=3, d_model=96, num_heads=3, d_ff=384, max_seq_len=128
        ),
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(seq_len=128, batch_size=32),
        optim=OptimConfig(learning_rate=2e-3, warmup_steps=150, final_fraction=0.02),
        checkpoint=CheckpointConfig(every=500),
        eval=EvalConfig(every=500, batches=64),
    )
