"""Each process hashes and verifies its share of a checkpoint."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from llm_jax.train import manifest as manifest_module
from llm_jax.train.manifest import MANIFEST, checkpoint_bytes, first_damage, write_manifest
from llm_jax.train.sums import NOTE, Committed, SumsHandler, own_sums, take_sums


def written(folder: Path, processes: int) -> Path:
    """An unfinished checkpoint of two items, as Orbax lays it out: 3 files of each process, and
    what process 0 alone writes."""
    for item in ("opt.orbax-checkpoint-tmp", "params.orbax-checkpoint-tmp"):
        for process in range(processes):
            own = folder / item / f"ocdbt.process_{process}"
            (own / "d").mkdir(parents=True)
            (own / "d" / "chunk").write_bytes(bytes([process]) * 1000)
            (own / "manifest.ocdbt").write_bytes(b"root of process %d" % process)
            (folder / item / "array_metadatas").mkdir(exist_ok=True)
            (folder / item / "array_metadatas" / f"process_{process}").write_text("shapes")
        (folder / item / "_METADATA").write_text("{}")
    return folder


def test_the_files_of_a_process_are_its_own(tmp_path: Path) -> None:
    folder = written(tmp_path / "5", 12)
    sums = [own_sums(folder, process) for process in range(12)]
    assert [len(one) for one in sums] == [6] * 12
    assert len(set().union(*sums)) == 72  # process 1 does not take the files of 10 and 11
    assert all(name.startswith(("opt/", "params/")) for name in sums[0])
    size, digest = sums[3]["params/ocdbt.process_3/d/chunk"]
    assert size == 1000 and len(digest) == 64


def test_process_0_reads_only_what_nobody_has_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest has every file, and Orbax's note with its last time."""
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    final = epath.Path(checkpoints / "5")
    path = Committed.from_final(final, checkpoint_metadata_store=_Store())  # type: ignore[arg-type]
    folder = Path(path.get())
    written(folder, 4)
    for item in ("opt", "params"):
        (folder / f"{item}.orbax-checkpoint-tmp").rename(folder / item)
    (folder / "sums").mkdir()
    for process in range(4):
        text = json.dumps(own_sums(folder, process))
        (folder / "sums" / f"{process}.json").write_text(text)
    (folder / NOTE).write_text(json.dumps({"item_handlers": {"params": "a", "sums": "b"}}))
    hashed: list[str] = []
    once = manifest_module.file_sha256

    def counting(file: Path) -> str:
        hashed.append(file.relative_to(folder).as_posix())
        return once(file)

    monkeypatch.setattr(manifest_module, "file_sha256", counting)
    asyncio.run(path.finalize())
    monkeypatch.undo()
    assert sorted(hashed) == [NOTE, "opt/_METADATA", "params/_METADATA"]
    whole = checkpoints / "5"
    held = json.loads((whole / MANIFEST).read_text())
    assert len(held) == 2 * (3 * 4 + 1) + 1
    note = json.loads((whole / NOTE).read_text())
    assert note["item_handlers"] == {"params": "a"} and note["commit_timestamp_nsecs"] > 0
    assert not (whole / "sums").exists()
    assert first_damage(whole) is None
    text = (whole / NOTE).read_bytes()
    for place in (0, len(text) // 2, len(text) - 1):
        (whole / NOTE).write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        assert sorted(held)[first_damage(whole) or 0] == NOTE


class _Store:
    """Orbax's store of notes, which writes at once."""

    def read(self, file: Path) -> dict:
        return json.loads(Path(file).read_text())

    def update(self, file: Path, **fields: object) -> None:
        Path(file).write_text(json.dumps(self.read(file) | fields))

    def wait_until_finished(self) -> None:
        pass


def test_sums_that_are_missing_are_made_again(tmp_path: Path) -> None:
    """A file that no process has hashed is hashed by process 0."""
    folder = written(tmp_path / "5", 2)
    sums = own_sums(folder, 0)
    write_manifest(folder, sums, {"params/ocdbt.process_0"})
    held = json.loads((folder / MANIFEST).read_text())
    names = {
        path.relative_to(folder).as_posix() for path in folder.glob("*/**/*") if path.is_file()
    }
    assert names <= set(held)
    (folder / "sums").mkdir()
    assert take_sums(folder) == {}


@pytest.mark.parametrize("shares", [1, 3, 16, 40])
def test_verifying_is_shared_evenly(shares: int, tmp_path: Path) -> None:
    """No share has more than an even one and the largest file; every file is in one of them."""
    folder = tmp_path / "5"
    (folder / "params").mkdir(parents=True)
    sizes = [7919 * n % 1009 for n in range(1, 60)]
    for number, size in enumerate(sizes):
        (folder / "params" / f"{number:02}").write_bytes(bytes(size))
    write_manifest(folder)
    held = manifest_module._read(folder)
    assert held is not None
    parts = [manifest_module._part(held, share, shares) for share in range(shares)]
    assert sorted(place for part in parts for place in part) == list(range(59))
    total = [sum(held[place][1] for place in part) for part in parts]
    assert max(total) <= sum(sizes) / shares + max(sizes)
    assert checkpoint_bytes(folder) == sum(sizes)
    (folder / "params" / "41").write_bytes(b"x" * sizes[41])
    found = [first_damage(folder, share, shares) for share in range(shares)]
    assert [place for place in found if place is not None] == [41]


def test_a_read_that_fails_once_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "5", 1)
    write_manifest(folder)
    monkeypatch.setattr(manifest_module, "PATIENCE", (0.0, 0.0, 0.0))
    once, failures = manifest_module.file_sha256, [2]

    def failing(file: Path) -> str:
        if failures[0]:
            failures[0] -= 1
            raise OSError(5, "Input/output error")
        return once(file)

    monkeypatch.setattr(manifest_module, "file_sha256", failing)
    assert first_damage(folder) is None
    failures[0] = 3
    assert first_damage(folder) == 0


def test_sums_are_no_item_to_restore() -> None:
    with pytest.raises(NotImplementedError):
        SumsHandler().restore(Path("unused"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_processes_on_storage_that_stalls_and_fails() -> None:
    """`python benchmarks/saving.py` has 16 processes and 51 faults."""
    program = Path(__file__).parents[2] / "benchmarks" / "saving.py"
    command = [sys.executable, str(program), "--processes", "2", "--faults", "3", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (seen["processes"], seen["faults"], seen["bitwise_equal"]) == (2, 3, True)
