"""Writes the tables of docs/reference from the schemas in the chart, the settings of training and the messages in the
sources, so that no page says what the API server or the command line does not.

`python docs/generate.py` rewrites what stands between the markers; with --check it only says which page is stale.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import yaml

from tunegate.api import errors
from tunegate.api.metrics import OPERATOR, PREDICTOR, TRAINER
from tunegate.training.config import Setting, settings

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/reference"
MONITORING = ROOT / "docs/monitoring.md"
RULES = ROOT / "charts/tunegate/files/rules/alerts.yaml"
CRDS = ROOT / "charts/tunegate/files/crds"
MARKED = re.compile(r"(<!-- begin: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Schema = dict[str, Any]
SOURCES = ROOT / "src/tunegate"
VALUE = "…"
"""In a message, what is known only when it is said."""


def main(arguments: list[str]) -> int:
    tables = {"train": {"options": list(options())}, "messages": {"messages": list(messages())}}
    for crd in (yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))):
        tables[crd["spec"]["names"]["singular"]] = tables_of(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    pages = {PAGES / f"{name}.md": parts for name, parts in tables.items()}
    pages[MONITORING] = {"metrics": list(metric_table()), "alerts": list(alert_table())}
    stale = []
    for page, parts in pages.items():
        old = page.read_text()
        new = MARKED.sub(lambda match, parts=parts: match[1] + "\n".join(parts[match[2]]) + "\n" + match[3], old)
        if new != old:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(new)
    if stale and "--check" in arguments:
        names = ", ".join(page.name for page in stale)
        print(f"{names}: stale; run `python docs/generate.py`", file=sys.stderr)
        return 1
    return 0


def options() -> Iterator[str]:
    """A heading and a table for each group of settings."""
    for group, members in groupby(settings(), lambda setting: setting.group):
        yield from ("", f"## {group}", "", "| option | value | default | meaning |", "|---|---|---|---|")
        for setting in members:
            default = setting.default
            if isinstance(default, tuple):
                default = ",".join(default)
            shown = "required" if setting.is_required else "" if default in (None, "") else said(default)
            yield f"| `--{setting.name}` | {value_of(setting)} | {shown} | {plain(setting.description)} |"
    yield ""


def messages() -> Iterator[str]:
    """A heading and a table for each room of the library: what it refuses, and with which exit status."""
    for room, found in groupby(refusals(), lambda refusal: refusal.room):
        yield from ("", f"## {room}", "", "| message | exit status |", "|---|---|")
        for refusal in found:
            yield f"| {plain(refusal.text)} | {refusal.exit_code} |"
    yield ""


def metric_table() -> Iterator[str]:
    """A heading and a table for each that shows metrics."""
    for shown_by, found in (("Predictors", PREDICTOR), ("Training runs", TRAINER), ("The operator", OPERATOR)):
        yield from ("", f"### {shown_by}", "", "| series | kind | labels | meaning |", "|---|---|---|---|")
        for metric in found:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            yield f"| `{metric.series}` | {metric.kind} | {labels} | {plain(metric.help)} |"
    yield ""


def alert_table() -> Iterator[str]:
    """Every alert and recording rule of the chart."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    yield from ("", "| alert | severity | after | says | runbook |", "|---|---|---|---|---|")
    for rule in (rule for rule in rules if "alert" in rule):
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        to = f"#{anchor}" if page == "docs/monitoring.md" else f"{page.removeprefix('docs/')}#{anchor}"
        said_of = re.sub(r"{{ \$labels\.(\w+) }}", r"`\1`", rule["annotations"]["summary"])
        severity, after = rule["labels"]["severity"], rule.get("for", "at once")
        yield f"| {rule['alert']} | {severity} | {after} | {said_of} | [{anchor}]({to}) |"
    yield from ("", "| recorded as | expression |", "|---|---|")
    for rule in (rule for rule in rules if "record" in rule):
        expression = " ".join(rule["expr"].split()).replace("|", "\\|")
        yield f"| `{rule['record']}` | `{expression}` |"
    yield ""


