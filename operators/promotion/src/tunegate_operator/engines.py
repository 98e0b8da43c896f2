"""The engines that versions have for themselves: one LLMInferenceService for each, and where it is. Pure.

It runs without a router: what comes to it comes from the version's servers, which stand in front of it. KServe makes a
Deployment of it, or a LeaderWorkerSet, and names these as it likes: where it answers is read from its status.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from tunegate.api import environment
from tunegate.api.digest import short
from tunegate.api.engine_names import DEFAULT, name_in_engine
from tunegate.api.labels import MANAGED_BY, MODEL, POLICY, VERSION
from tunegate.api.pinned import storage_uri
from tunegate.api.policy import ENGINE_FOLDER, ENGINE_POD_PART, ClusterPolicy, Placement
from tunegate.api.versions import ModelVersion
from tunegate.kube import pods
from tunegate.kube.kinds import Object
from tunegate.promotion.snapshot import ServerState
from tunegate_operator import kinds, placement
from tunegate_operator.config import Config
from tunegate_operator.manifests import EngineAddress, elsewhere, make_object, store_env
from tunegate_operator.read import condition, is_true
from tunegate_operator.types import object_name, server_name

_SERVICE, _CERTIFICATE = "-kserve-workload-svc", "-kserve-self-signed-certs"
_MOST_CHARACTERS, _DIGEST_CHARACTERS = 63, 32
# What a person can do about what KServe says, by its reason.
_REMEDIES = {
    "ConfigNotFound": (
        "install KServe's presets (its chart kserve-runtime-configs, with kserve.llmisvcConfigs.enabled), or name such "
        "as are there in spec.serving.llmInferenceService.baseRefs"
    ),
    "InvalidRenderedConfig": "mend spec.serving.llmInferenceService, or the presets that KServe names",
    "ReconcileMultiNodeWorkloadError": "an engine of several pods needs LeaderWorkerSet; install it",
}


def llm_inference_service(
    namespace: str, policy: ClusterPolicy, name: str, version: ModelVersion, config: Config
) -> Object:
    """The engine of one version, whose bytes our initializer brings into each of its pods, held to the digest."""
    wanted = policy.serving.llm_inference_service
    assert wanted is not None, "without it there is no engine to make"
    labels = {**MANAGED_BY, POLICY: name, MODEL: policy.model, VERSION: short(version.digest)}
    brings = initializer(storage_uri(version), config)
    parallelism = msgspec.to_builtins(wanted.parallelism)
    spread = {key: value for key, value in parallelism.items() if value is not None}
    spec = {
        # KServe's own initializer, which knows no digests, is off; the URI says what ours brings.
        "model": {"uri": storage_uri(version), "name": name_in_engine(DEFAULT, version)},
        "storageInitializer": {"enabled": False},
        "replicas": wanted.replicas,
        # No pod ends before its successor answers, whatever a Deployment or a LeaderWorkerSet does by itself.
        "rolloutStrategy": {"maxSurge": 1, "maxUnavailable": 0},
        **placement.metadata(config.initializer_pods, Placement(), labels),
        **({"parallelism": spread} if spread else {}),
        **({"baseRefs": [{"name": ref.name} for ref in wanted.base_refs]} if wanted.base_refs else {}),
        "template": _with_version(wanted.template, brings, config),
        **({"worker": _with_version(wanted.worker, brings, config)} if wanted.worker is not None else {}),
    }
    kind = kinds.LLM_INFERENCE_SERVICE
    containers = [each for pod in (wanted.template, wanted.worker or {}) for each in pod.get("containers", [])]
    queues = (placement.queue_label(config.queue_name, each.get("resources", {})) for each in containers)
    own = {**labels, **next(filter(None, queues), {})}  # KServe hands Kueue's labels on to what it makes
    return make_object(kind.api_version, kind.kind, namespace, server_name(name, version.digest), own, spec)


def initializer(uri: str, config: Config) -> Object:
    """What brings the version of this URI to ENGINE_FOLDER of an engine's pod, held to its digest."""
    release, resources = config.initializer_pods, config.initializer_pods.resources
    container = pods.container(
        ENGINE_POD_PART,
        config.initializer_image,
        args=[uri, ENGINE_FOLDER],
        volumes=[pods.Volume(ENGINE_POD_PART, ENGINE_FOLDER)],
        env=placement.env(release, Placement(), [*store_env(config), {"name": "HOME", "value": "/tmp"}]),  # noqa: S108
        secret=config.store_secret,
        **({"resources": resources} if resources else {}),
    )
    placement.complete(container, release)
    return container


def _with_version(pod: Mapping[str, Any], brings: Object, config: Config) -> Object:
    """The pod as the policy has it, with the version in front of its container `main`; presets are laid beneath."""
    release = config.initializer_pods
    mount = {"name": ENGINE_POD_PART, "mountPath": ENGINE_FOLDER, "readOnly": True}
    containers = list(pod.get("containers", []))
    if not any(container["name"] == "main" for container in containers):
        containers.insert(0, {"name": "main"})
    secrets = [*pod.get("imagePullSecrets", []), *release.image_pull_secrets]
    return {
        **pod,
        "initContainers": [brings, *pod.get("initContainers", [])],
        "containers": [
            {**container, "volumeMounts": [*container.get("volumeMounts", []), mount]}
            if container["name"] == "main"
            else container
            for container in containers
        ],
        "volumes": [*pod.get("volumes", []), {"name": ENGINE_POD_PART, "emptyDir": {}}, *release.volumes],
        **({"imagePullSecrets": secrets} if secrets else {}),
    }


