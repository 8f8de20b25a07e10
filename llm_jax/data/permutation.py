"""A pseudo-random permutation of 0 … n-1 that is computed, not stored.

Alternating Feistel network over the mixed-radix domain a × b ≥ n with cycle walking (Black &
Rogaway 2002, "Ciphers with Arbitrary Finite Domains"); the round function is SplitMix64's
finaliser (Steele et al. 2014). a·b < n + a with a ≈ √n, so a second step of the walk is rare.
"""

from __future__ import annotations

import math

import numpy as np

ROUNDS = 6


def permute(index: np.ndarray, n: int, key: np.ndarray) -> np.ndarray:
    """Images of `index` under the permutations of 0 … n-1 that `key` selects.

    Args:
      index: (k,) int64 in [0, n).
      key: (k,) uint64; each row has its own permutation.

    Returns:
      (k,) int64 in [0, n).
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    index = _encrypt(index, a, b, key)
    while (outside := index >= n).any():
        index = np.where(outside, _encrypt(index, a, b, key), index)
    return index


def _encrypt(index: np.ndarray, a: int, b: int, key: np.ndarray) -> np.ndarray:
    """One pass of the network over [0, a·b)."""
    left, right = index // b, index % b
    for r in range(ROUNDS):
        round_key = key + np.uint64(r)
        if r % 2 == 0:
            left = (left + _hash(right, round_key) % a) % a
        else:
            right = (right + _hash(left, round_key) % b) % b
    return left * b + right


def _hash(half: np.ndarray, key: np.ndarray) -> np.ndarray:
    """(k,) non-negative int64."""
    mixed = mix(half.astype(np.uint64) + mix(key))
    return (mixed >> np.uint64(1)).astype(np.int64)


def seed_key(seed: int) -> np.ndarray:
    """(1,) uint64: the key of `seed`, any integer."""
    return mix(np.array([seed % 2**64], np.uint64))


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser; (k,) uint64 in and out, arithmetic modulo 2^64."""
    x = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
