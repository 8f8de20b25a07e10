"""Tasks in the JSON of llm-jp-eval: an instruction, solved examples, and samples to answer.

    {"instruction": "…", "output_length": 15, "metrics": ["exact_match", "char_f1"],
     "few_shots": [{"input": "…", "output": "…"}], "samples": [{"input": "…", "output": "…"}]}

`num_few_shots` (4 unless it is given), `answer_extract_pattern` (a regular expression whose first
group is the answer), `label_list`, `version` and `language` (`ja` unless it is given, or `en`) are
read too. The prompt is the one of that tool: instruction, input and response under headings. Other
metrics than these two need models or taggers: they are left out, and `left_out` names them; a file
with none of these two is refused.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_jax.config import UserError, read_json, require_shape
from llm_jax.evals.tasks.included import task_files
from llm_jax.evals.tasks.library import harness
from llm_jax.evals.tasks.versions import of_metadata

SHOTS, TOKENS = 4, 64
METRICS = ("exact_match", "char_f1")
PAIR = {"input": str, "output": str}
SHAPE = {"instruction": str, "samples": [PAIR]}
PROMPTS = {
    "ja": (
        "以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。"
        "要求を適切に満たす応答を書きなさい。\n\n### 指示:\n",
        "### 入力:\n",
        "### 応答:\n",
    ),
    "en": (
        "Here is a combination of instructions explaining the task and inputs with context. "
        "Please write a response that adequately meets the request.\n\n### Instruction:\n",
        "### Input:\n",
        "### Response:\n",
    ),
}
"""Language → what stands before the instruction, an input and its output in that tool."""


def tasks_in(folders: Sequence[Path]) -> dict[str, Path]:
    """Name → file of each task of this format. Other JSON files of a folder are left alone, such
    as the data of a task.

    Raises:
      UserError: two files have one name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in task_files(folder, ".json"):
            try:
                held = read_json(path)
            except UserError:
                if folder == path:
                    raise
                continue
            if not (isinstance(held, dict) and {"instruction", "samples"} <= held.keys()):
                if folder == path:
                    raise UserError(
                        f"--include {str(path)!r} is not a task of llm-jp-eval: it has no "
                        "'instruction' and 'samples'."
                    )
                continue
            if found.get(path.stem, path).resolve() != path.resolve():
                raise UserError(f"Two files of --include are called {path.name!r}: rename one.")
            found[path.stem] = path
    return found


def task(name: str, path: Path) -> Any:
    """The task in a file.

    Raises:
      UserError: the file lacks something, or wants a metric that we do not have.
    """
    import datasets

    held = _checked(path)
    shots, samples = held.get("few_shots", []), held["samples"]
    count = min(int(held.get("num_few_shots", SHOTS)), len(shots))
    metrics = [one for one in held.get("metrics", METRICS) if one in METRICS]

    def data(**_: Any) -> Any:
        made = {"test": datasets.Dataset.from_list([_pair(one) for one in samples])}
        if shots:
            made["shots"] = datasets.Dataset.from_list([_pair(one) for one in shots])
        return datasets.DatasetDict(made)

    beginning, asked, answered = PROMPTS[held.get("language", "ja")]
    heading = f"{beginning}{held['instruction']}\n\n"
    return harness().api.task.ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": data,
            "test_split": "test",
            "fewshot_split": "shots" if shots else None,
            # The first examples, in their order.
            "fewshot_config": {"sampler": "first_n"},
            "num_fewshot": count,
            "output_type": "generate_until",
            # Braces of an instruction are not a template.
            "description": f"{{{{ {json.dumps(heading, ensure_ascii=False)} }}}}",
            "doc_to_text": asked + "{{input}}\n\n" + answered,
            "doc_to_target": "output",
            "target_delimiter": "",
            "fewshot_delimiter": "\n\n",
            "generation_kwargs": {
                "until": ["\n\n", "###"],
                "max_gen_toks": int(held.get("output_length", TOKENS)),
            },
            "process_results": functools.partial(
                figures, metrics=tuple(metrics), pattern=held.get("answer_extract_pattern")
            ),
            "metric_list": [
                {"metric": one, "aggregation": "mean", "higher_is_better": True} for one in metrics
            ],
            "metadata": {"version": held.get("version"), "chance": _chance(held)},
        }
    )


