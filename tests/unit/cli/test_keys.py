from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tunegate.cli import main, root
from tunegate.serving.auth import Keys, read_keys


def create(path: Path, *words: str) -> str:
    done = CliRunner().invoke(root, ["keys", "create", *words, "--keys", str(path)])
    assert done.exit_code == 0, done.output
    return done.output.strip()


def test_a_key_is_printed_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    first = create(path, "web", "--requests-per-minute", "60", "--concurrent", "4")
    second = create(path, "web")

    assert first != second
    assert first not in path.read_text()
    assert [key.name for key in read_keys(path).keys] == ["web", "web"]
    found = Keys(path).find(first)
    assert found is not None
    assert (found.requests_per_minute, found.concurrent) == (60, 4)
    assert found.created is not None
    assert Keys(path).find(second)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("a b", "", "can't name a key"), ("web", "keys: 5", "not a valid KeyFile")],
)
def test_what_can_be_no_key_is_refused(
    name: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.yaml"
    if text:
        path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["keys", "create", name, "--keys", str(path)])

    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert path.exists() is bool(text)
