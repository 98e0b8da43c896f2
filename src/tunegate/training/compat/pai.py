"""A line for Alibaba's PAI, and the PyTorchJob that does the same.

Pure: text and values in, an object for Kubernetes out. Which flags training knows, and how an object gets into a
cluster, are not known here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import msgspec

from tunegate.api import environment
from tunegate.api.errors import UsageError
from tunegate.api.labels import MODEL, RUN
from tunegate.training.compat.llamafactory import flags, name_of

GROUP = "kubeflow.org/v1"
_METRICS_PORT = "9400"
_KNOWN = ("script", "entryFile", "userDefinedParameters", "workerCount", "cluster", "buckets", "gpuRequired")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_MOUNT = re.compile(r"/data/oss_bucket_(\d+)(?:/(.*))?")
_PACKAGE_FILES = ("dataset_dir", "deepspeed")


@dataclass(frozen=True)
class Work:
    """What a line asks for.

    words: the flags of training, `--name=value`; where buckets were mounted, with the buckets' URIs.
    store: where checkpoints go, if the line had them written into a bucket.
    package: the archive whose files relative paths in `words` mean.
    processes: those of each of `workers` pods. cpu, memory: of each pod, as Kubernetes counts; None was not said.
    """

    words: tuple[str, ...]
    run: str
    store: str | None
    package: str | None
    workers: int
    processes: int
    gpus: int
    cpu: str | None
    memory: str | None
    endpoint_url: str | None


@dataclass(frozen=True)
class Place:
    """Where in a cluster a job runs, and what it finds there: an image, the store and its keys, a shared volume."""

    name: str
    namespace: str
    image: str
    store: str | None
    endpoint_url: str | None
    store_secret: str
    claim: str


def read_line(text: str, given: Mapping[str, str]) -> Work:
    """The work of a `pai -name pytorch...` line; its variables are set in lines before it, or in `given`.

    Spaces that were lost before -D and -project are put back. Raises UsageError for what can't be understood.
    """
    options, variables = _split(text, given)
    expand = _Expansion(variables)
    buckets, endpoint_url = _buckets(expand(options.get("buckets", "")))
    entry = dict(_launcher(options.get("entryFile", ""), expand))
    cluster = _cluster(expand(options.get("cluster", "")))
    workers = expand(options.get("workerCount", "")) or str(cluster.get("count", "") or entry.get("nnodes", "1"))
    gpus = _gpus(expand(options.get("gpuRequired", "")) or cluster.get("gpu", 0))
    processes = entry.get("nproc_per_node") or str(gpus or 1)
    script = expand(options.get("script", ""))
    parameters = expand(options.get("userDefinedParameters", ""))
    expand.check()
    words, output_dir, store = _words(_shell(parameters), buckets)
    package = _package(script, words)
    work = Work(
        words=words,
        run=name_of(output_dir),
        store=store,
        package=package,
        workers=_count("workerCount", workers),
        processes=_count("nproc_per_node", processes),
        gpus=gpus,
        cpu=f"{_percent('cpu', cluster['cpu']) / 100:g}" if "cpu" in cluster else None,
        memory=f"{_percent('memory', cluster['memory'])}Mi" if "memory" in cluster else None,
        endpoint_url=endpoint_url,
    )
    if "nnodes" in entry and entry["nnodes"] != str(work.workers):
        raise UsageError(f"The line has --nnodes={entry['nnodes']} and {work.workers} workers; make them the same.")
    if gpus and work.processes > gpus:
        raise UsageError(f"The line has {work.processes} processes for {gpus} GPUs a worker; make them the same.")
    return work


def training_job(work: Work, place: Place) -> dict[str, Any]:
    """The PyTorchJob: a pod for each worker, all with the same words. Raises UsageError if its result would be lost."""
    store = work.store or place.store
    if store is None:
        raise UsageError(
            "The pods' folders go with the pods; give --store, or an --output_dir under /data/oss_bucket_0/."
        )
    labels = {MODEL: place.name, RUN: work.run}

    def replica(count: int, ports: list[dict[str, Any]]) -> dict[str, Any]:
        pod = {"metadata": {"labels": labels}, "spec": _pod(work, place, store, ports)}
        return {"replicas": count, "restartPolicy": "OnFailure", "template": pod}

    port = int(_said(work).get("--metrics_port", _METRICS_PORT))
    served = [{"name": "metrics", "containerPort": port, "protocol": "TCP"}]
    others = {"Worker": replica(work.workers - 1, [])} if work.workers > 1 else {}
    return {
        "apiVersion": GROUP,
        "kind": "PyTorchJob",
        "metadata": {"name": place.name, "namespace": place.namespace, "labels": labels},
        "spec": {
            "runPolicy": {"cleanPodPolicy": "Running", "backoffLimit": 3},
            "pytorchReplicaSpecs": {"Master": replica(1, served), **others},
        },
    }


class _Expansion:
    """Puts values for ${variables}, and remembers which are not set."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._missing: dict[str, None] = {}

    def __call__(self, text: str) -> str:
        for name in _VARIABLE.findall(text):
            if name not in self._variables:
                self._missing[name] = None
        expanded = _VARIABLE.sub(lambda match: self._variables.get(match[1], ""), text)
        return self(expanded) if expanded != text and _VARIABLE.search(expanded) else expanded

    def check(self) -> None:
        if self._missing:
            names = ", ".join(f"${{{name}}}" for name in self._missing)
            raise UsageError(f"The line uses {names}; set it in the environment, or in a line before pai.")


