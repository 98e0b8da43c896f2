"""How clients speak: pure functions between bytes and what they mean. Light: nothing here imports kserve."""

from __future__ import annotations

from collections.abc import Mapping

from tunegate.api.traffic import CHAT_PATH, COMPLETIONS_PATH, GENERATION_PATH, WHALE_CHAT_PATH
from tunegate.serving.events import ApiError
from tunegate.serving.protocols import kserve
from tunegate.serving.protocols.completions import TEXT
from tunegate.serving.protocols.dashscope import GENERATION
from tunegate.serving.protocols.openai import CHAT
from tunegate.serving.protocols.protocol import Protocol
from tunegate.serving.protocols.whale import WHALE

# Where each is spoken. The first two are also under KServe's prefix, /openai.
BY_PATH: Mapping[str, Protocol] = {
    CHAT_PATH: CHAT,
    COMPLETIONS_PATH: TEXT,
    GENERATION_PATH: GENERATION,
    WHALE_CHAT_PATH: WHALE,
}


def error_body(path: str, failed: ApiError, request_id: str) -> bytes:
    """An error in the shape that clients of `path` can read, whether something is served there or not."""
    if path.startswith("/api/v1/"):
        return GENERATION.error(failed, request_id)
    if path.startswith("/v2/"):
        return kserve.error(failed, request_id)
    return CHAT.error(failed, request_id)
