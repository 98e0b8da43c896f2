"""Importing large libraries without looking for garbage among what they bring."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import here what a process needs to its end: it is never collected, and collections no longer look through it.

    torch, transformers and DeepSpeed make a million objects: looking through them takes a fifth of a second each time,
    many times while they are imported, and in each run when the trainer frees memory.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
