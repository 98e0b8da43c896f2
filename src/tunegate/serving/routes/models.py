"""Which model is served, in OpenAI's form with KServe's fields beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tunegate.api.versions import ModelVersion
from tunegate.serving.events import bad_request
from tunegate.serving.http import error_response, json_response


@dataclass(frozen=True)
class Models:
    """`GET /v1/models` and `/v1/models/NAME`, and KServe's metadata.

    parts: what the release has besides its weights: the digests of its prompts and its index, and its tools.
    """

    name: str
    version: ModelVersion
    ready: Callable[[], bool]
    parts: Mapping[str, Any] = field(default_factory=dict)

    async def listing(self, request: Request) -> Response:
        return json_response({"object": "list", "data": [self._entry()], "models": [self.name]})

    async def one(self, request: Request) -> Response:
        asked = request.path_params["name"]
        if not asked:
            return await self.listing(request)
        if asked != self.name:
            message = f"The model {asked[:100]!r} does not exist here; the model served is {self.name!r}."
            return error_response(bad_request(message, "model", "model_not_found", status=404))
        body = {**self._entry(), "name": self.name, "ready": self.ready()}
        return json_response(body, 200 if self.ready() else 503)

    async def metadata(self, request: Request) -> Response:
        """As KServe's V2 protocol has it. There are no tensors to name: texts go in and out by other routes."""
        asked = request.path_params["name"]
        if asked != self.name:
            message = f"The model {asked[:100]!r} does not exist here; the model served is {self.name!r}."
            return error_response(bad_request(message, status=404), path="/v2/")
        about = {"name": self.name, "versions": [self.version.digest], "platform": self.version.format}
        parameters = {"parameters": self.parts} if self.parts else {}
        return json_response({**about, "inputs": [], "outputs": [], **parameters})

    def _entry(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": "model",
            "created": int(self.version.created.timestamp()),
            "owned_by": "tunegate",
            "version": self.version.name,
            "digest": self.version.digest,
            **({"release": self.parts} if self.parts else {}),
        }
