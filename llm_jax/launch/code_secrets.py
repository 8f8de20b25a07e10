"""Secrets in the folder that `--code` sends: a key beside the code would go to every host.

Judged are the names of files, and in files of text tokens of known shapes and what is assigned to
the name of a secret. In a program only what stands in quotes can be a value.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

from llm_jax.config.secrets import FOUND, is_harmless, is_secret_name

MOST_SEARCHED = 1 << 20
"""Bytes of a file that is searched."""
ALLOWED = re.compile(r"pragma: allowlist secret|gitleaks:allow")
"""On a line whose secret is none, as detect-secrets and gitleaks have it."""
KEY_FILES = (
    ".env", ".env.*", ".netrc", ".pypirc", ".git-credentials", ".htpasswd", "id_rsa", "id_dsa",
    "id_ecdsa", "id_ed25519", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx",
    "application_default_credentials.json",
)  # fmt: skip
EXAMPLES = (".env.example", ".env.sample", ".env.template")
SETTINGS = {
    "", ".cfg", ".conf", ".env", ".ini", ".json", ".properties", ".sh", ".toml", ".yaml", ".yml",
}  # fmt: skip
"""Suffixes of files in which a value may stand without quotes."""
ASSIGNED = re.compile(
    r"(?P<name>[A-Za-z_][\w-]*)[\"']?[ \t]*[:=][ \t]*"
    r"(?P<value>'[^'\n]*'|\"[^\"\n]*\"|[^\s'\",;]+)"
)
VALUE = re.compile(r"(?=\D*\d)(?=[^A-Za-z]*[A-Za-z])[!-~]{8,}")
"""What may be a secret of that name: a word with a letter and a digit."""
PLACE = re.compile(
    r"[${<]|%[sd(]|\w\(|\[\w*\]|^\.?[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+(\.[A-Z]\w*)?$"
    r"|^[a-z]+(_+[a-z0-9]+)+$"
)
"""Of a value that is put in later, or is a name in a program."""
PATTERN = re.compile(r"[()*\\]")
"""Of an address that is a regular expression."""
KEY_BODY = re.compile(
    r"KEY( BLOCK)?-----(?:\\[nr]|[\s\"'+])*(?:[A-Z][\w-]*: .*\s+)*[A-Za-z0-9+/]{40}"
)
"""Of a private key that is more than its frame."""


def key_file(name: str) -> bool:
    """Whether a file of that name is one of keys or passwords."""
    return name not in EXAMPLES and any(fnmatch.fnmatchcase(name, form) for form in KEY_FILES)


def readable(data: bytes) -> str | None:
    """The text of a file, None if it is binary or too large to be searched."""
    if len(data) > MOST_SEARCHED or b"\0" in data[:8192]:
        return None
    return data.decode(errors="replace")


def secrets_of(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """(line, what tells it) for what looks like a secret in a file, unless its line allows it."""
    lines = text.splitlines()
    for start, why in sorted(_found(path, text)):
        line = text.count("\n", 0, start) + 1
        if not ALLOWED.search(lines[line - 1]):
            yield line, why


def _found(path: Path, text: str) -> Iterator[tuple[int, str]]:
    for words, pattern in FOUND.items():
        for found in pattern.finditer(text):
            key, address = "PRIVATE KEY" in found[0], "address" in words
            made_later = PLACE.search(found[0]) or (address and PATTERN.search(found[0]))
            if KEY_BODY.search(found[0]) if key else not made_later:
                yield found.start(), f"it holds {words}"
    for found in ASSIGNED.finditer(text):
        value = found["value"]
        quoted = value[0] in "'\""
        word = value.strip("'\"")
        if (
            (quoted or path.suffix in SETTINGS)
            and VALUE.fullmatch(word)
            and not PLACE.search(word)
            and is_secret_name(found["name"])
            and not is_harmless(word)
        ):
            yield found.start(), f"it sets {found['name']}"
