"""A dataset says of each source its licence, class, files with hashes, and what it gave."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from data_samples import JAPANESE, silent, stdlib_texts

from llm_jax.config import INFO_FILE, UserError, read_dataset_info
from llm_jax.data import provenance
from llm_jax.data.build import BuildSpec, build
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.sources import Document, FileSource, OwnSource
from llm_jax.data.tokenizers import Tokenizer

LINES = JAPANESE.splitlines()


def mixed() -> list[Document]:
    """Documents of two licences and classes."""
    return [
        Document(f"{i} {line}", f"m{i}", "CC0-1.0" if i % 2 else "ours", class_="restricted")
        for i, line in enumerate(LINES)
    ]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[FileSource, FileSource, OwnSource]:
    for number, (name, text) in enumerate(stdlib_texts()):
        folder = tmp_path / ("ab"[number % 2])
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return (
        FileSource(tmp_path / "a", licence="PSF-2.0", class_="public", given_name="first"),
        FileSource(tmp_path / "b"),
        OwnSource("mine.py:mixed", mixed),
    )


def test_counts_hashes_and_classes_by_source(tmp_path: Path, sources, tokenizer: Tokenizer) -> None:
    build(BuildSpec(sources=sources, tokenizer=tokenizer), tmp_path / "out", silent)
    info = TokenDataset.open(tmp_path / "out").info
    first, second, ours, cc0 = info["sources"]
    assert [one["name"] for one in info["sources"]] == [
        "first",
        str(tmp_path / "b"),
        "mine.py:mixed",
        "mine.py:mixed",
    ]
    assert [(one["licence"], one["class"]) for one in info["sources"]] == [
        ("PSF-2.0", "public"),
        ("unknown", "internal"),
        ("ours", "restricted"),
        ("CC0-1.0", "restricted"),
    ]
    for folder, one in (("a", first), ("b", second)):
        files = sorted((tmp_path / folder).iterdir())
        assert one["files"] == [
            {
                "path": str(file),
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "bytes": file.stat().st_size,
            }
            for file in files
        ]
        assert (one["documents"], one["files_not_named"]) == (len(files), 0)
    assert ours["files"] == []
    texts = [document.text for document in mixed()]
    assert ours["bytes"] == sum(len(text.encode()) for text in texts[::2])
    assert cc0["tokens"] == sum(map(len, tokenizer.encode_documents(texts[1::2])))
    for count, total in (("tokens", info["tokens"]), ("bytes", info["text_bytes"])):
        assert sum(one[count] for one in info["sources"]) == total
    named = [json.loads(line) for line in (tmp_path / "out/files.jsonl").read_text().splitlines()]
    assert named == [
        {"source": one["name"]} | file for one in (first, second) for file in one["files"]
    ]


def test_a_class_that_is_none_is_refused() -> None:
    source = OwnSource("mine.py:a", lambda: [Document("text", "a", "MIT", class_="secret")])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="class_ 'secret': give one of public, internal"):
        source.fingerprint()


def test_a_document_that_is_cut_keeps_its_source(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (_, one), (_, two), *_ = stdlib_texts()
    for name, text in (("a", one), ("b", two)):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    spec = BuildSpec(
        sources=tuple(FileSource(tmp_path / f"{name}.txt") for name in "ab"), tokenizer=tokenizer
    )
    info, _ = build(spec, tmp_path / "out", silent)
    assert info["held_out"]["chosen_by"] == "position"
    assert sum(split["documents"] for split in info["splits"].values()) == 4
    for source, text in zip(info["sources"], (one, two), strict=True):
        assert (source["documents"], source["bytes"]) == (1, len(text.encode()))
        assert source["tokens"] == pytest.approx(len(tokenizer.encode(text)), abs=6)


def test_many_files_are_named_beside_dataset_json(
    tmp_path: Path, sources, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "LISTED", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text(" ")
    both = (sources[0], FileSource(tmp_path / "empty"))
    info, _ = build(BuildSpec(sources=both, tokenizer=tokenizer), tmp_path / "out", silent)
    first, empty = info["sources"]
    count = len(list((tmp_path / "a").iterdir()))
    assert (len(first["files"]), first["files_not_named"]) == (2, count - 2)
    assert len((tmp_path / "out/files.jsonl").read_text().splitlines()) == count + 1
    assert (empty["documents"], empty["bytes"], empty["tokens"]) == (0, 0, 0)


def test_datasets_of_older_formats_open(tmp_path: Path, sources, tokenizer: Tokenizer) -> None:
    info, _ = build(BuildSpec(sources=sources, tokenizer=tokenizer), tmp_path / "out", silent)
    old = info | {"format": 3, "sources": [{"input": "x", "encoding": "utf-8", "files": 7}]}
    (tmp_path / "out" / INFO_FILE).write_text(json.dumps(old))
    (source,) = TokenDataset.open(tmp_path / "out").info["sources"]
    assert source == {
        "name": "x",
        "input": "x",
        "encoding": "utf-8",
        "licence": "unknown",
        "class": "internal",
        "files": [],
        "documents": info["documents"]["out"],
        "bytes": info["bytes"],
        "tokens": info["tokens"],
    }
    old["sources"] = [{"input": "x"}, {"input": "y"}]
    (tmp_path / "out" / INFO_FILE).write_text(json.dumps(old))
    assert [one["tokens"] for one in read_dataset_info(tmp_path / "out")["sources"]] == [None] * 2
    (tmp_path / "out" / INFO_FILE).write_text(json.dumps(info | {"sources": [{"input": 3}]}))
    with pytest.raises(UserError, match="is damaged"):
        read_dataset_info(tmp_path / "out")
