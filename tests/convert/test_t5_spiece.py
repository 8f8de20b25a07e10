"""T5 whose folder has `spiece.model` alone, without a tokenizer.json: in, and out again."""

from __future__ import annotations

import json

import pytest
from foreign import foreign_tokenizer

from llm_jax.config import UserError
from llm_jax.convert import hf_export, hf_import
from llm_jax.convert.own_tokenizer import tokenizer_of
from llm_jax.convert.sample import SAMPLE
from llm_jax.train.opened import open_run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [False, True])
def test_a_folder_with_spiece_model_only(settings, tmp_path):
    pieces = foreign_tokenizer(
        model_type="unigram", normalization_rule_name="nmt_nfkc", byte_fallback=False,
        add_dummy_prefix=True, remove_extra_whitespaces=True, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
    )  # fmt: skip
    count, source = pieces.vocab_size, tmp_path / "source"
    config = transformers.T5Config(
        vocab_size=count + 128, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    transformers.T5ForConditionalGeneration(config).save_pretrained(source)
    (source / "spiece.model").write_bytes(pieces.content)
    if settings:
        sentinels = {str(count + i): {"content": f"<extra_id_{99 - i}>"} for i in range(100)}
        raw = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100}
        raw |= {"added_tokens_decoder": sentinels, "eos_token": "</s>", "pad_token": "<pad>"}
        (source / "tokenizer_config.json").write_text(json.dumps(raw))
    tokenizer = tokenizer_of(source)
    assert tokenizer.content == pieces.content
    hf_import.import_run(source, tmp_path / "run", tokenizer, check=True)
    with open_run(tmp_path / "run", scratch=tmp_path / "out") as run:
        made = hf_export.export(
            run.config, 0, run.params, run.tokenizer, tmp_path / "out", run=tmp_path / "run"
        )
    assert made.max_logit_difference <= 1e-4
    name = "spiece.model" if settings else "tokenizer.model"
    assert (tmp_path / "out" / name).read_bytes() == pieces.content
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for line in SAMPLE.splitlines():
        assert theirs(line, add_special_tokens=False).input_ids == pieces.encode(line)
    if settings:
        assert theirs("a").input_ids == [*pieces.encode("a"), 1]
    names = ["<extra_id_0>", "<extra_id_99>"]
    assert theirs.convert_tokens_to_ids(names) == [count + 99, count]

    if settings:
        raw["added_tokens_decoder"][str(count)] = {"content": "<other>"}
        (source / "tokenizer_config.json").write_text(json.dumps(raw))
        with pytest.raises(UserError, match="adds tokens that the tokenizer does not have"):
            tokenizer_of(source)
