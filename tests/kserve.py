"""What KServe and the API server do to objects of ours, as pure functions; from KServe's and Kubernetes' sources.

docs/design/controllers.md says which versions.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Object = dict[str, Any]

DECIMAL = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
# KServe copies every other annotation to the pods (serviceAnnotationDisallowedList).
KEPT_FROM_PODS = (
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/max-scale",
    "internal.serving.kserve.io/storage-initializer-sourceuri",
    "kubectl.kubernetes.io/last-applied-configuration",
    "modelFormat",
)

# What KServe gives every storage initializer (inferenceservice-config, storageInitializer).
INITIALIZER_RESOURCES = {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


def with_service_account(container: Object, name: str, secret: dict[str, str]) -> Object:
    """The storage initializer of a pod whose service account has this Secret for S3: a container's own variables win.

    KServe takes the keys of the Secret and, where it names an endpoint, that as well; then it lays the container of the
    ClusterStorageContainer over its own, and variables are merged by name.
    """
    keys = {"AWS_ACCESS_KEY_ID": "awsAccessKeyID", "AWS_SECRET_ACCESS_KEY": "awsSecretAccessKey"}
    theirs = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}} for variable, key in keys.items()
    ]
    if endpoint := secret.get("S3_ENDPOINT"):
        theirs += [
            {"name": "S3_ENDPOINT", "value": endpoint},
            {"name": "AWS_ENDPOINT_URL", "value": f"http://{endpoint}"},
        ]
    env = {variable["name"]: variable for variable in (*theirs, *container.get("env", ()))}
    return {**container, "env": list(env.values())}


def environment_of(container: Object, secrets: dict[str, dict[str, str]]) -> dict[str, str]:
    """The variables as a kubelet sets them: those of `env` win over whole Secrets, and what is optional may lack."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= secrets[source["secretRef"]["name"]]
    for variable in container.get("env", ()):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference is None:
            found[variable["name"]] = variable["value"]
        elif reference["key"] in secrets[reference["name"]] or not reference.get("optional"):
            found[variable["name"]] = secrets[reference["name"]][reference["key"]]
    return found


def merged(runtime: Object, server: Object) -> Object:
    """Resources of two containers as KServe joins them: a strategic merge, so maps are merged by key."""
    parts = {part: {**runtime.get(part, {}), **server.get(part, {})} for part in ("requests", "limits")}
    return {part: amounts for part, amounts in parts.items() if amounts}


def canonical(quantity: str | int) -> str:
    """A quantity as Go writes it: always a string, with the largest suffix that leaves a whole number."""
    text = str(quantity)
    number = text.rstrip("".join(DECIMAL) + "i")
    suffix = text[len(number) :]
    if suffix in BINARY:
        value, base, powers = Fraction(number) * 1024 ** BINARY[suffix], 1024, BINARY
    else:
        value, base, powers = Fraction(number) * Fraction(1000) ** DECIMAL[suffix], 1000, DECIMAL
    for name, power in sorted(powers.items(), key=lambda pair: -pair[1]):
        scaled = value / Fraction(base) ** power
        if scaled.denominator == 1 and scaled:
            return f"{scaled}{name}"
    return str(value)


def defaulted(isvc: Object) -> Object:
    """The InferenceService as KServe's webhook sends it back: decoded into Go types and written again.

    Fields that Go writes though they are empty are there afterwards, and the format of the model in an annotation.
    """
    changed = copy.deepcopy(isvc)
    if isvc.get("kind") == "LLMInferenceService":
        return _llm_defaulted(changed)
    if (model := changed["spec"].get("predictor", {}).get("model")) is None:
        return changed
    model.setdefault("name", "")
    for amounts in model.setdefault("resources", {}).values():
        for name, quantity in amounts.items():
            amounts[name] = canonical(quantity)
    changed["metadata"].setdefault("annotations", {}).setdefault("modelFormat", model["modelFormat"]["name"])
    return changed


def pod_template(isvc: Object) -> str:
    """What of an InferenceService its pods are made of: when it changes, every pod is replaced."""
    metadata, predictor = isvc["metadata"], dict(isvc["spec"]["predictor"])
    for name in ("minReplicas", "maxReplicas", "scaleTarget", "deploymentStrategy"):
        predictor.pop(name, None)
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k not in KEPT_FROM_PODS}
    made = defaulted({"metadata": {}, "spec": {"predictor": predictor}})["spec"]
    return json.dumps([annotations, metadata.get("labels", {}), made], sort_keys=True)


