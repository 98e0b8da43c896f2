"""Asking a teacher, at any URL with OpenAI's API. What it replies is kept, what failed is asked again another time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tunegate.api.errors import EvaluationError
from tunegate.evaluation.models import Dialogue
from tunegate.evaluation.models.remote import RemoteModel
from tunegate.evaluation.sheets import Sheets


class Teacher(RemoteModel):
    """Draws its answers, each with a seed of its own; greedy where it judges."""

    remedy = "lower max_tokens in the plan, or name a teacher with a longer context"

    def write(self, dialogue: Dialogue, max_tokens: int, temperature: float, seed: int) -> str:
        """Raises EvaluationError for what the server refuses, ServingError when it is away."""
        create = self._patient.chat.completions.with_raw_response.create
        drawn = {"temperature": temperature} if temperature == 0 else {"temperature": temperature, "seed": seed}
        reply = self._read(create, model=self.model, messages=dialogue, max_tokens=max_tokens, **drawn)
        return str(reply.choices[0].message.content or "").strip()


class Replies:
    """The replies so far, in a file of one line each, so that a build which was killed goes on where it was."""

    def __init__(self, teacher: Teacher, path: Path, done: Callable[[int], None]) -> None:
        self._teacher = teacher
        # nothing is another process's: a sheet whose questions may stay without an answer is what this makes of it
        self._sheets = Sheets(path, done, is_ours=lambda: True)

    def ask(self, dialogues: Sequence[Dialogue], max_tokens: int, temperature: float, seed: int) -> list[str | None]:
        """The replies, in the order of the dialogues; None for one that the teacher's server refuses.

        Raises ServingError when it is away: asked again, it goes on from there.
        """
        teacher = self._teacher
        sheet = self._sheets.sheet(teacher.model, max_tokens, temperature, seed, questions=list(enumerate(dialogues)))
        with ThreadPoolExecutor(teacher.concurrency) as pool:
            waiting = {
                pool.submit(teacher.write, dialogue, max_tokens, temperature, seed + place): place
                for place, dialogue in enumerate(dialogues)
                if sheet.lacks([place])
            }
            try:
                for future in as_completed(waiting):
                    try:
                        sheet.put({waiting[future]: future.result()})
                    except EvaluationError:
                        continue
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return sheet.answers()
