"""Attention in packed rows on CPUs: dialogue by dialogue, and not over whole rows with most of it masked away.

A row of 2,048 positions that holds twenty dialogues needs a twentieth of the products that way.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface

BY_DIALOGUE = "by_dialogue"


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """From [rows, heads, positions, width] to [rows, positions, heads, width], called as transformers calls its own.

    cu_seq_lens_q: where each dialogue begins, in positions of all rows one after the other, and where the last ends.
    Transformers makes no mask for a function that it doesn't know.
    """
    whole = AttentionInterface()["sdpa"]
    rows, _, positions, _ = query.shape
    answers = []
    for start, end in pairwise(cu_seq_lens_q.tolist()):
        row, first = divmod(start, positions)
        here = slice(row, row + 1), slice(None), slice(first, first + end - start)
        mask = _looking_back(end - start, sliding_window, query.device)
        answers.append(whole(module, query[here], key[here], value[here], mask, **options)[0])
    return torch.cat(answers, dim=1).view(rows, positions, *answers[0].shape[2:]), None


def _looking_back(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """True where a position sees another one; None, which is faster, where it sees all before it."""
    if window is None or length <= window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)


AttentionInterface.register(BY_DIALOGUE, _attend)
