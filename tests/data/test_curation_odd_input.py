"""Names, fields and documents that are odd go through a curation, and are counted under their own
name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_samples import silent

from llm_jax.config import UserError
from llm_jax.data.curate.curate import CurateSpec, curate
from llm_jax.data.curate.curated import curated_sources
from llm_jax.data.curate.recipe import Recipe
from llm_jax.data.curate.steps.code import Code
from llm_jax.data.curate.steps.decontaminate import Decontaminate
from llm_jax.data.sources import Document, FileSource, LeftOut, OwnSource, Source


def run(sources: list[Source], out: Path, recipe: Recipe | None = None, **more: Any) -> Any:
    spec = CurateSpec(sources=tuple(sources), recipe=recipe or Recipe(steps=(Code(),)), **more)
    settings: dict[str, Any] = {"say": print, "write_page": lambda folder, info: None}
    info, _ = curate(spec, out, silent, workers=1, **settings)
    found = [one for source in curated_sources(out) for one in source.documents(LeftOut())]
    return info, found


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_names_and_fields_that_are_not_unicode_text(form: Any, tmp_path: Path) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    folder = tmp_path / "in"
    folder.mkdir()
    with open(os.path.join(os.fsencode(folder), b"\xff.txt"), "wb") as file:  # noqa: PTH118, PTH123
        file.write(b"in a file")
    row = '{"text": "in a row", "url": "a\\ud800b"}\n'
    (folder / "rows.jsonl").write_text(row, encoding="utf-8")
    source = FileSource(folder, metadata=("url",), given_name="two\twords")
    info, found = run([source], tmp_path / "out", format=form)
    assert list(info["by_source"]) == ["two\twords"]
    assert info["documents"] == {"in": 2, "out": 2}
    assert info["shards"][0]["sources"] == {"two\twords": 2}
    assert info["shards"][0]["bytes"] == len("in a file") + len("in a row")
    assert [(one.text, one.metadata.get("url")) for one in found] == [
        ("in a row", "a\\ud800b"), ("in a file", None),
    ]  # fmt: skip
    assert found[1].source.endswith("\\xff.txt")


def test_a_name_with_half_a_character_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    with pytest.raises(UserError, match="half of a surrogate pair"):
        run([FileSource(tmp_path / "a.txt", given_name="a\ud800")], tmp_path / "out")


def test_documents_of_own_code_stay_with_its_source_whatever_they_call_it(tmp_path: Path) -> None:
    def make() -> Iterator[Document]:
        for number, name in enumerate(("", "else", "\ud800")):
            yield Document(f"text {number}", f"place {name}", "MIT", source_name=name)

    info, found = run([OwnSource("mine", make, "MIT", "public")], tmp_path / "out")
    assert info["documents"]["out"] == 3 and list(info["by_source"]) == ["mine"]
    assert [one.text for one in found] == ["text 0", "text 1", "text 2"]
    assert {one.source_name for one in found} == {"mine"}


def test_a_shard_whose_documents_are_all_dropped_leaves_no_file(tmp_path: Path) -> None:
    rows = [json.dumps({"text": text}) for text in ("{}();\n" * 30, "kept = 1\n")]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    import llm_jax.data.curate.shards as shards

    before, shards.SHARD_BYTES = shards.SHARD_BYTES, 100
    try:
        info, found = run([FileSource(tmp_path / "rows.jsonl")], tmp_path / "out")
    finally:
        shards.SHARD_BYTES = before
    assert [one.text for one in found] == ["kept = 1\n"]
    assert [one["file"] for one in info["shards"]] == ["documents/00000.jsonl.zst"]


ENGLISH = " ".join(f"question{chr(97 + i)}" for i in range(20))
JAPANESE = "".join(chr(0x4E00 + 37 * i) for i in range(40))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("around", "leak", "found"),
    [
        ("これは日本語の長い文章である。" * 20, ENGLISH, True),
        ("This is a long text of English words. " * 20, JAPANESE, True),
        ("This is a long text of English words. " * 20, JAPANESE[:20], False),
        ("これは日本語の長い文章である。" * 20, " ".join(ENGLISH.split()[:12]), False),
    ],
)
def test_a_leak_is_found_in_text_of_another_language(
    around: str, leak: str, found: bool, tmp_path: Path
) -> None:
    """A quoted question of 20 words is shorter than 30 tokens, and 20 kanji are fewer than 30."""
    (tmp_path / "test.txt").write_text(f"{ENGLISH}\n{JAPANESE}", encoding="utf-8")
    (tmp_path / "a.txt").write_text(f"{around}{leak} {around}", encoding="utf-8")
    (tmp_path / "b.txt").write_text(around, encoding="utf-8")
    step = Decontaminate(against=(str(tmp_path / "test.txt"),))
    sources: list[Source] = [FileSource(tmp_path / name) for name in ("a.txt", "b.txt")]
    info, _ = run(sources, tmp_path / "out", Recipe(steps=(step,)))
    assert info["steps"][0]["dropped"] == found
