"""`data curate`, `data classifier`, and `data build` of what they made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from verb_calls import call, call_json

CODE = "def window_{0}(start, length):\n    return stream_{0}[start : start + length]\n" * 12
NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Ten programs, one of them twice with a comment added, and a long line."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [{"text": CODE.format(name), "lang": "py"} for name in NAMES]
    rows.append({"text": CODE.format("alpha") + "# end\n"})
    rows.append({"text": "x=1;" * 500})
    text = "\n".join(json.dumps(row) for row in rows)
    (folder / "code.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_from_code_to_a_dataset(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clean"
    words = ("data", "curate", "--input", corpus, "--recipe", "code", "--out", out)
    words = (*words, "--licence", "MIT", "--workers", 2)
    made = call_json(capsys, *words)
    assert made["documents"] == {"in": 12, "out": 10}
    steps = {step["name"]: step for step in made["steps"]}
    assert list(steps) == ["code", "near_duplicates", "pii"]
    assert steps["code"]["reasons"] == {"longest line": 1}
    assert steps["near_duplicates"]["dropped"] == 1
    assert made["tokens"] is None and not made["curated_before"]
    assert "<svg" in Path(made["page"]).read_text("utf-8")
    assert call_json(capsys, *words)["curated_before"]
    shown = call(capsys, *words)[1].splitlines()
    assert shown[0] == f"{out}: already curated"
    assert "  documents  12 in, 10 out" in shown
    code, _, err = call(capsys, *words[:5], "none", *words[6:])
    assert code == 2 and "--overwrite" in err

    built = call_json(
        capsys, "data", "build", "--input", out, "--vocab-size", 400, "--out", tmp_path / "set"
    )
    assert built["documents"] == {"in": 10, "out": 10}
    assert built["licences"] == {"MIT": 10}
    (source,) = built["sources"]
    assert source["name"] == str(corpus) and source["curation"] == made["fingerprint"]
    assert [Path(file["path"]).name for file in source["files"]] == ["code.jsonl"]

    at_once = call_json(
        capsys, "data", "build", "--input", corpus, "--recipe", "code", "--licence", "MIT",
        "--vocab-size", 400, "--out", tmp_path / "once",
    )  # fmt: skip
    assert at_once["fingerprint"] == built["fingerprint"]
    assert at_once["curated"]["documents"] == {"in": 12, "out": 10} and built["curated"] is None
    assert at_once["curated"]["page"] == str(tmp_path / "once-curated" / "curation.html")
    assert Path(at_once["curated"]["page"]).is_file()


def test_a_dataset_is_built_where_the_user_is(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    (corpus / "broken.jsonl").write_text("{\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = ("data", "build", "--input", corpus, "--recipe", "none", "--vocab-size", 400)
    code, out, err = call(capsys, *words, "--out", ".")
    assert code == 0, err
    page = tmp_path / "here-curated" / "curation.html"
    lines = out.splitlines()
    assert f"  curated    12 in, 12 out; see {page}" in lines
    assert any(line.startswith("  1 of 13 documents (7.7%) could not be used") for line in lines)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "corpus"], "is not a dataset"),
        (["--out", "new", "--validation-fraction", "0.9"], "--validation-fraction is 0.9"),
    ],
)
def test_a_build_that_cannot_be_is_refused_before_it_curates(
    words: list[str], sentence: str, tmp_path: Path, corpus: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    build = ("data", "build", "--input", corpus, "--recipe", "none", "--vocab-size", 400)
    code, _, err = call(capsys, *build, *words)
    assert code == 2 and sentence in err
    assert list(tmp_path.iterdir()) == [corpus]


@pytest.mark.parametrize(
    ("option", "flags", "sentence"),
    [
        (",class=public,licence=MIT", [], "have their own licence: give licence, class to"),
        ("", ["--licence", "MIT"], "--licence is 'MIT', but all documents are curated"),
    ],
)
def test_curated_documents_keep_their_licence(
    option: str, flags: list[str], sentence: str, tmp_path: Path, corpus: Path, capsys: Any
) -> None:
    out = tmp_path / "clean"
    call_json(capsys, "data", "curate", "--input", corpus, "--recipe", "none", "--out", out)
    build = ("data", "build", "--vocab-size", 400, "--out", tmp_path / "set", *flags)
    code, _, err = call(capsys, *build, "--input", f"{out}{option}")
    assert code == 2 and sentence in err


def test_a_recipe_is_shown_and_read_back(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, shown, _ = call(capsys, "data", "curate", "--recipe", "code", "--show-recipe")
    recipe = json.loads(shown)
    assert [step["kind"] for step in recipe["steps"]] == ["code", "near_duplicates", "pii"]
    recipe["steps"] = [step | {"max_line": 3000} for step in recipe["steps"][:1]]
    recipe["steps"][0]["max_mean_line"] = 3000.0
    (tmp_path / "mine.json").write_text(json.dumps(recipe), encoding="utf-8")
    made = call_json(
        capsys, "data", "curate", "--recipe", tmp_path / "mine.json", "--input", corpus, "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert made["documents"] == {"in": 12, "out": 12}


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--recipe", "web-em"], 78, "did you mean"),
        (["--recipe", "absent.json"], 78, "no recipe file 'absent.json'"),
        (["--recipe", "none", "--input", "absent"], 2, "'absent'"),
        (["--recipe", "none", "--workers", "0"], 2, "'0' is not a whole number"),
        (["--recipe", "none", "--run-tasks-with", "no-such-program"], 2, "'no-such-program'"),
        (["--recipe", "none", "--run-tasks-with", "'a"], 2, "fix its quotes"),
        (["--recipe", "none", "--run-tasks-with", "false"], 1, "failed: exit code 1"),
        (["--recipe", "none", "--partition", "p"], 2, "does not go with --backend local"),
        (["--recipe", "none", "--backend", "ray", "--setup", "x"], 2, "--setup does not go with"),
        (["--recipe", "none", "--backend", "slurm", "--memory", "4 GB"], 78, "--memory is '4 GB'"),
        (["--recipe", "none", "--backend", "ray", "--ray-address", "http://h:1"], 2, "takes jobs"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    flags: list[str], code: int, words: str, tmp_path: Path, corpus: Path, capsys: Any
) -> None:
    inputs = [] if "--input" in flags else ["--input", corpus]
    before = sorted(tmp_path.iterdir())
    found, out, err = call(capsys, "data", "curate", *inputs, *flags, "--out", tmp_path / "out")
    last = err.splitlines()[-1]
    assert (found, out) == (code, "")
    assert last.startswith("error: ") and words in last
    after = [path for path in sorted(tmp_path.iterdir()) if not path.name.startswith(".out.curate")]
    assert after == before


@pytest.mark.slow
def test_a_classifier_from_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: Path
) -> None:
    for name, words in (("good", NAMES), ("bad", ("buy", "cheap", "pills", "now", "free"))):
        rows = [{"text": " ".join(words[(i * j + j) % len(words)] for j in range(30))}
                for i in range(40)]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    verb = ("data", "classifier", "--good", tmp_path / "good.jsonl", "--bad")
    out = tmp_path / "quality.safetensors"
    made = call_json(capsys, *verb, tmp_path / "bad.jsonl", "--out", out)
    assert (made["good"], made["bad"], made["accuracy"]) == (40, 40, 1.0)
    assert made["lost"]["count"] == 0
    code, _, err = call(capsys, *verb, tmp_path / "bad.jsonl", "--out", out)
    assert code == 2 and "--overwrite" in err
    with (tmp_path / "bad.jsonl").open("a") as file:
        file.write("\n{\n")
    call(capsys, "data", "curate", "--input", tmp_path / "bad.jsonl", "--recipe", "none", "--out",
         tmp_path / "curated")  # fmt: skip
    for bad, last in ((tmp_path / "curated", "  held out"), (tmp_path / "bad.jsonl", "1 of 81")):
        code, said, _ = call(capsys, *verb, bad, "--out", out, "--overwrite")
        assert code == 0 and said.splitlines()[0].endswith("40 good and 40 bad documents")
        assert said.splitlines()[-1].startswith(last)
    code, _, err = call(capsys, *verb, corpus, "--out", out, "--overwrite")
    assert code == 2 and "--bad has 12 documents" in err
    recipe = {"steps": [{"kind": "classifier", "file": str(out)}]}
    (tmp_path / "r.json").write_text(json.dumps(recipe), encoding="utf-8")
    inputs = (tmp_path / "good.jsonl", tmp_path / "bad.jsonl")
    curated = call_json(
        capsys, "data", "curate", "--input", *inputs, "--recipe", tmp_path / "r.json", "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert curated["by_source"][str(inputs[0])]["out"]["documents"] == 40
    assert curated["by_source"][str(inputs[1])]["out"]["documents"] == 0
