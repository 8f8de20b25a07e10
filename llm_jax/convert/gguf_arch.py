"""What llama.cpp computes: its architectures, and the metadata that they read from a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llm_jax.config import LinearRope, ModelConfig, UserError, YarnRope
from llm_jax.convert import gguf_families as of
from llm_jax.convert.gguf_families import Metadata


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp.

    Attributes:
      name: as `general.architecture` has it.
      lacks: a sentence's end about an option of a model that it does not compute; None if none.
      settings: keys that only some architectures have.
      interleaved: it rotates pairs (2i, 2i+1), so that rows of q and k are in another order.
      output_bias: it adds a bias after attention.
      windows: it computes windows.
      untied: it needs an output matrix, of a tied model too.
    """

    name: str
    lacks: of.Lacks
    settings: Callable[[ModelConfig], Metadata] = lambda config: {}
    interleaved: bool = False
    output_bias: bool = False
    windows: bool = False
    untied: bool = False

    def notes(self, config: ModelConfig) -> list[str]:
        """Sentences about what it computes otherwise, by less than it rounds."""
        if config.activation != "gelu_exact":
            return []
        return [
            f"llama.cpp's {self.name} takes the tanh approximation of GELU, which differs from the "
            "model's by up to 0.0005"
        ]


def _llama(config: ModelConfig) -> str | None:
    return of.scaling(config, llama3=True) or of.wants(config, activation="swiglu")


def _qwen(config: ModelConfig) -> str | None:
    if config.moe is not None and config.moe.dense_layers:
        return "not all layers have experts"
    lacking = of.experts(renormalise=True)(config) if config.moe else of.scaling(config)
    return lacking or of.wants(config, activation="swiglu")


def _gemma(config: ModelConfig) -> str | None:
    return of.wants(config, activation="geglu", tie_embeddings=True, rope_scaling=None, biases=())


def _gemma2(config: ModelConfig) -> str | None:
    if config.attn_softcap is None or config.logit_softcap is None:
        return "model.attn_softcap or model.logit_softcap is None"
    if config.attn_scale not in (None, config.head_dim**-0.5):
        return f"model.attn_scale is {config.attn_scale:g}"
    return of.pattern_of("LG")(config) or _gemma(config)


_SWIGLU = {"activation": "swiglu"}
ARCHITECTURES = {
    "llama": Architecture("llama", _llama, interleaved=True, output_bias=True),
    "mistral": Architecture("llama", _llama, interleaved=True),
    "mixtral": Architecture("llama", _llama, interleaved=True),
    "qwen2": Architecture("qwen2", _qwen),
    "qwen3": Architecture("qwen3", _qwen),
    "qwen3_moe": Architecture("qwen3moe", _qwen),
    "gemma": Architecture("gemma", _gemma),
    "gemma2": Architecture("gemma2", _gemma2, windows=True),
    "gpt2": Architecture("gpt2", of.unscaled(activation="gelu"), output_bias=True),
    "gemma3_text": Architecture(
        "gemma3", of.both(of.gemma3, of.pattern_of("LLLLLG")), of.local_rope, windows=True
    ),
    "phi3": Architecture("phi3", of.plain(**_SWIGLU)),
    "seed_oss": Architecture("seed_oss", of.both(of.plain(**_SWIGLU), of.bare_mlp)),
    "arcee": Architecture(
        "arcee", of.both(of.plain(activation="relu2"), of.bare_mlp), interleaved=True
    ),
    "granite": Architecture(
        "granite", of.plain(**_SWIGLU), of.granite, interleaved=True, output_bias=True
    ),
    "smollm3": Architecture(
        "smollm3", of.both(of.plain(**_SWIGLU), of.bare_mlp, of.nope_every_fourth),
        interleaved=True,
    ),
    "olmo": Architecture("olmo", of.plain(**_SWIGLU), of.clipped, interleaved=True),
    "olmo2": Architecture("olmo2", of.plain(**_SWIGLU), untied=True),
    "olmo3": Architecture(
        "olmo2", of.both(of.plain(**_SWIGLU), of.olmo3, of.pattern_of("LLLG")), of.window,
        windows=True, untied=True,
    ),
    "exaone4": Architecture(
        "exaone4", of.both(of.plain(**_SWIGLU), of.exaone4, of.pattern_of("LLLG")), of.window,
        windows=True,
    ),
    "apertus": Architecture("apertus", lambda c: of.scaling(c, llama3=True), untied=True),
    "hunyuan_v1_dense": Architecture("hunyuan-dense", of.unscaled(**_SWIGLU)),
    "ernie4_5": Architecture("ernie4_5", of.plain(**_SWIGLU, biases=())),
    "cohere": Architecture("command-r", of.plain(**_SWIGLU, tie_embeddings=True), of.cohere),
    "cohere2": Architecture(
        "cohere2",
        of.both(of.plain(**_SWIGLU, tie_embeddings=True), of.cohere2, of.pattern_of("LLLG")),
        lambda config: of.cohere(config) | of.window(config), windows=True,
    ),
    "stablelm": Architecture("stablelm", of.plain(**_SWIGLU), untied=True),
    "glm": Architecture("chatglm", of.plain(**_SWIGLU)),
    "glm4": Architecture("glm4", of.plain(**_SWIGLU)),
    "nemotron": Architecture(
        "nemotron", of.plain(activation="relu2"), output_bias=True, untied=True
    ),
    "phi": Architecture("phi2", of.plain(activation="gelu"), output_bias=True, untied=True),
    "gpt_neox": Architecture(
        "gptneox", of.both(of.gelu, of.plain(biases=("qkv", "out", "mlp"))), of.two_norms,
        output_bias=True, untied=True,
    ),
    "starcoder2": Architecture("starcoder2", of.both(of.gelu, of.plain()), output_bias=True),
    "falcon": Architecture("falcon", of.both(of.gelu, of.falcon), output_bias=True),
    "bloom": Architecture("bloom", of.gelu, output_bias=True),
    "mpt": Architecture("mpt", of.unscaled(attn_scale=None), of.mpt),
    "qwen2_moe": Architecture(
        "qwen2moe", of.both(of.experts(renormalise=False, dense_layers=0), of.plain(**_SWIGLU)),
        of.shared, untied=True,
    ),
    "olmoe": Architecture(
        "olmoe", of.both(of.experts(renormalise=False, dense_layers=0), of.olmoe), untied=True
    ),
    "granitemoe": Architecture(
        "granitemoe", of.both(of.experts(renormalise=True, dense_layers=0), of.plain(**_SWIGLU)),
        of.granite, interleaved=True,
    ),
    "gpt_oss": Architecture(
        "gpt-oss", of.both(of.windowed, of.experts(renormalise=True), of.pattern_of("LG")),
        of.window, windows=True, output_bias=True, untied=True,
    ),
    "deepseek_v2": Architecture("deepseek2", of.latent, of.deepseek),
    "deepseek_v3": Architecture("deepseek2", of.latent, of.deepseek),
    "glm4_moe": Architecture("glm4moe", of.both(of.experts(), of.plain(**_SWIGLU)), of.sigmoids),
}  # fmt: skip
"""`model_type` of transformers → the architecture that computes the same."""


