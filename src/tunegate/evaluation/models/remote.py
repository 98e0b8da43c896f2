"""A version measured where it is served: our server with its whole release, or any other with OpenAI's API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Lock
from typing import Any

from openai import APIConnectionError, APIStatusError

from tunegate.api.errors import EvaluationError, ServingError
from tunegate.evaluation.models import Dialogue, Tokens
from tunegate.evaluation.models.http import HttpModel, reason_of
from tunegate.evaluation.sheets import Sheet

_SECONDS, _RETRIES = 600.0, 6  # a busy server is asked again for about a minute
_MOST_LOGPROBS = 20  # as many as vLLM tells unless it is started with more
VERSION_HEADER = "x-tunegate-version"


class RemoteModel(HttpModel):
    """Greedy, whatever defaults the server has; `concurrency` questions at once."""

    settings, probes = "url", ()
    remedy = "change it, or lower max_tokens or shots in suite.yaml"
    """What to do about a question that the server refuses."""

    def __init__(
        self, url: str, model: str | None, api_key: str | None, digest: str | None, concurrency: int, **given: Any
    ) -> None:
        """`digest` is the version's: a server that says it serves another is refused; None asks whatever is there.

        `given` and what it raises: as `HttpModel`.
        """
        super().__init__(url, model, api_key, **given)
        self._digest, self.concurrency = digest, concurrency
        self.tokens: Tokens | None = Tokens()
        self._counting = Lock()
        self._patient = self._client.with_options(timeout=_SECONDS, max_retries=_RETRIES)

    def answer(self, dialogues: Sequence[Dialogue], max_tokens: int, sheet: Sheet) -> None:  # type: ignore[override]
        """As `Model.answer`. Raises EvaluationError for what the server refuses, ServingError when it is away."""
        self._each(lambda place: self.ask(dialogues[place], max_tokens), len(dialogues), sheet)

    def ask(self, dialogue: Dialogue, max_tokens: int) -> str:
        """The answer to one dialogue. Raises as `answer`."""
        create = self._patient.chat.completions.with_raw_response.create
        reply = self._read(create, model=self.model, messages=dialogue, max_tokens=max_tokens, temperature=0)
        return str(reply.choices[0].message.content or "").strip()

    def complete(self, texts: Sequence[str], max_tokens: int, sheet: Sheet) -> None:
        """As `Model.complete`."""
        create = self._patient.completions.with_raw_response.create

        def ask(place: int) -> str:
            reply = self._read(create, model=self.model, prompt=texts[place], max_tokens=max_tokens, temperature=0)
            return str(reply.choices[0].text).strip()

        self._each(ask, len(texts), sheet)

    def choose(self, texts: Sequence[str], letters: Sequence[str], sheet: Sheet) -> None:
        """As `Model.choose`, by the log-probabilities that the server tells: None where no letter is among the 20
        likeliest tokens. Raises EvaluationError where it tells none.
        """
        create = self._patient.completions.with_raw_response.create
        options = {"model": self.model, "max_tokens": 1, "temperature": 0, "logprobs": _MOST_LOGPROBS}

        def ask(place: int) -> str | None:
            reply = self._read(create, prompt=texts[place], **options)
            told = reply.choices[0].logprobs
            if told is None or not told.top_logprobs:
                raise self._without_logprobs()
            found = {letter: told.top_logprobs[0][letter] for letter in letters if letter in told.top_logprobs[0]}
            return max(found, key=lambda letter: found[letter]) if found else None

        self._each(ask, len(texts), sheet)

    def _read(self, create: Callable[..., Any], **options: Any) -> Any:
        """One reply, of the version that is measured."""
        try:
            raw = create(**options)
            served = raw.headers.get(VERSION_HEADER, self._digest)
            reply = raw.parse()
            reply.choices[0]
        except APIStatusError as error:
            if error.status_code in (401, 403, 404) or error.status_code >= 500 or error.status_code == 429:
                raise ServingError(
                    f"{self._url} does not answer: {reason_of(error).rstrip('.')}; check {self._option}, the model's "
                    f"name and the key in {self._key_in}, or run the same command again later: answers so far are kept."
                ) from None
            if "logprobs" in options and "logprobs" in error.message:
                raise self._without_logprobs() from None
            reason = reason_of(error).rstrip(".")
            raise EvaluationError(f"{self._url} refuses a question: {reason}; {self.remedy}.") from None
        except APIConnectionError as error:
            raise self._unreachable(error) from None
        except (AttributeError, IndexError, TypeError, ValueError):
            raise ServingError(f"{self._url} does not answer as OpenAI's API does; check {self._option}.") from None
        if self._digest and served != self._digest:
            raise EvaluationError(f"{self._url} serves {served}, not {self._digest}; ask the server of that version.")
        self._count(reply.usage)
        return reply

    def _without_logprobs(self) -> EvaluationError:
        remedy = f"set mode: chat in suite.yaml, or leave out {self._option}"
        return EvaluationError(f"{self._url} tells no log-probabilities; {remedy}.")

    def _count(self, usage: Any) -> None:
        """A server that says nothing of one answer makes the sum unknown."""
        with self._counting:
            if usage is None:
                self.tokens = None
            elif self.tokens:
                self.tokens.read += usage.prompt_tokens or 0
                self.tokens.written += usage.completion_tokens or 0

    def _each(self, ask: Callable[[int], str | None], count: int, sheet: Sheet) -> None:
        """Ask every question that the sheet lacks. What was answered before one fails is kept."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            asked = {pool.submit(ask, place): place for place in range(count) if sheet.lacks([place])}
            try:
                for future in as_completed(asked):
                    sheet.put({asked[future]: future.result()})
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
