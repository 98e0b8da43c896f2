"""The PyTorchJob that trains what a PAI line asks for. Pure: values in, an object for Kubernetes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunegate.api import environment
from tunegate.api.errors import UsageError
from tunegate.api.labels import MODEL, QUEUE, RUN
from tunegate.kube import pods
from tunegate.training.compat.pai import PaiJob

API_VERSION = "kubeflow.org/v1"
_METRICS_PORT = "9400"
# A job is given up when the restarts of all its pods together reach its limit; one pod's failure starts all again.
_FAILURES = 3


@dataclass(frozen=True)
class JobSettings:
    """Where in a cluster a job runs, and what it finds there: an image, the store and its keys.

    claim: the volume that several pods share; None: each has a folder of its own, and the store what they share.
    """

    name: str
    namespace: str
    image: str
    store: str | None
    endpoint_url: str | None
    store_secret: str
    claim: str | None = None
    queue: str | None = None


def training_job(job: PaiJob, settings: JobSettings) -> dict[str, Any]:
    """A pod for each worker, all with the same arguments. Raises UsageError if the job's result would be lost."""
    store = job.store or settings.store
    if store is None:
        raise UsageError(
            "The pods' folders go with the pods; give --store, or an --output_dir under /data/oss_bucket_0/."
        )
    labels = {MODEL: settings.name, RUN: job.run, **({QUEUE: settings.queue} if settings.queue else {})}
    given = {name: value for name, _, value in (argument.partition("=") for argument in job.arguments)}
    ours = {
        "--model": settings.name,
        "--run": job.run,
        "--nproc_per_node": str(job.processes),
        "--metrics_port": _METRICS_PORT,
    }
    added = {name: value for name, value in ours.items() if name not in given}
    limits = {name: value for name, value in (("memory", job.memory), ("nvidia.com/gpu", job.gpus)) if value}
    container = {
        "name": "pytorch",
        "args": ["train", *job.arguments, *(f"{name}={value}" for name, value in added.items())],
        "resources": {
            "requests": {"cpu": job.cpu or "1", "memory": job.memory or "2Gi"},
            **({"limits": limits} if limits else {}),
        },
        **({"workingDir": "/job"} if job.package else {}),
    }
    port = int({**added, **given}["--metrics_port"])
    first = {**container, "ports": [{"name": "metrics", "containerPort": port, "protocol": "TCP"}]}
    replicas = {"Master": _replica(1, job, settings, store, first)}
    if job.workers > 1:
        replicas["Worker"] = _replica(job.workers - 1, job, settings, store, container)
    return {
        "apiVersion": API_VERSION,
        "kind": "PyTorchJob",
        "metadata": {"name": settings.name, "namespace": settings.namespace, "labels": labels},
        "spec": {
            "runPolicy": {"cleanPodPolicy": "Running", "backoffLimit": _FAILURES * job.workers + 1},
            "pytorchReplicaSpecs": replicas,
        },
    }


def _replica(count: int, job: PaiJob, settings: JobSettings, store: str, container: dict[str, Any]) -> dict[str, Any]:
    """As many equal pods, as safe as pods can be."""
    volumes = [*pods.scratch("tmp", "cache"), pods.CA]
    if job.workers > 1 and settings.claim:
        volumes.append(pods.Volume("scratch", "/scratch", {"persistentVolumeClaim": {"claimName": settings.claim}}))
    else:
        volumes += pods.scratch("scratch")
    if job.package:
        volumes.append(pods.Volume("work", "/job"))
    if job.gpus > 1:  # through it GPUs of one machine exchange data, and a container has 64 MiB of it
        volumes.append(pods.Volume("shm", "/dev/shm", {"emptyDir": {"medium": "Memory"}}))  # noqa: S108
    variables = {
        environment.STORE: store,
        environment.ENDPOINT_URL: settings.endpoint_url or job.endpoint_url,
        environment.REGION: "us-east-1",
        environment.CACHE: "/cache",
    }
    common: Any = {"volumes": volumes, "env": pods.variables(variables), "secret": settings.store_secret}
    unpack = pods.container(
        "package",
        settings.image,
        command=["python", "-m", "tunegate.training.compat.unpack", job.package, "/job"],
        resources={"requests": {"cpu": "100m", "memory": "256Mi"}},
        **common,
    )
    train = pods.container(image=settings.image, **container, **common)
    for each in (unpack, train):
        each["envFrom"].append(pods.COMPANY)
    spec = pods.pod(
        [train],
        volumes,
        terminationGracePeriodSeconds=120,  # a drained pod keeps a checkpoint first, and publishes it
        **({"initContainers": [unpack]} if job.package else {}),
    )
    pod = {"metadata": {"labels": {MODEL: settings.name, RUN: job.run}}, "spec": spec}
    return {"replicas": count, "restartPolicy": "OnFailure", "template": pod}
