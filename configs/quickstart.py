"""The quickstart: 1.4 million parameters on 2 million tokens of the standard library.

  llm-jax data build --stdlib --vocab-size 4096 --out data/stdlib
  llm-jax train quickstart

Hardware: 2 CPU cores, some minutes. Expected: 1.91 bits per byte of the whole validation split,
where a Kneser-Ney 5-gram model of as many tokens makes 1.83 (`llm-jax eval RUN --ngram 5`).
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
        steps=1000,
        model=ModelConfig(
            vocab_size=4096,
            num_layers=4,
            d_model=128,
            num_heads=4,
            num_kv_heads=4,
            head_dim=32,
            d_ff=384,
            max_seq_len=1024,
            tie_embeddings=True,
        ),
        # Written out, layers compile in seconds at this size and run faster than a scan on a CPU.
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(seq_len=512, batch_size=4),
        optim=OptimConfig(
            kind="muon", learning_rate=7e-3, warmup_steps=50, final_fraction=0.02
        ),
        checkpoint=CheckpointConfig(every=100),
        eval=EvalConfig(every=100, batches=16),
    )