def _split(text: str, given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The line's options by name, and the variables that may stand in them."""
    words = _shell(_spaced(text))
    if "pai" not in words:
        raise UsageError("There is no `pai` line; give the whole command, with pai -name in front.")
    at = words.index("pai")
    variables = {**given, **dict(word.split("=", 1) for word in words[:at] if "=" in word)}
    options: dict[str, str] = {}
    rest = words[at + 1 :]
    while rest:
        word = rest.pop(0)
        if word in ("-name", "-project") and rest:
            options[word[1:]] = rest.pop(0)
        elif word.startswith("-D") and "=" in word:
            name, _, value = word[2:].partition("=")
            options[name] = value
        else:
            raise UsageError(f"{word!r} in the pai line is not understood; its options are -name, -project and -DX=Y.")
    if not options.get("name", "").startswith("pytorch"):
        raise UsageError(f"pai -name {options.get('name', '')} is not PyTorch; tunegate submits pai -name pytorch... .")
    if unknown := options.keys() - {*_KNOWN, "name", "project"}:
        raise UsageError(f"-D{min(unknown)} is not known; leave it out, or of: {', '.join(f'-D{n}' for n in _KNOWN)}.")
    return options, variables


def _spaced(text: str) -> str:
    """The line with a space before each option, outside quotes: a copied line may have lost them."""
    parts = re.split(r"""("(?:\\.|[^"\\])*"|'[^']*')""", text)
    return "".join(
        part if index % 2 else re.sub(r"(?<=\S)(?=-(?:D[A-Za-z]+=|project\s))", " ", part)
        for index, part in enumerate(_joined(parts))
    )


def _joined(parts: list[str]) -> list[str]:
    """A quoted part and an option right after it, with the space that belongs between them."""
    return [
        f" {part}" if index and index % 2 == 0 and re.match(r"-(?:D[A-Za-z]+=|project\s)", part) else part
        for index, part in enumerate(parts)
    ]


def _shell(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"The pai line can't be read: {error}; quote it as for a shell.") from None


def _launcher(entry: str, expand: _Expansion) -> list[tuple[str, str]]:
    """What the line tells torch.distributed.launch; the script itself is tunegate."""
    found = re.findall(r"--(nnodes|nproc_per_node)[= ](\S+)", entry.replace("nproc-per-node", "nproc_per_node"))
    return [(name, expand(value)) for name, value in found]


def _cluster(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, dict[str, Any]]).get("worker", {})
    except msgspec.DecodeError as error:
        raise UsageError(f'-Dcluster is not JSON such as {{"worker": {{"gpu": 100}}}}: {error}.') from None


def _buckets(text: str) -> tuple[tuple[str, ...], str | None]:
    """Each bucket's URI, and the endpoint if one is named beside them."""
    uris, endpoint_url = [], None
    for bucket in filter(None, text.split(",")):
        uri, _, query = bucket.strip().partition("?")
        if not re.match(r"(oss|s3)://", uri):
            raise UsageError(f"-Dbuckets has {uri!r}; a bucket is written oss://BUCKET/.")
        uris.append(uri.rstrip("/"))
        host = parse_qs(query).get("host", [""])[0]
        endpoint_url = (host if "://" in host else f"https://{host}") if host else endpoint_url
    return tuple(uris), endpoint_url


def _gpus(percent: Any) -> int:
    value = _percent("gpu", percent)
    if value % 100:
        raise UsageError(f"The line asks for {value} % of a GPU; Kubernetes gives whole ones: 100, 200 and so on.")
    return value // 100


