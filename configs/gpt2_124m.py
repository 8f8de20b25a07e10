"""GPT-2 small (Radford et al. 2019): learned positions, LayerNorm, biases, tied embeddings.

  llm-jax train gpt2_124m --data.path data/english

Hardware: 8 x A100-80 (about 4 hours) or v5e-16. The steps are those of nanoGPT's run on 10 billion
tokens, with batches of 0.5 M tokens. Its validation loss on OpenWebText is about 3.1 nats per
token.
"""

from llm_jax.config import (
    ComputeConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    RunConfig,
)


def config() -> RunConfig:
    return RunConfig(
        name="gpt2_124m",
        out="runs/gpt2_124m",
        steps=20_000,
        model=ModelConfig(
            vocab_size=50_257,
            num_layers=12,
            d_model=768,
            num_heads=12,
            num_kv_heads=12,
            head_dim=64,
            d_ff=3072,
            max_seq_len=1024,
            activation="gelu",
            norm="layernorm",
            positions="learned",
            biases=("qkv", "out", "mlp"),
            tie_embeddings=True,
        ),
        compute=ComputeConfig(remat="dots", accumulate=4),
        data=DataConfig(path="data/english", seq_len=1024, batch_size=512),
        optim=OptimConfig(learning_rate=6e-4, warmup_steps=700),
        parallel=ParallelConfig(data=-1),
    )
