"""`transformers serve` for one model: python -m tunegate.serving.engines.program.

It would make up weights that a folder lacks: here such a folder is refused. A model with a soft prompt's prefix has
keys and values that lie in the cache before the first token. The paged cache of continuous batching has no place for
them, so its answers are made one after the other; they still stream, and others wait. A LoRA that lies beside its base
is computed in each layer.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from tunegate.api.errors import ModelError
from tunegate.garbage import lasting_imports
from tunegate.models.prompt_tuning import has_lora, has_prefix
from tunegate.serving.engines.heartbeat import Heartbeat
from tunegate.serving.engines.transformers import BATCH_TOKENS, PAGE_TOKENS, PAGES

with lasting_imports():
    from transformers.cli.serve import Serve
    from transformers.cli.serving import model_manager, server, utils

    from tunegate.models.network import load_network
    from tunegate.serving.engines.drawing import DrawingManager
    from tunegate.serving.engines.upcast import upcast


def main(folder: str, port: str) -> None:
    """Serve the model in `folder` on loopback. Raises ModelError when the folder lacks weights."""
    load_network(Path(folder), "auto", device="meta")  # names and shapes, no numbers
    with_prefix, with_lora = has_prefix(Path(folder)), has_lora(Path(folder))
    heartbeat = Heartbeat()
    build, plain = server.build_server, model_manager.ModelManager

    class Manager(plain):  # type: ignore[misc, valid-type]
        def _load_model(self, *args: Any, **kwargs: Any) -> Any:
            model = super()._load_model(*args, **kwargs)
            if with_prefix:
                from tunegate.models.adapters import under_prefix  # peft, which no other model needs

                model = under_prefix(model, Path(folder))
            if with_lora:
                from tunegate.models.adapters import under_lora

                model = under_lora(model, Path(folder))
            upcast(model)
            model.register_forward_hook(heartbeat.step)
            return model

    model_manager.ModelManager = Manager
    server.build_server = lambda *args, **kwargs: heartbeat.around(build(*args, **kwargs))
    utils.CBGenerateManager = DrawingManager
    logging.getLogger("uvicorn.access").addFilter(lambda _: False)  # health and progress, every other second
    where = {"force_model": folder, "host": "127.0.0.1", "port": int(port)}
    if with_prefix:
        Serve(**where)
        return
    cache = {"cb_block_size": PAGE_TOKENS, "cb_num_blocks": PAGES, "cb_max_batch_tokens": BATCH_TOKENS}
    Serve(**where, continuous_batching=True, cb_use_cuda_graph=False, **cache)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ModelError as error:
        sys.exit(str(error))
