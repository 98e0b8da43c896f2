"""Charts, pipelines and docs use the label and annotation keys that the code lists."""

from __future__ import annotations

import re
from pathlib import Path

from tunegate.api import labels

ROOT = Path(__file__).parents[3]
KEYS = {value for name, value in vars(labels).items() if name.isupper() and isinstance(value, str)}
# API versions, schemas of documents, and names of ours that are no labels.
OTHERS = re.compile(r"tunegate\.io/(v1alpha1|operator|pipelines|(manifest|release|evaluation|feedback|quickstart)/.*)")


def test_every_key_in_a_yaml_file_is_listed() -> None:
    files = [path for folder in ("charts", "pipelines") for path in (ROOT / folder).rglob("*.yaml")]
    found = {key for path in files for key in re.findall(r"\btunegate\.io/[a-z0-9/-]+", path.read_text())}
    assert {key for key in found if key not in KEYS and not OTHERS.fullmatch(key)} == set()


def test_no_other_module_spells_a_key() -> None:
    files = [path for folder in ("src", "operators") for path in (ROOT / folder).rglob("*.py")]
    literal = re.compile(f"[\"']({'|'.join(KEYS)})[\"']")
    assert [path.name for path in files if path.name != "labels.py" and literal.search(path.read_text())] == []
