"""Questions whose common answer is false (the idea of TruthfulQA, Lin et al. 2022; our own words).

A model that has learned what people often say prefers the wrong answer. Each question has one true
answer and one that is widely believed (`truth_en.tsv`, `truth_ja.tsv`). True answers are as often
the longer ones, and as often "yes", as false ones are.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from llm_jax.evals.tasks.bundled.questions import dealt, question, splits


def english(**_: Any) -> Any:
    return _asked("truth_en", "Question: {}\nAnswer:", " ")


def japanese(**_: Any) -> Any:
    return _asked("truth_ja", "質問：{}\n答え：", "")


def _asked(name: str, form: str, space: str) -> Any:
    draw = random.Random(name)
    _, *lines = Path(__file__).with_name(f"{name}.tsv").read_text("utf-8").splitlines()
    made = []
    for asked, true, false in (line.split("\t") for line in lines):
        made.append(question(draw, form.format(asked), space + true, [space + false]))
    draw.shuffle(made)
    return splits(dealt(name, made))
