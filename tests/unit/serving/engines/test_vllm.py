"""What vLLM is started with, by the model's chat template."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.waiting import wait_for
from tunegate.models.templates import TEMPLATE_FILE, load_template
from tunegate.serving.engines import vllm
from tunegate.serving.engines.vllm import tool_parser

TEMPLATES = {
    "qwen": ("{% if tools %}write <tool_call>{'name': ...}</tool_call>{% endif %}", "hermes"),
    "qwen-coder": ("{% if tools %}write <tool_call><function=name>{% endif %}", "qwen3_coder"),
    "llama": ("{% if tools is defined %}{{ '<|python_tag|>' }}{% endif %}", "llama3_json"),
    "mistral": ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]", "mistral"),
    "deepseek": ("{{ tools }}<｜tool▁calls▁begin｜>", "deepseek_v3"),
    "none": (load_template("chatml"), None),
    "words-about-it": ("A <tool_call> is nothing here.", None),
}


@pytest.mark.parametrize(("template", "parser"), TEMPLATES.values(), ids=TEMPLATES)
def test_tool_calls_are_read_by_the_parser_of_the_models_template(template: str, parser: str | None) -> None:
    assert tool_parser(template) == parser


@pytest.mark.parametrize("template", ["qwen", "none"])
def test_vllm_is_told_the_parser(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    text, parser = TEMPLATES[template]
    model = shutil.copytree(base, tmp_path / "model")
    (model / TEMPLATE_FILE).write_text(text)
    (tmp_path / "bin").mkdir()
    for name in ("vllm", "python"):
        (tmp_path / "bin" / name).write_text('#!/bin/sh\necho "$@" that is all\nexec /bin/sleep 60\n')
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    log = tmp_path / "log"

    with vllm.start(model, "shop", log):
        wait_for(lambda: log.is_file() and "that is all" in log.read_text(), what="its words")

    assert ("--enable-auto-tool-choice --tool-call-parser hermes" in log.read_text()) == (parser is not None)
