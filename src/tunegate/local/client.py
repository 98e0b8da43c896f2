"""Talking to a platform from outside its process: stop it, ask it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from openai import APIConnectionError, APIStatusError, DefaultHttpxClient, OpenAI

from tunegate.api.errors import ServingError
from tunegate.local.platform import Platform, PlatformConfig
from tunegate.local.state import Home
from tunegate.processes import answers, free_port

START_SECONDS = 120.0
# A server may take its 60 s for the answers under way; the store and the proxy end after it.
STOP_SECONDS = 90.0


def stop_platform(home: Home) -> bool:
    """End the platform that holds `home` and wait until it let go; False when there is none.

    Raises ServingError when it is still there after STOP_SECONDS.
    """
    running = home.running()
    if running is None:
        return False
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while home.running():
        if time.monotonic() > deadline:
            raise ServingError(f"Process {running.pid} does not stop; end it with: kill -9 {running.pid}")
        time.sleep(0.1)
    return True


def ask(home: Home, question: str, system: str = "") -> Iterator[str]:
    """The streamed answer of the model that serves now; the platform is started and stopped where none runs.

    Raises ServingError when no model answers.
    """
    facts = [{"role": "system", "content": system}] if system else []
    messages: Any = [*facts, {"role": "user", "content": question}]
    with _platform_url(home) as url:
        direct = DefaultHttpxClient(trust_env=False)  # a proxy in the environment is for other machines
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=direct)
        try:
            served = client.models.list().data[0].id
            stream = client.chat.completions.create(model=served, messages=messages, stream=True)
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
        except APIStatusError as error:
            raise ServingError(f"The model did not answer: {error.message}") from None
        except APIConnectionError as error:
            remedy = f"see: tunegate local status {home.option}"
            raise ServingError(f"Nothing answers at {url} ({error.__cause__ or error}); {remedy}") from None


@contextlib.contextmanager
def _platform_url(home: Home) -> Iterator[str]:
    if running := home.running():
        yield running.url
        return
    platform_only_for_this = PlatformConfig(home=home, port=free_port())
    with Platform.open(platform_only_for_this) as platform, platform.running(lambda event: None):
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"{platform.url}/v2/health/ready"):
            if time.monotonic() > deadline:
                raise ServingError(f"No model was ready after {START_SECONDS:.0f} s; the logs are in {home.logs}.")
            time.sleep(0.2)
        yield platform.url
