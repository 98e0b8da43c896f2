"""What gateways, the local proxy and servers agree on: which requests are answers, and at which step of a canary."""

from __future__ import annotations

import re

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
# DashScope's, and the alias under which Whale answers as OpenAI does.
GENERATION_PATH = "/api/v1/services/aigc/text-generation/generation"
WHALE_CHAT_PATH = "/api/v2/services/aigc/text-generation/v1/chat/completions"
OPENAI_PREFIX = "/openai"

ANSWER_PATHS = (
    CHAT_PATH,
    COMPLETIONS_PATH,
    OPENAI_PREFIX + CHAT_PATH,
    OPENAI_PREFIX + COMPLETIONS_PATH,
    GENERATION_PATH,
    WHALE_CHAT_PATH,
)
"""The paths that are answered by POST. Weights share these requests and no others; a rule takes 8 of them at most."""

STEP_HEADER = "tunegate-step"
"""The request header by which whoever splits the traffic tells servers the step; what clients send does not pass."""

_NAMESPACE, _NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_LABEL = re.compile(rf"((?:{_NAMESPACE}/)?{_NAME})/(0|[1-9][0-9]{{0,2}})")


def is_answer(method: str, path: str) -> bool:
    """Whether a request is for an answer, so that the weights share it."""
    return method == "POST" and path in ANSWER_PATHS


def step_label(promotion: str, index: int) -> str:
    """The value of the header at a step of a promotion, such as `team-a/shop-run-7-0123456789ab/0`; `promotion` has its
    namespace before it, where there is one.

    `index` counts the policy's steps below 100 % from 0; at 100 %, while baking, it is their number.
    """
    return f"{promotion}/{index}"


def parse_step(label: str) -> tuple[str, int] | None:
    """The promotion's name with its namespace, and the step's index; None when it is not what `step_label` makes."""
    found = _LABEL.fullmatch(label)
    return (found[1], int(found[2])) if found else None
