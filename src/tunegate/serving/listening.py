"""Where a server listens: taken before its engine is started for nothing. Imports no server."""

from __future__ import annotations

import contextlib
import socket

from tunegate.api.errors import ServingError


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket that listens there already. Raises ServingError, naming the option that says which port."""
    with contextlib.ExitStack() as opened:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = opened.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            message = f"Can't listen on {host} port {port}: {error.strerror}; choose another {option}."
            raise ServingError(message) from None
        opened.pop_all()
    return listener
