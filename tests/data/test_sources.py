"""Every source yields its documents in a fixed order and counts what it could not read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from data_samples import JAPANESE

from llm_jax.config import UserError
from llm_jax.data.sources import Document, FileSource, LeftOut, Source, StdlibSource, TfdsSource
from llm_jax.data.tfds import load_tfds


def read(source: Source) -> tuple[list[Document], dict[str, int]]:
    left_out = LeftOut()
    documents = list(source.documents(left_out))
    return documents, left_out.dropped()


def test_folder_in_sorted_order_with_reasons(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "last.md").write_text("last", encoding="utf-8")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst")  # with a byte-order mark
    (tmp_path / "bad.txt").write_bytes("日本語".encode("cp932"))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("hidden")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    source = FileSource(tmp_path, licence="CC0-1.0", class_="public", given_name="mine")
    documents, dropped = read(source)
    named = {"source_name": "mine", "class_": "public"}
    assert documents == [
        Document("first", str(tmp_path / "a.txt"), "CC0-1.0", **named),
        Document("last", str(tmp_path / "b/last.md"), "CC0-1.0", **named),
    ]
    assert dropped == {"not utf-8": 1, "not a text file's suffix": 1, "hidden": 2}


def test_cp932(tmp_path: Path) -> None:
    (tmp_path / "ja.txt").write_bytes(JAPANESE.encode("cp932"))
    assert read(FileSource(tmp_path)) == ([], {"not utf-8": 1})
    (document,), dropped = read(FileSource(tmp_path, encoding="cp932"))
    assert (document.text, dropped) == (JAPANESE, {})


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp932"])
def test_json_lines(tmp_path: Path, suffix: str, encoding: str) -> None:
    good = json.dumps({"body": JAPANESE, "id": 1}, ensure_ascii=False).encode(encoding)
    lines = [good, b"", b"{not json", b'{"text": "other key"}', b'{"body": 3}', b"[1]", b"\x81"]
    raw = b"\n".join(lines)
    packed = {"": raw, ".gz": gzip.compress(raw), ".zst": zstandard.compress(raw)}[suffix]
    file = tmp_path / f"texts.jsonl{suffix}"
    file.write_bytes(packed)
    documents, dropped = read(FileSource(file, encoding=encoding, text_key="body"))
    assert [(d.text, d.source, d.line) for d in documents] == [(JAPANESE, str(file), 1)]
    assert dropped == {"line is not JSON": 1, "no text in 'body'": 3, f"not {encoding}": 1}


def test_compressed_text_and_a_truncated_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one"))
    (tmp_path / "b.txt.zst").write_bytes(zstandard.compress(b"two"))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"three" * 1000)[:-12])
    documents, dropped = read(FileSource(tmp_path))
    assert [document.text for document in documents] == ["one", "two"]
    assert dropped == {"unreadable file": 1}


def test_fingerprint_follows_names_contents_and_settings(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    first = FileSource(tmp_path).fingerprint()
    (tmp_path / "a.txt").touch()
    assert FileSource(tmp_path).fingerprint() == first
    assert FileSource(tmp_path, encoding="cp932").fingerprint() != first
    (tmp_path / "a.txt").write_text("two")
    second = FileSource(tmp_path).fingerprint()
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert len({first, second, FileSource(tmp_path).fingerprint()}) == 3


def test_missing_input_and_unknown_encoding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        FileSource(tmp_path / "absent")
    with pytest.raises(UserError, match="'utf8000', which Python does not know"):
        FileSource(tmp_path, encoding="utf8000")


def test_stdlib_holds_sources_and_the_language_reference() -> None:
    documents, dropped = read(StdlibSource())
    by_name = {document.source: document for document in documents}
    assert "class ArgumentParser" in by_name["argparse.py"].text
    assert by_name["argparse.py"].licence == "PSF-2.0"
    assert by_name["pydoc_data/topics.py#assert"].text.startswith('The "assert" statement')
    assert not any("site-packages" in name or "_sysconfigdata" in name for name in by_name)
    assert not any({"test", "tests", "idle_test"} & set(Path(name).parts) for name in by_name)
    assert sum(len(document.text) for document in documents) > 5_000_000
    assert set(dropped) <= {"undecodable source"}
    assert [d.source for d in read(StdlibSource())[0]] == [d.source for d in documents]


def test_tfds_set_by_name(tmp_path: Path) -> None:
    tfds = load_tfds()

    class TinyHaiku(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict({"poem": tfds.features.Text()}),
                license="CC0-1.0",
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            for i, line in enumerate(JAPANESE.splitlines()):
                yield i, {"poem": line}

    def source(**changes: str) -> TfdsSource:
        settings = {"set_name": "tiny_haiku", "text_key": "poem", **changes}
        return TfdsSource(**settings, data_dir=tmp_path)  # type: ignore[arg-type]

    documents, dropped = read(source())
    assert sorted(document.text for document in documents) == sorted(JAPANESE.splitlines())
    assert (documents[0].source, documents[0].licence) == ("tiny_haiku/1.0.0/train/0", "CC0-1.0")
    assert dropped == {}
    assert source().fingerprint() == source().fingerprint() != source(split="test").fingerprint()
    assert source().fingerprint() != source(licence="MIT").fingerprint()
    with pytest.raises(UserError, match=r"--text-key is 'poems', .*: did you mean 'poem'"):
        read(source(text_key="poems"))
    with pytest.raises(UserError, match="--tfds-split is 'dev': tiny_haiku has"):
        read(source(split="dev"))
    with pytest.raises(UserError, match="--tfds is 'no_such_set_anywhere'"):
        read(source(set_name="no_such_set_anywhere"))
