"""Writes the chart's README.md, whose table of values comes from the comments in values.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent
HEAD = """# tunegate

Promotes fine-tuned language models by evaluation gates and user feedback, on KServe. The chart installs the operator,
the three kinds ModelVersion, PromotionPolicy and Promotion, and what KServe needs to serve their versions. KServe, the
Gateway API and Prometheus it expects in the cluster; what to run first is in [docs/install.md](../../docs/install.md).

```console
$ helm install tunegate charts/tunegate --namespace tunegate --create-namespace --set store.uri=s3://models
```

Four sets of values that are tested: [ci/](ci). Values that are misspelled are refused.

## Values

`python charts/tunegate/generate_readme.py` writes this table from [values.yaml](values.yaml).

| value | default | meaning |
|---|---|---|
"""


def read_values(text: str) -> Iterator[tuple[str, object, str]]:
    """Each value with a `# --` sentence above it: dotted name, default, sentence."""
    values = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    sentence = ""
    for line in text.splitlines():
        word = line.strip()
        if word.startswith("# -- "):
            sentence = word.removeprefix("# -- ")
            continue
        key, colon, _ = word.partition(":")
        if not colon:
            continue
        indent = len(line) - len(line.lstrip())
        path = [step for step in path if step[0] < indent] + [(indent, key)]
        if sentence:
            names = [name for _, name in path]
            yield ".".join(names), _find(values, names), sentence
            sentence = ""


def _find(values: Any, names: list[str]) -> object:
    for name in names:
        values = values[name]
    return values


def render(text: str) -> str:
    rows = (f"| `{name}` | `{json.dumps(default)}` | {sentence} |\n" for name, default, sentence in read_values(text))
    return HEAD + "".join(rows)


if __name__ == "__main__":
    (CHART / "README.md").write_text(render((CHART / "values.yaml").read_text()))
