"""Labelled examples: words and answers at their tokens, what is dropped, order, damage."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_jax.config import ConfigError, UserError
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.labelled.build import LabelSpec, build_examples
from llm_jax.data.labelled.dataset import Examples, LabelledDataset
from llm_jax.data.labelled.records import Example, read_examples
from llm_jax.data.labelled.rows import cut, encode, fill, joined
from llm_jax.data.order import Order
from llm_jax.data.sources.left_out import LeftOut, Unusable
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.data.tokenizers.json_file import JsonTokenizer
from llm_jax.plan import dataset_text

WORDS = ("Ann", "met", "東京", "の", "𠮷野", "in", "São", "Paulo.")


@pytest.fixture(scope="module")
def tokenizers(tiny_dataset: Path) -> dict[str, Tokenizer]:
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ann", "met", "in", "sa", "##o", "paul", "##o"]
    vocabulary = {
        piece: i for i, piece in enumerate(dict.fromkeys([*pieces, ".", "東", "京", "の"]))
    }
    library = Library(models.WordPiece(vocabulary, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    companions = {"tokenizer_config.json": json.dumps(names).encode()}
    return {
        "sentencepiece": Tokenizer.load(tiny_dataset),
        "wordpiece": JsonTokenizer(library.to_str().encode(), companions),
    }


@pytest.mark.parametrize("kind", ["sentencepiece", "wordpiece"])
def test_a_tag_is_at_the_first_token_of_its_word(kind: str, tokenizers: Any) -> None:
    tokenizer = tokenizers[kind]
    text, starts = joined(WORDS)
    assert text == "Ann met 東京の𠮷野 in São Paulo."
    made = encode(Example(WORDS, tuple(str(i) for i in range(len(WORDS)))), "tag", tokenizer)
    assert (made.parts[0], made.lost_words) == (tokenizer.encode(text), 0)
    for word, start, place in zip(WORDS, starts, made.words, strict=True):
        first, end = made.spans[place]
        assert start < end <= start + len(word), word
        assert text[first:end].strip()[0] == word[0], word
        if place:
            assert made.spans[place - 1][1] <= start
    rows = fill([made], "tag", 64, [str(i) for i in range(len(WORDS))], tokenizer)
    places = np.flatnonzero(rows["targets"][0] >= 0)
    assert places.tolist() == [1 + place for place in made.words]
    assert rows["targets"][0, places].tolist() == list(range(len(WORDS)))
    short = cut(made, "tag", made.words[3] + 3)
    assert short.lost_words == len(WORDS) - 4


@pytest.mark.parametrize("kind", ["sentencepiece", "wordpiece"])
def test_an_answer_is_at_its_tokens(kind: str, tokenizers: Any) -> None:
    tokenizer, context = tokenizers[kind], joined(WORDS)[0]
    for answer in ("Ann", "東京", "São Paulo"):
        start = context.index(answer)
        target = (start, start + len(answer))
        made = encode(Example(("Where?", context), target), "answer", tokenizer)
        first, last = made.target
        found = context[made.spans[first][0] : made.spans[last][1]].strip()
        assert answer in found
        assert len(found) <= len(answer) + 1  # a token may hold the full stop
        rows = fill([made], "answer", 96, (), tokenizer)
        second = len(made.parts[0]) + 2
        assert rows["second"].tolist() == [second]
        assert rows["targets"].tolist() == [[second + first, second + last]]
        why = "answer beyond the row" if last else "question longer than the row"
        with pytest.raises(Unusable, match=why):
            cut(made, "answer", second + last + 1)
    none = encode(Example(("Where?", context), None), "answer", tokenizer)
    assert fill([none], "answer", 96, (), tokenizer)["targets"].tolist() == [[0, 0]]


def test_pairs_are_cut_at_the_longer_text(tokenizers: Any) -> None:
    tokenizer = tokenizers["sentencepiece"]
    made = encode(Example(("a b", "import json " * 20), "x"), "classify", tokenizer)
    short = made.parts[0]
    made = cut(made, "classify", 24)
    assert (made.size, made.parts[0], made.was_cut) == (24, short, True)
    rows = fill([made], "classify", 24, ("x",), tokenizer)
    ends = np.flatnonzero(rows["inputs"][0] == tokenizer.eos_id).tolist()
    assert ends == [len(short) + 1, 23]
    assert rows["second"].tolist() == [len(short) + 2]


RECORDS: list[Any] = [
    {"text": "one", "label": "b"},
    {"text": "two", "label": "a"},
    {"text": "three", "label": True},
    {"text": " ", "label": "a"},
    {"text": "four"},
    {"text": "five", "label": 1.5},
    "six",
    {"text": "se\ud800ven", "label": "a"},
]


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    lines = [json.dumps(one) for one in RECORDS] + ["{not json"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    left_out = LeftOut()
    kind, found = read_examples([tmp_path / "a.jsonl"], left_out)
    assert kind == "classify"
    assert [(one.texts, one.target) for one in found] == [
        (("one",), "b"), (("two",), "a"), (("three",), "true"),
    ]  # fmt: skip
    assert left_out.dropped() == {
        "no label": 2, "empty text": 1, "not an object": 1, "lone surrogates": 1,
        "line is not JSON": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"words": ["a", "b"], "tags": ["O"]}, "not a tag for each word"),
        ({"question": "q", "context": "abc", "answers": {"text": ["b"], "answer_start": [2]}},
         "answer that is not at its place"),
        ({"text": "a", "text_pair": "b", "score": 3}, "score not from -1 to 1"),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit_are_refused(tmp_path: Path, record: Any, why: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record), encoding="utf-8")
    left_out = LeftOut()
    with pytest.raises(UserError, match="no example that can be used"):
        read_examples([tmp_path / "a.jsonl"], left_out)
    assert left_out.dropped() == {why: 1}


def spec_of(folder: Path, tokenizer: Tokenizer, rows: list[Any], **changes: Any) -> LabelSpec:
    path = folder / "examples.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return LabelSpec(inputs=(path,), tokenizer=tokenizer, **changes)


def test_a_folder_of_examples(tmp_path: Path, tokenizers: Any) -> None:
    tokenizer = tokenizers["sentencepiece"]
    rows = [{"text": f"text number {i % 90}", "label": str(i % 3 * 5)} for i in range(120)]
    spec = spec_of(tmp_path, tokenizer, rows, fraction=0.2)
    info, before = build_examples(spec, tmp_path / "out", lambda *_: None, False)
    again, twice = build_examples(spec, tmp_path / "out", lambda *_: None, False)
    assert (before, twice, again) == (False, True, info)
    with pytest.raises(UserError, match="other inputs or settings"):
        kept_in = dataclasses.replace(spec, class_="restricted")
        build_examples(kept_in, tmp_path / "out", lambda *_: None, False)
    with pytest.raises(UserError, match="holds labelled examples, and scaling laws are of text"):
        dataset_text.read(tmp_path / "out")  # of `plan` and `ladder`
    dataset = TokenDataset.open(tmp_path / "out")
    assert isinstance(dataset, LabelledDataset)
    assert (dataset.kind, dataset.labels) == ("classify", ("0", "5", "10"))
    texts = {
        split: [tokenizer.decode(row) for row in dataset.rows(split)["inputs"]]
        for split in ("train", "validation")
    }
    assert sorted(texts["train"] + texts["validation"]) == sorted(one["text"] for one in rows)
    assert not {*texts["train"]} & {*texts["validation"]}
    assert 5 < len(texts["validation"]) < 40
    order = Order(dataset.num_tokens("train"), dataset.length, 3)
    windows = dataset.windows("train", dataset.length)
    epoch = windows.shuffled(order, np.arange(windows.windows))
    read = [tokenizer.decode(row) for row in epoch["inputs"]]
    assert sorted(read) == sorted(texts["train"])
    assert read != texts["train"]
    with pytest.raises(ConfigError, match=r"data\.seq_len is 7"):
        dataset.windows("train", 7)
    file = next((tmp_path / "out" / "examples").glob("train-inputs*"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ConfigError, match="is not what `llm-jax data label` wrote"):
        TokenDataset.open(tmp_path / "out").windows("train", dataset.length)


def test_another_seed_in_mid_epoch_reads_the_rest_of_it() -> None:
    n, T = 50, 8
    examples = Examples({"targets": np.arange(n, dtype=np.int32)})
    order = Order(n * T + 1, T, 0)
    first = examples.shuffled(order, np.arange(20))["targets"]
    rest = examples.shuffled(order.changed(20, T, 1), np.arange(35))["targets"]
    assert sorted([*first, *rest[:30]]) == list(range(n))
    padded = examples.in_order(np.arange(48, 56))["targets"]
    assert padded.tolist() == [48, 49, -1, -1, -1, -1, -1, -1]


def test_csv_and_pairs_with_scores(tmp_path: Path, tokenizers: Any) -> None:
    rows = ["text,text_pair,score", 'a,"b, c",0.5', "d,e,-1", "f,g,2", "h,i"]
    (tmp_path / "a.csv").write_text("\n".join(rows), encoding="utf-8")
    left_out = LeftOut()
    kind, found = read_examples([tmp_path / "a.csv"], left_out)
    assert (kind, [one.target for one in found]) == ("embed", [0.5, -1.0])
    assert found[0].texts == ("a", "b, c")
    assert left_out.dropped() == {"score not from -1 to 1": 1, "row of another length": 1}
    rows_of = [{"text": "a", "text_pair": "b", "score": 1}, {"text": "c", "text_pair": "d"}] * 2
    spec = spec_of(tmp_path, tokenizers["sentencepiece"], rows_of, held_out=(tmp_path / "a.csv",))
    with pytest.raises(UserError, match="give one to all, or to none"):
        build_examples(spec, tmp_path / "out", lambda *_: None, False)
    assert not (tmp_path / "out").exists()
    (tmp_path / "b.csv").write_text("text,text_pair\nh,i\n", encoding="utf-8")
    spec = dataclasses.replace(spec, inputs=spec.held_out, held_out=(tmp_path / "b.csv",))
    with pytest.raises(UserError, match="Of 3 pairs, 2 have a score"):
        build_examples(spec, tmp_path / "out", lambda *_: None, False)
