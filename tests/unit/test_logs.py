"""What our programs write to their logs: fields are kept, secrets are not."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from tunegate.logs import JsonFormatter, TextFormatter, configure

FORMATTERS = pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()], ids=["json", "text"])


def test_a_record_is_one_line_of_json_with_its_fields() -> None:
    record = logging.makeLogRecord({"name": "x", "levelname": "WARNING", "msg": "odd\n%s", "args": ("你好",)})
    record.policy = "shop"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "你好" in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["policy"]) == ("warning", "x", "shop")
    assert fields["time"].endswith("+00:00")


def test_on_a_terminal_a_record_is_read_with_its_fields() -> None:
    record = logging.makeLogRecord({"name": "x", "levelno": logging.WARNING, "levelname": "WARNING", "msg": "odd"})
    record.kind = "TimeoutError"
    assert TextFormatter().format(record).endswith(" warning: odd kind=TimeoutError")


def test_what_is_no_terminal_gets_json_and_only_warnings_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    try:
        configure()
        logging.getLogger("tunegate.serving").info("started", extra={"port": 80})
        logging.getLogger("urllib3").info("chatter")
    finally:
        root.setLevel(before[0])
        root.handlers = before[1]
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["port"] == 80


@FORMATTERS
def test_a_secret_is_never_printed(formatter: logging.Formatter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", 'ab"c/d')
    try:
        raise ValueError('refused: ab"c/d')  # noqa: TRY301
    except ValueError:
        record = logging.makeLogRecord({"msg": 'key ab"c/d', "exc_info": sys.exc_info()})
    line = formatter.format(record)
    assert "key ***" in line
    assert "c/d" not in line
