"""A model version: the manifest that makes a folder in the store one, and the release beside its weights."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

import msgspec

from tunegate.api.codec import Resource
from tunegate.api.digest import Digest

Format = Literal["huggingface", "lora-adapter", "prompt-adapter"]
MANIFEST = "manifest.json"
RELEASE = "release.yaml"


class File(Resource, frozen=True, kw_only=True):
    """One file of a version: path relative to the version's folder ('/' separated), size in bytes, hex sha256."""

    path: str
    size: int
    sha256: str


class BaseModel(Resource, frozen=True, kw_only=True):
    """The version that an adapter needs, or that full weights were tuned from."""

    uri: str
    digest: str


class Dataset(Resource, frozen=True, kw_only=True):
    """A training data set by name, with the sha256 of its bytes and the rows used."""

    name: str
    digest: str
    rows: int = 0


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
    notes: dict[str, str] = {}


class Release(Resource, frozen=True, kw_only=True):
    """What is served besides the weights. It is a file of the version, so the digest covers it."""

    format: Format
    base: BaseModel | None = None
    system_prompt: str = ""
    generation: dict[str, float] = {}


class Manifest(Resource, frozen=True, kw_only=True):
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

    @property
    def is_last(self) -> bool:
        """Whether the training run that made it had come to its end."""
        return str(self.producer.step) == self.producer.notes.get("totalSteps")


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
