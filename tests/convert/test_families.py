"""Each family of transformers: same logits, same text, the way in and out returns every tensor."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from family_models import MODELS
from safetensors.numpy import load_file

from llm_jax.config import ModelConfig
from llm_jax.convert import hf_export, hf_import, parity
from llm_jax.convert.families import FAMILIES, family_named
from llm_jax.convert.hf_config import to_hf
from llm_jax.infer.generator import Decoder, generate, prepared
from llm_jax.infer.sampling import GREEDY

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH = 40
"""Tokens whose logits are compared: beyond each window and each original context."""


class Ids:
    """What `to_hf` asks of a tokenizer."""

    bos_id, eos_id, pad_id = 1, 2, 0


@functools.cache
def source(name: str, root: Path):
    """The model of transformers with weights that all matter, and the folder that holds it."""
    kind, fields = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**fields)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for key, buffer in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                buffer.add_(0.3 * torch.randn_like(buffer))
    model.float().save_pretrained(root / name)
    return model.eval(), root / name


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


@pytest.mark.parametrize("name", MODELS)
def test_a_family_both_ways(name, root, tmp_path):
    model, folder = source(name, root)
    family = family_named(name.split("-")[0])
    config, params = hf_import.read(folder)
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
    assert hf_import.read(tmp_path)[0] == config


@pytest.mark.parametrize("name", MODELS)
def test_a_family_writes_the_same_text_with_its_cache(name, root):
    model, folder = source(name, root)
    config, params = hf_import.read(folder)
    prompt, count = [1, 17, 40, 5, 99, 23, 8, 64], 30
    assert our_text(params, config, prompt, count) == their_text(model, prompt, count)


def test_every_family_has_a_model_here():
    tested = {name.split("-")[0] for name in MODELS} | {"mixtral", "qwen3_moe"}
    assert tested == {family.model_type for family in FAMILIES}
