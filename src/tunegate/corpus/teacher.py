"""Asking a teacher, at any URL with OpenAI's API. What it replies is kept, what failed is asked again another time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from openai import APIConnectionError, APITimeoutError, InternalServerError, RateLimitError

from tunegate.api.codec import to_json_lines
from tunegate.api.errors import EvaluationError, ServingError
from tunegate.corpus.filters import CUT
from tunegate.evaluation.models import Dialogue
from tunegate.evaluation.models.remote import RemoteModel
from tunegate.evaluation.sheets import Line, Sheets
from tunegate.store import Store
from tunegate.store.files import is_uri

REPLIES = "replies.jsonl"


class LateError(EvaluationError):
    """A request that the teacher did not reply to in its time."""


class Teacher(RemoteModel):
    """Draws its answers, each with a seed of its own; greedy where it judges."""

    remedy = "lower max_tokens in the plan, or name a teacher with a longer context"
    seconds = 600.0  # for one reply

    def write(self, dialogue: Dialogue, max_tokens: int, temperature: float, seed: int) -> str:
        """The reply, and CUT behind one that did not come to its end within `max_tokens`.

        Raises EvaluationError for what the server refuses, LateError for what it does not reply to, ServingError when
        it is away.
        """
        drawn = {"temperature": temperature} if temperature == 0 else {"temperature": temperature, "seed": seed}
        reply = self._read(self._create, model=self.model, messages=dialogue, max_tokens=max_tokens, **drawn)
        choice = reply.choices[0]
        text = str(choice.message.content or "").strip()
        return f"{text} {CUT}" if choice.finish_reason == "length" else text

    def _create(self, **options: Any) -> Any:
        """A busy server is asked again, a slow one is not: it may be writing the reply to this still."""
        once = self._client.with_options(timeout=self.seconds, max_retries=0)
        try:
            return once.chat.completions.with_raw_response.create(**options)
        except APITimeoutError:
            remedy = "give the same command again later, or lower --concurrency"
            raise LateError(f"{self._url} gave no reply within {self.seconds:.0f} s; {remedy}.") from None
        except (APIConnectionError, InternalServerError, RateLimitError):
            return self._patient.chat.completions.with_raw_response.create(**options)


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
    """Asks a teacher for what has no reply yet. failed: gets why a request has none, in the server's own words."""

    def __init__(self, teacher: Teacher, sheets: Sheets, failed: Counter[str]) -> None:
        self._teacher, self._sheets, self._failed = teacher, sheets, failed

    def ask(self, dialogues: Sequence[Dialogue], max_tokens: int, temperature: float, seed: int) -> list[str | None]:
        """The replies, in the order of the dialogues; None for one that the teacher's server refuses, or does not reply
        to in its time.

        Raises ServingError when it is away, which it also is when it replies to none: asked again, this goes on from
        there.
        """
        teacher, late = self._teacher, 0  # in a row
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
                    except EvaluationError as error:
                        self._failed[str(error)] += 1
                        late = late + 1 if isinstance(error, LateError) else 0
                        if late >= 2 * teacher.concurrency or (late == len(waiting) and not sheet.answered):
                            raise ServingError(f"The teacher replies to nothing: {error}") from None
                        continue
                    late = 0
                    sheet.put({waiting[future]: reply})
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return sheet.answers()


def _lines(body: bytes) -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in body.splitlines()]
