"""What curation is worth: two runs of equal compute, on a mixture as it comes and curated.

    python benchmarks/mixture_quality.py --aozora FOLDER --shakespeare input.txt --out DIR

Four sources, mixed 50/30/15/5: Aozora Bunko's works, Python's standard library, Shakespeare, and a
crawl that is made up (`made_up_crawl.py`). One run reads them curated, the other without recipes
and with Aozora's markup. Model, tokenizer, weights and steps are the same, those that the planner
proposes for `--minutes` on this machine. Both are measured on curated text of files, topics and
pages that neither has read. Run it again to resume.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from made_up_crawl import HELD_OUT, is_held_out
from made_up_crawl import write as write_crawl

ROOT = Path(__file__).resolve().parent.parent
LAW = ROOT / "configs" / "laws" / "stdlib.json"
CP932, MARKUP = ["--encoding", "cp932"], ["--clean", "aozora"]
RECIPES = {
    "aozora": ["books-ja"],
    "stdlib": ["code"],
    "shakespeare": ["none"],
    "web": ["web-en", "web-ja"],
}
"""Source → the recipes that it is curated by, each into a folder."""
WEB_WORKS = 6
"""One of so many works of Aozora Bunko is in the crawl, and not in the source of that name."""
SCENE = 3000
"""Bytes of a document of Shakespeare."""
NOT_CODE = {"pydoc_data", "test", "site-packages", "idlelib", "__pycache__", "lib2to3"}


def call(*words: object) -> dict[str, Any]:
    """What a verb prints with --json."""
    command = [sys.executable, "-m", "llm_jax", *map(str, words), "--json"]
    print("$ llm-jax", *words, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def prepare(args: argparse.Namespace, raw: Path) -> None:
    """Writes raw/NAME/train and raw/NAME/held_out, each once."""
    works = sorted(args.aozora.glob("*.txt"))
    link(raw / "aozora", (w for n, w in enumerate(works) if n % WEB_WORKS), args.megabytes)
    stdlib = Path(sysconfig.get_path("stdlib"))
    code = (p for p in stdlib.rglob("*.py") if not NOT_CODE & {*p.relative_to(stdlib).parts})
    link(raw / "stdlib", code, args.megabytes)
    play = args.shakespeare.read_text(encoding="utf-8")
    speeches = play.split("\n\n")
    cut = len(speeches) * (HELD_OUT - 1) // HELD_OUT
    for split, part in (("train", speeches[:cut]), ("held_out", speeches[cut:])):
        folder = raw / "shakespeare" / split
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"text": text}) for text in scenes(part)]
        (folder / "play.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for split, share in (("train", 1), ("held_out", HELD_OUT)):
        folder = raw / "web" / split
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "crawl.warc.gz"
        if not file.exists():
            counts = write_crawl(works[::WEB_WORKS], args.pages // share, 0, share > 1, file)
            print(f"crawl, {split}: {counts}", file=sys.stderr)


def link(folder: Path, files: Iterable[Path], megabytes: float) -> None:
    """Links to files of so many megabytes, an eighth more held out, in an order by their names."""
    left = {"train": megabytes * 1e6, "held_out": megabytes * 1e6 / HELD_OUT}
    for file in sorted(files, key=lambda path: hashlib.sha256(path.name.encode()).digest()):
        split = "held_out" if is_held_out(file.name) else "train"
        if left[split] <= 0:
            continue
        left[split] -= file.stat().st_size
        number = hashlib.sha256(str(file).encode()).hexdigest()[:8]
        place = folder / split / f"{number}-{file.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(file)


def scenes(speeches: list[str]) -> list[str]:
    """Speeches together, in documents of `SCENE` bytes or a little more."""
    found = [""]
    for speech in speeches:
        if len(found[-1]) > SCENE:
            found.append("")
        found[-1] += speech + "\n\n"
    return found


def curated(raw: Path, out: Path, name: str, split: str) -> list[Path]:
    """The curated folders of a source, one for each of its recipes."""
    flags = [*CP932, *MARKUP] if name == "aozora" else []
    folders = []
    for recipe in RECIPES[name]:
        folder = out / split / (name if len(RECIPES[name]) == 1 else recipe)
        call("data", "curate", "--input", raw / name / split, "--recipe", recipe, *flags,
             "--class", "public", "--out", folder)  # fmt: skip
        folders.append(folder)
    return folders


def mixture(out: Path, arm: str, weights: list[str]) -> Path:
    named = [f"{name}={out / 'data' / arm / name}" for name in RECIPES]
    file = out / f"{arm}.json"
    call("data", "mix", *named, "--tokens", "1M", "--weights", *weights, "--write", file,
         "--overwrite")  # fmt: skip
    return file


def trained(args: argparse.Namespace, texts: list[Path]) -> dict[str, Any]:
    """Arm → its scores on `texts`."""
    out, plan, found = args.out, args.out / "run.json", {}
    mixtures = {arm: mixture(out, arm, args.weights) for arm in ("curated", "uncurated")}
    if not plan.exists():
        machine = ["--chip", "local", "--chips", 1, "--deadline-hours", args.minutes / 60]
        call("plan", *machine, "--law", LAW, "--mixture", mixtures["curated"], "--write", plan,
             "--anyway")  # fmt: skip
    for arm, file in mixtures.items():
        run = out / arm
        call("train", plan, "--mixture", file, "--name", arm, "--out", run)
        call("eval", run, "--keep", *(["--ngram", 5] if arm == "curated" else []))
        found[arm] = call("eval", run, "--text", *texts)
        call("report", run)
    return found


def table(found: dict[str, Any], texts: dict[str, Path]) -> str:
    """Loss in nats per token and bits per byte of each held-out text, by arm."""
    lines = [f"{'held-out text':<14}  {'curated':>15}  {'uncurated':>15}  {'difference':>10}"]
    for name, path in texts.items():
        pair = [found[arm]["texts"][str(path)] for arm in ("curated", "uncurated")]
        shown = [f"{one['loss']:.4f} ({one['bits_per_byte']:.3f})" for one in pair]
        change = pair[0]["loss"] - pair[1]["loss"]
        lines.append(f"{name:<14}  {shown[0]:>15}  {shown[1]:>15}  {change:>+10.4f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aozora", type=Path, required=True, help="folder of works in Shift_JIS")
    parser.add_argument("--shakespeare", type=Path, required=True, help="file of plays")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, for each run")
    parser.add_argument("--megabytes", type=float, default=8.0, help="of works, and of code")
    parser.add_argument("--pages", type=int, default=4000, help="of the crawl")
    parser.add_argument("--weights", nargs=4, default=["50", "30", "15", "5"])
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.aozora, args.out = args.aozora.resolve(), args.out.resolve()
    os.environ["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    raw, clean = args.out / "raw", args.out / "clean"
    prepare(args, raw)
    folders = {name: curated(raw, clean, name, "train") for name in RECIPES}
    held = [one for name in RECIPES for one in curated(raw, clean, name, "held_out")]
    tokenizer = args.out / "tokenizer.model"
    if not tokenizer.exists():
        every = [one for several in folders.values() for one in several]
        call("tokenizer", "train", "--input", *every, "--vocab-size", args.vocab_size, "--out",
             tokenizer)  # fmt: skip
    for name, clean_folders in folders.items():
        plain = CP932 if name == "aozora" else []
        for arm, inputs, flags in (
            ("curated", clean_folders, []),
            ("uncurated", [raw / name / "train"], plain),
        ):
            made = call("data", "build", "--input", *inputs, *flags, "--tokenizer", tokenizer,
                        "--out", args.out / "data" / arm / name)  # fmt: skip
            print(f"{arm} {name}: {made['splits']['train']['tokens']:,} tokens")
    texts = {folder.name: folder / "documents" for folder in held}
    found = trained(args, [*texts.values()])
    print(table(found, texts))


if __name__ == "__main__":
    main()