@dataclass(frozen=True)
class Refusal:
    """One message: the room that it comes from, its class, and its text with VALUE for what varies."""

    room: str
    error: str
    text: str

    @property
    def exit_code(self) -> int:
        kind: type[errors.TunegateError] = getattr(errors, self.error, errors.TunegateError)
        return kind.exit_code


@cache
def refusals() -> tuple[Refusal, ...]:
    """Every message that stands in the sources, by room."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(SOURCES.rglob("*.py"))}
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    known = {"TunegateError"}
    while more := {name for name, of in bases.items() if of & known} - known:
        known |= more
    found = []
    for path, tree in trees.items():
        first = path.relative_to(SOURCES).parts[0]
        room = first.removesuffix(".py")
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                name = getattr(call.func, "id", "")
                if name in known and call.args:
                    text = text_of(call.args[0], function, tree)
                    if text.strip(f" {VALUE}:;."):
                        found.append(Refusal(room, name, " ".join(text.split())))
    return tuple(dict.fromkeys(found))


def text_of(found: ast.expr, function: ast.AST, tree: ast.Module) -> str:
    """The words of an expression; of a name, those that are given to it, where it is given them once."""
    match found:
        case ast.Constant(value=value):
            return str(value)
        case ast.JoinedStr(values=values):
            return "".join(text_of(value, function, tree) for value in values)
        case ast.FormattedValue(value=value):
            return text_of(value, function, tree)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left, function, tree) + text_of(right, function, tree)
        case ast.Name(id=name):
            for scope in (function, tree):
                given = assigned(scope).get(name, [])
                if len(given) == 1 and isinstance(given[0], ast.Constant | ast.JoinedStr):
                    return text_of(given[0], function, tree)
    return VALUE


@cache
def assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """What is assigned to each name in a function or a module."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for name in {target.id for target in node.targets if isinstance(target, ast.Name)}:
                found.setdefault(name, []).append(node.value)
    return found


def value_of(setting: Setting) -> str:
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    kind = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}
    if setting.kind not in kind:
        return f"{kind[get_args(setting.kind)[0]]}, several with commas"
    return kind[setting.kind] + (f", {setting.bounds}" if setting.bounds else "")


def tables_of(schema: Schema) -> dict[str, list[str]]:
    """The fields of `spec` and of `status`, and the `rules` of both."""
    properties = schema["properties"]
    tables = {part: list(fields(properties[part], part)) for part in ("spec", "status") if part in properties}
    return {**tables, "rules": list(rules(schema))}


def fields(schema: Schema, path: str) -> Iterator[str]:
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    yield from rows(schema, path)


def rows(schema: Schema, path: str) -> Iterator[str]:
    """A row for every field below, in the order of the schema."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        required = name in schema.get("required", ())
        default = "required" if required else said(field["default"]) if "default" in field else ""
        yield f"| `{here}` | {kind(field)} | {default} | {plain(field['description'])} |"
        is_list = field["type"] == "array"
        yield from rows(field["items"] if is_list else field, here + ("[]" if is_list else ""))


def kind(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if field["type"] == "array":
        return f"list of {kind(field['items'])}"
    if values := field.get("additionalProperties"):
        return "map of quantities" if values.get("x-kubernetes-int-or-string") else f"map of {values['type']}s"
    return "time" if field.get("format") == "date-time" else field["type"] + bounds(field)


def bounds(field: Schema) -> str:
    least, most = field.get("minimum"), field.get("maximum")
    if least is None and most is None:
        return ""
    if field.get("exclusiveMinimum"):
        return f" between {least} and {most}, without these"
    return f", {least} or more" if most is None else f", {least} to {most}"


def rules(schema: Schema) -> Iterator[str]:
    """What the API server answers to a spec that breaks a rule, once each."""
    yield from dict.fromkeys(f"- {plain(rule['message'])}" for rule in found_rules(schema))


def found_rules(schema: Schema) -> Iterator[Schema]:
    yield from schema.get("x-kubernetes-validations", ())
    for field in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else ())):
        yield from found_rules(field)


def said(value: object) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def plain(text: str) -> str:
    """Text as Markdown that shows it unchanged within a table."""
    return text.replace("<", "&lt;").replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
