"""What an engine calls each version: never two by one name."""

from __future__ import annotations

import pytest

from tests.builders import make_cluster_policy, make_version
from tunegate.api.engine_names import DEFAULT, absent_name, check_template, name_in_engine, shared_name

ONE, TWO = make_version("run-1", step=10), make_version("run-1", step=20)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (DEFAULT, f"shop-{ONE.digest[7:19]}"),
        ("acme/{run}/{checkpoint}", "acme/run-1/checkpoint-10"),
        ("{digest}", ONE.digest[7:19]),
    ],
)
def test_each_version_has_a_name_of_its_own_and_so_has_none(template: str, name: str) -> None:
    check_template(template)
    assert name_in_engine(template, ONE) == name
    assert len({name, name_in_engine(template, TWO), absent_name(template, ONE)}) == 3


def test_an_engine_that_versions_share_knows_each_by_its_whole_digest() -> None:
    assert shared_name(ONE) == ONE.digest.removeprefix("sha256:") != shared_name(TWO)


@pytest.mark.parametrize("template", ["", "shop", "{model}", "{run}", "{checkpoint}", "shop-{version}", "{digest}{}"])
def test_a_template_that_could_give_two_versions_one_name_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"\{digest\}"):
        check_template(template)
    with pytest.raises(ValueError, match=r"\{digest\}"):
        make_cluster_policy(serving={"engine": "URL", "url": {"address": "https://x", "model": template}})


@pytest.mark.parametrize(
    "serving",
    [
        {"engine": "URL"},
        {"url": {"address": "https://x"}},
        {"engine": "URL", "url": {"address": "x.example"}},
        {"engine": "URL", "url": {"address": "https://"}},
        {"engine": "URL", "url": {"address": "https://x", "keySecret": {"name": "key"}}},
    ],
)
def test_an_engine_is_named_whole_or_not_at_all(serving: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's words vary
        make_cluster_policy(serving=serving)
