"""The objects the operator wants to exist, as dicts: pure builders, one for each kind.

Every name follows from what the object is about, so that building it twice is building it once. All pods pass Pod
Security "restricted".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunegate.api import environment
from tunegate.api.digest import short
from tunegate.api.engine_names import DEFAULT
from tunegate.api.errors import UnavailableError
from tunegate.api.labels import APPLIED, MANAGED_BY, MODEL, POLICY, RUN, STOPPED, SUITE, VERSION
from tunegate.api.pinned import CA_SCHEME, SCHEME, storage_uri
from tunegate.api.policy import ClusterPolicy, ServingPods
from tunegate.api.traffic import ANSWER_PATHS, STEP_HEADER
from tunegate.api.versions import ModelVersion, Producer
from tunegate.kube import pods
from tunegate.kube.kinds import Object
from tunegate.promotion.snapshot import EvaluationJob
from tunegate_operator import placement
from tunegate_operator.config import Config
from tunegate_operator.read import is_queued
from tunegate_operator.types import API_VERSION, dns, object_name, server_name, to_plain

# The startup probe of the chart's runtimes: so often, each of so many seconds.
_PROBES, _PROBE_SECONDS = 360, 5
# How long an evaluation's pod waits for a store that is away, before another pod does.
_PATIENCE_SECONDS = 600
# What a ModelVersion tells of its producer; the arguments and data sets are in the manifest in the store.
_PRODUCER_FIELDS = ("kind", "run", "uid", "step", "image", "codeVersion", "loss")


# Where a server, or an evaluation, finds the certificate of its engine.
_CERTIFICATE = pods.Volume("engine-certificate", "/etc/tunegate-engine")


@dataclass(frozen=True)
class EngineAddress:
    """Where the engine of a version answers. secret: the one with the certificate that it has; empty: plain HTTP.
    model: what it calls the version; empty: its digest, which is how one that versions share names each. control: where
    such a one loads them; empty for others."""

    url: str
    secret: str = ""
    model: str = DEFAULT
    control: str = ""


def model_version(namespace: str, policy: str, version: ModelVersion, producer: Producer | None) -> Object:
    """The record of a version. It has no owner: it outlives its policy, as the bytes in the store do."""
    labels = {**MANAGED_BY, POLICY: policy, MODEL: version.model, RUN: version.run, VERSION: short(version.digest)}
    fields = to_plain(producer) if producer else {}
    known = {name: fields[name] for name in _PRODUCER_FIELDS if fields.get(name) not in (None, "")}
    spec = to_plain(version) | ({"producer": known} if producer else {})
    return make_object(API_VERSION, "ModelVersion", namespace, object_name(version), labels, spec)


def promotion(namespace: str, policy: str, name: str, version: ModelVersion) -> Object:
    """One attempt. It is the audit record, so deleting the policy does not delete it."""
    labels = {**MANAGED_BY, POLICY: policy, MODEL: version.model, VERSION: short(version.digest)}
    return make_object(
        API_VERSION, "Promotion", namespace, name, labels, {"policy": policy, "version": object_name(version)}
    )


def evaluation_name(job: EvaluationJob) -> str:
    return dns(f"evaluate-{short(job.version.digest)}-{job.suite}")


def evaluation_job(
    namespace: str,
    policy: ClusterPolicy,
    name: str,
    job: EvaluationJob,
    config: Config,
    engine: EngineAddress | None = None,
) -> Object:
    """Measures one suite on one version and leaves the result in the store; owned by the ModelVersion. engine: the
    version's own, which it asks; without one it loads the version, or asks the URL that the policy names.

    A failed one stays for a person to look at; deleting it tries again. A pod that gave up waiting for the store, or
    whose node was taken, is replaced and uses up no attempt.
    """
    limit = ["--limit", str(policy.evaluation.limit)] if policy.evaluation.limit else []
    shards = policy.evaluation.shards
    shard = ["--shard", f"$(JOB_COMPLETION_INDEX)/{shards}"] if shards > 1 else []
    more = ["--patience", str(_PATIENCE_SECONDS), "--summary", "/dev/termination-log"]
    volumes, release = pods.scratch("tmp", "cache"), config.evaluation_pods
    resources = policy.evaluation.resources or release.resources
    container = pods.container(
        "evaluate",
        config.evaluation_image,
        args=["evaluate", storage_uri(job.version), "--suite", job.suite, *limit, *shard, *more],
        volumes=volumes,
        env=placement.env(
            release,
            policy.evaluation,
            [
                *store_env(config),
                *pods.variables({environment.CACHE: "/cache"}),
                *_engine_env(policy.serving),
                *_own_engine_env(engine),
            ],
        ),
        secret=config.store_secret,
        terminationMessagePolicy="FallbackToLogsOnError",
        **({"resources": resources} if resources else {}),
    )
    if config.tools_secret:  # an agent is measured with the tools that it is served with
        container["envFrom"].append({"secretRef": {"name": config.tools_secret}})
    placement.complete(container, release)
    container["volumeMounts"] = [*container["volumeMounts"], *_certificate_mount(engine)]
    pod = pods.pod([container], volumes, restartPolicy="Never")
    pod |= {"serviceAccountName": "default", **placement.fields(release, policy.evaluation)}
    pod["volumes"] = [*pod["volumes"], *release.volumes, *_certificate_volume(engine)]
    labels = {
        **MANAGED_BY,
        POLICY: name,
        MODEL: policy.model,
        VERSION: short(job.version.digest),
        SUITE: dns(job.suite),
    }
    queue = placement.queue_label(config.queue_name, resources)
    spec = {
        **_attempts(policy),
        "activeDeadlineSeconds": max(1, round(policy.evaluation_timeout_seconds)),
        "template": {"metadata": placement.metadata(release, policy.evaluation, labels), "spec": pod},
    }
    return make_object("batch/v1", "Job", namespace, evaluation_name(job), {**labels, **queue}, spec)


def _attempts(policy: ClusterPolicy) -> Object:
    """How many pods an evaluation Job has and how often each is tried; some failures are none of the evaluation's."""
    shards, retries = policy.evaluation.shards, policy.evaluation_attempts - 1
    indexed = {
        "completionMode": "Indexed",
        "completions": shards,
        "parallelism": shards,
        "backoffLimitPerIndex": retries,
        "maxFailedIndexes": 0,
    }
    away = {"containerName": "evaluate", "operator": "In", "values": [UnavailableError.exit_code]}
    taken = {"type": "DisruptionTarget", "status": "True"}
    rules = [{"action": "Ignore", "onExitCodes": away}, {"action": "Ignore", "onPodConditions": [taken]}]
    counted = indexed if shards > 1 else {"backoffLimit": retries}
    return {**counted, "podFailurePolicy": {"rules": rules}}


