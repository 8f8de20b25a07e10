"""What a tokenizer loses is found by decoding documents of every source, counted and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_samples import JAPANESE, silent
from foreign import FOREIGN, LLAMA_2, foreign_tokenizer

from llm_jax.data import fidelity, streams
from llm_jax.data.build import BuildSpec, build
from llm_jax.data.corpus import Corpus
from llm_jax.data.same_text import difference
from llm_jax.data.sources import FileSource, Source
from llm_jax.data.tokenizers import Tokenizer

LINES = [f"line {i}\nand　全角 ｶﾅ\n" for i in range(30)]


def built(tmp_path: Path, tokenizer: Tokenizer, **folders: list[str]) -> dict:
    for name, texts in folders.items():
        (tmp_path / name).mkdir()
        for i, text in enumerate(texts):
            (tmp_path / name / f"{i:03}.txt").write_text(text, encoding="utf-8")
    sources = tuple(FileSource(tmp_path / name) for name in folders)
    info, _ = build(BuildSpec(sources=sources, tokenizer=tokenizer), tmp_path / "out", silent)
    stored = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert stored["tokenizer_fidelity"] == info["tokenizer_fidelity"]
    return info


def test_each_source_says_what_is_lost_in_it(tmp_path: Path) -> None:
    nfkc = foreign_tokenizer(**FOREIGN["nfkc"])
    plain = [f"no line ends, {i}" for i in range(10)]
    info = built(tmp_path, nfkc, plain=plain, lines=LINES)
    same, changed = info["tokenizer_fidelity"]
    assert (same["documents"], same["compared"], same["changed"]) == (10, 10, 0)
    assert same["lost"] == same["added"] == {} and same["example"] is None
    assert changed["source"].endswith("lines")
    assert (changed["documents"], changed["compared"], changed["changed"]) == (30, 30, 30)
    # The normaliser makes a space of each newline and of the ideographic space, and wide katakana.
    assert changed["lost"] == {"\n": 60, "\u3000": 30, "ｶ": 30, "ﾅ": 30}
    assert changed["added"] == {" ": 90, "カ": 30, "ナ": 30}
    assert changed["lost_characters"] == changed["added_characters"] == 150
    assert "\n" in changed["example"]["was"] and "\n" not in changed["example"]["became"]


def test_a_tokenizer_without_bytes_loses_rare_characters_once(tmp_path: Path) -> None:
    tokenizer = foreign_tokenizer(**FOREIGN["no-bytes"])
    info = built(tmp_path, tokenizer, mixed=["plain text", "a 龘 here", "more text"])
    (one,) = info["tokenizer_fidelity"]
    assert (one["compared"], one["changed"]) == (3, 1)
    assert one["lost"] == {"龘": 1}
    assert "⁇" in one["added"]


@pytest.mark.parametrize("options", [{}, LLAMA_2])
def test_nothing_is_said_of_tokenizers_that_lose_nothing(tmp_path: Path, options: dict) -> None:
    texts = [" begins with a space", "\n", "  \n\n ", JAPANESE, *LINES]
    info = built(tmp_path, foreign_tokenizer(**options), all=texts)
    assert [one["changed"] for one in info["tokenizer_fidelity"]] == [0]
    assert fidelity.sentences(info["tokenizer_fidelity"]) == []


def test_a_large_source_is_sampled_first_last_and_longest_included(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"document {i:03}" for i in range(100)]
    texts[60] *= 50
    seen: list[str] = []
    choose = fidelity.choose_documents

    def chosen(corpus: Corpus, sources: tuple[Source, ...]) -> list[fidelity.Chosen]:
        made = choose(corpus, sources)
        seen.extend(corpus.text(number) for one in made for number in one.numbers)
        return made

    monkeypatch.setattr(fidelity, "SAMPLE_BYTES", 1000)
    monkeypatch.setattr(streams, "choose_documents", chosen)
    info = built(tmp_path, tokenizer, many=texts)
    assert {texts[0], texts[60], texts[99]} == set(seen[:3])
    assert len(seen) == len(set(seen)) == info["tokenizer_fidelity"][0]["compared"]
    assert sum(map(len, seen)) <= 1000 < sum(map(len, seen)) + 12
    first, seen[:] = list(seen), []
    built_again = tmp_path / "again"
    built_again.mkdir()
    built(built_again, tokenizer, many=texts)
    assert seen == first


def test_examples_show_the_first_difference() -> None:
    one = fidelity.Comparison("x", 1)
    one.see(difference("a" * 100 + "\n" + "b" * 100, "a" * 100 + " " + "b" * 100))
    assert one.example == {"was": "a" * 20 + "\n" + "b" * 19, "became": "a" * 20 + " " + "b" * 19}
    one.see(difference("ab", "ba"))
    assert (one.changed, one.lost, one.added) == (2, {"\n": 1}, {" ": 1})
    (said, characters, example) = fidelity.sentences([one.report()])
    assert "2 of the 2 documents of x" in said
    assert r"'\n' 1×" in characters and r"\n" in example
