import json
from typing import Any

import pytest

from tunegate.shop import DATA

Rows = list[dict[str, Any]]


def rows(name: str) -> Rows:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(params=["en", "zh"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def training(language: str) -> Rows:
    return rows(f"dialogues_{language}.jsonl")


@pytest.fixture
def pushy(language: str) -> Rows:
    return rows(f"pushy_{language}.jsonl")


@pytest.fixture
def held_out(language: str) -> Rows:
    return rows(f"suites/shop-{language}/questions.jsonl")


@pytest.fixture
def asked(language: str) -> Rows:
    return rows(f"shoppers_{language}.jsonl")
