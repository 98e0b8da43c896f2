"""Names of versions: `<model>/<run>/checkpoint-<step>`, in the store, in URIs and on the command line."""

from __future__ import annotations

import re

from tunegate.api.errors import UsageError

_SEGMENT = r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?"
NAME = re.compile(rf"{_SEGMENT}/{_SEGMENT}/checkpoint-(?:0|[1-9][0-9]{{0,17}})")


def require_name(name: str) -> str:
    """The name, when it is `<model>/<run>/checkpoint-<step>`. Raises UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a version; write MODEL/RUN/checkpoint-STEP in lower-case letters, digits, '-' and '.', "
            "its URI in this store, or at least 8 digits of its digest."
        )
    return name
