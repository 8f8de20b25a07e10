"""A run of about the size that the quickstart plans: 0.62 million parameters, 3 million tokens.

  llm-jax data build --stdlib --vocab-size 4096 --out data/stdlib
  llm-jax train quickstart

Hardware: 2 CPU cores, a few minutes. Expected: 1.30 bits per byte of held-out text. A Kneser-Ney
5-gram model of the same number of tokens has 1.69 (`llm-jax eval RUN --ngram 5`).
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
        steps=2942,
        model=ModelConfig(
            vocab_size=4096,
            num_layers=3,
            d_model=96,
            num_heads=3,
            num_kv_heads=3,
            head_dim=32,
            d_ff=136,
            max_seq_len=512,
            rope_theta=1_000_000.0,
            norm_eps=1e-6,
            # Without these three, a model this small learns to copy late or never (docs/log.md).
            qk_norm=True,
            biases=("qkv",),
            attention_init="induction",
            tie_embeddings=True,
        ),
        # At this size, written-out layers compile in seconds, and run faster than a scan on a CPU.
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(seq_len=512, batch_size=2),
        # Small batches need a slower decay of the second moment, and more weight decay
        # (docs/log.md).
        optim=OptimConfig(
            kind="muon",
            learning_rate=5e-3,
            warmup_steps=147,
            final_fraction=0.02,
            b2=0.998,
            weight_decay=0.3,
        ),
        checkpoint=CheckpointConfig(every=500),
        eval=EvalConfig(every=500, batches=128),
    )
