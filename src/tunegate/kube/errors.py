"""What the API server answers when it does not do what it was asked, as one tree.

ClusterError              it refused
├── ConflictError         the object changed meanwhile, or a field belongs to somebody else; read it again
│   └── ExistsError       an object of that name is there already
├── ForbiddenError        the credentials are not known, or have no right to this
├── InvalidError          the object breaks its schema or a validation rule
├── MissingError          the kind, the namespace or the object isn't there
├── WebhookError         a webhook that it has to ask about this object can't be called
├── ExpiredError          the resource version is older than what the API server remembers: list again
└── UnreachableError      no answer, or one that says: later
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tunegate.api.errors import TunegateError


class ClusterError(TunegateError):
    pass


class ConflictError(ClusterError):
    pass


class ExistsError(ConflictError):
    pass


class ForbiddenError(ClusterError):
    pass


class InvalidError(ClusterError):
    pass


class MissingError(ClusterError):
    pass


class ExpiredError(ClusterError):
    pass


class WebhookError(ClusterError):
    pass


class UnreachableError(ClusterError):
    pass


class Status(msgspec.Struct):
    """The object that the API server refuses with; for an invalid object the message names every cause."""

    message: str = ""
    reason: str = ""
    code: int = 500


_KINDS: Mapping[int, type[ClusterError]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: MissingError,
    409: ConflictError,
    410: ExpiredError,
    422: InvalidError,
    429: UnreachableError,
}


# Made here, in one thread: many watches may be refused at once.
_STATUS = msgspec.json.Decoder(Status)


def read_status(code: int, body: bytes) -> Status:
    """The Status in an answer; something that stands before the API server may answer with other text."""
    try:
        status = _STATUS.decode(body)
    except msgspec.DecodeError:
        return Status(message=body.decode(errors="replace")[:500], code=code)
    return Status(status.message, status.reason, code)


def error_of(status: Status, request: str = "") -> ClusterError:
    """The error that a Status stands for; `request` says what was asked."""
    message = f"{status.message} ({request})" if request else status.message
    if status.reason == "AlreadyExists":
        return ExistsError(message)
    # An unknown field of a built-in kind: the server says 500 and gives no reason.
    if status.code == 500 and "field not declared in schema" in status.message:
        return InvalidError(message)
    if status.code >= 500 and "failed calling webhook" in status.message:
        return WebhookError(message)
    return _KINDS.get(status.code, UnreachableError if status.code >= 500 else ClusterError)(message)
