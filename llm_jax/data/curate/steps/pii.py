"""Personal data: found by form and check digit, then masked, or a reason to drop the document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llm_jax.config import require
from llm_jax.config.extras import require_packages
from llm_jax.data.curate import personal, postal
from llm_jax.data.curate.draft import Check, Draft
from llm_jax.data.curate.step import Checks, Step

Kind = Literal["email", "ip", "my_number", "card", "phone", "address"]
FINDERS: dict[Kind, Callable[[str, tuple[str, ...]], Iterator[tuple[int, int]]]] = {
    "email": lambda text, regions: personal.emails(text),
    "ip": lambda text, regions: personal.public_addresses(text),
    "my_number": lambda text, regions: personal.my_numbers(text),
    "card": lambda text, regions: personal.cards(text),
    "phone": personal.phones,
    "address": lambda text, regions: postal.addresses(text),
}
"""Kind → what yields the place (start, end) of each one. Earlier kinds are masked first."""
MASKS: dict[Kind, str] = {
    "email": "email@example.com",
    "ip": "192.0.2.1",
    "my_number": "000000000000",
    "card": "0000 0000 0000 0000",
    "phone": "000-0000-0000",
    "address": "[address]",
}
"""Reserved or impossible values: RFC 2606, RFC 5737; no check digit fits the numbers."""


@dataclass(frozen=True, kw_only=True)
class Pii(Step):
    """Masks personal data, or drops documents with more of it than `most`.

    Attributes:
      kinds: what is looked for: email, ip (public addresses only), phone, card (payment cards, by
        issuer, length and Luhn's check digit), my_number (Japan's individual number, by its check
        digit, where it is labelled or written in groups of four), address (of a house in Japan or
        the United States; not among the defaults, as those of shops and offices go too).
      regions: ISO 3166 codes of countries whose phone numbers are found in their national form;
        those that begin with + are found of every country.
      most: documents with more are dropped; None drops none, and all of it is masked.
    """

    kind: Literal["pii"] = "pii"
    kinds: tuple[Kind, ...] = ("email", "ip", "my_number", "card", "phone")
    regions: tuple[str, ...] = ("JP",)
    most: int | None = None

    def __post_init__(self) -> None:
        require(bool(self.kinds), "pii.kinds is empty: name at least one kind, or leave pii out.")
        require(
            all(len(code) == 2 and code.isalpha() and code.isupper() for code in self.regions),
            f"pii.regions is {list(self.regions)}: give codes of two letters, such as 'JP'.",
        )
        require(
            self.most is None or self.most >= 0, f"pii.most is {self.most}: it must be 0 or more."
        )

    def prepare(self, folder: Path) -> None:
        """Raises `UserError` if what finds phone numbers is not installed."""
        if "phone" in self.kinds:
            require_packages("Finding phone numbers", "phonenumbers")

    def check(self, draft: Draft) -> Checks:
        text, found = masked(draft.text, self.kinds, self.regions)
        if self.most is not None:
            yield Check("personal data", found.total(), high=self.most)
        for kind, count in found.items():
            draft.edits[f"pii: {kind}"] += count
        draft.rewrite(text)


def masked(
    text: str, kinds: tuple[Kind, ...], regions: tuple[str, ...]
) -> tuple[str, Counter[str]]:
    """The text with each finding replaced by its kind's mask, and kind → number of findings."""
    found: Counter[str] = Counter()
    for kind, finder in FINDERS.items():
        if kind not in kinds:
            continue
        parts, end = [], 0
        for start, stop in finder(text, regions):
            if text[start:stop] == MASKS[kind]:
                continue
            parts += [text[end:start], MASKS[kind]]
            end = stop
            found[kind] += 1
        if parts:
            text = "".join([*parts, text[end:]])
    return text, found