@dataclass
class Deployment:
    """What KServe makes of an InferenceService, which it follows. `replaced` counts how often all pods were replaced.

    up: how many of its pods are ready. A new one has none; those of before stay until their successors are.
    may_lack: how many may be missing where it is available: a quarter, rounded down, where nobody says otherwise.
    """

    template: str
    replicas: int
    may_lack: int
    up: int = 0
    generation: int = 1
    replaced: int = 0

    @classmethod
    def of(cls, isvc: Object) -> Deployment:
        replicas, strategy = (isvc["spec"]["predictor"].get(key) for key in ("minReplicas", "deploymentStrategy"))
        may_lack = strategy["rollingUpdate"]["maxUnavailable"] if strategy else replicas // 4
        return cls(pod_template(isvc), replicas, may_lack)

    def follow(self, isvc: Object) -> None:
        wanted = Deployment.of(isvc)
        self.may_lack = wanted.may_lack
        if (self.template, self.replicas) != (wanted.template, wanted.replicas):
            self.generation += 1
            self.replaced += self.template != wanted.template
            self.template, self.replicas, self.up = wanted.template, wanted.replicas, min(self.up, wanted.replicas)

    @property
    def is_available(self) -> bool:
        return self.up >= self.replicas - self.may_lack

    def status(self, now: str, before: Object) -> Object:
        """The status of its InferenceService, in which an observedGeneration is the Deployment's."""
        ready = "True" if self.is_available else "False" if before else "Unknown"
        reason = {"True": "MinimumReplicasAvailable", "False": "MinimumReplicasUnavailable"}.get(ready, "")
        old = next(iter(before.get("conditions", ())), {})
        since = old["lastTransitionTime"] if old.get("status") == ready else now
        condition = {"type": "Ready", "status": ready, "reason": reason, "lastTransitionTime": since}
        state = "UpToDate" if self.is_available else "InProgress"
        model = {"copies": {"failedCopies": 0, "totalCopies": self.up}, "transitionStatus": state}
        return {"conditions": [condition], "observedGeneration": self.generation, "modelStatus": model}


# The presets that KServe's chart brings, which LLMInferenceServices are laid over.
PRESETS = ("kserve-config-llm-template", "kserve-config-llm-worker-data-parallel")


def _llm_defaulted(engine: Object) -> Object:
    """What the webhook for LLMInferenceServices sends back: its name for the model, and amounts as Go writes them."""
    spec = engine["spec"]
    spec["model"].setdefault("name", engine["metadata"]["name"])
    for pod in (spec[part] for part in ("template", "worker") if part in spec):
        for container in (*pod.setdefault("containers", []), *pod.get("initContainers", ())):
            for amounts in container.setdefault("resources", {}).values():
                amounts.update({name: canonical(quantity) for name, quantity in amounts.items()})
        for volume in pod.get("volumes", ()):
            if limit := (volume.get("emptyDir") or {}).get("sizeLimit"):
                volume["emptyDir"]["sizeLimit"] = canonical(limit)
    return engine


