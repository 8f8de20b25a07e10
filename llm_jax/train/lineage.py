"""The lineage of a run at any of its steps, from its history and the provenance of its datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_jax.config import RunConfig, UserError, read_config, read_dataset_info, require
from llm_jax.config.dataset_info import INTERNAL
from llm_jax.runs.history import History, Text, read_history
from llm_jax.runs.lineage import DEEPEST, FORMAT, UNKNOWN, Lineage, ancestors, saved_lineage
from llm_jax.runs.rollbacks import read_rollbacks
from llm_jax.train.course import Segment, segments
from llm_jax.train.shares import segment_tokens


class Ancestry:
    """Gives the lineage after any step.

    Args:
      made: the segments of the run.
      texts: `texts` of a lineage, as far as they are known.
      began: `began` of a lineage.
    """

    def __init__(
        self,
        name: str,
        history: History,
        made: list[Segment],
        texts: dict[str, Any],
        began: dict[str, Any] | None,
    ) -> None:
        self._name, self._history, self._segments, self._began = name, history, made, began
        used = [part for one in made for part in one.text.parts]
        self._texts = {
            part.fingerprint: texts.get(part.fingerprint) or _undescribed(part) for part in used
        }

    def at(self, step: int) -> Lineage:
        """The lineage when `step` steps are done."""
        stages = [_stage(one, min(one.end, step)) for one in self._segments if one.first < step]
        read = {read["text"] for stage in stages for read in stage["read"]}
        branches = [
            entry.branch for entry in self._history.entries if entry.branch and entry.step <= step
        ]
        return {
            "format": FORMAT,
            "run": self._name,
            "step": step,
            "tokens": self._history.tokens(step),
            "stages": stages,
            "texts": {digest: one for digest, one in self._texts.items() if digest in read},
            "began": self._began,
            "branches": branches,
        }


def _stage(segment: Segment, end: int) -> dict[str, Any]:
    order = segment.reading.orders[0]
    tokens = segment_tokens(segment, segment.first, end)
    rows = zip(segment.places(segment.first), segment.places(end), strict=True)
    return {
        "run": segment.entry.config["name"],
        "stage": segment.portion + 1,
        "first": segment.first,
        "end": end,
        "read": [
            {
                "text": part.fingerprint,
                "tokens": count,
                "rows": [int(a), int(b)],
                "seed": order.seed,
                "seq_len": order.seq_len,
            }
            for part, count, (a, b) in zip(segment.text.parts, tokens, rows, strict=True)
            if count
        ],
    }


def described(name: str, path: str, info: dict[str, Any], tokens: int) -> dict[str, Any]:
    """What a lineage says of a text, from the `dataset.json` in `path`."""
    sources = [
        {
            "name": source["name"],
            "licence": source["licence"] or UNKNOWN,
            "class": source["class"],
            "documents": source["documents"],
            "tokens": source["tokens"],
        }
        for source in info["sources"]
    ]
    return {"name": name or Path(path).name, "path": path, "tokens": tokens, "sources": sources}


def _undescribed(text: Text) -> dict[str, Any]:
    """A text whose dataset is gone."""
    source = {"name": UNKNOWN, "licence": UNKNOWN, "class": INTERNAL} | dict.fromkeys(
        ("documents", "tokens")
    )
    return {"name": text.name or UNKNOWN, "path": None, "tokens": text.tokens, "sources": [source]}


def began_with(parent: dict[str, Any] | None) -> dict[str, Any] | None:
    """`began` of a run whose history has this `parent`."""
    if parent is None:
        return None
    kind = parent.get("kind", "run")
    known = {name: parent[name] for name in ("run", "name", "step")}
    began = {"kind": kind, **known, "licence": parent.get("licence"), "lineage": None}
    folder = Path(parent["run"])
    if kind == "run" and (folder / "run.json").is_file():
        lineage = lineage_at(folder, parent["step"])
        require(
            sum(1 for _ in ancestors(lineage)) < DEEPEST,
            f"{DEEPEST} runs began with one another's weights: begin with an imported model "
            "(llm-jax export, then import).",
        )
        began["lineage"] = lineage
    return began


def lineage_at(folder: Path, step: int, config: RunConfig | None = None) -> Lineage:
    """The lineage of checkpoint `step` of a run: what it carries, or what the run's history says.

    Args:
      config: of the run; None: as its folder has it.

    Raises:
      UserError: a file of the run is damaged.
    """
    if saved := saved_lineage(folder, step):
        return saved
    config = config or read_config(folder / "run.json", RunConfig)
    history = read_history(folder, config)
    texts = _found_texts(config)
    text = history.entries[-1].text
    if text is None:  # before texts were noted, or imported weights that were never trained
        known = [Text(digest, one["tokens"]) for digest, one in texts.items()]
        text = known[0] if known else Text(UNKNOWN, config.data.seq_len + 1)
    steps = max(config.steps, history.entries[-1].step)
    made = list(segments(history, read_rollbacks(folder), text, steps))
    return Ancestry(config.name, history, made, texts, began_with(history.parent)).at(step)


def _found_texts(config: RunConfig) -> dict[str, Any]:
    """The texts in the config's dataset folders, as far as they can be read."""
    found = {}
    for name, path in config.data.folders.items():
        try:
            info = read_dataset_info(path)
        except UserError:
            continue
        tokens = info["splits"]["train"]["tokens"]
        found[info["fingerprint"]] = described(name, path, info, tokens)
    return found
