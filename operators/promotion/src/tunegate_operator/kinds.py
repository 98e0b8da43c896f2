"""Every kind that the operator reads or writes, and its client for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunegate.api.kubernetes import VERSION
from tunegate.api.labels import GROUP
from tunegate.kube.client import Cluster
from tunegate.kube.kinds import DEPLOYMENT, EVENT, JOB, LEASE, POD, SERVICE, Kind, Object, by_name
from tunegate_operator.types import MANAGER

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

MODEL_VERSION = Kind(GROUP, VERSION, "modelversions", "ModelVersion")
POLICY = Kind(GROUP, VERSION, "promotionpolicies", "PromotionPolicy")
PROMOTION = Kind(GROUP, VERSION, "promotions", "Promotion")
INFERENCE_SERVICE = Kind("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService")
LLM_INFERENCE_SERVICE = Kind("serving.kserve.io", "v1alpha2", "llminferenceservices", "LLMInferenceService")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
GATEWAY = Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway")
PYTORCH_JOB = Kind("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob")
TRAIN_JOB = Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob")
WORKLOAD = Kind("kueue.x-k8s.io", "v1beta1", "workloads", "Workload")
TRAINING = (PYTORCH_JOB, TRAIN_JOB)

_SERVING = (INFERENCE_SERVICE, LLM_INFERENCE_SERVICE, DEPLOYMENT, HTTP_ROUTE, SERVICE)
_WRITTEN = by_name((MODEL_VERSION, POLICY, PROMOTION, *_SERVING, JOB, *TRAINING))


def kind_of(obj: Object) -> Kind:
    """The kind of an object that the operator writes."""
    return _WRITTEN[obj["apiVersion"], obj["kind"]]


def operator_cluster(client: ApiClient, **options: Any) -> Cluster:
    """The cluster as the operator writes to it; `options` are those of Cluster."""
    return Cluster(client, manager=MANAGER, kinds=_WRITTEN.values(), reporter=f"{GROUP}/operator", **options)


__all__ = [
    "DEPLOYMENT",
    "EVENT",
    "GATEWAY",
    "HTTP_ROUTE",
    "INFERENCE_SERVICE",
    "JOB",
    "LEASE",
    "LLM_INFERENCE_SERVICE",
    "MODEL_VERSION",
    "POD",
    "POLICY",
    "PROMOTION",
    "PYTORCH_JOB",
    "SERVICE",
    "TRAINING",
    "TRAIN_JOB",
    "WORKLOAD",
    "kind_of",
    "operator_cluster",
]
