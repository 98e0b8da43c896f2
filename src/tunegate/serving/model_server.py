"""KServe's model server as an application, and our model's entry in its registry.

What of it can be reached, `app.front` says.
"""

from __future__ import annotations

import kserve
from fastapi import FastAPI
from kserve.errors import ModelNotReady, ServerNotReady
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.server import RESTServer
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from tunegate.serving.http import json_response


class Served(kserve.Model):  # type: ignore[misc]
    """The entry in KServe's registry that its health and metadata routes ask."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = False


class _DataPlane(DataPlane):  # type: ignore[misc]
    """KServe says that it is ready whatever its models say, and without any; ours is as ready as its model."""

    async def ready(self) -> bool:
        models = self.model_registry.get_models().values()
        return bool(models) and all(model.ready for model in models)


def kserve_app(served: Served) -> ASGIApp:
    """KServe's application: health, V1 and V2 routes, metrics.

    ModelServer.start() would bind 0.0.0.0, refuse a model that is not ready yet and leave uvloop aside, so we run its
    application ourselves.
    """
    kserve.model_server.args.configure_logging = False  # it would take its and uvicorn's lines out of our log's form
    server = kserve.ModelServer(enable_grpc=False)
    server.register_model(served)
    plane = _DataPlane(model_registry=server.registered_models)
    # KServe has one for the whole process, which would go on with the routes of a server before.
    app = kserve.model_server.app = FastAPI(title="KServe ModelServer", docs_url=None, redoc_url=None)
    RESTServer("kserve.model_server:app", plane, server.model_repository_extension, 0).create_application()
    app.add_exception_handler(ServerNotReady, _not_ready)  # KServe's own logs a traceback for each probe
    app.add_exception_handler(ModelNotReady, _not_ready)
    return app


def _not_ready(request: Request, error: Exception) -> Response:
    return json_response({"error": str(error)}, 503)
