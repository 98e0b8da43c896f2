"""Which version answers which conversation.

The platform writes a `Route` to a file and the proxy follows it; everything here is pure, so both sides and the tests
agree on it. A conversation belongs to one version for as long as the salt stays and the canary only grows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tunegate.api.codec import Resource
from tunegate.api.traffic import OPENAI_PREFIX, is_answer

FEEDBACK_PATHS = frozenset({"/v1/feedback", OPENAI_PREFIX + "/v1/feedback"})
CONVERSATION_HEADER = "x-conversation-id"

MOST_CONVERSATIONS = 100_000

Percent = Annotated[int, Meta(ge=0, le=100)]
BaseUrl = Annotated[str, Meta(pattern="^http://[^/]+$")]


class Backend(Resource, frozen=True, kw_only=True):
    """A server of one version.

    version: digest of the version.
    url: where its server listens, without a path: `http://127.0.0.1:8101`.
    weight: percent of the conversations.
    """

    version: str
    url: BaseUrl
    weight: Percent


class Route(Resource, frozen=True, kw_only=True):
    """Who serves now: no version, the stable one alone, or the stable one and, listed last, its canary.

    salt: the shuffle of the conversations. It should change with each promotion, so that it is not always the same
    people who try a candidate, and must stay the same during one.
    step: the label of the canary's step, which servers are told; empty while no candidate has traffic.
    """

    salt: str
    step: str = ""
    backends: tuple[Backend, ...] = ()

    def __post_init__(self) -> None:
        if not self.backends:
            return
        if len(self.backends) > 2:
            raise ValueError("a route has one stable backend and at most one canary after it")
        if len({backend.version for backend in self.backends}) < len(self.backends):
            raise ValueError(f"both backends of the route serve version {self.backends[0].version}")
        if (total := sum(backend.weight for backend in self.backends)) != 100:
            raise ValueError(f"the weights of a route add up to 100, not to {total}")


class ObservedBackend(Backend, frozen=True, kw_only=True):
    """A backend as the proxy uses it, with what happened to the questions that were sent to it.

    answers: answers (2xx) that went to clients since the proxy started; answers_since_change: since this route is used.
    conversations_since_change: how many conversations it answered since this route is used, MOST_CONVERSATIONS at most.
    errors: connections that failed, answers with a 5xx status and answers that broke off, since the proxy started.
    """

    answers: int
    answers_since_change: int
    conversations_since_change: int
    errors: int


class ObservedRoute(Resource, frozen=True, kw_only=True):
    """The route that decides the next request; `problem` says why the newest route file is not it, if so."""

    salt: str
    backends: tuple[ObservedBackend, ...]
    problem: str = ""


def targets(route: Route, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Sequence[Backend]:
    """The backends to try, in order; the next one only when the one before can't be reached.

    An answer is given by the version of its conversation, else by the stable one. Feedback may go to any, as they all
    know the key of the response ids. Everything else is for the one with most of the traffic, and so takes no turn.
    """
    if is_answer(method, path):
        chosen, stable = choose(route, conversation_of(headers, body)), route.backends[0]
        return (chosen,) if chosen == stable else (chosen, stable)
    most_first = sorted(route.backends, key=lambda backend: -backend.weight)
    return most_first if method == "POST" and path in FEEDBACK_PATHS else most_first[:1]


def choose(route: Route, conversation: str) -> Backend:
    """The backend of a conversation. `route` has at least one.

    The canary owns the positions below its weight: when the weight grows, conversations that are on the canary stay
    there and only some of the stable version's move.
    """
    stable, canary = route.backends[0], route.backends[-1]
    # A header can hold any bytes; aiohttp carries those that are not UTF-8 as surrogates.
    text = f"{route.salt}\n{conversation}".encode(errors="surrogateescape")
    position = int.from_bytes(hashlib.sha256(text).digest()[:8]) % 100
    return canary if position < canary.weight else stable


def conversation_of(headers: Mapping[str, str], body: bytes) -> str:
    """What stays the same through a conversation, from the request of any of its turns. Names of headers in lower case.

    That is the header `x-conversation-id`; without it, a hash of OpenAI's `user` field and the messages up to the
    first one of the user, which clients send again with each turn, DashScope's as `input`. `user` alone is not enough:
    an application that puts its own name there would send everybody to one version, and the weights would not hold.
    A body that is no chat is hashed as it is; saying what is wrong with it is for the server.
    """
    if given := headers.get(CONVERSATION_HEADER):
        return given
    try:
        request = msgspec.json.decode(body, type=_ChatRequest)
    except (msgspec.DecodeError, RecursionError):
        return hashlib.sha256(body).hexdigest()
    messages = request.messages if request.messages is not None else _messages(request.input)
    if messages is None:
        return hashlib.sha256(body).hexdigest()
    roles = [message.get("role") for message in messages]
    opening = messages[: roles.index("user") + 1] if "user" in roles else messages
    return hashlib.sha256(msgspec.json.encode([request.user, opening], order="sorted")).hexdigest()


class _Input(msgspec.Struct):
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[dict[str, Any]] | None = None
    history: list[dict[str, Any]] = []


class _ChatRequest(msgspec.Struct):
    messages: list[dict[str, Any]] | None = None
    input: _Input | None = None
    user: str | None = None


def _messages(given: _Input | None) -> list[dict[str, Any]] | None:
    """A DashScope conversation; its history begins with what was asked first."""
    if given is None:
        return None
    if given.messages is not None:
        return given.messages
    if isinstance(given.prompt, list):
        return given.prompt
    first = given.history[0].get("user") if given.history else given.prompt
    return [{"role": "user", "content": first}] if first else None
