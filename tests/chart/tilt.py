"""What Tilt makes of a Tiltfile, by the rules of Tilt 0.37: a stand-in for as much of it as ours calls.

The rules are those of internal/tiltfile (assembleK8s, isWorkload, inferPodReadinessMode) and internal/k8s: an object of
a kind that was named, or with an image, is a workload and a resource of its own, and can't be another's object; what
waits for pods waits for pods of its own; what is built gets a tag that nobody else knows.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.chart.rendering import Object, read_yaml

MAKE_PODS = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"}
LOCAL_CLUSTERS = ("kind-", "minikube", "docker-desktop", "k3d-", "rancher-desktop")
TAG = "tilt-0123456789abcdef"


@dataclass
class Resource:
    """waits: whether what depends on it is held until one of its own pods was ready."""

    name: str
    objects: list[Object] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    is_grouped: bool = False
    waits: bool = False

    @property
    def deps(self) -> list[str]:
        return list(self.options.get("resource_deps", ()))

    @property
    def gets_ready(self) -> bool:
        return not self.waits or any(obj["kind"] in MAKE_PODS for obj in self.objects)


class TiltError(Exception):
    """Why `tilt up` ends before anything happens."""


class Tilt:
    """`calls` by the name of what was called; `resources` and `uncategorized` after `run`."""

    def __init__(self, settings: Mapping[str, str], context: str = "kind-tunegate") -> None:
        self.calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        self.resources: dict[str, Resource] = {}
        self.uncategorized: list[Object] = []
        self._settings, self._context = dict(settings), context

    def run(self, tiltfile: Path) -> Tilt:
        def noted(name: str) -> Callable[..., None]:
            return lambda *words, **options: self.calls.setdefault(name, []).append((words, options))

        def fail(message: str) -> None:
            raise TiltError(message)

        def local(command: str, quiet: bool = False) -> str:
            return subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout

        known = {
            "os": SimpleNamespace(path=os.path),
            "config": SimpleNamespace(define_string=noted("define_string"), parse=lambda: self._settings),
            "k8s_context": lambda: self._context,
            "local": local,
            "blob": str,
            "fail": fail,
            "TRIGGER_MODE_MANUAL": "manual",
            "TRIGGER_MODE_AUTO": "auto",
        }
        names = "allow_k8s_contexts docker_build k8s_kind k8s_resource k8s_yaml local_resource watch_file"
        exec(compile(tiltfile.read_text(), "Tiltfile", "exec"), known | {name: noted(name) for name in names.split()})  # noqa: S102
        allowed = [context for words, _ in self.calls.get("allow_k8s_contexts", ()) for context in words]
        if not self._context.startswith(LOCAL_CLUSTERS) and self._context not in allowed:
            raise TiltError(f"Stop! {self._context} might be production.")
        self._assemble()
        return self

    def named(self, call: str) -> dict[str, dict[str, Any]]:
        """The noted calls by their first argument."""
        return {words[0]: options for words, options in self.calls[call] if words}

    def applied(self) -> list[Object]:
        """All objects as the cluster gets them: what was built has a tag of Tilt's own."""
        return [self._tagged(obj) for obj in self._objects()]

    def _objects(self) -> list[Object]:
        return [obj for (text,), _ in self.calls["k8s_yaml"] for obj in read_yaml(text)]

    def _assemble(self) -> None:
        kinds, rest = self.named("k8s_kind"), []
        for obj in self._objects():
            if obj["kind"] in kinds or self._images(obj):
                if obj["metadata"]["name"] in self.resources:
                    raise TiltError(
                        f"two workloads are called {obj['metadata']['name']}: Tilt names them by their kind, too"
                    )
                mode = kinds.get(obj["kind"], {}).get("pod_readiness", "wait")
                self.resources[obj["metadata"]["name"]] = Resource(
                    obj["metadata"]["name"], [obj], waits=mode != "ignore"
                )
            else:
                rest.append(obj)
        for resource in self.resources.values():
            labels = resource.objects[0]["spec"].get("template", {}).get("metadata", {}).get("labels", {})
            for obj in [obj for obj in rest if obj["kind"] == "Service"]:
                selector = obj["spec"].get("selector", {})
                if labels and selector and selector.items() <= labels.items():
                    resource.objects.append(obj)
                    rest.remove(obj)
        for words, options in self.calls["k8s_resource"]:
            self._option(words[0] if words else options["new_name"], not words, options, rest)
        self.uncategorized = rest
        for words, options in self.calls["local_resource"]:
            self.resources[words[0]] = Resource(words[0], options=options)
        known = {*self.resources, "uncategorized"}
        for resource in self.resources.values():
            if unknown := set(resource.deps) - known:
                raise TiltError(f"resource {resource.name} specified a dependency on unknown resource {unknown}")
        for image in self.named("docker_build"):
            if not any(image in self._images(obj) for obj in self._objects()):
                raise TiltError(f"Image not used in any Kubernetes config: {image}")

    def _option(self, name: str, is_grouped: bool, options: dict[str, Any], rest: list[Object]) -> None:
        if is_grouped:
            self.resources[name] = Resource(name, is_grouped=True)
        resource = self.resources.get(name)
        if resource is None:
            raise TiltError(
                f"k8s_resource specified unknown resource {name!r}. known k8s resources: {[*self.resources]}"
            )
        resource.options |= options
        if "pod_readiness" in options:
            resource.waits = options["pod_readiness"] != "ignore"
        new_name = options.get("new_name", name)
        if new_name != name:
            if new_name in self.resources:
                raise TiltError(f"k8s_resource specified to rename {name!r} to {new_name!r}, which is there")
            resource.name, self.resources[new_name] = new_name, self.resources.pop(name)
        for fragment in options.get("objects", ()):
            found = [obj for obj in rest if fragment.lower() in _fragments(obj)]
            if len(found) != 1:
                left = [f"{obj['metadata']['name']}:{obj['kind']}" for obj in rest]
                raise TiltError(
                    f"No object identified by the fragment {fragment!r} could be found in remaining YAML. "
                    f"Valid remaining fragments are: {left}"
                )
            resource.objects += found
            rest.remove(found[0])

    def _images(self, obj: Object) -> set[str]:
        """The names of images in an object that Tilt sees; in variables only of those that ask for it."""
        in_variables = {
            name for name, options in self.named("docker_build").items() if options.get("match_in_env_vars")
        }
        found = {container["image"] for container in _containers(obj)} | set(self._located(obj))
        values = {variable.get("value", "") for container in _containers(obj) for variable in container.get("env", ())}
        return {_name(image) for image in found} | ({_name(value) for value in values} & in_variables)

    def _located(self, obj: Object) -> Iterator[str]:
        path = self.named("k8s_kind").get(obj["kind"], {}).get("image_json_path", "")
        found: list[Any] = [obj] if path else []
        for part in path.strip("{}").split(".")[1:]:
            found = [value[part.removesuffix("[*]")] for value in found]
            found = [inner for value in found for inner in (value if part.endswith("[*]") else [value])]
        yield from found

    def _tagged(self, obj: Object) -> Object:
        built, made = self.named("docker_build"), copy.deepcopy(obj)
        located = {image: f"{_name(image)}:{TAG}" for image in self._located(obj) if _name(image) in built}
        for container in [*_containers(made), *_anywhere(made, located)]:
            if _name(container["image"]) in built:
                container["image"] = f"{_name(container['image'])}:{TAG}"
            for variable in container.get("env", ()):
                if built.get(_name(variable.get("value", "")), {}).get("match_in_env_vars"):
                    variable["value"] = f"{_name(variable['value'])}:{TAG}"
        return made


def _containers(obj: Object) -> list[Object]:
    spec = obj.get("spec") or {}
    pod = spec if obj["kind"] == "Pod" else spec.get("template", {}).get("spec", {}) if isinstance(spec, dict) else {}
    return [*pod.get("initContainers", ()), *pod.get("containers", ())] if obj["kind"] in MAKE_PODS else []


def _anywhere(value: Any, images: Mapping[str, str]) -> Iterator[Object]:
    """Every part of an object that has one of these images."""
    if isinstance(value, dict):
        if str(value.get("image")) in images:
            yield value
        for inner in value.values():
            yield from _anywhere(inner, images)
    elif isinstance(value, list):
        for inner in value:
            yield from _anywhere(inner, images)


def _fragments(obj: Object) -> set[str]:
    name, kind = obj["metadata"]["name"].lower(), obj["kind"].lower()
    namespace = obj["metadata"].get("namespace", "default").lower()
    return {name, f"{name}:{kind}", f"{name}:{kind}:{namespace}"}


def _name(image: str) -> str:
    return re.sub(r"(:[\w.-]+)?(@sha256:\w+)?$", "", image)
