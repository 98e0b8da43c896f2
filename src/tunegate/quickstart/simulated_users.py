"""Simulated shoppers: they ask through the real API and vote by rules on the answers they get.

They know the one URL and nothing of versions, so a version can only be liked or disliked for what it says.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient

from tunegate.shop.shoppers import Question, vote

MAX_TOKENS = 34  # of the longest dialogue; the base, which does not stop by itself, talks no longer


class SimulatedShoppers:
    """Shoppers in a thread of their own: each asks the next question in turn, until the `with` ends and all leave."""

    def __init__(self, url: str, model: str, questions: Sequence[Question], shoppers: int) -> None:
        self._url = url
        self._model = model
        self._questions = questions
        self._shoppers = shoppers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._open()), name="shoppers")

    def __enter__(self) -> SimulatedShoppers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _open(self) -> None:
        turns = itertools.count()
        direct = DefaultAsyncHttpxClient(trust_env=False)  # a proxy in the environment is for other machines
        options: Any = {"api_key": "none", "max_retries": 0, "http_client": direct}
        async with AsyncOpenAI(base_url=f"{self._url}/v1", **options) as client, asyncio.TaskGroup() as group:
            shoppers = [group.create_task(self._shop(client, turns)) for _ in range(self._shoppers)]
            await asyncio.to_thread(self._stop.wait)
            for shopper in shoppers:
                shopper.cancel()

    async def _shop(self, client: AsyncOpenAI, turns: itertools.count[int]) -> None:
        for turn in turns:
            try:
                await self._ask(client, turn)
            except (APIConnectionError, APIStatusError):
                # The platform or one of its servers is on its way; a shopper comes back.
                await asyncio.sleep(0.5)

    async def _ask(self, client: AsyncOpenAI, turn: int) -> None:
        round_, place = divmod(turn, len(self._questions))
        question = self._questions[place]
        answer = await client.chat.completions.create(
            model=self._model,
            messages=msgspec.to_builtins(question.messages),
            max_tokens=MAX_TOKENS,
            temperature=0,
            user=f"shopper-{turn}",  # a new one each time: of one user only the first few verdicts count
            extra_headers={"x-conversation-id": f"shopper-{turn}"},
        )
        judgment = vote(question, answer.choices[0].message.content or "", round_)
        body = {"response_id": answer.id, "verdict": judgment.verdict, "comment": judgment.reason}
        if judgment.correction:
            body["correction"] = judgment.correction
        await client.post("/feedback", body=body, cast_to=object)
