"""The page about clients: its programs run as they are, but for the address."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.apiserver import REPOSITORY
from tests.unit.serving.releases import opened
from tests.unit.serving.standin import Server
from tunegate.serving.parts import Parts

PAGE = (REPOSITORY / "docs/clients.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
PROGRAMS = {
    title: part.split("```python\n")[1].split("```")[0] for title, part in SECTIONS.items() if "```python" in part
}
PARTS = "Prompts, knowledge and tools"
STREAMED, WHOLE = 'a "model":"/models/x@main" 夏', "Blue."
SAYS = {
    "OpenAI": STREAMED,
    "LiteLLM": WHOLE,
    "LangChain": STREAMED,
    "DashScope": '"finish_reason": "stop"',
    "Whale": STREAMED,
}


def test_every_program_of_the_page_is_run() -> None:
    assert {*SAYS, PARTS} == set(PROGRAMS)
    assert PAGE.count("```python") == len(PROGRAMS)


@pytest.mark.parametrize("title", SAYS)
def test_a_program_of_the_page_gets_its_answer(server: Server, title: str) -> None:
    assert SAYS[title] in printed(server, title)
    assert server.count("tunegate_answers_total") == 1


class TestOfARelease:
    """One with knowledge that a tool looks up."""

    @pytest.fixture
    def parts(self, shop_index: Path) -> Parts:
        return opened(index=shop_index, tools=("knowledge",))

    def test_the_program_prints_what_the_answer_rests_on(self, server: Server) -> None:
        server.engine.says = [
            "Action: Knowledge base\nInput: How many days to send it back?",
            "Final Result: Within 14 days [1].",
        ]
        answer, cited, source, *rest = printed(server, PARTS).splitlines()

        assert (answer, cited.split(" ")[:2]) == ("Within 14 days [1].", ["15", "18"])
        assert source.startswith("1 Xuan's shop: help > ")
        assert "1 knowledge How many days to send it back? [1] Xuan's shop: help" in "\n".join(rest)
        assert rest[-1] == "cited: [1]"


def printed(server: Server, title: str) -> str:
    """What a program of the page prints."""
    program = PROGRAMS[title].replace("http://localhost:8080", server.url)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "docs/examples")}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=200, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_the_pages_curl_is_answered(server: Server) -> None:
    command = SECTIONS["EAS"].split("```sh\n")[1].split("```")[0].replace("\\\n", "")
    _, url, _, authorization, _, content_type, _, body = shlex.split(command)
    headers = dict(header.split(": ") for header in (authorization, content_type))
    request = urllib.request.Request(url.replace("http://localhost:8080", server.url), body.encode(), headers)

    with urllib.request.urlopen(request, timeout=100) as response:
        assert response.read().endswith(b"data: [DONE]\n\n")
