"""In front of all routes: who asks is known, and there is room for the request, before its body is read."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tunegate.serving.auth import Admission, ApiKey
from tunegate.serving.events import ApiError
from tunegate.serving.http import error_response, step_of
from tunegate.serving.metrics import Metrics

# What probes, Prometheus and a browser ask for before anybody could give a key. It shows what is served, no answers.
_OPEN = frozenset({"/", "/metrics", "/openapi.json", "/playground", "/v2"})
_OPEN_BELOW = ("/v2/", "/playground/")


@dataclass(frozen=True)
class Guard:
    """An ASGI application around another one. Limits are for what a client sends: what it only reads is cheap."""

    app: ASGIApp
    admission: Admission
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reads = scope["method"] in ("GET", "HEAD")
        path = scope["path"]
        if reads and (path in _OPEN or path.startswith(_OPEN_BELOW)):
            await self.app(scope, receive, send)
            return
        key: ApiKey | None = None
        headers = Headers(scope=scope)
        try:
            key = self.admission.identify(headers.get("authorization"))
            if not reads:
                self.admission.enter(key)
        except ApiError as error:
            self.metrics.refused(error.reason, key.name if key else "", step_of(headers))
            await error_response(error, path=path)(scope, receive, send)
            return
        if reads:
            await self.app(scope, receive, send)
            return
        try:
            self.metrics.admitted(key.name if key else "")
            await self.app(scope, receive, send)
        finally:
            self.admission.leave(key)
