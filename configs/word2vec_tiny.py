"""A small word2vec, for tests and a CPU: two tables of 4,096 vectors of 64 numbers.

  llm-jax data build --stdlib --vocab-size 4096 --out data/stdlib
  llm-jax train word2vec_tiny
  llm-jax embed runs/word2vec_tiny int str return
  llm-jax export runs/word2vec_tiny --to word2vec vectors

Hardware: 2 CPU cores, two minutes. Expected: 2.39 nats per pair and its negatives in held-out text;
it begins at 4.16.
"""

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvalConfig,
    OptimConfig,
    RunConfig,
    Word2VecConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="word2vec_tiny",
        out="runs/word2vec_tiny",
        steps=1200,
        objective="negative_samples",
        model=Word2VecConfig(vocab_size=4096, d_model=64, max_seq_len=512),
        compute=ComputeConfig(dtype="float32", remat="none"),
        data=DataConfig(seq_len=128, batch_size=32),
        optim=OptimConfig(
            learning_rate=1e-2, warmup_steps=100, final_fraction=0.02, weight_decay=0.0
        ),
        checkpoint=CheckpointConfig(every=600),
        eval=EvalConfig(every=600, batches=32),
    )
