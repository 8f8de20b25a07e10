"""Dates and days of the week: the day before and after, across months and leap years."""

from __future__ import annotations

import datetime
import random
from typing import Any

from llm_jax.evals.tasks.bundled.questions import Question, drawn, question

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
DAYS_JA = "月火水木金土日"


def english(**_: Any) -> Any:
    return drawn("dates_en", lambda draw: _ask(draw, "en"))


def japanese(**_: Any) -> Any:
    return drawn("dates_ja", lambda draw: _ask(draw, "ja"))


def _ask(draw: random.Random, language: str) -> Question:
    return _weekday(draw, language) if draw.random() < 0.4 else _neighbour(draw, language)


def _weekday(draw: random.Random, language: str) -> Question:
    today, ahead = draw.randrange(7), draw.randint(2, 10)
    others = [day for day in range(7) if day != (today + ahead) % 7]
    days = [(today + ahead) % 7, *draw.sample(others, 3)]
    if language == "ja":
        context = f"今日は{DAYS_JA[today]}曜日です。{ahead}日後は、"
        right, *wrong = (f"{DAYS_JA[day]}曜日" for day in days)
    else:
        context = f"Today is {DAYS[today]}. In {ahead} days it will be"
        right, *wrong = (f" {DAYS[day]}" for day in days)
    return question(draw, context, right, wrong)


def _neighbour(draw: random.Random, language: str) -> Question:
    """Half of them at the end of a month, where the rule matters."""
    first = datetime.date(1990, 1, 1) + datetime.timedelta(days=draw.randrange(14_000))
    if draw.random() < 0.5:
        first = first.replace(day=1) - datetime.timedelta(days=1)
    sign = draw.choice((1, -1))
    if sign < 0:
        first += datetime.timedelta(days=1)
    right = first + datetime.timedelta(days=sign)
    wrong = {right + datetime.timedelta(days=n) for n in (-2 * sign, sign, 2 * sign, 30, -30)}
    dates = [right, *draw.sample(sorted(wrong - {right, first}), 3)]
    if language == "ja":
        context = f"{_ja(first)}の{'翌日' if sign > 0 else '前日'}は、"
        said = [_ja(date) for date in dates]
    else:
        context = f"The day {'after' if sign > 0 else 'before'}{_en(first)} is"
        said = [_en(date) for date in dates]
    return question(draw, context, said[0], said[1:])


def _en(date: datetime.date) -> str:
    return f" {date.day} {MONTHS[date.month - 1]} {date.year}"


def _ja(date: datetime.date) -> str:
    return f"{date.year}年{date.month}月{date.day}日"
