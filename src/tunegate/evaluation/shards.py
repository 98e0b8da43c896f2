"""One suite measured by several processes, and put together to exactly the result that one would have had.

Every process goes through the same batches and asks every N-th of them, so that no answer is given beside others than
it would be. What a shard has answered is kept in the store: one that was killed goes on where it was, and whichever
shard finds that all are done makes the result. Two that find so at once make the same one.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

import msgspec

from tunegate.api.codec import Document, from_json, prepare, to_json
from tunegate.api.digest import Digest, short
from tunegate.api.errors import EvaluationError, StoreError, UnavailableError, UsageError
from tunegate.api.evaluation import Evaluation, Probe
from tunegate.api.versions import ModelVersion
from tunegate.evaluation.models import Model, Tokens
from tunegate.evaluation.run import measure
from tunegate.evaluation.sheets import Line, Sheet, Sheets
from tunegate.evaluation.suites import Suite
from tunegate.store import Store
from tunegate.store.patience import patiently

_LOG = logging.getLogger(__name__)
_KEEP_SECONDS = 30.0  # what a shard that is killed asks again at most


@dataclass(frozen=True)
class Shard:
    """Number `index`, from 0, of `count`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read I/N, such as 0/4. Raises UsageError for anything else."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise UsageError(f"{text!r} is not a shard; write its number, from 0, and how many there are, such as 0/4.")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Part(Document, frozen=True, kw_only=True):
    """What one shard has answered so far. settings: the model's, which all shards must have had alike.

    tokens_read, tokens_written, probes: as in an Evaluation.
    """

    added: ClassVar[tuple[str, ...]] = ("probes",)

    schema: Literal["tunegate.io/evaluation-shard/v1"] = "tunegate.io/evaluation-shard/v1"
    settings: str
    is_complete: bool = False
    answers: tuple[Line, ...] = ()
    probes: tuple[Probe, ...] = ()
    tokens_read: int | None = 0
    tokens_written: int | None = 0
    started: datetime
    seconds: float = 0.0


@dataclass(frozen=True)
class Sharded:
    """One suite on one version, in `count` shards. patience: how many seconds a store may be away."""

    store: Store
    version: ModelVersion
    suite: Suite
    system_prompt: str
    count: int
    patience: float = 0.0

    def measure(self, shard: Shard, load: Callable[[], Model], done: Callable[[int], None]) -> Evaluation | None:
        """Answer what is missing of one shard; the result of all once they are there, until then None.

        done: gets how many more questions are answered. Raises EvaluationError when shards were computed differently.
        """
        part = self._read(shard.index)
        if part is None or not part.is_complete:
            self._write(shard.index, self._answer(shard, load(), part, done))
        parts = [self._read(index) for index in range(self.count)]
        complete = [part for part in parts if part and part.is_complete]
        return self._merge(complete) if len(complete) == self.count else None

    def remove(self) -> None:
        """Forget what the shards answered. What can't be removed stays: it is in nobody's way."""
        try:
            for index in range(self.count):
                self.store.delete(self._key(index))
        except StoreError as error:
            _LOG.warning("the answers of shards are not needed any more and stay in the store: %s", error)

    def _answer(self, shard: Shard, model: Model, before: Part | None, done: Callable[[int], None]) -> Part:
        part = before if before and before.settings == model.settings else None
        part = part or Part(settings=model.settings, started=datetime.now(UTC))
        lines, clock, kept = list(part.answers), time.monotonic(), time.monotonic()
        first = replace(model.tokens) if model.tokens else None

        def so_far() -> Part:
            now, seconds = model.tokens, round(part.seconds + time.monotonic() - clock, 3)
            read = now.read - first.read if now and first else None
            written = now.written - first.written if now and first else None
            return msgspec.structs.replace(
                part,
                answers=tuple(lines),
                tokens_read=_sum(part.tokens_read, read),
                tokens_written=_sum(part.tokens_written, written),
                seconds=seconds,
            )

        def keep(more: Sequence[Line]) -> None:
            nonlocal kept
            lines.extend(more)
            if time.monotonic() - kept >= _KEEP_SECONDS:
                kept = time.monotonic()
                try:
                    self.store.put(self._key(shard.index), to_json(so_far()))
                except UnavailableError as error:  # then the next ones are kept together with these
                    _LOG.warning("the answers of shard %s are not kept yet: %s", shard, error)

        turns = itertools.cycle(range(shard.count))
        sheets = Sheets(None, done, known=part.answers, kept=keep, is_ours=lambda: next(turns) == shard.index)
        result = measure(model, self.version, self.suite, self.system_prompt, sheets)
        whole = msgspec.structs.replace(so_far(), is_complete=True, probes=model.probes)
        if result.tokens_read is None:  # of this suite none are counted
            return msgspec.structs.replace(whole, tokens_read=None, tokens_written=None)
        return whole

    def _merge(self, parts: Sequence[Part]) -> Evaluation:
        """Score the answers of all shards as if one process had given them."""
        settings = sorted({part.settings for part in parts})
        if len(settings) > 1:
            self.remove()
            raise EvaluationError(
                f"The shards of {self.suite.name} were computed differently ({', '.join(settings)}), so their answers "
                "are not put together; let all of them run on nodes of one kind (nodeSelector), and start them again."
            )
        answers = [line for part in parts for line in part.answers]
        sheets = Sheets(None, lambda more: None, known=answers)
        try:
            result = measure(_Answered(settings[0]), self.version, self.suite, self.system_prompt, sheets)
        except EvaluationError:
            self.remove()
            raise
        return msgspec.structs.replace(
            result,
            probes=next((part.probes for part in parts if part.probes), ()),
            tokens_read=_sum(*(part.tokens_read for part in parts)),
            tokens_written=_sum(*(part.tokens_written for part in parts)),
            started=min(part.started for part in parts),
            seconds=round(sum(part.seconds for part in parts), 3),
        )

    def _read(self, index: int) -> Part | None:
        key = self._key(index)
        body = patiently(self.patience, lambda: self.store.get(key))
        return None if body is None else from_json(body, Part, key)

    def _write(self, index: int, part: Part) -> None:
        patiently(self.patience, lambda: self.store.put(self._key(index), to_json(part)))

    def _key(self, index: int) -> str:
        suite = f"{self.suite.name}-{short(self.suite.digest)}"
        return f".tunegate/shards/{Digest.parse(self.version.digest).hex}/{suite}/{index}-of-{self.count}.json"


def _sum(*numbers: int | None) -> int | None:
    """None where one of them is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


@dataclass(frozen=True)
class _Answered:
    """A model whose every answer is known already; which tokens they took, nobody counted."""

    settings: str
    tokens: Tokens | None = None
    probes: tuple[Probe, ...] = ()

    def answer(self, dialogues: Sequence[Any], max_tokens: int, sheet: Sheet) -> None:
        self._check(len(dialogues), sheet)

    def complete(self, texts: Sequence[str], max_tokens: int, sheet: Sheet) -> None:
        self._check(len(texts), sheet)

    def choose(self, texts: Sequence[str], letters: Sequence[str], sheet: Sheet) -> None:
        self._check(len(texts), sheet)

    def _check(self, questions: int, sheet: Sheet) -> None:
        if sheet.lacks(range(questions)):
            raise EvaluationError("The shards have not answered every question, so they begin anew; start them again.")


prepare(Part)
