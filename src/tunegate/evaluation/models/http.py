"""A model that answers at some URL in OpenAI's protocol: a server of ours, or any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openai import APIConnectionError, APIStatusError, DefaultHttpxClient, OpenAI

from tunegate.agent.calls import Choice
from tunegate.agent.steps import Reply, ToolCall
from tunegate.api.environment import API_KEY
from tunegate.api.errors import EvaluationError, ServingError, UsageError
from tunegate.certificates import Pinned
from tunegate.processes import is_loopback
from tunegate.prompts import Message
from tunegate.prompts.template import Limits

_SECONDS = 120.0
_SHOWN = 300  # characters of what a server says


class HttpModel:
    """Asks as the users of a release do: with its own sampling. Busy servers are asked again twice."""

    def __init__(
        self,
        url: str,
        model: str | None,
        api_key: str | None,
        *,
        option: str = "--url",
        key_in: str = API_KEY,
        certificate: Path | None = None,
    ) -> None:
        """`model` None takes the first that the server lists. option, key_in: where the user gave the URL and the key.
        certificate: the file with the one that the server has, where no CA that is trusted anyway vouches for it.

        Raises UsageError, or ServingError from the server.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{option} {url} is not a URL; write it as http://HOST:PORT.")
        self._option, self._key_in = option, key_in
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1"
        trusted = Pinned.to(certificate) if certificate else True
        # A proxy is for other machines.
        direct = DefaultHttpxClient(trust_env=not is_loopback(url), verify=trusted)
        self._client = OpenAI(base_url=self._url, api_key=api_key or "none", timeout=_SECONDS, http_client=direct)
        self._stops = True  # whether the server takes `stop`
        self.model = model or self._listed()

    def answer(self, messages: Sequence[Message], limits: Limits) -> str:
        """As `Answerer.answer`, of at most `limits.max_tokens` and cut off at `limits.stop`."""
        return self.reply(messages, limits)[0]

    def reply(self, messages: Sequence[Message], limits: Limits) -> tuple[str, int]:
        """The answer, and how many tokens it took where the server says so, else 0."""
        dialogue = [{"role": message.role, "content": message.content} for message in messages]
        message, tokens = self._message(dialogue, limits)
        text = message.content or ""
        return text[: min((text.find(stop) for stop in limits.stop if stop in text), default=len(text))], tokens

    def calls(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], choice: Choice, limits: Limits
    ) -> Reply:
        """What the model says where it may call tools, which the server's own parser has to read. Raises as `reply`."""
        message, tokens = self._message(list(messages), limits, tools=list(tools), tool_choice=choice)
        called = message.tool_calls or ()
        calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments or "") for call in called)
        return Reply(message.content or "", tokens, calls)

    def _message(self, dialogue: list[dict[str, Any]], limits: Limits, **more: Any) -> tuple[Any, int]:
        """The server's message, and how many tokens it took. Raises EvaluationError or ServingError."""
        options: dict[str, Any] = {"max_tokens": limits.max_tokens} if limits.max_tokens else {}
        if limits.stop and self._stops:
            options["stop"] = list(limits.stop)
        asked: Any = dialogue
        try:
            reply = self._client.chat.completions.create(model=self.model, messages=asked, **options, **more)
            return reply.choices[0].message, reply.usage.completion_tokens if reply.usage else 0
        except APIStatusError as error:
            if "stop" in options and error.status_code == 400 and error.param == "stop":
                self._stops = False  # an engine that can't: what comes after is cut off by `reply`
                return self._message(dialogue, limits, **more)
            if error.status_code in (401, 403, 404):
                raise ServingError(
                    f"{self._url} refuses: {reason_of(error).rstrip('.')}; check {self._option}, the model's name and "
                    f"the key in {self._key_in}."
                ) from None
            raise EvaluationError(reason_of(error)) from None
        except APIConnectionError as error:
            raise self._unreachable(error) from None
        except (AttributeError, IndexError, TypeError):  # whatever it is that a page or another protocol became
            raise ServingError(f"{self._url} does not answer as OpenAI's API does; check {self._option}.") from None

    def close(self) -> None:
        self._client.close()

    def _listed(self) -> str:
        try:
            return self._client.models.list().data[0].id
        except APIStatusError as error:
            raise ServingError(
                f"{self._url} refuses to list its models: {reason_of(error).rstrip('.')}; check {self._option} and the "
                f"key in {self._key_in}."
            ) from None
        except APIConnectionError as error:
            raise self._unreachable(error) from None
        except (IndexError, TypeError, AttributeError):
            raise ServingError(f"{self._url} lists no models as OpenAI's API does; check {self._option}.") from None

    def _unreachable(self, error: APIConnectionError) -> ServingError:
        return ServingError(
            f"Nothing answers at {self._url} ({error.__cause__ or error}); start a server or check {self._option}."
        )


def reason_of(error: APIStatusError) -> str:
    """What the server says, without what the client puts around it; of a page of HTML its status alone."""
    said: Any = error.body
    if isinstance(said, dict):  # FastAPI says `detail`, others a text as `error`
        said = next((said[key] for key in ("message", "detail", "error") if said.get(key)), None)
    text = " ".join(str(said or "").split())
    return text[:_SHOWN] if text and not text.startswith("<") else f"status {error.status_code}."