def inference_service(
    namespace: str,
    policy: ClusterPolicy,
    name: str,
    version: ModelVersion,
    config: Config,
    engine: EngineAddress | None = None,
) -> Object:
    """Serves one version; a canary is a second one, a rollback is a weight. engine: its own, that this stands before.

    It has all its replicas from the start, so that a canary that is promoted can carry the whole traffic at once.
    """
    serving = policy.serving
    volumes = [*config.serving_pods.volumes, *_certificate_volume(engine)]
    digest_labels = {**MANAGED_BY, POLICY: name, MODEL: policy.model, VERSION: short(version.digest)}
    predictor = {
        "minReplicas": serving.replicas,
        "maxReplicas": serving.replicas,
        **placement.metadata(config.serving_pods, serving, digest_labels),
        "automountServiceAccountToken": False,
        "securityContext": pods.POD_SECURITY,
        "terminationGracePeriodSeconds": config.grace_seconds,
        # No pod ends before its successor answers, whatever KServe's configuration says.
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "model": _model(policy, version, config, engine),
        **placement.fields(config.serving_pods, serving),
        **({"volumes": volumes} if volumes else {}),
    }
    # Reached through our route only: no route of KServe's own.
    queue = placement.queue_label(config.queue_name, _resources(serving, config))
    labels = {**digest_labels, **queue, "networking.kserve.io/visibility": "cluster-local"}
    # KServe copies them to the pods, so nothing that may change is there. An HPA would begin with one replica.
    annotations = {"serving.kserve.io/deploymentMode": "Standard", "serving.kserve.io/autoscalerClass": "none"}
    made, spec = server_name(name, version.digest), {"predictor": predictor}
    return make_object("serving.kserve.io/v1beta1", "InferenceService", namespace, made, labels, spec, annotations)


