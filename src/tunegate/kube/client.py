"""Read and write objects of any kind, as plain dicts, with timeouts and a small tree of errors.

It knows paths and verbs, and nothing of what the objects mean. Built on the official client's transport, which brings
kubeconfig, in-cluster tokens and TLS; its typed models are left aside, since half of the kinds have none.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tunegate.api.errors import UsageError
from tunegate.kube.errors import (
    ClusterError,
    ExistsError,
    MissingError,
    Status,
    UnreachableError,
    error_of,
    read_status,
)
from tunegate.kube.kinds import BUILT_IN, EVENT, POD, Kind, Object, Objects, by_name

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes.client.rest import RESTResponse

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
PAGE = 500
# More than the watches and workers there are, so that no connection is thrown away.
CONNECTIONS = 64
DISCOVERY_SECONDS = 60.0
FIELDS_SECONDS = 600.0  # a schema is large, and changes with an upgrade
# Clocks that are this near count as one: the API server tells its time in whole seconds, and an answer takes a while.
SAME_TIME_SECONDS = 5.0
_APPLY, _MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


def connect(user_agent: str, *, remedy: str) -> ApiClient:
    """A client with what a kubeconfig says where there is one, else with the service account of the pod.

    Raises UsageError, with `remedy` as what to do, when there is neither.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        kubeconfigs = config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep)
        if any(Path(file).expanduser().exists() for file in kubeconfigs):
            config.load_kube_config(client_configuration=configuration)
        else:
            config.load_incluster_config(configuration)
    except config.ConfigException as error:
        raise UsageError(f"There is no cluster to speak to ({error}); {remedy}.") from None
    configuration.connection_pool_maxsize = CONNECTIONS
    # A try has its time limit; whether there is another one is the caller's business.
    configuration.retries = False
    configuration.keep_alive = True  # what stands between drops a connection that is quiet for long
    api = client.ApiClient(configuration)
    api.user_agent = user_agent
    return api


class Stream:
    """One open watch: iterate over its events, from whichever thread; `close` ends it at once."""

    def __init__(self, response: RESTResponse) -> None:
        self._response = response.response

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        """Yields (ADDED | MODIFIED | DELETED | BOOKMARK, object). Raises ClusterError."""
        import urllib3

        try:
            rest = b""
            for chunk in self._response.stream(amt=None, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        raise error_of(msgspec.convert(event["object"], Status))
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

    manager: the field manager that our fields belong to.
    kinds: those that are written besides the built-in ones.
    timeout: seconds that one request may take.
    reporter, instance: who reports events, the controller and its pod.
    clock: this machine's time, with its zone.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        manager: str,
        kinds: Iterable[Kind] = (),
        reporter: str = "",
        instance: str = "",
        timeout: float = TIMEOUT_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._manager = manager
        self._kinds = by_name((*BUILT_IN, *kinds))
        self._reporter = reporter or manager
        self._instance = instance or socket.gethostname()
        self._timeout = timeout
        self._clock = clock
        self._ahead = timedelta()  # of the API server's clock, before ours
        self._discovered: dict[Kind, tuple[float, bool]] = {}
        self._fields: dict[tuple[Kind, tuple[str, ...]], tuple[float, bool]] = {}
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

    def ask_pod(self, namespace: str, pod: str, port: int, path: str) -> Object:
        """What a pod answers to a GET with JSON, through the API server, from wherever that can be reached. Raises
        ForbiddenError without the right to get pods/proxy, and ClusterError."""
        return self._json("GET", f"{POD.path(namespace, pod)}:{port}/proxy{path}")

    def kind_of(self, obj: Object) -> Kind:
        return self._kinds[obj["apiVersion"], obj["kind"]]

    def apply(self, obj: Object, *, status: bool = False, force: bool = True) -> Object:
        """Server-side apply as our field manager; a resourceVersion in the metadata is a precondition.

        Unknown fields are refused: dropping them would hide that an installed CRD is another version than we mean.
        """
        metadata = obj["metadata"]
        path = self.kind_of(obj).path(metadata.get("namespace"), metadata["name"]) + ("/status" if status else "")
        query = {"fieldManager": self._manager, "force": "true" if force else "false", "fieldValidation": "Strict"}
        return self._json("PATCH", path, obj, query=query, content_type=_APPLY)

    def merge(self, kind: Kind, namespace: str | None, name: str, changes: Object) -> Object:
        """Change these fields and leave all others, also those that we set before. Raises MissingError."""
        query = {"fieldManager": self._manager, "fieldValidation": "Strict"}
        return self._json("PATCH", kind.path(namespace, name), changes, query=query, content_type=_MERGE)

    def create(self, obj: Object) -> Object | None:
        """The created object, or None when one of that name exists already.

        `apply` does not remove, later, a field that was set here: the server counts the two as different owners.
        """
        path = self.kind_of(obj).path(obj["metadata"].get("namespace"))
        try:
            return self._json("POST", path, obj, query={"fieldManager": self._manager, "fieldValidation": "Strict"})
        except ExistsError:
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
            "reportingController": self._reporter,
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
            known = any(resource["name"] == kind.plural for resource in resources)
        except MissingError:
            known = False
        with self._lock:
            self._discovered[kind] = (time.monotonic(), known)
        return known

    def has_field(self, kind: Kind, *path: str) -> bool:
        """Whether the installed custom kind has this field, lists taken for their items; remembered.

        What can't be told is believed to be there: a write that has it says so if it is not.
        """
        with self._lock:
            at, known = self._fields.get((kind, path), (float("-inf"), True))
        if time.monotonic() - at < FIELDS_SECONDS:
            return known
        with suppress(ClusterError):
            document = self._json("GET", f"/openapi/v3{kind.api_path}")
            meant = {"group": kind.group, "version": kind.version, "kind": kind.kind}
            for schema in document.get("components", {}).get("schemas", {}).values():
                if meant in schema.get("x-kubernetes-group-version-kind", ()):
                    known = _has_field(schema, path)
        with self._lock:
            self._fields[kind, path] = (time.monotonic(), known)
        return known

    def _json(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] = {},
        content_type: str = "application/json",
    ) -> Object:
        response = self._send(method, path, body, query=query, content_type=content_type)
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
        content_type: str = "application/json",
        idle_seconds: float | None = None,
    ) -> RESTResponse:
        """The answer, with its body not read yet, which may go on for as long as it isn't idle. Raises ClusterError."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        # The transport makes JSON of what it sees to be JSON, and takes other text as it stands.
        content: Any = msgspec.json.encode(body).decode() if content_type == _APPLY else body
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
            status = read_status(response.status, response.response.data)
        raise error_of(status, f"{method} {path}")

    def _compare_clocks(self, date: str | None) -> None:
        """Go by the API server's clock when it differs from ours by so much that deadlines would be wrong."""
        if date is None:
            return
        ahead = parsedate_to_datetime(date) - self._clock()
        if abs(ahead - self._ahead).total_seconds() > SAME_TIME_SECONDS:
            is_near = abs(ahead).total_seconds() <= SAME_TIME_SECONDS
            self._ahead = timedelta() if is_near else ahead
            apart = "as ours" if is_near else f"{ahead.total_seconds():+.0f} s from ours, and counts; set the clocks"
            log.warning("the API server's clock is %s", apart)


def _has_field(schema: Object, path: tuple[str, ...]) -> bool:
    for name in path:
        schema = schema.get("items", schema).get("properties", {}).get(name)
        if schema is None:
            return False
    return True


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
