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
def _alone() -> Iterator[None]:
    """Import modules of KServe here without all that its package imports, and without pandas, of which they only name a
    type. Whoever imports `kserve` elsewhere gets it whole."""
    pandas = ModuleType("pandas")
    pandas.DataFrame = object  # type: ignore[attr-defined]
    stand_ins = {"pandas": pandas}
    if "kserve" not in sys.modules and (spec := importlib.util.find_spec("kserve")):
        stand_ins["kserve"] = importlib.util.module_from_spec(spec)
    for name, stand_in in stand_ins.items():
        sys.modules.setdefault(name, stand_in)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules[name] is stand_in:
                del sys.modules[name]


with _alone():
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
    with _alone():
        RESTServer("kserve.model_server:app", plane, server.model_repository_extension, 0).create_application()
    app.add_exception_handler(ServerNotReady, _not_ready)  # KServe's own logs a traceback for each probe
    app.add_exception_handler(ModelNotReady, _not_ready)
    return app


def _not_ready(request: Request, error: Exception) -> Response:
    return json_response({"error": str(error)}, 503)
