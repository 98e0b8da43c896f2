"""`tunegate://sha256-<64 hex>/<model>/<run>/checkpoint-<step>/`: a version as serving asks for it, pinned to its bytes.

`?weights=none` at the end asks for all but its weights, for a server in front of an engine that has them.

The digest is part of the URI, so what was evaluated and approved is what a server gets, or nothing. Which store holds
it is not: that is for who fetches it to know. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunegate.api.digest import Digest
from tunegate.api.errors import UsageError
from tunegate.api.names import require_name
from tunegate.api.versions import KNOWLEDGE, BaseModel, Knowledge, Manifest, ModelVersion

SCHEME = "tunegate://"
CA_SCHEME = "tunegate-ca://"
"""The same for a storage initializer that mounts the volume `ca`, which only pods that were made for it have."""
_URI = re.compile(r"tunegate(-ca)?://sha256-(?P<hex>[0-9a-f]{64})/(?P<name>.+)/(?P<rest>\?weights=none)?")


@dataclass(frozen=True)
class Pinned:
    """A version by its name and the digest that its bytes must have. weights: whether they are wanted, too."""

    name: str
    digest: str
    weights: bool = True


def storage_uri(version: ModelVersion | Manifest, scheme: str = SCHEME, *, weights: bool = True) -> str:
    """What an InferenceService gives as its storageUri to be served exactly `version`."""
    return f"{scheme}{Digest.parse(version.digest).pinned}/{version.name}/{'' if weights else '?weights=none'}"


def base_of(version: ModelVersion) -> BaseModel:
    """`version` as the base of another one, named so that it is found in every store that holds it."""
    return BaseModel(uri=storage_uri(version), digest=version.digest)


def index_of(name: str, digest: str) -> Knowledge:
    """The index `name` of that digest, as a release has it."""
    return Knowledge(uri=f"{SCHEME}{Digest.parse(digest).pinned}/.{KNOWLEDGE}/{name}/", digest=digest)


def parse_storage_uri(uri: str) -> Pinned:
    """Read what `storage_uri` wrote. Raises UsageError for anything else."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise UsageError(
            f"{uri!r} is not a pinned version; write tunegate://sha256-<64 hex digits>/MODEL/RUN/checkpoint-STEP/ "
            "with the slash at the end."
        )
    return Pinned(require_name(match["name"]), str(Digest(match["hex"])), weights=match["rest"] is None)
