"""A model version as a folder that an engine can load: fetched, merged, converted or made.

Nothing here knows of training runs, evaluations or HTTP. Importing this package imports no torch: the functions that
need it are found when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tunegate.models.materialize import check_folder, materialize

if TYPE_CHECKING:
    from tunegate.models.smollm2 import convert_smollm2
    from tunegate.models.tiny import make_tiny

__all__ = ["check_folder", "convert_smollm2", "make_tiny", "materialize"]

_NEED_TORCH = {"convert_smollm2": "tunegate.models.smollm2", "make_tiny": "tunegate.models.tiny"}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NEED_TORCH[name]), name)
