"""KServe's defaulting webhooks before an API server: a real MutatingWebhookConfiguration that asks us, over HTTPS."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests import kserve
from tests.apiserver import ApiServer, call
from tests.waiting import wait_for

NAME = "inferenceservice.serving.kserve.io"
PATH = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
PROBE = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "probe", "namespace": "default"},
    "spec": {"predictor": {"model": {"modelFormat": {"name": "tunegate"}}}},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
        changed = kserve.defaulted(asked["object"])
        patch = [
            {"op": "add", "path": "/spec", "value": changed["spec"]},
            {"op": "add", "path": "/metadata/annotations", "value": changed["metadata"].get("annotations", {})},
        ]
        patched = {"patchType": "JSONPatch", "patch": b64encode(json.dumps(patch).encode()).decode()}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        body = json.dumps({**review, "response": {"uid": asked["uid"], "allowed": True, **patched}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def defaulting(server: ApiServer, folder: Path) -> Iterator[None]:
    """Every InferenceService and LLMInferenceService that is written there meanwhile is defaulted."""
    key, certificate = folder / "webhook.key", folder / "webhook.crt"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kserve"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *made], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    endpoint = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.socket = context.wrap_socket(endpoint.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=endpoint.serve_forever, name="kserve-webhook")
    thread.start()
    rules = [
        {"apiGroups": ["serving.kserve.io"], "apiVersions": [version], "resources": [plural]}
        for version, plural in (("v1beta1", "inferenceservices"), ("v1alpha2", "llminferenceservices"))
    ]
    webhook = {
        "name": f"{NAME}.defaulter",
        "clientConfig": {
            "url": f"https://127.0.0.1:{endpoint.server_port}/mutate",
            "caBundle": b64encode(certificate.read_bytes()).decode(),
        },
        "rules": [{**rule, "operations": ["CREATE", "UPDATE"]} for rule in rules],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    obj = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    with server.client() as client:
        call(client, "POST", PATH, {**obj, "metadata": {"name": NAME}, "webhooks": [webhook]})
        try:
            wait_for(lambda: '"modelFormat": "tunegate"' in dry_run(server), what="KServe's webhook to be asked")
            yield
        finally:
            call(client, "DELETE", f"{PATH}/{NAME}")
            endpoint.shutdown()
            endpoint.server_close()
            thread.join()


def dry_run(server: ApiServer) -> str:
    """What would be made of an InferenceService."""
    words = ["create", "--dry-run=server", "-o", "json", "-f", "-"]
    return server.kubectl(*words, stdin=json.dumps(PROBE), check=False).stdout
