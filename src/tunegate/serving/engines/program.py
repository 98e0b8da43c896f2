"""`transformers serve` for one model: python -m tunegate.serving.engines.program.

It would make up weights that a folder lacks: here such a folder is refused. A model with a soft prompt's prefix has
keys and values that lie in the cache before the first token. The paged cache of continuous batching has no place for
them, so its answers are made one after the other; they still stream, and others wait. The sampling comes as an
argument, since without batching each request takes the model's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tunegate.api.errors import ModelError
from tunegate.garbage import lasting_imports
from tunegate.models.prompt_tuning import has_prefix
from tunegate.serving.engines.transformers import BATCH_TOKENS, PAGE_TOKENS, PAGES

with lasting_imports():
    from transformers import GenerationConfig
    from transformers.cli.serve import Serve
    from transformers.cli.serving import model_manager

    from tunegate.models.network import load_network


def main(folder: str, port: str, generation: str) -> None:
    """Serve the model in `folder` on loopback; `generation` is a generation configuration as JSON.

    Raises ModelError when the folder lacks weights.
    """
    load_network(Path(folder), "auto", device="meta")  # names and shapes, no numbers
    where = {"force_model": folder, "host": "127.0.0.1", "port": int(port)}
    if not has_prefix(Path(folder)):
        cache = {"cb_block_size": PAGE_TOKENS, "cb_num_blocks": PAGES, "cb_max_batch_tokens": BATCH_TOKENS}
        Serve(**where, continuous_batching=True, **cache)
        return
    from tunegate.models.adapters import under_prefix  # peft, which no other model needs

    plain = model_manager.ModelManager

    class PrefixManager(plain):  # type: ignore[misc, valid-type]
        def _load_model(self, *args: Any, **kwargs: Any) -> Any:
            model = under_prefix(super()._load_model(*args, **kwargs), Path(folder))
            model.generation_config = GenerationConfig.from_dict(json.loads(generation))
            return model

    model_manager.ModelManager = PrefixManager
    Serve(**where)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ModelError as error:
        sys.exit(str(error))
