"""A built dataset holds exactly the cleaned documents, says what it dropped, and never lies."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_samples import JAPANESE, silent, stdlib_texts, stream

from llm_jax.config import UserError
from llm_jax.data.build import RECORD_TOKENS, BuildSpec, VocabSpec, build
from llm_jax.data.building import encode
from llm_jax.data.clean import Cleaner
from llm_jax.data.dataset import TokenDataset
from llm_jax.data.sources import FileSource, LeftOut
from llm_jax.data.tfds import load_tfds
from llm_jax.data.token_records import write_records
from llm_jax.data.tokenizers import Tokenizer


def spec_of(folder: Path, tokenizer: Tokenizer | VocabSpec, **changes: object) -> BuildSpec:
    return BuildSpec(sources=(FileSource(folder),), tokenizer=tokenizer, **changes)  # type: ignore


def documents(dataset: TokenDataset, split: str) -> list[str]:
    ids = stream(dataset, split)
    ends = np.flatnonzero(ids == dataset.tokenizer.eos_id) + 1
    parts = np.split(ids, ends)[:-1]
    assert all(part[0] == dataset.tokenizer.bos_id for part in parts)
    return [dataset.tokenizer.decode(part) for part in parts]


def test_every_document_is_there_once(dataset: TokenDataset, corpus_folder: Path) -> None:
    source = FileSource(corpus_folder)
    cleaner = Cleaner()
    wanted = [cleaner.clean(d.text) for d in source.documents(LeftOut())]
    found = [*documents(dataset, "train"), *documents(dataset, "validation")]
    assert sorted(found) == sorted(set(wanted))
    info = dataset.info
    assert info["documents"] == {"in": len(wanted), "out": len(found)}
    assert info["bytes"] == info["text_bytes"] == sum(len(text.encode()) for text in found)
    assert info["licences"] == {"PSF-2.0": len(found)}
    for split in ("train", "validation"):
        counts = info["splits"][split]
        assert counts["documents"] == len(documents(dataset, split)) > 0
        assert counts["tokens"] == len(stream(dataset, split))
        assert counts["bytes"] == sum(len(text.encode()) for text in documents(dataset, split))


def test_tfds_itself_reads_the_same_records(dataset: TokenDataset) -> None:
    builder = load_tfds().builder_from_directory(dataset.path / "tokens" / "1.0.0")
    source = builder.as_data_source(split="train")
    assert len(source) > 3
    sizes = [len(record["tokens"]) for record in source]
    assert sizes[:-1] == [RECORD_TOKENS] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= RECORD_TOKENS
    tokens = np.concatenate([record["tokens"] for record in source])
    assert tokens.dtype == np.uint16
    assert np.array_equal(tokens, stream(dataset, "train"))


def test_drops_are_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, raw in {
        "a.txt": b"the same text\r\n",
        "b.txt": b"the same text\n",
        "c.txt": b"   ",
        "d.txt": b"\xff\xfe\xff",
        "e.txt": b"tiny",
        "f.txt": b"another text",
        "g.bin": b"\0",
    }.items():
        (folder / name).write_bytes(raw)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_bytes(b"not text, and not the user's")
    spec = spec_of(folder, tokenizer, cleaner=Cleaner(min_chars=6))
    info, built_before = build(spec, tmp_path / "out", silent)
    assert not built_before
    assert info["documents"] == {"in": 7, "out": 2}
    assert info["dropped"] == {
        "duplicate": 1,
        "empty": 1,
        "not utf-8": 1,
        "shorter than 6 characters": 1,
        "not a text file's suffix": 1,
    }
    assert {info["splits"][split]["documents"] for split in ("train", "validation")} == {1}
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["dataset.json", "files.jsonl", "left_out.jsonl", "tokenizer.model", "tokens"]


def test_cp932_corpus_and_a_trained_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i, line in enumerate(JAPANESE.splitlines()):
        (folder / f"{i}.txt").write_bytes(line.encode("cp932"))
    (folder / "utf8.txt").write_bytes("絵文字😀".encode())
    spec = BuildSpec(
        sources=(FileSource(folder, encoding="cp932"),), tokenizer=VocabSpec(vocab_size=420)
    )
    info, _ = build(spec, tmp_path / "out", silent)
    dataset = TokenDataset.open(tmp_path / "out")
    found = [*documents(dataset, "train"), *documents(dataset, "validation")]
    assert sorted(found) == sorted(JAPANESE.splitlines())
    assert info["dropped"] == {"not cp932": 1}
    assert info["vocab_size"] == dataset.tokenizer.vocab_size == 420
    assert info["sources"][0]["encoding"] == "cp932"


def test_one_document_is_split_by_position(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = tmp_path / "one.txt"
    text = "\n".join(source for _, source in stdlib_texts())
    file.write_text(text, encoding="utf-8")
    info, _ = build(spec_of(file, tokenizer, validation_fraction=0.1), tmp_path / "out", silent)
    dataset = TokenDataset.open(tmp_path / "out")
    assert info["split_by"] == "position"
    (begin,), (end,) = documents(dataset, "train"), documents(dataset, "validation")
    assert begin + end == text
    assert begin.endswith("\n")
    assert info["held_out"]["share"] == pytest.approx(0.1, rel=0.01)
    assert info["held_out"] == {
        "chosen_by": "position",
        "share": len(end.encode()) / len(text.encode()),
        "also_in_train": 0,
    }
    assert info["documents"] == {"in": 1, "out": 1}
    assert info["bytes"] == len(text.encode())


def test_same_inputs_are_not_built_again_and_others_refuse(
    tmp_path: Path, corpus_folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    spec = spec_of(corpus_folder, tokenizer)
    first, _ = build(spec, out, silent)
    written = (out / "dataset.json").stat().st_mtime_ns
    assert build(spec, out, silent, overwrite=True) == (first, True)
    assert (out / "dataset.json").stat().st_mtime_ns == written
    other = dataclasses.replace(spec, seed=1)
    with pytest.raises(UserError, match=r"other inputs or settings.*--overwrite"):
        build(other, out, silent)
    second, built_before = build(other, out, silent, overwrite=True)
    assert not built_before
    assert (second["seed"], second["fingerprint"] == first["fingerprint"]) == (1, False)
    assert second["splits"] == first["splits"]  # held-out texts do not depend on the seed
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_build_that_fails_leaves_the_old_dataset(
    tmp_path: Path, corpus_folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    build(spec_of(corpus_folder, tokenizer), out, silent)
    before = (out / "dataset.json").read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llm_jax.data.token_records.write_records", full_disk)
    with pytest.raises(OSError, match="No space left"):
        build(spec_of(corpus_folder, tokenizer, seed=5), out, silent, overwrite=True)
    assert (out / "dataset.json").read_bytes() == before
    TokenDataset.open(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_equal_builds_hold_equal_streams(
    tmp_path: Path, dataset: TokenDataset, corpus_folder: Path, tokenizer: Tokenizer
) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in sorted(corpus_folder.iterdir(), reverse=True):
        (moved / f"z{file.name}").write_bytes(file.read_bytes())
    build(spec_of(moved, tokenizer, validation_fraction=0.1), tmp_path / "out", silent)
    again = TokenDataset.open(tmp_path / "out")
    for split in ("train", "validation"):
        assert np.array_equal(stream(again, split), stream(dataset, split))


def test_wide_vocabularies_get_uint32(tmp_path: Path) -> None:
    tokens = np.array([1, 70_000, 2**32 - 1, 2] * 1000, np.uint32)
    write_records(tmp_path, {"train": tokens, "validation": tokens[:1]}, RECORD_TOKENS)
    builder = load_tfds().builder_from_directory(tmp_path / "tokens" / "1.0.0")
    read = [record["tokens"] for record in builder.as_data_source(split="train")]
    assert np.array_equal(np.concatenate(read), tokens)


def test_a_disk_that_fills_while_records_are_written(tmp_path: Path) -> None:
    code = (
        "import pathlib, resource, signal, sys, numpy\n"
        "from llm_jax.data.token_records import write_records\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "stream = numpy.random.default_rng(0).integers(0, 2**16, 100_000).astype(numpy.uint16)\n"
        "try: write_records(pathlib.Path(sys.argv[1]), {'train': stream}, 2048)\n"
        "except OSError as error: print(error)\n"
    )
    command = [sys.executable, "-B", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout


def test_streams_longer_than_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_jax.data.token_records.SHARD_TOKENS", 5000)
    tokens = np.arange(11_000, dtype=np.uint16)
    write_records(tmp_path, {"train": tokens, "validation": tokens[:3]}, RECORD_TOKENS)
    assert len(list((tmp_path / "tokens" / "1.0.0").glob("tokens-train*"))) == 3
    builder = load_tfds().builder_from_directory(tmp_path / "tokens" / "1.0.0")
    read = [record["tokens"] for record in builder.as_data_source(split="train")]
    assert np.array_equal(np.concatenate(read), tokens)


def test_refusals(tmp_path: Path, corpus_folder: Path, tokenizer: Tokenizer) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="The corpus is empty: no text file was found"):
        build(spec_of(empty, tokenizer), tmp_path / "out", silent)
    (empty / "a.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"nothing could be used: not utf-8 1 \(.*a.txt:1"):
        build(spec_of(empty, tokenizer), tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match=r"--out .*notes.* is not a dataset"):
        build(spec_of(corpus_folder, tokenizer), tmp_path / "notes", silent, overwrite=True)
    with pytest.raises(UserError, match=r"--validation-fraction is 0\.7"):
        spec_of(corpus_folder, tokenizer, validation_fraction=0.7)
    with pytest.raises(UserError, match="There is no dataset in"):
        TokenDataset.open(tmp_path / "notes")


def test_a_swapped_tokenizer_is_noticed(
    tmp_path: Path, corpus_folder: Path, tokenizer: Tokenizer
) -> None:
    build(spec_of(corpus_folder, tokenizer), tmp_path / "out", silent)
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    info["tokenizer_sha256"] = "0" * 64
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="is not the one that the dataset was built with"):
        TokenDataset.open(tmp_path / "out")


def test_batches_of_text_do_not_change_the_stream(
    tmp_path: Path,
    dataset: TokenDataset,
    corpus_folder: Path,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encode, "BATCH_BYTES", 1000)
    build(spec_of(corpus_folder, tokenizer, validation_fraction=0.1), tmp_path / "out", silent)
    again = TokenDataset.open(tmp_path / "out")
    assert np.array_equal(stream(again, "train"), stream(dataset, "train"))


def test_losses_are_counted_named_and_bounded(
    tmp_path: Path, corpus_folder: Path, tokenizer: Tokenizer
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for i in range(60):
        (bad / f"{i:02}.txt").write_bytes(JAPANESE.encode("cp932"))
    (bad / "copy.txt").write_text("the same text")
    (bad / "copy2.txt").write_text("the same text")
    (bad / ".hidden").write_text("hidden")
    spec = BuildSpec(sources=(FileSource(corpus_folder), FileSource(bad)), tokenizer=tokenizer)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"60 of 99 .*60.6%, above --max-left-out 0.5.*not utf-8"):
        build(spec, out, silent)
    with pytest.raises(UserError, match=r"--strict .* not utf-8 \(.*00\.txt:1: bytes 8c"):
        build(dataclasses.replace(spec, strict=True, max_left_out=1.0), out, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]
    info, _ = build(dataclasses.replace(spec, max_left_out=0.7), out, silent)
    assert (info["lost"]["count"], info["lost"]["of"]) == (60, 99)
    assert info["lost"]["reasons"]["not utf-8"]["count"] == 60
    assert info["dropped"] == {"not utf-8": 60, "duplicate": 1, "hidden": 1}
    lines = (out / "left_out.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["kind"] for entry in entries].count("lost") == 60
    assert {entry["file"] for entry in entries} == {
        str(bad / name) for name in [".hidden", "copy2.txt", *(f"{i:02}.txt" for i in range(60))]
    }
    # A dataset that is there already is not taken for one without losses.
    for changes in ({"strict": True}, {"max_left_out": 0.1}):
        with pytest.raises(UserError, match="not utf-8 60"):
            build(dataclasses.replace(spec, **{"max_left_out": 0.7} | changes), out, silent)
    assert build(dataclasses.replace(spec, max_left_out=0.7), out, silent) == (info, True)
