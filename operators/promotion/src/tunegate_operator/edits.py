"""Who changed what of an object of ours: told by what the API server says each manager holds, never by values alone.

What a webhook makes of a field when it is written stays ours, whatever its value; what a person or a controller writes
afterwards is theirs from then on. So a webhook is never taken for a person, and never written against.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunegate.api.labels import APPLIED, POLICY
from tunegate.kube.kinds import Object
from tunegate.kube.quantities import is_same_quantity
from tunegate_operator.types import MANAGER


@dataclass(frozen=True)
class Edit:
    """A field that is not as we applied it and not ours any more.

    path: for people. steps: the same as the API server names it in managedFields. wanted: what we applied there.
    """

    path: str
    steps: tuple[str, ...]
    wanted: Any


def applied(obj: Object) -> Object | None:
    """The spec that we applied last; None where what remembers it was taken away or spoiled."""
    try:
        spec = json.loads(obj["metadata"].get("annotations", {}).get(APPLIED, ""))
    except ValueError:
        return None
    return spec if isinstance(spec, dict) else None


def edits(obj: Object, wanted: Object | None = None) -> tuple[Edit, ...]:
    """What others changed of the spec since we applied it.

    wanted: what we would apply now, for an object that does not remember what it was. Where that differs and the field
    has no other manager, it was never applied.
    """
    remembered = applied(obj)
    reference = wanted if remembered is None else remembered
    if reference is None:
        return ()
    ours: Object = {}
    for entry in obj["metadata"].get("managedFields", ()):
        if entry.get("manager") == MANAGER:
            _merge(ours, entry.get("fieldsV1", {}))
    found = _differences(reference, obj["spec"], ours.get("f:spec"), "spec", ("f:spec",))
    return tuple(edit for edit in found if remembered is not None or _holder(obj, edit.steps))


def modified(obj: Object, wanted: Object | None = None) -> str:
    """Who changed the spec by hand, as a sentence; empty when it still says what we applied last."""
    metadata = obj["metadata"]
    for edit in edits(obj, wanted):
        entries = [entry for entry in metadata.get("managedFields", ()) if _is_foreign(entry)]
        last = max(entries, key=_time, default=None) or {}
        who = _holder(obj, edit.steps) or last.get("manager", "an unknown manager")
        policy = metadata.get("labels", {}).get(POLICY, "")
        return (
            f"{who} changed {edit.path} of {obj['kind']} {metadata['name']}; the traffic is left as it is. "
            f"Put the value back, or have tunegate do it: tunegate policy restore {policy} -n {metadata['namespace']}"
        )
    return ""


def is_same(wanted: Any, found: Any) -> bool:
    """Whether all of `wanted` is so in `found`, amounts as amounts.

    Fields that only `found` has are defaults of the server. Lists are compared whole, as the server applies them.
    """
    return next(_differences(wanted, found, None, "", ()), None) is None


def _differences(wanted: Any, found: Any, ours: Object | None, path: str, steps: tuple[str, ...]) -> Iterator[Edit]:
    """What differs and is not in `ours`, the part of our fieldsV1 at this path; None there: we hold nothing of it."""
    if ours is not None and not set(ours) - {"."}:
        return  # ours as a whole
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            inner = (ours or {}).get(f"f:{key}")
            if key in found:
                yield from _differences(value, found[key], inner, f"{path}.{key}", (*steps, f"f:{key}"))
            elif inner is None and value not in ({}, [], None):  # the server drops what is empty
                yield Edit(f"{path}.{key}", (*steps, f"f:{key}"), value)
    elif isinstance(wanted, list) and isinstance(found, list) and ours:
        for number, item in enumerate(wanted):
            # How fieldsV1 names this item of a list that is merged by a key, such as a variable by its name.
            step = next((step for step in ours if _may_be_item(item, step)), "")
            there = next((other for other in found if step and _is_item(other, step)), None)
            if there is not None:
                yield from _differences(item, there, ours.get(step), f"{path}[{number}]", (*steps, step))
            elif not step:
                yield Edit(f"{path}[{number}]", steps, wanted)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (item, there) in enumerate(zip(wanted, found, strict=True)):
            for edit in _differences(item, there, None, f"{path}[{number}]", steps):
                yield Edit(edit.path, steps, wanted)
    elif not (wanted == found or (_is_amount(path) and is_same_quantity(wanted, found))):
        yield Edit(path, steps, wanted)


def _is_amount(path: str) -> bool:
    return ".resources." in path or path.endswith(".sizeLimit")


def _may_be_item(item: Any, step: str) -> bool:
    """Whether an item as we wrote it has this name; the server adds what a name needs, such as a port's protocol."""
    if not (step.startswith("k:") and isinstance(item, dict)):
        return False
    return all(item.get(key, value) == value for key, value in json.loads(step[2:]).items())


def _is_item(item: Any, step: str) -> bool:
    return step.startswith("k:") and isinstance(item, dict) and json.loads(step[2:]).items() <= item.items()


def _holder(obj: Object, steps: tuple[str, ...]) -> str:
    """The manager besides us that the API server says holds a field, the newest of several."""
    entries = [entry for entry in obj["metadata"].get("managedFields", ()) if _is_foreign(entry)]
    holding = [entry for entry in entries if _holds(entry.get("fieldsV1", {}), steps)]
    return str(max(holding, key=_time)["manager"]) if holding else ""


def _time(entry: Object) -> str:
    return str(entry.get("time", ""))


def _is_foreign(entry: Object) -> bool:
    return entry.get("manager") != MANAGER and not entry.get("subresource")


def _holds(fields: Object, steps: tuple[str, ...]) -> bool:
    for step in steps:
        if step not in fields:
            return False
        fields = fields[step]
        if not fields:
            return True  # it holds all of what is there
    return True


def _merge(into: Object, fields: Object) -> None:
    """Add what another entry of ours holds; one that holds a part whole wins."""
    for step, inner in fields.items():
        if step not in into:
            into[step] = json.loads(json.dumps(inner))
        elif not inner:
            into[step] = {}
        elif into[step]:
            _merge(into[step], inner)
