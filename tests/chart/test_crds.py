"""The custom resources' schemas say what the types say: the same names, the same bounds, the same defaults.

What only an API server can tell (that the rules hold, and what they answer) is in tests/operator/test_crds_*.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from tests.apiserver import OWN_CRDS
from tunegate.api.kubernetes import PromotionSpec
from tunegate.api.policy import ClusterPolicy
from tunegate.api.promotion import Abort, Approval, PromotionStatus
from tunegate.api.versions import ModelVersion, Producer
from tunegate_operator.types import EvaluationSummary, ServerRecord

Object = dict[str, Any]
FILES = sorted(OWN_CRDS.glob("*.yaml"))
NAMES = {
    "ModelVersion": ("modelversions", "mv"),
    "PromotionPolicy": ("promotionpolicies", "pp"),
    "Promotion": ("promotions", "promo"),
}
CRDS: dict[str, Object] = {crd["spec"]["names"]["kind"]: crd for crd in (yaml.safe_load(f.read_text()) for f in FILES)}
# Kept in the manifest in the store only: these can be large.
IN_THE_MANIFEST = {"arguments", "seed", "datasets", "epoch", "training", "derived"}
ABSENT: tuple[object, ...] = (None, "", (), {})


def schema(kind: str, path: str = "") -> Object:
    """The schema of a field such as status.gates[]."""
    found: Object = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in filter(None, path.split(".")):
        found = found["properties"][part.removesuffix("[]")]
        found = found["items"] if part.endswith("[]") else found
    return found


def fields(found: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Every field below, with its path."""
    for name, each in found.get("properties", {}).items():
        yield f"{path}.{name}".lstrip("."), each
        yield from fields(each.get("items", each), f"{path}.{name}" + ("[]" if "items" in each else ""))


EVERY_FIELD = [
    pytest.param(path, field, id=f"{kind}.{path}")
    for kind in CRDS
    for path, field in fields(schema(kind))
    if path != "metadata"
]

# The type behind each part of a kind. What is ours in a status besides the type comes last.
BEHIND: list[tuple[str, str, Any, set[str]]] = [
    ("ModelVersion", "spec", ModelVersion, {"producer"}),
    ("ModelVersion", "spec.producer", Producer, set()),
    ("ModelVersion", "status.evaluations[]", EvaluationSummary, set()),
    ("PromotionPolicy", "spec", ClusterPolicy, set()),
    ("PromotionPolicy", "status.servers[]", ServerRecord, set()),
    ("PromotionPolicy", "status.stable", ModelVersion, set()),
    ("PromotionPolicy", "status.initial", ModelVersion, set()),
    ("Promotion", "spec", PromotionSpec, set()),
    ("Promotion", "spec.approval", Approval, set()),
    ("Promotion", "spec.abort", Abort, set()),
    ("Promotion", "status", PromotionStatus, {"candidate", "conditions", "observedGeneration"}),
    ("Promotion", "status.candidate", ModelVersion, set()),
]


@pytest.mark.parametrize(
    ("kind", "path", "behind", "ours"), [pytest.param(*each, id=f"{each[0]}.{each[1]}") for each in BEHIND]
)
def test_schema_and_type_say_the_same(kind: str, path: str, behind: Any, ours: set[str]) -> None:
    differences = list(compare(inspect.type_info(behind), schema(kind, path), f"{kind}.{path}", ours))
    assert differences == []


