"""A small original Transformer (Vaswani et al. 2017), for tests and a CPU: 0.93 million parameters,
5 million tokens.

  llm-jax data build --stdlib --vocab-size 4096 --out data/stdlib
  llm-jax train transformer_pairs_tiny
  llm-jax generate runs/transformer_pairs_tiny --prompt "import <extra_id_0>" --beams 4

The same windows, steps and batches as `t5_tiny` and `lstm_pairs_tiny`, with the paper's schedule
and label smoothing, so `loss` in training is without the smoothing, as it is in validation.
Hardware: 2 CPU cores, a few minutes.
"""

from llm_jax.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    EvalConfig,
    OptimConfig,
    RunConfig,
    TransformerEncoderDecoderConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="transformer_pairs_tiny",
        out="runs/transformer_pairs_tiny",
        steps=1200,
        objective="spans",
        model=TransformerEncoderDecoderConfig(
            vocab_size=4224,  # 4,096 and 100 sentinels, rounded up
            num_layers=2,
            num_decoder_layers=2,
            d_model=96,
            num_heads=3,
            d_ff=384,
            max_seq_len=512,
        ),
        compute=ComputeConfig(dtype="float32", remat="none", scan_layers=False),
        data=DataConfig(seq_len=128, batch_size=32),
        optim=OptimConfig(
            learning_rate=3e-3,
            warmup_steps=240,
            schedule="inverse_sqrt",
            b2=0.98,
            label_smoothing=0.1,
        ),
        checkpoint=CheckpointConfig(every=600),
        eval=EvalConfig(every=600, batches=64),
    )
