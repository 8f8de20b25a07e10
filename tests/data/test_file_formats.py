"""Each format gives its texts, with the metadata that is named; what it passes over is counted."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import zstandard
from data_samples import JAPANESE
from web_samples import PARAGRAPHS, page, warc

from llm_jax.data.sources import Document, FileSource, LeftOut

TEXTS = [f"{i} {line}" for i, line in enumerate(JAPANESE.splitlines())]
RECORDS = [
    {"id": i, "title": f"t{i}", "data": {"body": text, "url": f"http://a.jp/{i}"}}
    for i, text in enumerate(TEXTS)
]
PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def read(path: Path, **settings: Any) -> tuple[list[Document], LeftOut]:
    left_out = LeftOut()
    source = FileSource(path, **settings)
    source.fingerprint()
    return list(source.documents(left_out)), left_out


def write_table(path: Path, table: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
        return
    make = pa.ipc.new_stream if "stream" in path.name else pa.ipc.new_file
    with path.open("wb") as file, make(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def write_csv(path: Path, delimiter: str, encoding: str = "utf-8") -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["id", "body"], *([i, text] for i, text in enumerate(TEXTS))])
    path.write_bytes(out.getvalue().encode(encoding))


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow", "stream.arrow", "a.feather"])
def test_tables_by_path_and_template(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / name, pa.Table.from_pylist(RECORDS))
    documents, left_out = read(
        tmp_path / name, text_key="data.body", metadata=("id", "data.url"), given_name="mine"
    )
    assert [document.text for document in documents] == TEXTS
    assert [document.line for document in documents] == [i + 1 for i in range(len(TEXTS))]
    assert [dict(document.metadata) for document in documents] == [
        {"id": str(i), "url": f"http://a.jp/{i}"} for i in range(len(TEXTS))
    ]
    assert {document.source_name for document in documents} == {"mine"}
    assert not left_out.dropped()
    documents, _ = read(tmp_path / name, text_key=r"{title}\n{data.body}")
    assert [document.text for document in documents] == [f"t{i}\n{t}" for i, t in enumerate(TEXTS)]


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow"])
def test_rows_without_text_are_counted(tmp_path: Path, name: str) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", None, "c"]),
            "raw": pa.array(["一".encode("cp932"), b"\x81", b"z"]),
            "turns": pa.array([[{"content": "one"}], [], [{"content": "three"}]]),
            "n": pa.array([1, 2, 3]),
        }
    )
    write_table(tmp_path / name, table)
    for key, texts, lost in (
        ("text", ["a", "c"], {"no text in 'text'": 1}),
        ("raw", ["一", "z"], {"not cp932": 1}),
        ("turns.0.content", ["one", "three"], {"no text in 'turns.0.content'": 1}),
        ("n", [], {"no text in 'n'": 3}),
        ("{n}", ["1", "2", "3"], {}),
    ):
        documents, left_out = read(tmp_path / name, text_key=key, encoding="cp932")
        assert ([document.text for document in documents], left_out.lost) == (texts, lost)


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow"])
def test_times_and_numbers_are_metadata(tmp_path: Path, name: str) -> None:
    second = 1_709_294_400
    table = pa.table(
        {
            "text": ["a", "b"],
            "ns": pa.array([second * 10**9 + 1, 2**62], pa.timestamp("ns")),
            "zone": pa.array([second, second], pa.timestamp("s", "Asia/Tokyo")),
            "far": pa.array([second, 2**40], pa.timestamp("s")),
            "day": pa.array([19783, 0], pa.date32()),
            "n": pa.array([1.5, None]),
        }
    )
    write_table(tmp_path / name, table)
    documents, left_out = read(tmp_path / name, metadata=("ns", "zone", "far", "day", "n"))
    time, day = "2024-03-01T12:00:00", "2024-03-01"
    assert dict(documents[0].metadata) == {
        "ns": time,
        "zone": "2024-03-01T21:00:00+09:00",
        "far": time,
        "day": day,
        "n": "1.5",
    }
    assert sorted(documents[1].metadata) == ["day", "ns", "zone"]
    assert not left_out.dropped()


@pytest.mark.parametrize("name", ["a.md", "b.txt", "c"])
def test_text_about_a_format_is_text(tmp_path: Path, name: str) -> None:
    for number, text in enumerate(("WARC/1.0 is a format.", "PAR1 begins it.", "ARROW1 too.")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / name).write_text(text)
        assert [d.text for d in read(tmp_path / str(number) / name)[0]] == [text]


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "utf-16-le"])
@pytest.mark.parametrize(("kind", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_csv(tmp_path: Path, suffix: str, encoding: str, kind: str, delimiter: str) -> None:
    file = tmp_path / f"a{kind}{suffix}"
    write_csv(file, delimiter, encoding)
    file.write_bytes(PACKERS[suffix](file.read_bytes()))
    documents, left_out = read(file, text_key="body", metadata=("id",), encoding=encoding)
    assert [document.text for document in documents] == TEXTS
    assert [document.metadata["id"] for document in documents] == [
        str(i) for i in range(len(TEXTS))
    ]
    assert not left_out.dropped()


def test_csv_has_quotes_and_lines_and_rows_of_another_length(tmp_path: Path) -> None:
    rows = 'id,text\n1,"said ""yes"",\n\n  then left"\n2\n\n3,"x",more\r\n4,last'
    (tmp_path / "a.csv").write_text(rows, newline="")
    documents, left_out = read(tmp_path / "a.csv", max_bytes=10**25)
    assert [(d.text, d.line) for d in documents] == [('said "yes",\n\n  then left', 1), ("last", 5)]
    assert left_out.lost == {"row of another length": 2}


@pytest.mark.parametrize("suffix", PACKERS)
def test_every_compression_of_text_and_records(tmp_path: Path, suffix: str) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    (tmp_path / f"a.jsonl{suffix}").write_bytes(PACKERS[suffix](lines))
    (tmp_path / f"b.md{suffix}").write_bytes(PACKERS[suffix](JAPANESE.encode()))
    (tmp_path / "c.txt").write_bytes(PACKERS[suffix](b"by its first bytes"))
    documents, left_out = read(tmp_path)
    assert [document.text for document in documents] == [*TEXTS, JAPANESE, "by its first bytes"]
    assert not left_out.dropped()


def test_markdown_is_kept_as_it_is_written(tmp_path: Path) -> None:
    text = "# Title\n\n- *one*\n- [two](a.md)\n\n```py\nx = 1\n```\n"
    (tmp_path / "a.md").write_text(text)
    assert [document.text for document in read(tmp_path)[0]] == [text]


@pytest.mark.parametrize("charset", ["utf-8", "shift_jis", "euc-jp", "utf-8-sig"])
def test_html_gives_its_main_text(tmp_path: Path, charset: str) -> None:
    (tmp_path / "a.html").write_bytes(page("見出し", charset))
    (tmp_path / "b.html").write_bytes(b"<html><body></body></html>")
    documents, left_out = read(tmp_path, metadata=("title",))
    assert [document.text for document in documents] == ["\n".join(["見出し", *PARAGRAPHS])]
    assert dict(documents[0].metadata) == {"title": "見出し"}
    assert left_out.dropped() == {"page without main text": 1}
    ((document,), _) = read(tmp_path / "a.html", text_key=r"<{title}>\n{text}")
    assert document.text.startswith("<見出し>\n見出し\n")


def test_records_with_markup(tmp_path: Path) -> None:
    lines = [{"html": page("一").decode()}, {"html": "<html></html>"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    documents, left_out = read(tmp_path / "a.jsonl", text_key="html", markup="html")
    assert [document.text for document in documents] == ["\n".join(["一", *PARAGRAPHS])]
    assert left_out.dropped() == {"page without main text": 1}
    (tmp_path / "b.txt").write_text("我輩《わがはい》は\r\n猫", newline="")
    ((document,), _) = read(tmp_path / "b.txt", markup="aozora")
    assert document.text == "我輩は\n猫\n"


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "no_suffix"])
def test_warc(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(warc(gzip=name.endswith(".gz")))
    settings = {"metadata": ("url", "date", "title"), "text_key": "body"}
    documents, left_out = read(tmp_path / name, **settings)
    assert [document.text for document in documents] == [
        "\n".join(["一", *PARAGRAPHS]),
        "\n".join(["二", *PARAGRAPHS]),
        "plain text",
        JAPANESE,
    ]
    assert [document.metadata["url"][12:] for document in documents] == ["1", "2", "3", "wet"]
    assert documents[1].metadata["title"] == "二"
    assert documents[0].metadata["date"] == "2024-03-01T00:00:00Z"
    assert [document.line for document in documents] == [2, 3, 7, 10]
    assert left_out.lost == {"not utf-8": 1}
    assert left_out.skipped == {
        "WARC warcinfo": 1,
        "WARC request": 1,
        "WARC response of another status than 200": 1,
        "WARC record that is not text": 1,
        "page without main text": 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["", "gz", "bz2", "xz"])
def test_an_archive_has_files_of_every_format(tmp_path: Path, mode: str) -> None:
    write_csv(tmp_path / "a.csv", ",")
    write_table(tmp_path / "b.parquet", pa.table({"body": TEXTS}))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"compressed inside"))
    (tmp_path / "d.warc.gz").write_bytes(warc(gzip=True))
    (tmp_path / "e.jsonl").write_text("")
    (tmp_path / "f.bin").write_bytes(b"\0")
    (tmp_path / ".hidden.txt").write_text("hidden")
    (tmp_path / "g.txt").symlink_to("a.csv")
    (tmp_path / "__pycache__").mkdir()
    archive = tmp_path / f"all.tar{'.' * bool(mode)}{mode}"
    with tarfile.open(archive, f"w:{mode}") as tar:
        for file in sorted(tmp_path.iterdir()):
            if file != archive:
                tar.add(file, f"in/{file.name}")
        tar.addfile(tarfile.TarInfo("../../escape.txt"), io.BytesIO())
    before = sorted(tmp_path.parent.rglob("*"))
    documents, left_out = read(archive, text_key="body")
    assert sorted(tmp_path.parent.rglob("*")) == before
    assert [document.text for document in documents][: 2 * len(TEXTS)] == TEXTS * 2
    assert "compressed inside" in {document.text for document in documents}
    assert len(documents) == 2 * len(TEXTS) + 1 + 4 + 1  # the last: an empty text
    assert documents[-1].source == f"{archive}/../../escape.txt"
    assert documents[0].source == f"{archive}/in/a.csv"
    assert left_out.lost == {"not utf-8": 1}
    skipped = ("empty", "not a text file's suffix", "hidden", "link in an archive")
    assert {reason: left_out.skipped[reason] for reason in skipped} == dict.fromkeys(skipped, 1)


def test_a_pattern_names_files(tmp_path: Path) -> None:
    for name in ("a/1.txt", "a/2.md", "b/3.txt", "a/deep/4.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [d.text for d in read(tmp_path / "*/*.txt")[0]] == ["a/1.txt", "b/3.txt"]
    assert [d.text for d in read(tmp_path / "**/*.txt")[0]] == [
        "a/1.txt",
        "a/deep/4.txt",
        "b/3.txt",
    ]
    (tmp_path / "star*.txt").write_text("its own name")
    assert [d.text for d in read(tmp_path / "star*.txt")[0]] == ["its own name"]


def saved(folder: Path, texts: list[str], shards: int) -> None:
    """A folder as `datasets.Dataset.save_to_disk` (5.2.0) writes it."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    for i, name in enumerate(names):
        with (folder / name).open("wb") as file:
            table = pa.table({"text": texts[i::shards]})
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
    (folder / "dataset_info.json").write_text('{"features": {"text": {"dtype": "string"}}}')
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "f"}
    (folder / "state.json").write_text(json.dumps(state))


def test_folders_of_the_datasets_library(tmp_path: Path) -> None:
    saved(tmp_path / "set/train", TEXTS, 2)
    saved(tmp_path / "set/test", ["held out"], 1)
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (tmp_path / "set/train/cache-1f.arrow").write_bytes(b"what map() has cached")
    documents, left_out = read(tmp_path / "set/train")
    assert sorted(document.text for document in documents) == sorted(TEXTS)
    assert not left_out.dropped()
    documents, left_out = read(tmp_path / "set")
    assert sorted(document.text for document in documents) == sorted([*TEXTS, "held out"])
    assert not left_out.dropped()
