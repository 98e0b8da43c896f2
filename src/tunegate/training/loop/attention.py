"""Attention in packed rows on CPUs: dialogue by dialogue, and not over whole rows with most of it masked away.

A row of 2,048 positions that holds twenty dialogues needs a twentieth of the products that way.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface

BY_DIALOGUE = "by_dialogue"


def attend_by_dialogue(
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
    lengths = cu_seq_lens_q.diff().tolist()
    # Split at once: a slice's gradient is as large as what it was cut from, and there would be one for each dialogue.
    flat = (tensor.transpose(0, 1).flatten(1, 2)[None] for tensor in (query, key, value))
    split = [torch.split(tensor, lengths, dim=2) for tensor in flat]
    answers = []
    for length, *part in zip(lengths, *split, strict=True):
        mask = None  # faster where a position sees all before it
        if sliding_window is not None and length > sliding_window:
            mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - sliding_window)
        answers.append(whole(module, *part, mask, **options)[0])
    return torch.cat(answers, dim=1).view(rows, positions, *answers[0].shape[2:]), None


AttentionInterface.register(BY_DIALOGUE, attend_by_dialogue)
