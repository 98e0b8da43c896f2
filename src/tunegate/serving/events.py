"""What is asked and what comes of it, in no protocol's words: an Ask, then events, or an ApiError at any point.

Steps of an agent and sources of knowledge become events here when there is something that makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ask:
    """What a client wants answered.

    fields: the rest of the request, such as sampling and lengths, by OpenAI's names.
    """

    model: str
    messages: list[dict[str, Any]]
    stream: bool = False
    include_usage: bool = False
    user: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """The next piece of the answer, or of the reasoning before it."""

    delta: str
    reasoning: bool = False


@dataclass(frozen=True)
class ToolCalls:
    """Calls that the model wants made, each whole, in OpenAI's form."""

    calls: list[dict[str, Any]]


@dataclass(frozen=True)
class Finished:
    """The end of a complete answer. usage: tokens by OpenAI's names."""

    reason: str
    usage: Mapping[str, Any] | None = None


Event = Text | ToolCalls | Finished


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


def bad_request(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> ApiError:
    return ApiError(status, message, reason="request", param=param, code=code)
