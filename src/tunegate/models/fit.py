"""Whether what is to be published is whole: a model by itself, an adapter with its base, by names and shapes.

Of the base only config.json is read.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tunegate.api.errors import ModelError, UsageError
from tunegate.api.versions import ModelVersion
from tunegate.models.materialize import ADAPTERS, resolve_base
from tunegate.models.prompt_tuning import ADAPTER_WEIGHTS, kind_in
from tunegate.models.weights import check_weights
from tunegate.store import Store
from tunegate.store.release import read_file

_PICKLED = "adapter_model.bin"  # peft's former file


def require_whole(folder: Path) -> None:
    """Raise ModelError unless the model in `folder` has all weights that config.json describes, with finite numbers.

    Raises UsageError where there is no folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name the folder that holds the model's files.")
    check_weights(folder)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: config.json is missing; save the model there first.")
    from tunegate.models.network import check_network  # torch, once the files are known to be right

    check_network(folder)


def require_fit(store: Store, adapter: Path, base: ModelVersion) -> None:
    """Raise ModelError unless the adapter in a folder fits `base`, or what is beneath it, in every weight."""
    kind_in(adapter)
    check_weights(adapter)
    if not (adapter / ADAPTER_WEIGHTS).is_file() and not (adapter / _PICKLED).is_file():
        raise ModelError(f"{adapter} has no {ADAPTER_WEIGHTS}; publish the whole adapter.")
    while base.format in ADAPTERS:
        base = resolve_base(store, base)
    config = read_file(store, base, "config.json")
    from tunegate.models.adapters import with_adapter  # torch, once there is something to hold against another
    from tunegate.models.network import network_of_shapes

    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_bytes(config)
        network = network_of_shapes(Path(folder), f"config.json of {base.name}")
    with_adapter(network, adapter)
