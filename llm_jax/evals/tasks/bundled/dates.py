"""Dates and days of the week: the day before and after, across months and leap years.

Of four dates each is the right one as often as the others, so that who likes early days, or the
first of a month, is right by chance. The day that the question names is not among the choices: a
model that only copies it would be wrong for sure.
"""

from __future__ import annotations

import datetime
import functools
import random
from typing import Any

from llm_jax.evals.tasks.bundled.questions import Make, Question, drawn, question

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
    return _drawn("dates_en", "en")


def japanese(**_: Any) -> Any:
    return _drawn("dates_ja", "ja")


def _drawn(name: str, language: str) -> Any:
    made: list[Make] = [
        functools.partial(_neighbour, language=language, sign=sign, place=place, edge=edge)
        for sign in (1, -1)
        for place in range(4)
        for edge in range(4)
    ]
    made += [functools.partial(_weekday, language=language)] * 6
    return drawn(name, made, count=5 * len(made))


def _weekday(draw: random.Random, language: str) -> Question:
    today, ahead = draw.randrange(7), draw.choice((2, 3, 4, 5, 6, 8, 9, 10))
    others = [day for day in range(7) if day not in (today, (today + ahead) % 7)]
    days = [(today + ahead) % 7, *draw.sample(others, 3)]
    if language == "ja":
        context = f"今日は{DAYS_JA[today]}曜日です。{ahead}日後は、"
        right, *wrong = (f"{DAYS_JA[day]}曜日" for day in days)
    else:
        context = f"Today is {DAYS[today]}. In {ahead} days it will be"
        right, *wrong = (f" {DAYS[day]}" for day in days)
    return question(draw, context, right, wrong)


def _neighbour(draw: random.Random, language: str, sign: int, place: int, edge: int) -> Question:
    """The day after (`sign` 1) or before (-1). The choices are every second day around the edge of
    a month: number `edge` of them is the first or last day, where the rule matters, and number
    `place` is the right one."""
    first_of = datetime.date(1990 + draw.randrange(38), draw.randint(1, 12), 1)
    day = first_of if sign > 0 else first_of - datetime.timedelta(days=1)
    dates = [day + datetime.timedelta(days=2 * (other - edge)) for other in range(4)]
    dates.insert(0, dates.pop(place))
    first = dates[0] - datetime.timedelta(days=sign)
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
