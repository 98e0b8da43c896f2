"""The page about engines: its policy is one, and what it says of names is so."""

from __future__ import annotations

import re

from tests.apiserver import REPOSITORY
from tests.builders import make_version
from tunegate.api.engine_names import DEFAULT, name_in_engine
from tunegate.api.policy import read_policy_file

PAGE = (REPOSITORY / "docs/engines.md").read_text()


def test_the_policy_of_the_page_asks_an_engine_for_each_version_by_the_name_that_the_page_gives() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    url = read_policy_file(text.encode(), "docs/engines.md").serving.url
    assert url
    assert f"`{name_in_engine(url.model, make_version('run-7', step=80))}`" in PAGE
    assert f"by default {DEFAULT}\n" in text
