"""Multiple-choice exams: read, asked and scored as their authors do."""

from tunegate.evaluation.choice.suite import (
    ChoiceSuite,
    Item,
    Split,
    Subject,
    measure,
    metrics,
    prompt,
    read_subjects,
    record,
)

__all__ = ["ChoiceSuite", "Item", "Split", "Subject", "measure", "metrics", "prompt", "read_subjects", "record"]
