"""PromotionPolicy: how candidates of one served model become its stable version, or don't."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from tunegate.api.codec import Resource, prepare
from tunegate.api.engine_names import DEFAULT, check_template
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import BY_PEOPLE, is_by_judge

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, which takes all of JSON: also tabs
ENGINE_POD_PART = "tunegate-version"
"""An init container and a volume that tunegate adds to the pods of an engine, at ENGINE_FOLDER."""
ENGINE_FOLDER = "/mnt/models"
Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class Gate(Resource, frozen=True, kw_only=True):
    """A bound on one metric of one suite. Exactly one of `min`, `max`, `max_regression` is set.

    `max_regression` is how much worse than the stable version the candidate may be, in the metric's own unit.
    basis: what is held against the bound: the measured value, or the end of its 95 % interval that is worse for the
    candidate, so that a lucky draw of questions doesn't pass. Paired, of `max_regression` alone, takes the interval of
    the difference to the stable question by question, which is much narrower.
    """

    suite: str
    metric: str
    min: float | None = None
    max: float | None = None
    max_regression: Annotated[float, Meta(ge=0)] | None = None
    basis: Literal["Value", "Interval", "Paired"] = "Value"

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.min, self.max, self.max_regression) if bound is not None]
        if len(bounds) != 1 or not math.isfinite(bounds[0]):
            raise ValueError(
                f"gate on {self.suite}/{self.metric} needs exactly one finite bound of min, max and maxRegression"
            )
        if self.basis == "Paired" and self.max_regression is None:
            raise ValueError(
                f"gate on {self.suite}/{self.metric}: basis Paired compares with the stable, by maxRegression"
            )


class CanaryStep(Resource, frozen=True, kw_only=True):
    """A share of the traffic for the candidate, and what must have happened before it grows.

    weight: percent of the answers, 1..100.
    pause_seconds: time at the observed weight.
    min_verdicts: judged answers of the candidate, counted from the start of the canary.
    """

    weight: Annotated[int, Meta(ge=1, le=100)]
    pause_seconds: Seconds = 0
    min_verdicts: Count = 0


class FeedbackGuard(Resource, frozen=True, kw_only=True):
    """The sequential comparison of thumbs down between candidate and concurrent stable.

    alpha: chance of rolling back a candidate that is no worse than the stable, over the whole promotion.
    margin: a candidate whose share of thumbs down is less than this above the stable's counts as not worse.
    min_verdicts: judged answers needed of the candidate before any conclusion is drawn.
    max_lean: a step ends only while the evidence that the candidate is worse, an e-value, is at most this; at 1 it says
    nothing either way, below 1 the verdicts must speak for the candidate.
    max_per_address: how many verdicts of users whom their requests don't name count for a version, of one address on
    one day; None: all of them.
    """

    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    margin: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    min_verdicts: Annotated[int, Meta(ge=1)] = 10
    max_lean: Annotated[float, Meta(gt=0)] = 1.0
    max_per_address: Annotated[int, Meta(ge=1)] | None = None


class Selection(Resource, frozen=True, kw_only=True):
    """Which checkpoint of a run may be promoted: the latest, or the one with the best `metric` of `suite`."""

    type: Literal["Latest", "BestOf"] = "Latest"
    suite: str = ""
    metric: str = ""

    def __post_init__(self) -> None:
        if (self.type == "BestOf") != bool(self.suite and self.metric) or bool(self.suite) != bool(self.metric):
            raise ValueError("selection BestOf needs suite and metric, and Latest has neither")


class StopTraining(Resource, frozen=True, kw_only=True):
    """When a run's training is stopped before its end, by what its checkpoints were measured at.

    WorseThanStable: the last `checkpoints` that are measured are all worse than the stable's 95 % interval.
    NoGain: none of them is better than the 95 % interval of the best one before them.
    """

    when: Literal["WorseThanStable", "NoGain"]
    suite: str
    metric: str
    checkpoints: Annotated[int, Meta(ge=1, le=100)] = 3


class PromotionPolicy(Resource, frozen=True, kw_only=True):
    """Long-lived, one per served model.

    initial_version: URI of the version that serves before anything was promoted.
    baking_stable_weight: percent of the answers that the stable keeps while a candidate bakes, so that verdicts of one
    time are compared; 0: none.
    deadline_seconds: a promotion that has not ended by then is Failed and the stable keeps the traffic.
    hold_seconds: after a rollback no new candidate is shown to users for this long.
    candidates: whether checkpoints may be promoted while their run goes on, or only once its training job succeeded.
    stop_training: None never stops any.
    """

    model: Annotated[str, Meta(min_length=1)]
    initial_version: str
    suites: tuple[str, ...]
    gates: tuple[Gate, ...]
    steps: tuple[CanaryStep, ...]
    feedback: FeedbackGuard = FeedbackGuard()
    approval: Literal["Automatic", "Manual"] = "Automatic"
    baking_seconds: Seconds = 3600
    baking_stable_weight: Annotated[int, Meta(ge=0, le=50)] = 5
    evaluation_attempts: Annotated[int, Meta(ge=1)] = 2
    evaluation_timeout_seconds: Seconds = 3600
    deadline_seconds: Seconds = 86400
    hold_seconds: Seconds = 0
    candidates: Literal["EveryCheckpoint", "FinishedRuns"] = "EveryCheckpoint"
    selection: Selection = Selection()
    stop_training: StopTraining | None = None
    suspend: bool = False

    @property
    def vouched_for_by(self) -> str:
        """Who says that the weights that answer are the version's; empty where tunegate holds them to its digest."""
        return ""

    def __post_init__(self) -> None:
        weights = [step.weight for step in self.steps]
        if not weights or weights != sorted(set(weights)):
            raise ValueError("steps need weights that ascend, such as 10, 50, 100")
        if not self.initial_version.endswith("/"):
            raise ValueError("initialVersion must end in '/': a prefix without it also matches its neighbors")
        if unknown := {gate.suite for gate in self.gates} - set(self.suites):
            raise ValueError(f"gates name suites that are not evaluated: {', '.join(sorted(unknown))}")
        for suite in (gate.suite for gate in self.gates if is_by_judge(gate.suite)):
            beside = [suite.rpartition(".")[0] + end for end in BY_PEOPLE]
            if not any(gate.suite in beside for gate in self.gates):
                raise ValueError(
                    f"the gate on {suite} reads a judge model alone; people must judge the same questions: add a gate "
                    f"on {' or '.join(beside)}"
                )
        for field, named in (("selection", self.selection), ("stopTraining", self.stop_training)):
            if named and named.suite and named.suite not in self.suites:
                raise ValueError(f"{field} names a suite that is not evaluated: {named.suite}")
            if named and is_by_judge(named.suite):
                raise ValueError(
                    f"{field} goes by {named.suite}, a judge model alone; name a suite that people or rules decide"
                )


