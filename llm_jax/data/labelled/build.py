"""Builds a folder of labelled examples: encoded, cut, held out, counted."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.config import INFO_FILE, UserError, read_dataset_info
from llm_jax.config.dataset_info import DATASET_FORMAT, INTERNAL, Class
from llm_jax.config.heads import MOST_LABELS, NAMED, Head
from llm_jax.config.wording import counted
from llm_jax.data.batch import Rows
from llm_jax.data.labelled.dataset import FOLDER, stream_tokens
from llm_jax.data.labelled.records import Example, read_examples
from llm_jax.data.labelled.rows import Encoded, cut, encode, fill
from llm_jax.data.labelled.split import two_parts
from llm_jax.data.made_before import same_or_replaceable
from llm_jax.data.sources.left_out import MOST_LEFT_OUT, LeftOut, Unusable
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.runs.claim import only_writer
from llm_jax.runs.files import new_folder

DEFAULT_LENGTH = 512
"""Longest row that is chosen where none is asked for."""
MOST_LENGTH = 1 << 20
LEFT_OUT_FILE = "left_out.jsonl"


@dataclass(frozen=True, kw_only=True)
class LabelSpec:
    """What decides a folder of examples.

    Attributes:
      inputs: files of examples.
      held_out: files of held-out examples; none: a share of `inputs`.
      length: tokens of a row; None: those of the longest example, at most 512.
      fraction: share to hold out, chosen by a hash of the texts.
    """

    inputs: tuple[Path, ...]
    held_out: tuple[Path, ...] = ()
    tokenizer: Tokenizer
    length: int | None = None
    fraction: float = 0.1
    licence: str = "unknown"
    class_: Class = INTERNAL
    max_left_out: float = MOST_LEFT_OUT

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise UserError(
                f"--validation-fraction is {self.fraction}: give a share above 0 and below 1."
            )
        if self.length is not None and not 8 <= self.length <= MOST_LENGTH:
            raise UserError(f"--length is {self.length}: give 8 to {MOST_LENGTH:,} tokens.")


def build_examples(
    spec: LabelSpec, out: Path, progress: Callable[[str, int, int | None], None], overwrite: bool
) -> tuple[dict[str, Any], bool]:
    """Writes the examples of `spec` into the folder `out`.

    Returns:
      The content of dataset.json, and whether it had been built before.

    Raises:
      UserError: no example can be used, too many are left out, or `out` holds something else.
    """
    with only_writer(out, "llm-jax data label"):
        left_out = LeftOut(most=spec.max_left_out)
        progress("reading", 0, None)
        kind, given = read_examples(spec.inputs, left_out)
        splits = {"train": given}
        if spec.held_out:
            _, splits["validation"] = read_examples(spec.held_out, left_out, kind)
        else:
            splits = two_parts(given, spec.fraction)
        if kind == "embed":
            _require_scores_of_all([example for part in splits.values() for example in part])
        labels = _labels(kind, splits["train"])
        made = {name: _encoded(part, kind, labels, spec, left_out, progress)
                for name, part in splits.items()}  # fmt: skip
        longest = max(one.size for part in made.values() for one in part)
        length = spec.length or min(-(-longest // 8) * 8, DEFAULT_LENGTH)
        cuts = {name: _cut(part, kind, length, left_out) for name, part in made.items()}
        for name, part in cuts.items():
            if not part:
                raise UserError(f"No {name} example is left: give more, or a longer --length.")
        left_out.check(sum(map(len, cuts.values())))
        rows = {
            name: fill(part, kind, length, labels, spec.tokenizer) for name, part in cuts.items()
        }
        info = _info(spec, kind, length, labels, cuts, rows, left_out)
        if (before := _before(out, info["fingerprint"], spec, overwrite)) is not None:
            return before, True
        with new_folder(out, replace=overwrite) as folder:
            (folder / FOLDER).mkdir()
            for name, array in _files(rows).items():
                np.save(folder / FOLDER / name, array, allow_pickle=False)
                content = (folder / FOLDER / name).read_bytes()
                info["examples"]["files"][name] = {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "bytes": len(content),
                }
            spec.tokenizer.save(folder)
            left_out.write(folder / LEFT_OUT_FILE)
            text = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
            (folder / INFO_FILE).write_text(text, encoding="utf-8")
    return info, False


def _before(out: Path, fingerprint: str, spec: LabelSpec, overwrite: bool) -> dict[str, Any] | None:
    """The dataset.json in `out` if its fingerprint is the same; None if `out` may be written."""
    if out.exists() and not (out / INFO_FILE).is_file():
        if not out.is_dir() or any(out.iterdir()):
            raise UserError(f"--out {str(out)!r} exists and is not a dataset: choose another.")
        return None
    if not out.exists():
        return None
    return same_or_replaceable(
        out,
        read_dataset_info(out),
        fingerprint,
        what="a dataset",
        strict=False,
        most=spec.max_left_out,
        overwrite=overwrite,
    )


def _require_scores_of_all(examples: Sequence[Example]) -> None:
    scored = sum(example.target is not None for example in examples)
    if 0 < scored < len(examples):
        raise UserError(
            f"Of {len(examples):,} pairs, {scored:,} have a score: give one to all, or to none."
        )


def _labels(kind: Head, examples: Sequence[Example]) -> tuple[str, ...]:
    """The labels of the train split: numbers in their order, else by their spelling."""
    if kind not in NAMED:
        return ()
    found = {
        name
        for example in examples
        for name in ([example.target] if kind == "classify" else example.target)
    }
    numbers = all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in found)
    labels = sorted(found, key=lambda name: (int(name) if numbers else 0, name))
    if not 2 <= len(labels) <= MOST_LABELS:
        raise UserError(
            f"The examples have {counted(len(labels), 'label')} ({', '.join(labels[:3])}): give 2 "
            f"to {MOST_LABELS:,}."
        )
    return tuple(labels)


def _encoded(
    examples: Sequence[Example],
    kind: Head,
    labels: Sequence[str],
    spec: LabelSpec,
    left_out: LeftOut,
    progress: Callable[[str, int, int | None], None],
) -> list[Encoded]:
    known, found = {*labels}, list[Encoded]()
    for number, example in enumerate(examples):
        if number % 1000 == 0:
            progress("encoding", number, len(examples))
        targets = {"classify": [example.target], "tag": example.target}.get(kind, ())
        try:
            if not known.issuperset(targets):
                raise Unusable("label that no train example has")
            found.append(encode(example, kind, spec.tokenizer))
        except Unusable as error:
            left_out.lose(error.reason, "examples", None, error.detail)
    if not found:
        raise UserError("No example can be encoded: check the texts and the tokenizer.")
    return found


def _cut(made: Sequence[Encoded], kind: Head, length: int, left_out: LeftOut) -> list[Encoded]:
    found = []
    for one in made:
        try:
            found.append(cut(one, kind, length))
        except Unusable as error:
            left_out.lose(error.reason, "examples", None, error.detail)
    return found


def _files(rows: dict[str, Rows]) -> dict[str, np.ndarray]:
    """Name of a file → its array; ids are stored in as few bytes as they need."""
    found = {}
    for split, arrays in rows.items():
        for name, array in arrays.items():
            small = name.endswith("inputs") and array.max(initial=0) < 1 << 16
            found[f"{split}-{name}.npy"] = array.astype(np.uint16) if small else array
    return found


def _info(
    spec: LabelSpec,
    kind: Head,
    length: int,
    labels: tuple[str, ...],
    examples: dict[str, list[Encoded]],
    rows: dict[str, Rows],
    left_out: LeftOut,
) -> dict[str, Any]:
    settings = [kind, length, labels, spec.licence, spec.class_]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(spec.tokenizer.sha256.encode())
    for name, array in _files(rows).items():
        digest.update(name.encode() + array.tobytes())
    files = [_file(path) for path in (*spec.inputs, *spec.held_out)]
    splits = {
        name: {
            "documents": len(part),
            "tokens": stream_tokens(len(part), length),
            "bytes": _bytes(rows[name], spec.tokenizer),
        }
        for name, part in examples.items()
    }
    counts = {
        "tokens": sum(one["tokens"] for one in splits.values()),
        "bytes": sum(one["bytes"] for one in splits.values()),
    }
    used, dropped = sum(map(len, examples.values())), left_out.dropped()
    source = {
        "name": ", ".join(str(path) for path in spec.inputs),
        "input": str(spec.inputs[0]),
        "encoding": "utf-8",
        "licence": spec.licence,
        "class": spec.class_,
        "files": files,
        "documents": used,
        **counts,
    }
    every = [one for part in examples.values() for one in part]
    return {
        "format": DATASET_FORMAT,
        "examples": {
            "kind": kind,
            "length": length,
            "labels": list(labels),
            "scored": kind == "embed" and not bool(np.isnan(rows["train"]["scores"]).any()),
            "cut": sum(one.was_cut for one in every),
            "words_without_a_token": sum(one.lost_words for one in every),
            "files": {},
        },
        "sources": [source],
        "documents": {"in": used + sum(dropped.values()), "out": used},
        "dropped": dropped,
        "lost": left_out.summary(used),
        "licences": {spec.licence: used},
        "split_by": "file" if spec.held_out else "text",
        "splits": splits,
        **counts,
        "text_bytes": counts["bytes"],
        "tokenizer_sha256": spec.tokenizer.sha256,
        "vocab_size": spec.tokenizer.vocab_size,
        "record_tokens": length,
        "fingerprint": digest.hexdigest(),
    }


def _bytes(rows: Rows, tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of the text in the rows."""
    names = [name for name in rows if name.endswith("inputs")]
    return sum(int(tokenizer.token_bytes[rows[name]].sum(dtype=np.int64)) for name in names)


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": str(path), "sha256": digest, "bytes": path.stat().st_size}
