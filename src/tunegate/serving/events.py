"""What is asked and what comes of it, in no protocol's words: an Ask, then events, or an ApiError at any point."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ask:
    """What a client wants answered: a chat or, instead of messages, a prompt that the model continues as it stands.

    fields: the rest of the request, such as sampling and lengths, by OpenAI's names. names: what the client calls a
    field where that is another. native: engines' own bytes are what the client is to get. incremental, as_message: how
    the client wants the answer, where its protocol leaves a choice. search: something is to be searched for;
    with_sources: it wants to see what was found. token_ids: ids that it takes to be the model's, by name. notes: what
    it is told beside the answer.
    """

    model: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    prompt: str | list[Any] | None = None
    stream: bool = False
    include_usage: bool = False
    user: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    native: bool = True
    incremental: bool = False
    as_message: bool = False
    search: bool = False
    with_sources: bool = True
    token_ids: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """The next piece of the answer, or of the reasoning before it."""

    delta: str
    reasoning: bool = False


@dataclass(frozen=True)
class ToolCalls:
    """Calls that the model wants made, or pieces of them, in OpenAI's form: `index` counts up, and the first piece of
    each has its id, type and name."""

    calls: list[dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """A tool that was asked on the way to the answer. number: from 1; seconds: how long the tool took.

    failed: what is observed is not what the tool found, but why it found nothing.
    """

    number: int
    thought: str
    tool: str
    input: str
    observation: str
    seconds: float
    failed: bool = False


@dataclass(frozen=True)
class Source:
    """What an answer may cite. number: what the answer calls it, from 1; uri: where it is, as its author names it;
    page, line: where in it, from 1; score: how well it fits, higher is better; text: how it begins."""

    number: int
    title: str
    uri: str
    score: float | None = None
    text: str = ""
    page: int | None = None
    line: int | None = None


@dataclass(frozen=True)
class Sources:
    """What the model is given to answer from. None: nothing was found that would answer."""

    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Cited:
    """A place in the answer's text that cites a source. start, end: in characters of the text so far."""

    source: Source
    start: int
    end: int


@dataclass(frozen=True)
class Used:
    """How many tokens the answer has taken so far, by OpenAI's names."""

    usage: Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """The end of a complete answer. usage: tokens by OpenAI's names. cited: the numbers of the sources that it cites;
    None where there were none to cite."""

    reason: str
    usage: Mapping[str, Any] | None = None
    cited: tuple[int, ...] | None = None


Event = Text | ToolCalls | Step | Sources | Cited | Used | Finished
Asking = Callable[[Ask], AbstractAsyncContextManager[AsyncIterator[Event]]]
"""A model: the events of an answer, as soon as it has taken the question; ApiError where it doesn't."""


class ApiError(Exception):
    """A refusal or failure that the client is told of. `reason` is the label it is counted under.

    retry_after: the seconds after which asking again may help.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.param = param
        self.code = code
        self.retry_after = 1 if retry_after is None and status == 503 else retry_after

    def named(self, names: Mapping[str, str]) -> ApiError:
        """The same with a field called as its client calls it."""
        name = names.get(self.param or "")
        if name is None or self.param is None:
            return self
        message = self.message.replace(self.param, name)
        after = self.retry_after
        return ApiError(self.status, message, reason=self.reason, param=name, code=self.code, retry_after=after)


def bad_request(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> ApiError:
    return ApiError(status, message, reason="request", param=param, code=code)
