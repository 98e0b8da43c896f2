from tests.unit.local.proxied import anyio_backend, client, running, start

__all__ = ["anyio_backend", "client", "running", "start"]
