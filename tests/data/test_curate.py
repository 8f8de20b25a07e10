"""Curation from sources to a folder: what each step took, and the same bytes however it ran."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curation_documents import documents
from data_samples import content, silent
from killed_tasks import tasks_killed

from llm_jax.config import ConfigError, UserError, from_dict
from llm_jax.data.building import cut as portions
from llm_jax.data.curate import curate as curate_module
from llm_jax.data.curate import shards
from llm_jax.data.curate.curate import CurateSpec, curate
from llm_jax.data.curate.curated import curated_sources
from llm_jax.data.curate.quality_model import BUCKETS, QualityModel
from llm_jax.data.curate.recipe import RECIPES, Recipe, load_recipe
from llm_jax.data.curate.steps.classifier import Classifier
from llm_jax.data.curate.steps.decontaminate import Decontaminate
from llm_jax.data.curate.steps.gopher import GopherQuality, GopherRepetition
from llm_jax.data.curate.steps.near_duplicates import NearDuplicates
from llm_jax.data.curate.steps.pii import Pii
from llm_jax.data.curate.steps.repeated_paragraphs import RepeatedParagraphs
from llm_jax.data.curate.steps.swallow import Swallow
from llm_jax.data.sources import FileSource, LeftOut

RECIPE = Recipe(
    steps=(
        GopherRepetition(),
        RepeatedParagraphs(max_removed=0.6),
        Pii(kinds=("email", "ip")),
        NearDuplicates(),
    )
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 documents in two files, and one line that is not JSON."""
    folder = tmp_path_factory.mktemp("crawl")
    drawn = documents()[:200] + documents()[1000:1200]
    for number, name in enumerate(("a.jsonl", "b.jsonl")):
        lines = [json.dumps({"text": text}) for _, text in drawn[number::2]]
        (folder / name).write_text("\n".join([*lines, "{"]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 200_000)
    monkeypatch.setattr(portions, "SHARD_BYTES", 300_000)


def run(
    recipe: Recipe,
    source: Path | list[Path],
    out: Path,
    workers: int = 2,
    format: Any = "jsonl",
    strict: bool = False,
    **more: Any,
) -> dict[str, Any]:
    paths = source if isinstance(source, list) else [source]
    sources = tuple(FileSource(path) for path in paths)
    spec = CurateSpec(sources=sources, recipe=recipe, format=format, strict=strict)
    settings = {"say": silent_warning, "write_page": no_page} | more
    return curate(spec, out, silent, workers=workers, **settings)[0]


def silent_warning(sentence: str) -> None:
    """Shows nothing."""


def no_page(folder: Path, info: dict[str, Any]) -> None:
    """Writes no page."""


def texts(folder: Path) -> list[str]:
    return [
        document.text
        for source in curated_sources(folder)
        for document in source.documents(LeftOut())
    ]


@pytest.mark.slow
def test_what_comes_in_is_dropped_or_comes_out(corpus: Path, tmp_path: Path) -> None:
    info = run(RECIPE, corpus, tmp_path / "out")
    assert info["documents"]["in"] == 400
    dropped = sum(step["dropped"] for step in info["steps"])
    assert info["documents"]["out"] == 400 - dropped == len(texts(tmp_path / "out"))
    assert all(step["dropped"] > 0 for step in info["steps"] if step["name"] != "pii")
    taken = sum(step["bytes"] for step in info["steps"])
    assert info["bytes"]["out"] == info["bytes"]["in"] - taken
    assert info["bytes"]["out"] == sum(len(text.encode()) for text in texts(tmp_path / "out"))
    assert info["lost"]["count"] == 2
    for step in info["steps"]:
        held = info["tally"]["steps"][step["name"]]
        assert step["dropped"] == sum(step["reasons"].values())
        counts = [held["bins"][name]["counts"].values() for name in held["bins"]]
        assert step["dropped"] == sum(gone for bins in counts for _, gone in bins)
        assert len(held["examples"].get("dropped", ())) == min(step["dropped"], 20)
        margins = [one["rank"] for one in held["examples"].get("dropped", ())]
        assert margins == sorted(margins)


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_the_bytes_are_the_same_with_any_number_of_processes(corpus: Path, tmp_path: Path) -> None:
    made = [content_of_run(corpus, tmp_path / str(workers), workers) for workers in (1, 3)]
    assert made[0] == made[1]
    assert sum("documents" in name for name in made[0]) > 2


def content_of_run(corpus: Path, out: Path, workers: int = 2, **more: Any) -> dict[str, bytes]:
    run(RECIPE, corpus, out, workers, **more)
    return content(out)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.slow
def test_workers_that_are_killed_change_nothing(corpus: Path, tmp_path: Path) -> None:
    clean = content_of_run(corpus, tmp_path / "clean")
    said: list[str] = []
    with tasks_killed(tmp_path / ".killed") as killed:
        made = content_of_run(corpus, tmp_path / "killed", say=said.append)
    assert len(killed) == 5 and 1 <= len(said) <= 5, said
    assert made == clean


@pytest.mark.usefixtures("small_shards")
@pytest.mark.slow
def test_a_curation_that_is_killed_resumes(corpus: Path, tmp_path: Path) -> None:
    clean = content_of_run(corpus, tmp_path / "clean")
    out = tmp_path / "out"
    program = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from llm_jax.data.curate import shards; shards.SHARD_BYTES = 200_000\n"
        "from llm_jax.data.building import cut; cut.SHARD_BYTES = 300_000\n"
        "from pathlib import Path; from test_curate import RECIPE, run\n"
        "run(RECIPE, Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    words = [sys.executable, "-c", program, str(corpus), str(out), *sys.path]
    process = subprocess.Popen(words, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (done := list(tmp_path.glob(".out.curate-*/pass-1/*.tally.json"))):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    stamp = done[0].stat().st_mtime_ns
    assert content_of_run(corpus, out) == clean
    assert not list(tmp_path.glob(".out.curate-*")) and stamp


def test_work_that_another_recipe_left_is_said_and_removed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death leaves a work folder; the next recipe for the same output cleans it up at its end."""
    out, said = tmp_path / "out", list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(curate_module, "_curate_into", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(Recipe(), corpus, out)
    left = tmp_path / f".out.curate-{'0' * 12}"
    for folder in (left, tmp_path / ".out2.curate-000000000000", tmp_path / ".out.curate-mine"):
        (folder / "pass-0").mkdir(parents=True)
    run(Recipe(), corpus, out, say=said.append)
    assert said == [
        f"{left} is unfinished work with other inputs or settings; it goes when this ends"
    ]
    names = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert names == {".out2.curate-000000000000", ".out.curate-mine"}


def test_a_curated_folder_inside_of_another_is_refused(corpus: Path, tmp_path: Path) -> None:
    run(Recipe(), corpus, tmp_path / "all" / "clean")
    (tmp_path / "all" / "a.txt").write_text("plain")
    for path in (tmp_path, tmp_path / "all", tmp_path / "a*" / "*"):
        source = FileSource(path)
        with pytest.raises(UserError, match=r"all/clean holds curated documents.*--input of its"):
            list(source.documents(LeftOut()))
        with pytest.raises(UserError, match="holds curated documents"):
            source.fingerprint()
    # Another file of that name is a file like others.
    (tmp_path / "museum" / "documents").mkdir(parents=True)
    (tmp_path / "museum" / "curation.json").write_text('{"text": "a list of pictures"}')
    read = FileSource(tmp_path / "museum*").documents(LeftOut())
    assert [document.text for document in read] == ["a list of pictures"]


@pytest.mark.slow
def test_the_same_call_finds_what_is_there(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(Recipe(), corpus, out)
    assert texts(out) == [document.text for document in FileSource(corpus).documents(LeftOut())]
    stamp = (out / "curation.json").stat().st_mtime_ns
    assert run(Recipe(), corpus, out)["fingerprint"] == first["fingerprint"]
    assert (out / "curation.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="--overwrite"):
        run(RECIPE, corpus, out)
    assert run(RECIPE, corpus, out, overwrite=True)["documents"]["out"] < 400


@pytest.mark.slow
def test_a_step_file_that_changed_is_another_curation(corpus: Path, tmp_path: Path) -> None:
    """A classifier is not text; a table of evaluation texts has columns of its own."""
    file, out = tmp_path / "quality.safetensors", tmp_path / "out"
    for bias, left in ((5.0, 400), (-5.0, None)):
        QualityModel(np.zeros(BUCKETS, np.float32), bias).save(file, {})
        recipe = Recipe(steps=(Classifier(file=str(file)),))
        if left is None:
            with pytest.raises(UserError, match="other inputs or settings"):
                run(recipe, corpus, out)
        else:
            assert run(recipe, corpus, out)["documents"]["out"] == left
    table = tmp_path / "questions.csv"
    table.write_text("question,answer\n" + " ".join(f"word{i}" for i in range(40)) + ",a\n")
    step = Decontaminate(against=(str(table),), text_key="question")
    assert run(Recipe(steps=(step,)), corpus, tmp_path / "other")["documents"]["out"] == 400


def test_sources_are_read_once_for_the_fingerprint(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path | str] = []
    whole = FileSource.fingerprint
    monkeypatch.setattr(
        FileSource, "fingerprint", lambda source: asked.append(source.path) or whole(source)
    )
    run(Recipe(), corpus, tmp_path / "out")
    assert asked == [corpus]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-200]), "is not what"),
        (lambda file: file.unlink(), "is missing"),
    ],
)
def test_documents_that_are_damaged_are_refused(
    damage: Any, words: str, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(Recipe(), corpus, out)
    damage(next((out / "documents").iterdir()))
    with pytest.raises(UserError, match=words):
        texts(out)


@pytest.mark.parametrize("text", [None, "{", '{"path": "x"}', "[]", "\xff"])
def test_a_damaged_list_of_files_is_found_at_once(
    text: str | None, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(Recipe(), corpus, out)
    (out / "files.jsonl").unlink()
    if text is not None:
        (out / "files.jsonl").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"files\.jsonl"):
        curated_sources(out)


@pytest.mark.slow
def test_a_damaged_curation_can_be_replaced(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(Recipe(), corpus, out)
    with pytest.raises(UserError, match="--strict"):
        run(Recipe(), corpus, out, strict=True)
    info = json.loads((out / "curation.json").read_text("utf-8"))
    info["shards"][0]["file"] = "documents/../../elsewhere"
    (out / "curation.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(UserError, match="elsewhere"):
        curated_sources(out)
    (out / "curation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="--overwrite"):
        run(Recipe(), corpus, out)
    assert run(Recipe(), corpus, out, overwrite=True)["documents"]["out"] == 400


@pytest.mark.slow
def test_near_duplicates_and_paragraphs_are_found_across_sources(tmp_path: Path) -> None:
    notice = "This page uses material of the example project and is under its licence. " * 2
    same = " ".join(f"{word}{other}" for word in "abcdefghijklmn" for other in "abcdefghijklmn")
    for name, text in (
        ("a", f"{notice}\nThe first text has a line of its own, and another one.\n{'x ' * 200}"),
        ("b", f"{same}\n"),
        ("c", f"Another text.\n{notice}  \n{'y ' * 200}"),
        ("d", f"{same} end\n"),
    ):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    sources = [tmp_path / f"{name}.txt" for name in "abcd"]
    info = run(Recipe(steps=(RepeatedParagraphs(), NearDuplicates())), sources, tmp_path / "out")
    assert [step["dropped"] for step in info["steps"]] == [0, 1]
    assert info["steps"][0]["edits"] == {"repeated_paragraphs: paragraph": 1}
    assert info["steps"][0]["bytes"] == len(f"{notice}  \n")
    left = texts(tmp_path / "out")
    assert [text.count("example project") for text in left] == [2, 0, 0]
    assert f"{same} end\n" not in left
    (example,) = info["tally"]["steps"]["near_duplicates"]["examples"]["dropped"]
    assert example["notes"]["like document"] == 1 and example["value"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ja"])
def test_planted_leaks_are_all_found(language: str, tmp_path: Path) -> None:
    """Each of 100 documents with a passage of a held-out text, and none of the others."""
    held_out = _long(language, "held out")
    clean = [_long(language, f"document {i}") for i in range(100)]
    draw = random.Random(1)
    size = 200 if language == "en" else 30
    leaked = []
    for text in clean:
        place = int(draw.random() * (len(held_out) - size))
        leaked.append(text + held_out[place : place + size].upper() + text)
    (tmp_path / "held_out.txt").write_text(held_out, encoding="utf-8")
    rows = [json.dumps({"text": text}) for text in clean + leaked]
    (tmp_path / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    step = Decontaminate(against=(str(tmp_path / "held_out.txt"),))
    info = run(Recipe(steps=(step,)), tmp_path / "train.jsonl", tmp_path / "out")
    assert info["steps"][0]["dropped"] == 100
    assert texts(tmp_path / "out") == clean


def _long(language: str, name: str) -> str:
    """A text of 400 random words or characters, another for each `name`."""
    draw = random.Random(name)
    if language == "ja":
        return "".join(chr(0x4E00 + int(20000 * draw.random())) for _ in range(400))
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ("".join(letters[int(26 * draw.random())] for _ in range(7)) for _ in range(400))
    return f"{' '.join(words)} "


def test_evaluation_text_that_is_not_there(corpus: Path, tmp_path: Path) -> None:
    recipe = Recipe(steps=(Decontaminate(against=(str(tmp_path / "absent"),)),))
    with pytest.raises(UserError, match=r"^decontaminate\.against names .*absent"):
        run(recipe, corpus, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_recipe_that_drops_everything_says_so(corpus: Path, tmp_path: Path) -> None:
    recipe = Recipe(steps=(GopherQuality(min_words=90_000),))
    with pytest.raises(UserError, match="gopher_quality 400"):
        run(recipe, corpus, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"steps": [{"kind": "gopher_qualty"}]}, "did you mean 'gopher_quality'"),
        ({"steps": [{"kind": "swallow", "min_letters": 3}]}, "has no field 'min_letters'"),
        ({"steps": [{"kind": "decontaminate"}]}, "against is missing"),
        ({"steps": [{"kind": "decontaminate", "against": []}]}, "against is empty"),
        ({"steps": [{"kind": "language", "keep": ["English"]}]}, "language.keep"),
        ({"steps": [{"kind": "url"}]}, "url has no list"),
        ({"steps": [{}]}, "kind is None"),
        ({"stages": []}, "recipe has no field 'stages'"),
        ([], "recipe is []"),
    ],
)
def test_mistakes_in_a_recipe(raw: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    assert words in str(caught.value)


def test_ready_recipes_are_json_and_have_names() -> None:
    from llm_jax.config import to_dict

    for name, recipe in RECIPES.items():
        assert from_dict(json.loads(json.dumps(to_dict(recipe))), Recipe) == recipe
        assert load_recipe(name) is recipe
    twice = Recipe(steps=(Swallow(), NearDuplicates(), Swallow()))
    assert twice.names() == ["swallow", "near_duplicates", "swallow 2"]
    with pytest.raises(ConfigError, match="web-jp"):
        load_recipe("web-jp")


@pytest.mark.slow
def test_parquet_holds_the_same_documents(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    recipe = Recipe(steps=(GopherRepetition(), Pii(kinds=("email",))))
    made = {}
    for form in ("jsonl", "parquet"):
        out = tmp_path / form
        info = run(recipe, corpus, out, format=form)
        files = [out / one["file"] for one in info["shards"]]
        assert all(form in file.name for file in files)
        made[form] = [draft for file in files for draft in shards.read(file)]
    assert made["jsonl"] == made["parquet"] and len(made["jsonl"]) > 100
    assert texts(tmp_path / "parquet") == [draft.text for draft in made["jsonl"]]
    with pytest.raises(UserError, match="--overwrite"):
        run(recipe, corpus, tmp_path / "jsonl", format="parquet")


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(Recipe(), corpus, out)
    before = content(out)

    def full(path: Path, *words: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(shutil, "copyfile", full)
    monkeypatch.setattr(Path, "hardlink_to", full)
    with pytest.raises(OSError):
        run(RECIPE, corpus, out, overwrite=True)
    assert content(out) == before
    monkeypatch.undo()
    run(RECIPE, corpus, out, overwrite=True)
    run(RECIPE, corpus, tmp_path / "clean")
    assert content(out) == content(tmp_path / "clean")
