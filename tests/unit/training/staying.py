"""A program of one rank: it holds the report of the run's last version until it may go on, and says when it is over."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.waiting import wait_for
from tunegate.api.codec import from_json
from tunegate.api.versions import ModelVersion
from tunegate.training import TrainConfig
from tunegate.training.launch.external import train


def main(folder: Path) -> None:
    def report(news: Any) -> None:
        if isinstance(news, ModelVersion) and news.name.endswith("-12"):
            (folder / "held").touch()
            wait_for((folder / "go").exists)

    config = from_json((folder / "config.json").read_bytes(), TrainConfig, "config")
    if not train(config, report):
        (folder / "over").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
