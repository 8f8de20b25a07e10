"""`--input` with options and `--sources FILE`: each source has its own way of being read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_jax.cli import main
from llm_jax.config import UserError
from llm_jax.config.sources import input_spec


def call(capsys: Any, *words: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


BUILD = ("data", "build", "--out", "o", "--vocab-size", "300", "--json")


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [
        {"data": {"body": f"record {i} " * 20}, "title": f"t{i}", "lang": "en"} for i in range(9)
    ]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    Path("b.txt").write_bytes("我輩《わがはい》は猫である。名前はまだ無い。".encode("cp932") * 9)
    Path("c, d=e.txt").write_text("a name with a comma. " * 9)
    return tmp_path


def sources(capsys: Any, *words: Any) -> list[dict[str, Any]]:
    code, out, err = call(capsys, *BUILD, *words)
    assert code == 0, err
    return json.loads(out)["sources"]


KEPT = ("name", "licence", "class", "encoding", "markup", "text_key", "documents")


def test_options_of_each_input(capsys: Any) -> None:
    a, b, c = sources(
        capsys,
        "--input",
        r"a.jsonl,text_key={title}, then\n{data.body},class=public,name=all,metadata=lang+title",
        "b.txt,encoding=cp932,markup=aozora,licence=public domain",
        "--input",
        "c, d=e.txt",
        "--licence",
        "ours",
        "--class",
        "restricted",
    )
    wanted = ["all", "ours", "public", "utf-8", "none", "{title}, then\\n{data.body}", 9]
    assert [a[key] for key in KEPT] == wanted
    wanted = ["b.txt", "public domain", "restricted", "cp932", "aozora", "text", 1]
    assert [b[key] for key in KEPT] == wanted
    assert (c["name"], c["licence"], c["class"]) == ("c, d=e.txt", "ours", "restricted")
    size = len("t0, then\n" + "record 0 " * 20) * 9
    assert (a["bytes"], b["bytes"]) == (
        size,
        len("我輩は猫である。名前はまだ無い。".encode()) * 9 + 1,
    )


def test_a_sources_file_says_the_same(capsys: Any) -> None:
    entries = [
        {"input": "a.jsonl", "text_key": "data.body", "class": "public", "metadata": ["lang"]},
        {"input": "b.txt", "encoding": "cp932", "markup": "aozora", "licence": "public domain"},
    ]
    Path("s.json").write_text(json.dumps({"sources": entries}))
    by_file = sources(capsys, "--sources", "s.json")
    flags = ("a.jsonl,text_key=data.body,class=public,metadata=lang", "b.txt,encoding=cp932,"
             "markup=aozora,licence=public domain")  # fmt: skip
    code, out, err = call(capsys, *BUILD, "--input", *flags)
    assert code == 0, err
    assert json.loads(out)["built_before"] is True
    assert [one["class"] for one in by_file] == ["public", "internal"]
    code, out, _ = call(capsys, "data", "inspect", "o", "--samples", "1")
    assert "source     a.jsonl (utf-8, unknown, public): " in out
    assert " of 9 documents\n" in out
    code, out, _ = call(capsys, "tokenizer", "train", "--sources", "s.json", "--out", "t.model",
                        "--vocab-size", "300", "--json")  # fmt: skip
    assert (code, json.loads(out)["documents"]) == (0, {"in": 10, "out": 10})


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--input", "a.jsonl,clas=public"], 2, "has no option 'clas': did you mean 'class'?"),
        (["--input", "a.jsonl,license=x"], 2, "has no option 'license': did you mean 'licence'?"),
        (["--input", "a.jsonl,class=secret"], 2, "--input.class is 'secret': choose one of"),
        (["--input", ",class=public"], 2, "input is empty"),
        (["--input", "none.txt,class=public"], 2, "--input 'none.txt' does not exist"),
        (["--input", "a.jsonl,text_key={a"], 2, "--text-key is '{a'"),
        (["--input", "a.jsonl,metadata=a.x+b.x"], 2, "--metadata has 'a.x' and 'b.x'"),
        (["--input", "b.txt,encoding=utf-99"], 2, "--encoding is 'utf-99'"),
        (["--input", "a.jsonl", "--class", "secret"], 2, "--class"),
        (["--sources", "none.json"], 78, "none.json cannot be read"),
        (["--sources", "bad.json"], 78, "sources file.sources[0] has no field 'inputs'"),
        (["--sources", "empty.json"], 78, "sources is empty"),
        (["--input", "s3::memory://x"], 2, "joins several addresses"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_written(
    words: list[str], code: int, sentence: str, capsys: Any, corpus: Path
) -> None:
    Path("bad.json").write_text('{"sources": [{"inputs": "a.jsonl"}]}')
    Path("empty.json").write_text('{"sources": []}')
    before = sorted(corpus.iterdir())
    ended, out, err = call(capsys, *BUILD, *words)
    assert (ended, out, err.count("\n")) == (code, "", 1), err
    assert sentence in err
    assert sorted(corpus.iterdir()) == before


def test_values_may_have_commas_and_equal_signs() -> None:
    spec = input_spec("gs://b/x,text_key={a}, b={c},licence=CC BY 4.0, by us,class=public")
    assert (spec.input, spec.text_key) == ("gs://b/x", "{a}, b={c}")
    assert (spec.licence, spec.class_) == ("CC BY 4.0, by us", "public")
    with pytest.raises(UserError, match="has no option 'a'"):
        input_spec("gs://b/x,a=b,class=public")
