"""What evaluation asks: a model, wherever it computes.

`local` computes in this process. Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunegate.api.evaluation import Probe
from tunegate.evaluation.sheets import Sheet

Dialogue = list[dict[str, str]]  # messages with role and content; the last one is the user's


@dataclass
class Tokens:
    """How many a model has read, each question's whole, and written so far."""

    read: int = 0
    written: int = 0


class Model(Protocol):
    """Answers are greedy: the same question gets the same answer. They are put on a sheet batch by batch; batches that
    it holds are not asked again, and are the same each time: beside others, an answer may differ in its last digits.
    """

    @property
    def settings(self) -> str:
        """What answers depend on besides weights and questions, such as the type of the numbers."""
        ...

    @property
    def tokens(self) -> Tokens | None:
        """Counted as questions are answered; None where that is not known."""
        ...

    @property
    def probes(self) -> tuple[Probe, ...]:
        """What tells its weights from others; none where it is not known that they answer."""
        ...

    def answer(self, dialogues: Sequence[Dialogue], max_tokens: int, sheet: Sheet) -> None:
        """The answer to each dialogue, of at most `max_tokens`; None where the model's numbers were not finite.

        Raises EvaluationError for a dialogue that leaves no room for an answer, ModelError for one that the model's
        chat template refuses.
        """
        ...

    def complete(self, texts: Sequence[str], max_tokens: int, sheet: Sheet) -> None:
        """What a base model writes after each text, at most `max_tokens`; None where the numbers were not finite.

        Raises EvaluationError for a text that leaves no room for an answer.
        """
        ...

    def choose(self, texts: Sequence[str], letters: Sequence[str], sheet: Sheet) -> None:
        """For each text the one of `letters` that most likely comes next; None where the numbers were not finite.

        Raises EvaluationError when a letter is not a single token, or a text is longer than the model's context.
        """
        ...
