"""The evaluator's sums against a plain sum over one document at a time."""

from __future__ import annotations

import itertools
import math

import jax
import numpy as np
import pytest
import tiny

from llm_jax.config import DataConfig, UserError
from llm_jax.convert.parity import our_logits
from llm_jax.data.batch import IGNORED
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.tokenizers import Marks
from llm_jax.evals.held_out import read_texts, split_tokens, whole_windows
from llm_jax.evals.perplexity import Evaluator, windows
from llm_jax.evals.score import Score


def silent(phase, done, total):
    return None


@pytest.fixture(scope="module")
def dataset(tiny_dataset) -> TokenDataset:
    return TokenDataset.open(tiny_dataset)


@pytest.fixture(scope="module")
def trained(dataset):
    """A config and perturbed parameters, and the evaluator over them."""
    model = tiny.model_config(vocab_size=dataset.tokenizer.vocab_size)
    data = DataConfig(path=str(dataset.path), seq_len=48, batch_size=3)
    config = tiny.run_config(model=model, data=data)
    params = tiny.parameters(model, size=0.1)
    return config, params, Evaluator(config, params, dataset.tokenizer)


def plain_score(config, params, dataset, tokens: np.ndarray) -> Score:
    """Window by window and document by document: no packing, no mask, no batch."""
    nats, count, size = 0.0, 0, 0
    T = config.data.seq_len
    for start in range(0, len(tokens) - 1, T):
        window = tokens[start : start + T + 1]
        cuts = [
            0,
            *[i for i in np.flatnonzero(window == dataset.tokenizer.bos_id) if i],
            len(window),
        ]
        for a, b in itertools.pairwise(cuts):
            document = window[a:b]
            if len(document) < 2:
                continue
            padded = np.pad(document[:-1], (0, T - len(document) + 1))
            logits = our_logits(params, config.model, padded[None])[0, : len(document) - 1]
            logp = np.asarray(jax.nn.log_softmax(logits))
            nats -= float(logp[np.arange(len(document) - 1), document[1:]].sum())
            count += len(document) - 1
            size += int(dataset.tokenizer.token_bytes[document[1:]].sum())
    return Score(nats, count, size)


@pytest.mark.slow
def test_a_stream_of_documents_costs_what_its_documents_cost(trained, dataset):
    config, params, evaluator = trained
    texts = ["def f(x):\n    return x\n" * 6, "猫である。", "", "import json\n" * 20]
    tokens = np.concatenate(dataset.tokenizer.encode_documents(texts))
    found = evaluator.stream(tokens, dataset.tokenizer.marks, silent)
    wanted = plain_score(config, params, dataset, tokens)
    assert found.tokens == wanted.tokens
    assert found.num_bytes == wanted.num_bytes
    assert found.nats == pytest.approx(wanted.nats, rel=1e-5)
    report = found.report()
    assert report["bits_per_byte"] == found.nats / math.log(2) / found.num_bytes
    assert report["perplexity"] == pytest.approx(math.exp(found.nats / found.tokens))


def test_a_split_is_its_whole_windows(trained, dataset):
    config, _, evaluator = trained
    tokens = whole_windows(split_tokens(dataset, "validation"), config.data.seq_len)
    by_split = evaluator.split(dataset, "validation", silent)
    by_stream = evaluator.stream(tokens, dataset.tokenizer.marks, silent)
    assert by_split.tokens == by_stream.tokens > 1000
    assert by_split.nats == pytest.approx(by_stream.nats, rel=1e-6)


@pytest.mark.parametrize("size", [2, 9, 10, 41, 42, 200])
def test_windows_cover_each_target_once(size):
    tokens = np.arange(2, 2 + size, dtype=np.int32)
    made = list(windows(tokens, seq_len=10, batch_size=4, marks=Marks(1, 2)))
    targets = np.concatenate([batch["targets"].reshape(-1) for batch in made])
    assert all(batch["inputs"].shape == (4, 10) for batch in made)
    np.testing.assert_array_equal(targets[targets != IGNORED], tokens[1:])


def test_texts_without_text_are_one_sentence(dataset, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    for name, sentence in [("empty.txt", "it is empty"), ("latin.txt", "not utf-8 1")]:
        with pytest.raises(UserError, match=sentence):
            read_texts([tmp_path / name], "utf-8", dataset.tokenizer)
    with pytest.raises(UserError, match=r"--text .*missing"):
        read_texts([tmp_path / "missing"], "utf-8", dataset.tokenizer)
    streams, left_out, used = read_texts([tmp_path / "latin.txt"], "latin-1", dataset.tokenizer)
    assert dataset.tokenizer.decode(next(iter(streams.values())).tolist()) == "é"
    assert (left_out.dropped(), used) == ({}, 1)


def test_texts_that_cannot_be_used_are_named(dataset, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": "half \\ud83d"}\n{}\n')
    streams, left_out, used = read_texts([tmp_path], "utf-8", dataset.tokenizer)
    assert dataset.tokenizer.decode(next(iter(streams.values())).tolist()) == "good"
    assert left_out.summary(used) == {
        "count": 2,
        "of": 3,
        "reasons": {
            "lone surrogates": {"count": 1, "first": f"{tmp_path / 'a.jsonl'}:2"},
            "no text in 'text'": {"count": 1, "first": f"{tmp_path / 'a.jsonl'}:3"},
        },
    }
