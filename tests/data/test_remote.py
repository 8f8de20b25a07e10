"""Files behind addresses: fsspec's memory file system, and a web server on loopback."""

from __future__ import annotations

import errno
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import silent, stdlib_texts
from fsspec.implementations.memory import MemoryFileSystem

from llm_jax.config import UserError
from llm_jax.data.build import BuildSpec, build
from llm_jax.data.sources import Document, FileSource, LeftOut, remote_file
from llm_jax.data.tokenizers import Tokenizer


def parquet(texts: list[str]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), out)
    return out.getvalue()


FILES = {
    "a.txt": b"plain",
    "sub/b.jsonl.gz": gzip.compress(b'{"text": "packed"}\n', mtime=0),
    "sub/c.parquet": parquet(["first", "second"]),
    "sub/.hidden/d.txt": b"hidden",
    "sub/e.bin": b"\0",
    "sub/f.zip": b"PK",
}
TEXTS = ["plain", "packed", "first", "second"]


def read(address: str, **settings: Any) -> tuple[list[Document], LeftOut]:
    left_out = LeftOut()
    source = FileSource(address, **settings)
    source.fingerprint()
    return list(source.documents(left_out)), left_out


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = fsspec.filesystem("memory")
    for name, content in FILES.items():
        files.pipe(f"/bucket/data/{name}", content)
    yield files
    files.rm("/bucket", recursive=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def send_head(self) -> Any:
            if "forbidden" in self.path:
                self.send_error(403)
                return None
            return super().send_head()

    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "WAIT_SECONDS", 0.0)


