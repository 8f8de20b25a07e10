"""A small English model goes on with Japanese: with new pieces for it, and without.

    python benchmarks/extend_japanese.py --aozora FOLDER --shakespeare input.txt --out DIR

The recipe `tiny` is trained on Shakespeare and Python code with a byte-level tokenizer of 2,048
pieces. Then it goes on with works of Aozora Bunko twice: as it is, and with pieces of Japanese
(`tokenizer extend --add 2048`). Both have the same FLOPs. A longer piece stands for more
bytes, so the extended model reads more text, but each of its tokens costs more, since the output
matrix has more rows. Printed are bits per byte of works that were held out, before and after, and
of English, which is forgotten. Finished parts in DIR are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from llm_jax.config import ModelConfig, load
from llm_jax.data.sources import FileSource, LeftOut
from llm_jax.facts.counts import token_flops

PIECES, ADDED, HELD_OUT = 2048, 2048, 16
SEQUENCE, BATCH = 256, 16


def call(*words: object) -> dict[str, Any]:
    """What a verb prints with --json."""
    command = [sys.executable, "-m", "llm_jax", *map(str, words), "--json"]
    print("$ llm-jax", *words, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def works(args: argparse.Namespace) -> tuple[Path, Path]:
    """Folders of links to the works that are learned and to those that are held out."""
    names = sorted(args.aozora.glob("*.txt"), key=_digest)
    left = {"train": args.megabytes * 1e6, "held_out": args.megabytes * 1e6 / HELD_OUT}
    for number, file in enumerate(names):
        split = "train" if number % HELD_OUT else "held_out"
        place = args.out / "aozora" / split / file.name
        left[split] -= file.stat().st_size
        if left[split] > 0 and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file.resolve())
    return args.out / "aozora" / "train", args.out / "aozora" / "held_out"


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.name.encode()).digest()


def plain(source: Path, out: Path) -> Path:
    """The held-out works as one file of plain text."""
    found = [
        document.text
        for work in sorted(source.iterdir())
        for document in FileSource(work, "cp932", markup="aozora").documents(LeftOut())
    ]
    out.write_text("\n\n".join(found), encoding="utf-8")
    return out


def built(out: Path, *words: object) -> Path:
    if not out.exists():
        call("data", "build", *words, "--out", out)
    return out


def trained(out: Path, data: Path, steps: int, *words: object) -> Path:
    call("train", *words, "--name", out.name, "--out", out, "--data.path", data, "--steps", steps,
         "--data.seq-len", SEQUENCE, "--data.batch-size", BATCH, "--optim.learning-rate", 2e-3,
         "--eval.every", steps, "--checkpoint.every", max(1, steps // 4))  # fmt: skip
    return out


def scored(run: Path, text: Path) -> dict[str, Any]:
    """Figures of a run on the first 200,000 characters of a text."""
    part, kept = run.parent / f"part-{text.name}", run.parent / f"{run.name}-{text.stem}.json"
    if not kept.exists():
        part.write_text(text.read_text(encoding="utf-8")[:200_000], encoding="utf-8")
        found = call("eval", run, "--text", part)["texts"][str(part)]
        kept.write_text(json.dumps(found), encoding="utf-8")
    read: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return read


def steps_of(flops: float, model: ModelConfig) -> int:
    """Steps of the same FLOPs for a model."""
    return max(1, round(flops / (token_flops(model, SEQUENCE).train * SEQUENCE * BATCH)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--aozora", type=Path, required=True, help="folder of works in Shift_JIS")
    parser.add_argument("--shakespeare", type=Path, required=True, help="one file of plays")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything made")
    parser.add_argument("--megabytes", type=float, default=8.0, help="of Japanese")
    parser.add_argument("--steps", type=int, default=600, help="of each model in English")
    args = parser.parse_args()
    args.out = args.out.resolve()
    japanese, held_out = works(args)
    text = plain(held_out, args.out / "japanese.txt")
    flags = ["--encoding", "cp932", "--clean", "aozora"]
    stdlib = Path(sysconfig.get_path("stdlib")) / "asyncio"
    tokenizer = args.out / "tokenizer"
    inputs = ["--input", args.shakespeare, stdlib]
    if not tokenizer.exists():
        call("tokenizer", "train", *inputs, "--vocab-size", PIECES, "--kind", "byte-level",
             "--out", tokenizer)  # fmt: skip
    english = built(args.out / "english", *inputs, "--tokenizer", tokenizer)
    size = ["--model.vocab-size", PIECES]
    base = trained(args.out / "base", english, args.steps, "tiny", *size)
    extended = args.out / "extended"
    if not extended.exists():
        call("tokenizer", "extend", base, extended, "--add", ADDED, "--input", japanese, *flags)
    flops, rows = 0.0, []
    for name, start in (("as it was", base), ("extended", extended)):
        model = load(str(start / "run.json")).model
        assert isinstance(model, ModelConfig)
        flops = flops or args.steps * SEQUENCE * BATCH * token_flops(model, SEQUENCE).train
        steps = steps_of(flops, model)
        data = built(args.out / f"data-{start.name}", "--input", japanese, *flags, "--tokenizer",
                     start)  # fmt: skip
        run = trained(args.out / f"ja-{start.name}", data, steps, "--init", start)
        scores = [scored(one, path) for one in (start, run) for path in (text, args.shakespeare)]
        rows.append((name, model.vocab_size, steps, *scores))
    print(table(rows, flops))


def table(rows: list[Any], flops: float) -> str:
    """Bits per byte of Japanese and English, before and after, by arm."""
    lines = [
        f"{flops:.3g} FLOPs each",
        f"{'tokenizer':<10} {'rows':>6} {'steps':>6} {'bytes/token':>11} {'ja before':>9} "
        f"{'ja after':>9} {'en before':>9} {'en after':>9}",
    ]
    for name, vocabulary, steps, ja, en, ja_after, en_after in rows:
        shown = " ".join(f"{one['bits_per_byte']:>9.3f}" for one in (ja, ja_after, en, en_after))
        length = ja["bytes"] / ja["tokens"]
        lines.append(f"{name:<10} {vocabulary:>6} {steps:>6} {length:>11.2f} {shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