def pods_of(engine: Object) -> int:
    """How many pods one engine is made of: a group of a LeaderWorkerSet has as many."""
    spread = engine["spec"].get("parallelism", {})
    if "worker" not in engine["spec"]:
        return 1
    return int(max(spread["data"] // spread["dataLocal"], 1) if "data" in spread else spread["pipeline"])


def engine_service(engine: Object, tls: bool) -> Object:
    """The Service that KServe makes for an LLMInferenceService, whose labels it gets, and is told of in its status."""
    metadata, scheme = engine["metadata"], "https" if tls else "http"
    port = {"name": scheme, "appProtocol": scheme, "port": 8000, "protocol": "TCP", "targetPort": 8000}
    part = {"app.kubernetes.io/name": metadata["name"], "app.kubernetes.io/part-of": "llminferenceservice"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": f"{metadata['name']}-kserve-workload-svc",
            "namespace": metadata["namespace"],
            "labels": {**part, **engine["spec"].get("labels", {})},
        },
        "spec": {"selector": part, "ports": [port]},
    }


def engine_status(engine: Object, presets: Collection[str], up: int, now: str) -> Object:
    """The status of an LLMInferenceService without a router; `up` is how many pods are ready in all.

    What it is laid over is looked up first: where that lacks, nothing is made, and nothing is said of what was.
    """
    spec, before, name = engine["spec"], engine.get("status", {}), engine["metadata"]["name"]
    needed = [
        PRESETS["worker" in spec and "data" in spec["parallelism"]],
        *(ref["name"] for ref in spec.get("baseRefs", ())),
    ]
    if "worker" in spec and "pipeline" in spec["parallelism"]:
        needed[0] = "kserve-config-llm-worker-pipeline-parallel"  # which the chart does not bring
    if missing := next((each for each in needed if each not in presets), None):
        why = (
            f'LLMInferenceServiceConfig "{missing}" not found in namespaces [{engine["metadata"]["namespace"]} kserve]'
        )
        said = {"PresetsCombined": ("False", "ConfigNotFound", why), "Ready": ("False", "ConfigNotFound", why)}
        return {**before, "conditions": _conditions(said, before, now)}
    is_group = "worker" in spec
    ready, replicas = up // pods_of(engine), spec.get("replicas", 1)
    part = "WorkerWorkloadReady" if is_group else "MainWorkloadReady"
    wait = ("GroupsProgressing", "Replicas are progressing") if is_group else ("MinimumReplicasUnavailable", "")
    state = ("True", "", "") if ready >= replicas else ("False", *wait)
    said = {"PresetsCombined": ("True", "", ""), "RouterReady": ("True", "", "")}
    said |= dict.fromkeys((part, "WorkloadsReady", "Ready"), state)
    kind = "LeaderWorkerSet" if is_group else "Deployment"
    primary = {"kind": kind, "name": f"{name}-kserve{'-mn' * is_group}", "readyReplicas": ready}
    group = "leaderworkerset.x-k8s.io" if is_group else "apps"
    service = {"kind": "Service", "name": f"{name}-kserve-workload-svc"}
    workloads = {"primary": {**primary, "apiGroup": group}, "service": service}
    return {"conditions": _conditions(said, before, now), "workloads": workloads}


def _conditions(said: dict[str, tuple[str, str, str]], before: Object, now: str) -> list[Object]:
    """As Knative writes them: a reason and a message only where there are any, and the time of the last change."""
    old = {each["type"]: each for each in before.get("conditions", ())}
    found = []
    for kind, (status, reason, message) in sorted(said.items()):
        is_same = old.get(kind, {}).get("status") == status
        since = old[kind]["lastTransitionTime"] if is_same else now
        words = {key: value for key, value in (("reason", reason), ("message", message)) if value}
        found.append({"type": kind, "status": status, "lastTransitionTime": since, **words})
    return found


def owned_fields(value: Any) -> Object:
    """fieldsV1 of what a manager applied: lists are atomic but for those of named variables."""
    if isinstance(value, dict) and value:
        return {f"f:{key}": owned_fields(inner) for key, inner in value.items()}
    if isinstance(value, list) and all(_is_variable(item) for item in value):
        return {f'k:{{"name":"{item["name"]}"}}': {".": {}, **owned_fields(item)} for item in value}
    return {}


def _is_variable(item: Any) -> bool:
    return isinstance(item, dict) and {"name"} < set(item) <= {"name", "value", "valueFrom"}


def moved_fields(before: Object, after: Object) -> Iterator[tuple[str, ...]]:
    """The paths, as in fieldsV1, that an update changed."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    yield from (path for path in {**old, **new} if old.get(path) != new.get(path))


def take_fields(fields: Object, path: tuple[str, ...]) -> None:
    """A manager loses a path; one that holds it whole, from above, loses all of that."""
    if path and path[0] in fields:
        inner = fields[path[0]]
        take_fields(inner, path[1:])
        if not set(inner) - {"."}:
            del fields[path[0]]


def give_fields(fields: Object, path: tuple[str, ...]) -> None:
    for step in path:
        fields = fields.setdefault(step, {})


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    fields = owned_fields(value)
    if not fields:
        yield path, json.dumps(value, sort_keys=True)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, f"f:{key}"))
    else:
        for step, item in zip(fields, value, strict=True):
            yield from _leaves(item, (*path, step))
