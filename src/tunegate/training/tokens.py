"""The tokens a run trains on, made from the rows of its data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunegate.training.arguments import TrainConfig
from tunegate.training.datasets import check_account, load_corpora, write_rejected
from tunegate.training.encode import Example, encode_rows
from tunegate.training.plan import REJECTED


def load_examples(config: TrainConfig, tokenizer: Any, output_dir: Path, *, is_first: bool) -> list[Example]:
    corpora = load_corpora(Path(config.dataset_dir), config.dataset, max_samples=config.max_samples)
    encoded = encode_rows(tokenizer, (row for corpus in corpora for row in corpus.rows), config.cutoff_len)
    rejected = [*(row for corpus in corpora for row in corpus.rejected), *encoded.rejected]
    if is_first:
        write_rejected(output_dir / REJECTED, rejected)
    check_account(len(encoded.examples), rejected, config.max_rejected)
    return list(encoded.examples)
