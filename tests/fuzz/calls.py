"""Calls of every verb: valid ones, and what is done to them.

The flags come from the verbs' own parsers, and the fields of a run from `RunConfig`, so that a new
one is tried without being named here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import hostile
from hostile import Damage, Strategy
from hypothesis import strategies as st

from llm_jax.cli import VERBS, parser_of
from llm_jax.config import RunConfig

Words = tuple[str, ...]

VALID: dict[str, tuple[Words, ...]] = {
    "plan": (
        ("--flops", "1e19", "--write", "made/run.json", "--report", "made/plan.html"),
        ("--usd", "500", "--chip", "v5e", "--law", "law.json", "--data", "dataset"),
        ("--flops", "1e19", "--law-only", "--law", "law.json"),
        ("--deadline-hours", "10", "--chips", "8", "--params", "100M", "--family", "qwen"),
        ("--usd", "1k:10k", "--chip", "v5e-64", "--pricing", "spot", "--report", "made/plan.html"),
        ("--config", "run", "--tokens", "1B", "--chip", "8xh100", "--extend", "1024",
         "--extend-tokens", "1M", "--write", "made/run.json"),
        ("--from", "run", "--tokens", "1B", "--source", "a=1B:0.5", "--source", "b=2B:0.5"),
    ),
    "fit": (
        ("runs.csv", "--out", "made/law.json", "--bootstraps", "10"),
        ("runs.csv", "run", "--out", "made/law.json", "--bootstraps", "10"),
        ("runs.csv", "--move", "law.json", "--out", "made/law.json"),
    ),
    "ladder": (
        ("--data", "dataset", "--flops", "1e11", "--chip", "v5e", "--out", "made"),
        ("--mixture", "law.json", "--flops", "1e11", "--chip", "v5e", "--out", "made"),
    ),
    "report": (("run",), ("run", "--out", "made")),
    "tokenizer train": (
        ("--input", "texts", "--vocab-size", "300", "--character-coverage", "0.98",
         "--out", "made/tokenizer.model"),
    ),
    "tokenizer extend": (
        ("run", "made", "--add", "5", "--input", "texts"),
        ("run", "made", "--add", "5", "--input", "texts", "--sample-bytes", "200"),
    ),
    "tokenizer encode": (("--tokenizer", "tokenizer.model", "a cat"),
                         ("--tokenizer", "tokenizer.model")),
    "tokenizer decode": (("--tokenizer", "tokenizer.model", "265", "266"),
                         ("--tokenizer", "tokenizer.model")),
    "data build": (
        ("--input", "texts", "--tokenizer", "tokenizer.model", "--out", "made"),
        ("--input", "texts/a.txt", "texts/b.jsonl", "--vocab-size", "300", "--out", "made",
         "--workers", "2"),
        ("--input", "texts", "--tokenizer", "tokenizer.model", "--out", "dataset", "--overwrite"),
        ("--input", "texts/b.jsonl,text_key={text},class=public,metadata=id", "--metadata", "url",
         "--tokenizer", "tokenizer.model", "--class", "restricted", "--out", "made"),
    ),
    "data curate": (
        ("--input", "texts", "--recipe", "code", "--out", "made"),
        ("--input", "texts/b.jsonl", "--recipe", "none", "--out", "made", "--workers", "1",
         "--tokenizer", "tokenizer.model"),
        ("--recipe", "code", "--out", "made", "--backend", "slurm", "--partition", "p", "--setup",
         ". activate", "--memory", "2G", "--dry-run"),
    ),
    "data classifier": (
        ("--good", "texts", "--bad", "texts/b.jsonl", "--out", "made/quality.safetensors"),
    ),
    "data label": (
        ("--input", "labelled.jsonl", "--tokenizer", "tokenizer.model", "--out", "made"),
        ("--input", "labelled.jsonl", "--tokenizer", "tokenizer.model", "--out", "made",
         "--validation", "labelled.jsonl", "--length", "32", "--overwrite"),
    ),
    "data inspect": (("dataset",), ("dataset", "--split", "validation", "--samples", "2")),
    "data mix": (
        ("a=dataset", "--tokens", "1M", "--max-epochs", "1000", "--write", "made/mixture.json"),
        ("a=dataset", "--tokens", "1M", "--method", "temperature"),
        ("a=dataset", "b=./dataset", "--tokens", "1k", "--method", "regmix", "--flops", "1e9",
         "--chip", "v5e", "--out", "made"),
    ),
    "preflight": (("run.json", "--topology", "v5p-3"), ("planned.json",),
                  ("run.json", "--topology", "v5e-16", "--serve", "--slots", "4")),
    "train": (
        ("run/run.json",),
        ("run.json", "--data.path", "nowhere", "--out", "made"),
        ("run.json", "--data.path", "texts", "--out", "made"),
    ),
    "eval": (
        ("run", "--text", "texts"),
        ("run",),
        ("run", "--ngram", "2"),
        ("run", "--tasks", "copying_en", "truth_ja", "--few-shot", "1", "--limit", "2", "--keep",
         "--samples", "--seed", "1"),
    ),
    "emergence": (("run", "--out", "made.html"),),
    "lineage": (("run",),),
    "generate": (
        ("run", "--prompt", "a cat", "--max-tokens", "3"),
        ("run", "--prompt-file", "texts/a.txt", "--max-tokens", "2", "--temperature", "0"),
        ("run", "--prompt", "a", "--max-tokens", "3", "--stop", "cat", "--samples", "2",
         "--repetition-penalty", "1.2", "--logit-bias", "5=-100", "--log-probs", "2", "--keep"),
        ("run", "--max-tokens", "3", "--schema", "schema.json", "--tensor", "1"),
        ("run", "--max-tokens", "3", "--regex", "[a-c]+", "--presence-penalty", "0.5"),
        ("run", "--prompt", "a", "--max-tokens", "3", "--draft", "run@2", "--speculate", "2"),
        ("run", "--max-tokens", "3", "--draft", "hf", "--tensor", "2"),
        ("hf", "--prompt", "a", "--max-tokens", "3", "--draft", "run@2", "--log-probs"),
    ),
    "serve": (
        ("run", "late=run@2", "--port", "0", "--chat-template", "texts/a.txt", "--dry-run"),
        ("hf", "--port", "0", "--api-key-file", "run.json", "--slots", "2", "--weights", "int8",
         "--dry-run"),
    ),
    "predict": (("run", "a cat"), ("hf", "a cat", "--input", "labelled.jsonl")),
    "embed": (
        ("run", "a", "cat"),
        ("run", "a", "cat", "b", "--analogy", "--neighbours", "2"),
        ("hf", "a cat", "--hidden", "--out", "made.npy"),
    ),
    "export": (("run", "--to", "hf", "made", "--no-check"),
               ("run", "--to", "gguf", "made.gguf", "--no-check", "--dtype", "q8_0"),
               ("run", "--to", "word2vec", "made")),
    "import": (("hf", "made", "--no-check"),
               ("hf", "made", "--tokenizer", "tokenizer.model", "--no-check")),
    "launch run": (
        ("run.json", "--out", "made", "--accelerator", "cpu-2", "--dry-run"),
        ("--spec", "job.json", "--dry-run"),
        ("--init", "run@2", "--out", "made", "--dry-run"),
        ("planned.json", "--out", "gs://bucket/x", "--accelerator", "v5p-8", "--backend", "tpu",
         "--project", "p", "--zone", "us-east5-a", "--image", "x@sha256:" + "0" * 64, "--dry-run"),
        ("run.json", "--out", "made", "--accelerator", "h100-8", "--backend", "slurm",
         "--dry-run"),
        ("run.json", "--out", "gs://bucket/x", "--accelerator", "v5p-8", "--backend", "gke",
         "--image", "x@sha256:" + "0" * 64, "--manifest", "--dry-run"),
        ("data", "curate", "--input", "texts", "--recipe", "code", "--out", "made", "--backend",
         "slurm", "--account", "a", "--time-limit", "1:00:00", "--dry-run"),
    ),
    "launch preflight": (
        ("run.json", "--out", "gs://bucket/x", "--accelerator", "v5p-8", "--backend", "gke",
         "--image", "x@sha256:" + "0" * 64),
    ),
    "launch status": (("job",),),
    "launch logs": (("job",), ("job", "--host", "1", "--tail", "2")),
    "launch stop": (("job",),),
    "launch list": ((".",), ("--backend", "slurm"), ("job",)),
}  # fmt: skip
"""Of each verb. Those of `train` and `preflight` are refused late, as compiling takes seconds."""

ENTRIES = (
    "dataset", "hf", "job", "job.json", "labelled.jsonl", "law.json", "planned.json", "run",
    "run.json", "runs.csv", "texts", "tokenizer.model",
)  # fmt: skip
"""Of the world (world.py): what a valid call may name."""
NEEDS = {
    "run": ("dataset",),
    "run.json": ("dataset",),
    ".": ("job", "run"),
    "job.json": ("run.json",),
}
"""What belongs to an entry."""
LEFT_OUT = {
    "remeasure": "takes all cores for seconds",
    "follow": "ends with the job",
    "watch": "ends with the job",
    "detach": "leaves a process",
    "no_check": "without it, torch is loaded for seconds",
    "run_tasks_with": "starts whatever it names",
    "dry_run": "without it, processes are started, or `serve` waits for clients",
    "ray_address": "is asked for ten seconds",
    "verify": "compiles for a TPU",
    "fix": "compiles for a TPU",
    "search": "compiles for a TPU",
    "stdlib": "reads 20 MB",
    "help": "is tested elsewhere",
}
"""Flags that are not changed, and why."""
OUTPUTS = ("out", "write", "report", "figure")
"""Flags whose value is written to."""


@dataclass(frozen=True)
class Call:
    """One try."""

    verb: str
    words: Words
    damages: tuple[Damage, ...] = ()
    stdin: bytes = b""

    @property
    def argv(self) -> list[str]:
        return [*self.verb.split(), *self.words]

    @property
    def entries(self) -> set[str]:
        """Of the world, those that must be there."""
        named = {word.split("/")[0] or "." for word in self.words}
        named |= {damage.file.split("/")[0] for damage in self.damages}
        return named | {one for name in named for one in NEEDS.get(name, ())}


def calls(verb: str, files: dict[str, list[str]]) -> Strategy[Call]:
    """Calls with one to three things wrong; `files` are the world's, by entry."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Call:
        words = draw(st.sampled_from(VALID[verb]))
        damaged: tuple[Damage, ...] = ()
        for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
            kinds = [changed_words(verb, words)]
            named = [entry for entry in Call(verb, words).entries if entry in files]
            if named:
                kinds += [damages_of(sorted(named), files)] * 2
            change = draw(st.one_of(kinds))
            if isinstance(change, Damage):
                damaged += (change,)
            else:
                words = change
        if draw(st.booleans()) and "--json" not in words:
            words = (*words, "--json")
        stdin = draw(st.sampled_from((b"", b"3 4 5", b"\xff\xfe", b"9" * 5000, b"a\0b\n")))
        return Call(verb, words, damaged, stdin)

    return drawn()


