"""The page about engines: its policy is one, and what it says of names is so."""

from __future__ import annotations

import re

from tests.apiserver import REPOSITORY
from tests.builders import make_version
from tunegate.api.engine_names import DEFAULT, name_in_engine
from tunegate.api.policy import read_policy_file

PAGE = (REPOSITORY / "docs/engines.md").read_text()


POLICIES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_policy_of_the_page_gives_each_version_an_engine_of_two_pods() -> None:
    serving = read_policy_file(POLICIES[0].encode(), "docs/engines.md").serving
    assert serving.llm_inference_service
    assert serving.llm_inference_service.parallelism.pods == 2


def test_the_policy_of_the_page_has_versions_share_an_engine_with_the_bounds_that_there_are_by_default() -> None:
    serving = read_policy_file(POLICIES[1].encode(), "docs/engines.md").serving
    assert serving.share_base
    assert serving.shared_engine
    assert (serving.shared_engine.max_adapters, serving.shared_engine.max_rank) == (8, 64)


def test_the_policy_of_the_page_asks_an_engine_for_each_version_by_the_name_that_the_page_gives() -> None:
    *_, text = POLICIES
    url = read_policy_file(text.encode(), "docs/engines.md").serving.url
    assert url
    assert f"`{name_in_engine(url.model, make_version('run-7', step=80))}`" in PAGE
    assert f"by default {DEFAULT}\n" in text
