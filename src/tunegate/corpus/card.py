"""The data card of a corpus: YAML that hubs read, then what people want to know first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import yaml

from tunegate.corpus.build import Corpus
from tunegate.corpus.plan import Plan

_DEFAULT = {"config_name": "default", "data_files": [{"split": "train", "path": "data/train.jsonl"}]}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card(plan: Plan, corpus: Corpus, teacher: str, digests: Mapping[str, str]) -> str:
    """README.md. digests: of the plan's templates and of the data, by name."""
    count = len(corpus.records)
    sources = Counter(record.origin.file or "self-instruct" for record in corpus.records)
    head = {
        "language": [plan.language],
        "license": plan.license,
        "pretty_name": plan.name,
        "size_categories": [next((name for most, name in _SIZES if count < most), "n>1M")],
        "task_categories": ["text-generation"],
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "source_datasets": ["original"],
        "configs": [_DEFAULT],
        "tunegate": {
            "sources": dict(sources),
            "rejected": dict(sorted(corpus.reasons.items())),
            "queued": len(corpus.queue),
            "teacher": teacher,
            "seed": plan.seed,
            "digests": dict(digests),
            "suites_checked": list(plan.suites),
        },
    }
    lines = [
        f"# {plan.name}",
        f"{count} dialogues for: {plan.about}",
        f"{sources['self-instruct']} were written by the model {teacher} from {corpus.seeds} seed questions and "
        f"{len(plan.scenarios)} scenarios, filtered, answered and judged by it (at least {plan.least_score} of 5).",
        "Each line of `data/train.jsonl` says in `origin` what it was made from. Texts of users were redacted before "
        "they became seeds. What was not taken stands in `rejected.jsonl` with its reason, what people are to decide "
        "in `queue.jsonl`.",
        f"Questions that these suites ask are left out: {', '.join(plan.suites)}."
        if plan.suites
        else "No suite was named whose questions should be left out.",
        *corpus.notes,
    ]
    return f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False)}---\n\n" + "\n\n".join(lines) + "\n"
