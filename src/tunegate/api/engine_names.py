"""What an engine calls each version: one that versions share, by digest; one that somebody else runs, by a template,
such as `{model}-{digest}` or `{run}/{checkpoint}`.

Two versions must never have one name there: a canary would compare a model with itself, and nobody would see it. Pure.
"""

from __future__ import annotations

import re

from tunegate.api.digest import Digest, short
from tunegate.api.versions import Manifest, ModelVersion

DEFAULT = "{model}-{digest}"
_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELDS = ("model", "run", "checkpoint", "digest")
# What the engine is asked for to see that it tells names apart: no version has this digest, and no run this name.
NOBODY = "0" * 64
_ABSENT = {"run": "no-such-run", "checkpoint": "checkpoint-0", "digest": "0" * 12}


def is_template(name: str) -> bool:
    return "{" in name


def check_template(template: str) -> None:
    """Raises ValueError for one that gives two versions one name, or that names what there is not."""
    fields = set(_FIELD.findall(template))
    if unknown := sorted(fields - set(_FIELDS)):
        raise ValueError(f"{template!r} names {{{unknown[0]}}}; use {{model}}, {{run}}, {{checkpoint}} and {{digest}}")
    if not (fields >= {"digest"} or fields >= {"run", "checkpoint"}):
        raise ValueError(
            f"{template!r} gives two versions one name, and a canary would compare a model with itself; "
            "put {digest} into it, or {run} and {checkpoint}"
        )


def name_in_engine(template: str, version: ModelVersion) -> str:
    """What the engine calls `version`; `{digest}` is the first 12 digits of its digest."""
    _, run, checkpoint = version.name.split("/")
    return _filled(template, model=version.model, run=run, checkpoint=checkpoint, digest=short(version.digest))


def absent_name(template: str, version: ModelVersion) -> str:
    """A name of the same shape that no version has."""
    return _filled(template, model=version.model, **_ABSENT)


def shared_name(version: ModelVersion | Manifest) -> str:
    """What an engine that several versions share calls each of them: all 64 digits, as no name there is used twice."""
    return Digest.parse(version.digest).hex


def _filled(template: str, **fields: str) -> str:
    return _FIELD.sub(lambda field: fields[field[1]], template)
