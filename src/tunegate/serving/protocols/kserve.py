"""KServe's errors. Its health and metadata routes are those of its own application; answers have other protocols."""

from __future__ import annotations

import msgspec

from tunegate.serving.events import ApiError


def error(failed: ApiError, request_id: str = "") -> bytes:
    return msgspec.json.encode({"error": failed.message})