def _model(policy: ClusterPolicy, version: ModelVersion, config: Config, engine: EngineAddress | None) -> Object:
    """What KServe lays over the runtime's container, and where the version lies."""
    serving, release = policy.serving, config.serving_pods
    resources = _resources(serving, config)
    feedback = {"secretKeyRef": {"name": config.feedback_secret, "key": environment.FEEDBACK_KEY}}
    store_secret = {"secretRef": {"name": config.store_secret, "optional": True}}
    mounts = [*release.volume_mounts, *_certificate_mount(engine)]
    model: Object = {
        "modelFormat": {"name": "tunegate"},
        "runtime": config.vllm_runtime if _has_vllm(serving) else config.serving_runtime,
        "storageUri": storage_uri(version, CA_SCHEME if release.has_ca else SCHEME, weights=serving.has_weights),
        "env": placement.env(
            release,
            serving,
            [
                *store_env(config),
                {"name": environment.MODEL_NAME, "value": policy.model},
                {"name": environment.FEEDBACK_KEY, "valueFrom": feedback},
                *_engine_env(serving),
                *_own_engine_env(engine),
            ],
        ),
        **({"envFrom": [store_secret]} if config.store_secret else {}),
        **({"volumeMounts": mounts} if mounts else {}),
        **({"resources": resources} if resources else {}),
        # KServe would have the kubelet read a file that nobody writes; what is said last is handed on in modelStatus.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if (probes := math.ceil(serving.ready_timeout_seconds / _PROBE_SECONDS)) > _PROBES:
        # KServe merges it with the runtime's. A kubelet would start the container again before its time is over.
        model["startupProbe"] = {"failureThreshold": probes}
    return model


def _resources(serving: ServingPods, config: Config) -> Object:
    """Of a server. The runtime has none: KServe would merge them with these, key by key."""
    return serving.resources or dict(config.vllm_resources if _has_vllm(serving) else config.serving_resources)


def _has_vllm(serving: ServingPods) -> bool:
    """Whether servers start vLLM themselves."""
    return serving.engine == "VLLM" and not serving.share_base


def gpus(serving: ServingPods, config: Config) -> int:
    """How many GPUs vLLM has in each pod of a version, or in that of the engine that versions share; 0 for others."""
    resources = _resources(serving, config) if _has_vllm(serving) else {}
    if serving.share_base:
        resources = serving.engine_pod.resources or dict(config.vllm_resources)
    amounts = {**resources.get("requests", {}), **resources.get("limits", {})}
    asked = str(amounts.get("nvidia.com/gpu", 0))
    return int(asked) if asked.isdecimal() else 0


def is_vllm(model: Object) -> bool:
    """Whether the runtime of a server is that of ours with vLLM."""
    return "vllm" in model.get("runtime", "").split("-")


def elsewhere(model: Object) -> list[Object]:
    """The variables of a server that name the engine that it stands in front of."""
    names = (
        environment.ENGINE_URL,
        environment.ENGINE_MODEL,
        environment.ENGINE_CONTROL,
        environment.ENGINE_KEY,
        environment.ENGINE_CERTIFICATE,
    )
    return [each for each in model.get("env", ()) if each["name"] in names]


def _engine_env(serving: ServingPods) -> list[Object]:
    """Where the engine is that has the weights, for servers and for evaluations; nothing where each has its own."""
    if serving.url is None:
        return []
    known = {environment.ENGINE_URL: serving.url.address, environment.ENGINE_MODEL: serving.url.model}
    secret = serving.url.key_secret
    key = {"secretKeyRef": {"name": secret.name, "key": secret.key}} if secret else {}
    return [*pods.variables(known), *([{"name": environment.ENGINE_KEY, "valueFrom": key}] if key else [])]


def _own_engine_env(engine: EngineAddress | None) -> list[Object]:
    """The same for an engine that the operator makes."""
    if engine is None:
        return []
    known: dict[str, str | None] = {
        environment.ENGINE_URL: engine.url,
        environment.ENGINE_MODEL: engine.model,
        environment.ENGINE_CONTROL: engine.control,
    }
    if engine.secret:
        known[environment.ENGINE_CERTIFICATE] = f"{_CERTIFICATE.path}/tls.crt"
    return pods.variables(known)


def _certificate_volume(engine: EngineAddress | None) -> list[Object]:
    """The certificate of an engine alone, without its key."""
    if engine is None or not engine.secret:
        return []
    secret = {"secretName": engine.secret, "items": [{"key": "tls.crt", "path": "tls.crt"}]}
    return [{"name": _CERTIFICATE.name, "secret": secret}]


def _certificate_mount(engine: EngineAddress | None) -> list[Object]:
    # As a folder: a file mounted by subPath would never change.
    mount = {"name": _CERTIFICATE.name, "mountPath": _CERTIFICATE.path, "readOnly": True}
    return [mount] if engine and engine.secret else []


def http_route(
    namespace: str,
    policy: ClusterPolicy,
    name: str,
    weights: Mapping[str, int],
    *,
    step: str = "",
    takes_timeouts: bool = True,
) -> Object:
    """The one address of a policy's model, and who answers there; `weights` in percent by digest, stable first.

    step: the label of the canary's step, which servers are told; empty: none. What clients say of it never passes.
    takes_timeouts: whether the cluster's HTTPRoute knows them, as from Gateway API 1.2 on.
    """
    traffic = policy.traffic
    assert traffic.gateway is not None, "without a gateway there is no route"
    optional = {"namespace": traffic.gateway.namespace, "sectionName": traffic.gateway.section_name}
    shares = {f"{server_name(name, digest)}-predictor": weight for digest, weight in weights.items()}
    rules = _rules(traffic.path_prefix, shares, step)
    if takes_timeouts:
        # As long as the server takes: Envoy would cut every answer off after 15 seconds.
        rules = [{**rule, "timeouts": {"request": "0s"}} for rule in rules]
    spec = {
        "parentRefs": [{"name": traffic.gateway.name, **{key: value for key, value in optional.items() if value}}],
        **({"hostnames": list(traffic.hostnames)} if traffic.hostnames else {}),
        "rules": rules,
    }
    labels = {**MANAGED_BY, POLICY: name, MODEL: policy.model}
    return make_object("gateway.networking.k8s.io/v1", "HTTPRoute", namespace, name, labels, spec)


def _rules(path_prefix: str, shares: Mapping[str, int], step: str) -> list[Object]:
    """Those for answers, which carry the weights, and one for everything else; `shares` by the name of a Service.

    Everything else goes to the one server with most of the traffic, so that votes, lists and probes take nobody's turn.
    All of it is core to the Gateway API but the rewrite.
    """
    prefix = path_prefix.rstrip("/")
    answers = {path: {"path": {"type": "Exact", "value": prefix + path}} for path in ANSWER_PATHS}
    others = [{"path": {"type": "PathPrefix", "value": path_prefix}}]
    most = {max(shares, key=lambda service: shares[service]): 100}
    if not prefix:
        return [_rule(list(answers.values()), shares, step), _rule(others, most, "")]
    # Servers know their paths from /v1 on, and a rule that changes a path can be for one path only.
    return [
        *(
            _rule([match], shares, step, {"type": "ReplaceFullPath", "replaceFullPath": path})
            for path, match in answers.items()
        ),
        _rule(others, most, "", {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}),
    ]


def _rule(matches: list[Object], shares: Mapping[str, int], step: str, rewrite: Object | None = None) -> Object:
    """One rule of an HTTPRoute; `shares` are weights by the name of a Service."""
    header = {"set": [{"name": STEP_HEADER, "value": step}]} if step else {"remove": [STEP_HEADER]}
    filters: list[Object] = [{"type": "RequestHeaderModifier", "requestHeaderModifier": header}]
    if rewrite:
        filters.append({"type": "URLRewrite", "urlRewrite": {"path": rewrite}})
    backends = [{"name": service, "port": 80, "weight": weight} for service, weight in shares.items()]
    return {"matches": matches, "backendRefs": backends, "filters": filters}


def switch(namespace: str, policy: ClusterPolicy, name: str, digest: str) -> Object:
    """The one address where there is no gateway: a Service that selects the pods of one version."""
    spec = {
        "selector": {"serving.kserve.io/inferenceservice": server_name(name, digest)},
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
    }
    return make_object("v1", "Service", namespace, name, {**MANAGED_BY, POLICY: name, MODEL: policy.model}, spec)


def owned(obj: Object, owner: Object) -> Object:
    """The same object, going when its owner goes."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [reference]}}


def suspended(job: Object, why: str) -> Object:
    """What to merge into a training job so that its pods end, by the version of it that was read.

    Kueue would have a job of its queues go on at once: of such a one it is only noted.
    """
    field: Object = {"runPolicy": {"suspend": True}} if job["kind"] == "PyTorchJob" else {"suspend": True}
    if is_queued(job):
        field = {}
    fields = {name: job["metadata"][name] for name in ("name", "namespace", "resourceVersion")}
    metadata = {**fields, "annotations": {STOPPED: why}}
    return {"apiVersion": job["apiVersion"], "kind": job["kind"], "metadata": metadata, "spec": field}


def remembered(obj: Object) -> Object:
    """The same object, with its spec in an annotation: what later differs from it, another manager changed."""
    annotations = {**obj["metadata"].get("annotations", {}), APPLIED: json.dumps(obj["spec"], sort_keys=True)}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


def over(wanted: Object, live: Object | None) -> Object:
    """What is written over an object is written over the one that was read, or not at all."""
    if live is None:
        return wanted
    return {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}}


def make_object(
    api_version: str,
    kind: str,
    namespace: str,
    name: str,
    labels: Mapping[str, str],
    spec: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Object:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": dict(labels)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": dict(spec)}


def store_env(config: Config) -> list[Object]:
    known = {
        environment.STORE: config.store,
        environment.ENDPOINT_URL: config.endpoint_url,
        environment.REGION: config.region,
    }
    keys = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": config.store_secret, "key": key, "optional": True}}}
        for name, key in config.store_keys.items()
    ]
    return [*pods.variables(known), *keys]