def not_whole(version: ModelVersion) -> str:
    """Why an engine that loads whole models can't have this version; empty where it can."""
    if version.format == "huggingface":
        return ""
    return (
        f"is an adapter ({version.format}), and engine: LLMInferenceService loads whole models; merge it with its base "
        "and promote what that makes: tunegate merge --publish"
    )


def engine_address(engine: Object, service: Object | None) -> EngineAddress | None:
    """Where it answers; `service` is the one that its status names, whose port says whether it has a certificate."""
    if service is None:
        return None
    metadata, port = service["metadata"], service["spec"]["ports"][0]
    scheme = port.get("appProtocol") or port["name"]
    secret = child_name(engine["metadata"]["name"], _CERTIFICATE) if scheme == "https" else ""
    return EngineAddress(f"{scheme}://{metadata['name']}.{metadata['namespace']}.svc:{port['port']}", secret)


def service_of(engine: Object) -> str:
    """The name of its Service; empty as long as KServe has made none."""
    return str(engine.get("status", {}).get("workloads", {}).get("service", {}).get("name", ""))


def child_name(parent: str, suffix: str) -> str:
    """What KServe calls an object that it makes for another one: where that is too long, with its MD5 instead."""
    if len(parent) + len(suffix) <= _MOST_CHARACTERS:
        return parent + suffix
    kept = parent[: _MOST_CHARACTERS - _DIGEST_CHARACTERS - len(suffix)]
    return kept + hashlib.md5(parent.encode(), usedforsecurity=False).hexdigest() + suffix


def is_engine_answering(engine: Object) -> bool:
    """Whether any of its pods, or of its groups of pods, is ready."""
    primary = engine.get("status", {}).get("workloads", {}).get("primary", {})
    return primary.get("readyReplicas", 0) > 0 or is_true(engine, "Ready")


def stands_before(server: Object, engine: Object | None) -> bool:
    """Whether this InferenceService asks the engine that its version has for itself, whether or not that is there."""
    metadata = server["metadata"]
    names = {child_name(metadata["name"], _SERVICE), *([service_of(engine)] if engine else [])}
    hosts = {f"://{name}.{metadata['namespace']}.svc:" for name in names if name}
    urls = [each["value"] for each in elsewhere(_model(server)) if each["name"] == environment.ENGINE_URL]
    return any(host in url for url in urls for host in hosts)


def is_away(server: Object, engine: Object | None) -> bool:
    """Whether the engine that this server asks does not answer."""
    return stands_before(server, engine) and (engine is None or not is_engine_answering(engine))


def engine_states(
    servers: Mapping[str, Object],
    engines: Mapping[str, Object],
    digests: Mapping[str, str],
    state_of: Callable[[Object, str], ServerState],
) -> Iterable[tuple[str, ServerState]]:
    """By digest, the states of versions whose engine is not ready, or ready before there is a server in front of it.

    A server is ready no sooner than its engine. `digests` are by the server's name, which is the engine's, too;
    `state_of` is what KServe says of a server or an engine of that digest.
    """
    for name, engine in engines.items():
        server, digest = servers.get(name), digests.get(name, "")
        if not digest or (server and not stands_before(server, engine)):
            continue
        state = state_of(engine, digest)
        if not state.ready:
            remedy = _REMEDIES.get(condition(engine, "Ready").get("reason", ""))
            yield digest, replace(state, message=f"{state.message}; {remedy}") if remedy else state
        elif server is None:
            at = service_of(engine) or "that KServe makes for it"
            message = f"the engine {name} is ready; its servers are made as soon as its Service {at} is seen"
            yield digest, ServerState(message=message)


def evaluation_engines(
    policy: ClusterPolicy,
    name: str,
    versions: Iterable[ModelVersion],
    servers: Mapping[str, Object],
    engines: Mapping[str, Object],
    ready: Collection[str],
    states: Mapping[str, ServerState],
    served: Collection[str],
) -> tuple[dict[str, str], dict[str, str]]:
    """By digest, what is said of the engines that evaluations wait for, and why there will be none.

    ready: the names of those that can be asked. served: the digests of versions that users may see, whose engines are
    waited for whatever happens. A version whose server has the weights itself is loaded by its evaluations, too.
    """
    waits: dict[str, str] = {}
    failures: dict[str, str] = {}
    for version in versions if policy.serving.llm_inference_service else ():
        digest, its = version.digest, server_name(name, version.digest)
        server, engine, state = servers.get(its), engines.get(its), states.get(digest, ServerState())
        if unfit := not_whole(version):
            failures[digest] = f"{version.name} {unfit}"
        elif its in ready or (server and not stands_before(server, engine)):
            continue
        elif engine and state.failed and digest not in served:
            failures[digest] = f"{state.message}; delete ModelVersion {object_name(version)} to try again"
        else:
            waits[digest] = f"{version.name} waits for its engine: {state.message or f'{its} is not made yet'}"
    return waits, failures


def unneeded_engines(
    engines: Mapping[str, Object], servers: Mapping[str, Object], needed: Collection[str]
) -> Iterable[Object]:
    """Those of versions without servers that nobody needs.

    servers: those that stay; the pods of one that got another engine may ask this one for some time yet. needed: the
    names of those that are to have one.
    """
    for name, engine in engines.items():
        if name not in servers and name not in needed and "deletionTimestamp" not in engine["metadata"]:
            yield engine


def _model(server: Object) -> Object:
    found: Object = server["spec"].get("predictor", {}).get("model", {})
    return found
