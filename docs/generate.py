"""Writes the tables of docs/reference from the schemas in the chart, so that no page says what the API server does not.

`python docs/generate.py` rewrites what stands between the markers; with --check it only says which page is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/reference"
CRDS = ROOT / "charts/tunegate/files/crds"
MARKED = re.compile(r"(<!-- begin: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Schema = dict[str, Any]


def main(words: list[str]) -> int:
    stale = []
    for crd in (yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))):
        page = PAGES / f"{crd['spec']['names']['singular']}.md"
        old = page.read_text()
        new = render(old, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        if new != old:
            stale.append(page)
            if "--check" not in words:
                page.write_text(new)
    if stale and "--check" in words:
        names = ", ".join(page.name for page in stale)
        print(f"{names}: stale; run `python docs/generate.py`", file=sys.stderr)
        return 1
    return 0


def render(page: str, schema: Schema) -> str:
    """The page with its tables: the fields of `spec` and of `status`, and the `rules` of both."""

    def table(match: re.Match[str]) -> str:
        part = match[2]
        lines = rules(schema) if part == "rules" else fields(schema["properties"][part], part)
        return match[1] + "\n".join(lines) + "\n" + match[3]

    return MARKED.sub(table, page)


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