class Placement(Resource, frozen=True, kw_only=True):
    """Where the pods of one kind may run and what they get; in the words of a pod's spec.

    What is empty is as the release says. Labels, annotations and variables are added to the release's, and win.
    """

    resources: dict[str, Any] = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = {}
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    priority_class_name: str = ""
    runtime_class_name: str = ""
    service_account_name: str = ""
    pod_labels: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    extra_env: tuple[dict[str, Any], ...] = ()


class EvaluationPods(Placement, frozen=True, kw_only=True):
    """limit: how many questions of each suite are asked; None asks all.

    shards: how many pods share the questions of one suite.
    """

    limit: Annotated[int, Meta(ge=1)] | None = None
    shards: Annotated[int, Meta(ge=1, le=64)] = 1


class ObjectName(Resource, frozen=True, kw_only=True):
    """An object of the cluster by its name alone."""

    name: Annotated[str, Meta(min_length=1)]


class SecretKey(Resource, frozen=True, kw_only=True):
    """One entry of a Secret in the policy's namespace."""

    name: Annotated[str, Meta(min_length=1)]
    key: Annotated[str, Meta(min_length=1)]


class UrlEngine(Resource, frozen=True, kw_only=True):
    """An engine that somebody else runs, and who vouches for the weights that answer there.

    address: of its OpenAI-compatible API, with or without /v1. model: a template of what it calls each version, as
    `tunegate.api.engine_names` has it. key_secret: where the API key is that it asks for.
    """

    address: Annotated[str, Meta(pattern=r"^https?://[^/\s]+(/\S*)?$")]
    model: str = DEFAULT
    key_secret: SecretKey | None = None

    def __post_init__(self) -> None:
        check_template(self.model)


