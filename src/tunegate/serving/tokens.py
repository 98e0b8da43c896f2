"""The token ids of the model served, beside those that clients send: another model's ids mean other tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunegate.serving.events import bad_request


@dataclass(frozen=True)
class Tokens:
    """vocabulary: how many ids there are, 0 where that isn't known. special: by name, such as eos_token_id."""

    vocabulary: int = 0
    special: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def check_special(self, given: Mapping[str, Any], names: Mapping[str, str]) -> None:
        """Raises ApiError 400 with the right ids unless all are the model's; `names`: how the client calls them."""
        wrong = [name for name, value in given.items() if not self._is_right(name, value)]
        if not wrong:
            return
        field = names.get(wrong[0], wrong[0])
        if not self.special:
            message = f"{field}: the token ids of this model are its engine's alone; leave them out."
        else:
            ids = (f"{name} {' or '.join(map(str, self.special[name]))}" for name in given if name in self.special)
            lacking = [name for name in given if name not in self.special]
            known = [f"this model has {', '.join(ids)}"] * (len(lacking) < len(given))
            known += [f"no {', '.join(lacking)}"] * bool(lacking)
            message = f"{field} is another model's: {' and '.join(known)}; send these or leave them out."
        raise bad_request(message, field, "invalid_value")

    def check_prompt(self, prompt: Any) -> None:
        """Raises ApiError 400 when a prompt has an id that the model lacks."""
        rows = prompt if isinstance(prompt, list) else []
        for row in rows:
            for token in row if isinstance(row, list) else [row]:
                if not isinstance(token, int | str) or isinstance(token, bool):
                    raise bad_request("prompt holds what is neither text nor a token id; send a text.", "prompt")
                if isinstance(token, int) and (token < 0 or (self.vocabulary and token >= self.vocabulary)):
                    last = f" has the ids 0 to {self.vocabulary - 1}" if self.vocabulary else " has no negative ids"
                    raise bad_request(f"prompt: {token} is no token of this model, which{last}.", "prompt")

    def _is_right(self, name: str, value: Any) -> bool:
        given = tuple(value) if isinstance(value, list) else (value,)
        ours = self.special.get(name, ())
        return bool(given) and all(type(token) is int and token in ours for token in given)


def read_tokens(folder: Path) -> Tokens:
    """The token ids of the model in `folder`."""
    found: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        found |= msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    ids = {name: value for name, value in found.items() if name.endswith("_token_id") and value is not None}
    special = {name: tuple(value) if isinstance(value, list) else (value,) for name, value in ids.items()}
    return Tokens(int(found.get("vocab_size", 0)), special)
