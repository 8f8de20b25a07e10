"""Planted personal data is found by kind, and what only looks like it stays."""

from __future__ import annotations

import random

import pytest

from llm_jax.config import ConfigError
from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.personal import is_my_number, passes_luhn
from llm_jax.data.curate.steps.pii import FINDERS, MASKS, Pii, masked

pytest.importorskip("phonenumbers")
EVERY = tuple(FINDERS)
NUMBER = 200


def my_number(draw: random.Random) -> str:
    first = [draw.randrange(10) for _ in range(11)]
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    rest = sum(a * b for a, b in zip(first, weights, strict=True)) % 11
    return "".join(map(str, [*first, 0 if rest <= 1 else 11 - rest]))


def card(draw: random.Random) -> str:
    start = draw.choice(["4", "51", "55", "2221", "3528", "6011", "37"])
    size = 15 if start == "37" else 16
    body = start + "".join(str(draw.randrange(10)) for _ in range(size - 1 - len(start)))
    digits = next(body + str(d) for d in range(10) if passes_luhn(body + str(d)))
    return digits if size == 15 or draw.random() < 0.5 else "-".join(
        digits[i : i + 4] for i in range(0, 16, 4)
    )  # fmt: skip


def phone(draw: random.Random) -> str:
    def of(size: int) -> str:
        return str(draw.randrange(2, 10)) + "".join(
            str(draw.randrange(10)) for _ in range(size - 1)
        )

    return draw.choice(
        [
            f"090-{of(4)}-{of(4)}", f"03-{of(4)}-{of(4)}", f"080{of(8)}", f"０６－{of(4)}－{of(4)}",
            f"+81 3 {of(4)} {of(4)}", f"+1 212-{of(3)}-{of(4)}", f"0120-{of(3)}-{of(3)}",
            f"+44 20 7{of(3)} {of(4)}", f"(03) {of(4)}-{of(4)}",
        ]
    )  # fmt: skip


def email(draw: random.Random) -> str:
    name = draw.choice(["taro.yamada", "j_smith+list", "a", "info-desk", "x.y.z99"])
    return f"{name}@{draw.choice(['example.co.jp', 'mail.test.org', 'a-b.io'])}"


def address(draw: random.Random) -> str:
    if draw.random() < 0.2:
        return f"2606:4700:{draw.randrange(16**4):x}::{draw.randrange(1, 16**4):x}"
    first = draw.choice([8, 93, 151, 203])
    return f"{first}.{draw.randrange(1, 99)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"


PLANTS = {
    "email": (email, "連絡先は{}まで。"),
    "ip": (address, "要求は{}からです"),
    "my_number": (my_number, "マイナンバーは{}です。"),
    "card": (card, "Paid with card {}, thank you."),
    "phone": (phone, "電話は{}へ"),
}
RECALL = {"email": 1.0, "ip": 1.0, "my_number": 1.0, "card": 1.0, "phone": 0.95}
"""Phone: the random numbers are of the right form, but some are not assigned."""
HARMLESS = (
    "192.168.0.1 and 10.0.0.7 and 127.0.0.1 and 203.0.113.5 are not public; version 1.2.3.4.5",
    "ISBN 978-4-00-310101-8, 2019-04-01 12:34:56, 1,234,567,890 yen, 3.14159265358979",
    "def f(x): return 0x12345678 + 1234567890123456",
    "order 123456789012 of 2020, id=4111111111111112, hash 0123456789abcdef0123",
    "user@localhost, a@b, @handle, mail@, e = m@x",
    "円周率は3.141592653589793238462643383279です。郵便番号は100-0001、0.5から0.8まで。",
    "10:30-12:45, 2001-02-03, 〒150-0002, No. 4444444444444444",
)


@pytest.mark.parametrize("kind", PLANTS)
def test_planted_data_is_found(kind: str) -> None:
    draw = random.Random(kind)
    make, sentence = PLANTS[kind]
    planted = [make(draw) for _ in range(NUMBER)]
    gone = right = 0
    for value in planted:
        text, found = masked(sentence.format(value), EVERY, ("JP",))
        gone += value not in text
        right += dict(found) == {kind: 1} and text == sentence.format(MASKS[kind])
    assert gone / NUMBER >= RECALL[kind]
    assert right / NUMBER >= RECALL[kind]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_personal_data_stays(text: str) -> None:
    assert masked(text, EVERY, ("JP", "US"))[0] == text


@pytest.mark.parametrize(
    "number",
    ["06-1234-5678", "075-123-4567", "0166-22-3456", "090-1234-5678", "0751234567", "08012345678",
     "+81-80-1234-5678", "+818012345678"],
)  # fmt: skip
def test_the_phone_numbers_that_hojichar_masks_are_found(number: str) -> None:
    assert masked(f"連絡は{number} まで", EVERY, ("JP",))[0] == f"連絡は{MASKS['phone']} まで"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("TEL03-1234-5678", "TEL{phone}"),
        ("Tel.03-1234-5678 FAX.03-1234-5679", "Tel.{phone} FAX.{phone}"),
        ("１.03-1234-5678", "１.03-1234-5678"),
        ("カード４１１１－１１１１－１１１１－１１１１です", "カード{card}です"),
        ("to ::ffff:8.8.8.8 and back", "to {ip} and back"),
        ("to ::ffff:10.0.0.8 and back", "to ::ffff:10.0.0.8 and back"),
        ("2606:4700::1111. Then", "{ip}. Then"),
    ],
)
def test_forms_beside_other_characters(text: str, wanted: str) -> None:
    assert masked(text, EVERY, ("JP",))[0] == wanted.format(**MASKS)


def test_check_digits() -> None:
    assert is_my_number("123456789018") and not is_my_number("123456789017")
    assert passes_luhn("4111111111111111") and not passes_luhn("4111111111111112")


def test_random_numbers_of_twelve_digits_are_rarely_taken_for_an_individual_number() -> None:
    draw = random.Random(0)
    numbers = [f"{draw.randrange(10**12):012d}" for _ in range(2000)]
    found = sum(masked(f"no. {n} of it", ("my_number",), ())[1].total() for n in numbers)
    assert found == 0  # none is labelled


def test_a_document_with_too_much_is_dropped_and_masks_are_not_found_again() -> None:
    text = "a@b.com c@d.org e@f.net"
    draft = Draft(text)
    assert [check.holds for check in Pii(kinds=("email",), most=2).check(draft)] == [False]
    draft = Draft(text)
    assert [check.holds for check in Pii(kinds=("email",), most=3).check(draft)] == [True]
    assert draft.text == " ".join([MASKS["email"]] * 3)
    assert draft.edits == {"pii: email": 3}
    every = " ".join(MASKS.values())
    assert masked(every, EVERY, ("JP",)) == (every, {})


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pii\.regions"):
        Pii(regions=("Japan",))
    with pytest.raises(ConfigError, match=r"pii\.kinds is empty"):
        Pii(kinds=())
