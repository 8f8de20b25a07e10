"""What a run has read, and what was changed on its way: `<out>/history.jsonl`.

The first line is the beginning; each start that changed something adds a line. A line holds `time`,
`step`, what had been read by then (`sequences`, `tokens`), `changed` (field: [old, new]), the
`effect` in words, the `text` that is read from here on, the `config` in force from here on, and the
`parent` whose weights the run began with. A line takes back the lines of its step and after: the
run had gone back to before them.

From these lines follows what any step reads, without replaying the steps before.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_jax.config import DataConfig, RunConfig, UserError, from_dict, require_shape, to_dict
from llm_jax.runs.files import write_text
from llm_jax.runs.json_lines import read_records

FILE = "history.jsonl"

SAME_TRAINING = (
    *("run.log_every", "run.wandb", "run.profile", "run.checkpoint.", "run.eval.", "run.parallel."),
    *("run.compute.remat", "run.compute.scan_layers", "run.compute.loss_chunk"),
    *("run.compute.attention", "run.compute.compiler", "run.compute.accumulate", "run.data.path"),
    "run.data.mixture.sources",
)
"""Beginnings of the fields that change no more of what is learned than how sums are rounded."""


@dataclass(frozen=True)
class Text:
    """The training split of a dataset: its `fingerprint`, and the `tokens` of its stream.

    That of a mixture has `sources`, their tokens in all, and a digest of their fingerprints.
    """

    fingerprint: str
    tokens: int
    sources: tuple[Text, ...] = ()
    name: str = ""
    """Of a source of a mixture."""

    @property
    def parts(self) -> tuple[Text, ...]:
        """The datasets that are read; one if it is not a mixture."""
        return self.sources or (self,)


def mixed_text(parts: Sequence[Text]) -> Text:
    """The text of all `parts` together; a single one without a name is itself."""
    if len(parts) == 1 and not parts[0].name:
        return parts[0]
    digest = hashlib.sha256(" ".join(part.fingerprint for part in parts).encode()).hexdigest()
    return Text(digest, sum(part.tokens for part in parts), tuple(parts))


@dataclass(frozen=True)
class Entry:
    """One line of the file."""

    step: int
    config: dict[str, Any]
    """In force from `step` on."""
    text: Text | None = None
    """None in runs that were started before the text was noted."""
    time: float = 0.0
    sequences: int = 0
    tokens: int = 0
    """Read when `step` steps were done, in this run."""
    changed: dict[str, list[Any]] | None = None
    """Field: [old, new]; None in the first line."""
    effect: str = "the beginning"
    parent: dict[str, Any] | None = None
    """`run`, `name` and `step` of the checkpoint whose weights the run began with."""
    branch: dict[str, Any] | None = None
    """`run`, `name` and `step` of the checkpoint that the run went on from as a branch; then the
    lines before are those of that run."""

    @property
    def learns(self) -> bool:
        """Whether it changed what the run learns."""
        return any(not name.startswith(SAME_TRAINING) for name in self.changed or ())

    @property
    def steps(self) -> int:
        """Of the run, by the config in force."""
        return self.config["steps"]

    @property
    def fingerprint(self) -> str | None:
        """Of the text that is read from here on, as a law of it has it (`Recipe.fingerprint`)."""
        if self.text is None:
            return None
        if self.data.mixture is None:
            return self.text.fingerprint
        return self.data.mixture.fingerprint({p.name: p.fingerprint for p in self.text.parts})

    @functools.cached_property
    def data(self) -> DataConfig:
        return from_dict(self.config["data"], DataConfig, "history.config.data")


@dataclass(frozen=True)
class History:
    """The lines in force, in the order of their steps; the first is of step 0."""

    entries: tuple[Entry, ...]

    @property
    def parent(self) -> dict[str, Any] | None:
        return self.entries[-1].parent

    @property
    def branch(self) -> dict[str, Any] | None:
        """The newest branching, None if the run is not a branch."""
        return next((e.branch for e in reversed(self.entries) if e.branch), None)

    def sequences(self, step: int) -> int:
        """Sequences that the first `step` steps read."""
        return sum(number for number, _ in self._read(step))

    def tokens(self, step: int) -> int:
        """Tokens that the first `step` steps read."""
        return sum(number * length for number, length in self._read(step))

    def step_tokens(self, step: int) -> int:
        """Tokens that step number `step`, counted from 1, reads."""
        return self.tokens(step) - self.tokens(step - 1)

    def _read(self, step: int) -> list[tuple[int, int]]:
        """(sequences, their length) that each entry's steps up to `step` read."""
        found = []
        ends = [entry.step for entry in self.entries[1:]] + [step]
        for entry, end in zip(self.entries, ends, strict=True):
            data, last = entry.data, max(entry.step, min(end, step))
            found.append((data.sequences(last) - data.sequences(entry.step), data.seq_len))
        return found

    def at(self, step: int) -> Entry:
        """The line in force when `step` steps are done."""
        return [entry for entry in self.entries if entry.step <= step][-1]

    def followed_by(self, entry: Entry) -> History:
        """This history with one more line."""
        kept = tuple(one for one in self.entries if one.step < entry.step)
        return History((*kept, entry))

    def standing(self, step: int) -> dict[str, Any]:
        """What the run has read after `step` steps, as its checkpoint's record keeps it."""
        text = self.at(step).text
        return {
            "sequences": self.sequences(step),
            "tokens": self.tokens(step),
            "fingerprint": text and text.fingerprint,
        }


