"""Asking a teacher, at any URL with OpenAI's API. What it replies is kept, what failed is asked again another time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tunegate.api.codec import to_json_lines
from tunegate.api.errors import EvaluationError
from tunegate.evaluation.models import Dialogue
from tunegate.evaluation.models.remote import RemoteModel
from tunegate.evaluation.sheets import Line, Sheets
from tunegate.store import Store
from tunegate.store.files import is_uri

REPLIES = "replies.jsonl"


class Teacher(RemoteModel):
    """Draws its answers, each with a seed of its own; greedy where it judges."""

    remedy = "lower max_tokens in the plan, or name a teacher with a longer context"

    def write(self, dialogue: Dialogue, max_tokens: int, temperature: float, seed: int) -> str:
        """Raises EvaluationError for what the server refuses, ServingError when it is away."""
        create = self._patient.chat.completions.with_raw_response.create
        drawn = {"temperature": temperature} if temperature == 0 else {"temperature": temperature, "seed": seed}
        reply = self._read(create, model=self.model, messages=dialogue, max_tokens=max_tokens, **drawn)
        return str(reply.choices[0].message.content or "").strip()


class Kept:
    """Replies in a bucket, many to an object. Those of half a minute, which are not there yet when a pod is killed, are
    asked for again."""

    def __init__(self, store: Store, folder: str, seconds: float = 30.0) -> None:
        self._store, self._folder, self._seconds = store, folder, seconds
        keys = sorted(store.keys(f"{folder}/"))
        self.lines = [line for key in keys for line in _lines(store.get(key) or b"")]
        self._number = int(keys[-1].rpartition("/")[2].partition(".")[0]) + 1 if keys else 0
        self._waiting: list[Line] = []
        self._put = time.monotonic()

    def keep(self, lines: list[Line]) -> None:
        self._waiting += lines
        if time.monotonic() - self._put >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Put into the bucket what waits. Raises StoreError."""
        self._put = time.monotonic()
        if self._waiting:
            body = to_json_lines(self._waiting)
            self._store.put(f"{self._folder}/{self._number:06}.jsonl", body)
            self._number, self._waiting = self._number + 1, []


@contextmanager
def kept_replies(
    folder: str, endpoint_url: str | None, done: Callable[[int], None], part: str = ""
) -> Iterator[Sheets]:
    """The replies so far of a corpus in `folder`, here or in a bucket, or of one part of it; new ones are kept there.

    done: gets how many more there are.
    """
    # nothing is another process's: a sheet whose questions may stay without an answer is what this makes of it
    if not is_uri(folder):
        name = f"replies-{part}.jsonl" if part else REPLIES
        yield Sheets(Path(folder) / name, done, is_ours=lambda: True)
        return
    kept = Kept(Store.open(folder, endpoint_url=endpoint_url), "/".join(filter(None, ("replies", part))))
    try:
        yield Sheets(None, done, known=kept.lines, kept=kept.keep, is_ours=lambda: True)
    finally:
        kept.flush()


class Replies:
    """Asks a teacher for what has no reply yet."""

    def __init__(self, teacher: Teacher, sheets: Sheets) -> None:
        self._teacher, self._sheets = teacher, sheets

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
                        reply = future.result()
                    except EvaluationError:
                        continue
                    sheet.put({waiting[future]: reply})
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return sheet.answers()


def _lines(body: bytes) -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in body.splitlines()]
