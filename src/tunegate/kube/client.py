"""The only module that talks to the API server: any kind, as plain dicts, with timeouts and a small tree of errors.

It knows paths and verbs, and nothing of what the objects mean. Built on the official client's transport, which brings
kubeconfig, in-cluster tokens and TLS; its typed models are left aside, since half of our kinds have none.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tunegate.api.errors import TunegateError, UsageError
from tunegate.api.labels import GROUP
from tunegate_operator import __version__
from tunegate_operator.types import MANAGER, Object

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes.client.rest import RESTResponse

log = logging.getLogger(__name__)

Objects = list[Object]

CONTROLLER = f"{GROUP}/operator"
TIMEOUT_SECONDS = 10.0
PAGE = 500
# More than the watches and workers there are, so that no connection is thrown away.
CONNECTIONS = 64
DISCOVERY_SECONDS = 60.0
# Clocks that are this near count as one: the API server tells its time in whole seconds, and an answer takes a while.
SAME_TIME_SECONDS = 5.0


class ClusterError(TunegateError):
    """The API server refused, or can't be reached."""


class ConflictError(ClusterError):
    """The object changed meanwhile, or a field belongs to somebody else; read it again."""


class ForbiddenError(ClusterError):
    pass


class UnreachableError(ClusterError):
    """No answer, or one that says: later."""


class InvalidError(ClusterError):
    """The object breaks its schema or a validation rule."""


class MissingError(ClusterError):
    """The kind, the namespace or the object isn't there."""


class ExpiredError(ClusterError):
    """The resource version is older than what the API server remembers: list again."""


