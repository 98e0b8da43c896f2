"""The chat templates that training writes beside the weights, so that serving renders the same bytes.

`chatml` adds the system turn "You are a helpful assistant." to a dialogue that begins without one, as
LLaMA-Efficient-Tuning 0.1.8 did; a dialogue with its own system turn, even an empty one, is left as it is.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tunegate.api.errors import UsageError

TEMPLATE_FILE = "chat_template.jinja"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
TEMPLATES = {"chatml": Path(__file__).with_name("chatml.jinja")}


def load_template(name: str) -> str:
    """The Jinja text of the template called `name`. Raises UsageError for an unknown name."""
    if name not in TEMPLATES:
        raise UsageError(f"There is no template {name!r}; the templates are: {', '.join(sorted(TEMPLATES))}.")
    return TEMPLATES[name].read_text(encoding="utf-8")


def template_of(folder: Path) -> str:
    """The Jinja text of a model folder's chat template, or of several of them; empty without one."""
    if (folder / TEMPLATE_FILE).is_file():
        return (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    old = folder / "tokenizer_config.json"  # where templates were before they had a file of their own
    found = msgspec.json.decode(old.read_bytes(), type=dict).get("chat_template", "") if old.is_file() else ""
    return found if isinstance(found, str) else "\n".join(str(each.get("template", "")) for each in found)
