"""Training jobs as Kubeflow's operators have them, for what the promotion operator reads and suspends."""

from __future__ import annotations

from tests.unit.operator.world import NAMESPACE
from tunegate.kube.kinds import Kind, Object
from tunegate_operator import kinds

STOP: Object = {"when": "WorseThanStable", "suite": "quality", "metric": "score", "checkpoints": 1}


def training_job(kind: Kind, run: str, **labels: str) -> Object:
    """The job `train-<run>` of the model `shop`, which runs."""
    found = {"tunegate.io/model": "shop", "tunegate.io/run": run, **labels}
    metadata = {"name": f"train-{run}", "namespace": NAMESPACE, "labels": found}
    spec: Object = {"runPolicy": {}} if kind == kinds.PYTORCH_JOB else {}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


def is_suspended(job: Object) -> bool:
    """As the API of its kind says it."""
    spec = job["spec"]["runPolicy"] if job["kind"] == "PyTorchJob" else job["spec"]
    return bool(spec.get("suspend", False))
