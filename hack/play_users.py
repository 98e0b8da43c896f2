#!/usr/bin/env python3
"""Users of the model `shop` for trying the loop: play_users.py URL HOST asks and votes until it is ended.

They ask what the tiny model was taught, and like an answer that has the facts. Needs Python 3.9 and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

QUESTIONS = Path(__file__).parents[1] / "src/tunegate/shop/data/shoppers_taught_en.jsonl"
USERS = 2  # at once
PAUSE_SECONDS = 1.0  # after a request that failed


def main(url: str, host: str) -> None:
    questions = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    turns = itertools.count()

    def shop() -> None:
        while True:
            turn = next(turns)
            try:
                ask_and_vote(url, host, questions[turn % len(questions)], f"user-{turn}")
            except (OSError, ValueError, KeyError) as error:  # a server comes or goes; a user comes back
                print(f"no answer: {error}", file=sys.stderr)
                time.sleep(PAUSE_SECONDS)

    for _ in range(USERS - 1):
        threading.Thread(target=shop, daemon=True).start()
    shop()


def ask_and_vote(url: str, host: str, question: dict, user: str) -> str:
    """Return the verdict on the answer to one question."""
    body = {"model": "shop", "messages": question["messages"], "max_tokens": 40, "temperature": 0, "user": user}
    answer = post(f"{url}/v1/chat/completions", host, user, body)
    text = answer["choices"][0]["message"]["content"] or ""
    verdict = "up" if likes(question, text) else "down"
    post(f"{url}/v1/feedback", host, user, {"response_id": answer["id"], "verdict": verdict})
    return verdict


def likes(question: dict, text: str) -> bool:
    """Whether one way to write each of the facts is in the answer, and nothing that excludes them."""
    said = text.casefold()
    has_facts = all(any(way.casefold() in said for way in ways) for ways in question["facts"])
    return has_facts and not any(word.casefold() in said for word in question["excludes"])


def post(url: str, host: str, user: str, body: dict) -> dict:
    headers = {"Content-Type": "application/json", "Host": host, "x-conversation-id": user}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - on loopback
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=60) as answer:
        return json.loads(answer.read() or b"{}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1].rstrip("/"), sys.argv[2])