def test_a_folder_is_read_as_one_on_disk(
    memory: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    source, left_out = FileSource("memory://bucket/data", licence="CC0-1.0"), LeftOut()
    source.fingerprint()
    texts, copies = [], []
    for document in source.documents(left_out):
        texts.append(document.text)
        copies.append(len(list((tmp_path / "copies").iterdir())))
    assert (texts, copies) == (TEXTS, [1] * 4)
    assert list((tmp_path / "copies").iterdir()) == []
    assert left_out.lost == {"not text": 1}
    assert left_out.skipped == {"hidden": 1, "not a text file's suffix": 1}
    described = source.describe()
    assert (described["input"], described["licence"]) == ("memory://bucket/data", "CC0-1.0")
    named = ("a.txt", "sub/b.jsonl.gz", "sub/c.parquet")
    assert described["files"] == [
        {
            "path": f"memory:///bucket/data/{name}",
            "sha256": hashlib.sha256(FILES[name]).hexdigest(),
            "bytes": len(FILES[name]),
        }
        for name in named
    ]


def test_files_patterns_and_what_is_not_there(memory: MemoryFileSystem) -> None:
    (document,), _ = read("memory://bucket/data/a.txt")
    assert (document.text, document.source) == ("plain", "memory:///bucket/data/a.txt")
    documents, _ = read("memory://bucket/data/**/*.parquet")
    assert [document.text for document in documents] == ["first", "second"]
    for absent in ("memory://bucket/none", "memory://bucket/data/*.tsv"):
        with pytest.raises(UserError, match=rf"'{absent.replace('*', '.')}' does not exist"):
            read(absent)
    with pytest.raises(UserError, match="protocol 'foo', which fsspec does not know"):
        read("foo://bucket")
    with pytest.raises(UserError, match="joins several addresses"):
        read("simplecache::memory://bucket/data")


def test_a_pattern_expands_as_on_a_disk(memory: MemoryFileSystem, tmp_path: Path) -> None:
    """Folders that match are gone through, files that match are read under any name, hidden ones
    are not; each once."""
    more = {"sub2/g.txt": b"second", "subject": b"no suffix", ".sub/h.txt": b"h", "sub.bin": b"\0"}
    for name, content in (FILES | more).items():
        memory.pipe(f"/bucket/data/{name}", content)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for pattern in ("sub*", "*", "s*/*", "sub/**", "**", ".s*", "a.t*", "sub*/*.jsonl*"):
        (here, left_here), (there, left_there) = (
            read(f"{place}/{pattern}") for place in (tmp_path, "memory://bucket/data")
        )
        assert {one.text for one in there} == {one.text for one in here}, pattern
        assert len(there) == len(here) > 0
        assert left_there.lost == left_here.lost, pattern
    with pytest.raises(UserError, match="does not exist"):
        read("memory://bucket/data/none*")


def test_a_curated_folder_behind_an_address(memory: MemoryFileSystem) -> None:
    memory.pipe("/bucket/data/clean/curation.json", b"{}")
    memory.pipe("/bucket/data/clean/documents/00000.jsonl", b'{"text": "curated"}')
    for address in ("data", "data/clean", "da*"):
        with pytest.raises(UserError, match=r"data/clean holds curated documents.*copy it to this"):
            read(f"memory://bucket/{address}")


def test_the_fingerprint_follows_the_content(memory: MemoryFileSystem) -> None:
    first = FileSource("memory://bucket/data").fingerprint()
    assert FileSource("memory://bucket/data").fingerprint() == first
    source = FileSource("memory://bucket/data")
    source.fingerprint()
    memory.pipe("/bucket/data/a.txt", b"other")
    assert FileSource("memory://bucket/data").fingerprint() != first
    with pytest.raises(UserError, match=r"a\.txt changed while it was read"):
        list(source.documents(LeftOut()))


def test_a_version_saves_the_first_reading(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of S3 and Google Cloud Storage, whose listings have a hash of each file."""
    fetched: list[str] = []
    find, get_file = MemoryFileSystem.find, MemoryFileSystem.get_file

    def versioned(self: Any, *args: Any, **options: Any) -> Any:
        found = find(self, *args, **options)
        for path, info in found.items():
            info["ETag"] = hashlib.md5(self.cat_file(path)).hexdigest()
        return found

    def counted(self: Any, path: str, *args: Any, **options: Any) -> None:
        fetched.append(path)
        get_file(self, path, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "find", versioned)
    monkeypatch.setattr(MemoryFileSystem, "get_file", counted)
    source = FileSource("memory://bucket/data")
    first = source.fingerprint()
    assert fetched == []
    assert [document.text for document in source.documents(LeftOut())] == TEXTS
    assert len(fetched) == len(set(fetched)) == 3
    assert len(source.describe()["files"]) == 3
    memory.pipe("/bucket/data/a.txt", b"other")
    assert FileSource("memory://bucket/data").fingerprint() != first


def failing(monkeypatch: pytest.MonkeyPatch, errors: list[Exception]) -> None:
    """The next fetches fail with `errors`, in turn."""
    get_file = MemoryFileSystem.get_file

    def fails(self: Any, *args: Any, **options: Any) -> None:
        if errors:
            raise errors.pop(0)
        get_file(self, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", fails)


LOGIN = "u:" + "pw"


@pytest.mark.usefixtures("quick")
def test_a_network_that_fails_is_tried_again(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [TimeoutError("slow"), OSError(f"reset https://{LOGIN}@host/?sig=1")]
    failing(monkeypatch, errors)
    assert read("memory://bucket/data/a.txt")[0][0].text == "plain"
    errors += [ConnectionError(f"reset https://{LOGIN}@host/?sig={12345678}")] * 3
    with pytest.raises(UserError, match=r"in 3 tries \(ConnectionError: reset …\)") as caught:
        read("memory://bucket/data/a.txt")
    assert (caught.value.exit_code, errors) == (1, [])
    errors += [PermissionError("not yours")]
    documents, left_out = read("memory://bucket/data/a.txt")
    assert [document.text for document in documents] == ["plain"]  # it was the fingerprint's
    errors += [PermissionError("not yours")] * 2
    documents, left_out = read("memory://bucket/data/a.txt")
    assert (documents, left_out.lost) == ([], {"unreadable file": 1})
    errors += [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))] * 2
    assert read("memory://bucket/data/a.txt")[1].lost == {"unreadable file": 1}


@pytest.mark.usefixtures("quick")
def test_a_file_that_came_short_is_fetched_again(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_file, calls = MemoryFileSystem.get_file, []

    def short(self: Any, path: str, local: str, **options: Any) -> None:
        get_file(self, path, local, **options)
        calls.append(path)
        if len(calls) % 3:
            os.truncate(local, 2)

    monkeypatch.setattr(MemoryFileSystem, "get_file", short)
    assert read("memory://bucket/data/a.txt")[0][0].text == "plain"
    assert len(calls) == 6


def test_over_http(server: str) -> None:
    documents, _ = read(f"{server}/sub/c.parquet")
    assert [document.text for document in documents] == ["first", "second"]
    documents, _ = read(f"{server}/sub/")
    assert [document.text for document in documents] == ["packed", "first", "second"]
    with pytest.raises(UserError, match="does not exist: check the address"):
        read(f"{server}/none.txt")
    with pytest.raises(UserError, match=r"cannot be read \(.*403.*credentials"):
        read(f"{server}/forbidden.txt")
    with pytest.raises(UserError, match=r"cannot be read \(.*Cannot connect"):
        read("http://127.0.0.1:9/a.txt")


def test_no_secret_of_an_address_is_kept(server: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name, text in stdlib_texts():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    secret = "s3cr3tS1gnature0123456789"  # pragma: allowlist secret
    address = server.replace("//", f"//user:{secret}@")
    names = [name for name, _ in stdlib_texts()]
    sources = tuple(FileSource(f"{address}/{name}.txt?sig={secret}") for name in names)
    build(BuildSpec(sources=sources, tokenizer=tokenizer), tmp_path / "out", silent)
    for file in ("dataset.json", "files.jsonl", "left_out.jsonl"):
        assert secret not in (tmp_path / "out" / file).read_text()
    info = json.loads((tmp_path / "out/dataset.json").read_text())
    assert info["sources"][0]["name"] == f"{server}/{names[0]}.txt"
    with pytest.raises(UserError) as caught:
        FileSource(f"{address}/none.txt?sig={secret}").fingerprint()
    assert secret not in str(caught.value)


@pytest.mark.parametrize(("address", "package"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs")])
def test_a_missing_file_system_is_named_with_its_extra(
    address: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == package else 1)
    extra = {"s3fs": "data-s3", "gcsfs": "data-gs"}[package]
    with pytest.raises(UserError, match=rf"needs {package}, .*'llm-jax\[{extra}\]'"):
        FileSource(address).fingerprint()


def test_missing_credentials_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file system's library raises; this is what botocore says."""

    class NoCredentialsError(Exception):
        pass

    def refuse(*_: Any, **__: Any) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    with pytest.raises(
        UserError, match=r"cannot be read \(NoCredentialsError: Unable to"
    ) as caught:
        read("memory://bucket/data")
    assert "credentials are set where its library looks for them" in str(caught.value)
    assert caught.value.exit_code == 2
