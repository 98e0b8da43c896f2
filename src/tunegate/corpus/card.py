"""The data card of a corpus: YAML that hubs read, then what people want to know first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import yaml

from tunegate.corpus.build import Corpus
from tunegate.corpus.plan import Plan

_DEFAULT = {"config_name": "default", "data_files": [{"split": "train", "path": "data/train.jsonl"}]}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card(plan: Plan, corpus: Corpus, teacher: str, digests: Mapping[str, str]) -> str:
    """README.md. digests: of the plan's templates and of the data, by name."""
    count = len(corpus.records)
    sources = Counter(record.origin.file or record.origin.kind for record in corpus.records)
    creators = ["expert-generated"] * bool(plan.decided) + ["machine-generated"] * bool(plan.count)
    head = {
        "language": [plan.language],
        "license": plan.license,
        "pretty_name": plan.name,
        "size_categories": [next((name for most, name in _SIZES if count < most), "n>1M")],
        "task_categories": ["text-generation"],
        "annotations_creators": creators,
        "language_creators": [*creators],  # YAML would refer to the other list
        "source_datasets": ["original"],
        "configs": [_DEFAULT],
        "tunegate": {
            "sources": dict(sources),
            "rejected": dict(sorted(corpus.reasons.items())),
            "queued": len(corpus.queue),
            **({"teacher": teacher} if teacher else {}),
            "seed": plan.seed,
            "digests": dict(digests),
            "suites_checked": list(plan.suites),
        },
    }
    lines = [
        f"# {plan.name}",
        f"{count} dialogues for: {plan.about}",
        *_origins(plan, corpus, teacher),
        "Each line of `data/train.jsonl` says in `origin` what it was made from. Texts of users were redacted before "
        "they became seeds. What was not taken stands in `rejected.jsonl` with its reason, what people are to decide "
        "in `queue.jsonl`.",
        f"Questions that these suites ask are left out: {', '.join(plan.suites)}."
        if plan.suites
        else "No suite was named whose questions should be left out.",
        *corpus.notes,
    ]
    return f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False)}---\n\n" + "\n\n".join(lines) + "\n"


def _origins(plan: Plan, corpus: Corpus, teacher: str) -> Iterator[str]:
    """Who wrote what is not from elsewhere."""
    origins = [record.origin for record in corpus.records]
    if plan.decided:
        decided = [origin for origin in origins if origin.kind == "decided"]
        reviews = sorted({origin.source for origin in decided if origin.source})
        where = f", in {', '.join(reviews)}" if reviews else ""
        yield f"{len(decided)} were decided on by people{where}."
    if plan.count:
        written = sum(origin.kind == "self-instruct" for origin in origins)
        yield (
            f"{written} were written by the model {teacher} from {corpus.seeds} seed questions and "
            f"{len(plan.scenarios)} scenarios, filtered, answered and judged by it (at least {plan.least_score} of 5)."
        )