def compare(kind: inspect.Type, found: Object, path: str, ours: set[str] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    """Where the schema differs from the type, in words."""
    match kind:
        case inspect.UnionType(types=types):
            (kind,) = (each for each in types if not isinstance(each, inspect.NoneType))
            yield from compare(kind, found, path, ours)
        case inspect.StructType():
            yield from compare_struct(kind, found, path, ours)
        case inspect.VarTupleType(item_type=item):
            yield from [] if found["type"] == "array" else [f"{path} is no array"]
            yield from compare(item, found["items"], f"{path}[]")
        case inspect.LiteralType(values=values):
            yield from [] if set(found.get("enum", ())) == set(values) else [f"{path} has other words than {values}"]
        case inspect.IntType() | inspect.FloatType():
            yield from compare_bounds(kind, found, path)
        case _:
            wanted = WORDS[type(kind)]
            yield from [] if (found["type"], found.get("format")) == wanted else [f"{path} is not {wanted}"]


WORDS: dict[type, tuple[str, str | None]] = {
    inspect.StrType: ("string", None),
    inspect.BoolType: ("boolean", None),
    inspect.DateTimeType: ("string", "date-time"),
    inspect.DictType: ("object", None),
}


def compare_struct(kind: inspect.StructType, found: Object, path: str, ours: set[str]) -> Iterator[str]:
    fields = {field.encode_name: field for field in kind.fields}
    if kind.cls is Producer:
        fields = {name: field for name, field in fields.items() if name not in IN_THE_MANIFEST}
    if fields.keys() != found["properties"].keys() - ours:
        yield f"{path} differs in {sorted(fields.keys() ^ (found['properties'].keys() - ours))}"
    required = {name for name, field in fields.items() if field.required}
    if required != set(found.get("required", ())):
        yield f"{path} requires other fields than {sorted(required)}"
    for name, field in fields.items():
        if name not in found["properties"]:
            continue
        each = found["properties"][name]
        yield from compare(field.type, each, f"{path}.{name}")
        if each.get("default") != (wanted := default_of(field, f"{path}.{name}")):
            yield f"{path}.{name} has default {each.get('default')}, not {wanted}"


def default_of(field: inspect.Field, path: str) -> object:
    """The default in a spec, outside of lists.

    A status has none: what nobody has observed is absent, and not its default. Nor has what stands in a list: tools
    that compare files with the cluster take a list as one value, and would find a difference for ever.
    """
    if ".status" in path or "[]" in path or field.required:
        return None
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value in ABSENT:
        return None
    # The defaults within are those of its own fields.
    return {} if isinstance(value, msgspec.Struct) else value


def compare_bounds(kind: inspect.IntType | inspect.FloatType, found: Object, path: str) -> Iterator[str]:
    """The schema may be stricter than the type, and never looser."""
    if found["type"] != ("integer" if isinstance(kind, inspect.IntType) else "number"):
        yield f"{path} is {found['type']}"
    least, most = found.get("minimum", float("-inf")), found.get("maximum", float("inf"))
    if kind.ge is not None and least < kind.ge:
        yield f"{path} has no minimum {kind.ge}"
    if kind.gt is not None and not (least > kind.gt or (least == kind.gt and found.get("exclusiveMinimum"))):
        yield f"{path} is not above {kind.gt}"
    if kind.le is not None and most > kind.le:
        yield f"{path} has no maximum {kind.le}"
    if kind.lt is not None and not (most < kind.lt or (most == kind.lt and found.get("exclusiveMaximum"))):
        yield f"{path} is not below {kind.lt}"


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        pytest.param("PromotionPolicy", lambda s: s["properties"].pop("candidates"), "differs in", id="missing-field"),
        pytest.param("Promotion", lambda s: s["properties"].update(x={}), "differs in", id="unknown-field"),
        pytest.param("PromotionPolicy", lambda s: s["required"].remove("gates"), "requires other", id="required"),
        pytest.param("PromotionPolicy", lambda s: s["properties"]["suspend"].pop("default"), "default", id="default"),
        pytest.param("PromotionPolicy", lambda s: s["properties"]["approval"]["enum"].pop(), "words", id="enum"),
        pytest.param(
            "PromotionPolicy",
            lambda s: s["properties"]["feedback"]["properties"]["alpha"].pop("exclusiveMaximum"),
            "not below",
            id="nested-bound",
        ),
    ],
)
def test_a_schema_that_differs_is_found(kind: str, change: Any, words: str) -> None:
    behind = {"PromotionPolicy": ClusterPolicy, "Promotion": PromotionSpec}[kind]
    broken = msgspec.json.decode(msgspec.json.encode(schema(kind, "spec")))
    change(broken)
    assert words in "; ".join(compare(inspect.type_info(behind), broken, "spec"))


