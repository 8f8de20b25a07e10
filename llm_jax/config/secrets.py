"""What looks like a secret: names of variables, and texts. For refusing one, and for hiding it.

A text is judged by its shape (tokens of well-known services, keys, addresses with a password), by
what it assigns (`export HF_TOKEN=…`, `--api-key …`), and if asked by its randomness. Digests,
commits and image ids are random too, but have no capitals among small letters.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

HIDDEN = "[hidden]"
WORDS = {
    "AUTHORIZATION", "BEARER", "COOKIE", "CREDENTIAL", "CREDENTIALS", "DSN", "JWT", "PASS",
    "PASSPHRASE", "PAT", "PWD", "SAS",
}  # fmt: skip
ENDS = ("TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWORDS", "PASSWD", "APIKEY")
PAIRS = re.compile(
    r"(API|ACCESS|PRIVATE|SECRET|AUTH|SSH|ACCOUNT|ENCRYPTION|SIGNING|LICENSE)_?KEYS?(_|$)"
    r"|CONNECTION_STRING|WEBHOOK_URL|_SECRET_|SECRET_(?!NAME)"
)
NO_VALUE = re.compile(
    r"|-?[\d.,]{1,8}([eE][-+]?\d+)?|(?i:true|false|none|null|yes|no|on|off)"
    r"|<.*"  # eos_token: </s>
    r"|\$.*|`.*|projects/[^/]+/secrets/.*|(~|\.\.?)?/[-\w./@]*"  # where the secret is, not itself
)
SHAPES = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----(.|\n)*?(-----END[^\n]*|\Z)",
    "an address with a password": r"(?<=://)[^\s/:@'\"]*:[^\s/@'\"]+(?=@)",
    "an address with a key": r"(?i:(?<=[?&])(access_token|token|sig|signature|api_?key|key|secret"
    r"|password|x-goog-signature|x-amz-signature)=[^&\s'\"]{8,})",
    "a JSON web token": r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
    "a web hook": r"(?<=hooks\.slack\.com/services/)[\w/]{16,}",
    "an authorization": r"(?<=\b[Bb]earer )[\w.~+/=-]{16,}|(?<=\b[Bb]asic )[\w+/=]{16,}",
    "a token": r"\b(hf_|gh[pousr]_|npm_|dckr_pat_|glpat-|pypi-|GOCSPX-|sk-|rk-|tskey-)[\w-]{18,}"
    r"|\b(github_pat_|[sr]k_(live|test)_)\w{16,}|\b(AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bxox[a-z]-[\w-]{10,}|\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}|\bSG\.[\w-]{16,}\.[\w-]{16,}",
}
FOUND = {words: re.compile(pattern) for words, pattern in SHAPES.items()}
ASSIGNED = re.compile(
    r"(?P<before>(?<![\w$])(?:--)?(?P<name>[A-Za-z_][\w-]*)(?P<mark>\s*=\s*|:\s*|(?<=key|ken|ord|swd)\s+))"
    r"(?P<value>'[^'\n]*'|\"[^\"\n]*\"|[^\s'\";,&|)]+)"
)
RANDOM = re.compile(r"(?<![\w+/=-])(?!sha\d{3}-)[\w+/-]{24,}={0,2}(?![\w+/=-])", re.ASCII)
MIXED = 0.4
"""Least share of neighbours, one a capital and one a digit for instance, in a random text; text
of 62 letters and digits has 0.62, names in CamelCase 0.3 to 0.5."""
SHORTEST = 8
"""Characters of a value that is hidden because of its variable's name."""


def is_secret_name(name: str) -> bool:
    """Whether a variable or a flag of that name holds a secret."""
    upper = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.replace("-", "_")).upper().strip("_")
    last = upper.rpartition("_")[2]
    glued = last.startswith("PG") or last.endswith(ENDS)
    return glued or bool(WORDS & set(upper.split("_"))) or PAIRS.search(upper) is not None


def secret_variable(name: str, value: str) -> str | None:
    """What tells that the variable holds a secret, None if nothing does."""
    if is_secret_name(name) and not is_harmless(value):
        return "its name says so"
    return secret_in(value, random=True)


def is_harmless(value: str) -> bool:
    """Whether a value is none in itself: a number, a path, or where the secret is kept."""
    path_or_number = NO_VALUE.fullmatch(value.strip("'\"")) is not None
    return path_or_number and secret_in(value, random=True) is None


def secret_in(text: str, *, random: bool = False) -> str | None:
    """What kind of secret `text` holds, None if it seems to hold none.

    Args:
      random: long words that look random count too.
    """
    for words, pattern in FOUND.items():
        if pattern.search(text):
            return f"it holds {words}"
    for found in ASSIGNED.finditer(text):
        if _is_assigned(found):
            return f"it sets {found['name']}"
    if random and any(is_random(word) for word in RANDOM.findall(text)):
        return "it holds a long random word"
    return None


def _is_assigned(found: re.Match[str]) -> bool:
    value = found["value"].strip("'\"")
    if found["before"].startswith("--secret"):  # gcloud's flag for the name of one
        return False
    if "=" not in found["mark"] and (len(value) < SHORTEST or value.isalpha()):  # prose
        return False
    return is_secret_name(found["name"]) and NO_VALUE.fullmatch(value) is None


def is_random(word: str) -> bool:
    """Whether a word is more like a key than like a name, a path or a digest."""
    kinds = ["a" if c.islower() else "A" if c.isupper() else "1" for c in word if c.isalnum()]
    if len(kinds) < 20 or len(set(kinds)) < 3:
        return False
    changes = sum(a != b for a, b in itertools.pairwise(kinds)) / (len(kinds) - 1)
    counts = Counter(word).values()
    bits = -sum(n / len(word) * math.log2(n / len(word)) for n in counts)
    numbers = len(re.findall(r"\d+", word))  # a name has one, behind it
    return changes >= MIXED and numbers >= 2 and bits >= 3.5


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Values of those variables that hold a secret by their name, longest first."""
    found = {
        value
        for name, value in environment.items()
        if len(value) >= SHORTEST and is_secret_name(name) and not is_harmless(value)
    }
    return sorted(found, key=len, reverse=True)


def redact(text: str, known: Iterable[str] = ()) -> str:
    """`text` with the secrets in it hidden: those of a known shape, what is assigned to a name of
    a secret, and the values `known`."""
    for value in known:
        text = text.replace(value, HIDDEN)
    for pattern in FOUND.values():
        text = pattern.sub(HIDDEN, text)
    return ASSIGNED.sub(lambda m: m["before"] + HIDDEN if _is_assigned(m) else m[0], text)
