"""The router in front of all routes, and the little of another application that is reachable through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from tunegate.serving.events import bad_request
from tunegate.serving.http import error_response


class Front(Router):
    """A router whose own errors have the form that clients of their path can read; a 404 names what is `offered`."""

    def __init__(self, routes: Sequence[Route], offered: str) -> None:
        super().__init__(routes)
        self._offered = offered
        plain = (route for route in routes if "{" not in route.path)
        self._plain = {(method, route.path): route.app for route in plain for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if app := self._plain.get((scope["method"], scope["path"])):  # without trying all others
            await app(scope, receive, send)
            return
        scope["app"] = self  # starlette's routes then raise HTTPException instead of answering in plain text
        try:
            await super().__call__(scope, receive, send)
        except HTTPException as error:
            headers = error.headers or {}
            asked = f"{scope['method']} {scope['path'][:100]}"
            message = f"Nothing is served at {asked}; there is {self._offered}."
            if "Allow" in headers:
                message = f"{asked} is not allowed; use {headers['Allow']}."
            refused = bad_request(message, status=error.status_code)
            await error_response(refused, headers, scope["path"])(scope, receive, send)


@dataclass(frozen=True)
class ReadOnly:
    """Another application of which nothing is reachable but GET."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "method": "GET"}, receive, send)
