"""A run of about the size that the quickstart plans: 0.54 million parameters on 3.5 million tokens.

  llm-jax data build --stdlib --vocab-size 4096 --out data/stdlib
  llm-jax train quickstart

Hardware: 2 CPU cores, some minutes. Expected: 1.36 bits per byte of held-out text, where a
Kneser-Ney 5-gram model of as many tokens makes 1.65 (`llm-jax eval RUN --ngram 5`).
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
        name="quickstart",
        out="runs/quickstart",
        steps=3440,
        model=ModelConfig(
            vocab_size=4096,
            num_layers=3,
            d_model=80,
            num_heads=4,
            num_kv_heads=4,
            head_dim=32,
            d_ff=120,
            max_seq_len=512,
            rope_theta=500_000.0,
            qk_norm=True,  # without it, such a model learns to copy late or never (docs/log.md)
            tie_embeddings=True,
        ),
        # Written out, layers compile in seconds at this size and run faster than a scan on a CPU.
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(seq_len=512, batch_size=2),
        # Small batches want second moments that remember long, and more decay (docs/log.md).
        optim=OptimConfig(
            kind="muon",
            learning_rate=5e-3,
            warmup_steps=172,
            final_fraction=0.02,
            b2=0.998,
            weight_decay=0.3,
        ),
        checkpoint=CheckpointConfig(every=500),
        eval=EvalConfig(every=500, batches=128),
    )
