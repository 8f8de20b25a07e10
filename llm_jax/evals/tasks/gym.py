"""Tasks of the package reasoning-gym, which generates problems and checks answers."""

from __future__ import annotations

from importlib.metadata import version as version_of_package
from typing import Any

from llm_jax.config import UserError, nearest
from llm_jax.config.extras import require_packages
from llm_jax.evals.tasks.library import harness

PREFIX = "reasoning_gym:"
TEST, SHOTS, SEED = 100, 10, 0


def check_name(name: str) -> None:
    """Raises `UserError` if the package is missing or has no such task."""
    require_packages(f"Task {name!r}", "reasoning_gym")
    from reasoning_gym.factory import DATASETS

    known = DATASETS.keys() - {"composite"}  # that one is put together from others
    if name.removeprefix(PREFIX) not in known:
        other = nearest(name.removeprefix(PREFIX), known)
        raise UserError(f"There is no task {name!r}: {other}")


def version() -> str:
    """The version of all tasks: the package's."""
    return version_of_package("reasoning-gym")


def task(name: str) -> Any:
    """The task, with the package's default difficulty: the same problems at each call."""
    import datasets
    import reasoning_gym

    made = reasoning_gym.create_dataset(name.removeprefix(PREFIX), seed=SEED, size=TEST + SHOTS)

    def split(places: range) -> Any:
        entries = [(place, made[place]) for place in places]
        return datasets.Dataset.from_list(
            [
                {"question": one["question"], "answer": str(one["answer"]), "place": place}
                for place, one in entries
            ]
        )

    def problems(**_: Any) -> Any:
        shots, test = range(SHOTS), range(SHOTS, SHOTS + TEST)
        return datasets.DatasetDict({"test": split(test), "shots": split(shots)})

    def figures(doc: dict[str, Any], answers: list[str]) -> dict[str, float]:
        answer, entry = answers[0].strip(), made[doc["place"]]
        score = float(made.score_answer(answer=answer, entry=entry))
        return {"score": score, "exact_match": float(answer == doc["answer"].strip())}

    return harness().api.task.ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": problems,
            "test_split": "test",
            "fewshot_split": "shots",
            "output_type": "generate_until",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": " {{answer}}",
            "target_delimiter": "",
            "fewshot_delimiter": "\n\n",
            "generation_kwargs": {"until": ["\n\n", "Question:"], "max_gen_toks": 128},
            "process_results": figures,
            "metric_list": [
                {"metric": "score", "aggregation": "mean", "higher_is_better": True},
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
            ],
            "metadata": {"version": version()},
        }
    )
