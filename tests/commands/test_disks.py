"""Disks that are full, read-only or gone under each verb: one sentence, nothing half-made.

Root writes to read-only folders and ignores quotas, so its disks are small or read-only mounts; an
ordinary user, and root where it may not mount, has limits on the size of files, and permissions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import pytest
import tiny
from limits import files_of_at_most

from llm_jax.cli import main
from llm_jax.convert.hf_import import write_run
from llm_jax.data.dataset import TokenDataset
from llm_jax.runs import files

VERBS = {
    "data build": "data build --input TEXT --vocab-size 280 --out DISK/new",
    "overwrite": "data build --input TEXT --vocab-size 281 --out DISK/dataset --overwrite",
    "tokenizer train": "tokenizer train --input TEXT --vocab-size 280 --out DISK/new/m.model",
    "export": "export RUN --to hf DISK/new --no-check",
    "import": "import HF DISK/new --no-check",
    "report": "report RUN --out DISK/new",
    "ladder": "ladder --data DATA --flops 1e11 --chip a100 --seq-len 64 --out DISK/new",
    "fit": "fit CSV --out DISK/new/law.json --bootstraps 20",
    "fit figure": "fit CSV --out HERE/law.json --bootstraps 1 --figure DISK/new/law.png",
    "plan": "plan --flops 1e18 --chip a100 --write DISK/new/run.json",
    "plan report": "plan --flops 1e18 --chip a100 --report DISK/new/plan.html",
}


@pytest.fixture(scope="module")
def made(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the verbs read: text, a run with measurements, its export, losses."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "data").symlink_to(tiny_dataset)
    (folder / "text").mkdir()
    for name in "ab":
        (folder / "text" / f"{name}.txt").write_text(f"a few {name} words " * 99)
    dataset = TokenDataset.open(tiny_dataset)
    model = tiny.model_config(vocab_size=tiny.VOCAB)
    config = tiny.run_config(folder / "run", tiny_dataset, model=model)
    (folder / "run").mkdir()
    params = jax.device_get(tiny.parameters(model))
    write_run(folder / "run", config, params, dataset.tokenizer)
    figures = {"loss": 6.0, "bits_per_byte": 3.0, "tokens_per_second": 1e3, "mfu": 0.1}
    lines = [
        {"split": split, "step": step, "tokens": 128 * step, **figures}
        for step in (10, 20)
        for split in ("train", "validation")
    ]
    (folder / "run" / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    points = [(n, d) for n in (1e6, 2e6, 4e6) for d in (1e8, 2e8, 4e8)]
    rows = [f"{n},{d},{2 + 400 / n**0.34 + 400 / d**0.28}" for n, d in points]
    (folder / "losses.csv").write_text("\n".join(["params,tokens,loss", *rows]))
    run(f"export {folder / 'run'} --to hf {folder / 'hf'} --no-check")
    run(f"data build --input {folder / 'text'} --vocab-size 280 --out {folder / 'dataset'}")
    return folder


def run(command: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(command.split())
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture
def disk(made: Path, tmp_path: Path) -> Path:
    """A folder that holds something already."""
    (tmp_path / "disk").mkdir()
    shutil.copytree(made / "dataset", tmp_path / "disk" / "dataset")
    return tmp_path / "disk"


def mounted(disk: Path, options: str) -> bool:
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    return os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def refused(
    verb: str, made: Path, disk: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verb ends with one sentence that has `words`, and the disk as it was."""
    before = content(disk)
    places = {"TEXT": "text", "RUN": "run", "HF": "hf", "CSV": "losses.csv"}
    command = VERBS[verb].replace("DISK", str(disk)).replace("HERE", str(disk.parent))
    command = command.replace("DATA", str(made / "data"))
    for word, name in places.items():
        command = command.replace(f" {word} ", f" {made / name} ")
    capsys.readouterr()
    code = run(command)
    out, err = capsys.readouterr()
    assert (code, out) == (1, ""), err
    last = err.splitlines()[-1]
    assert last.startswith(f"error: '{disk}/") and words in last, err
    assert err.count("error: ") == 1 and "Traceback" not in err
    assert content(disk) == before


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_files_cannot_grow(verb, made, disk, capsys) -> None:
    with files_of_at_most(1000):
        refused(verb, made, disk, "(File too large): free space", capsys)


# The disk takes the claim and the first files, and then no more.
@pytest.mark.parametrize(
    ("verb", "size"), [("data build", "16k"), ("export", "100k"), ("import", "100k")]
)
def test_a_full_disk(verb, size, made, disk, capsys) -> None:
    if not mounted(disk, f"size={size}"):
        pytest.skip("a small disk can only be mounted by root; the limit on files stands for it")
    try:
        refused(verb, made, disk, "(No space left on device): free space", capsys)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_disk(verb, made, disk, capsys) -> None:
    if mounted(disk, "ro"):
        try:
            if verb != "overwrite":  # there is nothing to overwrite
                refused(verb, made, disk, "(Read-only file system): change its perm", capsys)
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
        return
    disk.chmod(0o500)
    try:
        if os.access(disk, os.W_OK):
            pytest.skip("root writes everywhere, and may not mount")
        refused(verb, made, disk, "(Permission denied): change its permissions", capsys)
    finally:
        disk.chmod(0o700)


@pytest.mark.parametrize("verb", ["data build", "tokenizer train", "export", "import", "plan"])
def test_a_disk_that_is_gone_at_the_end(verb, made, disk, capsys, monkeypatch) -> None:
    def vanish(path: Path) -> None:
        shutil.rmtree(disk)
        disk.mkdir()
        to_disk(path)

    to_disk = files._to_disk
    monkeypatch.setattr(files, "_to_disk", vanish)
    shutil.rmtree(disk / "dataset")
    refused(verb, made, disk, "(No such file or directory): check the path", capsys)
