"""A model version: the manifest that makes a folder in the store one, and the release beside its weights."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from tunegate.api.codec import Document, Resource, prepare
from tunegate.api.digest import Digest

Format = Literal["huggingface", "lora-adapter", "prompt-adapter"]
MANIFEST = "manifest.json"
RELEASE = "release.yaml"
PROMPTS = "prompts"
KNOWLEDGE = "knowledge"


class File(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """One file of a version: path relative to the version's folder ('/' separated), size in bytes, hex sha256.

    states: what sha256 has come to after each 256 MiB but the last, so that several can read a large file at once.
    They are no part of its identity: who follows them arrives at the sha256, or knows that they are wrong.
    """

    path: str
    size: int
    sha256: str
    states: tuple[str, ...] = ()


class BaseModel(Resource, frozen=True, kw_only=True):
    """The version that an adapter needs, or that full weights were tuned from."""

    uri: str
    digest: str


class Dataset(Resource, frozen=True, kw_only=True):
    """A training data set by name, with the sha256 of its bytes and the rows used."""

    name: str
    digest: str
    rows: int = 0


class Cost(Resource, frozen=True, kw_only=True):
    """What training took up to a checkpoint: what methods are compared by.

    seconds: of all attempts together. peak_memory_bytes: of one process. eval_loss: None where nothing was held out.
    """

    trainable_parameters: int | None = None
    parameters: int | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    eval_loss: float | None = None


class Training(Resource, frozen=True, kw_only=True):
    """How a version was trained, besides its arguments.

    method: the finetuning_type. base: the digest of the weights it began with, also where no version has them.
    global_batch: dialogues to a step. total_steps: where the run ends; None before it is known.
    resumed_from: the version that it trained further; one that was only a folder has no URI.
    """

    method: str = ""
    base: str = ""
    resumed_from: BaseModel | None = None
    global_batch: int = 0
    total_steps: int | None = None
    cost: Cost | None = None


class Derived(Resource, frozen=True, kw_only=True):
    """The version that was merged or quantized, and how.

    quantization: the method, int8, int4 or fp8. weight_error: mean relative error of the quantized weights.
    """

    uri: str
    digest: str
    quantization: str = ""
    weight_error: float | None = None


class Producer(Resource, frozen=True, kw_only=True):
    """Who made a version and from what: enough to make it again."""

    kind: str
    run: str = ""
    uid: str = ""
    arguments: dict[str, Any] = {}
    seed: int | None = None
    code_version: str = ""
    image: str = ""
    datasets: tuple[Dataset, ...] = ()
    step: int | None = None
    epoch: float | None = None
    loss: float | None = None
    training: Training | None = None
    derived: Derived | None = None


class Prompts(Resource, frozen=True, kw_only=True):
    """The folder of the version that holds its prompt templates; `tunegate.prompts` reads them."""

    path: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")] = PROMPTS


class Knowledge(Resource, frozen=True, kw_only=True):
    """The index that answers are drawn from, named so that it is found in every store that holds it: a URI as
    `tunegate.api.pinned.index_of` writes it, and the digest of the index."""

    uri: Annotated[str, Meta(pattern=r"^tunegate://sha256-[0-9a-f]{64}/\.knowledge/[^/]+/$")]
    digest: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]

    @property
    def index(self) -> str:
        """As `tunegate knowledge` names it: NAME@DIGEST."""
        return f"{self.uri.split('/')[-2]}@{self.digest}"


class Limits(Resource, frozen=True, kw_only=True):
    """How far a question may go when tools are asked. tokens: of all that the model writes for it."""

    steps: Annotated[int, Meta(ge=1)] = 6
    seconds: Annotated[float, Meta(gt=0)] = 60.0
    tokens: Annotated[int, Meta(ge=1)] = 4000


class Release(Document, frozen=True, kw_only=True):
    """What is served besides the weights. It is a file of the version, so the digest covers it.

    tools: names of what `tunegate.agent` has; where there are some, an agent answers. dialect: how the model asks for
    them; `once`: it doesn't, and is given what one search finds. generation: the defaults of a request's parameters.
    """

    added: ClassVar[tuple[str, ...]] = ("prompts", "knowledge", "tools", "dialect", "limits")

    schema: Literal["tunegate.io/release/v1"] = "tunegate.io/release/v1"
    format: Format
    base: BaseModel | None = None
    system_prompt: str = ""
    generation: dict[str, float] = {}
    prompts: Prompts | None = None
    knowledge: Knowledge | None = None
    tools: tuple[str, ...] = ()
    dialect: Literal["react", "openai", "once"] = "react"
    limits: Limits = Limits()

    @property
    def has_parts(self) -> bool:
        """Whether anything stands between a question and the weights, so that a server has to answer it."""
        return bool(self.prompts or self.knowledge or self.tools)


class Manifest(Document, frozen=True, kw_only=True):
    """The complete record of one version; it is written last, so its presence says the version is complete."""

    schema: Literal["tunegate.io/manifest/v1"] = "tunegate.io/manifest/v1"
    model: str
    name: str
    format: Format
    digest: str
    files: tuple[File, ...]
    base: BaseModel | None = None
    producer: Producer
    created: datetime

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @classmethod
    def upgraded(cls, plain: dict[str, Any]) -> dict[str, Any]:
        """Until 0.1 a producer had `notes`, which were all text."""
        producer = plain.get("producer")
        if not isinstance(producer, dict) or not isinstance(notes := producer.get("notes"), dict):
            return plain
        rest = {name: value for name, value in producer.items() if name != "notes"}
        if source := notes.get("source"):
            rest["arguments"] = {**rest.get("arguments", {}), "source": source}
        return {**plain, "producer": {**rest, **parts_of_notes(notes)}}

    @property
    def is_last(self) -> bool:
        """Whether nothing more is to come of its run: training had come to its end, or it was made of a version."""
        if self.producer.derived is not None:
            return True
        training = self.producer.training
        return training is not None and training.total_steps is not None and self.producer.step == training.total_steps


class ModelVersion(Resource, frozen=True, kw_only=True):
    """An immutable checkpoint in the store, known by its digest.

    `name` is `<model>/<run>/checkpoint-<step>`; `uri` is its folder in the store and ends in '/'.
    """

    model: str
    name: str
    uri: str
    digest: str
    format: Format
    created: datetime
    base: BaseModel | None = None

    @property
    def run(self) -> str:
        return self.name.split("/")[1]


def digest_of(files: Iterable[File]) -> str:
    """The digest of a version: sha256 over the canonical list of its files, sorted by path."""
    rows = sorted([file.path, file.size, file.sha256] for file in files)
    return str(Digest.of_bytes(msgspec.json.encode(rows)))


def parts_of_notes(notes: dict[str, str]) -> dict[str, Any]:
    """The plain `training` and `derived` that the notes of 0.1 amount to."""
    numbers = ("trainableParameters", "parameters", "seconds", "peakMemoryBytes", "evalLoss")
    cost = {name: msgspec.convert(notes[name], int | float, strict=False) for name in numbers if name in notes}
    training: dict[str, Any] = {name: notes[name] for name in ("method", "base") if name in notes}
    training |= {name: int(notes[name]) for name in ("globalBatch", "totalSteps") if name in notes}
    training |= {"cost": cost} if cost else {}
    parts = {"training": training} if training else {}
    if "madeFrom" in notes:
        uri, _, digest = notes["madeFrom"].rpartition(" ")
        derived: dict[str, Any] = {"uri": uri, "digest": digest, "quantization": notes.get("quantization", "")}
        derived |= {"weightError": float(notes["weightError"])} if "weightError" in notes else {}
        parts["derived"] = derived
    return parts


prepare(Manifest, ModelVersion, Release)
