"""Log records as lines of JSON on standard error, for people who search them by field."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime

# Never printed, wherever they come up: in a message of another library, in a traceback.
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "TUNEGATE_FEEDBACK_KEY")
# What every record has; the rest came with `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, then the fields of `extra`, then the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return _without_secrets(json.dumps(fields, default=str, ensure_ascii=False))


def configure(level: str) -> None:
    """Send everything from `level` on to standard error; of other libraries only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for ours in ("tunegate", "tunegate_operator"):
        logging.getLogger(ours).setLevel(level)


def _without_secrets(line: str) -> str:
    for name in SECRETS:
        if value := os.environ.get(name):
            line = line.replace(json.dumps(value, ensure_ascii=False)[1:-1], "***")
    return line
