"""Chance that is a pure function of its key, so that one edit of a template does not reshuffle everything else.

Same key, same result, on every Python version and machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def roll(*key: object) -> float:
    """A number in [0, 1) that looks random but depends on `key` alone."""
    digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def pick(options: Sequence[T], *key: object) -> T:
    """One of `options`, which must not be empty."""
    return options[int(roll(*key) * len(options))]


def shuffled(options: Sequence[T], *key: object) -> list[T]:
    """`options` in an order that depends on `key`."""
    return [options[i] for i in sorted(range(len(options)), key=lambda i: roll(*key, i))]
