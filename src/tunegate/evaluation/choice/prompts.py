"""The exact text, or messages, of a multiple-choice question: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunegate.evaluation.choice.exams import Wording
from tunegate.evaluation.models import Dialogue

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Item:
    """One question, its four options in the order of LETTERS, and the right letter; empty where it is not known.

    explanation: the author's chain of thought. cluster: what it belongs to together with others, such as a passage.
    """

    id: str
    question: str
    options: tuple[str, str, str, str]
    answer: str
    explanation: str = ""
    cluster: str = ""


@dataclass(frozen=True)
class Subject:
    """handle: its name in file names; title: its name in prompts; shots: the solved examples that come first.

    areas: the averages that it belongs to.
    """

    handle: str
    title: str
    shots: tuple[Item, ...]
    items: tuple[Item, ...]
    areas: tuple[str, ...] = ()


def text(wording: Wording, subject: Subject, item: Item, *, cot: bool) -> str:
    """What a base model continues: instruction, solved examples, and the question up to where its answer begins."""
    head = (wording.cot_head if cot else wording.head).format(title=subject.title)
    shots = "".join(f"{ask(wording, shot, cot=cot)}{_solved(wording, shot, cot=cot)}\n\n" for shot in subject.shots)
    return head + shots + ask(wording, item, cot=cot) + (wording.cot_start if cot else "")


def messages(wording: Wording, subject: Subject, item: Item, *, cot: bool) -> Dialogue:
    """What a chat model answers: the instruction as system message, and the solved examples as earlier turns."""
    head = (wording.cot_head if cot else wording.head).format(title=subject.title).strip()
    dialogue = [{"role": "system", "content": head}] if head else []
    for shot in subject.shots:
        dialogue.append({"role": "user", "content": ask(wording, shot, cot=cot)})
        dialogue.append({"role": "assistant", "content": _solved(wording, shot, cot=cot).strip()})
    return [*dialogue, {"role": "user", "content": ask(wording, item, cot=cot)}]


def ask(wording: Wording, item: Item, *, cot: bool) -> str:
    """One question with its options and the cue for an answer."""
    question = item.question.strip() if wording.strips else item.question
    options = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, item.options, strict=True))
    return f"{wording.before}{question}{wording.gap}{options}{wording.cot_cue if cot else wording.cue}"


def letters(wording: Wording) -> Sequence[str]:
    """The letters as they stand in a text, such as ` A`, in the order of LETTERS."""
    return [wording.letter.format(letter=letter) for letter in LETTERS]


def _solved(wording: Wording, shot: Item, *, cot: bool) -> str:
    if cot:
        return wording.cot_answer.format(explanation=shot.explanation, letter=shot.answer)
    return wording.letter.format(letter=shot.answer)
