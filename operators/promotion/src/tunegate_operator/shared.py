"""The engines that several versions share: one pod for each policy and base, and where it answers. Pure.

A version is a name there, and no pod: its servers, which have no weights, have it loaded and keep it so. What may be
loaded beside what, and whether it answers as it was evaluated, is for them and for `tunegate engine` to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress

from tunegate.api import environment
from tunegate.api.digest import Digest, short
from tunegate.api.errors import UsageError
from tunegate.api.labels import BASE, MANAGED_BY, MODEL, POLICY
from tunegate.api.pinned import SCHEME, base_of, parse_storage_uri
from tunegate.api.policy import ENGINE_FOLDER, ENGINE_POD_PART, ClusterPolicy, ServingPods, SharedEngine
from tunegate.api.versions import BaseModel, ModelVersion
from tunegate.kube import pods
from tunegate.kube.kinds import Object
from tunegate.models.cards import Card
from tunegate.models.memory import Footprint, misfit
from tunegate_operator import placement
from tunegate_operator.config import Config
from tunegate_operator.engines import initializer, is_engine_answering
from tunegate_operator.manifests import EngineAddress, elsewhere, make_object, store_env
from tunegate_operator.read import condition
from tunegate_operator.types import server_name

PORT, CONTROL_PORT = 8080, 8081
_SUFFIX = "-engine"
_PROBE_SECONDS = 5


def held_by_engine(version: ModelVersion) -> BaseModel | None:
    """The weights of the engine that this version is served by; None for one that no engine can share."""
    if version.format == "huggingface":
        return base_of(version)
    return version.base if version.format == "lora-adapter" else None


def not_shareable(version: ModelVersion) -> str:
    """Why no engine that versions share can have this one; empty where one can."""
    if held_by_engine(version):
        return ""
    return (
        f"can't be served with serving.shareBase: of what is not whole a shared engine loads LoRA adapters that name "
        f"their base, and this is a {version.format}; leave out shareBase, or promote what tunegate merge --publish "
        "makes of it"
    )


def too_large(model: Footprint, card: Card, gpus: int, serving: ServingPods) -> str:
    """Why a server of the model, or the engine of that base with room for adapters, can't be on so many cards; empty
    where it can."""
    if not serving.share_base:
        return misfit(model, card, gpus)
    own = serving.engine_pod
    full = model.with_adapters(own.max_adapters, own.max_rank)
    said = misfit(full, card, gpus)
    if not said or misfit(model, card, gpus):
        return said
    room = (full.weights - model.weights) / 2**30
    return (
        f"{said}; of that, room for {own.max_adapters} adapters of rank {own.max_rank} is {room:.1f} GiB: lower "
        "maxAdapters or maxRank in serving.sharedEngine"
    )


def engine_name(policy: str, base: BaseModel) -> str:
    return server_name(policy, base.digest) + _SUFFIX


def queue_key(engine: Object) -> str:
    """What the Workloads of its pods are found by."""
    return str(engine["metadata"]["name"]).removesuffix(_SUFFIX)


def shared_engine(
    namespace: str, policy: ClusterPolicy, name: str, base: BaseModel, config: Config
) -> tuple[Object, Object]:
    """Its Deployment and its Service."""
    own, release = policy.serving.engine_pod, config.serving_pods
    selector = {POLICY: name, BASE: short(base.digest)}
    labels = {**MANAGED_BY, MODEL: policy.model, **selector}
    resources = own.resources or dict(config.vllm_resources)
    spec = {
        "replicas": 1,
        # Two at once would each have some of the adapters.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": selector},
        "template": {
            "metadata": placement.metadata(release, own, labels),
            "spec": _pod(policy, own, base, resources, config),
        },
    }
    ports = [{"name": "http", "port": PORT}, {"name": "control", "port": CONTROL_PORT}]
    queue, made = placement.queue_label(config.queue_name, resources), engine_name(name, base)
    return (
        make_object("apps/v1", "Deployment", namespace, made, {**labels, **queue}, spec),
        make_object("v1", "Service", namespace, made, labels, {"selector": selector, "ports": ports}),
    )


def _pod(policy: ClusterPolicy, own: SharedEngine, base: BaseModel, resources: Object, config: Config) -> Object:
    release = config.serving_pods
    volumes = (
        *pods.scratch("tmp", "cache"),
        pods.Volume(ENGINE_POD_PART, ENGINE_FOLDER),
        pods.Volume("shm", "/dev/shm", {"emptyDir": {"medium": "Memory"}}),  # noqa: S108
    )
    probe = {"httpGet": {"path": "/healthz", "port": CONTROL_PORT}, "periodSeconds": _PROBE_SECONDS}
    container = pods.container(
        "engine",
        config.engine_image,
        args=[
            *("engine", "--folder", ENGINE_FOLDER, "--host", "0.0.0.0"),  # noqa: S104
            *("--port", str(PORT), "--control-port", str(CONTROL_PORT)),
            *("--max-adapters", str(own.max_adapters), "--max-rank", str(own.max_rank)),
        ],
        volumes=volumes,
        env=placement.env(release, own, [*store_env(config), *pods.variables(_VARIABLES)]),
        secret=config.store_secret,
        ports=[{"name": "http", "containerPort": PORT}, {"name": "control", "containerPort": CONTROL_PORT}],
        startupProbe={
            **probe,
            "failureThreshold": max(1, math.ceil(policy.serving.ready_timeout_seconds / _PROBE_SECONDS)),
        },
        readinessProbe={**probe, "timeoutSeconds": _PROBE_SECONDS},
        terminationMessagePolicy="FallbackToLogsOnError",
        **({"resources": resources} if resources else {}),
    )
    placement.complete(container, release)
    brings = initializer(_uri(base), config)
    pod = pods.pod([container], volumes, initContainers=[brings], terminationGracePeriodSeconds=config.grace_seconds)
    more = {volume["name"]: volume for volume in (*release.volumes, *config.initializer_pods.volumes)}
    return {**pod, "volumes": [*pod["volumes"], *more.values()], **placement.fields(release, own)}


# torch asks for the user's name, and the image knows no user 10001.
_VARIABLES: dict[str, str | None] = {
    "HOME": "/tmp",  # noqa: S108
    "HF_HUB_OFFLINE": "1",
    "USER": "tunegate",
    environment.CACHE: "/cache",
}


def _uri(base: BaseModel) -> str:
    """The base as an initializer takes it, whatever an adapter calls it."""
    with suppress(UsageError):
        parse_storage_uri(base.uri)
        return base.uri
    name = "/".join(base.uri.rstrip("/").split("/")[-3:])
    return f"{SCHEME}{Digest.parse(base.digest).pinned}/{name}/"


def seen_by_versions(policy: str, shared: Mapping[str, Object], versions: Iterable[ModelVersion]) -> dict[str, Object]:
    """The engines of these versions by the names of their servers, as if each had its own: ready when its pod is."""
    found: dict[str, Object] = {}
    for version in versions:
        base = held_by_engine(version)
        engine = shared.get(engine_name(policy, base)) if base else None
        if engine:
            found[server_name(policy, version.digest)] = _as_own(engine)
    return found


def _as_own(engine: Object) -> Object:
    said = condition(engine, "Available")
    fields: Object = {key: said[key] for key in ("reason", "message", "lastTransitionTime") if key in said}
    ready = {"type": "Ready", "status": said.get("status", "Unknown"), **fields}
    primary = {"readyReplicas": engine.get("status", {}).get("availableReplicas", 0)}
    workloads = {"primary": primary, "service": {"name": engine["metadata"]["name"]}}
    return {**engine, "status": {"conditions": [ready], "workloads": workloads}}


def shared_addresses(
    policy: str, engines: Mapping[str, Object], versions: Iterable[ModelVersion]
) -> Iterable[tuple[str, EngineAddress]]:
    """Where the engines answer and load, by the names of the servers; `engines` as `seen_by_versions` has them."""
    for version in versions:
        name = server_name(policy, version.digest)
        if (engine := engines.get(name)) and is_engine_answering(engine):
            host = f"http://{engine['metadata']['name']}.{engine['metadata']['namespace']}.svc"
            yield name, EngineAddress(f"{host}:{PORT}", model="", control=f"{host}:{CONTROL_PORT}")


def asked_by(servers: Iterable[Object]) -> set[str]:
    """The names of the engines that these servers stand in front of."""
    urls = [
        each["value"]
        for server in servers
        for each in elsewhere(server["spec"].get("predictor", {}).get("model", {}))
        if each["name"] == environment.ENGINE_URL and "value" in each
    ]
    return {url.partition("://")[2].partition(".")[0] for url in urls}
