"""What every protocol is: request bytes to an Ask, events to bytes, and errors in its own shape."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tunegate.serving.events import ApiError, Ask, Event, bad_request

Headers = Sequence[tuple[bytes, bytes]]


class Writer(typing.Protocol):
    """Events to the bytes of one answer."""

    def start(self) -> bytes:
        """What a stream begins with, before anything has been generated."""

    def write(self, event: Event) -> bytes:
        """What a stream says for an event; for Finished, that which ends it."""

    def whole(self, events: Iterable[Event]) -> bytes:
        """The answer in one piece; `events` hold a Finished."""

    def failure(self, error: ApiError) -> bytes:
        """What ends a stream in which something failed."""


@dataclass(frozen=True)
class Protocol:
    """One way in which clients speak.

    read: header names are in lower case; raises ApiError that names the field. writer: of an ask, the id of its answer,
    the model's name and the Unix time. error: of an error and the id of the request.
    """

    read: Callable[[bytes, Headers], Ask]
    writer: Callable[[Ask, str, str, int], Writer]
    error: Callable[[ApiError, str], bytes]


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object of a request, without its nulls. Raises ApiError 400."""
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise bad_request("The body is nested too deeply; flatten it.") from None
    if not isinstance(request, dict):
        raise bad_request("The body must be a JSON object.")
    return {key: value for key, value in request.items() if value is not None}


def check_messages(messages: Any, field: str = "messages") -> list[dict[str, Any]]:
    """Raises ApiError 400 unless they are a list of at least one message with a role."""
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise bad_request(f"{field} must be a list with at least one message.", field)
    if not all(isinstance(message.get("role"), str) for message in messages):
        raise bad_request(f"{field}: every message needs a role, such as 'user'.", field)
    return messages