def _percent(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {value!r} in the pai line; it must be a whole number.") from None


def _count(name: str, value: Any) -> int:
    number = _percent(name, value)
    if number < 1:
        raise UsageError(f"{name} is {number} in the pai line; it must be at least 1.")
    return number


def _words(words: list[str], buckets: tuple[str, ...]) -> tuple[tuple[str, ...], str, str | None]:
    """The flags of training, the run's folder, and the store if that folder was in a bucket."""
    kept, output_dir, store = [], "", None
    for word, flag, value in flags(words):
        mapped = _mapped(value, buckets) if value is not None else None
        if flag == "output_dir" and value and mapped:
            output_dir = mapped.rstrip("/")
            store = output_dir.rpartition("/")[0] if mapped != value else None
            mapped = f"/scratch/{output_dir.rpartition('/')[2] if store else output_dir}"
        kept.append(word if not flag else f"--{flag}" if mapped is None else f"--{flag}={mapped}")
    if not output_dir:
        raise UsageError("-DuserDefinedParameters has no --output_dir; say where the run keeps its checkpoints.")
    return tuple(kept), output_dir, store


def _mapped(value: str, buckets: tuple[str, ...]) -> str:
    """`value`, with the URI of the bucket where it names its mount."""
    match = _MOUNT.fullmatch(value)
    if match is None:
        return value
    if int(match[1]) >= len(buckets):
        raise UsageError(f"{value} is in bucket {match[1]}, and -Dbuckets names {len(buckets)}; name it there.")
    return "/".join(filter(None, [buckets[int(match[1])], (match[2] or "").strip("/")]))


def _package(script: str, words: tuple[str, ...]) -> str | None:
    """The archive of -Dscript; refused where its files are needed and can't be had."""
    if re.match(r"(oss|s3)://.+\.(tar\.gz|tgz|tar)$", script):
        return script
    for name in _PACKAGE_FILES:
        for word in words:
            value = word.removeprefix(f"--{name}=")
            if value != word and not value.startswith(("/", "oss://", "s3://")):
                raise UsageError(
                    f"--{name} {value} is a file of the script's archive; give -Dscript=oss://BUCKET/JOB.tar.gz."
                )
    return None


def _pod(work: Work, place: Place, store: str, ports: list[dict[str, Any]]) -> dict[str, Any]:
    """As safe as pods can be, with a scratch folder that all pods of a job share."""
    volumes: dict[str, tuple[str, Any]] = {name: (f"/{name}", {"emptyDir": {}}) for name in ("tmp", "cache", "scratch")}
    if work.workers > 1:
        volumes["scratch"] = ("/scratch", {"persistentVolumeClaim": {"claimName": place.claim}})
    if work.package:
        volumes["work"] = ("/job", {"emptyDir": {}})
    if work.gpus > 1:  # through it GPUs of one machine speak, and a container has 64 MiB of it
        volumes["shm"] = ("/dev/shm", {"emptyDir": {"medium": "Memory"}})  # noqa: S108
    common = {
        "image": place.image,
        "env": _environment(work, place, store),
        "envFrom": [{"secretRef": {"name": place.store_secret}}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": name, "mountPath": path} for name, (path, _) in volumes.items()],
    }
    unpack = {
        "name": "package",
        "command": ["python", "-m", "tunegate.training.compat.unpack", work.package, "/job"],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        **common,
    }
    train = {"name": "pytorch", "args": _arguments(work, place), "resources": _resources(work), **common}
    if ports:
        train["ports"] = ports
    if work.package:
        train["workingDir"] = "/job"
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 120,  # a drained pod keeps a checkpoint first, and publishes it
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"initContainers": [unpack]} if work.package else {}),
        "containers": [train],
        "volumes": [{"name": name, **volume} for name, (_, volume) in volumes.items()],
    }


def _environment(work: Work, place: Place, store: str) -> list[dict[str, str]]:
    endpoint_url = place.endpoint_url or work.endpoint_url
    variables = {
        environment.STORE: store,
        **({environment.ENDPOINT_URL: endpoint_url} if endpoint_url else {}),
        environment.REGION: "us-east-1",
        environment.CACHE: "/cache",
    }
    return [{"name": name, "value": value} for name, value in variables.items()]


def _said(work: Work) -> dict[str, str]:
    """The value of each option of the line."""
    return {name: value for name, _, value in (word.partition("=") for word in work.words)}


def _arguments(work: Work, place: Place) -> list[str]:
    said = _said(work)
    ours = {"model": place.name, "run": work.run, "nproc_per_node": work.processes, "metrics_port": _METRICS_PORT}
    return ["train", *work.words, *(f"--{name}={value}" for name, value in ours.items() if f"--{name}" not in said)]


def _resources(work: Work) -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": work.gpus} if work.gpus else {}
    limits = {**({"memory": work.memory} if work.memory else {}), **gpus}
    requests = {"cpu": work.cpu or "1", "memory": work.memory or "2Gi"}
    return {"requests": requests, **({"limits": limits} if limits else {})}
