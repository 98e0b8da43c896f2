"""How the authors of C-Eval, CMMLU and MMLU ask their questions and average the answers, and how two harnesses do.

Sources: github.com/hkust-nlp/ceval (code/evaluator_series), github.com/haonan-li/CMMLU (src/mp_utils.py),
github.com/hendrycks/test; QwenLM/Qwen (eval/evaluate_ceval.py, evaluate_chat_ceval.py); lm-evaluation-harness 0.4.13
(ceval-valid 2.0, cmmlu 1.0, mmlu 1.0). One difference: C-Eval's own code passes the subject's handle where its paper
has the subject in Chinese; here it is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import msgspec

from tunegate.api.errors import UsageError

ExamName = Literal["ceval", "cmmlu", "mmlu"]
Compat = Literal["official", "qwen", "lm_eval"]
Mode = Literal["base", "chat"]  # a base model goes on with a text, a chat model answers messages
Average = Literal["macro", "micro"]  # over subjects, each counting the same, or over questions


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The texts around a question; {title} in `head` and `cot_head` is the subject's.

    before, gap, cue: before the question, between it and its options, and after them.
    letter: how {letter} follows `cue`.
    cot_cue: instead of `cue`, for chain of thought. cot_start: what a base model's own chain begins with.
    cot_answer: a solved example's {explanation} and {letter} after `cot_cue`.
    average: what `accuracy` is. strips: whether white space around a question is left out.
    """

    head: str
    before: str = ""
    gap: str = "\n"
    cue: str
    letter: str = "{letter}"
    cot_head: str
    cot_cue: str
    cot_start: str = ""
    cot_answer: str
    average: Average = "macro"
    strips: bool = False


@dataclass(frozen=True)
class Name:
    """title: the subject in prompts. areas: the averages that it belongs to."""

    title: str
    areas: tuple[str, ...]


_CEVAL = Wording(
    head="以下是中国关于{title}考试的单项选择题，请选出其中的正确答案。\n\n",
    cue="\n答案：",
    cot_head="以下是中国关于{title}考试的单项选择题，请选出其中的正确答案。\n\n",
    cot_cue="\n答案：让我们一步一步思考，\n",
    cot_start="1.",
    cot_answer="{explanation}\n所以答案是{letter}。",
)
_CMMLU = Wording(
    head="以下是关于{title}的单项选择题，请直接给出正确答案的选项。\n\n",
    before="题目：",
    cue="\n答案是：",
    cot_head="以下是关于{title}的单项选择题，请分析并选出正确答案。\n\n",
    cot_cue="\n逐步分析并给出答案选项。",
    cot_answer="{explanation}\n所以答案是{letter}。",
)
_MMLU = Wording(
    head="The following are multiple choice questions (with answers) about {title}.\n\n",
    cue="\nAnswer:",
    letter=" {letter}",
    cot_head="The following are multiple choice questions (with answers) about {title}.\n\n",
    cot_cue="\nAnswer: Let's think step by step.\n",
    cot_answer="{explanation}\nThe answer is {letter}.",
    average="micro",
)
# lm-evaluation-harness puts a space before what it compares, strips questions, and weights subjects by size.
_HARNESS: Any = {"letter": " {letter}", "average": "micro", "strips": True}
_OFFICIAL: Mapping[ExamName, Wording] = {"ceval": _CEVAL, "cmmlu": _CMMLU, "mmlu": _MMLU}
_HARNESSES: Mapping[tuple[ExamName, Compat, Mode], Wording] = {
    ("ceval", "qwen", "base"): replace(_CEVAL, head="", before="问题："),
    ("ceval", "qwen", "chat"): replace(_CEVAL, head="", gap="\n\n", cue="\n"),
    ("ceval", "lm_eval", "base"): replace(
        _CEVAL, head="以下是中国关于{title}的单项选择题，请选出其中的正确答案。\n\n", **_HARNESS
    ),
    ("cmmlu", "lm_eval", "base"): replace(_CMMLU, before="", cue="\n答案：", **_HARNESS),
    ("mmlu", "lm_eval", "base"): replace(_MMLU, **_HARNESS),
}


def wording(exam: ExamName, compat: Compat, mode: Mode, *, cot: bool) -> Wording:
    """How `compat` asks that exam. Raises UsageError where it does not know the exam, the mode or chain of thought."""
    if compat == "official":
        return _OFFICIAL[exam]
    found = _HARNESSES.get((exam, compat, mode))
    if found is None or cot:
        what = "chain of thought" if cot else f"mode {mode} of {exam}"
        raise UsageError(f"{compat} has no {what}; set compat: official in suite.yaml.")
    return found


@cache
def names(exam: ExamName) -> Mapping[str, Name]:
    """The exam's subjects by handle, in their authors' order."""
    text = (files(__package__) / "exams" / f"{exam}.json").read_bytes()
    table = msgspec.json.decode(text, type=dict[str, tuple[str, ...]])
    return {handle: Name(title, tuple(areas)) for handle, (title, *areas) in table.items()}
