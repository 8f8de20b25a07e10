"""Each family of transformers: same logits, same text, the way in and out returns every tensor."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from family_models import MODELS, built
from family_table import BEGIN, END, table
from safetensors.numpy import load_file

from llm_jax.config import ModelConfig, UserError
from llm_jax.convert import hf_export, hf_model, parity
from llm_jax.convert.families import FAMILIES, family_named
from llm_jax.convert.hf_config import from_hf, to_hf
from llm_jax.convert.hf_model import open_model
from llm_jax.infer.decoder import Decoder, prepared
from llm_jax.infer.generator import generate
from llm_jax.infer.sampling import GREEDY

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

LENGTH = 40
"""Tokens whose logits are compared: beyond each window and each original context."""

TOKENS = 64
"""Tokens that are generated."""


class Ids:
    """What `to_hf` asks of a tokenizer."""

    bos_id, eos_id, pad_id = 1, 2, 0


@functools.cache
def source(name: str, root: Path):
    """The model of transformers with weights that all matter, and the folder that holds it."""
    model = built(*MODELS[name])
    with torch.no_grad():
        for key, buffer in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                buffer.add_(0.3 * torch.randn_like(buffer))
    model.float().save_pretrained(root / name)
    return model, root / name


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("families")


def their_logits(model, tokens_BT) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens_BT.astype(np.int64))).logits.float().numpy()


def our_text(params, config: ModelConfig, prompt: list[int], count: int) -> list[int]:
    decoder = Decoder(config, tiny.compute_config(), GREEDY, config.vocab_size, (-5,))
    ready = prepared(params, config, decoder.compute)
    return generate(ready, decoder, [prompt], max_tokens=count).ids[0]


def their_text(model, prompt: list[int], count: int) -> list[int]:
    model.generation_config.eos_token_id = None
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
        do_sample=False, pad_token_id=0,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()


# Their options, one by one, are those of other families here, or of test_hf_parity.py.
COVERED = (
    "arcee", "ernie4_5", "falcon-sequential", "gemma", "gemma2", "glm", "gpt2",
    "gpt_neox-sequential", "llama", "llama-llama3", "ministral", "mistral", "olmo2", "qwen3",
    "seed_oss", "stablelm-parallel",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in COVERED else ()) for n in MODELS]
)
def test_a_family_both_ways(name, root, tmp_path):
    model, folder = source(name, root)
    family = family_named(name.split("-")[0])
    config, params = hf_model.read(folder)
    tokens_BT = np.random.default_rng(1).integers(3, 128, (2, LENGTH)).astype(np.int32)
    theirs = their_logits(model, tokens_BT)
    assert np.abs(theirs).max() > 0.1
    assert np.abs(parity.our_logits(params, config, tokens_BT) - theirs).max() <= 1e-4

    raw = to_hf(config, Ids, "float32", family)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    hf_export.write_weights(tmp_path, config, params, "float32", family=family)
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path))
    assert set(before) - {"lm_head.weight"} == set(after) - {"lm_head.weight"}
    for tensor, values in after.items():
        np.testing.assert_array_equal(before[tensor], values, err_msg=tensor)
    assert np.abs(parity.their_logits(tmp_path, tokens_BT) - theirs).max() <= 1e-4
    assert hf_model.read(tmp_path)[0] == config
    jax.tree.map(np.testing.assert_array_equal, gathered(tmp_path), params)
    if config.moe is None:
        parity.require_same_names(tmp_path, family.architecture, family.naming.older)


def gathered(folder: Path):
    """The parameters as they are streamed: each place is written once."""

    def array(layered):
        made, places = np.full(layered.shape, np.nan, layered.dtype), []
        for place, part in layered.parts():
            made[place] = part
            places.append(place)
        assert len(set(places)) == len(places)
        return made

    return jax.tree.map(array, open_model(folder).layers())


QUICK = ("llama-dynamic", "phi3-longrope", "cohere2", "bloom", "deepseek_v3", "gpt_oss")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MODELS]
)
def test_a_family_writes_the_same_text_with_its_cache(name, root):
    model, folder = source(name, root)
    config, params = hf_model.read(folder)
    prompt = [1, 17, 40, 5, 99, 23, 8, 64]
    if name.endswith("longrope"):  # beyond the first context: a text that outgrows it differs
        prompt = prompt * 3
    assert our_text(params, config, prompt, TOKENS) == their_text(model, prompt, TOKENS)


def test_the_table_in_the_guide_is_what_the_families_say():
    """UPDATE_DOCS=1 writes it."""
    page = Path(__file__).parents[2] / "docs" / "export.md"
    text = page.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = before + BEGIN + table() + END + after
    if "UPDATE_DOCS" in os.environ:
        page.write_text(wanted, "utf-8")
    assert page.read_text("utf-8") == wanted


@pytest.mark.parametrize(
    ("family", "keys", "sentence"),
    [
        ("cohere", {"use_qk_norm": True}, "use_qk_norm = True: only False is supported"),
        ("mpt", {"attn_config": {"qk_ln": True}}, r"attn_config\.qk_ln = True: not supported"),
        ("mpt", {"attn_config": {"clip_qkv": "8"}}, r"attn_config\.clip_qkv = '8': it must be a"),
        ("falcon", {"alibi": True}, "alibi = True: only False is supported"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before = False: only True"),
        ("opt", {"word_embed_proj_dim": 16}, "word_embed_proj_dim = 16: only hidden_size = 32"),
        ("smollm3", {"no_rope_layers": [1, 2]}, r"no_rope_layers \[1, 2\]: it must be 0 or 1"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm = True: only False"),
        ("phi3", {"rope_scaling": {"type": "su", "short_factor": 3}}, "short_factor = 3: give a"),
        ("llama", {"rope_scaling": {"type": "yarn", "llama_4_scaling_beta": 0.1}}, "llama_4_scal"),
        ("llama", {"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope_type 'ntk': supported"),
        ("glm", {"partial_rotary_factor": "half"}, "partial_rotary_factor is 'half', but must be"),
        ("granite", {"logits_scaling": "4"}, "logits_scaling is '4', but must be a finite number"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("nanochat", {"hidden_act": "silu"}, "hidden_act 'silu': supported are"),
    ],
)
def test_an_option_that_is_not_supported_names_file_and_field(family, keys, sentence):
    sizes = {
        "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }  # fmt: skip
    with pytest.raises(UserError, match=rf"^config\.json .*{sentence}"):
        from_hf({"model_type": family, **sizes, **keys}, compared=True)


def test_recurrent_models_are_refused_by_name():
    for model_type in ("mamba", "jamba", "falcon_h1", "qwen3_next"):
        with pytest.raises(UserError, match=f"{model_type}.*state-space and hybrid models are not"):
            from_hf({"model_type": model_type})


def test_every_family_has_a_model_here():
    tested = {name.split("-")[0] for name in MODELS} | {"mixtral", "qwen3_moe"}
    assert tested == {family.model_type for family in FAMILIES}
