"""Dates and days of the week: the day before and after, across months and leap years.

Of four dates each is the right one as often as the others, so that who likes early days, or the
first of a month, is right by chance, and so is who copies the month of the question. The day that
it names is not among the choices: a model that only copies it would be wrong for sure.
"""

from __future__ import annotations

import calendar
import datetime
import functools
import random
from collections.abc import Callable
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
Dates = Callable[[random.Random], tuple[datetime.date, list[datetime.date]]]
"""Draws the day that is named, and the choices, the right one first."""


def english(**_: Any) -> Any:
    return _drawn("dates_en", "en")


def japanese(**_: Any) -> Any:
    return _drawn("dates_ja", "ja")


def _drawn(name: str, language: str) -> Any:
    asked = functools.partial(_neighbour, language=language)
    made: list[Make] = [functools.partial(_weekday, language=language)] * 4
    for first in (True, False):
        made += [functools.partial(asked, dates=_days(first, place)) for place in range(4)]
        made += [functools.partial(asked, dates=_months(first, across=n < 3)) for n in range(4)]
    return drawn(name, made, count=10 * len(made))


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


def _days(first: bool, place: int) -> Dates:
    """Four days of one month that begin or end with its edge, the right one at `place`. Who copies
    the month of the question learns nothing."""

    def drawn_dates(draw: random.Random) -> tuple[datetime.date, list[datetime.date]]:
        edge = _edge(1990 + draw.randrange(38), draw.randint(1, 12), first)
        step = datetime.timedelta(days=2 if first else -2)
        days = [edge + n * step for n in range(4)]
        days.insert(0, days.pop(place))
        return days[0] - step / 2, days

    return drawn_dates


def _months(first: bool, across: bool) -> Dates:
    """The first or the last days of four months. The question names another month than the right
    one if it is asked `across` the edge. Three of four are, so that who copies is right in one."""

    def drawn_dates(draw: random.Random) -> tuple[datetime.date, list[datetime.date]]:
        year, start = 1990 + draw.randrange(38), draw.randint(1, 9)
        days = [_edge(year, month, first) for month in range(start, start + 4)]
        days.insert(0, days.pop(draw.randrange(4)))
        return days[0] + datetime.timedelta(days=-1 if first == across else 1), days

    return drawn_dates


def _edge(year: int, month: int, first: bool) -> datetime.date:
    """The first or the last day of a month."""
    return datetime.date(year, month, 1 if first else calendar.monthrange(year, month)[1])


def _neighbour(draw: random.Random, language: str, dates: Dates) -> Question:
    """The day after or before the one that `dates` draws, the first of its choices."""
    named, days = dates(draw)
    after = days[0] > named
    if language == "ja":
        context = f"{_ja(named)}の{'翌日' if after else '前日'}は、"
        said = [_ja(date) for date in days]
    else:
        context = f"The day {'after' if after else 'before'}{_en(named)} is"
        said = [_en(date) for date in days]
    return question(draw, context, said[0], said[1:])


def _en(date: datetime.date) -> str:
    return f" {date.day} {MONTHS[date.month - 1]} {date.year}"


def _ja(date: datetime.date) -> str:
    return f"{date.year}年{date.month}月{date.day}日"
