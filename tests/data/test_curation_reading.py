"""A curation that reads its sources in several tasks gives the documents, in the order, and the
losses that one reader gives."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_samples import content, silent

from llm_jax.config import UserError
from llm_jax.data.building import cut as portions
from llm_jax.data.curate import shards
from llm_jax.data.curate.curate import CurateSpec, curate
from llm_jax.data.curate.curated import curated_sources
from llm_jax.data.curate.recipe import Recipe
from llm_jax.data.curate.steps.near_duplicates import NearDuplicates
from llm_jax.data.sources import Document, FileSource, LeftOut, OwnSource, Source


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions of 6,000 bytes, in shards of 4,000; the parent reads files of more than 12,000."""
    monkeypatch.setattr(portions, "SHARD_BYTES", 6000)
    monkeypatch.setattr(shards, "SHARD_BYTES", 4000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files and a large one, with an empty document and a record without text."""
    made = tmp_path_factory.mktemp("sources")
    for number in range(6):
        (made / f"{number}.txt").write_text(text_of(f"file {number}", 250), encoding="utf-8")
    rows: list[dict[str, Any]] = [
        {"text": text_of(f"row {i}", 80), "url": f"http://a/{i}"} for i in range(30)
    ]
    rows[7], rows[20] = {"text": " "}, {"other": 1}
    lines = "\n".join(map(json.dumps, rows))
    (made / "3-large.jsonl").write_text(lines, encoding="utf-8")
    (made / "5.png").write_bytes(b"\x89PNG")
    (made / "zz.txt").write_bytes(b"\xff\xfe\xfd\xfc")
    return made


def text_of(name: str, words: int) -> str:
    """Words of letters, since digits count as one, others for each name."""
    draw = random.Random(name)
    return " ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(words))


def sources_of(folder: Path) -> list[Source]:
    def make() -> list[Document]:
        return [
            Document(text_of(f"own {i}", 100), f"own/{i}", "MIT", i, {"id": str(i)})
            for i in range(9)
        ]

    own = OwnSource("mine", make, "MIT", "public")
    return [FileSource(folder, metadata=("url",), licence="CC0-1.0"), own]


def run(sources: list[Source], out: Path, workers: int = 2, **more: Any) -> dict[str, Any]:
    spec = CurateSpec(sources=tuple(sources), recipe=Recipe(steps=(NearDuplicates(),)), **more)
    settings: dict[str, Any] = {"say": print, "write_page": lambda folder, info: None}
    return curate(spec, out, silent, workers=workers, **settings)[0]


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_portions_give_what_one_reader_gives_and_the_same_bytes_with_any_number_of_processes(
    folder: Path, tmp_path: Path
) -> None:
    info = run(sources_of(folder), tmp_path / "out", 1, max_left_out=1.0)
    run(sources_of(folder), tmp_path / "again", 3, max_left_out=1.0)
    assert content(tmp_path / "out") == content(tmp_path / "again")
    left_out = LeftOut()
    wanted = [one for source in sources_of(folder) for one in source.documents(left_out)]
    wanted = [one for one in wanted if one.text.strip()]
    found = [
        one for source in curated_sources(tmp_path / "out") for one in source.documents(LeftOut())
    ]
    assert [(one.text, one.source, one.line, one.licence, one.class_) for one in found] == [
        (one.text, one.source, one.line, one.licence, one.class_) for one in wanted
    ]
    assert [{**one.metadata, "language": "unknown"} for one in wanted] == [
        dict(one.metadata) for one in found
    ]
    files = sorted((tmp_path / "out/documents").iterdir())
    drafts = [draft for file in files for draft in shards.read(file)]
    assert [draft.number for draft in drafts] == list(range(len(wanted))) and len(files) > 4
    left_out.skip("empty", str(folder / "3-large.jsonl"), 8)
    assert info["skipped"] == dict(left_out.skipped.most_common())
    assert info["lost"] == left_out.summary(len(wanted) + 1)
    assert {one["name"]: len(one["files"]) for one in info["sources"]} == {
        str(folder): 8,
        "mine": 0,
    }


@pytest.mark.usefixtures("small")
def test_a_loss_that_is_not_allowed_ends_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--strict stops at the first loss"):
        run(sources_of(folder), tmp_path / "out", strict=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_tables_without_the_column_are_refused_and_one_among_others_is_a_loss(
    tmp_path: Path,
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text("body\n" + "word\n" * 300, encoding="utf-8")
    with pytest.raises(UserError, match="has no column 'text': it has body"):
        run([FileSource(tmp_path / "*.csv")], tmp_path / "out")
    (tmp_path / "9.csv").write_text("text\n" + text_of("kept", 60) + "\n", encoding="utf-8")
    info = run([FileSource(tmp_path / "*.csv")], tmp_path / "out", max_left_out=1.0)
    assert info["documents"]["out"] == 1 and info["lost"]["count"] == 3


@pytest.mark.usefixtures("small")
def test_a_file_that_changes_between_its_hash_and_its_task_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(text_of(f"file {number}", 1200), encoding="utf-8")
    given = portions.shards_of

    def changed(*words: Any) -> Any:
        (tmp_path / "2.txt").write_text("other", encoding="utf-8")
        return given(*words)

    monkeypatch.setattr("llm_jax.data.building.join.shards_of", changed)
    with pytest.raises(UserError, match=r"2\.txt changed while it was read"):
        run([FileSource(tmp_path / "*.txt")], tmp_path / "out")


def test_a_task_does_not_load_what_reads_the_formats() -> None:
    """Each shard of a pass has a process, whose start is paid for each."""
    program = "import sys, llm_jax.data.curate.task; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
