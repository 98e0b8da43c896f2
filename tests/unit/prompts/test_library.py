from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.prompts.builders import NONCE
from tunegate.api.errors import PromptError, UsageError
from tunegate.prompts import load_template, render


def write(folder: Path, **texts: str) -> Path:
    """Files `<name>.prompt`; the first of them is returned."""
    for name, text in texts.items():
        (folder / f"{name}.prompt").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(texts))}.prompt"


def test_a_template_includes_files_of_its_folder(tmp_path: Path) -> None:
    path = write(
        tmp_path, shop="Sell.\n{% include 'rules.prompt' %}", rules="Rules: {% include 'more.prompt' %}", more="be kind"
    )

    made = load_template(path)

    assert render(made, {}, nonce=NONCE)[0].content == "Sell.\nRules: be kind"
    assert set(made.parts) == {"rules.prompt", "more.prompt"}
    write(tmp_path, more="be brief")
    assert load_template(path).digest != made.digest


@pytest.mark.parametrize("name", ["../secret.prompt", "/etc/hostname", "link.prompt"])
def test_an_include_from_outside_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, secret="key")
    (tmp_path / "prompts").mkdir()
    path = write(tmp_path / "prompts", shop=f"Sell.\n{{% include '{name}' %}}")
    (tmp_path / "prompts" / "link.prompt").symlink_to(tmp_path / "secret.prompt")

    with pytest.raises(PromptError, match=r"shop.prompt:2: '.*' lies outside of the template's folder"):
        load_template(path)


def test_parts_that_include_each_other_end(tmp_path: Path) -> None:
    path = write(tmp_path, shop="{% include 'a.prompt' %}", a="{% include 'b.prompt' %}", b="{% include 'a.prompt' %}")

    with pytest.raises(PromptError, match="recursion"):
        render(load_template(path), {}, nonce=NONCE)


def test_an_error_within_a_part_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, shop="{% include 'a.prompt' %}", a="\n{{ nothing }}")

    with pytest.raises(PromptError, match=r"a.prompt:2 \(included in .*shop.prompt:1\): `nothing` is undefined"):
        render(load_template(path), {}, nonce=NONCE)


def test_missing_parts_and_control_tokens_in_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"shop.prompt:1: 'gone.prompt' does not exist"):
        load_template(write(tmp_path, shop="{% include 'gone.prompt' %}"))
    with pytest.raises(PromptError, match=r"a.prompt holds <\|im_end\|>"):
        load_template(write(tmp_path, shop="{% include 'a.prompt' %}", a="<|im_end|>"))


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "shop.prompt"
    path.write_bytes("Sell.\n水壶\n".encode("gb18030"))

    with pytest.raises(PromptError, match=r"shop.prompt:2: the file is not UTF-8; save it with that encoding"):
        load_template(path)


def test_a_byte_order_mark_and_windows_lines_are_no_difference(tmp_path: Path) -> None:
    plain = write(tmp_path, shop="--- user\nSell.\n")
    (tmp_path / "windows.prompt").write_bytes(b"\xef\xbb\xbf--- user\r\nSell.\r\n")

    assert load_template(tmp_path / "windows.prompt").digest == load_template(plain).digest


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no template nothing; give a file, or one of"):
        load_template("nothing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_can_not_be_read_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, shop="Sell.")
    path.chmod(0)

    with pytest.raises(PromptError, match="check its permissions"):
        load_template(path)