def damages_of(entries: list[str], files: dict[str, list[str]]) -> Strategy[Damage]:
    known = [file for entry in entries for file in files[entry]]
    folders = sorted({str(Path(file).parent) for file in known} - {"."})
    changed = st.sampled_from(known).flatmap(hostile.damages)
    if not folders:
        return changed
    return st.one_of(changed, changed, changed, st.sampled_from(folders).flatmap(hostile.strays))


def changed_words(verb: str, words: Words) -> Strategy[Words]:
    """`words` with a flag added, a word replaced, left out or there twice."""
    flags = flags_of(verb)
    kept = {f"--{name.replace('_', '-')}" for name in LEFT_OUT}
    free = [i for i, word in enumerate(words) if word not in kept]
    added = st.sampled_from(flags).flatmap(lambda flag: flag.words()).map(lambda new: words + new)
    unknown = st.sampled_from(("--nonsense", "--jsn", "-z", "--out=", "--", "--=3")).map(
        lambda word: (*words, word)
    )
    kinds = [added, added, added, unknown]
    if free:
        place = st.sampled_from(free)
        kinds += [
            place.flatmap(lambda i: _replaced(words, i)),
            place.flatmap(lambda i: _replaced(words, i)),
            place.map(lambda i: words[:i] + words[i + 1 :]),
            place.map(lambda i: (*words[: i + 1], *words[i:])),
        ]
    return st.one_of(kinds)


