"""`transformers serve` for a base model under a soft prompt's prefix: python -m tunegate.serving.engines.program.

A prefix is keys and values that lie in the cache before the first token. The paged cache of continuous batching has no
place for them, so answers are made one after the other; they still stream, and others wait. All that is changed of
`transformers serve` is what its model manager loads. The sampling comes as an argument, since without batching each
request takes the model's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.cli.serve import Serve
from transformers.cli.serving import model_manager

from tunegate.models.adapters import under_prefix


def main(folder: str, port: str, generation: str) -> None:
    """Serve the model in `folder` on loopback; `generation` is a generation configuration as JSON."""
    plain = model_manager.ModelManager

    class PrefixManager(plain):  # type: ignore[misc, valid-type]
        def _load_model(self, *args: Any, **kwargs: Any) -> Any:
            model = under_prefix(super()._load_model(*args, **kwargs), Path(folder))
            model.generation_config = GenerationConfig.from_dict(json.loads(generation))
            return model

    model_manager.ModelManager = PrefixManager
    Serve(force_model=folder, host="127.0.0.1", port=int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
