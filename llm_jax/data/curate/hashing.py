"""Hashes of n-grams, many at once, the same on every machine."""

from __future__ import annotations

import functools
import hashlib
import re

import numpy as np

from llm_jax.data.permutation import mix

CJK = "\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff々〇〻\U00020000-\U0003ffff"
CJK_TOKEN = re.compile(f"[{CJK}]")
TOKEN = re.compile(f"[{CJK}]|[^\\W_{CJK}]+")
"""A word, or one character of Chinese and Japanese, which does not separate words."""
DIGITS = re.compile(r"\d+")
ODD = np.uint64(0x9E3779B97F4A7C15)


def code_points(text: str) -> np.ndarray:
    """(characters,) uint64."""
    raw = text.encode("utf-32-le", "surrogatepass")
    return np.frombuffer(raw, np.uint32).astype(np.uint64)


def windows(units: np.ndarray, n: int) -> np.ndarray:
    """Hashes of all runs of `n` consecutive `units`.

    Args:
      units: (k,) uint64.

    Returns:
      (max(k - n + 1, 0),) uint64.
    """
    size = len(units) - n + 1
    if size <= 0:
        return np.zeros(0, np.uint64)
    made = np.zeros(size, np.uint64)
    for i in range(n):
        made = made * ODD + units[i : i + size]
    return mix(made)


def character_ngrams(text: str, n: int) -> np.ndarray:
    """How often each different n-gram of characters occurs, in no order."""
    made = windows(mix(code_points(text)), n)
    made.sort()
    starts = np.flatnonzero(np.concatenate([[True], made[1:] != made[:-1]])) if len(made) else made
    return np.diff(starts, append=len(made)).astype(np.int64)


def hash_of(text: str) -> int:
    """64 bits of BLAKE2b."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def token_hashes(text: str) -> np.ndarray:
    """(tokens,) uint64: a hash of each token of the text, in lower case, digits as one."""
    tokens = _tokens(text)
    return np.fromiter(map(_token_hash, tokens), np.uint64, len(tokens))


def are_single(text: str) -> np.ndarray:
    """(tokens,) bool: which tokens of `token_hashes` are one character of Chinese or Japanese."""
    tokens = _tokens(text)
    found = (CJK_TOKEN.match(token) is not None for token in tokens)
    return np.fromiter(found, bool, len(tokens))


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(DIGITS.sub("0", text.lower()))


_token_hash = functools.lru_cache(maxsize=1 << 17)(hash_of)