def _replaced(words: Words, place: int) -> Strategy[Words]:
    new = st.one_of(hostile.numbers(), hostile.words(), hostile.paths(), st.sampled_from(ENTRIES))
    return new.map(lambda word: (*words[:place], word, *words[place + 1 :]))


@dataclass(frozen=True)
class Flag:
    """A flag, or a positional argument (`name` is empty), and what its values look like."""

    name: str
    values: Any
    takes: int | str | None

    def words(self) -> Strategy[Words]:
        """The flag with hostile values."""
        head = (self.name,) if self.name else ()
        if self.takes == 0:
            return st.just(head)
        most = self.takes if isinstance(self.takes, int) else 1 if self.takes is None else 3
        least = most if isinstance(self.takes, int | None) else 0
        given = st.lists(self.values, min_size=least, max_size=most).map(tuple)
        joined = self.values.map(lambda value: (f"{self.name}={value}",))
        whole = given.map(lambda values: head + values)
        return st.one_of(whole, whole, whole, joined) if self.name and most == 1 else whole


def flags_of(verb: str) -> list[Flag]:
    """All of a verb, and the fields of a run where each of them is a flag."""
    module, parser = parser_of(verb)
    found = [
        Flag(next((o for o in action.option_strings if o.startswith("--")), ""), _values(action),
             action.nargs)
        for action in parser._actions
        if action.dest not in LEFT_OUT
    ]  # fmt: skip
    if getattr(module, "OVERRIDES", False):
        found += [Flag(name, st.one_of(hostile.numbers(), hostile.words()), None)
                  for name in field_flags(RunConfig)]  # fmt: skip
    return found


def _values(action: argparse.Action) -> Strategy[str]:
    if action.choices:
        return st.one_of(st.sampled_from(sorted(action.choices)), hostile.words())
    if action.type in (None, Path, str):
        known = st.sampled_from(ENTRIES)
        return st.one_of(hostile.paths(), hostile.words(), known, hostile.numbers())
    return st.one_of(hostile.numbers(), hostile.numbers(), hostile.words())


def field_flags(cls: type, prefix: str = "--") -> list[str]:
    """Flags of the scalar fields of a config class and of the classes in it."""
    import typing

    hints = typing.get_type_hints(cls)
    found = []
    for item in fields(cls):  # type: ignore[arg-type]
        name = prefix + item.name.replace("_", "-")
        options = [hints[item.name], *typing.get_args(hints[item.name])]
        inner = [option for option in options if is_dataclass(option)]
        found += [flag for one in inner for flag in field_flags(one, name + ".")] or [name]  # type: ignore[arg-type]
    return found


assert set(VALID) == set(VERBS), "every verb has a valid call"