def version(path: Path) -> str | None:
    """The version that a task file says; None if it says none.

    Raises:
      UserError: the file is not valid.
    """
    return of_metadata(_checked(path))


def left_out(name: str, path: Path) -> str | None:
    """A sentence about metrics of a task file that we do not have; None if it wants no others.

    Raises:
      UserError: the file is not valid.
    """
    others = [str(one) for one in _checked(path).get("metrics", ()) if one not in METRICS]
    if not others:
        return None
    return (
        f"Task {name!r}: {', '.join(others)} of its file {'is' if len(others) == 1 else 'are'} not "
        f"computed; of llm-jp-eval's metrics there are {' and '.join(METRICS)} here."
    )


def _pair(sample: dict[str, Any]) -> dict[str, str]:
    return {key: sample[key] for key in PAIR}


def _chance(held: dict[str, Any]) -> dict[str, float]:
    labels = held.get("label_list") or []
    return {"exact_match": 1 / len(labels)} if labels else {}


def _checked(path: Path) -> dict[str, Any]:
    held = read_json(path)
    try:
        require_shape(held, SHAPE)
        require_shape({"few_shots": held.get("few_shots", [])}, {"few_shots": [PAIR]})
    except UserError as error:
        raise UserError(f"The task file {str(path)!r} is not llm-jp-eval's ({error}).") from None
    if not held["samples"]:
        raise UserError(f"The task file {str(path)!r} has no samples.")
    if held.get("language", "ja") not in [*PROMPTS]:
        raise UserError(
            f"language of {str(path)!r} is {held['language']!r}: give one of {', '.join(PROMPTS)}."
        )
    wanted = held.get("metrics", list(METRICS))
    if not isinstance(wanted, list):
        raise UserError(f"metrics of {str(path)!r} is {wanted!r}: give a list of names.")
    if not any(one in METRICS for one in wanted):
        raise UserError(
            f"The task file {str(path)!r} wants {', '.join(map(str, wanted))}; we have "
            f"{' and '.join(METRICS)}: add one of them to its metrics."
        )
    pattern = held.get("answer_extract_pattern")
    if pattern is not None:
        try:
            groups = re.compile(pattern).groups
        except (re.error, TypeError) as error:
            groups, pattern = 0, f"{pattern} ({error})"
        if not groups:
            raise UserError(
                f"answer_extract_pattern of {str(path)!r} is {pattern!r}: give a regular "
                "expression with a group for the answer."
            )
    return dict(held)


def normalised(text: str) -> str:
    """Compatible forms of characters made one, without space around."""
    return unicodedata.normalize("NFKC", text).strip()


def char_f1(answer: str, right: str) -> float:
    """Share of characters that the two have in common, 2·common/(both lengths), in their order.

    Words, between which there are spaces or marks, are sorted first, as in the token_sort_ratio of
    fuzzywuzzy, which that tool calls (and which rounds to 0.01).
    """
    a, b = (" ".join(sorted(re.sub(r"\W", " ", one.lower()).split())) for one in (answer, right))
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def figures(
    doc: dict[str, Any], answers: list[str], *, metrics: tuple[str, ...], pattern: str | None
) -> dict[str, float]:
    """The metrics of one answer, after what the pattern picks of it."""
    answer = answers[0]
    if pattern is not None:
        match = re.search(pattern, answer, re.DOTALL)
        answer = match.group(1) if match else answer
    answer, right = normalised(answer), normalised(doc["output"])
    found = {"exact_match": float(answer == right), "char_f1": char_f1(answer, right)}
    return {name: found[name] for name in metrics}