@dataclass(frozen=True)
class Kind:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def api_path(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Of one object, or of all; without a namespace, in all of them."""
        within = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.api_path}{within}/{self.plural}" + (f"/{name}" if name else "")

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


MODEL_VERSION = Kind(GROUP, "v1alpha1", "modelversions", "ModelVersion")
POLICY = Kind(GROUP, "v1alpha1", "promotionpolicies", "PromotionPolicy")
PROMOTION = Kind(GROUP, "v1alpha1", "promotions", "Promotion")
JOB = Kind("batch", "v1", "jobs", "Job")
POD = Kind("", "v1", "pods", "Pod")
SERVICE = Kind("", "v1", "services", "Service")
INFERENCE_SERVICE = Kind("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
PYTORCH_JOB = Kind("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob")
TRAIN_JOB = Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob")
EVENT = Kind("events.k8s.io", "v1", "events", "Event")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")

_KINDS = {
    (each.api_version, each.kind): each
    for each in (
        MODEL_VERSION, POLICY, PROMOTION, JOB, POD, SERVICE, INFERENCE_SERVICE, HTTP_ROUTE, PYTORCH_JOB, TRAIN_JOB,
        EVENT, LEASE,
    )
}  # fmt: skip


def kind_of(obj: Object) -> Kind:
    return _KINDS[obj["apiVersion"], obj["kind"]]


def connect() -> ApiClient:
    """A client with the pod's service account, or with what KUBECONFIG says. Raises UsageError."""
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise UsageError(f"No cluster to talk to ({error}); set KUBECONFIG, or run in a pod.") from None
    configuration.connection_pool_maxsize = CONNECTIONS
    # A try has its time limit; whether there is another one is the caller's business.
    configuration.retries = False
    configuration.keep_alive = True  # what stands between drops a connection that is quiet for long
    api = client.ApiClient(configuration)
    api.user_agent = f"tunegate-operator/{__version__}"
    return api


class Stream:
    """One open watch: iterate over its events, from whichever thread; `close` ends it at once."""

    def __init__(self, response: RESTResponse) -> None:
        self._response = response.response

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        """Yields (ADDED | MODIFIED | DELETED | BOOKMARK, object). Raises ClusterError."""
        import urllib3

        try:
            for line in _lines(self._response.stream(amt=None, decode_content=False)):
                event = msgspec.json.decode(line)
                if event["type"] == "ERROR":
                    raise _error(event["object"].get("code", 500), event["object"].get("message", ""))
                yield event["type"], event["object"]
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise UnreachableError(f"A watch broke off: {error}.") from None
        finally:
            self._response.close()

    def close(self) -> None:
        # Closing the response would wait for the thread that reads it; shutting the socket down wakes that thread.
        # Not by the TLS socket's own method, which would have that thread read on without TLS.
        with suppress(OSError, AttributeError):
            socket.socket.shutdown(self._response.connection.sock, socket.SHUT_RDWR)


class Cluster:
    """Read and write objects of any kind. Safe to use from several threads.

    timeout: seconds that one request may take.
    instance: who reports events, the pod's name.
    clock: this machine's time, with its zone.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        instance: str = "",
        timeout: float = TIMEOUT_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._instance = instance or socket.gethostname()
        self._timeout = timeout
        self._clock = clock
        self._ahead = timedelta()  # of the API server's clock, before ours
        self._discovered: dict[Kind, tuple[float, bool]] = {}
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The time by the API server's clock: objects' times are its, and every replica sees the same one."""
        return self._clock() + self._ahead

    def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        try:
            return self._json("GET", kind.path(namespace, name))
        except MissingError:
            return None

    def list(self, kind: Kind, namespace: str | None = None, label_selector: str = "") -> Objects:
        """All objects, in pages. Raises MissingError when the kind isn't installed."""
        return self.list_at(kind, namespace, label_selector)[0]

    def list_at(
        self, kind: Kind, namespace: str | None, label_selector: str, keep: Callable[[Object], None] = lambda obj: None
    ) -> tuple[Objects, str]:
        """All objects, and the resource version to watch from; `keep` may strip each one as it comes."""
        found: Objects = []
        query = {"limit": str(PAGE), "labelSelector": label_selector}
        while True:
            page = self._json("GET", kind.path(namespace), query=query)
            for obj in page["items"] or ():
                # The items of a list carry neither.
                obj.update(apiVersion=kind.api_version, kind=kind.kind)
                keep(obj)
                found.append(obj)
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return found, page["metadata"]["resourceVersion"]

    def watch(
        self, kind: Kind, namespace: str | None, label_selector: str, since: str, *, seconds: float, idle_seconds: float
    ) -> Stream:
        """Changes after the resource version `since`, for `seconds`; nothing for `idle_seconds` counts as broken."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",  # also the sign of life of a quiet connection
            "labelSelector": label_selector,
            "resourceVersion": since,
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        return Stream(self._send("GET", kind.path(namespace), query=query, idle_seconds=idle_seconds))

    def apply(self, obj: Object, *, status: bool = False, force: bool = True) -> Object:
        """Server-side apply as our field manager; a resourceVersion in the metadata is a precondition.

        Unknown fields are refused: dropping them would hide that an installed CRD is another version than we mean.
        """
        metadata = obj["metadata"]
        path = kind_of(obj).path(metadata.get("namespace"), metadata["name"]) + ("/status" if status else "")
        query = {"fieldManager": MANAGER, "force": "true" if force else "false", "fieldValidation": "Strict"}
        return self._json("PATCH", path, obj, query=query)

    def create(self, obj: Object) -> Object | None:
        """The created object, or None when one of that name exists already.

        `apply` does not remove, later, a field that was set here: the server counts the two as different owners.
        """
        path = kind_of(obj).path(obj["metadata"].get("namespace"))
        try:
            return self._json("POST", path, obj, query={"fieldManager": MANAGER, "fieldValidation": "Strict"})
        except _ExistsError:
            return None

    def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> None:
        """Delete it if it is still the one meant (else ConflictError); one that is gone already is fine."""
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
        body: Object = {"propagationPolicy": propagation, "preconditions": preconditions}
        with suppress(MissingError):
            self._json("DELETE", kind.path(namespace, name), body)

    def emit(
        self, regarding: Object, *, reason: str, note: str, action: str, type: Literal["Normal", "Warning"] = "Normal"
    ) -> None:
        """Report something about an object to people. It is only logged when that fails: nothing depends on it."""
        metadata = regarding["metadata"]
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}", "namespace": metadata["namespace"]},
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                **{key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion") if key in metadata},
            },
            "eventTime": micro_time(self.now()),
            "reason": reason,
            "note": note[:1024],
            "action": action,
            "type": type,
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
        }
        try:
            self.create(event)
        except ClusterError as error:
            log.warning("event %s was not recorded: %s", reason, error, extra=about(regarding))

    def has(self, kind: Kind) -> bool:
        """Whether the kind is installed; remembered for a minute."""
        with self._lock:
            at, known = self._discovered.get(kind, (float("-inf"), False))
        if time.monotonic() - at < DISCOVERY_SECONDS:
            return known
        try:
            resources = self._json("GET", kind.api_path)["resources"]
            known = any(each["name"] == kind.plural for each in resources)
        except MissingError:
            known = False
        with self._lock:
            self._discovered[kind] = (time.monotonic(), known)
        return known

    def _json(self, method: str, path: str, body: Object | None = None, *, query: Mapping[str, str] = {}) -> Object:
        response = self._send(method, path, body, query=query)
        with _transport_errors():
            data = response.response.data
        try:
            return dict(msgspec.json.decode(data))
        except ValueError as error:
            raise UnreachableError(f"{method} {path}: something answered that is no API server ({error}).") from None

    def _send(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str],
        idle_seconds: float | None = None,
    ) -> RESTResponse:
        """The answer, with its body not read yet, which may go on for as long as it isn't idle. Raises ClusterError."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        content: Any = body
        if method == "PATCH":
            headers["Content-Type"] = "application/apply-patch+yaml"
            content = msgspec.json.encode(body).decode()
        request = self._client.param_serialize(
            method,
            path,
            query_params=[(key, value) for key, value in query.items() if value],
            header_params=headers,
            body=content,
            auth_settings=["BearerToken"],
        )
        limit = (self._timeout, idle_seconds) if idle_seconds else self._timeout
        with _transport_errors():
            began = time.monotonic()
            response = self._client.call_api(*request, _request_timeout=limit)
            if time.monotonic() - began < 1:
                self._compare_clocks(response.response.headers.get("Date"))
            if response.status < 300:
                return response
            message = _message(response.response.data)
        raise _error(response.status, f"{method} {path}: {message}")

    def _compare_clocks(self, told: str | None) -> None:
        """Go by the API server's clock when it differs from ours by so much that deadlines would be wrong."""
        if told is None:
            return
        ahead = parsedate_to_datetime(told) - self._clock()
        if abs(ahead - self._ahead).total_seconds() > SAME_TIME_SECONDS:
            is_near = abs(ahead).total_seconds() <= SAME_TIME_SECONDS
            self._ahead = timedelta() if is_near else ahead
            apart = "as ours" if is_near else f"{ahead.total_seconds():+.0f} s from ours, and counts; set the clocks"
            log.warning("the API server's clock is %s", apart)


class _ExistsError(ConflictError):
    pass


@contextmanager
def _transport_errors() -> Iterator[None]:
    """Turns what the transport raises into UnreachableError."""
    import urllib3
    from kubernetes.client import ApiException

    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError, ApiException) as error:
        raise UnreachableError(f"The API server can't be reached: {error}.") from None


def micro_time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def about(obj: Object) -> dict[str, str]:
    """For a log record: which object it is about."""
    metadata = obj["metadata"]
    return {"kind": obj["kind"], "namespace": metadata.get("namespace", ""), "object": metadata["name"]}


def _error(status: int, message: str) -> ClusterError:
    if status == 409 and "already exists" in message:
        return _ExistsError(message)
    if status == 500 and "field not declared in schema" in message:
        return InvalidError(message)  # what a built-in kind answers to an unknown field
    kinds: Mapping[int, type[ClusterError]] = {
        400: InvalidError,
        401: ForbiddenError,
        403: ForbiddenError,
        404: MissingError,
        409: ConflictError,
        410: ExpiredError,
        422: InvalidError,
        429: UnreachableError,
    }
    return kinds.get(status, UnreachableError if status >= 500 else ClusterError)(message)


def _message(data: bytes) -> str:
    """What the Status object says; for an invalid object that includes every cause."""
    try:
        return str(msgspec.json.decode(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")[:500]


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)
