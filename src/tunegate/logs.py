"""What every program of tunegate writes to its log: readable on a terminal, lines of JSON everywhere else.

Fields come with `extra` and are kept in both forms. What is secret is taken out here, once, wherever it comes up: in
our own message, in that of another library, in a traceback.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tunegate.api.environment import SECRETS

# The variables whose values are never printed.
# What every record has; the rest came with `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, then the fields of `extra`, then the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return redact(json.dumps(fields, default=str, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """The local time, the level where it is no INFO, the message, and the fields of `extra` as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return redact(f"{time} {level}{record.getMessage()}{fields}{trace}")


def configure(level: str = "INFO") -> None:
    """Send everything from `level` on to standard error; of other libraries only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for ours in ("tunegate", "tunegate_operator"):
        logging.getLogger(ours).setLevel(level)


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text without the values of SECRETS, as they are and as JSON writes them."""
    for name in SECRETS:
        if value := environ.get(name):
            for spelled in (value, json.dumps(value, ensure_ascii=False)[1:-1]):
                text = text.replace(spelled, "***")
    return text


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}
