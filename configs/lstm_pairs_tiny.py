"""A small LSTM encoder-decoder with attention, for tests and a CPU: 0.91 million parameters, 5
million tokens.

  llm-jax data build --stdlib --vocab-size 4096 --out data/stdlib
  llm-jax train lstm_pairs_tiny
  llm-jax generate runs/lstm_pairs_tiny --prompt "import <extra_id_0>" --temperature 0

What `t5_tiny` is measured against: the same windows, steps and batches, as many parameters.
Hardware: 2 CPU cores, a few minutes. Expected: 3.80 nats per token of held-out targets; `t5_tiny`
has 4.50.
"""

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvalConfig,
    OptimConfig,
    RecurrentEncoderDecoderConfig,
    RunConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="lstm_pairs_tiny",
        out="runs/lstm_pairs_tiny",
        steps=1200,
        objective="spans",
        model=RecurrentEncoderDecoderConfig(
            vocab_size=4224,  # 4,096 and 100 sentinels, rounded up
            num_layers=2,
            num_decoder_layers=2,
            d_model=112,
            max_seq_len=512,
        ),
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(seq_len=128, batch_size=32),
        optim=OptimConfig(learning_rate=1e-2, warmup_steps=120, final_fraction=0.02),
        checkpoint=CheckpointConfig(every=600),
        eval=EvalConfig(every=600, batches=64),
    )