TEXT = {"fingerprint": str, "tokens": int, "name": (str,)}
BEGAN = {"run": str, "name": str, "step": int}
SHAPE: dict[str, Any] = {
    "step": int,
    "config": {"data": dict, "steps": int},
    "text": (TEXT | {"sources": ([TEXT],)},),
    "time": float,
    "sequences": int,
    "tokens": int,
    "changed": ({str: list},),
    "effect": str,
    "parent": (BEGAN,),
    "branch": (BEGAN,),
}
"""Of a line."""


def beginning(
    config: RunConfig, text: Text | None, parent: dict[str, Any] | None = None
) -> History:
    """The history of a run that begins."""
    return History((Entry(0, to_dict(config), text, time.time(), parent=parent),))


def read_history(out: Path, config: RunConfig) -> History:
    """The history in the run folder `out`; of a run without one, that `config` was never changed.

    Raises:
      UserError: a line cannot be read.
    """
    if not (out / FILE).is_file():
        return History((Entry(0, to_dict(config)),))
    history = History(())
    for where, held in read_records(out / FILE, whole=True):
        try:
            require_shape(held, SHAPE)
            text = held.get("text") and _text_from(held["text"])
            then = to_dict(from_dict(held["config"], RunConfig, "config"))
            entry = Entry(**(held | {"text": text, "config": then}))
            history = history.followed_by(entry)
        except (UserError, TypeError) as error:
            raise UserError(
                f"{where} is not a line of a run's history ({error}): restore the file."
            ) from None
    if not history.entries or history.entries[0].step != 0:
        raise UserError(f"{out / FILE} does not begin with step 0: restore the file.")
    return history


def append(out: Path, entry: Entry) -> None:
    """Adds a line to the history in `out`; the first line creates the file."""
    file = out / FILE
    before = file.read_text(encoding="utf-8") if entry.changed is not None else ""
    write_text(file, f"{before}{to_line(entry)}\n")


def to_line(entry: Entry) -> str:
    """The JSON of a line, without what a run of one dataset does not have."""
    held = asdict(entry)
    held["text"] = entry.text and _text_as_dict(entry.text)
    if entry.branch is None:
        del held["branch"]
    held |= {"config": held.pop("config")}  # the longest comes last
    return json.dumps(held, ensure_ascii=False)


def _text_as_dict(text: Text) -> dict[str, Any]:
    held: dict[str, Any] = {"fingerprint": text.fingerprint, "tokens": text.tokens}
    if text.name:
        held["name"] = text.name
    return held | ({"sources": [*map(_text_as_dict, text.sources)]} if text.sources else {})


def _text_from(held: dict[str, Any]) -> Text:
    return Text(**(held | {"sources": tuple(map(_text_from, held.get("sources", ())))}))
