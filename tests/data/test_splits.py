"""The held-out share is a share of the text, whatever the documents' sizes, and never in train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_samples import JAPANESE, silent, stdlib_texts

from llm_jax.config import UserError
from llm_jax.data.build import BuildSpec, build
from llm_jax.data.same_text import reader_key
from llm_jax.data.sources import FileSource
from llm_jax.data.splits import choose, cut_place
from llm_jax.data.tokenizers import Tokenizer

RNG = np.random.default_rng(0)
SIZES = {
    "equal": np.full(5000, 1000),
    "lognormal": RNG.lognormal(8, 1.5, 2000).astype(np.int64) + 1,
    "pareto": (1000 * (RNG.pareto(1.0, 3000) + 1)).astype(np.int64),
    "one huge": np.array([50_000_000] + [2000] * 300),
    "few": RNG.integers(50_000, 90_000, 12),
    "two": np.array([900_000, 800_000]),
    "twenty": np.full(20, 400_000),
    "one": np.array([1_000_000]),
    "nearly fitting": np.array([400, *[150_000] * 66]),
}


@pytest.mark.parametrize("fraction", [0.005, 0.02, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("name", SIZES)
def test_the_share_is_within_a_factor_of_two(name: str, fraction: float) -> None:
    sizes = SIZES[name].astype(np.uint64)
    rank = RNG.integers(0, 2**64, len(sizes), dtype=np.uint64)
    chosen, chosen_by = choose(rank, sizes, fraction)
    share = sizes[chosen].sum() / sizes.sum()
    assert chosen.any()
    if chosen_by == "position":
        assert share > 0.7  # of whose ends `fraction` is held out
    else:
        assert chosen_by in ("text", "size")
        assert fraction / 2 < share < fraction * 2
        assert not chosen.all()


def test_many_documents_are_chosen_each_by_its_own_text() -> None:
    """A text stays held out when others come or go."""
    sizes = SIZES["equal"].astype(np.uint64)
    rank = RNG.integers(0, 2**64, len(sizes), dtype=np.uint64)
    chosen, chosen_by = choose(rank, sizes, 0.02)
    fewer, fewer_by = choose(rank[:3000], sizes[:3000], 0.02)
    assert (chosen_by, fewer_by) == ("text", "text")
    assert np.array_equal(chosen[:3000], fewer)


def test_little_text_is_not_cut() -> None:
    rank = np.array([3, 1, 2], np.uint64)
    chosen, chosen_by = choose(rank, np.array([60, 50, 50], np.uint64), 0.02)
    assert (chosen.tolist(), chosen_by) == ([False, True, False], "document")


@pytest.mark.parametrize("text", [JAPANESE, "a" * 1000, "日" * 1000, "line\n" * 200, "ab", "é日"])
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_texts_are_cut_between_characters(text: str, fraction: float) -> None:
    raw = text.encode()
    place = cut_place(raw, fraction)
    assert 0 < place < len(raw)
    assert raw[:place].decode() + raw[place:].decode() == text
    assert (len(raw) - place) <= max(fraction * len(raw) + 3, 3)
    assert (len(raw) - place) >= 0.7 * fraction * len(raw) - 1


def test_what_a_reader_calls_the_same_text() -> None:
    text = "Café au lait\n  indented\n\nend"
    same = [
        text + "\n",
        "\n\n " + text + " \u3000\n",
        text.replace("\n", "\r\n"),
        text.replace("\n", "\r"),
        text.replace("\n", "\u2028"),
        text.replace("lait\n", "lait \t\n"),
        text.replace("é", "e\u0301"),
    ]
    assert {reader_key(one) for one in same} == {reader_key(text)}
    others = [text.lower(), text.replace("  in", " in"), text.replace("au", "ａｕ"), text + "."]
    assert len({reader_key(one) for one in [text, *others]}) == 5


def built(tmp_path: Path, tokenizer: Tokenizer, texts: list[str], **settings: Any) -> dict:
    folder = tmp_path / "in"
    folder.mkdir()
    for i, text in enumerate(texts):
        (folder / f"{i:04}.txt").write_text(text, encoding="utf-8", newline="")
    spec = BuildSpec(sources=(FileSource(folder),), tokenizer=tokenizer, **settings)
    return build(spec, tmp_path / "out", silent)[0]


def test_near_copies_are_not_in_both_splits(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = [f"Résumé of {i}:\nthe {i * 7919 % 1000}th line" for i in range(100)]
    copies = [text.replace("é", "e\u0301") + "\r\n" for text in texts]
    crlf = [text.replace("\n", "\r\n") + "  " for text in texts]
    info = built(tmp_path, tokenizer, texts + copies + crlf, validation_fraction=0.1)
    assert info["documents"] == {"in": 300, "out": 100}
    assert info["dropped"] == {"duplicate": 200}
    assert info["lost"] == {"count": 0, "of": 300, "reasons": {}}
    assert info["held_out"]["also_in_train"] == 0
    assert 0.05 < info["held_out"]["share"] < 0.2


def test_the_check_counts_what_is_in_both(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fault put into the search for duplicates, the check of the splits sees its effect."""
    number = iter(range(10**6))
    monkeypatch.setattr(
        "llm_jax.data.building.read.reader_key", lambda text: next(number).to_bytes(16, "little")
    )
    texts = [f"the same {i % 20}" + " " * (i // 20) for i in range(200)]
    info = built(tmp_path, tokenizer, texts, validation_fraction=0.3)
    assert info["documents"]["out"] == 200
    assert info["held_out"]["also_in_train"] == info["splits"]["validation"]["documents"] > 0


def test_the_end_of_each_huge_document_is_held_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = [source for _, source in stdlib_texts()][:4]
    info = built(tmp_path, tokenizer, ["tiny", *texts], validation_fraction=0.05)
    assert info["split_by"] == info["held_out"]["chosen_by"] == "position"
    assert info["documents"] == {"in": 5, "out": 5}
    assert info["splits"]["validation"]["documents"] == 4
    assert info["splits"]["train"]["documents"] == 5
    assert 0.025 < info["held_out"]["share"] < 0.1
    tokens = {split: count["tokens"] for split, count in info["splits"].items()}
    assert 0.025 < tokens["validation"] / sum(tokens.values()) < 0.1
    assert info["bytes"] == info["text_bytes"] == sum(len(text.encode()) for text in texts) + 4


def test_one_character_cannot_be_split(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="single character"):
        built(tmp_path, tokenizer, ["日"])
    assert not (tmp_path / "out").exists()
