"""KServe's model server as an application, and our model's entry in its registry.

What of it can be reached, `app.front` says. None of that needs what `import kserve` brings besides: a client of
Kubernetes, a hundred kinds of objects, and pandas for the bodies of predictions, together a fifth of the time in which
a server is imported and two fifths of its memory.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from tunegate.serving.http import json_response


@contextmanager
def _alone(package: str, without: str) -> Iterator[None]:
    """Import here modules of `package`: not all that it imports itself, and not `without`, of which they only name a
    type. Where one of them is there already it is taken."""
    if package not in sys.modules and (spec := importlib.util.find_spec(package)):
        sys.modules[package] = importlib.util.module_from_spec(spec)
    stand_in = ModuleType(without)
    stand_in.DataFrame = object  # type: ignore[attr-defined]
    sys.modules.setdefault(without, stand_in)
    try:
        yield
    finally:
        if sys.modules[without] is stand_in:
            del sys.modules[without]


with _alone("kserve", without="pandas"):
    from kserve import model_server
    from kserve.errors import ModelNotReady, ServerNotReady
    from kserve.model import Model
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.rest.server import RESTServer


class Served(Model):  # type: ignore[misc]
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
    model_server.args.configure_logging = False  # it would take its and uvicorn's lines out of our log's form
    server = model_server.ModelServer(enable_grpc=False)
    server.register_model(served)
    plane = _DataPlane(model_registry=server.registered_models)
    # KServe has one for the whole process, which would go on with the routes of a server before.
    app = model_server.app = FastAPI(title="KServe ModelServer", docs_url=None, redoc_url=None)
    RESTServer("kserve.model_server:app", plane, server.model_repository_extension, 0).create_application()
    app.add_exception_handler(ServerNotReady, _not_ready)  # KServe's own logs a traceback for each probe
    app.add_exception_handler(ModelNotReady, _not_ready)
    return app


def _not_ready(request: Request, error: Exception) -> Response:
    return json_response({"error": str(error)}, 503)
