"""`TextGeneration` as programs for Whale call it, in front of a tunegate server: copy it beside your program."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PATH = "/api/v2/services/aigc/text-generation/v1/chat/completions"


@dataclass(frozen=True)
class Event:
    status_code: int = 200
    status_message: str = ""
    finished: bool = False
    output: dict[str, Any] = field(default_factory=lambda: {"response": ""})


class TextGeneration:
    _key, _url = "", ""

    @classmethod
    def set_api_key(cls, api_key: str, base_url: str) -> None:
        cls._key, cls._url = api_key, base_url

    @classmethod
    def call(
        cls, model: str, prompt: str, timeout: float = 120, streaming: bool = True, generate_config: Any = None
    ) -> Iterator[Event]:
        body = {"model": model, "messages": json.loads(prompt), "stream": streaming, "generate_config": generate_config}
        at = urlsplit(cls._url)
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        connection = kind(at.netloc, timeout=timeout)
        headers = {"Authorization": f"Bearer {cls._key}", "Content-Type": "application/json"}
        connection.request("POST", at.path.rstrip("/") + PATH, json.dumps(body), headers)
        try:
            yield from cls._events(connection.getresponse(), streaming)
        finally:
            connection.close()

    @staticmethod
    def _events(response: http.client.HTTPResponse, streaming: bool) -> Iterator[Event]:
        if response.status != 200 or not streaming:
            yield _event(json.load(response), response.status)
            return
        for line in response:
            if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                yield _event(json.loads(line[5:]), 500)


def _event(said: dict[str, Any], status: int) -> Event:
    if "error" in said:
        return Event(status, said["error"]["message"], finished=True)
    choice = said["choices"][0]
    text = (choice.get("message") or choice["delta"]).get("content") or ""
    return Event(finished=choice.get("finish_reason") is not None, output={"response": text})
