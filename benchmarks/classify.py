"""An encoder fine-tuned on a made-up classification, beside a bag of words.

  python benchmarks/classify.py --out /tmp/classify --pretrain 600 --steps 600

Each sentence says who beat whom, in English or Japanese, and its label is the winner's team. One
player of each team plays, in either order, and verbs and negations turn the result around. So each
bag of words has both labels equally often, and a classifier that sees no order can only guess.

It trains a tokenizer and a small BERT on the unlabelled sentences (masked tokens), fine-tunes it,
and again from random weights; and it fits a logistic regression on counts of words and pairs of
neighbouring words (scikit-learn).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

TEAMS = {
    "red": (("Ann", "Bob", "Cid", "Dan"), ("アキ", "ケン", "ユミ", "リク")),
    "blue": (("Pat", "Quin", "Ray", "Sam"), ("ソラ", "マコ", "ノア", "ヒデ")),
}
TEMPLATES = (
    (
        ("{when} {a} beat {b}.", True),
        ("{when} {a} did not beat {b}.", False),
        ("{when} {a} lost to {b}.", False),
        ("{when} {a} did not lose to {b}.", True),
    ),
    (
        ("{when}{a}は{b}に勝った。", True),
        ("{when}{a}は{b}に勝てなかった。", False),
        ("{when}{a}は{b}に負けた。", False),
        ("{when}{a}は{b}に負けなかった。", True),
    ),
)
"""By language: a sentence, and whether the first player won."""
WHEN = (
    ("Today", "Yesterday", "On Sunday", "In the end", "Again"),
    ("今日", "昨日", "日曜に", "最後に", "また"),
)


def sentences(negations: bool = True) -> list[dict[str, str]]:
    """All sentences with their labels, in a random order of one seed.

    Args:
      negations: half of the sentences are negated; without them, the task is easier.
    """
    found = list(_all(negations))
    random.Random(0).shuffle(found)
    return found


def _all(negations: bool) -> Iterator[dict[str, str]]:
    for language, every in enumerate(TEMPLATES):
        templates = every if negations else every[::2]
        reds, blues = TEAMS["red"][language], TEAMS["blue"][language]
        for red, blue, when, (words, first_wins) in itertools.product(
            reds, blues, WHEN[language], templates
        ):
            for a, b, first in ((red, blue, "red"), (blue, red, "blue")):
                other = "blue" if first == "red" else "red"
                label = first if first_wins else other
                yield {"text": words.format(when=when, a=a, b=b), "label": label}


def bag_of_words(train: list[dict[str, str]], held_out: list[dict[str, str]], n: int = 1) -> float:
    """Accuracy of a logistic regression on counts of up to `n` neighbouring words. Words are those
    of the Latin script, and single characters of others."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counts = CountVectorizer(token_pattern=r"[A-Za-z]+|[^\sA-Za-z]", ngram_range=(1, n))
    x = counts.fit_transform(one["text"] for one in train)
    model = LogisticRegression(max_iter=1000).fit(x, [one["label"] for one in train])
    y = [one["label"] for one in held_out]
    return float(model.score(counts.transform(one["text"] for one in held_out), y))


def main() -> None:
    """Prints a line of JSON for each classifier: its name, and its held-out accuracy."""
    description, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--pretrain", type=int, default=600, help="steps on hidden tokens")
    parser.add_argument("--steps", type=int, default=600, help="steps of fine-tuning")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = sentences()
    train, held_out = prepared(args.out, rows)
    for n in (1, 2):
        words = "words" if n == 1 else f"words and up to {n} in a row"
        said({"classifier": f"counts of {words}", "accuracy": bag_of_words(train, held_out, n)})
    for name, init in (("random weights", False), ("trained on hidden tokens", True)):
        said({"classifier": f"BERT, {name}", **fine_tuned(args, init)})


def prepared(folder: Path, rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], ...]:
    """Builds the datasets in `folder`; the training examples and the held-out ones."""
    chosen = [zlib.crc32(row["text"].encode()) % 5 == 0 for row in rows]
    split = [[r for r, h in zip(rows, chosen, strict=True) if h is it] for it in (False, True)]
    for name, part in zip(("train", "validation"), split, strict=True):
        lines = [json.dumps(row, ensure_ascii=False) for row in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    # Thirty sentences are one document, so that a window holds several.
    texts = [row["text"] for row in split[0]] * 30
    random.Random(1).shuffle(texts)
    documents = [{"text": "\n".join(texts[i : i + 30])} for i in range(0, len(texts), 30)]
    lines = [json.dumps(one, ensure_ascii=False) for one in documents]
    (folder / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")
    call("data", "build", "--input", folder / "text.jsonl", "--vocab-size", 400, "--out",
         folder / "text", "--overwrite")  # fmt: skip
    call("data", "label", "--input", folder / "train.jsonl", "--validation",
         folder / "validation.jsonl", "--tokenizer", folder / "text", "--out", folder / "labelled",
         "--overwrite")  # fmt: skip
    return split[0], split[1]


def fine_tuned(args: argparse.Namespace, pretrained: bool) -> dict[str, float]:
    """The held-out figures of a BERT that is fine-tuned, and its seconds."""
    size = ("--model.vocab-size", 400, "--model.num-layers", 2, "--model.d-model", 64,
            "--model.num-heads", 4, "--model.d-ff", 128, "--model.max-seq-len", 64)  # fmt: skip
    rates = ("--optim.learning-rate", 2e-3, "--optim.warmup-steps", 30)
    examples = ("--data.path", args.out / "labelled", "--steps", args.steps, *rates)
    often = ("--checkpoint.every", 10_000, "--eval.every", 10_000, "--eval.batches", 1000)
    name = "tuned" if pretrained else "from-random"
    started = time.monotonic()
    if pretrained:
        run = args.out / "bert"
        call("train", "bert_tiny", *size, *rates, *often, "--data.path", args.out / "text", "--out",
             run, "--data.seq-len", 64, "--steps", args.pretrain)  # fmt: skip
        call("train", "--init", run, *examples, *often, "--out", args.out / name)
    else:
        call("train", "bert_tiny", *size, *examples, *often, "--out", args.out / name)
    lines = (args.out / name / "metrics.jsonl").read_text("utf-8").splitlines()
    last = [one for one in map(json.loads, lines) if one["split"] == "validation"][-1]
    seconds = round(time.monotonic() - started, 1)
    return {"accuracy": last["accuracy"], "macro_f1": last["macro_f1"], "seconds": seconds}


def call(*words: object) -> None:
    """`llm-jax WORDS`, which must succeed."""
    subprocess.run([sys.executable, "-m", "llm_jax", *map(str, words)], check=True)


def said(record: dict[str, object]) -> None:
    """Prints a line of JSON."""
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
