"""Multiple-choice exams, C-Eval, CMMLU, MMLU and those in their layout: read, asked and scored as their authors do."""

from tunegate.evaluation.choice.exams import Compat, ExamName, Mode, wording
from tunegate.evaluation.choice.prompts import Item, Subject
from tunegate.evaluation.choice.reading import Split, digest_of, read_subjects
from tunegate.evaluation.choice.suite import ChoiceSuite, measure, submission

__all__ = [
    "ChoiceSuite",
    "Compat",
    "ExamName",
    "Item",
    "Mode",
    "Split",
    "Subject",
    "digest_of",
    "measure",
    "read_subjects",
    "submission",
    "wording",
]
