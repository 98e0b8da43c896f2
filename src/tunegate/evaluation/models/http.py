"""A model that answers at some URL in OpenAI's protocol: a server of ours, or any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openai import APIConnectionError, APIStatusError, DefaultHttpxClient, OpenAI

from tunegate.api.environment import API_KEY
from tunegate.api.errors import EvaluationError, ServingError, UsageError
from tunegate.processes import is_loopback
from tunegate.prompts import Message
from tunegate.prompts.template import Limits

_SECONDS = 120.0
_CHECK = f"check --url, the model's name and the key in {API_KEY}"


class HttpModel:
    """Asks as the users of a release do: with its own sampling. Busy servers are asked again twice."""

    def __init__(self, url: str, model: str | None, api_key: str | None) -> None:
        """`model` None takes the first that the server lists. Raises UsageError, or ServingError from the server."""
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--url {url} is not a URL; write it as http://HOST:PORT.")
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1"
        direct = DefaultHttpxClient(trust_env=not is_loopback(url))  # a proxy is for other machines
        self._client = OpenAI(base_url=self._url, api_key=api_key or "none", timeout=_SECONDS, http_client=direct)
        self._stops = True  # whether the server takes `stop`
        self.model = model or self._listed()

    def answer(self, messages: Sequence[Message], limits: Limits) -> str:
        """As `Answerer.answer`, of at most `limits.max_tokens` and cut off at `limits.stop`."""
        return self.reply(messages, limits)[0]

    def reply(self, messages: Sequence[Message], limits: Limits) -> tuple[str, int]:
        """The answer, and how many tokens it took where the server says so, else 0."""
        options: dict[str, Any] = {"max_tokens": limits.max_tokens} if limits.max_tokens else {}
        if limits.stop and self._stops:
            options["stop"] = list(limits.stop)
        dialogue: Any = [{"role": message.role, "content": message.content} for message in messages]
        try:
            reply = self._client.chat.completions.create(model=self.model, messages=dialogue, **options)
            text = reply.choices[0].message.content or ""
            tokens = reply.usage.completion_tokens if reply.usage else 0
        except APIStatusError as error:
            if "stop" in options and error.status_code == 400 and error.param == "stop":
                self._stops = False  # an engine that can't: what comes after is cut off below
                return self.reply(messages, limits)
            if error.status_code in (401, 403, 404):
                raise ServingError(f"{self._url} refuses: {_reason(error).rstrip('.')}; {_CHECK}.") from None
            raise EvaluationError(_reason(error)) from None
        except APIConnectionError as error:
            raise self._unreachable(error) from None
        except (AttributeError, IndexError, TypeError):  # whatever it is that a page or another protocol became
            raise ServingError(f"{self._url} does not answer as OpenAI's API does; check --url.") from None
        return text[: min((text.find(stop) for stop in limits.stop if stop in text), default=len(text))], tokens

    def close(self) -> None:
        self._client.close()

    def _listed(self) -> str:
        try:
            return self._client.models.list().data[0].id
        except APIStatusError as error:
            raise ServingError(
                f"{self._url} refuses to list its models: {_reason(error).rstrip('.')}; {_CHECK}."
            ) from None
        except APIConnectionError as error:
            raise self._unreachable(error) from None
        except (IndexError, TypeError, AttributeError):
            raise ServingError(f"{self._url} lists no models as OpenAI's API does; check --url.") from None

    def _unreachable(self, error: APIConnectionError) -> ServingError:
        return ServingError(
            f"Nothing answers at {self._url} ({error.__cause__ or error}); start a server or check --url."
        )


def _reason(error: APIStatusError) -> str:
    """What the server says, without what the client puts around it."""
    body: Any = error.body
    return str(body["message"]) if isinstance(body, dict) and "message" in body else f"status {error.status_code}."