def architecture_of(config: ModelConfig, model_type: str) -> Architecture:
    """The architecture of llama.cpp that computes what the model does.

    Raises:
      UserError: there is none.
    """
    found = ARCHITECTURES.get(model_type)
    if found is None:
        raise UserError(
            f"A {model_type} model cannot be written as GGUF: llama.cpp does not compute it. "
            "Export it with --to hf, or give --as a class that llama.cpp has."
        )
    if lacking := found.lacks(config):
        raise UserError(
            f"llama.cpp's {found.name} does not compute this model: {lacking}. Export it with "
            "--to hf."
        )
    return found


def metadata(config: ModelConfig, arch: Architecture) -> Metadata:
    """The keys below `<architecture>.` and their values."""
    made: Metadata = {
        "vocab_size": config.vocab_size,
        "context_length": context_length(config, arch),
        "embedding_length": config.d_model,
        "block_count": config.num_layers,
        "feed_forward_length": _feed_forward(config, arch),
        "attention.head_count": config.num_heads,
    }
    kind = "layer_norm_epsilon" if config.norm == "layernorm" else "layer_norm_rms_epsilon"
    made[f"attention.{kind}"] = float(config.norm_eps)
    if config.positions != "learned":
        made |= {
            "attention.head_count_kv": config.num_kv_heads,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
        }
    if config.positions == "rope":
        made |= {
            "rope.dimension_count": config.rotary_dim,
            "rope.freq_base": float(config.rope_theta),
        }
    if config.moe is not None:
        made |= {"expert_count": config.moe.experts, "expert_used_count": config.moe.top_k}
        made["expert_feed_forward_length"] = config.moe.d_ff
    if arch.name == "gemma2":
        made |= {
            "attn_logit_softcapping": float(config.attn_softcap or 0),
            "final_logit_softcapping": float(config.logit_softcap or 0),
            "attention.sliding_window": config.sliding_window or config.max_seq_len,
        }
    return made | _rope(config) | arch.settings(config)


def context_length(config: ModelConfig, arch: Architecture) -> int:
    """Longest text that llama.cpp computes as the model does: no longer than windows it ignores."""
    if config.sliding_window is None or arch.windows:
        return config.max_seq_len
    return min(config.max_seq_len, config.sliding_window)


def _feed_forward(config: ModelConfig, arch: Architecture) -> int:
    """Width of the MLPs; the llama architecture reads that of its experts here too."""
    return config.moe.d_ff if config.moe and arch.name in ("llama", "granitemoe") else config.d_ff


def _rope(config: ModelConfig) -> Metadata:
    scaling = config.rope_scaling
    if isinstance(scaling, LinearRope):
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    if not isinstance(scaling, YarnRope):
        return {}  # Llama 3's is a tensor
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(scaling.factor),
        "rope.scaling.original_context_length": scaling.original_max_seq_len,
        "rope.scaling.yarn_beta_fast": float(scaling.beta_fast),
        "rope.scaling.yarn_beta_slow": float(scaling.beta_slow),
    }
