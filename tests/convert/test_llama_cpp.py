"""llama.cpp itself loads the GGUF files: greedy tokens, log-probabilities and ids of text agree."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import urllib.request
from typing import Any

import family_models
import jax
import numpy as np
import pytest
import tiny

from llm_jax.config import Llama3Rope, ModelConfig, MoeConfig, YarnRope
from llm_jax.convert import parity
from llm_jax.convert.gguf_export import export_gguf
from llm_jax.convert.hf_config import from_hf
from llm_jax.convert.sample import SAMPLE
from llm_jax.data.tokenizers.training import train

xllamacpp = pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.slow

LLAMA = ModelConfig(
    vocab_size=600, num_layers=3, d_model=64, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=96,
    max_seq_len=128, norm_eps=1e-5,
)  # fmt: skip
QWEN3 = dataclasses.replace(LLAMA, qk_norm=True, rope_theta=1e6, head_dim=20)
GEMMA = dataclasses.replace(
    LLAMA, activation="geglu", norm_plus_one=True, scale_embeddings=True, tie_embeddings=True,
    head_dim=32,
)  # fmt: skip
EXPERTS = MoeConfig(experts=4, top_k=2, d_ff=32)
MODELS = {
    "quickstart": (dataclasses.replace(QWEN3, biases=("qkv",)), None),
    "llama": (LLAMA, None),
    "llama-biases-tied": (
        dataclasses.replace(LLAMA, biases=("qkv", "out", "mlp"), tie_embeddings=True), None,
    ),
    "llama-3-rope": (
        dataclasses.replace(
            LLAMA, rope_theta=5e5, rope_scaling=Llama3Rope(factor=8.0, original_max_seq_len=24)
        ),
        None,
    ),
    "llama-yarn": (
        dataclasses.replace(LLAMA, rope_scaling=YarnRope(factor=4.0, original_max_seq_len=32)),
        None,
    ),
    "mistral-odd-width": (dataclasses.replace(LLAMA, d_model=50), None),
    # With two key heads, one token's experts tie to 1e-3, which llama.cpp's rounding decides.
    "mixtral": (dataclasses.replace(LLAMA, num_kv_heads=4, moe=EXPERTS), None),
    "qwen2": (dataclasses.replace(LLAMA, biases=("qkv",)), "qwen2"),
    "qwen3-tied": (dataclasses.replace(QWEN3, tie_embeddings=True), None),
    "qwen3-experts": (dataclasses.replace(QWEN3, moe=EXPERTS), None),
    "gemma": (GEMMA, None),
    "gemma2": (
        dataclasses.replace(
            GEMMA, head_dim=16, post_norm=True, attn_softcap=3.0, logit_softcap=5.0,
            sliding_window=16, window_pattern="LG",
        ),
        None,
    ),
    "gpt2": (
        dataclasses.replace(
            LLAMA, activation="gelu", norm="layernorm", positions="learned", num_kv_heads=4,
            biases=("qkv", "out", "mlp"), tie_embeddings=True,
        ),
        None,
    ),
}  # fmt: skip
SEEN = {"sliding_window": None}
FAMILIES = {
    "apertus": {},
    "arcee": {"biases": ("qkv",)},
    "bloom": {},
    "cohere": {},
    "cohere2": {},
    "deepseek_v2-greedy": {"num_layers": 27},
    "deepseek_v3": {},
    "ernie4_5": {"biases": ()},
    "exaone4": {**SEEN, "rope_pattern": "R"},
    "falcon": {},
    "falcon-40b": {},
    "gemma3_text": {"num_layers": 6, "window_pattern": "LLLLLG"},
    "glm": {},
    "glm4": {"tie_embeddings": True},
    "glm4_moe": {},
    "gpt_neox": {"tie_embeddings": True},
    "gpt_oss": {"rope_scaling": YarnRope(factor=4.0, original_max_seq_len=16)},
    "granite": {"biases": ("qkv", "out", "mlp")},
    "granitemoe": {},
    "hunyuan_v1_dense": {"tie_embeddings": True},
    "mpt": {},
    "nemotron": {"biases": ("qkv", "out", "mlp")},
    "olmo": {},
    "olmo2": {"tie_embeddings": True},
    "olmo3": {},
    "olmoe": {"num_kv_heads": 4},
    "phi": {"tie_embeddings": True},
    "phi3": SEEN,
    "qwen2_moe": {"moe": {"dense_layers": 0}},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "stablelm-parallel": {},
    "starcoder2": SEEN,
}
"""Models of `family_models.py`, by name → changes, for which llama.cpp has a graph."""
TIE = 0.03
"""Logits, of 3 to 4, that differ by less are as likely: llama.cpp rounds GELU's table and others to
16 bits, and sums in another order on each kind of CPU."""
TOKENS = 40
TEXTS = [*SAMPLE.splitlines(), SAMPLE, " leading space", "two  spaces", "\ttab\n", "a", "ﾊﾝｶｸ 𝕏"]


@contextlib.contextmanager
def served(path):
    """Posts JSON to llama.cpp's server, on loopback, with float32 caches."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup, params.fit_params = 128, 1, False, False
    params.port, params.verbosity, params.cpuparams.n_threads = 0, 0, 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)

    def post(route, **words):
        request = urllib.request.Request(
            f"{server.listening_address}/{route}", json.dumps(words).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    yield post


def of_family(name: str, changes: dict[str, Any]) -> ModelConfig:
    """A model of `family_models.py` with other options, for the tokenizer here."""
    kind, fields = family_models.MODELS[name]
    raw = getattr(pytest.importorskip("transformers"), kind)(**fields).to_dict()
    model = from_hf(raw | {"vocab_size": 600}, compared=True)
    if "moe" in changes:
        changes = {"moe": dataclasses.replace(model.moe, **changes["moe"])}
    return dataclasses.replace(model, **changes)


@pytest.mark.parametrize("name", [*MODELS, *(f"family-{name}" for name in FAMILIES)])
def test_llama_cpp_makes_the_same_tokens(name, tokenizer, tmp_path):
    short = name.removeprefix("family-")
    model, as_class = MODELS.get(name, (None, short.split("-")[0]))
    model = model or of_family(short, FAMILIES[short])
    params = tiny.parameters(model, size=0.1)
    path = tmp_path / "model.gguf"
    run = tiny.run_config(model=model)
    export_gguf(run, 0, params, tokenizer, path, run=tmp_path, check=False, as_class=as_class)
    prompt = [tokenizer.bos_id, *tokenizer.encode("def mean(values")]
    with served(path) as post:
        made = post(
            "completion", prompt=prompt, n_predict=TOKENS, temperature=0, n_probs=1,
            return_tokens=True, cache_prompt=False, ignore_eos=True,
            logit_bias=[[i, False] for i in (1, 2, 3)],
        )  # fmt: skip
        ids = [post("tokenize", content=text, add_special=False)["tokens"] for text in TEXTS]
    assert ids == [tokenizer.encode(text) for text in TEXTS]
    tokens = made["tokens"]
    assert len(tokens) == TOKENS
    whole = np.array([[*prompt, *tokens]], np.int32)
    logits = np.array(parity.our_logits(params, model, whole)[0, len(prompt) - 1 : -1])
    logits[:, [1, 2, 3]] = -np.inf
    chosen = np.take_along_axis(logits, np.array(tokens)[:, None], axis=-1)[:, 0]
    assert np.max(np.max(logits, axis=-1) - chosen) <= TIE
    assert np.sum(np.array(tokens) == np.argmax(logits, axis=-1)) >= TOKENS - 2


def test_llama_cpp_has_the_ids_of_a_byte_level_tokenizer(tmp_path):
    tokenizer = train([SAMPLE * 50], vocab_size=400, character_coverage=0.98, kind="byte-level")
    model = dataclasses.replace(LLAMA, vocab_size=400)
    path = tmp_path / "model.gguf"
    run = tiny.run_config(model=model)
    params = jax.tree.map(np.asarray, tiny.parameters(model))
    export_gguf(run, 0, params, tokenizer, path, run=tmp_path, check=False)
    with served(path) as post:
        ids = [post("tokenize", content=text, add_special=False)["tokens"] for text in TEXTS]
    assert ids == [tokenizer.encode(text) for text in TEXTS]