def test_there_is_a_file_for_each_kind() -> None:
    assert {kind: crd["spec"]["names"]["plural"] for kind, crd in CRDS.items()} == {k: v[0] for k, v in NAMES.items()}
    assert [path.name for path in FILES] == sorted(f"tunegate.io_{plural}.yaml" for plural, _ in NAMES.values())


@pytest.mark.parametrize("kind", CRDS)
def test_names_scope_and_version(kind: str) -> None:
    spec = CRDS[kind]["spec"]
    (version,) = spec["versions"]
    plural, short = NAMES[kind]
    assert CRDS[kind]["metadata"]["name"] == f"{plural}.tunegate.io"
    assert (spec["group"], spec["scope"]) == ("tunegate.io", "Namespaced")
    assert (spec["names"]["shortNames"], spec["names"]["categories"]) == ([short], ["tunegate"])
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert version["subresources"] == {"status": {}}
    assert schema(kind)["required"] == ["spec"]


@pytest.mark.parametrize("kind", CRDS)
def test_every_column_shows_a_field(kind: str) -> None:
    known = {path for path, _ in fields(schema(kind))} | {"metadata.creationTimestamp"}
    columns = CRDS[kind]["spec"]["versions"][0]["additionalPrinterColumns"]
    for column in columns:
        path = re.sub(r"\[\?\(@\.type==\"\w+\"\)\]", "[]", column["jsonPath"]).removeprefix(".")
        assert path in known, column["name"]
    # NAME and the rest have to fit a terminal; the remainder is for --output wide.
    assert len([column for column in columns if not column.get("priority")]) <= 6


# The API server reads these when the pod is made.
OF_PODS = ("affinity", "template", "worker")


@pytest.mark.parametrize(("path", "field"), EVERY_FIELD)
def test_every_field_is_described_and_bounded(path: str, field: Object) -> None:
    assert re.fullmatch(r"\S.{3,}\.", field.get("description", "")), "a description is a sentence"
    if path.rpartition(".")[2] not in OF_PODS:
        assert "x-kubernetes-preserve-unknown-fields" not in field
    if field["type"] == "array":
        assert "maxItems" in field
        assert field.get("x-kubernetes-list-type") in ("atomic", "map", "set")
    for each in (field, field.get("items", {})):
        # Without these the API server can't tell what a rule costs, and refuses it.
        if each.get("type") == "string" and path not in ("apiVersion", "kind"):
            assert {"maxLength", "enum", "format"} & each.keys()


def test_every_rule_has_its_message() -> None:
    found = [schema(kind) for kind in CRDS] + [each for kind in CRDS for _, each in fields(schema(kind))]
    found += [each["items"] for each in found if "items" in each]
    rules = [rule for each in found for rule in each.get("x-kubernetes-validations", ())]
    assert len(rules) > 12
    assert [rule["rule"] for rule in rules if not rule.get("message")] == []


def test_conditions_are_alike_and_keyed_by_type() -> None:
    first, *others = (schema(kind)["properties"]["status"]["properties"]["conditions"] for kind in CRDS)
    without = [{key: value for key, value in each.items() if key != "description"} for each in (first, *others)]
    assert all(each == without[0] for each in without)
    assert first["x-kubernetes-list-map-keys"] == ["type"]
    fields = {"type", "status", "reason", "message", "observedGeneration", "lastTransitionTime"}
    assert first["items"]["properties"].keys() == fields
    assert set(first["items"]["required"]) == fields - {"observedGeneration"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_key_is_read_as_a_boolean(path: Path) -> None:
    """Helm's parser takes a bare n or y for false and true; ours does not."""
    text = path.read_text()
    assert re.findall(r"^\s*(?:- )?(?:y|n|yes|no|on|off)(?::|$)", text, re.MULTILINE | re.IGNORECASE) == []
