"""Finds personal data in text. Each function yields the places (start, end) in order."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterator

Places = Iterator[tuple[int, int]]

# A letter of Japanese may stand right before and after what is found: \b and \w would not do.
EMAIL = re.compile(
    r"(?<![A-Za-z0-9_.+%-])[A-Za-z0-9_][A-Za-z0-9_.+%'-]{0,63}[@＠]"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![A-Za-z0-9@])"
)
IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)")
IPV6 = re.compile(
    r"(?<![A-Za-z0-9_:.])(?:[0-9A-Fa-f]{0,4}:){2,7}"
    r"(?:(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)|[0-9A-Fa-f]{0,4}(?![A-Za-z0-9_:]|\.\d))"
)
TWELVE = re.compile(r"(?<![\d０-９-])(\d{12}|\d{4}([ 　-])\d{4}\2\d{4})(?![\d０-９-])")
LABEL = re.compile(r"マイナンバー|個人番号|my ?number|individual number", re.IGNORECASE)
LABEL_BEFORE = 40
"""Characters before a number in which its label is looked for."""
CARD = re.compile(r"(?<![\d.-])\d(?:[ 　－-]?\d){12,18}(?![\d-])")
ISSUERS = (
    (re.compile(r"4"), (13, 16, 19)),  # Visa
    (re.compile(r"5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),  # Mastercard
    (re.compile(r"3[47]"), (15,)),  # American Express
    (re.compile(r"35(?:2[89]|[3-8])"), (16, 17, 18, 19)),  # JCB
    (re.compile(r"3(?:0[0-5]|[68])"), (14,)),  # Diners Club
    (re.compile(r"6(?:011|4[4-9]|5)"), (16, 19)),  # Discover
    (re.compile(r"62"), (16, 17, 18, 19)),  # UnionPay
)
"""First digits of an issuer, and how many digits its numbers have (ISO/IEC 7812)."""
PHONE = re.compile(
    r"(?:(?<=TEL)|(?<=Tel)|(?<=tel)|(?<=FAX)|(?<=Fax)|(?<=fax)|(?<=[A-Za-z]\.)"
    r"|(?<![A-Za-z0-9_.+/=%０-９-]))(?:[+＋][1-9１-９]|[(（]?[0０])"
    r"(?:[ 　.()（）‐‑–—−ー－-]{0,2}[0-9０-９]){7,14}(?![A-Za-z0-9_%０-９]|[.-]\d)"
)
"""What may be a phone number: +81 …, or a national number with its leading 0."""


def emails(text: str) -> Places:
    """E-mail addresses (RFC 5321's forms without quotes)."""
    if "@" in text or "＠" in text:
        yield from (found.span() for found in EMAIL.finditer(text))


def public_addresses(text: str) -> Places:
    """IPv4 and IPv6 addresses that are reachable from anywhere (IANA's registries)."""
    found = [*IPV4.finditer(text), *IPV6.finditer(text)]
    end = 0
    for match in sorted(found, key=re.Match.start):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if match.start() >= end and _is_public(address):
            yield match.span()
            end = match.end()


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_global and not address.is_multicast


def my_numbers(text: str) -> Places:
    """Japan's individual numbers: 12 digits with their check digit, which a label precedes or which
    are in groups of four. One in eleven other numbers of 12 digits has the check digit too."""
    for match in TWELVE.finditer(text):
        digits = _digits(match[1])
        labelled = LABEL.search(text, max(match.start() - LABEL_BEFORE, 0), match.start())
        if is_my_number(digits) and len(set(digits)) > 1 and (match[2] or labelled):
            yield match.span()


def is_my_number(digits: str) -> bool:
    """Whether the last of 12 digits is the check digit (ordinance of 2014 on Act 27 of 2013)."""
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    rest = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False)) % 11
    return len(digits) == 12 and int(digits[11]) == (0 if rest <= 1 else 11 - rest)


def cards(text: str) -> Places:
    """Numbers of payment cards: an issuer's first digits and length, and Luhn's check digit."""
    for match in CARD.finditer(text):
        digits = _digits(match[0])
        known = any(one.match(digits) and len(digits) in sizes for one, sizes in ISSUERS)
        if known and passes_luhn(digits) and len(set(digits)) > 1:
            yield match.span()


def passes_luhn(digits: str) -> bool:
    """Luhn's check (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def phones(text: str, regions: tuple[str, ...]) -> Places:
    """Phone numbers that exist by the numbering plans of their countries (Google's libphonenumber).

    Args:
      regions: countries whose numbers are found without +.
    """
    import phonenumbers

    for match in PHONE.finditer(text):
        written = unicodedata.normalize("NFKC", match[0])
        for region in (None,) if written.startswith("+") else regions:
            try:
                number = phonenumbers.parse(written, region)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(number):
                yield match.span()
                break


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, unicodedata.normalize("NFKC", text)))