class Parallelism(Resource, frozen=True, kw_only=True):
    """How an engine spreads a model, in KServe's words. tensor: GPUs of one pod that share each layer.

    pipeline: pods that share the layers. data, data_local: copies of the model in all, and in each pod.
    """

    tensor: Annotated[int, Meta(ge=1)] | None = None
    pipeline: Annotated[int, Meta(ge=1)] | None = None
    data: Annotated[int, Meta(ge=1)] | None = None
    data_local: Annotated[int, Meta(ge=1)] | None = None
    expert: bool | None = None

    def __post_init__(self) -> None:
        if (self.data is None) != (self.data_local is None):
            raise ValueError("parallelism.data and dataLocal need each other; give both, or neither")
        if self.pipeline and self.data:
            raise ValueError("parallelism is by pipeline or by data; leave one of them out")

    @property
    def pods(self) -> int:
        """How many pods one engine is made of, as KServe counts them."""
        if self.data and self.data_local:
            return max(self.data // self.data_local, 1)
        return self.pipeline or 1


class LLMInferenceService(Resource, frozen=True, kw_only=True):
    """The engine of each version, in the words of the spec of KServe's LLMInferenceService.

    replicas: engines of each version; each is one pod, or a head and its workers. base_refs: presets by name, beside
    KServe's own. template: the pod, or the head. worker: the pods beside it.
    """

    replicas: Annotated[int, Meta(ge=1)] = 1
    parallelism: Parallelism = Parallelism()
    base_refs: tuple[ObjectName, ...] = ()
    template: dict[str, Any] = {}
    worker: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if (self.worker is not None) != (self.parallelism.pods > 1):
            raise ValueError(
                "serving.llmInferenceService.worker is for an engine of several pods, and one of several needs it: "
                "give it with parallelism.pipeline above 1 or data at least twice dataLocal, or leave it out"
            )
        for part, pod in (("template", self.template), ("worker", self.worker or {})):
            _check_engine_pod(f"serving.llmInferenceService.{part}", pod)


def _check_engine_pod(where: str, pod: dict[str, Any]) -> None:
    """The version's bytes come by an init container and a volume of tunegate's; a pod that has others is refused."""
    for field in ("containers", "initContainers", "volumes", "imagePullSecrets"):
        if any(each["name"] == ENGINE_POD_PART for each in _listed(f"{where}.{field}", pod.get(field, []), "name")):
            raise ValueError(f"{where}.{field} has a {ENGINE_POD_PART}, which is tunegate's own; rename it")
    for container in pod.get("containers", []):
        resources = container.get("resources", {})
        if not isinstance(resources, dict) or not all(isinstance(part, dict) for part in resources.values()):
            raise ValueError(
                f"{where}.containers.resources has to be as in a pod, such as limits: {{nvidia.com/gpu: 8}}"
            )
        for mount in _listed(f"{where}.containers.volumeMounts", container.get("volumeMounts", []), "mountPath"):
            if mount["mountPath"].rstrip("/") == ENGINE_FOLDER:
                raise ValueError(f"{where} mounts {ENGINE_FOLDER}, where tunegate puts the version; leave that out")


def _listed(where: str, found: Any, key: str) -> list[dict[str, Any]]:
    """What may be anything, as a list of what is told apart by `key`."""
    if isinstance(found, list) and all(isinstance(each, dict) and isinstance(each.get(key), str) for each in found):
        return found
    raise ValueError(f"{where} has to be a list in which each has a {key}")


class SharedEngine(Placement, frozen=True, kw_only=True):
    """The engine of a base that all versions on it share: one pod. max_adapters: how many it has loaded at once, each
    of a rank of at most `max_rank`."""

    max_adapters: Annotated[int, Meta(ge=1, le=256)] = 8
    max_rank: Annotated[int, Meta(ge=1, le=512)] = 64


class ServingPods(Placement, frozen=True, kw_only=True):
    """One version's servers.

    card: the GPU of the pods, as `tunegate plan --card` takes it, for `VLLM` alone: what can't fit on it is refused.
    Empty: the one that the node selector names, or nobody knows.
    url: where the engine is, for `URL` alone: it has the weights, and the servers none.
    llm_inference_service: the engine of each version, for `LLMInferenceService` alone: the same holds.
    share_base: whether versions of one base share an engine, for `VLLM` alone: the same holds. shared_engine: its pod.
    ready_timeout_seconds: how long a new server may take before it counts as failed.
    unavailable_seconds: how long one that had traffic may be away before it counts as failed.
    """

    replicas: Annotated[int, Meta(ge=1)] = 1
    engine: Literal["Transformers", "VLLM", "URL", "LLMInferenceService"] = "Transformers"
    card: str = ""
    url: UrlEngine | None = None
    llm_inference_service: LLMInferenceService | None = None
    share_base: bool = False
    shared_engine: SharedEngine | None = None
    ready_timeout_seconds: Seconds = 1800
    unavailable_seconds: Seconds = 120

    @property
    def has_weights(self) -> bool:
        """Whether the servers have the weights, and no engine that they stand in front of."""
        return self.url is None and not self.has_made_engine

    @property
    def has_made_engine(self) -> bool:
        """Whether they stand in front of an engine that the operator makes."""
        return self.share_base or self.llm_inference_service is not None

    @property
    def engine_pod(self) -> SharedEngine:
        """The pod of `share_base`, by default where nothing is said of it."""
        return self.shared_engine or SharedEngine()

    def __post_init__(self) -> None:
        if self.card and self.engine != "VLLM":
            raise ValueError("serving.card is for engine: VLLM, whose GPUs are known to be needed; leave it out")
        if self.share_base and self.engine != "VLLM":
            raise ValueError("serving.shareBase is for engine: VLLM, which loads adapters while it runs; leave it out")
        if self.shared_engine and not self.share_base:
            raise ValueError("serving.sharedEngine is the engine of shareBase: true; give both, or leave it out")
        if (self.engine == "URL") != (self.url is not None):
            raise ValueError("serving.url says where the engine of engine: URL is; give both, or neither")
        if (self.engine == "LLMInferenceService") != (self.llm_inference_service is not None):
            raise ValueError(
                "serving.llmInferenceService says what engine: LLMInferenceService is made of; give both, or neither"
            )


class Gateway(Resource, frozen=True, kw_only=True):
    name: str
    namespace: str = ""
    section_name: str = ""


class Traffic(Resource, frozen=True, kw_only=True):
    """Where users come in. Without a gateway the traffic can't be shared, only switched."""

    gateway: Gateway | None = None
    hostnames: tuple[str, ...] = ()
    path_prefix: str = "/"

    @property
    def is_shared(self) -> bool:
        return self.gateway is not None


class ClusterPolicy(PromotionPolicy, frozen=True, kw_only=True):
    """The spec of a PromotionPolicy: the policy, and how its pods and its traffic look in the cluster.

    history_limit: how many ended promotions are kept, besides the one that made the stable version.
    """

    history_limit: Annotated[int, Meta(ge=1)] = 10
    evaluation: EvaluationPods = EvaluationPods()
    serving: ServingPods = ServingPods()
    traffic: Traffic = Traffic()

    @property
    def vouched_for_by(self) -> str:
        return f"whoever runs {self.serving.url.address}" if self.serving.url else ""


class Metadata(Resource, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What names an object; the rest of it is the cluster's."""

    name: Annotated[str, Meta(min_length=1)]


class PolicyFile(Resource, frozen=True, kw_only=True):
    """A PromotionPolicy as it stands in a file, the same for a cluster and for the local platform.

    status: what `kubectl get --output yaml` adds to it; it says nothing about what is asked for.
    """

    api_version: Literal["tunegate.io/v1alpha1"]
    kind: Literal["PromotionPolicy"]
    metadata: Metadata
    spec: ClusterPolicy
    status: dict[str, Any] = {}


def read_policy_file(text: bytes, source: str) -> ClusterPolicy:
    """The policy in a file as `kubectl apply` takes it: YAML or JSON, perhaps with other objects beside it, or in a
    List. `source` names the file in the error.

    Raises UsageError that names the field, or, for a spec without its head, the lines to add.
    """
    try:
        found = _objects(text)
        policies = [one for one in found if isinstance(one, dict) and one.get("kind") == "PromotionPolicy"]
        if len(policies) > 1:
            raise UsageError(f"{source} holds {len(policies)} PromotionPolicies; give each a file of its own.")
        one = next(iter(policies or found), None)
        if _is_bare_spec(one):
            raise UsageError(
                f"{source} is a PromotionPolicy's spec without its head; indent it below `spec:` and put these three "
                "lines first:\napiVersion: tunegate.io/v1alpha1\nkind: PromotionPolicy\nmetadata: {name: my-policy}"
            )
        return msgspec.convert(one, PolicyFile).spec
    except (msgspec.ValidationError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{source} is not a valid PromotionPolicy: {error}.") from None


def _objects(text: bytes) -> list[Any]:
    """All objects of a file, of which some may stand in a List, as kubectl writes them."""
    documents = [one for one in yaml.load_all(text, _LOADER) if one is not None]
    lists = [one.get("items") if isinstance(one, dict) and one.get("kind") == "List" else None for one in documents]
    inner = [items if isinstance(items, list) else [one] for one, items in zip(documents, lists, strict=True)]
    return [one for items in inner for one in items]


def is_bare_spec(text: bytes) -> bool:
    """Whether a YAML file holds the fields of a spec at its top. Raises msgspec.DecodeError when it is no YAML."""
    return _is_bare_spec(msgspec.yaml.decode(text))


def _is_bare_spec(found: Any) -> bool:
    return isinstance(found, dict) and "initialVersion" in found and "spec" not in found


def write_policy_file(policy: PromotionPolicy) -> bytes:
    """The YAML file of a policy that is named after its model."""
    head = {"apiVersion": "tunegate.io/v1alpha1", "kind": "PromotionPolicy", "metadata": {"name": policy.model}}
    return msgspec.yaml.encode({**head, "spec": msgspec.to_builtins(policy)})


prepare(PolicyFile, ClusterPolicy)
