"""The page about clients: its programs run as they are, but for the address."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.apiserver import REPOSITORY
from tests.unit.serving.standin import Server

PAGE = (REPOSITORY / "docs/clients.md").read_text()
PROGRAMS: dict[str, str] = dict(re.findall(r"^## (.+?)\n(?:(?!^## ).*\n)*?```python\n(.*?)^```$", PAGE, re.M | re.S))
SAYS = {"DashScope": '"finish_reason": "stop"'}


def test_every_program_of_the_page_is_run() -> None:
    assert set(SAYS) == set(PROGRAMS)
    assert PAGE.count("```python") == len(PROGRAMS)


@pytest.mark.parametrize("title", SAYS)
def test_a_program_of_the_page_gets_its_answer(server: Server, title: str) -> None:
    program = PROGRAMS[title].replace("http://localhost:8080", server.url)
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=100, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert SAYS[title] in ended.stdout
    assert server.count("tunegate_answers_total") == 1
